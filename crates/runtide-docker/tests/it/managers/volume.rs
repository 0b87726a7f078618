//! Volumes, on a real daemon.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use runtide_core::{
    Detail, ErrorKind, ListOptions, RuntimeBackend,
    manager::{ByteReader, Effect, LogOptions, Mount, MountSource, VolumeId, VolumeSpec},
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bench::Bench;

const BLOCK: usize = 512;

fn spec(bench: &Bench, name: &str) -> VolumeSpec {
    VolumeSpec::named(format!("{}-{name}", bench.prefix)).with_label("runtide.test", &bench.prefix)
}

fn header(path: &str, mode: u32, owner: (u32, u32), kind: u8, link: &str, size: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..path.len()].copy_from_slice(path.as_bytes());
    for (at, value) in [(100, mode), (108, owner.0), (116, owner.1)] {
        block[at..at + 8].copy_from_slice(format!("{value:07o}\0").as_bytes());
    }
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(format!("{:011o}\0", 1_700_000_000).as_bytes());
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn file(path: &str, mode: u32, owner: (u32, u32), content: &[u8]) -> Vec<u8> {
    let mut entry = header(path, mode, owner, b'0', "", content.len() as u64);
    entry.extend_from_slice(content);
    entry.resize(entry.len().next_multiple_of(BLOCK), 0);
    entry
}

fn reader(bytes: Vec<u8>) -> ByteReader {
    Box::pin(std::io::Cursor::new(bytes))
}

/// Names, with type, mode, owner, link and content's digest.
async fn entries(mut archive: ByteReader) -> BTreeMap<String, (u8, u32, u32, u32, String, String)> {
    let mut entries = BTreeMap::new();
    let mut block = [0; BLOCK];
    loop {
        archive.read_exact(&mut block).await.unwrap();
        if block.iter().all(|byte| *byte == 0) {
            let mut rest = Vec::new();
            archive.read_to_end(&mut rest).await.unwrap();
            return entries;
        }
        let text = |from: usize, to: usize| {
            let bytes: Vec<u8> = block[from..to].iter().copied().take_while(|byte| *byte != 0).collect();
            String::from_utf8(bytes).unwrap()
        };
        let number = |from, to| u64::from_str_radix(text(from, to).trim(), 8).unwrap();
        let small = |from, to| u32::try_from(number(from, to)).unwrap();
        let size = number(124, 136);
        let mut digest = blake3::Hasher::new();
        let mut content = (&mut archive).take(size.next_multiple_of(BLOCK as u64));
        let (mut buffer, mut left) = (vec![0; 1 << 16], usize::try_from(size).unwrap());
        loop {
            let read = content.read(&mut buffer).await.unwrap();
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read.min(left)]);
            left -= read.min(left);
        }
        let digest = digest.finalize().to_hex().to_string();
        let entry = (block[156], small(100, 108), small(108, 116), small(116, 124), text(157, 257), digest);
        entries.insert(text(0, 100), entry);
    }
}

/// Helpers, of any test.
fn transfers(bench: &Bench) -> Vec<Value> {
    let filters = "%7B%22label%22%3A%5B%22runtide.operation%22%5D%7D";
    let found = bench.json("GET", &format!("/containers/json?all=1&filters={filters}"), "");
    let is_transfer = |found: &&Value| {
        found["Labels"]["runtide.operation"].as_str().is_some_and(|label| label.starts_with("volume-transfer-"))
    };
    found.as_array().unwrap().iter().filter(is_transfer).cloned().collect()
}

/// Until nothing of this volume's transfers is left.
async fn nothing_is_left(bench: &Bench, volume: &VolumeId) {
    let begin = Instant::now();
    loop {
        let left = transfers(bench);
        let of_this = |found: &Value| {
            found["Mounts"].as_array().is_some_and(|mounts| mounts.iter().any(|mount| mount["Name"] == volume.as_str()))
        };
        if !left.iter().any(of_this) {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(120), "{left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_volume_is_made_shown_and_removed() {
    let Some(bench) = Bench::new("vol").await else { return };
    let volumes = bench.volumes();
    let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")];
    let wanted = spec(&bench, "a").with_driver("local").with_options(options).with_label("odd", "it's \"so\"\n\0");
    let id = volumes.create(&wanted).await.unwrap();
    assert_eq!(Some(id.as_str()), wanted.name.as_deref());
    let seen = bench.json("GET", &format!("/volumes/{id}"), "");
    assert_eq!((&seen["Labels"]["odd"], &seen["Options"]["o"]), (&"it's \"so\"\n\0".into(), &"size=1m".into()));
    let listed = volumes.list().await.unwrap();
    for info in [volumes.inspect(&id).await.unwrap(), listed.into_iter().find(|info| info.id == id).unwrap()] {
        assert_eq!(
            (info.driver.as_deref(), &info.labels, &info.options),
            (Some("local"), &wanted.labels, &wanted.options)
        );
        assert!(info.created_at.is_some() && info.path.is_some(), "{info:?}");
    }
    // The daemon answers 201, with the volume that is there.
    assert_eq!(volumes.create(&wanted).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    for other in
        [spec(&bench, "a"), wanted.clone().with_options([("o", "size=2m")]), wanted.clone().with_label("more", "")]
    {
        assert_eq!(volumes.create(&other).await.unwrap_err().kind(), ErrorKind::Conflict);
    }
    let same = bench.json("GET", &format!("/volumes/{id}"), "");
    assert_eq!(same, seen, "nothing was changed in passing");

    let user = bench.spec("user", "exit 0");
    let user = user.with_mounts([Mount::new(MountSource::Volume(id.clone()), "/data")]);
    let user = bench.provision().create(&user).await.unwrap();
    assert_eq!(volumes.remove(&id).await.unwrap_err().kind(), ErrorKind::Conflict, "a stopped container uses it");
    bench.lifecycle().remove(&user, runtide_core::manager::RemoveOptions::default()).await.unwrap();
    assert_eq!(volumes.remove(&id).await.unwrap(), Effect::Changed);
    assert_eq!(volumes.remove(&id).await.unwrap(), Effect::Unchanged);
    assert_eq!(volumes.inspect(&id).await.unwrap_err().kind(), ErrorKind::NotFound);

    let picked = volumes.create(&VolumeSpec::default().with_label("runtide.test", &bench.prefix)).await.unwrap();
    let other = volumes.create(&VolumeSpec::default().with_label("runtide.test", &bench.prefix)).await.unwrap();
    assert_ne!(picked, other);
    let no_driver = volumes.create(&spec(&bench, "b").with_driver("runtide-no-such-driver")).await.unwrap_err();
    assert_eq!(no_driver.kind(), ErrorKind::NotFound, "{no_driver}");
}

#[tokio::test]
async fn owners_modes_and_links_are_kept_both_ways() {
    let Some(bench) = Bench::new("vol-own").await else { return };
    let (from, to) = (
        bench.volumes().create(&spec(&bench, "from")).await.unwrap(),
        bench.volumes().create(&spec(&bench, "to")).await.unwrap(),
    );
    let script = "cd /v && echo content > a && chown 1234:567 a && chmod 640 a && ln -s a link && ln a hard && cp a set && chown 9:9 set && chmod 4755 set \
                  && mkfifo pipe && mkdir -p d/e && chmod 2711 d && chown 3:4 d/e && printf x > \"d/e/odd ' name\" \
                  && chown 77:88 . && chmod 1770 . && touch -d '2001-02-03 04:05:06' a d/e d .";
    // A set-id bit of a file with several names is lost: the daemon changes the owner again with each link.
    let in_volume = |name: &str, volume: &VolumeId, script: &str| {
        bench.spec(name, script).with_mounts([Mount::new(MountSource::Volume(volume.clone()), "/v")])
    };
    let writer = bench.run_spec(&in_volume("writer", &from, script)).await;
    assert_eq!(
        bench.lifecycle().wait(&writer).await.unwrap(),
        Some(runtide_core::ExitStatus::code(0).with_oom_killed(Some(false)))
    );
    let mut exported = bench.volumes().export(&from).await.unwrap();
    let mut archive = Vec::new();
    exported.read_to_end(&mut archive).await.unwrap();
    nothing_is_left(&bench, &from).await;
    let found = entries(reader(archive.clone())).await;
    let entry = |name: &str| found.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", found.keys()));
    assert_eq!((entry("./").1 & 0o7777, entry("./").2, entry("./").3), (0o1770, 77, 88), "the volume's own folder");
    assert_eq!((entry("./a").1 & 0o7777, entry("./a").2, entry("./a").3), (0o640, 1234, 567));
    assert_eq!((entry("./set").1 & 0o7777, entry("./set").2), (0o4755, 9));
    assert_eq!((entry("./hard").0, entry("./link").0, entry("./pipe").0), (b'1', b'2', b'6'));
    assert_eq!((entry("./link").4.as_str(), entry("./d/e/").2), ("a", 3));

    bench.volumes().import(&to, reader(archive)).await.unwrap();
    nothing_is_left(&bench, &to).await;
    // As a program in a container sees both: names, modes, owners by number, links, sizes, times.
    let list =
        "cd /v && ls -laRn . | grep -v ' \\.\\.$' | grep -v total && readlink link && cat a hard 'd/e/odd '\\'' name'";
    let mut seen = Vec::new();
    for (name, volume) in [("of-from", &from), ("of-to", &to)] {
        let lister = bench.run_spec(&in_volume(name, volume, list)).await;
        bench.lifecycle().wait(&lister).await.unwrap();
        let mut lines = bench.logs().logs(&lister, LogOptions::default()).await.unwrap();
        let mut output = Vec::new();
        while let Some(line) = lines.next().await {
            output.extend_from_slice(&line.unwrap().bytes);
        }
        seen.push(String::from_utf8(output).unwrap());
    }
    assert!(seen[0].contains("1234") && seen[0].contains("content"), "{}", seen[0]);
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn an_import_adds_and_replaces() {
    let Some(bench) = Bench::new("vol-add").await else { return };
    let id = bench.volumes().create(&spec(&bench, "v")).await.unwrap();
    let end = || vec![0; 2 * BLOCK];
    let first = [file("a", 0o644, (0, 0), b"one"), file("b", 0o600, (5, 6), b"two"), end()].concat();
    bench.volumes().import(&id, reader(first)).await.unwrap();
    bench.volumes().import(&id, reader([file("b", 0o640, (7, 8), b"more"), end()].concat())).await.unwrap();
    let found = entries(bench.volumes().export(&id).await.unwrap()).await;
    assert_eq!(found["./a"].5, blake3::hash(b"one").to_hex().to_string());
    assert_eq!((found["./b"].2, found["./b"].3), (7, 8));
    assert_eq!(found["./b"].5, blake3::hash(b"more").to_hex().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_arrive_with_their_digest_each_way() {
    const SIZE: u64 = 100_000_000;
    let Some(bench) = Bench::new("vol-large").await else { return };
    let id = bench.volumes().create(&spec(&bench, "v")).await.unwrap();
    let (archive, generated) = generate(SIZE);
    let before = peak_memory();
    let begin = Instant::now();
    bench.volumes().import(&id, archive).await.unwrap();
    let (imported, digest) = (begin.elapsed(), generated.await.unwrap());
    let begin = Instant::now();
    let found = entries(bench.volumes().export(&id).await.unwrap()).await;
    let exported = begin.elapsed();
    assert_eq!((found["./big"].2, found["./big"].3, found["./big"].5.as_str()), (12, 34, digest.as_str()));
    nothing_is_left(&bench, &id).await;
    // Other tests may run in this process: the number is theirs as well.
    println!(
        "100 MB: in {imported:?}, out {exported:?}, {} KiB more at the peak",
        peak_memory().saturating_sub(before)
    );
}

/// An archive of one file `big` with so many bytes, and their digest once they are read.
fn generate(size: u64) -> (ByteReader, tokio::task::JoinHandle<String>) {
    let (mut writer, archive) = tokio::io::duplex(1 << 16);
    let generated = tokio::spawn(async move {
        let mut digest = blake3::Hasher::new();
        writer.write_all(&header("big", 0o644, (12, 34), b'0', "", size)).await.unwrap();
        // Each piece is the digest of the one before it: nothing in it repeats, or can be compressed.
        let (mut left, mut piece) = (usize::try_from(size).unwrap(), blake3::hash(b"seed"));
        while left > 0 {
            let mut block = Vec::with_capacity(1 << 15);
            while block.len() < 1 << 15 {
                piece = blake3::hash(piece.as_bytes());
                block.extend_from_slice(piece.as_bytes());
            }
            block.truncate(left);
            left -= block.len();
            digest.update(&block);
            writer.write_all(&block).await.unwrap();
        }
        let padding = usize::try_from(size.next_multiple_of(BLOCK as u64) - size).unwrap();
        writer.write_all(&vec![0; padding + 2 * BLOCK]).await.unwrap();
        digest.finalize().to_hex().to_string()
    });
    (Box::pin(archive), generated)
}

/// The most memory that the process had at a time since this was asked last, in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default();
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    peak
}

/// A volume with a file of this many bytes, and their digest.
async fn filled(bench: &Bench, bytes: u64) -> (VolumeId, String) {
    let id = bench.volumes().create(&spec(bench, "v")).await.unwrap();
    let (archive, generated) = generate(bytes);
    bench.volumes().import(&id, archive).await.unwrap();
    (id, generated.await.unwrap())
}

#[tokio::test]
async fn an_export_that_nobody_reads_holds_no_other_call() {
    let Some(bench) = Bench::new("vol-slow").await else { return };
    let (id, digest) = filled(&bench, 48 << 20).await;
    // Trap D33: the daemon holds the helper's lock until the archive is read.
    let export = bench.volumes().export(&id).await.unwrap();
    let full = ListOptions::default().with_detail(Detail::Full);
    let listing = tokio::time::timeout(Duration::from_secs(60), bench.backend.list_instances(full)).await;
    assert!(listing.expect("a list of all does not wait for the reader").unwrap().is_complete());
    // Read or not, the helper is gone once the daemon has given everything.
    nothing_is_left(&bench, &id).await;
    let found = entries(export).await;
    assert_eq!(found["./big"].5, digest);
}

#[tokio::test]
async fn a_transfer_that_is_dropped_leaves_nothing() {
    let Some(bench) = Bench::new("vol-drop").await else { return };
    let (id, _) = filled(&bench, 16 << 20).await;
    let mut export = bench.volumes().export(&id).await.unwrap();
    export.read_exact(&mut [0; 1000]).await.unwrap();
    drop(export);
    nothing_is_left(&bench, &id).await;
    for milliseconds in [1, 20, 40, 80, 160, 320] {
        let limit = Duration::from_millis(milliseconds);
        let _ = tokio::time::timeout(limit, bench.volumes().export(&id)).await;
        let archive = reader([file("more", 0o644, (0, 0), &vec![8; 1 << 20]), vec![0; 2 * BLOCK]].concat());
        let _ = tokio::time::timeout(limit, bench.volumes().import(&id, archive)).await;
    }
    nothing_is_left(&bench, &id).await;
    assert_eq!(bench.volumes().remove(&id).await.unwrap(), Effect::Changed, "no helper uses it any more");
}

#[tokio::test]
async fn hostile_archives_and_names_are_refused() {
    let Some(bench) = Bench::new("vol-hostile").await else { return };
    let volumes = bench.volumes();
    let id = volumes.create(&spec(&bench, "v")).await.unwrap();
    let whole = [file("a", 0o644, (0, 0), &[7; 600]), vec![0; 2 * BLOCK]].concat();
    // The daemon itself takes an archive that breaks off for a whole one.
    for (archive, what) in [
        (vec![], "nothing"),
        (whole[..700].to_vec(), "broken off in a content"),
        (whole[..3 * BLOCK - 512].to_vec(), "broken off behind a content"),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), "compressed"),
        (vec![b'x'; 4096], "no archive"),
        ([whole.clone(), b"more".to_vec()].concat(), "something behind its end"),
        ([file("../../escape", 0o644, (0, 0), b"x"), vec![0; 2 * BLOCK]].concat(), "a name above the volume"),
        ([header("l", 0o777, (0, 0), b'1', "../../../etc/passwd", 0), vec![0; 2 * BLOCK]].concat(), "a link above it"),
    ] {
        let error = volumes.import(&id, reader(archive)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {error}");
    }
    assert!(!entries(volumes.export(&id).await.unwrap()).await.contains_key("./a"), "nothing of them is there");
    let absent = VolumeId::from("runtide-no-such-volume");
    assert_eq!(volumes.export(&absent).await.err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(volumes.import(&absent, reader(whole.clone())).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(bench.raw("GET", "/volumes/runtide-no-such-volume", "").0, 404, "nothing was made in passing");

    let mut words: Vec<String> =
        ["", ".", "..", "../v", "a/b", "a?force=1", "a#b", "a b", "a\n", "a\0", "%2e", "é", "-f"]
            .map(str::to_owned)
            .into();
    words.push("x".repeat(64 << 10));
    words.extend([format!("{id}/../{id}"), format!("./{id}"), format!("{id}?x"), format!("{id}\n")]);
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
    volumes.inspect(&id).await.unwrap();
}
