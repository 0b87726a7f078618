//! Images: on daemons whose every answer is written here, and on a real one, with registries where the testbed names them.
//!
//! `RUNTIDE_TEST_REGISTRY` is the `host:port` of a registry without a password, `RUNTIDE_TEST_REGISTRY_AUTH` of one for the user `runtide`
//! with the password in `RUNTIDE_TEST_REGISTRY_PASSWORD`.

mod build;
mod capture;
mod context;
mod daemon;
mod memory;
mod pull;
mod registry;
mod scripted;

use runtide_core::{
    Error, Result,
    manager::{ImageProgress, ImageStream},
};

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
    let found: Vec<String> = items.iter().filter_map(of).collect();
    assert!(matches!(items.last(), Some(ImageProgress::Done(_))), "{items:?}");
    found
}

/// The daemon's output.
fn printed(items: &[ImageProgress]) -> String {
    let of = |item: &ImageProgress| match item {
        ImageProgress::Output(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    };
    items.iter().filter_map(of).collect()
}
