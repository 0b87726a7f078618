//! A scripted life, for when nothing else answers: a few services that come, fail, recover and are replaced.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    time::Duration,
};

use runtide_core::{
    Address, ExitStatus, Group, GroupKind, Health, InstanceId, Labels, LogSource, Port, Protocol, RestartPolicy,
    Result, UnixSignal,
};
use tokio::task::JoinHandle;

use super::{Blueprint, MemoryRuntime, RuntimeOptions};

/// A [`MemoryRuntime`] that lives by itself, until this is dropped.
#[derive(Debug)]
pub struct ScriptedLife {
    runtime: MemoryRuntime,
    task: JoinHandle<()>,
}

impl ScriptedLife {
    /// The runtime: it stays when this is dropped, and nothing happens in it any more.
    pub fn runtime(&self) -> &MemoryRuntime {
        &self.runtime
    }
}

impl Drop for ScriptedLife {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl MemoryRuntime {
    /// A runtime with a life of its own: services of two compose projects, with ports, labels, health, restarts, short jobs
    /// and replacements; something happens every 200 to 800 ms. The same seed gives the same life.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// use runtide_memory::MemoryRuntime;
    ///
    /// let life = MemoryRuntime::scripted_life(7);
    /// tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    /// assert!(life.runtime().history().len() > 10);
    /// # }
    /// ```
    pub fn scripted_life(seed: u64) -> ScriptedLife {
        MemoryRuntime::with_options(RuntimeOptions::default().with_facts(10_000_usize)).live_by_script(seed)
    }

    /// Gives this runtime such a life. Whoever keeps a journal of it over more than one process gives each of them a
    /// [`RuntimeOptions::seed`] of its own, since it is another runtime each time, with other ids.
    ///
    /// Must be called inside a tokio runtime.
    pub fn live_by_script(&self, seed: u64) -> ScriptedLife {
        let runtime = self.clone();
        let story = Story {
            runtime: runtime.clone(),
            rng: fastrand::Rng::with_seed(seed),
            services: Vec::new(),
            jobs: Vec::new(),
        };
        ScriptedLife { runtime, task: tokio::spawn(story.run()) }
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

struct Story {
    runtime: MemoryRuntime,
    rng: fastrand::Rng,
    services: Vec<(usize, InstanceId)>,
    jobs: Vec<InstanceId>,
}

impl Story {
    async fn run(mut self) {
        for role in 0..CAST.len() {
            self.pause().await;
            self.enter(role);
        }
        loop {
            self.pause().await;
            // What is not there any more has nothing to do: the next scene follows.
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

    /// One thing that happens.
    async fn scene(&mut self) -> Result<()> {
        let runtime = self.runtime.clone();
        let Some((role, id)) = self.rng.choice(&self.services).cloned() else { return Ok(()) };
        match self.rng.u8(0..12) {
            0..=3 => {
                let verdict = if self.rng.u8(0..5) == 0 { Health::Unhealthy } else { Health::Healthy };
                runtime.set_health(&id, verdict)
            }
            4 | 5 => {
                let number = self.jobs.len() + 1;
                self.jobs.push(
                    runtime.run(
                        Blueprint::named(format!("shop-migrate-{number}"))
                            .with_image(runtide_core::ImageRef::from("shop/migrate:2.4"))
                            .with_group(Group::new(GroupKind::Compose, "shop").with_service("migrate".to_owned()))
                            .with_life(Duration::from_millis(self.rng.u64(50..1500)))
                            .with_exit(ExitStatus::code(i32::from(self.rng.u8(0..4) == 0))),
                    )?,
                );
                Ok(())
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
