//! Logs that are broken on purpose, one trap each.

use runtide_conformance::wal::LogHarness;

use crate::{
    disk::DiskBug,
    log::{Broken, LogBug},
    plain::{Plain, PlainBug},
};

macro_rules! mutants {
    ($($(#[$doc:meta])* $mutant:ident $log:expr, [$($law:ident)*];)*) => {
        /// In which way a log is broken, and exactly which laws it fails.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutant { $( $(#[$doc])* $mutant, )* }

        impl Mutant {
            /// Every one, the sound one first.
            pub(crate) const ALL: &'static [Self] = &[$( Self::$mutant, )*];

            /// The laws that it must fail, and no other.
            pub(crate) fn fails(self) -> &'static [runtide_conformance::wal::WalLaw] {
                match self { $( Self::$mutant => &[$( runtide_conformance::wal::WalLaw::$law, )*], )* }
            }

            pub(crate) fn log(self) -> Box<dyn LogHarness> {
                match self { $( Self::$mutant => Box::new($log), )* }
            }
        }
    };
}

mutants! {
    /// Nothing is wrong with it, but that it goes through the same hands as the others.
    Sound Broken::nowhere(), [];
    /// A sync that fails is tried once more. The system says yes, and the data are gone: PostgreSQL did so until 2018, and
    /// tikv/raft-engine#131, neon#9108 and clockworklabs/SpacetimeDB#985 are about the same.
    RetriesSync Broken::on(DiskBug::RetriesSync), [W6];
    /// The same with the sync of a folder.
    RetriesFolderSync Broken::on(DiskBug::RetriesFolderSync), [W6];
    /// A write that fails is tried once more: what the first one left in between is nobody's.
    RetriesWrite Broken::on(DiskBug::RetriesWrite), [W6];
    /// Names are not made durable, so that a whole segment is gone: runtimo-core 0.1.0 and 0.10.3 never sync a folder.
    NoDirectorySync Broken::on(DiskBug::NoDirectorySync), [W1 W2 W6 W8];
    /// Anybody can have the lock: two writers of runtimo-core number their records 0, 0, 1, 1.
    NoLock Broken::on(DiskBug::NoLock), [W5];
    /// A torn tail is copied aside, and stays where it is.
    ForgetsTheCut Broken::on(DiskBug::NoTruncate), [W2];
    /// A torn tail is cut, and the copy of it is an empty file.
    CutsWithoutCopy Broken::on(DiskBug::NoCopy), [W2];
    /// An append returns when it is written; the sync comes later. Usual where speed is compared.
    /// Opening then has more to look at than the last segment.
    PublishesBeforeSync Broken::by(LogBug::PublishesBeforeSync), [W1 W2 W3 W6 W7 W8 W9];
    /// A record that cannot be read is passed over without a word, as runtimo-core 0.1.0 does with a line that does not parse.
    SkipsCorruption Broken::by(LogBug::SkipsCorruption), [W3];
    /// The caller brings the number, counted from the start of the process: in runtimo-core's own example it is always 0.
    NumbersByCaller Broken::by(LogBug::NumbersByCaller), [W4];
    /// An anchor is a number. A tail of the same length that was put there has it as well: hyprstream/hyprstream#675,
    /// darbaan#246.
    AnchorIsANumber Broken::by(LogBug::AnchorIsANumber), [W7];
    /// Opening parses all of the log, and a reader hands out a vector: runtimo-core, 284 ms for 31 MB at each opening.
    ReadsAll Broken::by(LogBug::ReadsAll), [W9 W10 W11];
    /// Of what may go, only half goes: who pays for the disk finds out.
    DropsHalf Broken::by(LogBug::DropsHalf), [W8];
    /// A log as one writes it in an afternoon: one file, frames with a checksum, the bad end cut off; asked for fewer bytes, it
    /// keeps the last record alone. What it lacks is what the others below lack as well.
    Plain Plain(PlainBug::None), [W3 W7 W8 W9 W10];
    /// Old records go by emptying the file and writing the rest again, as in runtimo-core 0.1.0: who dies in between has lost
    /// everything.
    TruncatesThenRewrites Plain(PlainBug::TruncatesThenRewrites), [W3 W7 W8 W9 W10];
    /// It makes room for whatever length a frame says. etcd and raft-engine bound it by what is left of the file.
    TrustsLength Plain(PlainBug::TrustsLength), [W3 W7 W8 W9 W10 W11];
    /// A torn tail stays where it is, and what is appended behind it is never read again: runtimo-core 0.1.0.
    GluesToTheTornTail Plain(PlainBug::GluesToTheTornTail), [W1 W2 W3 W6 W7 W8 W9 W10 W11];
}
