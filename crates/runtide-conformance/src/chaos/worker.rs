//! Carries episodes out, through the backend under test and beside it.

use std::{future::Future, sync::Arc, time::Duration};

use runtide_core::{
    ExitCause, InstanceId, ListOptions, Result, RuntimeBackend, UnixSignal, WatchOptions,
    manager::{
        ConnectOptions, ExecOptions, LifecycleManager, LogOptions, NetworkSpec, RemoveOptions, StopOptions, VolumeId,
        VolumeSpec,
    },
};
use runtide_journal::OWNER_LABEL;
use tokio::{sync::RwLock, time::Instant};

use super::{
    calls::{Call, Calls, PATIENCE},
    schedule::{Act, End, Episode, Episodes, Side, What, Work},
};
use crate::{Change, Done, Harness, Workload};

/// Time that an instance is given to stop by itself.
const GRACE: Duration = Duration::from_secs(1);

/// The longest wait for the output of a process or a log that has no end.
const OUTPUT: Duration = Duration::from_secs(10);

/// Deadlines that a transfer of a volume has one after the other: an inspection, a helper's creation, an inspection, the archive
/// of the content and that of its folder, each also before the removal of the helper.
const STEPS_OF_A_TRANSFER: u32 = 8;

/// Ends the name of each instance that is created beside the backend: the harness, and not the backend, has to remove it.
pub(super) const BESIDE: &str = "-beside";

/// State that all workers of a run share.
pub(super) struct Scene {
    pub(super) backend: Arc<dyn RuntimeBackend>,
    pub(super) calls: Calls,
    /// Owner of each object that is created through the backend.
    pub(super) owner: String,
    /// Begins the name of each object of the run.
    pub(super) tag: String,
    /// The deadline with which the backend was made.
    pub(super) deadline: Duration,
    pub(super) residents: Vec<InstanceId>,
    /// Held by each call about a network, and by a fault that ends the daemon: dockerd 20.10 that dies while it removes a network
    /// keeps a record without addresses, and panics at each later start (`reservePools` of libnetwork).
    pub(super) networks: RwLock<()>,
    pub(super) harness: Arc<dyn Harness>,
}

/// Carries out episodes until a time.
pub(super) async fn work(scene: Arc<Scene>, worker: usize, mut episodes: Episodes, until: Instant) -> Episodes {
    while Instant::now() < until {
        let episode = episodes.draw();
        tokio::time::sleep(episode.pause).await;
        let name = format!("{}-{worker}-{}", scene.tag, episode.number);
        Hand { scene: &scene, name, episode: &episode }.carry_out().await;
    }
    episodes
}

/// One episode under way.
struct Hand<'a> {
    scene: &'a Scene,
    name: String,
    episode: &'a Episode,
}

impl Hand<'_> {
    async fn carry_out(&self) {
        match &self.episode.what {
            What::Life { maker, work, acts, end } => self.life(*maker, *work, acts, *end).await,
            What::Resident { which, acts } => {
                if let Some(id) = self.scene.residents.get(*which) {
                    for (side, act) in acts {
                        self.act(*side, *act, id, None).await;
                    }
                }
            }
            What::Volumes { transfer, end } => self.volumes(*transfer, *end).await,
            What::Watch(time) => self.watch(*time).await,
            What::Read => self.read().await,
        }
    }

    fn limit(&self) -> Duration {
        self.scene.deadline
    }

    fn limited(&self, verb: &'static str, limit: Option<Duration>) -> Call {
        Call { verb, on: self.name.clone(), limit, hurry: self.episode.hurry }
    }

    async fn call<T>(&self, verb: &'static str, work: impl Future<Output = Result<T>>) -> Option<T> {
        self.scene.calls.make(self.limited(verb, Some(self.limit())), work).await
    }

    async fn beside<T>(&self, step: &str, work: impl Future<Output = Done<T>>) -> Option<T> {
        let done = tokio::time::timeout(PATIENCE, work).await;
        let outcome = match &done {
            Ok(Ok(_)) => "ok".to_owned(),
            Ok(Err(obstacle)) => obstacle.to_string(),
            Err(_) => format!("given up after {PATIENCE:?}"),
        };
        self.scene.calls.beside(format_args!("{step} {}", self.name), outcome);
        done.ok()?.ok()
    }

    /// Another name, which still says that it was created beside the backend, if it was.
    fn new_name(&self) -> String {
        let is_beside = matches!(self.episode.what, What::Life { maker: Side::Beside, .. });
        format!("{}-renamed{}", self.name, if is_beside { BESIDE } else { "" })
    }

    fn verbs(&self) -> Option<&dyn LifecycleManager> {
        self.scene.backend.lifecycle()
    }

    async fn life(&self, maker: Side, work: Work, acts: &[(Side, Act)], end: Option<(Side, End)>) {
        let (id, code) = match maker {
            Side::Runtide => self.create(work).await,
            Side::Beside => {
                let (work, code) = workload(work);
                let name = format!("{}{BESIDE}", self.name);
                (self.beside("create", self.scene.harness.create(&name, &work)).await, code)
            }
        };
        // An instance of a create without an answer is found by its label, or by its name.
        let Some(id) = id else { return };
        for (side, act) in acts {
            self.act(*side, *act, &id, code).await;
        }
        if let Some((side, end)) = end {
            self.end(side, end, &id).await;
        }
    }

    /// Creates an instance through the backend; with the exit code of an instance that ends by itself.
    async fn create(&self, work: Work) -> (Option<InstanceId>, Option<i32>) {
        let Some(provision) = self.scene.backend.provision() else { return (None, None) };
        let (work, code) = workload(work);
        let described = self.scene.harness.spec(&self.name, &work);
        let (spec, code) = match described {
            Ok(spec) => (Ok(spec), code),
            Err(_) => (self.scene.harness.spec(&self.name, &Workload::Idle), None),
        };
        let Ok(spec) = spec else { return (None, None) };
        let spec = spec.with_label(OWNER_LABEL, &self.scene.owner);
        (self.call("create", provision.create(&spec)).await, code)
    }

    async fn end(&self, side: Side, end: End, id: &InstanceId) {
        if end == End::StopAndRemove {
            self.act(side, Act::Stop, id, None).await;
        }
        match (side, self.verbs()) {
            (Side::Runtide, Some(verbs)) => {
                self.call("remove", verbs.remove(id, RemoveOptions::default().with_kill())).await;
            }
            _ => {
                self.beside("remove", self.scene.harness.remove(id)).await;
            }
        }
    }

    async fn act(&self, side: Side, act: Act, id: &InstanceId, code: Option<i32>) {
        match side {
            Side::Beside => self.act_beside(act, id).await,
            Side::Runtide => self.act_through(act, id, code).await,
        }
    }

    /// Carries an act out beside the backend, where the harness can.
    async fn act_beside(&self, act: Act, id: &InstanceId) {
        let h = &self.scene.harness;
        match act {
            Act::Start => {
                self.beside("start", h.start(id)).await;
            }
            Act::Stop => {
                self.beside("stop", h.stop(id)).await;
            }
            Act::Restart => {
                self.beside("stop", h.stop(id)).await;
                self.beside("start", h.start(id)).await;
            }
            Act::Pause(time) => {
                self.beside("pause", h.change(id, &Change::Pause)).await;
                tokio::time::sleep(time).await;
                self.beside("unpause", h.change(id, &Change::Unpause)).await;
            }
            Act::Signal => {
                self.beside("signal", h.kill(id, UnixSignal::HUP)).await;
            }
            Act::Rename => {
                self.beside("rename", h.change(id, &Change::Rename(self.new_name()))).await;
            }
            // The harness has no such verb.
            Act::Exec | Act::Logs | Act::Usage | Act::Network { .. } | Act::Wait => {
                self.act_through(act, id, None).await;
            }
        }
    }

    async fn act_through(&self, act: Act, id: &InstanceId, code: Option<i32>) {
        let (backend, limit) = (&self.scene.backend, self.limit());
        let stop = || StopOptions::default().with_timeout(GRACE);
        match act {
            Act::Exec => self.exec(id).await,
            Act::Logs => self.logs(id).await,
            Act::Network { stays } => self.network(id, stays).await,
            Act::Usage => {
                if let Some(stats) = backend.stats() {
                    self.call("usage", stats.usage(id)).await;
                }
            }
            _ => {
                let Some(verbs) = self.verbs() else { return };
                match act {
                    Act::Start => {
                        self.call("start", verbs.start(id)).await;
                    }
                    Act::Stop => {
                        let call = self.limited("stop", Some(limit + GRACE));
                        self.scene.calls.make(call, verbs.stop(id, stop())).await;
                    }
                    Act::Restart => {
                        let call = self.limited("restart", Some(limit * 2 + GRACE));
                        self.scene.calls.make(call, verbs.restart(id, stop())).await;
                    }
                    Act::Pause(time) => {
                        self.call("pause", verbs.pause(id)).await;
                        tokio::time::sleep(time).await;
                        self.call("unpause", verbs.unpause(id)).await;
                    }
                    Act::Signal => {
                        self.call("kill", verbs.kill(id, UnixSignal::HUP)).await;
                    }
                    Act::Rename => {
                        self.call("rename", verbs.rename(id, &self.new_name())).await;
                    }
                    Act::Wait => {
                        // One that does not end by itself is not waited for.
                        if let Some(code) = code {
                            self.wait(verbs, id, code).await;
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Waits for the end of an instance that ends by itself.
    async fn wait(&self, verbs: &dyn LifecycleManager, id: &InstanceId, code: i32) {
        let ended = self.scene.calls.make(self.limited("wait", None), verbs.wait(id)).await;
        if let Some(Some(exit)) = ended
            && exit.end != ExitCause::Code(code)
        {
            // The daemon itself may be killed as it notes the end.
            self.scene.calls.wrong_if_calm(format!("{} ended with {code}, and `wait` said {exit:?}", self.name));
        }
    }

    /// Runs a command, whose output must be whole if it ends well. A connection that something between the two cuts in the last moment of the
    /// process looks as its end does: then the output may be a part, and never anything else.
    async fn exec(&self, id: &InstanceId) {
        let word = format!("w{}", self.episode.number);
        let (Some(exec), Some(echo)) = (self.scene.backend.exec(), self.scene.harness.echo(&word)) else { return };
        let options = ExecOptions::default().with_argv(echo.argv);
        let cuts = self.scene.calls.cuts();
        let Some(mut session) = self.call("exec", exec.exec(id, options)).await else { return };
        let mut output = Vec::new();
        let read = async {
            while let Some(line) = session.output.next().await {
                output.extend_from_slice(&line?.bytes);
            }
            session.control.wait().await
        };
        let ended = self.scene.calls.make(self.limited("exec's output", None), read).await;
        let expected: Vec<u8> = echo.stdout.flatten().collect();
        let is_whole = output == expected || cuts != self.scene.calls.cuts() && expected.starts_with(&output);
        if ended.flatten().is_some_and(|exit| exit.end == ExitCause::Code(echo.code)) && !is_whole {
            let (expected, output) = (expected.escape_ascii(), output.escape_ascii());
            self.scene.calls.wrong(format!("exec in {} printed '{output}' and not '{expected}'", self.name));
        }
    }

    async fn logs(&self, id: &InstanceId) {
        let Some(logs) = self.scene.backend.logs() else { return };
        let Some(mut lines) = self.call("logs", logs.logs(id, LogOptions::default())).await else { return };
        let read = async {
            while let Some(line) = lines.next().await {
                line?;
            }
            Ok(())
        };
        let call = Call { hurry: self.episode.hurry.or(Some(OUTPUT)), ..self.limited("log's lines", None) };
        self.scene.calls.make(call, read).await;
    }

    /// Makes a call about a network, while no daemon dies.
    async fn net<T>(&self, verb: &'static str, work: impl Future<Output = Result<T>>) -> Option<T> {
        let _daemon_stays = self.scene.networks.read().await;
        self.call(verb, work).await
    }

    async fn network(&self, id: &InstanceId, stays: bool) {
        let Some(networks) = self.scene.backend.networks() else { return };
        let spec = NetworkSpec::named(format!("{}-net", self.name)).with_label(OWNER_LABEL, &self.scene.owner);
        let Some(network) = self.net("create network", networks.create(&spec)).await else { return };
        self.net("connect", networks.connect(&network, id, ConnectOptions::default())).await;
        self.net("inspect network", networks.inspect(&network)).await;
        if !stays {
            self.net("disconnect", networks.disconnect(&network, id)).await;
            self.net("remove network", networks.remove(&network)).await;
        }
    }

    async fn volumes(&self, transfer: bool, end: bool) {
        let Some(volumes) = self.scene.backend.volumes() else { return };
        let mut made: Vec<VolumeId> = Vec::new();
        for name in ["a", "b"] {
            let spec = VolumeSpec::named(format!("{}-{name}", self.name)).with_label(OWNER_LABEL, &self.scene.owner);
            made.extend(self.call("create volume", volumes.create(&spec)).await);
        }
        if let ([from, to], true) = (made.as_slice(), transfer) {
            let limit = Some(self.limit() * STEPS_OF_A_TRANSFER);
            let archive = self.scene.calls.make(self.limited("export", limit), volumes.export(from)).await;
            if let Some(archive) = archive {
                self.scene.calls.make(self.limited("import", limit), volumes.import(to, archive)).await;
            }
        }
        if end {
            for volume in &made {
                self.call("remove volume", volumes.remove(volume)).await;
            }
        }
    }

    async fn watch(&self, time: Duration) {
        let opened = self.call("watch", self.scene.backend.watch(WatchOptions::default())).await;
        let Some(mut stream) = opened else { return };
        let read = async {
            while let Some(event) = stream.next().await {
                event?;
            }
            Ok(())
        };
        let hurry = self.episode.hurry.unwrap_or(time).min(time);
        let call = Call { hurry: Some(hurry), ..self.limited("events", None) };
        if self.scene.calls.make(call, read).await.is_some() {
            self.scene.calls.wrong(format!("the watch of {} ended by itself", self.name));
        }
    }

    async fn read(&self) {
        let listed = self.call("list", self.scene.backend.list_instances(ListOptions::default())).await;
        for instance in listed.iter().flat_map(|listed| &listed.instances).take(3) {
            self.call("inspect", self.scene.backend.inspect(&instance.id)).await;
        }
    }
}

fn workload(work: Work) -> (Workload, Option<i32>) {
    match work {
        Work::Idle => (Workload::Idle, None),
        Work::Exit { after, code } => (Workload::Exit { after, code }, Some(code)),
    }
}
