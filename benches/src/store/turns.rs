//! One turn of each workload, for any contender. Keys and bodies are made before the clock runs, and the results are checked.

use std::{
    any::Any,
    sync::{Arc, Barrier},
    thread,
};

use fastrand::Rng;
use tokio::runtime::{Builder, Runtime};

use super::{
    contender::Contender,
    objects::{NAMESPACES, Objects},
    work::{Holder, Turn},
};
use crate::{Clock, Round};

/// Number of writes that are prepared and then measured together: enough that reading the clock does not count, and few enough
/// that they stay in the L1 cache.
const FEW: usize = 8;

fn runtime() -> Runtime {
    Builder::new_current_thread().build().expect("a runtime")
}

fn key<C: Contender>(n: usize) -> C::Key {
    C::key(&Objects::namespace(n), &Objects::name(n))
}

/// Prepares and applies the resources [`FEW`] at a time, so that each key and body is close together in memory, as for a caller
/// that makes its writes one by one.
fn apply_all<C: Contender>(runtime: &Runtime, store: &C, objects: Objects, numbers: &[usize], version: u64) -> Round {
    runtime.block_on(async {
        let mut all = Round::sum(std::iter::empty());
        let mut writes = Vec::with_capacity(FEW);
        let mut keys = Vec::with_capacity(FEW);
        for few in numbers.chunks(FEW) {
            writes.extend(few.iter().map(|n| (key::<C>(*n), C::body(objects.get(*n, version)))));
            let clock = Clock::start();
            for (key, body) in writes.drain(..) {
                store.apply(&key, body).await;
                keys.push(key);
            }
            all = all.and(clock.stop(few.len() as u64));
            keys.clear();
        }
        all
    })
}

/// A store that holds these resources in version 0; checked.
pub(super) fn filled<C: Contender>(objects: Objects) -> C {
    let (store, runtime) = (C::new(), runtime());
    apply_all(&runtime, &store, objects, &objects.shuffled(), 0);
    runtime.block_on(holds(&store, objects, 0));
    store
}

/// Checks that the store holds these resources and no others: by their number, and the bodies of about a thousand of them.
async fn holds<C: Contender>(store: &C, objects: Objects, version: u64) {
    assert_eq!(store.count().await, objects.count);
    for n in (0..objects.count).step_by(objects.count.div_ceil(1_000)) {
        let found = store.get(&key::<C>(n)).await.expect("it was applied");
        assert!(found.as_ref() == objects.get(n, version).body, "{} has another body", Objects::name(n));
    }
}

pub(super) fn fill<C: Contender>(objects: Objects) -> Turn {
    let (runtime, numbers) = (runtime(), objects.shuffled());
    Box::new(move || {
        let store = C::new();
        let round = apply_all(&runtime, &store, objects, &numbers, 0);
        runtime.block_on(holds(&store, objects, 0));
        round
    })
}

pub(super) fn replace<C: Contender>(store: Arc<C>, objects: Objects, part: usize) -> Turn {
    let (runtime, mut rng) = (runtime(), Rng::with_seed(1));
    let mut version = 1;
    Box::new(move || {
        version += 1;
        let numbers: Vec<usize> = (0..part).map(|_| objects.any(&mut rng)).collect();
        let round = apply_all(&runtime, &*store, objects, &numbers, version);
        runtime.block_on(async {
            for n in numbers.iter().step_by(100) {
                let found = store.get(&key::<C>(*n)).await.expect("it was applied");
                assert!(found.as_ref() == objects.get(*n, version).body);
            }
            assert_eq!(store.count().await, objects.count);
        });
        round
    })
}

pub(super) fn get<C: Contender>(store: Arc<C>, objects: Objects, part: usize) -> Turn {
    let (runtime, mut rng) = (runtime(), Rng::with_seed(2));
    Box::new(move || {
        let keys: Vec<C::Key> = (0..part).map(|_| key::<C>(objects.any(&mut rng))).collect();
        let clock = Clock::start();
        let found = runtime.block_on(async {
            let mut bytes = 0;
            for key in &keys {
                bytes += store.get(key).await.map_or(0, |found| found.as_ref().len());
            }
            bytes
        });
        let round = clock.stop(part as u64);
        assert_eq!(found, part * objects.size, "not all were found");
        round
    })
}

/// Each turn goes on with the next [`Contender::LISTS`] namespaces; with the default, a turn lists each namespace once.
pub(super) fn list<C: Contender>(store: Arc<C>, objects: Objects) -> Turn {
    let runtime = runtime();
    let namespaces: Vec<C::Namespace> = (0..NAMESPACES).map(|n| C::namespace(&Objects::namespace(n))).collect();
    let mut listed = 0;
    Box::new(move || {
        let from = listed;
        listed += C::LISTS;
        Round::sum(namespaces.iter().cycle().skip(from % NAMESPACES).take(C::LISTS).map(|namespace| {
            let clock = Clock::start();
            let found = runtime.block_on(store.list(namespace));
            let round = clock.stop(1);
            let bytes: usize = found.iter().map(|found| found.as_ref().len()).sum();
            assert_eq!(bytes, objects.count / NAMESPACES * objects.size, "not all were listed");
            round
        }))
    })
}

/// Each turn lists at most ten namespaces; just before each listing one resource is added to it, in the middle of its names.
pub(super) fn list_after_adding<C: Contender>(store: Arc<C>, objects: Objects) -> Turn {
    let runtime = runtime();
    let mut added = 0;
    Box::new(move || {
        Round::sum((0..NAMESPACES).step_by(10).take(C::LISTS).map(|n| {
            added += 1;
            let (namespace, name) = (Objects::namespace(n), format!("{}-{added}", Objects::name(objects.count / 2)));
            let (key, body) = (C::key(&namespace, &name), C::body(objects.named(namespace.clone(), name, 1)));
            runtime.block_on(store.apply(&key, body));
            let namespace = C::namespace(&namespace);
            let clock = Clock::start();
            let found = runtime.block_on(store.list(&namespace));
            let round = clock.stop(1);
            assert!(found.len() > objects.count / NAMESPACES, "not all were listed");
            round
        }))
    })
}

pub(super) fn two_threads<C: Contender>(store: Arc<C>, objects: Objects, part: usize) -> Turn {
    let mut version = 1 << 32;
    Box::new(move || {
        version += 1;
        let (ready, begin) = (Barrier::new(3), Barrier::new(3));
        thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|thread| {
                    let (ready, begin, store) = (&ready, &begin, &store);
                    scope.spawn(move || {
                        let runtime = runtime();
                        let mut rng = Rng::with_seed(version * 2 + thread);
                        let mut call = |n: usize| {
                            let any = objects.any(&mut rng);
                            (key::<C>(any), (n.is_multiple_of(10)).then(|| C::body(objects.get(any, version))))
                        };
                        let calls: Vec<_> = (0..part).map(&mut call).collect();
                        let mut keys = Vec::with_capacity(part);
                        ready.wait();
                        begin.wait();
                        let bytes = runtime.block_on(async {
                            let mut bytes = 0;
                            for (key, body) in calls {
                                match body {
                                    Some(body) => store.apply(&key, body).await,
                                    None => bytes += store.get(&key).await.map_or(0, |found| found.as_ref().len()),
                                }
                                // Keys are dropped after the clock stops: freeing them costs some contenders more than others.
                                keys.push(key);
                            }
                            bytes
                        });
                        (bytes, keys)
                    })
                })
                .collect();
            ready.wait();
            let clock = Clock::start();
            begin.wait();
            let done: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("calls work")).collect();
            let round = clock.stop((2 * part) as u64);
            for (bytes, _) in &done {
                assert_eq!(*bytes, part * 9 / 10 * objects.size, "not all were found");
            }
            round
        })
    })
}

pub(super) fn snapshot<C: Contender>(objects: Objects) -> Turn {
    let (store, runtime) = (filled::<C>(objects), runtime());
    // Reused by every turn: the first, a warm-up, faults its pages in.
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        let clock = Clock::start();
        runtime.block_on(store.snapshot(&mut out));
        let round = clock.stop(1);
        assert!(out.len() > objects.count * objects.size, "the snapshot is too small");
        round
    })
}

pub(super) fn restore<C: Contender>(objects: Objects) -> Turn {
    let runtime = runtime();
    let mut snapshot = Vec::new();
    runtime.block_on(filled::<C>(objects).snapshot(&mut snapshot));
    Box::new(move || {
        let store = C::new();
        let clock = Clock::start();
        runtime.block_on(store.restore(&snapshot));
        let round = clock.stop(1);
        runtime.block_on(holds(&store, objects, 0));
        round
    })
}

struct Held<C> {
    store: C,
    objects: Objects,
    runtime: Runtime,
    snapshot: Vec<u8>,
}

pub(super) fn holder<C: Contender>(objects: Objects) -> Box<dyn Holder> {
    Box::new(Held { store: filled::<C>(objects), objects, runtime: runtime(), snapshot: Vec::new() })
}

impl<C: Contender> Holder for Held<C> {
    fn snapshot(&mut self) -> Option<usize> {
        if !C::SNAPSHOTS {
            return None;
        }
        self.snapshot.clear();
        self.runtime.block_on(self.store.snapshot(&mut self.snapshot));
        Some(self.snapshot.len())
    }

    fn restore(&self) -> Box<dyn Any> {
        let store = C::new();
        self.runtime.block_on(async {
            store.restore(&self.snapshot).await;
            assert_eq!(store.count().await, self.objects.count);
        });
        Box::new(store)
    }
}
