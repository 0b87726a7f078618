//! Every state that a power cut can leave.

use std::{path::Path, sync::Arc};

use super::{KIND, assert_records, model::Model, payload, small};
use crate::wal::{Durability, Retention, Seq, Wal, WalOptions, verify_with};

const DIR: &str = "/log";

fn on(model: &Model) -> WalOptions {
    WalOptions { disk: Some(Arc::new(model.clone())), ..small() }
}

/// Two openings, several segments, batches and a retention, each acknowledgement noted.
fn a_life(durability: Durability) -> Model {
    let model = Model::default();
    for opening in 0..2 {
        let wal = Wal::open(Path::new(DIR), WalOptions { durability, ..on(&model) }).unwrap();
        for step in 0..40 {
            let next = wal.anchor().seq.0 + 1;
            let last = if step % 7 == 0 {
                let payloads: Vec<_> = (next..next + 3).map(payload).collect();
                let batch: Vec<_> = payloads.iter().map(|payload| (KIND, &payload[..])).collect();
                wal.append_batch_blocking(&batch).unwrap().end().0
            } else {
                wal.append_blocking(KIND, &payload(next)).unwrap().0
            };
            if durability != Durability::Commit && step % 10 == 9 {
                wal.sync_blocking().unwrap();
            }
            if durability == Durability::Commit || step % 10 == 9 {
                model.note(last);
            }
        }
        if opening == 1 {
            assert!(wal.retain(Retention::default().with_keep_from(Seq(60))).unwrap().segments > 0);
        }
        wal.close().unwrap();
    }
    model
}

/// Opens what a crash left, and looks whether what was acknowledged is there; then again after an append.
fn survives(crashed: &Model, acked: u64, case: &str) {
    let wal = Wal::open(Path::new(DIR), on(crashed)).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    assert!(wal.damage().is_none(), "{case}");
    let records = wal.tail(10_000).unwrap();
    let first = records.first().map_or(1, |record| record.seq.0);
    let next = assert_records(&records, first);
    assert!(next > acked && first <= 60, "{case}: {first} to {next}, and {acked} was acknowledged");
    assert_eq!(wal.append_blocking(KIND, &payload(next)).unwrap().0, next, "{case}");
    let anchor = wal.anchor();
    // A second crash, right after the acknowledgement.
    let again = crashed.crash_now();
    drop(wal);
    let wal = Wal::open(Path::new(DIR), on(&again)).unwrap_or_else(|error| panic!("{case}: again: {error:?}"));
    assert_eq!(assert_records(&wal.tail(10_000).unwrap(), first), next + 1, "{case}");
    drop(wal);
    let verified = verify_with(Path::new(DIR), Some(&anchor), &on(&again)).unwrap();
    assert!(verified.damage.is_none() && verified.anchored && verified.torn.is_none(), "{case}: {verified:?}");
}

fn every_crash(durability: Durability) {
    let model = a_life(durability);
    let mut random = fastrand::Rng::with_seed(7);
    for until in 0..=model.operations() {
        for way in 0..10 {
            // Nothing, everything, and mixtures of all degrees.
            let share = f64::from(way) / 9.0;
            let (crashed, acked) = model.crash(until, || random.f64() < share);
            survives(&crashed, acked, &format!("{durability:?}, {until} operations, way {way}"));
        }
    }
}

#[test]
fn acknowledged_records_survive_a_power_cut_at_any_operation_with_any_sectors_lost() {
    every_crash(Durability::Commit);
}

#[test]
fn synced_records_survive_a_power_cut_where_commits_are_not_synced_one_by_one() {
    every_crash(Durability::Os);
}
