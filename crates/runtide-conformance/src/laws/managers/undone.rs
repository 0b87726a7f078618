//! Undoing of composed operations: M7.

use std::{collections::BTreeSet, future::Future, path::Path, pin::pin, sync::Arc, task::Poll, time::Duration};

use runtide_core::{
    Result, RuntimeBackend, RuntimeBackendExt,
    manager::{NetworkSpec, Readiness, Sidecar, SidecarManager, SidecarSpec},
    wal::WalOptions,
};
use runtide_journal::{JournalOptions, OperationLog, Sidecars};

use super::ok;
use crate::{
    Done, Harness, Law, LawResult, Obstacle, Verdict, Violation, Workload, ensure,
    laws::backend,
    mortal::{Lifespan, MortalBackend, MortalDisk},
};

const NETWORK: &str = "runtide-m7";

/// Bound of the enumeration, above the number of points that any start has.
const MOST: u64 = 500;

/// **M7 undone.** A composed operation that fails, is dropped, or whose process is killed between any two steps leaves
/// nothing behind after `recover()`; undoing is idempotent and may run again when recovery itself dies.
pub async fn m7_undone(h: &dyn Harness) -> LawResult {
    let backend = backend(h).await?;
    ok(Law::M7, "connect", backend.connect().await)?;
    if backend.networks().is_none() || backend.images().is_none() || backend.provision().is_none() {
        return Verdict::not_applicable("operations are composed of networks, images and provision");
    }
    let scene = Scene { h, backend: backend.clone(), before: Left::now(h, &*backend).await? };
    scene.a_start_that_fails().await?;
    scene.a_start_that_is_dropped().await?;
    scene.a_start_that_is_killed().await?;
    scene.a_stop_that_is_killed().await?;
    Verdict::kept()
}

/// The instances and networks that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    instances: BTreeSet<String>,
    networks: BTreeSet<String>,
}

impl Left {
    async fn now(h: &dyn Harness, backend: &dyn RuntimeBackend) -> Done<Self> {
        let networks = match backend.networks() {
            Some(networks) => networks.list().await.map_err(Obstacle::failed)?,
            None => Vec::new(),
        };
        Ok(Self {
            instances: h.truth().await?.into_iter().map(|instance| instance.id.to_string()).collect(),
            networks: networks.into_iter().map(|network| network.name).collect(),
        })
    }
}

struct Scene<'a> {
    h: &'a dyn Harness,
    backend: Arc<dyn RuntimeBackend>,
    before: Left,
}

/// The log of one run of the process, on its disk.
fn open(disk: &MortalDisk) -> Result<OperationLog> {
    let options = JournalOptions::default().with_wal(WalOptions::default().with_disk(Arc::new(disk.clone()) as Arc<_>));
    OperationLog::open(Path::new("operations"), "runtide-m7".into(), options)
}

impl Scene<'_> {
    fn spec(&self, ready: Readiness) -> Done<SidecarSpec> {
        let instance = self.h.spec("m7", &Workload::Idle)?;
        let deadline = self.h.timing().timeout;
        Ok(SidecarSpec::new(instance, ready, deadline).with_network(NetworkSpec::named(NETWORK)))
    }

    /// The spec of a sidecar that never gets ready.
    fn never(&self) -> Done<SidecarSpec> {
        let mut never = self.spec(Readiness::Healthy)?;
        never.deadline = Duration::from_secs(2);
        Ok(never)
    }

    /// The backend's own composition, where it has one.
    fn composed(&self, lifespan: &Lifespan, log: &OperationLog) -> Result<Arc<dyn RuntimeBackend>> {
        if self.backend.sidecars().is_some() {
            return Ok(self.backend.clone());
        }
        let mortal = Arc::new(MortalBackend::new(lifespan, self.backend.clone()));
        Ok(Arc::new(Sidecars::over(mortal, log.clone())?))
    }

    async fn nothing_is_left(&self, after: &str) -> Result<(), Violation> {
        let left = Left::now(self.h, &*self.backend).await?;
        ensure!(left == self.before, M7, format!("nothing left after {after}: {:?}", self.before), format!("{left:?}"));
        Ok(())
    }

    async fn a_start_that_fails(&self) -> Result<(), Violation> {
        let lifespan = Lifespan::unending();
        let log = ok(Law::M7, "a log", open(&MortalDisk::new(&lifespan)))?;
        let backend = ok(Law::M7, "sidecars", self.composed(&lifespan, &log))?;
        let failed = manager(&*backend)?.start_sidecar(&self.never()?).await;
        ensure!(failed.is_err(), M7, "a start that never gets ready to fail", "Ok");
        self.nothing_is_left("a start that failed").await
    }

    async fn a_start_that_is_dropped(&self) -> Result<(), Violation> {
        for polls in [0, 1, 2, 3, 5, 8, 13, 21, 34] {
            let lifespan = Lifespan::unending();
            let log = ok(Law::M7, "a log", open(&MortalDisk::new(&lifespan)))?;
            let backend = ok(Law::M7, "sidecars", self.composed(&lifespan, &log))?;
            let spec = self.spec(Readiness::Healthy)?;
            poll_times(manager(&*backend)?.start_sidecar(&spec), polls).await;
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if log.in_flight().is_empty() && Left::now(self.h, &*self.backend).await? == self.before {
                    break;
                }
            }
            self.nothing_is_left(&format!("a start that was dropped after {polls} polls")).await?;
        }
        Ok(())
    }

    /// Killed at each point; and after each of those, recovery is killed at each point again.
    async fn a_start_that_is_killed(&self) -> Result<(), Violation> {
        if self.backend.sidecars().is_some() {
            return Ok(());
        }
        let spec = self.spec(Readiness::Running)?;
        for point in 1..MOST {
            let mut again = 1;
            loop {
                let lifespan = Lifespan::until(point);
                let disk = MortalDisk::new(&lifespan);
                let started = self.live(&lifespan, &disk, async |sidecars| sidecars.start_sidecar(&spec).await).await;
                if let Some(Ok(sidecar)) = started {
                    return self.stops(&disk, &sidecar).await;
                }
                if self.is_whole(&disk).await? {
                    break;
                }
                let killed_again = self.recovers(&disk, again, &format!("a start killed at point {point}")).await?;
                // On a real runtime recovery is killed once for each killed start: the rest takes hours.
                if !killed_again || (self.h.is_real() && again > 1) {
                    break;
                }
                again += 1;
            }
        }
        Err(Violation::of(Law::M7, "a start to end", "none that was not killed"))
    }

    async fn a_stop_that_is_killed(&self) -> Result<(), Violation> {
        if self.backend.sidecars().is_some() {
            return Ok(());
        }
        let spec = self.spec(Readiness::Running)?;
        for point in 1..MOST {
            let disk = MortalDisk::new(&Lifespan::unending());
            let start = async |sidecars: &dyn SidecarManager| sidecars.start_sidecar(&spec).await;
            let started = self.live(&Lifespan::unending(), &disk, start).await;
            let sidecar = match started {
                Some(started) => ok(Law::M7, "a start", started)?,
                None => return Err(Violation::harness("open a log", "it cannot be opened")),
            };
            let lifespan = Lifespan::until(point);
            let stopped =
                self.live(&lifespan, &disk.reborn(&lifespan), async |sidecars| sidecars.stop(&sidecar).await).await;
            if let Some(Ok(_)) = stopped {
                return self.nothing_is_left("a stop").await;
            }
            // Either the stop was begun, and recovery finishes it, or it was not, and it can be called again.
            self.recover(&disk, &Lifespan::unending()).await;
            self.stops(&disk, &sidecar).await?;
        }
        Err(Violation::of(Law::M7, "a stop to end", "none that was not killed"))
    }

    /// Runs `act` on the sidecars of one run of the process; `None`: the process died before it had any.
    async fn live<T>(
        &self,
        lifespan: &Lifespan,
        disk: &MortalDisk,
        act: impl AsyncFnOnce(&dyn SidecarManager) -> Result<T>,
    ) -> Option<Result<T>> {
        let log = open(&disk.reborn(lifespan)).ok()?;
        let backend = self.composed(lifespan, &log).ok()?;
        Some(act(backend.sidecars()?).await)
    }

    /// `true` if the process was killed after the log had the start as complete, and before the caller knew: then all of it is
    /// there. It is removed by its labels.
    async fn is_whole(&self, disk: &MortalDisk) -> Result<bool, Violation> {
        let log = ok(Law::M7, "a log after a crash", open(&disk.reborn(&Lifespan::unending())))?;
        let left = Left::now(self.h, &*self.backend).await?;
        let instances = left.instances.difference(&self.before.instances).count();
        let networks = left.networks.difference(&self.before.networks).count();
        if !log.in_flight().is_empty() || (instances, networks) != (1, 1) {
            return Ok(false);
        }
        let no_folder = Path::new("runtide-m7-no-such-folder");
        let reaped = OperationLog::reap_orphans(&*self.backend, log.owner(), no_folder).await;
        let reaped = ok(Law::M7, "reaping by labels", reaped)?;
        ensure!(reaped.len() == 2, M7, "two orphans, by their labels", format!("{reaped:?}"));
        self.nothing_is_left("reaping a complete operation").await?;
        Ok(true)
    }

    async fn recover(&self, disk: &MortalDisk, lifespan: &Lifespan) -> bool {
        let Ok(log) = open(&disk.reborn(lifespan)) else { return false };
        let mortal: Arc<dyn RuntimeBackend> = Arc::new(MortalBackend::new(lifespan, self.backend.clone()));
        log.recover(&[mortal]).await.is_ok_and(|records| records.iter().all(|record| record.pending.is_empty()))
            && !lifespan.is_over()
    }

    /// Recovery that dies at a point, then one that does not. `true` if the first one died.
    async fn recovers(&self, disk: &MortalDisk, point: u64, after: &str) -> Result<bool, Violation> {
        let lifespan = Lifespan::until(point);
        let done = self.recover(disk, &lifespan).await;
        if !lifespan.is_over() {
            ensure!(done, M7, format!("recovery after {after}"), "something that is pending");
            self.nothing_is_left(after).await?;
            return Ok(false);
        }
        let done = self.recover(disk, &Lifespan::unending()).await;
        ensure!(
            done,
            M7,
            format!("recovery after {after} and after a recovery that died"),
            "something that is pending"
        );
        self.nothing_is_left(&format!("{after}, and recovery killed at point {point}")).await?;
        Ok(true)
    }

    async fn stops(&self, disk: &MortalDisk, sidecar: &Sidecar) -> Result<(), Violation> {
        let lifespan = Lifespan::unending();
        match self.live(&lifespan, disk, async |sidecars| sidecars.stop(sidecar).await).await {
            Some(stopped) => drop(ok(Law::M7, "a stop", stopped)?),
            None => return Err(Violation::harness("open a log", "it cannot be opened")),
        }
        self.nothing_is_left("a stop").await
    }
}

fn manager(backend: &dyn RuntimeBackend) -> Result<&dyn SidecarManager, Violation> {
    backend
        .sidecars()
        .ok_or_else(|| Violation::of(Law::M7, "composed sidecars", backend.unsupported("sidecars_start").to_string()))
}

/// Polls a future `times` times, then drops it.
async fn poll_times<T>(work: impl Future<Output = T>, times: usize) {
    let mut work = pin!(work);
    for _ in 0..times {
        if std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_ready())).await {
            return;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
