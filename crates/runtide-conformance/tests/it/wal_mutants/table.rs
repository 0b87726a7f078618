//! Logs that are broken on purpose, one trap each.

use runtide_conformance::wal::LogHarness;

use super::{
    disk::DiskBug,
    log::{Broken, LogBug},
    plain::{Plain, PlainBug},
};
use crate::pinned::mutants;

mutants! { runtide_conformance::wal::WalLaw => Box<dyn LogHarness>;
    /// Nothing is wrong with it, but it goes through the same code as the others.
    Sound = Box::new(Broken::nowhere()), [];
    /// A sync that fails is tried once more. The system reports success, and the data are gone: PostgreSQL did so until 2018, and
    /// tikv/raft-engine#131, neon#9108 and clockworklabs/SpacetimeDB#985 are about the same.
    RetriesSync = Box::new(Broken::on(DiskBug::RetriesSync)), [W6];
    /// The same with the sync of a folder.
    RetriesFolderSync = Box::new(Broken::on(DiskBug::RetriesFolderSync)), [W6];
    /// A write that fails is tried once more: the partial write before it stays in between.
    RetriesWrite = Box::new(Broken::on(DiskBug::RetriesWrite)), [W6];
    /// Names are not made durable, so that a whole segment is gone: runtimo-core 0.1.0 and 0.10.3 never sync a folder.
    NoDirectorySync = Box::new(Broken::on(DiskBug::NoDirectorySync)), [W1 W2 W6 W8];
    /// The lock does not exclude: two writers of runtimo-core number their records 0, 0, 1, 1.
    NoLock = Box::new(Broken::on(DiskBug::NoLock)), [W5];
    /// A torn tail is copied aside, and stays where it is.
    ForgetsTheCut = Box::new(Broken::on(DiskBug::NoTruncate)), [W2];
    /// A torn tail is cut, and the copy of it is an empty file.
    CutsWithoutCopy = Box::new(Broken::on(DiskBug::NoCopy)), [W2];
    /// An append returns when it is written; the sync comes later. Usual in benchmarks for speed.
    /// Opening then has more to read than the last segment.
    PublishesBeforeSync = Box::new(Broken::by(LogBug::PublishesBeforeSync)), [W1 W2 W3 W6 W7 W8 W9];
    /// A record that cannot be read is skipped without a report, as runtimo-core 0.1.0 does with a line that does not parse.
    SkipsCorruption = Box::new(Broken::by(LogBug::SkipsCorruption)), [W3];
    /// The caller brings the number, counted from the start of the process: in runtimo-core's own example it is always 0.
    NumbersByCaller = Box::new(Broken::by(LogBug::NumbersByCaller)), [W4];
    /// An anchor is a number. A forged tail of the same length has it as well: hyprstream/hyprstream#675,
    /// darbaan#246.
    AnchorIsANumber = Box::new(Broken::by(LogBug::AnchorIsANumber)), [W7];
    /// Opening parses all of the log, and a reader hands out a vector: runtimo-core, 284 ms for 31 MB at each opening.
    ReadsAll = Box::new(Broken::by(LogBug::ReadsAll)), [W9 W10 W11];
    /// Retention drops only half of the records that it should, so that the disk fills up.
    DropsHalf = Box::new(Broken::by(LogBug::DropsHalf)), [W8];
    /// A log such as one writes in an afternoon: one file, frames with a checksum, the bad end cut off; a retention by bytes
    /// keeps the last record alone. The others below lack all that it lacks.
    Plain = Box::new(Plain(PlainBug::None)), [W3 W7 W8 W9 W10];
    /// Retention empties the file and writes the rest again, as in runtimo-core 0.1.0: a process that dies in between has lost
    /// everything.
    TruncatesThenRewrites = Box::new(Plain(PlainBug::TruncatesThenRewrites)), [W3 W7 W8 W9 W10];
    /// It allocates any length that a frame has. etcd and raft-engine bound it by the rest of the file.
    TrustsLength = Box::new(Plain(PlainBug::TrustsLength)), [W3 W7 W8 W9 W10 W11];
    /// A torn tail stays in place, and records that are appended behind it are never read again: runtimo-core 0.1.0.
    GluesToTheTornTail = Box::new(Plain(PlainBug::GluesToTheTornTail)), [W1 W2 W3 W6 W7 W8 W9 W10 W11];
}
