//! W11: arbitrary bytes in place of a segment.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use runtide_core::{
    Error, ErrorKind,
    wal::{OnCorruption, ReadFrom, Seq},
};

use super::{DIR, Held, Tried, is_data, options};
use crate::wal::{Effort, Entries, LogHarness, Looked, ModelDisk, WalLaw, WalLawResult, disk::Random};

/// Buffer size that one read may ask for, regardless of the size of the file.
const ROOM: u64 = 1 << 20;

/// Logs whose files were changed at random, cut, mixed up and made of noise, from a seed: every operation on a log is tried on
/// each. Nothing may panic or go on indefinitely, every error has a kind that names the problem, and no read asks for a larger
/// buffer than the largest file, or 1 MiB.
pub(crate) fn w11_hostile(log: &dyn LogHarness, effort: Effort) -> WalLawResult {
    let tried = Tried { law: WalLaw::W11, log };
    let sound = ModelDisk::new();
    tried.written(&sound, 50)?;
    let sound = sound.copy();
    let cases = effort.pick(1500, 200);
    for seed in 0..cases {
        let disk = hostile(&sound, seed);
        let done = catch_unwind(AssertUnwindSafe(|| everything(tried, &disk)));
        let done = done.unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            Err(tried.broken("an error", format!("a panic: {message}")))
        });
        done.map_err(|mut broken| {
            broken.found = format!("{}, with seed {seed}", broken.found);
            broken
        })?;
    }
    Ok(Looked::at(cases + cut_anywhere(tried, &sound, effort)?, "hostile logs"))
}

/// The first file of the log ends at every byte: reading ends as well.
fn cut_anywhere(tried: Tried<'_>, sound: &ModelDisk, effort: Effort) -> Held<u64> {
    let disk = sound.copy();
    let Some((path, bytes)) = sound.files().into_iter().find(|(path, _)| is_data(path)) else { return Ok(0) };
    let cuts = (0..bytes.len()).step_by(effort.pick(1, 64));
    let count = cuts.len() as u64;
    for cut in cuts {
        disk.put(&path, bytes.get(..cut).map(<[u8]>::to_vec));
        let going_on = options(&disk).with_on_corruption(OnCorruption::Continue);
        through(tried, &disk, tried.log.reader(Path::new(DIR), ReadFrom::Start, going_on))?;
    }
    Ok(count)
}

/// A log with random faults, by its seed.
fn hostile(sound: &ModelDisk, seed: u64) -> ModelDisk {
    let disk = sound.copy();
    let mut random = Random(seed.wrapping_mul(0x5851_F42D_4C95_7F2D));
    let files: Vec<_> = disk.files().into_iter().filter(|(path, _)| is_data(path)).collect();
    for _ in 0..=random.below(3) {
        let Some((path, bytes)) = files.get(random.below(files.len())) else { continue };
        let mut bytes = bytes.clone();
        let at = random.below(bytes.len());
        match random.below(6) {
            // A few bytes of noise, anywhere, or at a length.
            0 => noise(&mut bytes, at, 1 + at % 40, &mut random),
            1 => noise(&mut bytes, at / 8 * 8, 8, &mut random),
            2 => bytes.truncate(at),
            3 => {
                let len = random.below(12_000);
                bytes = vec![0; len];
                noise(&mut bytes, 0, len, &mut random);
            }
            // Two ranges exchanged.
            4 => {
                let other = random.below(bytes.len());
                let len = random.below(600);
                let piece = bytes.get(other..).unwrap_or_default().iter().take(len).copied().collect::<Vec<_>>();
                bytes.get_mut(at..).unwrap_or_default().iter_mut().zip(piece).for_each(|(to, from)| *to = from);
            }
            // Another file's bytes under this name.
            _ => {
                if let Some((_, other)) = files.get(random.below(files.len())) {
                    bytes.clone_from(other);
                }
            }
        }
        disk.put(path, Some(bytes));
    }
    disk
}

fn noise(bytes: &mut [u8], at: usize, len: usize, random: &mut Random) {
    bytes.iter_mut().skip(at).take(len).for_each(|byte| *byte = random.byte());
}

fn everything(tried: Tried<'_>, disk: &ModelDisk) -> Held {
    let log = tried.log;
    let dir = Path::new(DIR);
    for on_corruption in [OnCorruption::Stop, OnCorruption::Continue] {
        for from in [ReadFrom::Start, ReadFrom::Seq(Seq(3)), ReadFrom::Seq(Seq(40)), ReadFrom::End] {
            through(tried, disk, log.reader(dir, from, options(disk).with_on_corruption(on_corruption)))?;
        }
        let copy = disk.copy();
        if let Some(writer) = met(tried, &copy, log.open(dir, options(&copy).with_on_corruption(on_corruption)))? {
            tried.works("append to a log that could be opened", writer.append(b"still of use"))?;
            through(tried, &copy, writer.reader(ReadFrom::Start))?;
            let tail = tried.works("read the tail", writer.tail(1))?;
            let last = tail.last().is_some_and(|entry| entry.bytes == b"still of use");
            tried.ensure(last, "the record that was just appended", format!("{tail:?}"))?;
        }
    }
    met(tried, disk, log.verify(dir, None, &options(disk)))?;
    met(tried, disk, log.dump(dir, &mut std::io::sink(), &options(disk)))?;
    met(tried, disk, log.salvage(dir, Path::new("/out"), &options(disk)))?;
    Ok(())
}

/// A call's value, if it worked; if not, its error has to be clear.
fn met<T>(tried: Tried<'_>, disk: &ModelDisk, result: Result<T, Error>) -> Held<Option<T>> {
    let most = disk.files().iter().map(|(_, bytes)| bytes.len() as u64).max().unwrap_or(0).max(ROOM);
    let largest = disk.load().largest_read;
    tried.ensure(largest <= most, &format!("no read of more than {most} bytes"), largest)?;
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => clear(tried, &error).map(|()| None),
    }
}

fn clear(tried: Tried<'_>, error: &Error) -> Held {
    let clear = matches!(
        error.kind(),
        ErrorKind::Corrupt
            | ErrorKind::Unsupported
            | ErrorKind::NotFound
            | ErrorKind::Expired
            | ErrorKind::InvalidInput
            | ErrorKind::Unauthenticated
    );
    tried.ensure(clear, "an error whose kind names the problem", format!("{error:?}"))
}

fn through(tried: Tried<'_>, disk: &ModelDisk, entries: Result<Entries, Error>) -> Held {
    let Some(entries) = met(tried, disk, entries)? else { return Ok(()) };
    for read in tried.to_the_end(entries)? {
        met(tried, disk, read)?;
    }
    Ok(())
}
