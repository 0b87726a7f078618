//! The log, as the laws use it.

use std::{fmt::Debug, ops::RangeInclusive, path::Path};

use runtide_core::{
    Result,
    wal::{ReadFrom, Retention, WalOptions},
};

/// A kind of log that the laws can be tested against. All of it is on the disk that the options name.
pub trait LogHarness: Debug + Send + Sync {
    /// The log's name in reports.
    fn name(&self) -> &str;

    /// Opens the log in a folder for writing, or makes one. One writer at a time.
    fn open(&self, dir: &Path, options: WalOptions) -> Result<Box<dyn OpenLog>>;

    /// Reads a log without a writer.
    fn reader(&self, dir: &Path, from: ReadFrom, options: WalOptions) -> Result<Entries>;

    /// Checks that all of a log is as it was written, and that an anchor is in it.
    fn verify(&self, dir: &Path, anchor: Option<&str>, options: &WalOptions) -> Result<Audit>;

    /// Copies the readable records of a corrupt log into a new one.
    fn salvage(&self, dir: &Path, out: &Path, options: &WalOptions) -> Result<Salvaged>;

    /// Writes a log out, a line for each record.
    fn dump(&self, dir: &Path, out: &mut dyn std::io::Write, options: &WalOptions) -> Result<()>;

    /// Counts the bytes that this process holds, where an allocator does that and nothing else runs at the same time.
    fn meter(&self) -> Option<&dyn Meter> {
        None
    }
}

/// A log that is open for writing. Dropping it closes it.
pub trait OpenLog: Send + Sync {
    /// Appends a record; its number, once it is durable as the options say.
    fn append(&self, payload: &[u8]) -> Result<u64>;

    /// Appends as a task does, where the log has a separate call for tasks.
    fn append_in_task(&self, payload: &[u8]) -> Result<u64> {
        self.append(payload)
    }

    /// Appends all records or none; the first and the last number.
    fn append_batch(&self, payloads: &[&[u8]]) -> Result<RangeInclusive<u64>>;

    /// Makes the acknowledged records durable.
    fn sync(&self) -> Result<()>;

    /// Reads the acknowledged records.
    fn reader(&self, from: ReadFrom) -> Result<Entries>;

    /// The last records, oldest first.
    fn tail(&self, n: usize) -> Result<Vec<Entry>>;

    /// The log's end, to be kept elsewhere.
    fn anchor(&self) -> String;

    /// Drops old records; the first one that is left.
    fn retain(&self, policy: Retention) -> Result<u64>;

    /// The torn tail that opening cut.
    fn cut(&self) -> Option<Cut>;

    /// Closes the log; the error if that failed.
    fn close(&self) -> Result<()>;
}

/// Records, or the errors in their place; ends after an error, unless the options say to go on.
pub type Entries = Box<dyn Iterator<Item = Result<Entry>> + Send>;

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a harness makes it, and has to know all of it")]
pub struct Entry {
    /// Its number.
    pub seq: u64,
    /// The appended bytes.
    pub bytes: Vec<u8>,
    /// `true` if it stands for a record that salvage could not read.
    pub lost: bool,
}

/// The result of verifying a whole log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a harness makes it, and has to know all of it")]
pub struct Audit {
    /// Records, up to the first corruption.
    pub records: u64,
    /// `true` if the given anchor is in the log.
    pub anchored: bool,
    /// The corruption, as text.
    pub corruption: Option<String>,
    /// A tail that was never acknowledged, as text.
    pub torn: Option<String>,
}

/// The result of salvage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a harness makes it, and has to know all of it")]
pub struct Salvaged {
    /// Records in the new log that are as they were appended.
    pub recovered: u64,
    /// Ranges of the old log that could not be read.
    pub lost: usize,
}

/// A torn tail, and the file with its copy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a harness makes it, and has to know all of it")]
pub struct Cut {
    /// The file that it was cut from.
    pub file: std::path::PathBuf,
    /// The first and the last byte that were cut.
    pub bytes: RangeInclusive<u64>,
    /// The file that has them now.
    pub copy: std::path::PathBuf,
}

/// A counter of the bytes that a process holds.
pub trait Meter {
    /// Forgets the peak; the bytes held now.
    fn reset(&self) -> usize;

    /// The most bytes held since then.
    fn peak(&self) -> usize;
}
