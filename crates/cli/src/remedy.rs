//! The help of a finding, completed with the call that mends it in the kernel at hand.

use std::fmt::Write as _;

use textbed_arch::Arch;
use textbed_check::{Operation, Report};
use textbed_kernel::{Version, look_at_result, remedies};

/// Adds to each finding's help what the kernel's table has for its rule and the kind of operation
/// that is missing, on its architecture and in its version.
pub(crate) fn complete(report: &mut Report, arch: Arch, version: Version) {
    for finding in &mut report.findings {
        let (rule, operation) = (finding.rule.name(), finding.operation.name());
        let failed = finding.at.calls.last().filter(|_| finding.operation == Operation::Result);
        let own = failed.and_then(|call| look_at_result(call, arch, version));
        let rows = || remedies(rule, operation, arch, version);
        let table = || rows().map(|row| (row.call.to_owned(), row.does, row.cite)).collect();
        let lines: Vec<_> = own.map_or_else(table, |line| vec![line]);
        for (call, does, cite) in lines {
            let help = finding.help.get_or_insert_default();
            if !help.is_empty() {
                help.push('\n');
            }
            let _ = write!(help, "in Linux {version} on {arch}: {call} {does}; source: {cite}");
        }
    }
}
