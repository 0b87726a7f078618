//! Builds on a real daemon.

use std::{fs, path::Path};

use runtide_core::{
    ErrorKind, ImageRef,
    manager::{BuildContext, BuildOptions, ByteReader},
};

use super::{done, drained, printed};
use crate::managers::bench::Bench;

/// A context of these files, as a tar stream.
pub(super) fn tar_of(files: &[(&str, &str)]) -> ByteReader {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, contents.as_bytes()).unwrap();
    }
    Box::pin(std::io::Cursor::new(tar.into_inner().unwrap()))
}

/// Options whose image goes with the test.
pub(super) fn options(bench: &Bench) -> BuildOptions {
    BuildOptions::default().with_label("runtide.test", &bench.prefix)
}

/// An image of these files, under these names.
pub(super) async fn built(bench: &Bench, files: &[(&str, &str)], tags: &[&str]) -> ImageRef {
    let options = options(bench).with_tags(tags.iter().copied().map(ImageRef::from).collect::<Vec<_>>());
    let mut done = done(bench.images().build(BuildContext::Tar(tar_of(files)), options).await).await;
    ImageRef::from(done.remove(0))
}

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, contents) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
}

/// Containers, also of steps, whose command has this word in it.
fn with_word(bench: &Bench, word: &str) -> usize {
    let all = bench.json("GET", "/containers/json?all=1", "");
    all.as_array().unwrap().iter().filter(|item| item["Command"].as_str().unwrap().contains(word)).count()
}

#[tokio::test]
async fn a_directory_is_built_with_every_option() {
    let Some(bench) = Bench::new("build").await else { return };
    let folder = tempfile::tempdir().unwrap();
    let dockerfile = format!(
        "FROM {image} AS first\nARG WORD\nCOPY . /context\nRUN echo \"word: $WORD\" && find /context | sort\nENV WORD=$WORD\nFROM first\nENV LAST=1\n",
        image = Bench::image()
    );
    write(
        folder.path(),
        &[
            ("sub/Dockerfile.prod", &dockerfile),
            ("kept/a", "a"),
            ("left/out", "b"),
            ("left/in", "c"),
            (".dockerignore", "left\nsub\n!left/in\n.dockerignore\n"),
        ],
    );
    let word = format!("a 'quoted' \"word\" of {}", bench.prefix);
    let tags = [format!("{}-a:1", bench.prefix), format!("{}-b", bench.prefix)];
    let mut options = options(&bench)
        .with_args([("WORD".to_owned(), word.clone())])
        .with_label("with.quote", "it's \"so\"\n")
        .with_tags(tags.iter().map(|tag| ImageRef::from(tag.as_str())).collect::<Vec<_>>())
        .with_target(Some("first".to_owned()));
    options.dockerfile = Some("sub/Dockerfile.prod".into());
    let context = || BuildContext::Directory(folder.path().to_owned());
    let (items, error) = drained(bench.images().build(context(), options.clone()).await).await;
    assert!(error.is_none(), "{error:?}\n{}", printed(&items));
    let output = printed(&items);
    assert!(output.contains(&format!("word: {word}\n")), "{output}");
    // The daemon takes the Dockerfile out of the context, and leaves its folder.
    let files = "/context\n/context/kept\n/context/kept/a\n/context/left\n/context/left/in\n/context/sub\n";
    assert!(output.contains(files), "{output}");

    let info = bench.images().inspect(&ImageRef::from(tags[0].as_str())).await.unwrap();
    assert_eq!(items.last(), Some(&runtide_core::manager::ImageProgress::Done(info.id.clone())));
    assert_eq!(info.labels.get("with.quote"), Some("it's \"so\"\n"));
    let env = info.env.unwrap();
    assert!(env.contains(&format!("WORD={word}")) && !env.contains(&"LAST=1".to_owned()), "{env:?}");
    let mut names: Vec<&str> = info.tags.iter().map(ImageRef::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, [tags[0].clone(), format!("{}:latest", tags[1])]);

    let cached = done(bench.images().build(context(), options.clone()).await).await;
    assert_eq!(cached, [info.id.to_string()], "every step from the cache");
    let again = done(bench.images().build(context(), options.with_no_cache()).await).await;
    assert_ne!(again, cached, "no step from the cache");
}

#[tokio::test]
async fn a_build_that_fails_says_why_and_leaves_nothing() {
    let Some(bench) = Bench::new("build-fails").await else { return };
    let word = format!("word-of-{}", bench.prefix);
    let from = format!("FROM {}\n", Bench::image());
    for (steps, kind, code) in [
        (format!("RUN echo {word} unauthorized; exit 3\n"), ErrorKind::Unexpected, Some("3")),
        ("RUN --mount=type=cache,target=/x true\n".to_owned(), ErrorKind::Unsupported, None),
        ("COPY missing /\n".to_owned(), ErrorKind::InvalidInput, None),
        ("NO SUCH STEP\n".to_owned(), ErrorKind::InvalidInput, None),
    ] {
        let context = BuildContext::Tar(tar_of(&[("Dockerfile", &format!("{from}{steps}"))]));
        let (items, error) = drained(bench.images().build(context, options(&bench)).await).await;
        let error = error.unwrap_or_else(|| panic!("{steps}: {}", printed(&items)));
        assert_eq!((error.kind(), error.fact("exit_code")), (kind, code), "{error}");
    }
    assert_eq!(with_word(&bench, &word), 0, "containers of steps are removed");
    let missing = BuildContext::Tar(tar_of(&[("Dockerfile", "FROM scratch\n")]));
    let mut named = options(&bench).with_target(Some("no-such-stage".to_owned()));
    named.dockerfile = Some("Dockerfile".into());
    let error = drained(bench.images().build(missing, named).await).await.1.unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[tokio::test]
async fn a_build_that_is_dropped_is_cancelled() {
    let Some(bench) = Bench::new("build-dropped").await else { return };
    let word = format!("word-of-{}", bench.prefix);
    let dockerfile = format!("FROM {}\nRUN echo {word}; sleep 1000\n", Bench::image());
    let context = BuildContext::Tar(tar_of(&[("Dockerfile", &dockerfile)]));
    let mut stream = bench.images().build(context, options(&bench)).await.unwrap();
    let mut output = String::new();
    while !output.contains(&format!("{word}\n")) || !output.contains("Running in") {
        let item = stream.next().await.unwrap().unwrap();
        output.push_str(&printed(&[item]));
    }
    assert_eq!(with_word(&bench, &word), 1);
    drop(stream);
    for _ in 0..3_000 {
        if with_word(&bench, &word) == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the step still runs");
}
