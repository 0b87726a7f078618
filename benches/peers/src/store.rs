//! The trait of a peer's log, and the works in terms of it.

use std::{any::Any, fmt, marker::PhantomData, path::Path};

use runtide_benches::log::{Peer, Place, Records, Seen, Threads, Turn, Work, each, fresh, million, reopened, timed};

/// Records in one step of a log that is made to be read.
pub(crate) const STEP: usize = 224;

/// A peer's log. All peers block, so tasks are threads to them: to hand each append to a pool of threads would cost more.
pub trait Store: Send + Sync + Sized + 'static {
    /// The name in the table.
    const NAME: &'static str;

    /// A note on its figures; may be empty.
    const NOTE: &'static str;

    /// `true` if appenders share a sync; otherwise a turn has fewer appends, since it takes a sync for each.
    const SHARES_SYNCS: bool = false;

    /// `true` if a million records can be appended with one sync at the end.
    const ONE_SYNC: bool = true;

    /// `true` if it can read its last records.
    const TAIL: bool = true;

    /// Opens or makes a log for writing.
    fn open(dir: &Path) -> Self;

    /// Opens or creates a log for a million records, if that needs another setting.
    fn open_large(dir: &Path) -> Self {
        Self::open(dir)
    }

    /// Returns once the record is durable.
    fn append(&self, record: &[u8]);

    /// Appends this many records, with one sync at the end.
    fn append_all(&self, records: &Records, count: usize);

    /// Makes a log of a million records, closed.
    fn make(dir: &Path) {
        Self::open_large(dir).append_all(&Records::default(), million());
    }

    /// Opens for reading, and returns a function that reads the whole log.
    fn replay(dir: &Path) -> Box<dyn FnMut(&mut Seen)>;

    /// Reads the last records, and counts them.
    fn tail(&self, count: usize) -> usize;
}

/// A store as a contender.
pub struct Peered<S>(PhantomData<fn() -> S>);

impl<S> Peered<S> {
    /// It has no state of its own.
    pub const NEW: Self = Self(PhantomData);
}

impl<S> fmt::Debug for Peered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peered").finish()
    }
}

impl<S: Store> Peered<S> {
    fn appended(place: &Place<'_>, threads: usize) -> Turn {
        let store = S::open(&place.new_dir());
        let threads = if S::SHARES_SYNCS { Threads::new(threads) } else { Threads::new(threads).slow() };
        threads.turn(move |record| store.append(record))
    }

    fn reopened(place: &Place<'_>, killed: Option<&'static str>) -> Turn {
        let dir = place.named("reopened", S::make);
        let records = Records::default();
        reopened(dir, killed, S::open_large, move |store| store.append(records.get(0)))
    }
}

impl<S: Store> Peer for Peered<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn note(&self) -> &'static str {
        S::NOTE
    }

    fn turn(&self, work: Work, place: &Place<'_>) -> Option<Turn> {
        Some(match work {
            Work::Alone => Self::appended(place, 1),
            Work::Tasks(count) | Work::Threads(count) => Self::appended(place, count),
            Work::Bulk if S::ONE_SYNC => {
                let records = Records::default();
                fresh(place.new_dir(), million(), S::open_large, move |store| store.append_all(&records, million()))
            }
            Work::Replay => {
                let mut replay = S::replay(&place.million(S::make));
                Box::new(move || {
                    let mut seen = Seen::default();
                    let round = timed(million(), || replay(&mut seen));
                    seen.were(million());
                    round
                })
            }
            Work::ReopenClosed => Self::reopened(place, None),
            Work::ReopenKilled => Self::reopened(place, Some(S::NAME)),
            Work::Tail if S::TAIL => {
                let store = S::open_large(&place.million(S::make));
                Box::new(move || {
                    timed(each(5), || {
                        for _ in 0..each(5) {
                            assert_eq!(store.tail(100), 100);
                        }
                    })
                })
            }
            Work::Bulk | Work::Verify | Work::VerifyAbreast | Work::Tail => return None,
        })
    }

    fn left_open(&self, dir: &Path) -> Box<dyn Any> {
        let store = S::open_large(dir);
        store.append(Records::default().get(0));
        Box::new(store)
    }

    fn replay(&self, dir: &Path) {
        let mut seen = Seen::default();
        S::replay(dir)(&mut seen);
        seen.were(million());
    }
}
