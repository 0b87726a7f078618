//! Lifecycle and provision, through the backend.

use std::{collections::BTreeMap, num::NonZeroU16, time::Duration};

use runtide_core::{
    ErrorKind, ExitStatus, ImageRef, Instance, InstanceId, InstanceState, Labels, ListOptions, Port, Protocol,
    RuntimeBackend, UnixSignal,
    manager::{
        Effect, ImageInfo, InstanceSpec, LifecycleManager, Mount, MountSource, NetworkSpec, ProvisionManager,
        RemoveOptions, StopOptions, VolumeId, VolumeSpec,
    },
};
use runtide_memory::{Blueprint, Config, MemoryBackend, MemoryRuntime, RuntimeOptions};
use tokio::time::Instant;

fn backend() -> MemoryBackend {
    let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(0));
    MemoryBackend::new(Config::default(), runtime).unwrap()
}

fn lifecycle(backend: &MemoryBackend) -> &dyn LifecycleManager {
    backend.lifecycle().unwrap()
}

fn provision(backend: &MemoryBackend) -> &dyn ProvisionManager {
    backend.provision().unwrap()
}

fn of(backend: &MemoryBackend, id: &InstanceId) -> Instance {
    backend.runtime().truth().into_iter().find(|instance| instance.id == *id).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_verb_towards_the_present_state_changes_nothing() {
    let backend = backend();
    let manager = lifecycle(&backend);
    let id = backend.runtime().create("web").unwrap();
    for (effect, again) in [(Effect::Changed, 0), (Effect::Unchanged, 1)] {
        assert_eq!(manager.start(&id).await.unwrap(), effect, "start {again}");
    }
    for effect in [Effect::Changed, Effect::Unchanged] {
        assert_eq!(manager.pause(&id).await.unwrap(), effect);
    }
    for effect in [Effect::Changed, Effect::Unchanged] {
        assert_eq!(manager.unpause(&id).await.unwrap(), effect);
    }
    for effect in [Effect::Changed, Effect::Unchanged] {
        assert_eq!(manager.stop(&id, StopOptions::default()).await.unwrap(), effect);
    }
    for effect in [Effect::Changed, Effect::Unchanged] {
        assert_eq!(manager.remove(&id, RemoveOptions::default()).await.unwrap(), effect);
    }
    assert_eq!(manager.stop(&id, StopOptions::default()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_forbids_a_verb_is_a_conflict() {
    let backend = backend();
    let manager = lifecycle(&backend);
    let id = backend.runtime().create("web").unwrap();
    let conflict = |result: runtide_core::Result<Effect>| assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict);
    conflict(manager.pause(&id).await);
    conflict(manager.kill(&id, UnixSignal::TERM).await.map(|()| Effect::Changed));
    conflict(manager.wait(&id).await.map(|_| Effect::Changed));
    backend.runtime().start(&id).unwrap();
    conflict(manager.remove(&id, RemoveOptions::default()).await);
    assert_eq!(manager.remove(&id, RemoveOptions::default().with_kill()).await.unwrap(), Effect::Changed);
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_its_timeout_and_then_kills() {
    let backend = backend();
    let deaf = backend.runtime().run(Blueprint::named("deaf").with_ends_on([])).unwrap();
    let began = Instant::now();
    let options = StopOptions::default().with_timeout(Duration::from_secs(45));
    assert_eq!(lifecycle(&backend).stop(&deaf, options).await.unwrap(), Effect::Changed);
    assert_eq!(began.elapsed(), Duration::from_secs(45), "longer than the deadline, since it was asked for");
    assert_eq!(of(&backend, &deaf).exit, Some(ExitStatus::signal(UnixSignal::KILL)));

    let polite = backend.runtime().run(Blueprint::named("polite").with_exit(ExitStatus::code(0))).unwrap();
    lifecycle(&backend).restart(&polite, StopOptions::default().with_signal(UnixSignal::INT)).await.unwrap();
    assert_eq!((of(&backend, &polite).state, began.elapsed().as_secs()), (InstanceState::Running, 45));
}

#[tokio::test(start_paused = true)]
async fn wait_gives_the_true_end() {
    type End = fn(&MemoryRuntime, &InstanceId);
    let backend = backend();
    let runtime = backend.runtime();
    let ends: [(End, Option<ExitStatus>); 4] = [
        (|runtime, id| runtime.exit(id, ExitStatus::code(7)).unwrap(), Some(ExitStatus::code(7))),
        (|runtime, id| runtime.kill(id, UnixSignal::KILL).unwrap(), Some(ExitStatus::signal(UnixSignal::KILL))),
        (|runtime, id| runtime.oom(id).unwrap(), Some(ExitStatus::signal(UnixSignal::KILL).with_oom_killed(true))),
        (|runtime, id| runtime.vanish(id).unwrap(), None),
    ];
    for (end, expected) in ends {
        let id = runtime.run("").unwrap();
        let (waited, ()) = tokio::join!(lifecycle(&backend).wait(&id), async {
            tokio::time::sleep(Duration::from_secs(3600)).await; // it has no deadline
            end(runtime, &id);
            runtime.remove(&id).unwrap();
        });
        assert_eq!(waited.unwrap(), expected);
    }
    let over = runtime.run("").unwrap();
    runtime.exit(&over, ExitStatus::code(9)).unwrap();
    assert_eq!(lifecycle(&backend).wait(&over).await.unwrap(), Some(ExitStatus::code(9)));
}

#[tokio::test(start_paused = true)]
async fn wait_is_for_the_incarnation_that_it_began_in() {
    let backend = backend();
    let runtime = backend.runtime();
    let id = runtime.run("web").unwrap();
    let (waited, ()) = tokio::join!(lifecycle(&backend).wait(&id), async {
        tokio::task::yield_now().await;
        runtime.exit(&id, ExitStatus::code(1)).unwrap();
        runtime.start(&id).unwrap();
        runtime.exit(&id, ExitStatus::code(2)).unwrap();
    });
    assert_eq!(waited.unwrap(), Some(ExitStatus::code(1)));
}

#[tokio::test(start_paused = true)]
async fn a_created_instance_is_as_it_was_described() {
    let backend = backend();
    let runtime = backend.runtime();
    let mut image = ImageInfo::new("img-1");
    image.tags = vec![ImageRef::from("base")];
    image.env = Some(vec!["PATH=/bin".to_owned(), "MODE=image".to_owned()]);
    image.entrypoint = Some(vec!["exit".to_owned()]);
    runtime.add_image(image);
    let network = backend.networks().unwrap().create(&NetworkSpec::named("net")).await.unwrap();
    let volume = backend.volumes().unwrap().create(&VolumeSpec::named("data")).await.unwrap();

    let mut spec = InstanceSpec::of_image("base:latest");
    spec.name = Some("job".to_owned());
    spec.command = vec!["3".to_owned()];
    spec.env = BTreeMap::from([("MODE".to_owned(), "line\nbreak".to_owned())]);
    spec.labels = [("quote\"", "x".repeat(65_536).as_str()), ("nul\0", "../..")].into_iter().collect();
    spec.ports =
        vec![Port::new(NonZeroU16::new(80).unwrap(), Protocol::Tcp).published_at("0.0.0.0:0".parse().unwrap())];
    spec.networks = vec![network.into()];
    spec.mounts = vec![Mount::new(MountSource::Volume(volume.clone()), "/data")];
    let id = provision(&backend).create(&spec).await.unwrap();

    let seen = backend.inspect(&id).await.unwrap();
    assert_eq!(
        (seen.name.as_str(), seen.state, seen.labels.as_ref()),
        ("job", InstanceState::Created, Some(&spec.labels))
    );
    assert_eq!((&seen.ports, &seen.addresses), (&None, &None), "it does not run yet");
    assert_eq!(backend.volumes().unwrap().remove(&volume).await.unwrap_err().kind(), ErrorKind::Conflict);

    lifecycle(&backend).start(&id).await.unwrap();
    assert_eq!(lifecycle(&backend).wait(&id).await.unwrap(), Some(ExitStatus::code(3)), "entry point and command");
    assert_eq!(provision(&backend).create(&spec).await.unwrap_err().kind(), ErrorKind::AlreadyExists);

    let mut service = InstanceSpec::default();
    service.name = Some("service".to_owned());
    (service.ports, service.networks) = (spec.ports, spec.networks);
    let id = provision(&backend).create(&service).await.unwrap();
    lifecycle(&backend).start(&id).await.unwrap();
    let seen = backend.inspect(&id).await.unwrap();
    assert_eq!(seen.addresses.as_ref().unwrap()[0].network.as_deref(), Some("net"));
    assert_eq!(seen.ports.as_ref().unwrap()[0].published[0].port(), 49_153, "the runtime picked the next one");
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_cannot_be_created_is_refused_before_anything_is_made() {
    use ErrorKind::{InvalidInput, NotFound, Unsupported};
    let backend = backend();
    let refused = async |kind, change: fn(&mut InstanceSpec)| {
        let mut spec = InstanceSpec::default();
        change(&mut spec);
        let error = provision(&backend).create(&spec).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    };
    refused(NotFound, |spec| spec.image = Some(ImageRef::from("nowhere"))).await;
    refused(NotFound, |spec| spec.networks = vec!["nowhere".into()]).await;
    refused(NotFound, |spec| spec.mounts = vec![Mount::new(MountSource::Volume(VolumeId::from("no")), "/data")]).await;
    refused(Unsupported, |spec| spec.mounts = vec![Mount::new(MountSource::Tmpfs, "/tmp")]).await;
    refused(Unsupported, |spec| spec.milli_cpus = Some(std::num::NonZeroU32::MIN)).await;
    refused(Unsupported, |spec| spec.pids = Some(std::num::NonZeroU32::MIN)).await;
    refused(InvalidInput, |spec| spec.name = Some("../escape".to_owned())).await;
    refused(InvalidInput, |spec| spec.name = Some("a".repeat(65_536))).await;
    refused(InvalidInput, |spec| spec.command = vec!["a\0b".to_owned()]).await;
    refused(InvalidInput, |spec| spec.env = BTreeMap::from([("A=B".to_owned(), String::new())])).await;
    refused(InvalidInput, |spec| spec.labels = Labels::from_iter([("", "x")])).await;
    refused(InvalidInput, |spec| spec.working_dir = Some("relative".to_owned())).await;
    refused(InvalidInput, |spec| spec.image = Some(ImageRef::from("a b"))).await;
    refused(InvalidInput, |spec| spec.native = BTreeMap::from([("shiny".to_owned(), String::new())])).await;
    refused(InvalidInput, |spec| spec.native = BTreeMap::from([("run_ms".to_owned(), "soon".to_owned())])).await;
    assert!(backend.list_instances(ListOptions::default()).await.unwrap().instances.is_empty());
}
