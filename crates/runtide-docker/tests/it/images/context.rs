//! The context that a build sends of a directory, against that of the `docker` command.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    path::Path,
    process::Command,
    time::{Duration, UNIX_EPOCH},
};

use runtide_core::{
    ErrorKind, RuntimeBackend,
    manager::{BuildContext, BuildOptions},
};

use super::{
    capture::{Capture, Seen},
    done, drained,
};
use crate::docker_command::{docker, docker_on_path, output};

fn daemon() -> Capture {
    Capture::start(|seen| match seen.request.as_str() {
        request if request.starts_with("POST /build") => (200, "{\"aux\":{\"ID\":\"sha256:1\"}}\n".to_owned()),
        _ => (200, r#"{"Id":"sha256:1"}"#.to_owned()),
    })
}

/// One entry, without its name.
#[derive(Debug, PartialEq, Eq)]
struct Sent {
    kind: u8,
    mode: u32,
    owner: (u64, u64),
    modified: u64,
    link: Vec<u8>,
    contents: Vec<u8>,
}

/// The entries of a context by their names.
fn entries(seen: &Seen) -> BTreeMap<String, Sent> {
    let mut archive = tar::Archive::new(&seen.body[..]);
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).unwrap();
        let header = entry.header().clone();
        let sent = Sent {
            kind: header.entry_type().as_byte(),
            mode: header.mode().unwrap() & 0o7777,
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            modified: header.mtime().unwrap(),
            link: entry.link_name_bytes().unwrap_or_default().into_owned(),
            contents,
        };
        assert!(found.insert(name.clone(), sent).is_none(), "{name} is there twice");
    }
    found
}

async fn ours(daemon: &Capture, root: &Path, options: BuildOptions) -> Seen {
    let backend = daemon.backend();
    done(backend.images().unwrap().build(BuildContext::Directory(root.to_owned()), options).await).await;
    daemon.take().remove(0)
}

/// The newest of the commands that are installed, and its major version.
fn newest(test: &str) -> Option<(Command, u32)> {
    let packaged = docker(test)?;
    let on_path = docker_on_path();
    let version = |mut command: Command| {
        let printed = output(command.arg("--version")).stdout;
        let printed = String::from_utf8_lossy(&printed).into_owned();
        printed.split("version ").nth(1)?.split('.').next()?.parse::<u32>().ok()
    };
    let packaged_version = version(docker(test)?).unwrap_or_default();
    let other = on_path.and_then(|command| Some((command, version(docker_on_path()?)?)));
    Some(other.filter(|(_, version)| *version > packaged_version).unwrap_or((packaged, packaged_version)))
}

/// First version with today's matcher: before, `**.txt` did not match `a.txt`, and of the folders above a file not all counted.
const TODAYS_MATCHER: u32 = 23;

/// The command's request; `None`: it refuses.
async fn theirs(daemon: &Capture, root: &Path, arguments: &[&str]) -> Option<Seen> {
    let (mut command, _) = newest("context").unwrap();
    command.env("DOCKER_BUILDKIT", "0").env("DOCKER_HOST", format!("unix://{}", daemon.socket().display()));
    command.env("DOCKER_CONFIG", root.parent().unwrap().join("no-such-folder")).arg("build").args(arguments).arg(root);
    let ran = tokio::task::spawn_blocking(move || output(&mut command)).await.unwrap();
    let build = daemon.take().into_iter().find(|seen| seen.request.starts_with("POST /build"));
    assert_eq!(ran.status.success(), build.is_some(), "{ran:?}");
    build
}

fn write(path: &Path, contents: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
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

const NAMES: [&str; 12] =
    ["a", "b", "ab", "a.txt", "b.txt", ".hidden", "a b", "[x]", "dir", "é", "foo-bar", "Dockerfile"];

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
            _ => write(&path, random.pick(&["", "one", "two\n"]).as_bytes()),
        }
    }
}

fn pattern(random: &mut Random) -> String {
    let mut parts = Vec::new();
    for _ in 0..=random.below(3) {
        parts.push(random.pick(&[
            "a", "b", "ab", "dir", "*", "**", "?", "a*", "*.txt", "**.txt", "[ab]", "[^a]*", "[a-c]?", "\\[x\\]",
            "a b", ".*", "é", "Docker*", "..", ".", "foo-bar", "**b", "dir**",
        ]));
    }
    let keeps = random.pick(&["", "", "", "!", "! "]);
    let begin = random.pick(&["", "", "", "/", "./", "  "]);
    let end = random.pick(&["", "", "", "/", "/**", "/*", " ", "\r"]);
    format!("{keeps}{begin}{}{end}", parts.join("/"))
}

/// A folder whose file times are the same for both, and the file to build from.
fn settle(root: &Path) {
    fs::remove_dir_all(root.join("Dockerfile")).ok();
    fs::remove_file(root.join("Dockerfile")).ok();
    write(&root.join("Dockerfile"), b"FROM scratch\n");
}

#[tokio::test]
async fn generated_directories_are_sent_as_the_docker_command_sends_them() {
    let Some((_, version)) = newest("context") else { return };
    let daemon = daemon();
    let (mut compared, mut refused) = (0, 0);
    for seed in 1..=60_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("context");
        fs::create_dir(&root).unwrap();
        tree(&mut random, &root, 0);
        settle(&root);
        let mut patterns: Vec<String> = (0..random.below(5)).map(|_| pattern(&mut random)).collect();
        if version < TODAYS_MATCHER {
            patterns.retain(|pattern| !pattern.contains("**") && !pattern.contains('!'));
        }
        if !patterns.is_empty() {
            write(&root.join(".dockerignore"), patterns.join("\n").as_bytes());
        }
        let Some(theirs) = theirs(&daemon, &root, &[]).await else {
            refused += 1;
            let backend = daemon.backend();
            let stream = backend.images().unwrap().build(BuildContext::Directory(root), BuildOptions::default()).await;
            assert_eq!(drained(stream).await.1.unwrap().kind(), ErrorKind::InvalidInput, "{seed}: {patterns:?}");
            continue;
        };
        let ours = ours(&daemon, &root, BuildOptions::default()).await;
        let (ours, theirs) = (entries(&ours), entries(&theirs));
        let names = |of: &BTreeMap<String, Sent>| of.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs), "seed {seed}: {patterns:?}");
        assert_eq!(ours, theirs, "seed {seed}: {patterns:?}");
        compared += 1;
    }
    eprintln!("{compared} directories compared, {refused} refused by both");
    assert!(compared > 40);
}

#[tokio::test]
async fn every_kind_of_file_is_sent_as_the_docker_command_sends_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("context");
    let deep = "d".repeat(60);
    write(&root.join("Dockerfile"), b"FROM scratch\n");
    write(&root.join(format!("{deep}/{deep}/long name é")), &[7; 1000]);
    symlink("x".repeat(150), root.join("long link")).unwrap();
    symlink("./a/../b//c", root.join("odd link")).unwrap();
    write(&root.join("modes"), b"x");
    fs::set_permissions(root.join("modes"), fs::Permissions::from_mode(0o4751)).unwrap();
    write(&root.join("linked"), b"shared");
    fs::hard_link(root.join("linked"), root.join("z linked")).unwrap();
    fs::hard_link(root.join("linked"), root.join("a linked")).unwrap();
    write(&root.join(std::ffi::OsString::from("not \u{1} text")), b"");
    let pipe = std::process::Command::new("mkfifo").arg(root.join("pipe")).status().unwrap();
    assert!(pipe.success());
    let socket = UnixListener::bind(root.join("socket")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    let old = UNIX_EPOCH + Duration::from_millis(1_000_000_999);
    fs::File::open(root.join("modes")).unwrap().set_modified(old).unwrap();
    fs::File::open(root.join("empty")).unwrap().set_modified(old).unwrap();
    let daemon = daemon();
    let mine = entries(&ours(&daemon, &root, BuildOptions::default()).await);
    assert!(!mine.contains_key("socket") && mine.contains_key("pipe"));
    assert_eq!((mine["modes"].mode, mine["modes"].modified, mine["modes"].owner), (0o4751, 1_000_000, (0, 0)));
    assert_eq!(mine["linked"].link, b"a linked");
    if docker("context").is_some() {
        assert_eq!(mine, entries(&theirs(&daemon, &root, &[]).await.unwrap()));
    }
    drop(socket);
}

#[tokio::test]
async fn the_dockerfile_is_found_where_the_docker_command_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("context");
    write(&root.join("dockerfile"), b"FROM small\n");
    write(&root.join("sub/Dockerfile.prod"), b"FROM prod\n");
    write(&folder.path().join("outside"), b"FROM outside\n");
    write(&root.join(".dockerignore"), b"**\n");
    symlink("sub/Dockerfile.prod", root.join("link")).unwrap();
    let daemon = daemon();
    for (named, path) in [
        (None, "dockerfile"),
        (Some("sub/Dockerfile.prod"), "sub/Dockerfile.prod"),
        (Some("link"), "sub/Dockerfile.prod"),
    ] {
        let mut options = BuildOptions::default();
        options.dockerfile = named.map(Into::into);
        let seen = ours(&daemon, &root, options).await;
        assert_eq!(seen.query("dockerfile").as_deref(), Some(path), "{named:?}");
        let sent = entries(&seen);
        let files: Vec<&str> =
            sent.iter().filter(|(_, sent)| sent.kind == b'0').map(|(name, _)| name.as_str()).collect();
        assert_eq!(files, [".dockerignore", path]);
        if docker("dockerfile").is_some() {
            let file = root.join(named.unwrap_or(path));
            let theirs = theirs(&daemon, &root, &["-f", file.to_str().unwrap()]).await.unwrap();
            assert_eq!((sent, theirs.query("dockerfile")), (entries(&theirs), seen.query("dockerfile")), "{named:?}");
        }
    }
    // One from outside is sent along, and taken out of the context by the daemon.
    let mut options = BuildOptions::default();
    options.dockerfile = Some("../outside".into());
    let seen = ours(&daemon, &root, options).await;
    let name = seen.query("dockerfile").unwrap();
    let sent = entries(&seen);
    assert_eq!(sent[&name].contents, b"FROM outside\n");
    let ignore = String::from_utf8(sent[".dockerignore"].contents.clone()).unwrap();
    assert_eq!(ignore, format!("**\n\n{name}\n"));
}

#[tokio::test]
async fn a_directory_that_cannot_be_sent_is_refused_before_anything_is() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon();
    let backend = daemon.backend();
    let refused = async |root: &Path, dockerfile: Option<&str>| {
        let mut options = BuildOptions::default();
        options.dockerfile = dockerfile.map(Into::into);
        let stream = backend.images().unwrap().build(BuildContext::Directory(root.to_owned()), options).await;
        let error = stream.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        error.to_string()
    };
    refused(&folder.path().join("missing"), None).await;
    assert!(refused(folder.path(), None).await.contains("Dockerfile"));
    write(&folder.path().join("Dockerfile"), b"FROM scratch\n");
    refused(&folder.path().join("Dockerfile"), None).await;
    refused(folder.path(), Some("missing")).await;
    refused(folder.path(), Some(".")).await;
    for ignore in ["a[", "!", "a\\b*"] {
        write(&folder.path().join(".dockerignore"), ignore.as_bytes());
        assert!(refused(folder.path(), None).await.contains(".dockerignore"), "{ignore}");
    }
    assert!(daemon.take().is_empty());
}

#[tokio::test]
async fn options_arrive_as_the_docker_command_sends_them() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("context");
    write(&root.join("Dockerfile"), b"FROM scratch\n");
    let daemon = daemon();
    let options = BuildOptions::default()
        .with_args([("A".to_owned(), "x y=\"é\"".to_owned()), ("EMPTY".to_owned(), String::new())])
        .with_label("k.a", "v&w=x\n")
        .with_tags([runtide_core::ImageRef::from("one"), runtide_core::ImageRef::from("localhost:5000/two:2")])
        .with_target(Some("stage".to_owned()))
        .with_no_cache();
    let ours = ours(&daemon, &root, options).await;
    let tags: Vec<&str> = ours.request.split(['?', '&']).filter(|pair| pair.starts_with("t=")).collect();
    assert_eq!(tags, ["t=one%3Alatest", "t=localhost%3A5000%2Ftwo%3A2"]);
    if docker("options").is_none() {
        return;
    }
    let arguments = [
        "--build-arg",
        "A=x y=\"é\"",
        "--build-arg",
        "EMPTY=",
        "--label",
        "k.a=v&w=x\n",
        "--target",
        "stage",
        "--no-cache",
    ];
    let theirs = theirs(&daemon, &root, &arguments).await.unwrap();
    for json in ["buildargs", "labels"] {
        let read = |seen: &Seen| serde_json::from_str::<serde_json::Value>(&seen.query(json).unwrap()).unwrap();
        assert_eq!(read(&ours), read(&theirs), "{json}");
    }
    for text in ["target", "nocache", "dockerfile"] {
        assert_eq!(ours.query(text), theirs.query(text), "{text}");
    }
    assert_eq!(ours.headers["content-type"], theirs.headers["content-type"]);
}
