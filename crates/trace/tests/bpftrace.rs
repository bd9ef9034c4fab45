//! Logs that the recorder's bpftrace program wrote on a real kernel, as text and as JSON
//! (`tools/lab -b`): read whole, put in order of time, and judged like those of tracefs.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests may

use std::path::{Path, PathBuf};
use textbed_check::rules::RuleId;
use textbed_check::{Checker, Coverage, Options as CheckOptions, Report};
use textbed_event::Kind;
use textbed_trace::reader::LineReader;
use textbed_trace::{Options, Summary, replay};

fn path(name: &str) -> PathBuf {
    let logs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs");
    logs.join("amd64-6.12-bpftrace").join(name)
}

fn judge(name: &str) -> (Report, Summary) {
    let mut checker = Checker::new(CheckOptions::default());
    let done = replay(&path(name), &Options::default(), &mut checker).unwrap();
    (checker.finish(), done.summary)
}

/// How often the time of a line is before that of the line above, as the file has them.
fn steps_back(name: &str) -> usize {
    let mut reader = LineReader::open(&path(name)).unwrap();
    let mut times = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        let text = String::from_utf8_lossy(line.bytes).into_owned();
        let time = text.split("] ").nth(1).and_then(|t| t.split(':').next()?.parse::<f64>().ok());
        times.extend(time);
    }
    assert!(times.len() > 3000, "{}", times.len());
    times.windows(2).filter(|w| w[1] < w[0]).count()
}

#[test]
fn what_bpftrace_recorded_is_read_whole_and_judged() {
    for name in ["trace.txt.zst", "trace.json.zst"] {
        assert!(steps_back(name) > 0, "{name} is in order as it is");
        let (report, summary) = judge(name);
        println!("{name}: {} lines, {} events", summary.accounting.lines, report.events);
        assert_eq!(summary.accounting.not_understood_lines(), 0, "{name}");
        assert_eq!(summary.accounting.lost_events, 0, "{name}");
        assert_eq!(summary.sections.len(), 1, "{name}: one boot");
        assert_eq!(summary.counts.time_backwards, 0, "{name}");
        assert_eq!(summary.merged.map(|m| m.late), Some(0), "{name}");
        assert_eq!(summary.conflicts.total(), 0, "{name}");
        assert!(report.findings.is_empty(), "{name}: {:?}", report.findings);
        for rule in [RuleId::BrokenPromise, RuleId::ExecAfterFree, RuleId::WxStaleTranslation] {
            let (_, coverage) = report.coverage.iter().find(|(r, _)| *r == rule).unwrap();
            assert!(matches!(coverage, Coverage::Checked(n) if *n > 10), "{name}: {rule}");
        }
        assert!(summary.counts.patches_judged > 20, "{name}");
        assert!(summary.counts.ipis_taken > 20, "{name}");
        // The page allocator's own word is there, and exact.
        assert!(summary.events.get(&Kind::FrameFree).is_some_and(|n| *n > 10), "{name}");
        // All probes were there before the first line: few calls have lost their other half.
        let (mut entered, mut torn) = (0, 0);
        for (_, count) in summary.calls.iter().filter(|(_, c)| c.returned > 0) {
            entered += count.entered;
            torn += count.return_without_entry;
        }
        assert!(entered > 100 && torn * 50 < entered, "{name}: {torn} of {entered}");
        let modules: Vec<_> =
            summary.owners.keys().filter(|(owner, _)| owner == "module").collect();
        assert!(!modules.is_empty(), "{name}: {:?}", summary.owners);
    }
}
