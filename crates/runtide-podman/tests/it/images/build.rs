//! Builds on a real service.

use std::{fs, path::Path, time::Duration};

use runtide_core::{
    ErrorKind, ImageRef,
    manager::{BuildContext, BuildOptions, ImageProgress},
};

use super::{done, drained, images, printed, tar_of};
use crate::bench::Bench;

/// Options whose image goes with the test.
pub(super) fn options(bench: &Bench) -> BuildOptions {
    BuildOptions::default().with_label("runtide.test", &bench.prefix)
}

/// An image of these files, under these names.
pub(super) async fn built(bench: &Bench, files: &[(&str, &str)], tags: &[&str]) -> ImageRef {
    let tags: Vec<_> = tags.iter().copied().map(ImageRef::from).collect();
    // Podman's look into its cache fails while another test removes an image.
    let options = options(bench).with_tags(tags).with_no_cache();
    let mut done = done(images(bench).build(BuildContext::Tar(tar_of(files)), options).await).await;
    ImageRef::from(done.remove(0))
}

pub(super) fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, contents) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
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
            ("sub/Containerfile.prod", &dockerfile),
            ("kept/a", "a"),
            ("left/out", "b"),
            ("left/in", "c"),
            (".dockerignore", "kept\n"),
            (".containerignore", "left\nsub\n!left/in\n.containerignore\n.dockerignore\n"),
        ],
    );
    let word = format!("a 'quoted' \"word\" of {}", bench.prefix);
    let tags = [format!("localhost/{}-a:1", bench.prefix), format!("{}-b", bench.prefix)];
    let mut options = options(&bench)
        .with_args([("WORD".to_owned(), word.clone())])
        .with_label("with.quote", "it's \"so\"\n")
        .with_tags(tags.iter().map(|tag| ImageRef::from(tag.as_str())).collect::<Vec<_>>())
        .with_target(Some("first".to_owned()));
    options.dockerfile = Some("sub/Containerfile.prod".into());
    let context = || BuildContext::Directory(folder.path().to_owned());
    let (items, error) = drained(images(&bench).build(context(), options.clone()).await).await;
    assert!(error.is_none(), "{error:?}\n{}", printed(&items));
    let output = printed(&items);
    assert!(output.contains(&format!("word: {word}\n")), "{output}");
    let files = "/context\n/context/kept\n/context/kept/a\n/context/left\n/context/left/in\n";
    assert!(output.contains(files) && !output.contains("/context/sub"), "{output}");

    let info = images(&bench).inspect(&ImageRef::from(tags[0].as_str())).await.unwrap();
    assert_eq!(items.last(), Some(&ImageProgress::Done(info.id.clone())));
    assert_eq!(info.labels.get("with.quote"), Some("it's \"so\"\n"));
    let env = info.env.unwrap();
    assert!(env.contains(&format!("WORD={word}")) && !env.contains(&"LAST=1".to_owned()), "{env:?}");
    let mut names: Vec<&str> = info.tags.iter().map(ImageRef::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, [tags[0].clone(), format!("localhost/{}:latest", tags[1])]);

    let cached = done(images(&bench).build(context(), options.clone()).await).await;
    assert_eq!(cached, [info.id.to_string()], "every step from the cache");
    let again = done(images(&bench).build(context(), options.with_no_cache()).await).await;
    assert_ne!(again, cached, "no step from the cache");
}

#[tokio::test]
async fn a_build_that_fails_says_why() {
    let Some(bench) = Bench::new("build-fails").await else { return };
    let from = format!("FROM {}\n", Bench::image());
    for (steps, kind, code) in [
        ("RUN echo unauthorized; exit 3\n", ErrorKind::Unexpected, Some("3")),
        ("COPY missing /\n", ErrorKind::InvalidInput, None),
        ("NO SUCH STEP\n", ErrorKind::InvalidInput, None),
    ] {
        let context = BuildContext::Tar(tar_of(&[("Dockerfile", &format!("{from}{steps}"))]));
        let (items, error) = drained(images(&bench).build(context, options(&bench)).await).await;
        let error = error.unwrap_or_else(|| panic!("{steps}: {}", printed(&items)));
        assert_eq!((error.kind(), error.fact("exit_code")), (kind, code), "{error}");
    }
    let mut named = options(&bench).with_target(Some("no-such-stage".to_owned()));
    named.dockerfile = Some("./Dockerfile".into());
    let stages = BuildContext::Tar(tar_of(&[("Dockerfile", "FROM scratch AS one\nENV A=1\n")]));
    let error = drained(images(&bench).build(stages, named).await).await.1.unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let nothing = BuildContext::Tar(tar_of(&[("a", "b")]));
    let error = drained(images(&bench).build(nothing, options(&bench)).await).await.1.unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

/// Podman ends no step that is under way, and begins none behind it.
#[tokio::test]
async fn a_build_that_is_dropped_ends_with_its_step() {
    let Some(bench) = Bench::new("build-dropped").await else { return };
    let word = format!("word-of-{}", bench.prefix);
    let dockerfile = format!("FROM {}\nRUN echo begun; sleep 20; echo {word}\nRUN echo later\n", Bench::image());
    let context = BuildContext::Tar(tar_of(&[("Dockerfile", &dockerfile)]));
    let name = ImageRef::from(format!("localhost/{}:1", bench.prefix));
    let mut stream =
        images(&bench).build(context, options(&bench).with_tags([name.clone()]).with_no_cache()).await.unwrap();
    let begun = async {
        while let Some(item) = stream.next().await {
            if matches!(item.unwrap(), ImageProgress::Output(bytes) if bytes.starts_with(b"begun")) {
                return;
            }
        }
        panic!("the step ended");
    };
    tokio::time::timeout(Duration::from_secs(120), begun).await.expect("the step begins");
    drop(stream);
    // The process of the step has the word in its command line.
    let runs = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        lines.map(|line| String::from_utf8_lossy(&line).into_owned()).any(|line| line.contains(&word))
    };
    let ended = async {
        while runs() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), ended).await.expect("the step ends");
    // A build that went on would be done when another, begun behind it, is.
    let other = format!("FROM {}\nRUN echo one\nRUN echo two\n", Bench::image());
    let other = BuildContext::Tar(tar_of(&[("Dockerfile", &other)]));
    done(images(&bench).build(other, options(&bench).with_no_cache()).await).await;
    assert!(!images(&bench).exists(&name).await.unwrap());
    let mine = [("runtide.test", bench.prefix.as_str())].into_iter().collect::<runtide_core::Labels>();
    images(&bench).prune(runtide_core::manager::PruneOptions::default().with_labels(mine)).await.unwrap();
}
