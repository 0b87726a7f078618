//! Memory that a volume's transfer takes while 100 MB go through it in each direction: in a separate program, since nothing else may be
//! counted.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, also in what tests share, and says what it counted"
)]

#[path = "it/bench.rs"]
#[allow(dead_code, reason = "the other tests use all of it")]
mod bench;

use std::time::Instant;

use peak_alloc::PeakAlloc;
use runtide_core::manager::{ByteReader, VolumeSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{Bench, LABEL};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const BLOCK: usize = 512;
/// Bytes in each direction.
const BYTES: u64 = 100 << 20;
/// Bytes of memory that may come on top.
const BOUND: usize = 16 << 20;

/// An archive of one file whose bytes no buffer repeats, and their hash once they are read.
fn generate() -> (ByteReader, tokio::task::JoinHandle<blake3::Hash>) {
    let (mut writer, archive) = tokio::io::duplex(1 << 16);
    let generated = tokio::spawn(async move {
        let mut header = tar::Header::new_ustar();
        header.set_path("big").unwrap();
        header.set_mode(0o644);
        header.set_uid(12);
        header.set_gid(34);
        header.set_size(BYTES);
        header.set_cksum();
        writer.write_all(header.as_bytes()).await.unwrap();
        let mut source = blake3::Hasher::new().finalize_xof();
        let (mut hasher, mut chunk) = (blake3::Hasher::new(), vec![0; 64 << 10]);
        for _ in 0..BYTES / chunk.len() as u64 {
            source.fill(&mut chunk);
            hasher.update(&chunk);
            writer.write_all(&chunk).await.unwrap();
        }
        writer.write_all(&[0; 2 * BLOCK]).await.unwrap();
        hasher.finalize()
    });
    (Box::pin(archive), generated)
}

/// Owner and hash of the file in an archive.
async fn read(mut archive: ByteReader) -> ((u64, u64), blake3::Hash) {
    let mut found = None;
    loop {
        let mut block = [0; BLOCK];
        archive.read_exact(&mut block).await.unwrap();
        if block.iter().all(|byte| *byte == 0) {
            let mut rest = Vec::new();
            archive.read_to_end(&mut rest).await.unwrap();
            return found.expect("the file is in the archive");
        }
        let header = tar::Header::from_byte_slice(&block);
        let size = header.entry_size().unwrap();
        let mut content = (&mut archive).take(size.next_multiple_of(BLOCK as u64));
        let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 64 << 10]);
        loop {
            let got = content.read(&mut buffer).await.unwrap();
            if got == 0 {
                break;
            }
            hasher.update(&buffer[..got]);
        }
        if header.path_bytes().as_ref() == b"./big" {
            found = Some(((header.uid().unwrap(), header.gid().unwrap()), hasher.finalize()));
        }
    }
}

#[tokio::test]
async fn a_hundred_megabytes_arrive_with_their_digest_each_way_in_bounded_memory() {
    let Some(bench) = Bench::new("transfers").await else { return };
    let spec = VolumeSpec::named(format!("{}-v", bench.prefix)).with_label(LABEL, &bench.prefix);
    let id = bench.volumes().create(&spec).await.unwrap();
    let before = ALLOCATOR.current_usage();
    let grown = |what: &str, begun: Instant| {
        let grown = ALLOCATOR.peak_usage().saturating_sub(before);
        eprintln!("{what}: 100 MiB in {:.1?}, with {} KiB of memory", begun.elapsed(), grown >> 10);
        assert!(grown < BOUND, "memory grew by {} KiB", grown >> 10);
    };
    ALLOCATOR.reset_peak_usage();
    let begun = Instant::now();
    let (archive, generated) = generate();
    bench.volumes().import(&id, archive).await.unwrap();
    let digest = generated.await.unwrap();
    grown("import", begun);
    ALLOCATOR.reset_peak_usage();
    let begun = Instant::now();
    assert_eq!(read(bench.volumes().export(&id).await.unwrap()).await, ((12, 34), digest));
    grown("export", begun);
    bench.clear().await;
}
