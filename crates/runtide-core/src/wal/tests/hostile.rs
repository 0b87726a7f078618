//! Arbitrary files in the place of segments.

use std::path::Path;

use proptest::prelude::*;

use super::{log_of, segments, small};
use crate::wal::{OnDamage, ReadFrom, Wal, WalOptions, WalReader, dump, salvage, verify};

/// Does everything that can be done with a log; nothing of it may panic, and reading has to end.
fn everything(dir: &Path) {
    for on_damage in [OnDamage::Stop, OnDamage::GoOn] {
        let options = WalOptions::default().with_on_damage(on_damage);
        for from in [ReadFrom::Start, ReadFrom::End, ReadFrom::Seq(crate::wal::Seq(3))] {
            if let Ok(reader) = WalReader::open(dir, from, options.clone()) {
                assert!(reader.take(10_000).count() < 10_000, "it never ends");
            }
        }
    }
    let _ = verify(dir, None, None);
    let _ = dump(dir, ReadFrom::Start, &mut std::io::sink());
    let out = tempfile::tempdir().unwrap();
    let _ = salvage(dir, out.path());
    for on_damage in [OnDamage::Stop, OnDamage::GoOn] {
        if let Ok(wal) = Wal::open(dir, small().with_on_damage(on_damage)) {
            wal.append_blocking(super::KIND, b"still usable").unwrap();
            let last = wal.tail(1).unwrap();
            assert_eq!(last.last().unwrap().bytes, "still usable");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lengths_that_lie_under_a_right_checksum_are_not_believed(length in any::<u32>(), count in any::<u32>(), entries in any::<u64>()) {
        let dir = tempfile::tempdir().unwrap();
        log_of(dir.path(), small(), 5);
        let path = segments(dir.path()).remove(0);
        let mut file = std::fs::read(&path).unwrap();
        // A commit's count and length, with the checksum made right again.
        file[4096 + 96..4096 + 100].copy_from_slice(&count.to_le_bytes());
        file[4096 + 100..4096 + 104].copy_from_slice(&length.to_le_bytes());
        let mut place = file[16..32].to_vec();
        place.extend_from_slice(&4096_u64.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&place), &file[4096 + 8..4096 + 104]);
        file[4096 + 4..4096 + 8].copy_from_slice(&crc.to_le_bytes());
        // The footer's number of entries.
        let end = file.len();
        file[end - 48..end - 40].copy_from_slice(&entries.to_le_bytes());
        std::fs::write(&path, file).unwrap();
        everything(dir.path());
    }
}
