//! The process that kills, and checks the log afterwards.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use runtide_core::wal::{Anchor, ReadFrom, Record, Wal, WalReader, verify};

use super::{
    child::{Job, Line},
    log::{Identity, KIND, Mode},
};

const SIGKILL: i32 = 9;

/// The longest run: from its start, so that some end before the log is open, or from a number of lines on.
const LONGEST: Duration = Duration::from_millis(50);

/// The records that must be in the log by now.
#[derive(Debug, Default)]
struct Known {
    records: BTreeMap<u64, Identity>,
    /// The last reported anchor.
    anchor: Option<Anchor>,
    /// Records before this one may be gone.
    keeps: u64,
    opened: u32,
    acked: u64,
}

/// One log, written by this many processes, none of which ends by itself.
pub(crate) fn kill_again_and_again(mode: Mode, seed: u64, incarnations: u32) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("log");
    let mut known = Known::default();
    let mut random = fastrand::Rng::with_seed(seed);
    for incarnation in 0..incarnations {
        let case = format!("{mode:?}, seed {seed}, incarnation {incarnation}");
        let length = Duration::from_micros(random.u64(..u64::try_from(LONGEST.as_micros()).unwrap()));
        let job = Job { dir: dir.clone(), incarnation, seed, mode };
        let least = if random.bool() { random.usize(1..40) } else { 0 };
        run_and_kill(&job, least, length, &mut known, &case);
        if known.opened == 0 {
            continue;
        }
        known.check(&dir, mode, &case);
        // Every other time the next process is the one that repairs.
        if incarnation % 2 == 0 {
            drop(Wal::open(&dir, mode.options()).unwrap_or_else(|error| panic!("{case}: {error:?}")));
            known.check(&dir, mode, &case);
        }
    }
    let (opened, acked) = (known.opened, known.acked);
    println!("{mode:?}: {incarnations} processes, {opened} of them opened the log, {acked} records acknowledged");
    assert!(opened > incarnations / 3 && acked > u64::from(incarnations), "too few got anything done");
    assert!(known.keeps > 0, "nothing was ever dropped");
}

/// Runs a process until it has reported `least` lines and for `length` after that, and kills it; notes its reports.
fn run_and_kill(job: &Job, least: usize, length: Duration, known: &mut Known, case: &str) {
    let mut child = job.command().spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let (one, reported) = channel();
    let listener = thread::spawn(move || {
        let (mut lines, mut other, mut line) = (Vec::new(), String::new(), String::new());
        while stderr.read_line(&mut line).unwrap() > 0 {
            match Line::read(&line) {
                Some(line) => {
                    let _ = one.send(());
                    lines.push(line);
                }
                None => other.push_str(&line),
            }
            line.clear();
        }
        (lines, other)
    });
    // Fewer if it ended before: that shows below.
    let _ = reported.iter().take(least).count();
    thread::sleep(length);
    child.kill().unwrap();
    let (said, other) = listener.join().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "{case}: it ended by itself, with {status}:\n{other}");
    assert!(other.is_empty(), "{case}: {other}");
    for line in said {
        known.hear(&line, job.incarnation);
    }
}

impl Known {
    fn hear(&mut self, said: &Line, incarnation: u32) {
        match *said {
            Line::Opened => self.opened += 1,
            Line::Acked { first, last, writer, call } => {
                let parts = u32::try_from(last - first + 1).unwrap();
                for (seq, part) in (first..=last).zip(0..) {
                    let before = self.records.insert(seq, Identity { incarnation, writer, call, part, parts });
                    assert!(before.is_none(), "{seq} was given twice");
                    self.acked += 1;
                }
            }
            // Two threads may report theirs in the other order.
            Line::Anchor(anchor) => {
                if self.anchor.is_none_or(|before| before.seq <= anchor.seq) {
                    self.anchor = Some(anchor);
                }
            }
            Line::Keeps(seq) => self.keeps = self.keeps.max(seq),
        }
    }

    /// Asserts that the log has all known records, and notes the others.
    fn check(&mut self, dir: &Path, mode: Mode, case: &str) {
        let verified = verify(dir, self.anchor.as_ref(), mode.key().as_ref()).unwrap();
        assert!(verified.corruption.is_none(), "{case}: {verified:?}");
        assert!(verified.anchored || self.anchor.is_none(), "{case}: {:?} is not in {verified:?}", self.anchor);
        let reader = WalReader::open(dir, ReadFrom::Start, mode.options()).unwrap();
        let records: Vec<Record> =
            reader.map(|record| record.unwrap_or_else(|error| panic!("{case}: {error:?}"))).collect();
        let first = records.first().map_or(1, |record| record.seq.0);
        assert!(first <= self.keeps.max(1), "{case}: the log begins with {first}, and {} was to be kept", self.keeps);
        let mut before: Option<Identity> = None;
        let mut seen = BTreeMap::new();
        for (record, next) in records.iter().zip(first..) {
            assert_eq!((record.seq.0, record.kind), (next, KIND), "{case}");
            let identity =
                Identity::of(&record.bytes).unwrap_or_else(|| panic!("{case}: {next} has a foreign payload"));
            let begun = before.filter(|before| before.part + 1 < before.parts);
            let expected = begun.map_or(0, |before| before.part + 1);
            assert!(identity.part == expected || next == first, "{case}: {next}: a part of a batch is missing");
            assert!(
                begun.is_none_or(|begun| begun.of_call() == identity.of_call()),
                "{case}: {next}: batches are mixed"
            );
            before = Some(identity);
            seen.insert(next, identity);
        }
        assert!(before.is_none_or(|last| last.part + 1 == last.parts), "{case}: the last batch is not whole");
        // A record that was there once, acknowledged or not, stays as it is until retention drops it.
        for (seq, identity) in self.records.range(first..) {
            assert_eq!(seen.get(seq), Some(identity), "{case}: record {seq}");
        }
        self.records = seen;
    }
}
