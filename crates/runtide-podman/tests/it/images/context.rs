//! The context that a build sends of a directory, against that of the `podman` command, and what a real service copies of either.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output, Stdio},
};

use runtide_conformance::report;
use runtide_core::{
    ErrorKind, ImageRef, RuntimeBackend,
    manager::{BuildContext, BuildOptions},
};

use super::{
    build::{options, write},
    capture::{Capture, Seen, ok},
    done, drained, images, printed,
};
use crate::bench::Bench;

const ID: &str = "7cc4b5aefd1d0cadf8d97d4350462ba51c694ebca145b08d7d41b41acc8db5aa";

fn service() -> Capture {
    Capture::start(|seen| match seen.target() {
        "POST /build" => ok(format!("{{\"stream\":\"{ID}\\n\"}}\n")),
        _ => ok(format!(r#"{{"Id":"{ID}"}}"#)),
    })
}

/// One entry, without its name.
#[derive(Debug, PartialEq, Eq)]
struct Sent {
    kind: u8,
    mode: u32,
    owner: (u64, u64),
    link: Vec<u8>,
    contents: Vec<u8>,
}

/// The entries of a context by their names. The command compresses its own.
fn entries(seen: &Seen) -> BTreeMap<String, Sent> {
    let mut body = seen.body.to_vec();
    if body.starts_with(&[0x1f, 0x8b]) {
        let mut gzip = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = gzip.stdin.take().unwrap();
        let writing = std::thread::spawn(move || stdin.write_all(&body));
        body = gzip.wait_with_output().unwrap().stdout;
        writing.join().unwrap().unwrap();
    }
    let mut archive = tar::Archive::new(&body[..]);
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned();
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        let header = entry.header().clone();
        let sent = Sent {
            kind: header.entry_type().as_byte(),
            mode: header.mode().unwrap() & 0o7777,
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            link: entry.link_name_bytes().unwrap_or_default().into_owned(),
            contents,
        };
        assert!(found.insert(name.clone(), sent).is_none(), "{name} is there twice");
    }
    found
}

async fn ours(service: &Capture, root: &Path, options: BuildOptions) -> Seen {
    let backend = service.backend();
    done(backend.images().unwrap().build(BuildContext::Directory(root.to_owned()), options).await).await;
    service.take().remove(0)
}

/// The command, at this service; `None`: there is none, with a line in the report.
async fn podman(socket: &str, arguments: &[&str], root: &Path) -> Option<Output> {
    let mut command = tokio::process::Command::new("podman");
    command.args(["--url", socket, "build"]).args(arguments).arg(root).env("HOME", "/nonexistent");
    match command.output().await {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            report::skip("images", "context", "there is no podman command");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

async fn theirs(service: &Capture, root: &Path, arguments: &[&str]) -> Option<Seen> {
    let socket = format!("unix://{}", service.socket().display());
    let output = podman(&socket, arguments, root).await?;
    let build = service.take().into_iter().find(|seen| seen.request.starts_with("POST /build"));
    Some(build.unwrap_or_else(|| panic!("{output:?}")))
}

/// A generator of its own, so that a failure can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const NAMES: [&str; 14] =
    ["a", "b", "ab", "a.txt", "b.txt", ".hidden", "a b", "[x]", "dir", "é", "foo-bar", "Dockerfile", "a+b", "{x}"];

fn tree(random: &mut Random, folder: &Path, depth: usize) {
    for _ in 0..=random.below(5) {
        let path = folder.join(random.pick(&NAMES));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match random.below(8) {
            0..=2 if depth < 3 => {
                fs::create_dir(&path).unwrap();
                tree(random, &path, depth + 1);
            }
            3 => symlink(random.pick(&["a", "../b", "/nowhere", "dir/"]), &path).unwrap(),
            _ => fs::write(&path, random.pick(&["", "one", "two\n"])).unwrap(),
        }
    }
}

fn pattern(random: &mut Random) -> String {
    let mut parts = Vec::new();
    for _ in 0..=random.below(3) {
        parts.push(random.pick(&[
            "a", "b", "ab", "dir", "*", "**", "?", "a*", "*.txt", "**.txt", "[ab]", "[^a]*", "[a-c]?", "\\[x\\]",
            "a b", ".*", "é", "Docker*", "..", ".", "foo-bar", "**b", "dir**", "a+b", "(a|b)", "a{1}", "{x}", "a|b",
        ]));
    }
    let keeps = random.pick(&["", "", "", "!", "! "]);
    let begin = random.pick(&["", "", "./", "  "]);
    let end = random.pick(&["", "", "", "/", "/**", "/*", " ", "\r"]);
    format!("{keeps}{begin}{}{end}", parts.join("/"))
}

fn generated(seed: u64, folder: &Path) -> Vec<String> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    tree(&mut random, folder, 0);
    let dockerfile = folder.join("Dockerfile");
    fs::remove_dir_all(&dockerfile).ok();
    fs::remove_file(&dockerfile).ok();
    fs::write(&dockerfile, "FROM scratch\n").unwrap();
    let patterns: Vec<String> = (0..random.below(5)).map(|_| pattern(&mut random)).collect();
    if !patterns.is_empty() {
        let name = random.pick(&[".containerignore", ".dockerignore"]);
        fs::write(folder.join(name), patterns.join("\n")).unwrap();
    }
    patterns
}

#[tokio::test]
async fn generated_directories_are_sent_as_the_podman_command_sends_them() {
    let service = service();
    for seed in 1..=60_u64 {
        let folder = tempfile::tempdir().unwrap();
        let patterns = generated(seed, folder.path());
        let Some(theirs) = theirs(&service, folder.path(), &[]).await else { return };
        let ours = ours(&service, folder.path(), BuildOptions::default()).await;
        let (ours, theirs) = (entries(&ours), entries(&theirs));
        let names = |of: &BTreeMap<String, Sent>| of.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs), "seed {seed}: {patterns:?}");
        assert_eq!(ours, theirs, "seed {seed}: {patterns:?}");
    }
}

/// The paths that a build copied, as its last step printed them.
fn copied(output: &str) -> Vec<String> {
    output.lines().filter(|line| line.starts_with("/ctx")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_service_copies_the_same_of_ours_as_of_the_commands() {
    let Some(bench) = Bench::new("context").await else { return };
    let socket = std::env::var("RUNTIDE_TEST_PODMAN").unwrap();
    let dockerfile = format!("FROM {}\nCOPY . /ctx\nRUN find /ctx | sort\n", Bench::image());
    let files = |ignore: &'static [(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &[
                ("a/x", "1"),
                ("a/y", "2"),
                ("b/x", "3"),
                ("sub/a", "4"),
                ("a+b", "5"),
                ("top", "6"),
                ("Dockerfile", &dockerfile),
            ],
        );
        write(folder.path(), ignore);
        folder
    };
    for ignore in [
        &[][..],
        &[(".dockerignore", "/a\nb/\n")],
        &[(".containerignore", "a\n!a/x\n"), (".dockerignore", "*\n")],
        &[(".containerignore", "**/a\n")],
        &[(".containerignore", "*\n!*/x\n")],
        &[(".containerignore", "a+b\nDockerfile\n.containerignore\n")],
    ] {
        let folder = files(ignore);
        let context = BuildContext::Directory(folder.path().to_owned());
        let (items, error) = drained(images(&bench).build(context, options(&bench).with_no_cache()).await).await;
        assert!(error.is_none(), "{error:?}");
        let label = format!("--label=runtide.test={}", bench.prefix);
        let Some(theirs) = podman(&socket, &["--no-cache", &label], folder.path()).await else { return };
        assert!(theirs.status.success(), "{theirs:?}");
        let theirs = copied(&String::from_utf8_lossy(&theirs.stdout));
        assert!(!theirs.is_empty());
        assert_eq!(copied(&printed(&items)), theirs, "{ignore:?}");
    }
    let mine = [("runtide.test", bench.prefix.as_str())].into_iter().collect::<runtide_core::Labels>();
    images(&bench).prune(runtide_core::manager::PruneOptions::default().with_labels(mine)).await.unwrap();
}

#[tokio::test]
async fn every_kind_of_file_is_sent_as_the_podman_command_sends_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let deep = "d".repeat(60);
    write(root, &[("Containerfile", "FROM scratch\n"), (&format!("{deep}/{deep}/long name é"), "x"), ("modes", "x")]);
    write(root, &[("linked", "shared")]);
    symlink("x".repeat(150), root.join("long link")).unwrap();
    symlink("./a/../b//c", root.join("odd link")).unwrap();
    fs::set_permissions(root.join("modes"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(root.join("linked"), root.join("z linked")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe")).status().unwrap().success());
    fs::create_dir(root.join("empty")).unwrap();
    let service = service();
    let mine = entries(&ours(&service, root, BuildOptions::default()).await);
    assert!(!mine.contains_key("pipe") && mine.contains_key("empty"));
    assert_eq!((mine["modes"].mode, mine["modes"].owner), (0o4751, (0, 0)));
    assert_eq!(mine["z linked"].link, b"linked");
    if let Some(theirs) = theirs(&service, root, &[]).await {
        assert_eq!(mine, entries(&theirs));
    }
}

#[tokio::test]
async fn the_file_to_build_from_is_found_where_the_podman_command_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("context");
    write(&root, &[("Dockerfile", "FROM docker\n"), ("sub/prod", "FROM prod\n"), (".containerignore", "**\n")]);
    write(folder.path(), &[("outside", "FROM outside\n")]);
    let service = service();
    let named = async |named: Option<&str>| {
        let mut options = BuildOptions::default();
        options.dockerfile = named.map(Into::into);
        ours(&service, &root, options).await
    };
    let path = |seen: &Seen| serde_json::from_str::<Vec<String>>(&seen.query("dockerfile").unwrap()).unwrap().remove(0);
    assert_eq!(path(&named(None).await), "Dockerfile");
    write(&root, &[("Containerfile", "FROM container\n")]);
    assert_eq!(path(&named(None).await), "Containerfile");
    let seen = named(Some("sub/prod")).await;
    assert_eq!(path(&seen), "sub/prod");
    let sent = entries(&seen);
    let files: Vec<&str> = sent.keys().map(String::as_str).collect();
    assert_eq!(
        files,
        [".containerignore", "Containerfile", "Dockerfile", "sub/prod"],
        "what the service needs is kept"
    );
    if let Some(theirs) = theirs(&service, &root, &["-f", root.join("sub/prod").to_str().unwrap()]).await {
        assert_eq!((path(&theirs), entries(&theirs)), ("sub/prod".to_owned(), sent));
    }
    // One from outside is sent along, and no copy has it.
    let seen = named(Some("../outside")).await;
    let sent = entries(&seen);
    assert_eq!(sent[&path(&seen)].contents, b"FROM outside\n");
    let ignore = String::from_utf8(sent[".containerignore"].contents.clone()).unwrap();
    assert_eq!(ignore, format!("**\n\n{}\n", path(&seen)));
    // Of two ignore files one is for this file alone: what both leave out is left out.
    write(&root, &[("sub/prod.containerignore", "a\n"), ("a", "1"), ("b", "2")]);
    assert!(!entries(&named(Some("sub/prod")).await).contains_key("a"));
    assert!(entries(&named(Some("sub/prod")).await).contains_key("b"));
}

#[tokio::test]
async fn a_directory_that_cannot_be_sent_is_refused_before_anything_is() {
    let folder = tempfile::tempdir().unwrap();
    let service = service();
    let backend = service.backend();
    let refused = async |root: &Path, dockerfile: Option<&str>| {
        let mut options = BuildOptions::default();
        options.dockerfile = dockerfile.map(Into::into);
        let stream = backend.images().unwrap().build(BuildContext::Directory(root.to_owned()), options).await;
        let error = stream.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        error.to_string()
    };
    let root = folder.path();
    refused(&root.join("missing"), None).await;
    assert!(refused(root, None).await.contains("Containerfile"));
    symlink("/etc/passwd", root.join("Containerfile")).unwrap();
    refused(root, None).await;
    fs::remove_file(root.join("Containerfile")).unwrap();
    write(root, &[("Dockerfile", "FROM scratch\n")]);
    refused(root, Some("missing")).await;
    refused(root, Some(".")).await;
    for ignore in ["a[", "!", "(", "a{1001}{1001}{1001}"] {
        write(root, &[(".containerignore", ignore)]);
        assert!(refused(root, None).await.contains(".containerignore"), "{ignore}");
    }
    fs::remove_file(root.join(".containerignore")).unwrap();
    symlink("/etc/passwd", root.join(".dockerignore")).unwrap();
    refused(root, None).await;
    assert!(service.take().is_empty());
}

#[tokio::test]
async fn options_arrive_as_the_podman_command_sends_them() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("Dockerfile", "FROM scratch\n")]);
    let service = service();
    let options = BuildOptions::default()
        .with_args([("A".to_owned(), "x y=\"é\"".to_owned()), ("EMPTY".to_owned(), String::new())])
        .with_label("k.a", "v&w=x\n")
        .with_tags([ImageRef::from("one"), ImageRef::from("localhost:5000/two:2")])
        .with_target(Some("stage".to_owned()))
        .with_no_cache();
    let ours = ours(&service, folder.path(), options).await;
    assert_eq!(ours.queries("t"), ["one", "localhost:5000/two:2"]);
    let read = |seen: &Seen, key| serde_json::from_str::<serde_json::Value>(&seen.query(key).unwrap()).unwrap();
    assert_eq!(read(&ours, "labels"), serde_json::json!({"k.a": "v&w=x\n"}));
    let arguments =
        ["--build-arg", "A=x y=\"é\"", "--build-arg", "EMPTY=", "--target", "stage", "--no-cache", "-t", "one"];
    let Some(theirs) = theirs(&service, folder.path(), &arguments).await else { return };
    for json in ["buildargs", "dockerfile", "nsoptions"] {
        assert_eq!(read(&ours, json), read(&theirs, json), "{json}");
    }
    for text in ["target", "nocache", "layers", "rm", "forcerm", "pullpolicy", "networkmode", "outputformat"] {
        assert_eq!(ours.query(text), theirs.query(text), "{text}");
    }
}
