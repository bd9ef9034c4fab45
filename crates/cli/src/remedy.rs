//! The help of a finding, completed with the call that mends it in the kernel at hand.

use textbed_arch::Arch;
use textbed_check::Report;
use textbed_kernel::{Version, remedies};

/// Adds to each finding's help what the kernel's table has for its rule, architecture and version.
pub(crate) fn complete(report: &mut Report, arch: Arch, version: Version) {
    for finding in &mut report.findings {
        for remedy in remedies(finding.rule.name(), arch, version) {
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
