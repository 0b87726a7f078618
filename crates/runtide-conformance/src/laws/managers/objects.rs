//! The objects around instances: the parts of the managers' laws that are about networks and volumes.

use runtide_core::{
    ErrorKind, RuntimeBackend,
    manager::{
        ByteReader, ConnectOptions, Effect, NetworkId, NetworkManager, NetworkSpec, VolumeId, VolumeManager, VolumeSpec,
    },
};
use tokio::io::AsyncReadExt;

use super::ok;
use crate::{Harness, Law, Violation, Workload, ensure};

/// The networks' part of M1. What it made it removes, also after a violation.
pub(super) async fn networks_take_effect(
    h: &dyn Harness,
    backend: &dyn RuntimeBackend,
    without: &mut Vec<String>,
) -> Result<(), Violation> {
    let can = backend.capabilities();
    let Some(networks) = backend.networks().filter(|_| can.networks_manage.is_yes()) else {
        without.push("networks: not supported".to_owned());
        return Ok(());
    };
    let spec = NetworkSpec::named("runtide-m1").with_label("tier", "front");
    let network = ok(Law::M1, "create a network", networks.create(&spec).await)?;
    let instance = h.create("member", &Workload::Idle).await?;
    let seen = async {
        let info = ok(Law::M1, "inspect the network", networks.inspect(&network).await)?;
        let expected = (&network, spec.name.as_str(), &spec.labels);
        ensure!(
            (&info.id, info.name.as_str(), &info.labels) == expected,
            M1,
            format!("{expected:?}"),
            format!("{info:?}")
        );
        let taken = networks.create(&spec).await.err().map(|error| error.kind());
        ensure!(
            taken == Some(ErrorKind::AlreadyExists),
            M1,
            "a name that is taken to be `already_exists`",
            format!("{taken:?}")
        );
        if can.networks_connect.is_yes() {
            for (verb, is_member) in [("connect", true), ("disconnect", false)] {
                for expected in [Effect::Changed, Effect::Unchanged] {
                    let done = if is_member {
                        networks.connect(&network, &instance, ConnectOptions::default()).await
                    } else {
                        networks.disconnect(&network, &instance).await
                    };
                    let effect = ok(Law::M1, verb, done)?;
                    ensure!(effect == expected, M1, format!("{verb} to be {expected:?}"), format!("{effect:?}"));
                }
                let members = ok(Law::M1, "inspect the network", networks.inspect(&network).await)?.members;
                let listed = ok(Law::M1, "list the networks", networks.list().await)?;
                let listed = listed.into_iter().find(|info| info.id == network).map(|info| info.members);
                let expected = if is_member { vec![instance.clone()] } else { Vec::new() };
                ensure!(
                    members == expected,
                    M1,
                    format!("the members {expected:?} after {verb}"),
                    format!("{members:?}")
                );
                ensure!(
                    listed.as_ref() == Some(&expected),
                    M1,
                    format!("{expected:?} in the list"),
                    format!("{listed:?}")
                );
                if is_member {
                    let used = networks.remove(&network).await.err().map(|error| error.kind());
                    ensure!(used == Some(ErrorKind::Conflict), M1, "a network in use to be kept", format!("{used:?}"));
                }
            }
        }
        Ok(())
    };
    let seen = seen.await;
    let _ = networks.disconnect(&network, &instance).await;
    let removed = networks.remove(&network).await;
    h.remove(&instance).await?;
    seen?;
    ok(Law::M1, "remove the network", removed)?;
    let gone = networks.inspect(&network).await.err().map(|error| error.kind());
    ensure!(gone == Some(ErrorKind::NotFound), M1, "a removed network to be gone", format!("{gone:?}"));
    Ok(())
}

/// The volumes' part of M1. What it made it removes, also after a violation.
pub(super) async fn volumes_take_effect(
    backend: &dyn RuntimeBackend,
    without: &mut Vec<String>,
) -> Result<(), Violation> {
    let can = backend.capabilities();
    let Some(volumes) = backend.volumes().filter(|_| can.volumes_manage.is_yes()) else {
        without.push("volumes: not supported".to_owned());
        return Ok(());
    };
    let spec = VolumeSpec::named("runtide-m1").with_label("tier", "front");
    let volume = ok(Law::M1, "create a volume", volumes.create(&spec).await)?;
    let seen = async {
        let listed = ok(Law::M1, "list the volumes", volumes.list().await)?;
        let listed = listed.into_iter().find(|info| info.id == volume);
        for info in [Some(ok(Law::M1, "inspect the volume", volumes.inspect(&volume).await)?), listed] {
            let labels = info.as_ref().map(|info| &info.labels);
            ensure!(labels == Some(&spec.labels), M1, format!("{:?}", spec.labels), format!("{info:?}"));
        }
        for (spec, kind) in
            [(spec.clone(), ErrorKind::AlreadyExists), (spec.clone().with_label("a", "b"), ErrorKind::Conflict)]
        {
            let taken = volumes.create(&spec).await.err().map(|error| error.kind());
            ensure!(taken == Some(kind), M1, format!("a name that is taken to be {kind}"), format!("{taken:?}"));
        }
        if can.volumes_transfer.is_yes() { transfer(volumes, &volume).await } else { Ok(()) }
    };
    let seen = seen.await;
    let removed = volumes.remove(&volume).await;
    seen?;
    ok(Law::M1, "remove the volume", removed)?;
    let gone = volumes.inspect(&volume).await.err().map(|error| error.kind());
    ensure!(gone == Some(ErrorKind::NotFound), M1, "a removed volume to be gone", format!("{gone:?}"));
    Ok(())
}

/// One file, in and out again.
async fn transfer(volumes: &dyn VolumeManager, volume: &VolumeId) -> Result<(), Violation> {
    let content = b"carried through\n".as_slice();
    let archive: ByteReader = Box::pin(std::io::Cursor::new(archive_of(content)));
    ok(Law::M1, "import", volumes.import(volume, archive).await)?;
    let cut: ByteReader = Box::pin(std::io::Cursor::new(archive_of(content).into_iter().take(700).collect::<Vec<_>>()));
    let refused = volumes.import(volume, cut).await.err().map(|error| error.kind());
    ensure!(
        refused == Some(ErrorKind::InvalidInput),
        M1,
        "an archive that breaks off to be refused",
        format!("{refused:?}")
    );
    let mut exported = Vec::new();
    let mut reader = ok(Law::M1, "export", volumes.export(volume).await)?;
    let read = reader.read_to_end(&mut exported).await;
    ensure!(read.is_ok(), M1, "the export to be read to its end", format!("{read:?}"));
    let is_there = exported.windows(content.len()).any(|window| window == content);
    ensure!(is_there, M1, "the imported file in the export", format!("{} bytes without it", exported.len()));
    Ok(())
}

/// A tar archive with one file.
fn archive_of(content: &[u8]) -> Vec<u8> {
    let mut block = vec![0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block.iter_mut().skip(at).zip(bytes).for_each(|(to, byte)| *to = *byte);
    put(0, b"file");
    put(100, b"0000644\x000000000\x000000000\0");
    put(124, format!("{:011o}\x0000000000000\0", content.len()).as_bytes());
    put(148, b"        0");
    put(257, b"ustar\x0000");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()).for_each(|(to, byte)| *to = byte);
    block.extend_from_slice(content);
    block.resize(1024 + 2 * 512, 0);
    block
}

/// The part of M8 that is about networks and volumes: the word as a name, as a label, and as an id.
pub(super) async fn hostile_objects(backend: &dyn RuntimeBackend, word: &str) -> Result<(), Violation> {
    let can = backend.capabilities();
    let shown: String = word.chars().take(40).collect();
    if let Some(networks) = backend.networks().filter(|_| can.networks_manage.is_yes()) {
        let labelled = NetworkSpec::named("runtide-m8").with_label(word, "value").with_label("word", word);
        for spec in [NetworkSpec::named(word), labelled] {
            hostile_network(networks, &spec, &shown).await?;
        }
        harmless(&shown, "a network's removal", &networks.remove(&NetworkId::from(word)).await)?;
    }
    if let Some(volumes) = backend.volumes().filter(|_| can.volumes_manage.is_yes()) {
        let labelled = VolumeSpec::named("runtide-m8").with_label(word, "value").with_label("word", word);
        for spec in [VolumeSpec::named(word), labelled] {
            hostile_volume(volumes, &spec, &shown).await?;
        }
        harmless(&shown, "a volume's removal", &volumes.remove(&VolumeId::from(word)).await)?;
    }
    Ok(())
}

fn harmless(word: &str, verb: &str, removed: &runtide_core::Result<Effect>) -> Result<(), Violation> {
    let is_harmless = match removed {
        Ok(effect) => *effect == Effect::Unchanged,
        Err(error) => super::is_refused(error),
    };
    ensure!(is_harmless, M8, format!("{verb} of {word:?} to do nothing"), format!("{removed:?}"));
    Ok(())
}

async fn hostile_network(networks: &dyn NetworkManager, spec: &NetworkSpec, word: &str) -> Result<(), Violation> {
    match networks.create(spec).await {
        Err(error) => {
            ensure!(super::is_refused(&error), M8, format!("a network with {word:?} to be refused"), error.to_string())
        }
        Ok(id) => {
            let info = networks.inspect(&id).await;
            let removed = networks.remove(&id).await;
            let info = ok(Law::M8, "inspect", info)?;
            ok(Law::M8, "remove", removed)?;
            ensure!(
                info.name == spec.name && info.labels == spec.labels,
                M8,
                format!("{spec:?}, intact"),
                format!("{info:?}")
            );
        }
    }
    Ok(())
}

async fn hostile_volume(volumes: &dyn VolumeManager, spec: &VolumeSpec, word: &str) -> Result<(), Violation> {
    match volumes.create(spec).await {
        Err(error) => {
            ensure!(super::is_refused(&error), M8, format!("a volume with {word:?} to be refused"), error.to_string())
        }
        Ok(id) => {
            let info = volumes.inspect(&id).await;
            let removed = volumes.remove(&id).await;
            let info = ok(Law::M8, "inspect", info)?;
            ok(Law::M8, "remove", removed)?;
            let is_named = spec.name.as_deref() == Some(info.id.as_str());
            ensure!(is_named && info.labels == spec.labels, M8, format!("{spec:?}, intact"), format!("{info:?}"));
        }
    }
    Ok(())
}
