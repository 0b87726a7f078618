//! Memory that a session takes while 100 MB go through it in each direction: in a separate program, since nothing else may be
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
#[allow(dead_code, reason = "the tests of the managers use all of it")]
mod bench;

use std::time::Instant;

use peak_alloc::PeakAlloc;
use runtide_core::{
    ExitStatus,
    manager::{ByteWriter, ExecOptions, LogSource},
};
use tokio::io::AsyncWriteExt;

use crate::bench::Bench;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes in each direction.
const BYTES: u64 = 100 << 20;
/// Bytes of memory that may come on top.
const BOUND: usize = 16 << 20;

/// Writes bytes that no buffer repeats, and returns their hash.
async fn write(mut stdin: ByteWriter) -> blake3::Hash {
    let mut source = blake3::Hasher::new().finalize_xof();
    let (mut hasher, mut chunk) = (blake3::Hasher::new(), vec![0; 64 << 10]);
    for _ in 0..BYTES / chunk.len() as u64 {
        source.fill(&mut chunk);
        hasher.update(&chunk);
        stdin.write_all(&chunk).await.unwrap();
    }
    stdin.shutdown().await.unwrap();
    hasher.finalize()
}

#[tokio::test]
async fn a_hundred_megabytes_each_way_arrive_whole_in_bounded_memory() {
    let Some(bench) = Bench::new("memory").await else { return };
    let id = bench.run("a", "sleep 600").await;
    for (script, side) in [("cat", LogSource::Stdout), ("cat >&2", LogSource::Stderr)] {
        let words = ["sh", "-c", script].map(str::to_owned).to_vec();
        let options = ExecOptions::default().with_argv(words).with_stdin();
        ALLOCATOR.reset_peak_usage();
        let (before, begun) = (ALLOCATOR.current_usage(), Instant::now());
        let mut session = bench.exec().exec(&id, options).await.unwrap();
        let stdin = session.stdin.take().unwrap();
        let (written, read) = tokio::join!(write(stdin), async {
            let mut hasher = blake3::Hasher::new();
            while let Some(line) = session.output.next().await {
                let line = line.unwrap();
                assert_eq!(line.source, side);
                hasher.update(&line.bytes);
            }
            (hasher.count(), hasher.finalize())
        });
        assert_eq!(read, (BYTES, written), "{script}");
        assert_eq!(session.control.wait().await.unwrap(), Some(ExitStatus::code(0)));
        let (took, grown) = (begun.elapsed(), ALLOCATOR.peak_usage() - before);
        eprintln!("{script}: 100 MiB each way in {took:.1?}, with {} KiB of memory", grown >> 10);
        assert!(grown < BOUND, "memory grew by {} KiB", grown >> 10);
    }
}
