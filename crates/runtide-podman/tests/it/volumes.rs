//! Volumes, on a real Podman and on one that answers as a later one would.

use std::{
    collections::BTreeMap,
    io::Read,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use runtide_core::{
    Detail, ErrorKind, InstanceId, ListOptions, RuntimeBackend,
    manager::{ByteReader, Effect, LogOptions, Mount, MountSource, RemoveOptions, VolumeId, VolumeSpec},
};
use serde_json::Value;
use tokio::{io::AsyncReadExt, sync::Notify};

use crate::{
    bench::{Bench, LABEL},
    own_service::OwnService,
    scripted::{PODMAN, Reply, Service},
};

/// A transfer's helper and its image have it from the volume.
const OWNER: &str = "runtide.owner";

fn spec(bench: &Bench, name: &str) -> VolumeSpec {
    let name = format!("{}-{name}", bench.prefix);
    VolumeSpec::named(name).with_label(LABEL, &bench.prefix).with_label(OWNER, &bench.prefix)
}

fn reader(bytes: Vec<u8>) -> ByteReader {
    Box::pin(std::io::Cursor::new(bytes))
}

async fn export(bench: &Bench, volume: &VolumeId) -> Vec<u8> {
    let mut archive = Vec::new();
    bench.volumes().export(volume).await.unwrap().read_to_end(&mut archive).await.unwrap();
    archive
}

#[derive(Debug, PartialEq)]
struct Entry {
    kind: tar::EntryType,
    mode: u32,
    owner: (u64, u64),
    link: Option<String>,
    content: Vec<u8>,
}

fn entries(archive: &[u8]) -> BTreeMap<String, Entry> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let header = entry.header();
        let seen = Entry {
            kind: header.entry_type(),
            mode: header.mode().unwrap() & 0o7777,
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            link: entry.link_name_bytes().map(|link| text(&link)),
            content,
        };
        (text(&entry.path_bytes()), seen)
    });
    entries.collect()
}

fn file(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, owner: (u64, u64), content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_uid(owner.0);
    header.set_gid(owner.1);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content).unwrap();
}

/// Path, mode, owner and content.
type File<'a> = (&'a str, u32, (u64, u64), &'a [u8]);

fn archive_of(files: &[File<'_>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, mode, owner, content) in files {
        file(&mut archive, path, *mode, *owner, content);
    }
    archive.into_inner().unwrap()
}

/// Helpers of the test's own volumes, and their images.
async fn transfers(bench: &Bench) -> Vec<Value> {
    let mut found = Vec::new();
    let filter = "filters=%7B%22label%22%3A%5B%22runtide.operation%22%5D%7D";
    for list in ["containers", "images"] {
        let path = format!("/{list}/json?all=true&{filter}");
        // Podman fails to list images while one is removed.
        let listed = loop {
            match bench.daemon().ask("GET", &path, &Value::Null).await {
                Ok(listed) => break listed.json().unwrap(),
                Err(error) => assert!(error.contains("image not known"), "{error}"),
            }
        };
        let is_transfer = |item: &&Value| {
            let operation = item["Labels"]["runtide.operation"].as_str();
            item["Labels"][OWNER] == bench.prefix.as_str() && operation.is_some_and(|it| it.starts_with("volume-"))
        };
        found.extend(listed.as_array().into_iter().flatten().filter(is_transfer).cloned());
    }
    found
}

/// Until nothing of the test's transfers is left.
async fn nothing_is_left(bench: &Bench) {
    let begun = Instant::now();
    while !transfers(bench).await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", transfers(bench).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn run_in(bench: &Bench, name: &str, volume: &VolumeId, script: &str) -> (InstanceId, String) {
    let mount = Mount::new(MountSource::Volume(volume.clone()), "/v");
    let id = bench.provision().create(&bench.spec(name, script).with_mounts([mount])).await.unwrap();
    bench.lifecycle().start(&id).await.unwrap();
    let exit = bench.lifecycle().wait(&id).await.unwrap().unwrap();
    let mut lines = bench.logs().logs(&id, LogOptions::default()).await.unwrap();
    let mut output = Vec::new();
    while let Some(line) = lines.next().await {
        output.extend_from_slice(&line.unwrap().bytes);
    }
    let output = String::from_utf8(output).unwrap();
    assert_eq!(exit.end, runtide_core::ExitStatus::code(0).end, "{output}");
    (id, output)
}

#[tokio::test]
async fn a_volume_is_made_shown_and_removed() {
    let Some(bench) = Bench::new("vol").await else { return };
    let volumes = bench.volumes();
    let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "mode=700")];
    let wanted = spec(&bench, "a").with_driver("local").with_options(options).with_label("odd", "it's \"so\"\n\0");
    let id = volumes.create(&wanted).await.unwrap();
    assert_eq!(Some(id.as_str()), wanted.name.as_deref());
    let listed = volumes.list().await.unwrap();
    for info in [volumes.inspect(&id).await.unwrap(), listed.into_iter().find(|info| info.id == id).unwrap()] {
        assert_eq!(
            (info.driver.as_deref(), &info.labels, &info.options),
            (Some("local"), &wanted.labels, &wanted.options)
        );
        assert!(info.created_at.is_some() && info.path.is_some(), "{info:?}");
    }
    assert_eq!(volumes.create(&wanted).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    for other in [spec(&bench, "a"), wanted.clone().with_label("more", "")] {
        assert_eq!(volumes.create(&other).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
    let owned = spec(&bench, "owned").with_options([("o", "uid=12,gid=34")]);
    let owned_id = volumes.create(&owned).await.unwrap();
    assert_eq!(volumes.inspect(&owned_id).await.unwrap().options, owned.options, "without what Podman derives");
    assert_eq!(volumes.create(&owned).await.unwrap_err().kind(), ErrorKind::AlreadyExists);

    // Its file system is there only while a container runs with it.
    let refused = volumes.export(&id).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");

    let mount = Mount::new(MountSource::Volume(owned_id.clone()), "/data");
    let user = bench.provision().create(&bench.spec("user", "true").with_mounts([mount])).await.unwrap();
    assert_eq!(volumes.remove(&owned_id).await.unwrap_err().kind(), ErrorKind::Conflict, "a stopped container uses it");
    bench.lifecycle().remove(&user, RemoveOptions::default()).await.unwrap();
    // Podman takes the beginning of a name for the name.
    let begin = VolumeId::from(&owned_id.as_str()[..owned_id.as_str().len() - 1]);
    assert_eq!(volumes.remove(&begin).await.unwrap(), Effect::Unchanged);
    assert_eq!(volumes.inspect(&begin).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(volumes.remove(&owned_id).await.unwrap(), Effect::Changed);
    assert_eq!(volumes.remove(&owned_id).await.unwrap(), Effect::Unchanged);

    let unnamed = || VolumeSpec::default().with_label(LABEL, &bench.prefix);
    assert_ne!(volumes.create(&unnamed()).await.unwrap(), volumes.create(&unnamed()).await.unwrap());
    for (spec, kind) in [
        (spec(&bench, "b").with_driver("runtide-no-such-driver"), ErrorKind::NotFound),
        (spec(&bench, "b").with_options([("runtide.no.such.option", "1")]), ErrorKind::InvalidInput),
        (spec(&bench, "b").with_options([("o", "size")]), ErrorKind::InvalidInput),
        (spec(&bench, "b").with_options([("o", "uid=nobody")]), ErrorKind::InvalidInput),
    ] {
        let error = volumes.create(&spec).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    bench.clear().await;
}

#[tokio::test]
async fn owners_modes_and_links_are_kept_both_ways() {
    let Some(bench) = Bench::new("vol-own").await else { return };
    let from = bench.volumes().create(&spec(&bench, "from")).await.unwrap();
    let to = bench.volumes().create(&spec(&bench, "to")).await.unwrap();
    let script = "cd /v && echo content > a && chown 1234:567 a && chmod 640 a && ln -s a link && ln a hard && cp a set && chown 9:9 set && chmod 4755 set \
                  && mkfifo pipe && mkdir -p d/e dev && echo z > dev/z && chmod 2711 d && chown 3:4 d/e && printf x > \"d/e/odd ' name\" \
                  && touch $(printf '%0150d' 0) && chown 77:88 . && chmod 1770 . && touch -d '2001-02-03 04:05:06' a d/e d .";
    run_in(&bench, "writer", &from, script).await;
    let archive = export(&bench, &from).await;
    nothing_is_left(&bench).await;
    let found = entries(&archive);
    let entry = |name: &str| found.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", found.keys()));
    assert_eq!((entry("./").mode, entry("./").owner), (0o1770, (77, 88)), "the volume's own folder");
    assert_eq!(
        (entry("./a").mode, entry("./a").owner, entry("./a").content.as_slice()),
        (0o640, (1234, 567), &b"content\n"[..])
    );
    assert_eq!((entry("./set").mode, entry("./set").owner), (0o4755, (9, 9)));
    assert_eq!((entry("./hard").kind, entry("./hard").link.as_deref()), (tar::EntryType::Link, Some("./a")));
    assert_eq!((entry("./link").link.as_deref(), entry("./pipe").kind), (Some("a"), tar::EntryType::Fifo));
    assert_eq!((entry("./d/e/").owner, entry("./dev/z").content.as_slice()), ((3, 4), &b"z\n"[..]));
    assert!(found.contains_key(&format!("./{}", "0".repeat(150))), "a name that no header holds");

    // The first container that uses a volume gets its folder, by Podman's rule: so it is used before.
    run_in(&bench, "first", &to, "true").await;
    bench.volumes().import(&to, reader(archive)).await.unwrap();
    nothing_is_left(&bench).await;
    // As a program in a container sees both: names, modes, owners by number, links, sizes, times.
    let list =
        "cd /v && ls -laRn . | grep -v ' \\.\\.$' | grep -v total && readlink link && cat a hard 'd/e/odd '\\'' name'";
    let (_, of_from) = run_in(&bench, "of-from", &from, list).await;
    let (_, of_to) = run_in(&bench, "of-to", &to, list).await;
    assert!(of_from.contains("1234") && of_from.contains("content"), "{of_from}");
    assert_eq!(of_from, of_to);
    bench.clear().await;
}

#[tokio::test]
async fn an_import_adds_and_replaces() {
    let Some(bench) = Bench::new("vol-add").await else { return };
    let id = bench.volumes().create(&spec(&bench, "v")).await.unwrap();
    let first = archive_of(&[("a", 0o644, (0, 0), b"one"), ("b", 0o600, (5, 6), b"two")]);
    bench.volumes().import(&id, reader(first)).await.unwrap();
    bench.volumes().import(&id, reader(archive_of(&[("b", 0o640, (7, 8), b"more")]))).await.unwrap();
    let found = entries(&export(&bench, &id).await);
    assert_eq!(found["./a"].content, b"one");
    assert_eq!((found["./b"].owner, found["./b"].mode, found["./b"].content.as_slice()), ((7, 8), 0o640, &b"more"[..]));
    bench.clear().await;
}

#[tokio::test]
async fn a_transfer_that_is_dropped_or_not_read_leaves_nothing() {
    let Some(bench) = Bench::new("vol-drop").await else { return };
    let id = bench.volumes().create(&spec(&bench, "v")).await.unwrap();
    let large = archive_of(&[("big", 0o644, (0, 0), &vec![7; 16 << 20])]);
    bench.volumes().import(&id, reader(large)).await.unwrap();
    let before = ids(&of_builds(&bench).await);
    // Trap D33: what is not read holds no other call, and the helper is gone once the service has given everything.
    let unread = bench.volumes().export(&id).await.unwrap();
    let full = ListOptions::default().with_detail(Detail::Full);
    let listing = tokio::time::timeout(Duration::from_secs(60), bench.backend.list_instances(full)).await;
    assert!(listing.expect("a list of all does not wait for the reader").is_ok());
    nothing_is_left(&bench).await;
    let mut export = bench.volumes().export(&id).await.unwrap();
    export.read_exact(&mut [0; 1000]).await.unwrap();
    drop(export);
    for milliseconds in [1, 20, 80, 320, 640] {
        let limit = Duration::from_millis(milliseconds);
        let _ = tokio::time::timeout(limit, bench.volumes().export(&id)).await;
        let archive = archive_of(&[("more", 0o644, (0, 0), &vec![8; 1 << 20])]);
        let _ = tokio::time::timeout(limit, bench.volumes().import(&id, reader(archive))).await;
    }
    // The service makes a copy to its end, though nobody waits for it; tests beside this one make others.
    let under_way: Vec<String> = ids(&of_builds(&bench).await).into_iter().filter(|id| !before.contains(id)).collect();
    until_builds(&bench, |now| !ids(now).iter().any(|id| under_way.contains(id))).await;
    nothing_is_left(&bench).await;
    drop(unread);
    assert_eq!(bench.volumes().remove(&id).await.unwrap(), Effect::Changed, "no helper uses it any more");
}

#[tokio::test]
async fn hostile_archives_and_names_are_refused() {
    let Some(bench) = Bench::new("vol-hostile").await else { return };
    let volumes = bench.volumes();
    let id = volumes.create(&spec(&bench, "v")).await.unwrap();
    let whole = archive_of(&[("a", 0o644, (0, 0), &[7; 600])]);
    let mut above = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..12].copy_from_slice(b"../../escape");
    header.set_size(1);
    header.set_cksum();
    above.append(&header, &b"x"[..]).unwrap();
    let mut link = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    link.append_link(&mut header, "l", "../../../etc/passwd").unwrap();
    for (archive, what) in [
        (vec![], "nothing"),
        (whole[..700].to_vec(), "broken off in a content"),
        (whole[..1536].to_vec(), "broken off behind a content"),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), "compressed"),
        (vec![b'x'; 4096], "no archive"),
        ([whole.clone(), b"more".to_vec()].concat(), "something behind its end"),
        (above.into_inner().unwrap(), "a name above the volume"),
        (link.into_inner().unwrap(), "a link above it"),
    ] {
        let error = volumes.import(&id, reader(archive)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {error}");
        assert!(error.to_string().len() < 1000, "{error}");
    }
    assert_eq!(entries(&export(&bench, &id).await).keys().collect::<Vec<_>>(), ["./"], "nothing of them is there");
    let absent = VolumeId::from("runtide-no-such-volume");
    assert_eq!(volumes.export(&absent).await.err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(volumes.import(&absent, reader(whole.clone())).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(volumes.inspect(&absent).await.unwrap_err().kind(), ErrorKind::NotFound, "nothing was made in passing");

    let mut words: Vec<String> =
        ["", ".", "..", "../v", "a/b", "a?force=1", "a#b", "a b", "a\n", "a\0", "%2e", "é", "-f"]
            .map(str::to_owned)
            .into();
    words.extend(["x".repeat(64 << 10), format!("./{id}"), format!("{id}?x"), format!("{id}\n")]);
    for word in words {
        let volume = VolumeId::from(word.as_str());
        let kinds = [
            volumes.create(&VolumeSpec::named(word.as_str())).await.unwrap_err().kind(),
            volumes.remove(&volume).await.unwrap_err().kind(),
            volumes.inspect(&volume).await.unwrap_err().kind(),
            volumes.export(&volume).await.err().unwrap().kind(),
            volumes.import(&volume, reader(whole.clone())).await.unwrap_err().kind(),
        ];
        assert_eq!(kinds, [ErrorKind::InvalidInput; 5], "{word:.60?}");
    }
    bench.clear().await;
}

#[tokio::test]
async fn a_podman_that_exports_by_itself_is_asked_to() {
    const LATER: &str = "Libpod-Api-Version: 5.6.0\r\nServer: Libpod/5.6.0 (linux)\r\n";
    let archive = String::from_utf8(archive_of(&[("a", 0o644, (1, 2), b"x")])).unwrap();
    let service = Service::new(LATER, move |request| match request {
        "GET /volumes/v1/json" => Reply::ok(r#"{"Name":"v1","Driver":"local"}"#),
        "GET /volumes/v1/export" => Reply::ok(archive.clone()),
        other => panic!("{other}"),
    });
    let mut exported = Vec::new();
    let backend = service.backend();
    let mut export = backend.volumes().unwrap().export(&"v1".into()).await.unwrap();
    export.read_to_end(&mut exported).await.unwrap();
    assert_eq!(entries(&exported)["a"].owner, (1, 2));
}

/// A service whose build never ends, though its image comes to be; a test hears when the request was given up.
fn building(gone: &Arc<Notify>) -> Service {
    let (gone, operation) = (Arc::clone(gone), Mutex::new(String::new()));
    Service::new(PODMAN, move |request| match request {
        "GET /volumes/v1/json" => Reply::ok(r#"{"Name":"v1","Driver":"local","Mountpoint":"/volumes/v1/_data"}"#),
        _ if request.starts_with("POST /build?") => {
            let at = request.find("volume-transfer-").unwrap();
            request[at..at + "volume-transfer-".len() + 32].clone_into(&mut operation.lock().unwrap());
            Reply::Abandoned(Arc::clone(&gone))
        }
        _ if request.starts_with("GET /images/json?") => {
            let operation = operation.lock().unwrap();
            Reply::ok(format!(r#"[{{"Id":"copy","Labels":{{"runtide.operation":"{operation}"}}}}]"#))
        }
        _ if request.starts_with("GET /containers/json?") => Reply::ok("[]"),
        "DELETE /images/copy" => Reply::ok("{}"),
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn the_copy_for_an_export_is_given_up_with_its_caller_and_with_the_backend() {
    for is_closed in [false, true] {
        let gone = Arc::new(Notify::new());
        let service = building(&gone);
        let backend = Arc::new(service.backend());
        let exporting = tokio::spawn({
            let backend = Arc::clone(&backend);
            async move { backend.volumes().unwrap().export(&"v1".into()).await.err().unwrap().kind() }
        });
        service.sees("POST /build").await;
        if is_closed {
            backend.close().await.unwrap();
            assert_eq!(exporting.await.unwrap(), ErrorKind::Cancelled);
        } else {
            exporting.abort();
        }
        let given_up = tokio::time::timeout(Duration::from_secs(60), gone.notified()).await;
        assert!(given_up.is_ok(), "the request is still open; closed: {is_closed}");
        service.sees("DELETE /images/copy").await;
    }
}

#[tokio::test]
async fn a_close_ends_an_import_whose_archive_does_not_come() {
    let service = Service::new(PODMAN, |request| match request {
        "GET /volumes/v1/json" => Reply::ok(r#"{"Name":"v1","Driver":"local","Mountpoint":"/volumes/v1/_data"}"#),
        other => panic!("{other}"),
    });
    let backend = service.backend();
    let (_writer, archive) = tokio::io::duplex(64);
    let id = VolumeId::from("v1");
    let import = backend.volumes().unwrap().import(&id, Box::pin(archive));
    let close = async {
        service.sees("GET /volumes/v1/json").await;
        backend.close().await.unwrap();
    };
    let both = async { tokio::join!(import, close) };
    let (imported, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it ends with the close");
    assert_eq!(imported.unwrap_err().kind(), ErrorKind::Cancelled);
}

/// Containers that a build works in: they are none of Podman's own.
async fn of_builds(bench: &Bench) -> Vec<Value> {
    let path = "/containers/json?all=true&external=true";
    let listed = bench.daemon().ask("GET", path, &Value::Null).await.unwrap().json().unwrap();
    listed.as_array().unwrap().iter().filter(|item| item["Pod"] == "" && item["State"] == "storage").cloned().collect()
}

fn ids(builds: &[Value]) -> Vec<String> {
    builds.iter().map(|build| build["Id"].as_str().unwrap().to_owned()).collect()
}

async fn until_builds(bench: &Bench, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let found = of_builds(bench).await;
        if wanted(&found) {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{found:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A volume with this many MiB in it.
async fn large(bench: &Bench, mib: usize) -> VolumeId {
    let id = bench.volumes().create(&spec(bench, "large")).await.unwrap();
    let content = vec![7; mib << 20];
    bench.volumes().import(&id, reader(archive_of(&[("big", 0o644, (0, 0), &content)]))).await.unwrap();
    id
}

#[tokio::test]
async fn nothing_is_left_of_a_copy_that_the_service_goes_on_with_when_its_export_is_dropped() {
    let Some(bench) = Bench::alone("vol-given-up").await else { return };
    let id = large(&bench, 256).await;
    let before = of_builds(&bench).await.len();
    tokio::select! {
        _ = bench.volumes().export(&id) => panic!("it was not seen under way"),
        _ = until_builds(&bench, |now| now.len() > before) => {}
    }
    until_builds(&bench, |now| now.len() <= before).await;
    nothing_is_left(&bench).await;
    bench.clear().await;
}

#[tokio::test]
async fn a_service_that_is_killed_in_its_copy_leaves_nothing_once_it_is_back() {
    let Some(bench) = Bench::alone("vol-killed").await else { return };
    let id = large(&bench, 256).await;
    let mut service = OwnService::start().await;
    // It is killed in the copy, in the image, in the container.
    for pause in [0, 100, 300, 600, 1000] {
        let (backend, before) = (service.backend(), of_builds(&bench).await.len());
        let killed = async {
            until_builds(&bench, |now| now.len() > before).await;
            tokio::time::sleep(Duration::from_millis(pause)).await;
            service.kill().await;
        };
        let (exported, ()) = tokio::join!(backend.volumes().unwrap().export(&id), killed);
        match exported {
            // The first look for what it made found nothing that listens.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{pause} ms: {error}"),
            Ok(mut export) => assert!(export.read_to_end(&mut Vec::new()).await.is_err(), "{pause} ms"),
        }
        service.restart().await;
        nothing_is_left(&bench).await;
        for left in of_builds(&bench).await {
            let path = format!("/containers/{}?force=true", left["Id"].as_str().unwrap());
            bench.daemon().ask("DELETE", &path, &Value::Null).await.unwrap();
        }
    }
    bench.clear().await;
}
