//! Verbs on daemons that refuse, stall, lie, or end in the middle.

use std::{
    io::Cursor,
    sync::Arc,
    time::{Duration, Instant},
};

use runtide_core::{
    ErrorKind, ImageRef, Result, RuntimeBackend,
    manager::{
        BuildContext, BuildOptions, ByteReader, Effect, ImageManager, ImageProgress, LayerStep, PruneOptions,
        PullOptions,
    },
};
use serde_json::json;
use tokio::{io::AsyncReadExt, sync::Notify};

use super::{capture::Capture, done, drained};
use crate::scripted_daemon::{Fake, Reply};

fn reader(bytes: &[u8]) -> ByteReader {
    Box::pin(Cursor::new(bytes.to_vec()))
}

fn anonymous() -> PullOptions {
    PullOptions::default().with_credentials(runtide_core::manager::Credentials::Anonymous)
}

/// Every verb that takes a name, on this one.
async fn every_verb(images: &dyn ImageManager, image: &ImageRef) -> Vec<(&'static str, Result<()>)> {
    let good = ImageRef::from("good:1");
    let tagged = BuildOptions::default().with_tags([image.clone()]);
    vec![
        ("exists", images.exists(image).await.map(drop)),
        ("inspect", images.inspect(image).await.map(drop)),
        ("pull", images.pull(image, anonymous()).await.map(drop)),
        ("save", images.save(std::slice::from_ref(image)).await.map(drop)),
        ("build", images.build(BuildContext::Tar(reader(b"")), tagged).await.map(drop)),
        ("tag", images.tag(image, &good).await),
        ("tag as", images.tag(&good, image).await),
        ("remove", images.remove(image).await.map(drop)),
    ]
}

#[tokio::test]
async fn hostile_names_are_refused_before_anything_is_sent() {
    let fake = Fake::new(|_| Reply::ok("{}"));
    let images = fake.backend.images().unwrap();
    for hostile in [
        "",
        " ",
        "..",
        "../containers",
        "a/../b",
        "a?force=1",
        "a b",
        "a\0",
        "a\r\nX: y",
        "%2e%2e",
        "é",
        "A/B",
        "a:b:c",
        "a@sha256:1",
        "-a",
        "https://a.b/c",
        "\u{202e}a",
        &"x".repeat(100_000),
    ] {
        for (verb, result) in every_verb(images, &ImageRef::from(hostile)).await {
            let error = result.expect_err(verb);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{verb} of {hostile:?}");
            assert!(error.to_string().len() < 2000, "{verb}: the whole name is no message");
        }
    }
    let id = ImageRef::from("sha256:7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa");
    for result in [images.pull(&id, anonymous()).await.map(drop), images.tag(&ImageRef::from("a"), &id).await] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput, "an id is no name");
    }
    for platform in ["", "linux amd64", "linux\n", "a&b"] {
        let error = images.pull(&ImageRef::from("a"), anonymous().with_platform(Some(platform.to_owned()))).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput, "{platform:?}");
    }
    assert_eq!(images.save(&[]).await.err().unwrap().kind(), ErrorKind::InvalidInput);
    assert_eq!(fake.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn every_verb_ends_within_its_deadline_when_the_daemon_stalls() {
    let fake = Fake::new(|_| Reply::Stall).with_deadline(Duration::from_millis(500));
    let images = fake.backend.images().unwrap();
    let begun = Instant::now();
    for (verb, result) in every_verb(images, &ImageRef::from("a:1")).await {
        match verb {
            // It sends with the stream, which has no limit.
            "build" => result.unwrap(),
            _ => assert_eq!(result.unwrap_err().kind(), ErrorKind::Timeout, "{verb}"),
        }
    }
    assert_eq!(images.list().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(images.prune(PruneOptions::default()).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

/// The answer of a pull, with a daemon that has the image afterwards, or has not.
fn pulls(lines: &'static [u8], whole: bool, is_there: bool) -> Fake {
    Fake::new(move |request| match request {
        _ if request.starts_with("POST") => Reply::Stream { bytes: lines.to_vec(), whole },
        _ if is_there => Reply::ok(r#"{"Id":"sha256:1"}"#),
        _ => Reply::message(404, "No such image"),
    })
}

const PULLED: &[u8] = b"{\"status\":\"Pulling from library/a\",\"id\":\"latest\"}\n\
    {\"status\":\"Downloading\",\"progressDetail\":{\"current\":5,\"total\":10},\"progress\":\"[>]\",\"id\":\"l1\"}\n\
    {\"status\":\"Pull complete\",\"progressDetail\":{},\"id\":\"l1\"}\n{\"status\":\"Status: Downloaded newer image for a:latest\"}\n";

#[tokio::test]
async fn a_pull_is_done_when_the_image_is_there_and_not_before() {
    let name = ImageRef::from("a");
    let fake = pulls(PULLED, true, true);
    let (items, error) = drained(fake.backend.images().unwrap().pull(&name, anonymous()).await).await;
    assert!(error.is_none(), "{error:?}");
    let layer = |step, done, total| ImageProgress::Layer { id: "l1".to_owned(), step, done, total };
    assert_eq!(
        items,
        [
            ImageProgress::Output("latest: Pulling from library/a\n".into()),
            layer(LayerStep::Transferring, 5, Some(10)),
            layer(LayerStep::Complete, 0, None),
            ImageProgress::Output("Status: Downloaded newer image for a:latest\n".into()),
            ImageProgress::Done(ImageRef::from("a:latest")),
        ]
    );
    let seen = fake.seen();
    assert_eq!(
        seen,
        ["POST /images/create?fromImage=docker.io%2Flibrary%2Fa&tag=latest", "GET /images/a%3Alatest/json"]
    );

    let gone = pulls(PULLED, true, false);
    let (_, error) = drained(gone.backend.images().unwrap().pull(&name, anonymous()).await).await;
    assert_eq!(error.unwrap().kind(), ErrorKind::NotFound, "the daemon's words are no image");
    let silent = pulls(b"{\"status\":\"Pulling from library/a\",\"id\":\"latest\"}\n", true, true);
    let (_, error) = drained(silent.backend.images().unwrap().pull(&name, anonymous()).await).await;
    assert_eq!(error.unwrap().kind(), ErrorKind::Protocol, "an older image may be there");
    for cut in [PULLED.len(), 60, 1] {
        let broken = pulls(&PULLED[..cut], false, true);
        let (_, error) = drained(broken.backend.images().unwrap().pull(&name, anonymous()).await).await;
        assert_eq!(error.unwrap().kind(), ErrorKind::Unavailable, "cut at {cut}");
    }
}

#[tokio::test]
async fn an_error_inside_a_success_is_an_error() {
    const FAILED: &[u8] = b"{\"status\":\"Pulling from a\",\"id\":\"latest\"}\n\
        {\"errorDetail\":{\"message\":\"unauthorized: authentication required\"},\"error\":\"unauthorized: authentication required\"}\n\
        {\"status\":\"Status: Downloaded newer image for a:latest\"}\n";
    let fake = pulls(FAILED, true, true);
    let images = fake.backend.images().unwrap();
    let (items, error) = drained(images.pull(&ImageRef::from("a"), anonymous()).await).await;
    assert_eq!((items.len(), error.unwrap().kind()), (1, ErrorKind::Unauthenticated));
    let daemon = Capture::start(|_| (200, String::from_utf8(FAILED.to_vec()).unwrap()));
    let backend = daemon.backend();
    let images = backend.images().unwrap();
    let (_, error) = drained(images.import(reader(b"x")).await).await;
    assert_eq!(error.unwrap().kind(), ErrorKind::Unauthenticated);
    let (_, error) = drained(images.build(BuildContext::Tar(reader(b"x")), BuildOptions::default()).await).await;
    assert_eq!(error.unwrap().kind(), ErrorKind::Unauthenticated);
}

const DESCRIBED: &str = r#"{"Id":"sha256:1","Os":"linux","Config":{"User":"web"}}"#;

/// Names of the containers that were made, and of those that were removed.
fn containers(seen: &[String]) -> [Vec<String>; 2] {
    let named = |begin: &str| {
        let names = seen.iter().filter_map(|request| request.strip_prefix(begin));
        names.map(|rest| rest.split(['?', '&']).next().unwrap().to_owned()).collect()
    };
    [named("POST /containers/create?name="), named("DELETE /containers/")]
}

#[tokio::test]
async fn an_inspection_that_fails_or_is_dropped_leaves_no_container() {
    let fails = |status, message: &'static str| {
        Fake::new(move |request| match request {
            _ if request.starts_with("GET /images/") => Reply::ok(DESCRIBED),
            _ if request.starts_with("POST /containers/create") => Reply::Json(201, r#"{"Id":"c1"}"#.to_owned()),
            _ if request.starts_with("DELETE") => Reply::empty(),
            _ => Reply::message(status, message),
        })
    };
    let image = ImageRef::from("a");
    // A file that cannot be read is not known, and no error.
    for (status, message) in [(404, "Could not find the file /etc/passwd"), (403, "denied"), (500, "no such driver")] {
        let fake = fails(status, message);
        let info = fake.backend.images().unwrap().inspect(&image).await.unwrap();
        assert_eq!((info.user.as_deref(), info.user_home), (Some("web"), None), "{message}");
        let [made, removed] = containers(&fake.seen());
        assert!(made.len() == 1 && made == removed, "{made:?} {removed:?}");
    }
    let forbids = Fake::new(|request| match request {
        _ if request.starts_with("GET /images/") => Reply::ok(DESCRIBED),
        _ if request.starts_with("POST") => Reply::message(403, "this proxy lets no container be made"),
        _ => Reply::message(404, "No such container"),
    });
    assert_eq!(forbids.backend.images().unwrap().inspect(&image).await.unwrap().user_home, None);

    let stalls = Fake::new(|request| match request {
        _ if request.starts_with("GET /images/") => Reply::ok(DESCRIBED),
        _ if request.starts_with("POST /containers/create") => Reply::Json(201, r#"{"Id":"c1"}"#.to_owned()),
        _ if request.starts_with("DELETE") => Reply::empty(),
        _ => Reply::Stall,
    });
    tokio::select! {
        info = stalls.backend.images().unwrap().inspect(&image) => panic!("it cannot be done: {info:?}"),
        () = stalls.sees("GET /containers/runtide-inspect-") => {}
    }
    stalls.sees("DELETE /containers/runtide-inspect-").await;
    let [made, removed] = containers(&stalls.seen());
    assert_eq!(made, removed);
}

#[tokio::test]
async fn an_inspection_that_is_dropped_before_its_container_is_made_leaves_none() {
    let gate = Arc::new(Notify::new());
    let late = gate.clone();
    let fake = Fake::new(move |request| match request {
        _ if request.starts_with("GET /images/") => Reply::ok(DESCRIBED),
        _ if request.starts_with("POST /containers/create") => {
            Reply::Late(late.clone(), Box::new(|| Reply::Json(201, r#"{"Id":"c1"}"#.to_owned())))
        }
        _ if request.starts_with("DELETE") => Reply::empty(),
        _ => Reply::Stall,
    });
    let image = ImageRef::from("a");
    tokio::select! {
        info = fake.backend.images().unwrap().inspect(&image) => panic!("there is no answer yet: {info:?}"),
        () = fake.sees("POST /containers/create") => {}
    }
    // An undo that does not wait for the answer has run by then, and found nothing.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(containers(&fake.seen())[1], Vec::<String>::new(), "nothing is there to be removed");
    gate.notify_one();
    fake.sees("DELETE /containers/runtide-inspect-").await;
}

#[tokio::test]
async fn a_load_has_one_result_for_each_image_and_none_without_images() {
    let daemon = Capture::start(|seen| match seen.request.as_str() {
        "POST /images/load?quiet=0" if seen.body.len() == 3 => {
            let lines = "{\"status\":\"Loading layer\",\"progressDetail\":{\"current\":1,\"total\":2},\"id\":\"l1\"}\n\
                {\"stream\":\"Loaded image: a:1\\n\"}\n{\"stream\":\"Loaded image ID: sha256:2\\n\"}\n";
            (200, lines.to_owned())
        }
        request if request.starts_with("GET /images/") => (200, r#"{"Id":"sha256:1"}"#.to_owned()),
        _ => (200, String::new()),
    });
    let backend = daemon.backend();
    let images = backend.images().unwrap();
    assert_eq!(done(images.import(reader(b"abc")).await).await, ["a:1", "sha256:2"]);
    assert_eq!(&daemon.take()[0].body[..], b"abc");
    let (_, error) = drained(images.import(reader(b"")).await).await;
    assert_eq!(error.unwrap().kind(), ErrorKind::InvalidInput);
}

/// A reader that fails in the middle.
fn failing() -> ByteReader {
    let broken = std::io::Error::new(std::io::ErrorKind::PermissionDenied, "the disk says no");
    let chunks = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"abc")), Err(broken)]);
    Box::pin(tokio_util::io::StreamReader::new(chunks))
}

#[tokio::test]
async fn the_readers_own_error_is_the_reason() {
    let daemon = Capture::start(|_| (200, String::new()));
    let backend = daemon.backend();
    let images = backend.images().unwrap();
    for stream in
        [images.import(failing()).await, images.build(BuildContext::Tar(failing()), BuildOptions::default()).await]
    {
        let error = drained(stream).await.1.unwrap();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("the disk says no"), "{error}");
    }
}

#[tokio::test]
async fn an_archive_that_is_not_whole_ends_with_an_error() {
    let whole = {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2000);
        tar.append_data(&mut header, "a", std::io::Read::take(std::io::repeat(7), 2000)).unwrap();
        tar.into_inner().unwrap()
    };
    let error = br#"{"errorDetail":{"message":"no space left"},"error":"no space left"}"#;
    let read = async |bytes: Vec<u8>, whole| {
        let fake = Fake::new(move |request| match request {
            _ if request.starts_with("GET /images/get?names=a%3A1") => Reply::Stream { bytes: bytes.clone(), whole },
            _ => Reply::ok(r#"{"Id":"sha256:1","RepoTags":["a:1"]}"#),
        });
        let mut reader = fake.backend.images().unwrap().save(&[ImageRef::from("a:1")]).await.unwrap();
        let mut read = Vec::new();
        (reader.read_to_end(&mut read).await.map(|_| ()), read)
    };
    let (ended, bytes) = read(whole.clone(), true).await;
    ended.unwrap();
    assert_eq!(bytes, whole);
    let (ended, _) = read([&whole, &error[..]].concat(), true).await;
    assert!(ended.unwrap_err().to_string().contains("no space left"));
    let (ended, _) = read([&whole[..512], &error[..]].concat(), true).await;
    ended.unwrap_err();
    for (cut, is_whole) in [(whole.len() - 1024, true), (700, true), (0, true), (700, false)] {
        assert!(read(whole[..cut].to_vec(), is_whole).await.0.is_err(), "{cut}");
    }
}

#[tokio::test]
async fn verbs_are_sent_as_the_daemon_reads_them() {
    let daemon = Capture::start(|seen| match seen.request.split(['?', ' ']).nth(1).unwrap() {
        "/images/prune" => {
            let reply = json!({"ImagesDeleted": [{"Untagged": "a:1"}, {"Deleted": "sha256:1"}], "SpaceReclaimed": 42});
            (200, reply.to_string())
        }
        "/images/gone" => (404, r#"{"message":"No such image"}"#.to_owned()),
        "/images/used" => (409, r#"{"message":"conflict: unable to remove repository reference"}"#.to_owned()),
        _ => (200, "[]".to_owned()),
    });
    let backend = daemon.backend();
    let images = backend.images().unwrap();
    images.tag(&ImageRef::from("[::1]:5000/a:1"), &ImageRef::from("b.c:5000/d")).await.unwrap();
    let options = PruneOptions::default().with_labels([("k", "v w")].into_iter().collect::<runtide_core::Labels>());
    let pruned = images.prune(options).await.unwrap();
    assert_eq!((pruned.images, pruned.bytes), (vec![ImageRef::from("sha256:1")], Some(42)));
    assert_eq!(images.remove(&ImageRef::from("a/b:1")).await.unwrap(), Effect::Changed);
    assert_eq!(images.remove(&ImageRef::from("gone")).await.unwrap(), Effect::Unchanged);
    assert_eq!(images.remove(&ImageRef::from("used")).await.unwrap_err().kind(), ErrorKind::Conflict);
    let seen = daemon.take();
    assert_eq!(seen[0].request, "POST /images/%5B%3A%3A1%5D%3A5000/a%3A1/tag?repo=b.c%3A5000%2Fd&tag=latest");
    assert_eq!(seen[1].query("filters").unwrap(), r#"{"dangling":["true"],"label":["k=v w"]}"#);
    assert_eq!(seen[2].request, "DELETE /images/a/b%3A1");
}
