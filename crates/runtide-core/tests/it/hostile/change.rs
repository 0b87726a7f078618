//! A sound log, and the changes that its files may suffer.

use runtide_core::wal::{Anchor, ReadFrom, Record, Retention, Seq, Wal, WalReader};

use super::place::{KIND, Place};

/// A log of several segments, two openings and a retention, as a crash left it.
#[derive(Clone, Debug)]
pub(crate) struct Original {
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) records: Vec<Record>,
    pub(crate) anchor: Anchor,
}

impl Original {
    pub(crate) fn make(place: &Place) -> Self {
        let append = |wal: &Wal, calls: u64| {
            for call in 0..calls {
                let payload = vec![u8::try_from(call % 251).unwrap(); usize::try_from(call * 37 % 400).unwrap()];
                wal.append_blocking(KIND, &payload).unwrap();
                if call % 9 == 0 {
                    wal.append_batch_blocking(&[(KIND, b"two"), (KIND, b"at once")]).unwrap();
                }
            }
        };
        let wal = Wal::open(&place.log(), place.options()).unwrap();
        append(&wal, 50);
        assert!(wal.retain(Retention::default().with_keep_from(Seq(20))).unwrap().segments > 0);
        wal.close().unwrap();
        let wal = Wal::open(&place.log(), place.options()).unwrap();
        append(&wal, 12);
        wal.append_blocking(KIND, &[5; 9_000]).unwrap();
        append(&wal, 6);
        let files = place.files();
        let reader = WalReader::open(&place.log(), ReadFrom::Start, place.options()).unwrap();
        Self { files, records: reader.map(Result::unwrap).collect(), anchor: wal.anchor() }
    }

    /// Writes the log, with these changes, to another folder.
    pub(crate) fn put(&self, changes: &[Change], place: &Place) {
        let mut files = self.files.clone();
        for change in changes {
            change.make(&mut files);
        }
        for (name, bytes) in files {
            place.put(&name, &bytes);
        }
    }
}

/// A change to the files; no change makes up bytes that pass for others. The numbers are its kind, the file, the offset, the
/// source (an offset or another file), and the length in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change(pub(crate) (u8, u8, u16, u16, u16));

impl Change {
    fn make(self, files: &mut Vec<(String, Vec<u8>)>) {
        let (what, file, at, from, count) = self.0;
        if files.is_empty() {
            return;
        }
        let (number, other) = (usize::from(file) % files.len(), usize::from(from) % files.len());
        let size = files[number].1.len();
        let at = if size == 0 { 0 } else { usize::from(at) % size };
        let end = size.min(at + usize::from(count));
        match what % 8 {
            // One bit: a checksum detects three of them in one record.
            0 if size > 0 => files[number].1[at] ^= 1 << (count % 8),
            1 => files[number].1[at..end].fill(0),
            2 => files[number].1.truncate(at),
            3 => {
                let sector = at / 512 * 512;
                let whole = files[other].1.clone();
                let source = usize::from(from) / 512 * 512;
                let bytes = whole.get(source..).unwrap_or_default();
                let bytes = &bytes[..bytes.len().min(512).min(size - sector)];
                files[number].1[sector..sector + bytes.len()].copy_from_slice(bytes);
            }
            4 => drop(files.remove(number)),
            5 => {
                let bytes = files[other].1.clone();
                files[number].1 = bytes;
            }
            6 => drop(files[number].1.drain(at..end)),
            7 => files[number].1.resize(size + usize::from(count), 0),
            _ => {}
        }
    }
}
