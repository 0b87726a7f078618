//! Appenders, one or many: all begin together, and the turn ends with the last of them.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
    thread,
};

use tokio::runtime::Runtime;

use super::{child::Child, folder, records::Records, work::Turn};
use crate::{Clock, Round, is_trial};

/// Appends of each appender in one turn; fewer in a trial.
pub fn each(count: usize) -> usize {
    if is_trial() { count.min(3) } else { count }
}

/// Runs the work under the clock.
pub fn timed(units: usize, work: impl FnOnce()) -> Round {
    let clock = Clock::start();
    work();
    clock.stop(units as u64)
}

/// A log that tasks append to.
pub trait Appends: Send + Sync + 'static {
    /// Returns once the record is durable.
    fn append(&self, record: &[u8]) -> impl Future<Output = ()> + Send;
}

/// A number of tasks on two threads of tokio's.
pub struct Tasks {
    runtime: Runtime,
    count: usize,
    each: usize,
}

impl Tasks {
    /// This many; a turn takes a fraction of a second if appends share syncs.
    pub fn new(count: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
        Self { runtime, count, each: each(if count > 100 { 200 } else { 500 }) }
    }

    /// A turn: each task waits for its append before the next.
    pub fn turn(self, log: Arc<impl Appends>) -> Turn {
        let records = Arc::new(Records::default());
        Box::new(move || {
            timed(self.count * self.each, || {
                let tasks: Vec<_> = (0..self.count)
                    .map(|task| {
                        let (log, records, each) = (Arc::clone(&log), Arc::clone(&records), self.each);
                        self.runtime.spawn(async move {
                            for n in 0..each {
                                log.append(records.get(task + n)).await;
                            }
                        })
                    })
                    .collect();
                self.runtime.block_on(async {
                    for task in tasks {
                        task.await.expect("appends work");
                    }
                });
            })
        })
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("count", &self.count).finish_non_exhaustive()
    }
}

/// A number of threads of the system's. A single one is the bench's own.
#[derive(Debug)]
pub struct Threads {
    count: usize,
    each: usize,
}

impl Threads {
    /// This many; a turn takes a fraction of a second if appends share syncs.
    pub fn new(count: usize) -> Self {
        Self { count, each: each(if count == 1 { 1_000 } else { 25_600 / count }) }
    }

    /// Fewer appends in a turn, for a log that syncs each one.
    #[must_use]
    pub fn slow(self) -> Self {
        Self { each: each((500 / self.count).max(1)), ..self }
    }

    /// A turn: each thread calls `append`, which returns once the record is durable. Starting the threads is not counted.
    pub fn turn(self, append: impl Fn(&[u8]) + Send + Sync + 'static) -> Turn {
        let records = Records::default();
        Box::new(move || {
            let all = |thread: usize| (0..self.each).for_each(|n| append(records.get(thread + n)));
            if self.count == 1 {
                return timed(self.each, || all(0));
            }
            let begin = Barrier::new(self.count + 1);
            thread::scope(|scope| {
                let threads: Vec<_> = (0..self.count)
                    .map(|thread| {
                        let (begin, all) = (&begin, &all);
                        scope.spawn(move || {
                            begin.wait();
                            all(thread);
                        })
                    })
                    .collect();
                let clock = Clock::start();
                begin.wait();
                for thread in threads {
                    thread.join().expect("appends work");
                }
                clock.stop((self.count * self.each) as u64)
            })
        })
    }
}

/// A turn on a log that is created each time; opening and dropping it are not counted.
pub fn fresh<L>(dir: PathBuf, units: usize, open: impl Fn(&Path) -> L + 'static, work: impl Fn(&L) + 'static) -> Turn {
    Box::new(move || {
        folder::clear(&dir);
        let log = open(&dir);
        let round = timed(units, || work(&log));
        drop(log);
        folder::clear(&dir);
        round
    })
}

/// A turn that opens a log after an orderly close or, if `killed` names the contender, after its process was killed; then a
/// record is appended, since a log that was only opened need not be closed.
pub fn reopened<L: 'static>(
    dir: PathBuf,
    killed: Option<&'static str>,
    open: impl Fn(&Path) -> L + 'static,
    append: impl Fn(&L) + 'static,
) -> Turn {
    Box::new(move || {
        if let Some(name) = killed {
            Child::leaves_open(name, &dir);
        }
        let mut log = None;
        let round = timed(1, || log = Some(open(&dir)));
        append(&log.expect("just opened"));
        round
    })
}
