//! Images, networks, volumes, snapshots and usage, through the backend.

use std::{io::Cursor, time::Duration};

use runtide_core::{
    ErrorKind, ExitStatus, ImageRef, Labels, RuntimeBackend,
    manager::{
        BuildContext, BuildOptions, ByteReader, ConnectOptions, Credentials, Effect, ImageInfo, ImageManager,
        ImageProgress, ImageStream, NetworkId, NetworkSpec, PruneOptions, PullOptions, SnapshotId, SnapshotScope,
        VolumeId, VolumeSpec,
    },
};
use runtide_memory::{Blueprint, Config, MemoryBackend, MemoryRuntime, RuntimeOptions};
use tokio::io::AsyncReadExt;

fn backend() -> MemoryBackend {
    let runtime = MemoryRuntime::with_options(RuntimeOptions::deterministic(0));
    MemoryBackend::new(Config::default(), runtime).unwrap()
}

/// An archive with one file.
fn tar(path: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..path.len()].copy_from_slice(path.as_bytes());
    block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    block[148..156].copy_from_slice(b"        ");
    block[156] = b'0';
    block[257..263].copy_from_slice(b"ustar\0");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512) + 1024, 0);
    block
}

fn reader(bytes: Vec<u8>) -> ByteReader {
    Box::pin(Cursor::new(bytes))
}

async fn all(mut stream: ImageStream) -> Vec<runtide_core::Result<ImageProgress>> {
    let mut steps = Vec::new();
    while let Some(step) = stream.next().await {
        steps.push(step);
    }
    steps
}

fn images(backend: &MemoryBackend) -> &dyn ImageManager {
    backend.images().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_pull_reports_its_layers_and_ends_with_the_image() {
    let backend = backend();
    let mut image = ImageInfo::new("img-1");
    image.tags = vec![ImageRef::from("base:1"), ImageRef::from("base")];
    backend.runtime().publish_image(&image, &[100, 200]);
    let name = ImageRef::from("base");
    assert!(!images(&backend).exists(&name).await.unwrap());

    let mut abandoned = images(&backend).pull(&name, PullOptions::default()).await.unwrap();
    abandoned.next().await.unwrap().unwrap();
    drop(abandoned);
    assert!(!images(&backend).exists(&name).await.unwrap(), "an abandoned pull leaves nothing");

    let steps = all(images(&backend).pull(&name, PullOptions::default()).await.unwrap()).await;
    assert_eq!(steps.len(), 3);
    assert_eq!(steps[2].as_ref().unwrap(), &ImageProgress::Done(ImageRef::from("base:latest")));
    assert_eq!(images(&backend).inspect(&name).await.unwrap().tags, [ImageRef::from("base:latest")]);
    assert_eq!(backend.runtime().open_calls(), 0);

    let missing = images(&backend).pull(&ImageRef::from("other"), PullOptions::default()).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
    let private = PullOptions::default().with_credentials(Credentials::user("me", "hunter2"));
    let error = images(&backend).pull(&name, private).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test(start_paused = true)]
async fn an_archive_is_known_by_its_content() {
    let backend = backend();
    let import = async |bytes| all(images(&backend).import(reader(bytes)).await.unwrap()).await.pop().unwrap();
    let ImageProgress::Done(one) = import(tar("a", b"1")).await.unwrap() else { panic!() };
    let ImageProgress::Done(same) = import(tar("a", b"1")).await.unwrap() else { panic!() };
    let ImageProgress::Done(other) = import(tar("a", b"2")).await.unwrap() else { panic!() };
    assert!(one == same && one != other);
    assert_eq!(images(&backend).list().await.unwrap().len(), 2);
    assert_eq!(import(b"no archive".to_vec()).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn an_image_goes_with_its_last_name_unless_it_is_used() {
    let backend = backend();
    let mut image = ImageInfo::new("img-1");
    image.tags = vec![ImageRef::from("base:1")];
    backend.runtime().add_image(image);
    let (one, two) = (ImageRef::from("base:1"), ImageRef::from("base:2"));
    images(&backend).tag(&one, &two).await.unwrap();
    assert_eq!(images(&backend).remove(&one).await.unwrap(), Effect::Changed);
    assert_eq!(images(&backend).remove(&one).await.unwrap(), Effect::Unchanged);
    let user = backend.runtime().create(Blueprint::named("web").with_image(two.clone())).unwrap();
    assert_eq!(images(&backend).remove(&two).await.unwrap_err().kind(), ErrorKind::Conflict);
    backend.runtime().remove(&user).unwrap();
    assert_eq!(images(&backend).remove(&ImageRef::from("img-1")).await.unwrap(), Effect::Changed);
    assert!(!images(&backend).exists(&two).await.unwrap());
    assert_eq!(images(&backend).save(&[two]).await.err().unwrap().kind(), ErrorKind::Unsupported);
    let error =
        images(&backend).build(BuildContext::Tar(reader(Vec::new())), BuildOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn a_prune_takes_what_nothing_uses_and_has_the_labels() {
    let backend = backend();
    let add = |id: &str, tag: Option<&str>, label: &str| {
        let mut image = ImageInfo::new(id);
        image.tags = tag.into_iter().map(ImageRef::from).collect();
        image.labels.insert("team", label);
        image.bytes = Some(10);
        backend.runtime().add_image(image);
    };
    add("img-1", None, "a");
    add("img-2", None, "b");
    add("img-3", Some("base:3"), "a");
    add("img-4", Some("base:4"), "a");
    backend.runtime().create(Blueprint::named("web").with_image(ImageRef::from("base:4"))).unwrap();
    let labels: Labels = [("team", "a")].into_iter().collect();
    let pruned = async |options: PruneOptions| images(&backend).prune(options).await.unwrap();
    let gone = pruned(PruneOptions::default().with_labels(labels)).await;
    assert_eq!((gone.images, gone.bytes), (vec![ImageRef::from("img-1")], Some(10)));
    let gone = pruned(PruneOptions::default().with_named()).await;
    assert_eq!((gone.images, gone.bytes), (vec![ImageRef::from("img-2"), ImageRef::from("img-3")], Some(20)));
    assert_eq!(images(&backend).list().await.unwrap().len(), 1, "an instance uses the last one");
}

#[tokio::test(start_paused = true)]
async fn networks_are_joined_and_left() {
    let backend = backend();
    let networks = backend.networks().unwrap();
    let mut spec = NetworkSpec::named("net");
    spec.subnets = vec!["10.5.0.0/29".into()];
    let net = networks.create(&spec).await.unwrap();
    assert_eq!(networks.create(&spec).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let ids: Vec<_> = (0..3).map(|_| backend.runtime().run("").unwrap()).collect();
    let connect = async |id, options| networks.connect(&net, id, options).await;
    assert_eq!(connect(&ids[0], ConnectOptions::default()).await.unwrap(), Effect::Changed);
    assert_eq!(connect(&ids[0], ConnectOptions::default()).await.unwrap(), Effect::Unchanged);
    let at = |ip: &str| ConnectOptions::default().with_address(Some(ip.parse().unwrap()));
    assert_eq!(connect(&ids[1], at("10.5.0.2")).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(connect(&ids[1], at("10.6.0.2")).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(connect(&ids[1], at("10.5.0.6")).await.unwrap(), Effect::Changed);
    let aliased = ConnectOptions::default().with_aliases(["db".to_owned()]);
    assert_eq!(connect(&ids[2], aliased).await.unwrap_err().kind(), ErrorKind::Unsupported);

    let info = networks.inspect(&NetworkId::from("net")).await.unwrap();
    assert_eq!((info.gateway, info.members), (Some("10.5.0.1".parse().unwrap()), ids[..2].to_vec()));
    let seen = backend.inspect(&ids[0]).await.unwrap();
    assert_eq!(seen.addresses.as_ref().unwrap()[0].ip.to_string(), "10.5.0.2");

    assert_eq!(networks.remove(&net).await.unwrap_err().kind(), ErrorKind::Conflict);
    backend.runtime().remove(&ids[1]).unwrap();
    for effect in [Effect::Changed, Effect::Unchanged] {
        assert_eq!(networks.disconnect(&net, &ids[0]).await.unwrap(), effect);
    }
    for effect in [Effect::Changed, Effect::Unchanged] {
        assert_eq!(networks.remove(&net).await.unwrap(), effect);
    }
    assert_eq!(networks.disconnect(&net, &ids[0]).await.unwrap(), Effect::Unchanged);
    assert!(networks.list().await.unwrap().is_empty());
    for name in ["", "../net", "a\nb", "a\0"] {
        assert_eq!(networks.create(&NetworkSpec::named(name)).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_gives_back_its_contents() {
    let backend = backend();
    let volumes = backend.volumes().unwrap();
    let id = volumes.create(&VolumeSpec::named("data")).await.unwrap();
    assert_eq!(volumes.create(&VolumeSpec::named("data")).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let export = async || {
        let mut bytes = Vec::new();
        volumes.export(&id).await.unwrap().read_to_end(&mut bytes).await.unwrap();
        bytes
    };
    assert_eq!(export().await, vec![0; 1024], "an empty archive");
    let archive = tar("../../etc/passwd", b"carried, not unpacked");
    volumes.import(&id, reader(archive.clone())).await.unwrap();
    volumes.import(&id, reader(archive.clone())).await.unwrap();
    assert_eq!(export().await, archive);
    volumes.import(&id, reader(tar("b", b"more"))).await.unwrap();
    let both = export().await;
    let broken = volumes.import(&id, reader(archive[..700].to_vec())).await.unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::InvalidInput);
    assert_eq!(export().await, both, "all of an archive or nothing");
    assert_eq!(volumes.inspect(&id).await.unwrap().driver.as_deref(), Some("memory"));
    for effect in [Effect::Changed, Effect::Unchanged] {
        assert_eq!(volumes.remove(&id).await.unwrap(), effect);
    }
    assert_eq!(volumes.export(&VolumeId::from("gone")).await.err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(volumes.create(&VolumeSpec::named("../x")).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_ne!(
        volumes.create(&VolumeSpec::default()).await.unwrap(),
        volumes.create(&VolumeSpec::default()).await.unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_brings_back_the_earlier_state() {
    let backend = backend();
    let snapshots = backend.snapshots().unwrap();
    let before: Labels = [("version", "1")].into_iter().collect();
    let id = backend.runtime().run(Blueprint::named("web").with_labels(before.clone())).unwrap();
    let one = SnapshotId::from("one");
    snapshots.create(&id, &one, SnapshotScope::Disk).await.unwrap();
    assert_eq!(snapshots.create(&id, &one, SnapshotScope::Disk).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let error = snapshots.create(&id, &one, SnapshotScope::DiskAndMemory).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    backend.runtime().set_labels(&id, Labels::new()).unwrap();
    backend.runtime().rename(&id, "www").unwrap();
    snapshots.restore(&id, &one).await.unwrap();
    let now = backend.inspect(&id).await.unwrap();
    assert_eq!((now.labels.as_ref(), now.name.as_str()), (Some(&before), "www"));
    assert_eq!(snapshots.list(&id).await.unwrap().len(), 1);
    for effect in [Effect::Changed, Effect::Unchanged] {
        assert_eq!(snapshots.delete(&id, &one).await.unwrap(), effect);
    }
    assert_eq!(snapshots.restore(&id, &one).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn usage_is_read_once_a_period_to_the_end_of_the_run() {
    let backend = backend();
    let stats = backend.stats().unwrap();
    let runtime = backend.runtime();
    let id = runtime.run(Blueprint::named("web").with_memory_limit(1 << 30)).unwrap();
    runtime.set_memory(&id, 123).unwrap();
    let mut stream = stats.usage_stream(&id, Duration::from_secs(10)).await.unwrap();
    let (readings, ()) = tokio::join!(
        async {
            let mut readings = Vec::new();
            while let Some(reading) = stream.next().await {
                readings.push(reading.unwrap());
            }
            readings
        },
        async {
            tokio::time::sleep(Duration::from_secs(35)).await;
            runtime.exit(&id, ExitStatus::code(0)).unwrap();
        }
    );
    let cpu: Vec<_> = readings.iter().map(|reading| reading.cpu.unwrap()).collect();
    assert_eq!(cpu, [0, 500, 1000, 1500].map(Duration::from_millis));
    let last = readings.last().unwrap();
    assert_eq!((last.memory_bytes, last.memory_limit, last.received_bytes), (Some(123), Some(1 << 30), None));
    assert_eq!(stats.usage(&id).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(stats.usage_stream(&id, Duration::ZERO).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}
