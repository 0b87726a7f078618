//! Transfers of volumes, on a daemon that breaks off, lies, stalls and loses the volume.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use runtide_core::{ErrorKind, RuntimeBackend, manager::ByteReader};
use tokio::{io::AsyncReadExt, sync::Notify};

use crate::scripted_daemon::{Fake, Reply, labelled};

const VOLUME: &str = r#"{"Name":"v","CreatedAt":"2024-01-01T00:00:00Z","Labels":{"runtide.owner":"shop"}}"#;

/// An archive without an entry.
fn archive() -> Vec<u8> {
    vec![0; 1024]
}

/// A daemon whose archive endpoint answers so, and that removes what it is asked to remove.
fn with_archive(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Fake {
    Fake::new(move |request| match request {
        "GET /volumes/v" => Reply::ok(VOLUME),
        request if request.starts_with("POST /containers/create") => Reply::Json(201, r#"{"Id":"h1"}"#.to_owned()),
        request if request.contains("/containers/h1/archive") => reply(request),
        request if request.starts_with("GET /containers/json?all=1&filters") => Reply::ok(&labelled(request, "h1")),
        request if request.starts_with("GET /volumes?filters") => Reply::ok(r#"{"Volumes":null,"Warnings":null}"#),
        request if request.starts_with("DELETE ") => Reply::ok("[]"),
        _ => Reply::message(404, "no such thing"),
    })
}

async fn is_undone(fake: &Fake) {
    fake.sees("DELETE /containers/h1?force=1&v=1").await;
    assert!(!fake.seen().iter().any(|request| request.contains("/images/")), "a helper has no image");
}

#[tokio::test]
async fn an_export_ends_without_an_error_only_if_the_archive_is_whole() {
    let json = br#"{"message":"the disk is gone"}"#;
    for (bytes, whole, what) in [
        (archive(), true, None),
        (archive(), false, Some("the connection broke behind it")),
        (archive()[..512].to_vec(), false, Some("it broke off")),
        (vec![], true, Some("it is empty")),
        ([archive(), json.to_vec()].concat(), true, Some("the daemon's error is behind it")),
        (json.to_vec(), true, Some("the daemon's error is in its place")),
    ] {
        let reply = bytes.clone();
        let fake = with_archive(move |_| Reply::Stream { bytes: reply.clone(), whole });
        let mut export = fake.backend.volumes().unwrap().export(&"v".into()).await.unwrap();
        let read = export.read_to_end(&mut Vec::new()).await;
        assert_eq!(read.is_err(), what.is_some(), "{what:?}: {read:?}");
        is_undone(&fake).await;
        // The end comes when nothing is left.
        let last = fake.seen().last().cloned().unwrap_or_default();
        assert!(last.starts_with("GET /volumes?filters"), "{last}");
    }
}

#[tokio::test]
async fn a_helper_is_found_by_its_labels_and_mounts_nothing_else() {
    let fake = with_archive(|_| Reply::Stream { bytes: archive(), whole: true });
    let mut export = fake.backend.volumes().unwrap().export(&"v".into()).await.unwrap();
    export.read_to_end(&mut Vec::new()).await.unwrap();
    let bodies = fake.bodies();
    let body = bodies.iter().find(|body| body.contains("Mounts")).unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["Labels"]["runtide.owner"], "shop", "the volume's own owner finds what its process leaves");
    assert!(body["Labels"]["runtide.operation"].as_str().unwrap().starts_with("volume-transfer-"));
    assert_eq!(body["HostConfig"]["Mounts"].as_array().unwrap().len(), 1);
    let volume = &body["HostConfig"]["Mounts"][0]["VolumeOptions"];
    assert_eq!(volume["NoCopy"], true);
    assert_eq!(volume["Labels"], body["Labels"], "a volume that the daemon has to make is found as the helper is");
}

#[tokio::test]
async fn a_daemon_that_stalls_is_a_timeout_and_what_it_made_is_removed() {
    // The other calls are answered within it, on a busy machine too.
    let deadline = Duration::from_secs(10);
    let fake = with_archive(|_| Reply::Open(vec![0; 512])).with_deadline(deadline);
    let mut export = fake.backend.volumes().unwrap().export(&"v".into()).await.unwrap();
    let error = export.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("no answer within"), "{error}");
    is_undone(&fake).await;

    let fake = with_archive(|_| Reply::Stall).with_deadline(deadline);
    let volumes = fake.backend.volumes().unwrap();
    let error = volumes.export(&"v".into()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    is_undone(&fake).await;
    let error = volumes.import(&"v".into(), Box::pin(std::io::Cursor::new(archive()))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn a_transfer_under_way_ends_with_the_close_and_what_it_made_is_removed() {
    let fake = with_archive(|_| Reply::Open(vec![0; 512]));
    let mut export = fake.backend.volumes().unwrap().export(&"v".into()).await.unwrap();
    fake.backend.close().await.unwrap();
    let error = export.read_to_end(&mut Vec::new()).await.unwrap_err();
    let error = error.get_ref().and_then(|error| error.downcast_ref::<runtide_core::Error>()).unwrap();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    is_undone(&fake).await;
}

/// A daemon that has the helper only once it is let to answer its create.
fn late(gate: &Arc<Notify>, is_there: &Arc<AtomicBool>, answer: fn() -> Reply) -> Fake {
    let (gate, is_there) = (gate.clone(), is_there.clone());
    Fake::new(move |request| match request {
        "GET /volumes/v" => Reply::ok(VOLUME),
        request if request.starts_with("POST /containers/create") => {
            let is_there = is_there.clone();
            let answered = move || {
                is_there.store(true, Ordering::SeqCst);
                answer()
            };
            Reply::Late(gate.clone(), Box::new(answered))
        }
        request if request.starts_with("GET /containers/json?all=1&filters") => {
            Reply::ok(&if is_there.load(Ordering::SeqCst) { labelled(request, "h1") } else { "[]".to_owned() })
        }
        request if request.starts_with("GET /volumes?filters") => Reply::ok(r#"{"Volumes":null,"Warnings":null}"#),
        request if request.starts_with("DELETE ") => Reply::ok("[]"),
        _ => Reply::message(404, "no such thing"),
    })
}

#[tokio::test]
async fn a_helper_whose_create_is_answered_after_the_caller_gave_up_is_removed() {
    let made = || Reply::Json(201, r#"{"Id":"h1"}"#.to_owned());
    let (gate, is_there) = <(Arc<Notify>, Arc<AtomicBool>)>::default();
    let fake = late(&gate, &is_there, made);
    let (volumes, volume) = (fake.backend.volumes().unwrap(), "v".into());
    tokio::select! {
        _ = volumes.export(&volume) => panic!("there is no answer yet"),
        () = fake.sees("POST /containers/create") => {}
    }
    // An undo that does not wait for the answer has run by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.notify_one();
    fake.sees("DELETE /containers/h1?force=1&v=1").await;

    let fake = late(&gate, &is_there, made).with_deadline(Duration::from_secs(10));
    is_there.store(false, Ordering::SeqCst);
    let error = fake.backend.volumes().unwrap().export(&"v".into()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    gate.notify_one();
    fake.sees("DELETE /containers/h1?force=1&v=1").await;
}

#[tokio::test]
async fn a_helper_whose_create_got_no_answer_is_looked_for_again() {
    let looks = AtomicUsize::new(0);
    let fake = Fake::new(move |request| match request {
        "GET /volumes/v" => Reply::ok(VOLUME),
        request if request.starts_with("POST /containers/create") => Reply::Hangup,
        // The daemon is still at it when it is asked first.
        request if request.starts_with("GET /containers/json?all=1&filters") => {
            Reply::ok(&if looks.fetch_add(1, Ordering::SeqCst) == 0 {
                "[]".to_owned()
            } else {
                labelled(request, "h1")
            })
        }
        request if request.starts_with("GET /volumes?filters") => Reply::ok(r#"{"Volumes":null,"Warnings":null}"#),
        request if request.starts_with("DELETE ") => Reply::ok("[]"),
        _ => Reply::message(404, "no such thing"),
    });
    let error = fake.backend.volumes().unwrap().export(&"v".into()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    fake.sees("DELETE /containers/h1?force=1&v=1").await;
}

#[tokio::test]
async fn a_volume_that_the_daemon_made_again_is_not_taken_for_the_one_that_was_removed() {
    let inspected = AtomicUsize::new(0);
    let fake = Fake::new(move |request| match request {
        "GET /volumes/v" if inspected.fetch_add(1, Ordering::SeqCst) == 0 => Reply::ok(VOLUME),
        "GET /volumes/v" => Reply::ok(r#"{"Name":"v","CreatedAt":"2024-01-01T00:00:09Z","Labels":null}"#),
        request if request.starts_with("POST /containers/create") => Reply::Json(201, r#"{"Id":"h1"}"#.to_owned()),
        request if request.starts_with("GET /containers/json?all=1&filters") => Reply::ok(&labelled(request, "h1")),
        request if request.starts_with("GET /volumes?filters") => Reply::ok(r#"{"Volumes":null,"Warnings":null}"#),
        request if request.starts_with("DELETE ") => Reply::empty(),
        _ => Reply::message(404, "no such thing"),
    });
    let error = fake.backend.volumes().unwrap().export(&"v".into()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    fake.sees("DELETE /containers/h1?").await;
    fake.sees("GET /volumes?filters").await;
    assert!(!fake.seen().iter().any(|request| request.starts_with("DELETE /volumes/")), "it may be another client's");
}

/// The caller removed the volume as the transfer began, and dropped the transfer.
#[tokio::test]
async fn a_volume_that_the_daemon_made_for_the_helper_goes_with_it() {
    let gate = Arc::<Notify>::default();
    let fake = Fake::new({
        let gate = gate.clone();
        move |request| match request {
            "GET /volumes/v" => Reply::ok(VOLUME),
            request if request.starts_with("POST /containers/create") => {
                Reply::Late(gate.clone(), Box::new(|| Reply::Json(201, r#"{"Id":"h1"}"#.to_owned())))
            }
            request if request.starts_with("GET /containers/json?all=1&filters") => Reply::ok(&labelled(request, "h1")),
            request if request.starts_with("GET /volumes?filters") && request.contains("volume-transfer-") => {
                Reply::ok(&format!(r#"{{"Volumes":{}}}"#, labelled(request, "v")))
            }
            request if request.starts_with("DELETE ") => Reply::empty(),
            _ => Reply::message(404, "no such thing"),
        }
    });
    let (volumes, volume) = (fake.backend.volumes().unwrap(), "v".into());
    tokio::select! {
        _ = volumes.export(&volume) => panic!("there is no answer yet"),
        () = fake.sees("POST /containers/create") => {}
    }
    gate.notify_one();
    fake.sees("DELETE /volumes/v").await;
    let seen = fake.seen();
    let at = |what: &str| seen.iter().position(|request| request.starts_with(what));
    assert!(at("DELETE /containers/h1") < at("DELETE /volumes/v"), "the container holds it: {seen:?}");
}

#[tokio::test]
async fn a_deadline_that_the_clock_cannot_add_is_none() {
    let fake = with_archive(|_| Reply::ok("")).with_deadline(Duration::MAX);
    let volumes = fake.backend.volumes().unwrap();
    volumes.import(&"v".into(), Box::pin(std::io::Cursor::new(archive()))).await.unwrap();
    is_undone(&fake).await;
}

#[tokio::test]
async fn a_reader_that_fails_is_the_callers_error_and_reaches_no_volume() {
    struct Broken;
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::Error::other("the disk is gone")))
        }
    }
    let fake = with_archive(|_| Reply::empty());
    let archive: ByteReader = Box::pin(Broken);
    let error = fake.backend.volumes().unwrap().import(&"v".into(), archive).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(fake.seen(), ["GET /volumes/v"]);
}

#[tokio::test]
async fn a_close_ends_an_import_whose_archive_does_not_come() {
    let fake = with_archive(|_| Reply::empty());
    let (_writer, archive) = tokio::io::duplex(64);
    let id = "v".into();
    let import = fake.backend.volumes().unwrap().import(&id, Box::pin(archive));
    let close = async {
        fake.sees("GET /volumes/v").await;
        fake.backend.close().await.unwrap();
    };
    let both = async { tokio::join!(import, close) };
    let (imported, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("it ends with the close");
    assert_eq!(imported.unwrap_err().kind(), ErrorKind::Cancelled);
}
