//! Images: on services whose every answer is written here, and on a real one, with registries where the testbed names them.
//!
//! `RUNTIDE_TEST_REGISTRY` is the `host:port` of a registry without a password, `RUNTIDE_TEST_REGISTRY_AUTH` of one for the user `runtide`
//! with the password in `RUNTIDE_TEST_REGISTRY_PASSWORD`.

mod build;
mod capture;
mod context;
mod credentials;
mod memory;
mod prune;
mod registry;
mod scripted;
mod service;

use std::io::Cursor;

use runtide_core::{
    Error, Result, RuntimeBackend,
    manager::{ByteReader, ImageManager, ImageProgress, ImageStream},
};

use crate::bench::Bench;

fn images(bench: &Bench) -> &dyn ImageManager {
    bench.backend.images().unwrap()
}

fn reader(bytes: impl Into<Vec<u8>>) -> ByteReader {
    Box::pin(Cursor::new(bytes.into()))
}

/// A context of these files, as a tar stream.
fn tar_of(files: &[(&str, &str)]) -> ByteReader {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, contents.as_bytes()).unwrap();
    }
    reader(tar.into_inner().unwrap())
}

/// All items of a stream, up to its error.
async fn drained(stream: Result<ImageStream>) -> (Vec<ImageProgress>, Option<Error>) {
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut items = Vec::new();
    while let Some(item) = stream.next().await {
        match item {
            Ok(item) => items.push(item),
            Err(error) => {
                assert!(stream.next().await.is_none(), "nothing comes after an error");
                return (items, Some(error));
            }
        }
    }
    (items, None)
}

/// The images of a stream that succeeds.
async fn done(stream: Result<ImageStream>) -> Vec<String> {
    let (items, error) = drained(stream).await;
    assert!(error.is_none(), "{error:?} after {items:?}");
    let of = |item: &ImageProgress| match item {
        ImageProgress::Done(image) => Some(image.to_string()),
        _ => None,
    };
    assert!(matches!(items.last(), Some(ImageProgress::Done(_))), "{items:?}");
    items.iter().filter_map(of).collect()
}

/// The service's output.
fn printed(items: &[ImageProgress]) -> String {
    let of = |item: &ImageProgress| match item {
        ImageProgress::Output(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    };
    items.iter().filter_map(of).collect()
}
