//! A log as lines of JSON, for people and for other programs.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use super::{
    anchor::Hex,
    corruption::Corruption,
    options::{OnCorruption, WalOptions},
    reader::{Found, WalReader},
    record::{ReadFrom, Record},
};
use crate::error::{Error, ErrorKind, Result};

/// Writes each record as a line of JSON, and returns the number of records.
///
/// ```json
/// {"seq":1,"at":"2026-01-31T12:00:00.000000001Z","kind":7,"text":"hello"}
/// {"seq":2,"at":"2026-01-31T12:00:00.000000002Z","kind":7,"hex":"ff00"}
/// {"corruption":{"segment":"00000000000000000001.wal","bytes":[4096,4199],"seqs":[3,3]}}
/// ```
///
/// A payload that is UTF-8 is `text`, any other is `hex`. Each corrupt range has its own line, and the dump goes on behind it;
/// `seqs` is left out if it is not known. The log may be in use.
///
/// # Errors
/// As [`WalReader::open`], and if `out` refuses a line the kind that [`ErrorKind::of_disk`] gives.
///
/// ```
/// use runtide_core::wal::{ReadFrom, RecordKind, Wal, WalOptions, dump};
///
/// # let dir = tempfile::tempdir().unwrap();
/// let wal = Wal::open(dir.path(), WalOptions::default())?;
/// wal.append_blocking(RecordKind(7), b"hello")?;
/// let mut lines = Vec::new();
/// assert_eq!(dump(dir.path(), ReadFrom::Start, &mut lines)?, 1);
/// assert!(String::from_utf8(lines).unwrap().ends_with("\"kind\":7,\"text\":\"hello\"}\n"));
/// # Ok::<(), runtide_core::Error>(())
/// ```
pub fn dump(dir: &Path, from: ReadFrom, out: &mut dyn Write) -> Result<u64> {
    dump_with(dir, from, out, &WalOptions::default())
}

/// [`dump`] from the disk in the options; the other options are not used.
///
/// # Errors
/// As [`dump`].
pub fn dump_with(dir: &Path, from: ReadFrom, out: &mut dyn Write, options: &WalOptions) -> Result<u64> {
    let mut reader = WalReader::start(Arc::clone(&options.disk()), dir, from, OnCorruption::Continue, None)?;
    let mut out = io::BufWriter::new(out);
    let mut records = 0;
    while let Some(found) = reader.step()? {
        let written = match &found {
            Found::Record(record) => write_record(&mut out, record),
            Found::Corruption(corruption) => write_corruption(&mut out, corruption),
        };
        written.map_err(refused)?;
        records += u64::from(matches!(found, Found::Record(_)));
    }
    out.flush().map_err(refused)?;
    Ok(records)
}

fn refused(error: io::Error) -> Error {
    Error::new(ErrorKind::of_disk(&error), "wal.dump", "the output refused a line").with_source(error)
}

fn write_record(out: &mut dyn Write, record: &Record) -> io::Result<()> {
    let at = jiff::Timestamp::try_from(record.at).map_err(io::Error::other)?;
    write!(out, r#"{{"seq":{},"at":"{at}","kind":{},"#, record.seq, record.kind)?;
    match str::from_utf8(&record.bytes) {
        Ok(text) => writeln!(out, r#""text":"{}"}}"#, Escaped(text)),
        Err(_) => writeln!(out, r#""hex":"{}"}}"#, Hex(&record.bytes)),
    }
}

fn write_corruption(out: &mut dyn Write, corruption: &Corruption) -> io::Result<()> {
    let name = corruption.segment.file_name().unwrap_or_default().to_string_lossy();
    let (first, last) = (corruption.bytes.start(), corruption.bytes.end());
    write!(out, r#"{{"corruption":{{"segment":"{}","bytes":[{first},{last}]"#, Escaped(&name))?;
    if let Some(seqs) = &corruption.seqs {
        write!(out, r#","seqs":[{},{}]"#, seqs.start(), seqs.end())?;
    }
    writeln!(out, "}}}}")
}

/// Displays text escaped as the inside of a JSON string.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
            let (plain, special) = rest.split_at_checked(at).unwrap_or((rest, ""));
            f.write_str(plain)?;
            let mut chars = special.chars();
            match chars.next() {
                Some('\n') => f.write_str("\\n")?,
                Some('\t') => f.write_str("\\t")?,
                Some(c @ ('"' | '\\')) => write!(f, "\\{c}")?,
                Some(c) => write!(f, "\\u{:04x}", u32::from(c))?,
                None => {}
            }
            rest = chars.as_str();
        }
        f.write_str(rest)
    }
}
