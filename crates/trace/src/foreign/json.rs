//! `bpftrace -f json`: a JSON object a line, `{"type": …, "data": …}`.
//!
//! `printf` carries text, which is a line (or several) of our recorder's program; `lost_events`
//! says how many were lost. Other types (`attached_probes`, `map`, `time`, …) are not needed.

use super::Foreign;
use serde::Deserialize;

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: serde_json::Value,
}

pub(super) fn line(text: &[u8], out: &mut Vec<u8>) -> Foreign {
    let Ok(record) = serde_json::from_slice::<Record>(text) else { return Foreign::Unknown };
    match (record.kind.as_str(), &record.data) {
        ("printf", serde_json::Value::String(data)) if data.starts_with('#') => Foreign::NotNeeded,
        ("printf", serde_json::Value::String(data)) => {
            out.extend_from_slice(data.as_bytes());
            Foreign::Lines
        }
        ("lost_events", data) => Foreign::Lost(data.get("events").and_then(|n| n.as_u64())),
        _ => Foreign::NotNeeded,
    }
}
