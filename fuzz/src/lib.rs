//! Shared code of the targets: the checks of `runtide-core`'s own tests, on a disk in memory.

#[path = "../../crates/runtide-core/tests/it/hostile/change.rs"]
pub(crate) mod change;
#[path = "../../crates/runtide-core/tests/it/hostile/checks.rs"]
pub(crate) mod checks;
#[path = "../../crates/runtide-core/tests/it/hostile/forge.rs"]
pub(crate) mod forge;
#[path = "../../crates/runtide-core/tests/it/hostile/place.rs"]
pub(crate) mod place;

use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

use runtide_conformance::mortal::{Lifespan, MortalDisk};

use crate::{
    change::{Change, Original},
    place::{KIND, Place},
};

static ORIGINAL: LazyLock<Original> = LazyLock::new(|| Original::make(&in_memory()));

fn in_memory() -> Place {
    Place::new(Arc::new(MortalDisk::new(&Lifespan::unending())), Path::new("/"))
}

/// Any bytes as a segment: as they are, and with correct checksums.
pub fn segment(bytes: &[u8]) {
    checks::any_segment(&in_memory(), 1, bytes);
    checks::any_sealed_segment(&in_memory(), bytes);
}

/// A sound log of several segments, with changes to its files.
pub fn segments(changes: &[(u8, u8, u16, u16, u16)]) {
    let changes: Vec<_> = changes.iter().copied().map(Change).collect();
    checks::changed_log(&in_memory(), &ORIGINAL, &changes);
}

/// Lines as the records of a journal of events, and of operations.
pub fn journal(lines: &[u8]) {
    let payloads: Vec<_> = lines.split(|byte| *byte == b'\n').collect();
    checks::any_journal(&in_memory(), &payloads);
}

/// A small sound segment, closed in order or not, without the room that it has reserved.
pub fn sound_segment(closed: bool) -> Vec<u8> {
    let place = in_memory();
    let wal = runtide_core::wal::Wal::open(&place.log(), place.options()).expect("a new log");
    for payload in [&b"first"[..], b"", &[7; 100]] {
        wal.append_blocking(KIND, payload).expect("it has room");
    }
    wal.append_batch_blocking(&[(KIND, b"two"), (KIND, b"at once")]).expect("it has room");
    if closed {
        wal.close().expect("it works");
    }
    let mut bytes = place.files().remove(0).1;
    let used =
        bytes.iter().skip(4096).take(4096 - 256).rposition(|byte| *byte != 0).map_or(4096, |last| 4096 + last + 1);
    let used = used.next_multiple_of(8);
    bytes.drain(used..bytes.len() - if closed { 128 + 16 } else { 0 });
    bytes
}

/// Payloads of an operation log with one operation that failed and one that is under way.
pub fn operations() -> Vec<Vec<u8>> {
    use runtide_core::wal::{ReadFrom, WalReader};
    use runtide_journal::{JournalOptions, OperationLog, Stage, Undo, UndoAction};
    let place = in_memory();
    let options = JournalOptions::default().with_wal(place.options());
    let log = OperationLog::open(&place.log(), "shop".into(), options).expect("a new log");
    let tokio = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let work = async {
        let mut operation = log.submit("volume.make", &"data").await?;
        operation.enter(Stage::Validated).await?;
        operation.enter(Stage::Started).await?;
        operation.will(Undo::new("docker:local", UndoAction::RemoveVolume, "data").made_by(operation.id())).await?;
        operation.enter(Stage::Completed).await?;
        let mut operation = log.submit("network.make", &()).await?;
        operation.enter(Stage::Validated).await
    };
    tokio.block_on(work).expect("it works");
    let reader = WalReader::open(&place.log(), ReadFrom::Start, place.options()).expect("it is there");
    reader.map(|record| record.expect("it is sound").bytes.to_vec()).collect()
}
