//! 100 MB through a build, a save and a load, in a process of its own, whose memory is its own too.

use std::time::Instant;

use futures_util::TryStreamExt;
use ring::digest::{Context, SHA256};
use runtide_core::{
    ImageRef,
    manager::{BuildContext, ByteReader, Effect, ImageProgress},
};
use tokio::io::AsyncReadExt;

use super::{
    build::{built, options},
    images,
};
use crate::bench::Bench;

const SIZE: usize = 100 << 20;
const CHUNK: usize = 64 << 10;
/// Most memory that one of them may take on top, in bytes.
const MOST: u64 = 16 << 20;
const CHILD: &str = "RUNTIDE_TEST_MEMORY";

#[tokio::test]
async fn a_hundred_megabytes_are_built_saved_and_loaded_in_bounded_memory() {
    if std::env::var_os(CHILD).is_some() {
        return measured().await;
    }
    // The child reports the skip.
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "images::memory::a_hundred_megabytes_are_built_saved_and_loaded_in_bounded_memory",
            "--nocapture",
        ])
        .env(CHILD, "1")
        .output()
        .await
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    eprint!(
        "{}",
        text.lines().filter(|line| line.starts_with("100 MB")).fold(String::new(), |all, line| all + line + "\n")
    );
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Memory while something goes on.
struct Meter {
    what: &'static str,
    before: u64,
    most: u64,
    begun: Instant,
}

impl Meter {
    fn new(what: &'static str) -> Self {
        let now = resident();
        Self { what, before: now, most: now, begun: Instant::now() }
    }

    fn sample(&mut self) {
        self.most = self.most.max(resident());
    }

    fn check(mut self) {
        self.sample();
        let grown = self.most - self.before;
        eprintln!("100 MB {}: {:?}, memory grew by {} KiB", self.what, self.begun.elapsed(), grown / 1024);
        assert!(grown < MOST, "{}: memory grew by {} KiB", self.what, grown / 1024);
    }
}

/// Bytes that no compression makes smaller, chunk by chunk.
fn noise(at: usize) -> bytes::Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::try_from(at).unwrap();
    let mut chunk = Vec::with_capacity(CHUNK);
    while chunk.len() < CHUNK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.extend(state.to_le_bytes());
    }
    chunk.into()
}

/// A context with a file of noise in it, made as it is read.
fn context() -> ByteReader {
    let entry = |name: &str, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let dockerfile = b"FROM scratch\nCOPY noise /\n";
    let mut first = entry("Dockerfile", dockerfile.len());
    first.extend(dockerfile);
    first.resize(1024, 0);
    first.extend(entry("noise", SIZE));
    let parts = std::iter::once(first.into()).chain((0..SIZE / CHUNK).map(noise)).chain([vec![0; 1024].into()]);
    let parts = futures_util::stream::iter(parts.map(std::io::Result::Ok));
    Box::pin(tokio_util::io::StreamReader::new(parts.map_ok(|bytes: bytes::Bytes| bytes)))
}

async fn measured() {
    let Some(bench) = Bench::new("image-100mb").await else { return };
    let images = images(&bench);
    let name = ImageRef::from(format!("localhost/{}:1", bench.prefix));
    // The first call has costs that later ones do not have.
    let small = built(&bench, &[("Dockerfile", "FROM scratch\nCOPY a /\n"), ("a", "a")], &[]).await;
    images.save(std::slice::from_ref(&small)).await.unwrap().read_to_end(&mut Vec::new()).await.unwrap();

    let mut meter = Meter::new("built");
    let mut stream =
        images.build(BuildContext::Tar(context()), options(&bench).with_tags([name.clone()])).await.unwrap();
    while let Some(item) = stream.next().await {
        item.unwrap();
        meter.sample();
    }
    meter.check();
    let id = images.inspect(&name).await.unwrap().id;

    let file = tempfile::NamedTempFile::new().unwrap();
    let mut meter = Meter::new("saved");
    let mut reader = images.save(std::slice::from_ref(&name)).await.unwrap();
    let (mut saved, mut size, mut buffer) = (Context::new(&SHA256), 0, vec![0; CHUNK]);
    let mut output = std::io::BufWriter::new(file.reopen().unwrap());
    loop {
        let count = reader.read(&mut buffer).await.unwrap();
        if count == 0 {
            break;
        }
        saved.update(&buffer[..count]);
        std::io::Write::write_all(&mut output, &buffer[..count]).unwrap();
        size += count;
        meter.sample();
    }
    std::io::Write::flush(&mut output).unwrap();
    meter.check();
    assert!(size > SIZE);
    // From outside, past this crate: the same bytes.
    let service = std::env::var("RUNTIDE_TEST_PODMAN").unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    let fetched = tokio::process::Command::new("podman")
        .args(["--url", &service, "save", "--quiet", "--format=docker-archive", "--output"])
        .arg(outside.path())
        .arg(name.as_str())
        .output()
        .await
        .unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let (mut expected, mut whole) = (Context::new(&SHA256), std::fs::File::open(outside.path()).unwrap());
    let mut length = 0;
    loop {
        let count = std::io::Read::read(&mut whole, &mut buffer).unwrap();
        if count == 0 {
            break;
        }
        expected.update(&buffer[..count]);
        length += count;
    }
    assert_eq!(length, size);
    assert_eq!(saved.finish().as_ref(), expected.finish().as_ref());

    assert_eq!(images.remove(&name).await.unwrap(), Effect::Changed);
    let mut meter = Meter::new("loaded");
    let archive = tokio::fs::File::from_std(file.reopen().unwrap());
    let mut stream = images.import(Box::pin(archive)).await.unwrap();
    let mut last = None;
    while let Some(item) = stream.next().await {
        last = Some(item.unwrap());
        meter.sample();
    }
    meter.check();
    assert_eq!(last, Some(ImageProgress::Done(name.clone())));
    assert_eq!(images.inspect(&name).await.unwrap().id, id, "what was saved is what was loaded");
}
