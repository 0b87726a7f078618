//! Writes `seeds/`, the inputs that the fuzzer begins with.

use std::{error::Error, fs, path::Path};

use serde_json::{Value, json};

/// Events as they are written, from the tests of that form.
const EVENTS: &str = include_str!("../../crates/runtide-core/tests/golden/events.json");

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        fs::create_dir_all(root.join(target))?;
        fs::write(root.join(target).join(name), bytes)
    };
    write("segment", "closed", &runtide_fuzz::sound_segment(true))?;
    write("segment", "open", &runtide_fuzz::sound_segment(false))?;
    // A few of each kind of change, all over the files.
    for what in 0..8_u8 {
        let bytes: Vec<u8> = (0..5).flat_map(|n| [1, what, n, n * 31, n * 7, n * 57, n * 3, n * 40, 1]).collect();
        write("segments", &format!("change-{what}"), &bytes)?;
    }
    write("journal", "events", &lines(&events()?))?;
    write("journal", "operations", &lines(&runtide_fuzz::operations()))?;
    Ok(())
}

fn lines(payloads: &[Vec<u8>]) -> Vec<u8> {
    payloads.join(&b'\n')
}

/// A watch with some events, and a checkpoint in their midst.
fn events() -> Result<Vec<Vec<u8>>, serde_json::Error> {
    let events: Vec<Value> = serde_json::from_str(EVENTS)?;
    let row = events[0]["kind"]["data"].clone();
    let backend = "docker:local";
    let mut records = vec![json!({"watch": {"backend": backend, "from": null}})];
    records.extend(events.iter().take(3).map(|event| json!({"event": event})));
    let checkpoint = records.len() + 1;
    let stored =
        json!({backend: {"place": [events[0]["cursor"], "live"], "resume": events[0]["cursor"], "keys": []}});
    records.extend([
        json!("checkpoint"),
        json!({"rows": {"backend": backend, "rows": [row]}}),
        json!({"checkpoint_end": stored}),
    ]);
    records.extend(events.iter().skip(3).take(2).map(|event| json!({"event": event})));
    let end = checkpoint + 2;
    let last = |seq: usize| if seq < end { 0 } else { checkpoint };
    let enveloped = |(record, seq): (Value, usize)| json!({"v": 1, "checkpoint": last(seq), "record": record});
    records.into_iter().zip(1..).map(|record| serde_json::to_vec(&enveloped(record))).collect()
}
