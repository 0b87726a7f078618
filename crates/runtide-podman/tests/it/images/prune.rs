//! A prune by labels, of which Podman's own honours the first alone.

use runtide_core::{ImageRef, Labels, RuntimeBackend, manager::PruneOptions};

use super::capture::{Capture, ok, refusal};

const LISTED: &str = r#"[
    {"Id":"both","RepoTags":[],"Labels":{"a":"1","b":""},"Containers":0},
    {"Id":"one","RepoTags":[],"Labels":{"a":"1"},"Containers":0},
    {"Id":"other-value","RepoTags":[],"Labels":{"a":"1","b":"x"},"Containers":0},
    {"Id":"used","RepoTags":[],"Labels":{"a":"1","b":""},"Containers":2},
    {"Id":"used-by-now","RepoTags":[],"Labels":{"a":"1","b":""},"Containers":0},
    {"Id":"named","RepoTags":["localhost/n:1","localhost/n:2"],"Labels":{"a":"1","b":""},"Containers":0},
    {"Id":"pinned","RepoTags":[],"RepoDigests":["q.example/a@sha256:1"],"Labels":{"a":"1","b":""},"Containers":0}]"#;

fn service() -> Capture {
    Capture::start(|seen| match seen.target() {
        "GET /images/json" => ok(LISTED),
        "DELETE /images/used-by-now" => refusal(409, "image used by 1: image is in use by a container"),
        _ => ok("{}"),
    })
}

async fn pruned(options: PruneOptions) -> (Vec<ImageRef>, Vec<String>) {
    let service = service();
    let labels: Labels = [("a", "1"), ("b", "")].into_iter().collect();
    let pruned = service.backend().images().unwrap().prune(options.with_labels(labels)).await.unwrap();
    (pruned.images, service.take().into_iter().map(|seen| seen.request).collect())
}

#[tokio::test]
async fn every_label_counts_and_an_empty_value_is_a_value() {
    let (images, asked) = pruned(PruneOptions::default()).await;
    assert_eq!(images, [ImageRef::from("both")]);
    assert_eq!(asked, ["GET /images/json", "DELETE /images/both", "DELETE /images/used-by-now"]);
    let (images, asked) = pruned(PruneOptions::default().with_named()).await;
    assert_eq!(images, [ImageRef::from("both"), ImageRef::from("named"), ImageRef::from("pinned")]);
    let removed = ["both", "used-by-now", "localhost/n%3A1", "localhost/n%3A2", "pinned"];
    assert_eq!(asked[1..], removed.map(|name| format!("DELETE /images/{name}")));
}

#[tokio::test]
async fn without_labels_it_is_podmans_own() {
    let service = Capture::start(|_| ok(r#"[{"Id":"x","Err":null,"Size":40},{"Id":"y","Size":2}]"#));
    let backend = service.backend();
    let images = backend.images().unwrap();
    let pruned = images.prune(PruneOptions::default()).await.unwrap();
    assert_eq!((pruned.images, pruned.bytes), (vec![ImageRef::from("x"), ImageRef::from("y")], Some(42)));
    images.prune(PruneOptions::default().with_named()).await.unwrap();
    let asked: Vec<String> = service.take().into_iter().map(|seen| seen.request).collect();
    assert_eq!(asked, ["POST /images/prune?all=false", "POST /images/prune?all=true"]);
}
