//! The help of a finding, completed with the call that mends it in the kernel at hand.

use textbed_arch::Arch;
use textbed_check::Report;
use textbed_kernel::{Version, remedies};

/// Adds to each finding's help what the kernel's table has for its rule and the kind of operation
/// that is missing, on its architecture and in its version.
pub(crate) fn complete(report: &mut Report, arch: Arch, version: Version) {
    for finding in &mut report.findings {
        let (rule, operation) = (finding.rule.name(), finding.operation.name());
        for remedy in remedies(rule, operation, arch, version) {
            let text = format!("in Linux {version} on {arch}: {} {}", remedy.call, remedy.does);
            let source = format!("; source: {}", remedy.cite);
            let help = finding.help.get_or_insert_default();
            if !help.is_empty() {
                help.push('\n');
            }
            help.push_str(&text);
            help.push_str(&source);
        }
    }
}
