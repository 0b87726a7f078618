//! Verbs on services that refuse, stall, lie, or end in the middle.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use runtide_core::{
    ErrorKind, ImageRef, Result, RuntimeBackend,
    manager::{
        BuildContext, BuildOptions, Credentials, Effect, ImageManager, ImageProgress, LayerStep, PruneOptions,
        PullOptions,
    },
};
use runtide_podman::PodmanBackend;
use tokio::io::AsyncReadExt;

use super::{
    capture::{Answer, Capture, ok, refusal},
    done, drained, reader,
};

const ID: &str = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";

fn anonymous() -> PullOptions {
    PullOptions::default().with_credentials(Credentials::Anonymous)
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
        ("build", images.build(BuildContext::Tar(reader("")), tagged).await.map(drop)),
        ("tag", images.tag(image, &good).await),
        ("tag as", images.tag(&good, image).await),
        ("remove", images.remove(image).await.map(drop)),
    ]
}

#[tokio::test]
async fn hostile_names_are_refused_before_anything_is_sent() {
    let service = Capture::start(|_| ok("{}"));
    let backend = service.backend();
    let images = backend.images().unwrap();
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
        "oci:/etc",
        "docker-archive:/etc/passwd",
        "\u{202e}a",
        &"x".repeat(100_000),
    ] {
        for (verb, result) in every_verb(images, &ImageRef::from(hostile)).await {
            let error = result.expect_err(verb);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{verb} of {hostile:?}");
            assert!(error.to_string().len() < 2000, "{verb}: the whole name is no message");
        }
    }
    let id = ImageRef::from(format!("sha256:{ID}"));
    for result in [images.pull(&id, anonymous()).await.map(drop), images.tag(&ImageRef::from("a"), &id).await] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput, "an id is no name");
    }
    for platform in ["", "linux", "linux/", "linux amd64/x", "a/b/c/d", "linux/a&b"] {
        let error = images.pull(&ImageRef::from("a"), anonymous().with_platform(Some(platform.to_owned()))).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput, "{platform:?}");
    }
    // Podman would read these on its own machine, or from an address.
    for path in ["/etc/passwd", "../x", "a/../../x", ""] {
        let mut options = BuildOptions::default();
        options.dockerfile = Some(path.into());
        let error = images.build(BuildContext::Tar(reader("")), options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}");
    }
    assert_eq!(images.save(&[]).await.err().unwrap().kind(), ErrorKind::InvalidInput);
    assert!(service.take().is_empty());
}

#[tokio::test]
async fn every_verb_ends_within_its_deadline_when_the_service_stalls() {
    let service = Capture::start(|_| Answer::Silent);
    let config = service.config().with_deadline(Duration::from_millis(500)).with_auth_file("/no/such/file");
    let backend = PodmanBackend::new(config).unwrap();
    let images = backend.images().unwrap();
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

/// A service that pulls with these lines, and has this image under the name afterwards.
fn pulls(lines: Answer, id: Option<&'static str>) -> Capture {
    let lines = std::sync::Mutex::new(Some(lines));
    Capture::start(move |seen| match (seen.target(), id) {
        ("POST /images/pull", _) => lines.lock().unwrap().take().unwrap(),
        (target, _) if target == format!("GET /images/sha256%3A{ID}/json") => ok(format!(r#"{{"Id":"{ID}"}}"#)),
        (_, Some(id)) => ok(format!(r#"{{"Id":"{id}"}}"#)),
        (_, None) => refusal(404, "failed to find image a:latest: a:latest: image not known"),
    })
}

fn pulled() -> String {
    format!(
        "{{\"stream\":\"Trying to pull localhost/a:latest...\\n\"}}\n{{\"stream\":\"Copying blob sha256:l1\\n\"}}\n\
         {{\"stream\":\"Copying blob sha256:l2\\n\"}}\n{{\"stream\":\"Copying blob sha256:l2 skipped: already exists  \\n\"}}\n\
         {{\"stream\":\"Copying config sha256:c\\n\"}}\n{{\"images\":[\"{ID}\"],\"id\":\"{ID}\"}}\n"
    )
}

#[tokio::test]
async fn a_pull_is_done_when_the_image_is_there_and_not_before() {
    let pull = async |service: &Capture| {
        let backend = service.backend();
        drained(backend.images().unwrap().pull(&ImageRef::from("a"), anonymous()).await).await
    };
    let (items, error) = pull(&pulls(ok(pulled()), Some(ID))).await;
    assert!(error.is_none(), "{error:?}");
    let layer = |id: &str, step| ImageProgress::Layer { id: id.to_owned(), step, done: 0, total: None };
    assert_eq!(
        items,
        [
            ImageProgress::Output("Trying to pull localhost/a:latest...\n".into()),
            layer("sha256:l1", LayerStep::Transferring),
            layer("sha256:l2", LayerStep::Transferring),
            layer("sha256:l2", LayerStep::Complete),
            layer("sha256:l1", LayerStep::Complete),
            ImageProgress::Output("Copying config sha256:c\n".into()),
            ImageProgress::Done(ImageRef::from("a:latest")),
        ]
    );
    // A short name may lead to another image here than the one that was pulled.
    let other = "0000b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";
    let (items, _) = pull(&pulls(ok(pulled()), Some(other))).await;
    assert_eq!(items.last(), Some(&ImageProgress::Done(ImageRef::from(format!("sha256:{ID}")))));

    let (_, error) = pull(&pulls(ok(pulled()), None)).await;
    assert_eq!(error.unwrap().kind(), ErrorKind::NotFound, "the service's words are no image");
    let (_, error) = pull(&pulls(ok("{\"stream\":\"Trying\"}\n"), Some(ID))).await;
    assert_eq!(error.unwrap().kind(), ErrorKind::Protocol, "an older image may be there");
    for cut in [pulled().len(), 60, 1] {
        let (_, error) = pull(&pulls(Answer::Cut(pulled()[..cut].to_owned()), Some(ID))).await;
        assert_eq!(error.unwrap().kind(), ErrorKind::Unavailable, "cut at {cut}");
    }
}

#[tokio::test]
async fn an_error_inside_a_success_is_an_error() {
    const FAILED: &str = "{\"stream\":\"Trying to pull a\"}\n\
        {\"error\":\"initializing source docker://a:latest: reading manifest latest in a: unauthorized: authentication required\"}\n\
        {\"images\":[\"7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa\"]}\n";
    let service = Capture::start(|_| ok(FAILED));
    let backend = service.backend();
    let images = backend.images().unwrap();
    let (items, error) = drained(images.pull(&ImageRef::from("a"), anonymous()).await).await;
    assert_eq!((items.len(), error.unwrap().kind()), (1, ErrorKind::Unauthenticated));
    let (_, error) = drained(images.build(BuildContext::Tar(reader("x")), BuildOptions::default()).await).await;
    assert_eq!(error.unwrap().kind(), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn a_404_of_another_reason_is_no_absence() {
    let service = Capture::start(|seen| match seen.target() {
        "GET /images/gone/exists" => refusal(404, "failed to find image gone"),
        "DELETE /images/gone" => refusal(404, "gone: image not known"),
        "GET /images/gone/json" => refusal(404, "failed to find image gone: gone: image not known"),
        _ => refusal(404, "failed to find image a: locating image: the store is locked"),
    });
    let backend = service.backend();
    let images = backend.images().unwrap();
    let (gone, other) = (ImageRef::from("gone"), ImageRef::from("a"));
    assert!(!images.exists(&gone).await.unwrap());
    assert_eq!(images.inspect(&gone).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(images.remove(&gone).await.unwrap(), Effect::Unchanged);
    assert_eq!(images.exists(&other).await.unwrap_err().kind(), ErrorKind::Unexpected);
    assert_eq!(images.inspect(&other).await.unwrap_err().kind(), ErrorKind::Unexpected);
    assert_eq!(images.remove(&other).await.unwrap_err().kind(), ErrorKind::Unexpected);
}

#[tokio::test]
async fn verbs_are_sent_as_the_service_reads_them() {
    let service = Capture::start(|seen| match seen.target() {
        "DELETE /images/used" => refusal(409, "image used by 1: image is in use by a container"),
        "DELETE /images/many" => {
            refusal(500, "unable to delete image \"many\" by ID with more than one tag ([a b]): please force removal")
        }
        _ => ok("[]"),
    });
    let backend = service.backend();
    let images = backend.images().unwrap();
    images.tag(&ImageRef::from("[::1]:5000/a:1"), &ImageRef::from("b.c:5000/d")).await.unwrap();
    images.tag(&ImageRef::from("a"), &ImageRef::from("b:2")).await.unwrap();
    assert_eq!(images.remove(&ImageRef::from("a/b:1")).await.unwrap(), Effect::Changed);
    assert_eq!(images.remove(&ImageRef::from("used")).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(images.remove(&ImageRef::from("many")).await.unwrap_err().kind(), ErrorKind::Conflict);
    let seen: Vec<String> = service.take().into_iter().map(|seen| seen.request).collect();
    assert_eq!(
        seen,
        [
            "POST /images/%5B%3A%3A1%5D%3A5000/a%3A1/tag?repo=b.c%3A5000%2Fd&tag=latest",
            "POST /images/a%3Alatest/tag?repo=b&tag=2",
            "DELETE /images/a/b%3A1",
            "DELETE /images/used",
            "DELETE /images/many",
        ]
    );
}

/// `DELETE /images/remove` is a request of its own, which removes every image that no container uses.
#[tokio::test]
async fn the_removal_of_an_image_called_remove_removes_no_other() {
    let service = Capture::start(|_| ok("{}"));
    let backend = service.backend();
    assert_eq!(backend.images().unwrap().remove(&ImageRef::from("remove")).await.unwrap(), Effect::Changed);
    let seen: Vec<String> = service.take().into_iter().map(|seen| seen.request).collect();
    assert_eq!(seen, ["DELETE /images/remove%3Alatest"]);
}

#[tokio::test]
async fn a_build_is_done_with_the_id_in_its_last_line() {
    let last = format!("{{\"stream\":\"{ID}\\n\"}}\n");
    let build = async |lines: String| {
        let service = Capture::start(move |seen| match seen.target() {
            "POST /build" => ok(lines.clone()),
            _ => ok(format!(r#"{{"Id":"{ID}"}}"#)),
        });
        let backend = service.backend();
        drained(backend.images().unwrap().build(BuildContext::Tar(reader("x")), BuildOptions::default()).await).await
    };
    let (items, error) = build(format!("{{\"stream\":\"STEP 1/1: FROM scratch\\n\"}}\n{last}")).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(items.last(), Some(&ImageProgress::Done(ImageRef::from(format!("sha256:{ID}")))));
    // A step prints one as well.
    for lines in
        [format!("{last}{{\"stream\":\"STEP 2/2: x\\n\"}}\n"), String::new(), "{\"stream\":\"7cc4\\n\"}".into()]
    {
        let (_, error) = build(lines.clone()).await;
        assert_eq!(error.unwrap().kind(), ErrorKind::Protocol, "{lines}");
    }
}

#[tokio::test]
async fn a_load_has_one_result_for_each_image_and_none_without_images() {
    let service = Capture::start(|seen| match seen.target() {
        "POST /images/load" if seen.body.len() == 3 => ok(format!(r#"{{"Names":["localhost/a:1","sha256:{ID}"]}}"#)),
        "POST /images/load" => refusal(
            500,
            "unable to load image: payload does not match any of the supported image formats:\n * oci: open: not a directory",
        ),
        _ => ok(r#"{"Id":"sha256:1"}"#),
    });
    let backend = service.backend();
    let images = backend.images().unwrap();
    assert_eq!(done(images.import(reader("abc")).await).await, ["localhost/a:1".to_owned(), format!("sha256:{ID}")]);
    assert_eq!(&service.take()[0].body[..], b"abc");
    let (_, error) = drained(images.import(reader("")).await).await;
    assert_eq!(error.unwrap().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn the_readers_own_error_is_the_reason() {
    let failing = || {
        let broken = std::io::Error::new(std::io::ErrorKind::PermissionDenied, "the disk says no");
        let chunks = futures_util::stream::iter([Ok(bytes::Bytes::from_static(b"abc")), Err(broken)]);
        Box::pin(tokio_util::io::StreamReader::new(chunks))
    };
    let service = Capture::start(|_| ok(""));
    let backend = service.backend();
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
        String::from_utf8(tar.into_inner().unwrap()).unwrap()
    };
    let read = async |bytes: String, is_whole: bool| {
        let service = Capture::start(move |seen| match seen.target() {
            "GET /images/export" if is_whole => ok(bytes.clone()),
            "GET /images/export" => Answer::Cut(bytes.clone()),
            _ => ok(r#"{"Id":"sha256:1"}"#),
        });
        let backend = service.backend();
        let mut reader = backend.images().unwrap().save(&[ImageRef::from("a:1")]).await.unwrap();
        let mut read = Vec::new();
        (reader.read_to_end(&mut read).await.map(|_| ()), read)
    };
    let (ended, bytes) = read(whole.clone(), true).await;
    ended.unwrap();
    assert_eq!(bytes, whole.as_bytes());
    for (cut, is_whole) in [(whole.len() - 1024, true), (700, true), (0, true), (700, false)] {
        assert!(read(whole[..cut].to_owned(), is_whole).await.0.is_err(), "{cut}");
    }
}

#[tokio::test]
async fn a_listing_in_which_another_client_builds_or_removes_an_image_is_asked_for_again() {
    let asked = AtomicUsize::new(0);
    let service = Capture::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => refusal(500, "retrieving label for image: locating image with ID: image not known"),
        1 => refusal(500, "reading information about layer: layer not known"),
        2 => refusal(500, "locating item named \"manifest\" for image with ID: file does not exist"),
        _ => refusal(500, "the store is locked"),
    });
    let error = service.backend().images().unwrap().list().await.unwrap_err();
    assert!(error.message().contains("the store is locked"), "{error}");
}
