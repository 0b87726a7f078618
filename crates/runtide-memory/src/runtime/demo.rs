//! A scripted demo, for machines without a runtime: a few services that come, fail, recover and are replaced.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    time::Duration,
};

use runtide_core::{
    Address, Error, ErrorKind, ExitStatus, Group, GroupKind, Health, InstanceId, Labels, Port, Protocol, Result,
    UnixSignal,
    manager::{LogSource, RestartPolicy},
};
use tokio::task::JoinHandle;

use super::{Blueprint, MemoryRuntime, RuntimeOptions};

/// A [`MemoryRuntime`] that changes by itself, until this is dropped: keep it for as long as the script shall go on.
#[must_use = "the script ends as soon as this is dropped"]
#[derive(Debug)]
pub struct ScriptedRuntime {
    runtime: MemoryRuntime,
    task: JoinHandle<()>,
}

impl ScriptedRuntime {
    /// The runtime: it outlives this value, but then it changes no more.
    pub fn runtime(&self) -> &MemoryRuntime {
        &self.runtime
    }
}

impl Drop for ScriptedRuntime {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MemoryRuntime {
    /// A runtime that changes by itself: services of two compose projects, with ports, labels, health, restarts, short jobs
    /// and replacements. Three services run when this returns. A change happens every 200 to 800 ms, and within the first
    /// four seconds one of each kind: a start, a health change, an end with its code, a restart, and a removal. The same
    /// seed gives the same changes, ids included.
    ///
    /// Must be called inside a tokio runtime. The script goes on for as long as the returned value is held.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// use runtide_memory::MemoryRuntime;
    ///
    /// let scripted = MemoryRuntime::scripted(7);
    /// assert_eq!(scripted.runtime().truth().len(), 3);
    /// tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    /// assert!(scripted.runtime().history().len() > 10);
    /// # }
    /// ```
    pub fn scripted(seed: u64) -> ScriptedRuntime {
        let options = RuntimeOptions::default().with_facts(10_000_usize).with_seed(seed);
        Self::with_options(options).run_script(seed)
    }

    /// Starts the same script on this runtime. The seed decides the changes alone; the ids are this runtime's. A journal that is
    /// kept over more than one process needs this, on a runtime without a [`RuntimeOptions::seed`].
    ///
    /// Must be called inside a tokio runtime. The script goes on for as long as the returned value is held.
    pub fn run_script(&self, seed: u64) -> ScriptedRuntime {
        let runtime = self.clone();
        let mut story = Story {
            runtime: runtime.clone(),
            rng: fastrand::Rng::with_seed(seed),
            services: Vec::new(),
            jobs: Vec::new(),
            started_jobs: 0,
        };
        (0..AT_ONCE).for_each(|role| story.enter(role));
        ScriptedRuntime { runtime, task: tokio::spawn(story.run()) }
    }
}

/// Project, service, image, port; 0: none.
const CAST: [(&str, &str, &str, u16); 7] = [
    ("shop", "web", "nginx:1.29", 8080),
    ("shop", "api", "shop/api:2.4", 3000),
    ("shop", "worker", "shop/worker:2.4", 0),
    ("shop", "db", "postgres:18", 5432),
    ("shop", "cache", "redis:8", 6379),
    ("metrics", "scraper", "prometheus:3.5", 9090),
    ("metrics", "board", "grafana:12.1", 3001),
];

/// Number of services that run before the first listing.
const AT_ONCE: usize = 3;

struct Story {
    runtime: MemoryRuntime,
    rng: fastrand::Rng,
    services: Vec<(usize, InstanceId)>,
    jobs: Vec<InstanceId>,
    started_jobs: u32,
}

/// A service may have been removed through another handle of the runtime.
fn gone() -> Error {
    Error::new(ErrorKind::NotFound, "memory.script", "the service is gone")
}

impl Story {
    async fn run(mut self) {
        // A subscriber sees one change of each kind within a few seconds; after that, changes are random.
        let _ = self.overture().await;
        for role in AT_ONCE..CAST.len() {
            self.pause().await;
            if !self.services.iter().any(|(there, _)| *there == role) {
                self.enter(role);
            }
        }
        loop {
            self.pause().await;
            // A service that is gone ends the scene: the next one follows.
            let _ = self.scene().await;
        }
    }

    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.rng.u64(200..800))).await;
    }

    fn enter(&mut self, role: usize) {
        let Some((project, service, image, port)) = CAST.get(role).copied() else { return };
        let host = u8::try_from(role + 2).unwrap_or(u8::MAX);
        let labels: Labels = [("com.docker.compose.project", project), ("com.docker.compose.service", service)]
            .into_iter()
            .chain((port > 0).then_some(("koi.dns.name", service)))
            .collect();
        let ports: Vec<Port> = NonZeroU16::new(port)
            .map(|number| Port::new(number, Protocol::Tcp).published_at(SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
            .into_iter()
            .collect();
        let design = Blueprint::named(format!("{project}-{service}-1"))
            .with_image(runtide_core::ImageRef::from(image))
            .with_labels(labels)
            .with_ports(ports)
            .with_addresses([Address::new(Ipv4Addr::new(10, 89, 0, host).into(), format!("{project}_default"))])
            .with_group(Group::new(GroupKind::Compose, project).with_service(service.to_owned()))
            .with_health((port > 0).then_some(Health::Starting))
            .with_restart(RestartPolicy::UnlessStopped);
        if let Ok(id) = self.runtime.run(design) {
            let _ = self.runtime.write_log(&id, LogSource::Stdout, format!("{service}: ready\n"));
            self.services.push((role, id));
        }
    }

    /// One change of each kind, in four seconds at the most: each beat is half a second or less.
    async fn overture(&mut self) -> Result<()> {
        let runtime = self.runtime.clone();
        let id = |at: usize| self.services.get(at).map(|(_, id)| id.clone()).ok_or_else(gone);
        let (web, api) = (id(0)?, id(1)?);
        self.beat().await;
        runtime.set_health(&web, Health::Healthy)?;
        let job = self.job(ExitStatus::code(0), Duration::from_millis(300))?;
        self.beat().await;
        self.enter(AT_ONCE);
        self.beat().await;
        runtime.crash(&api)?; // it is started again
        self.beat().await;
        runtime.set_health(&web, Health::Unhealthy)?;
        self.beat().await;
        runtime.stop(&web)?;
        self.beat().await;
        runtime.start(&web)?;
        self.beat().await;
        self.jobs.retain(|other| *other != job);
        runtime.remove(&job)
    }

    async fn beat(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.rng.u64(300..500))).await;
    }

    /// A job that runs for this time, and ends with this exit.
    fn job(&mut self, exit: ExitStatus, life: Duration) -> Result<InstanceId> {
        self.started_jobs += 1;
        let job = self.runtime.run(
            Blueprint::named(format!("shop-migrate-{}", self.started_jobs))
                .with_image(runtide_core::ImageRef::from("shop/migrate:2.4"))
                .with_group(Group::new(GroupKind::Compose, "shop").with_service("migrate".to_owned()))
                .with_run_length(life)
                .with_exit(exit),
        )?;
        self.jobs.push(job.clone());
        Ok(job)
    }

    /// One random change.
    async fn scene(&mut self) -> Result<()> {
        let runtime = self.runtime.clone();
        let Some((role, id)) = self.rng.choice(&self.services).cloned() else { return Ok(()) };
        match self.rng.u8(0..12) {
            0..=3 => {
                let verdict = if self.rng.u8(0..5) == 0 { Health::Unhealthy } else { Health::Healthy };
                runtime.set_health(&id, verdict)
            }
            4 | 5 => {
                let exit = ExitStatus::code(i32::from(self.rng.u8(0..4) == 0));
                let life = Duration::from_millis(self.rng.u64(50..1500));
                self.job(exit, life).map(drop)
            }
            6 => {
                runtime.pause(&id)?;
                self.pause().await;
                runtime.unpause(&id)
            }
            7 => runtime.crash(&id),
            8 => runtime.kill(&id, UnixSignal::HUP),
            9 => {
                runtime.stop(&id)?;
                self.pause().await;
                runtime.start(&id)
            }
            10 => {
                self.services.retain(|(_, other)| *other != id);
                runtime.remove(&id)?;
                self.pause().await;
                self.enter(role);
                Ok(())
            }
            _ if self.jobs.len() > 3 => self.jobs.drain(..).try_for_each(|job| runtime.remove(&job)),
            _ => {
                let build = self.rng.u32(100..1000).to_string();
                runtime.edit(&id, "labels", |design| design.labels.insert("build", build))
            }
        }
    }
}
