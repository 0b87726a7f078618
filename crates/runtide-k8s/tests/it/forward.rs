//! Connections to a port of a pod, over a WebSocket that a test serves.

use std::{io, num::NonZeroU16, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use runtide_core::{ErrorKind, RuntimeBackend};
use runtide_k8s::{Granularity, KubeBackend, PortForward};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    exec::{Peer, binary, config_of, serving},
    scripted::{ended, pod, running},
};

const PORT: NonZeroU16 = NonZeroU16::new(8080).unwrap();

fn bytes(channel: u8, bytes: &[u8]) -> Message {
    Message::Binary([&[channel], bytes].concat().into())
}

/// A server with one running pod, whose ports this function serves: as the node does, once both channels have the port.
async fn server<F: Future<Output = ()> + Send>(serve: impl Fn(Peer) -> F + Send + Copy + 'static) -> KubeBackend {
    let serve = move |mut peer: Peer, head: String| async move {
        assert!(head.starts_with("GET /api/v1/namespaces/default/pods/a/portforward?ports=8080 "), "{head}");
        for channel in [0, 1] {
            peer.send(bytes(channel, &8080_u16.to_le_bytes())).await.unwrap();
        }
        serve(peer).await;
    };
    serving("v1.20.2", || vec![pod("a", "5", "Running", 0, running())], serve).await
}

async fn forward(backend: &KubeBackend) -> PortForward {
    backend.forward(&"uid-a".into(), PORT).await.unwrap()
}

/// All that comes until the end, and the error at it.
async fn rest(stream: &mut PortForward) -> (Vec<u8>, Option<io::Error>) {
    let mut all = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut all)).await;
    (all, read.expect("the end").err())
}

/// The data that came, up to this many bytes or the close.
async fn received(peer: &mut Peer, most: usize) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    while all.len() < most {
        match peer.next().await {
            Some(Ok(Message::Binary(data))) => {
                assert_eq!(data[0], 0);
                all.extend_from_slice(&data[1..]);
            }
            Some(Ok(Message::Close(_))) => return (all, true),
            Some(Ok(_)) => {}
            other => panic!("{other:?} after {} bytes", all.len()),
        }
    }
    (all, false)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n * n % 251).unwrap()).collect()
}

#[tokio::test]
async fn bytes_pass_in_both_directions_at_once_and_the_end_is_the_nodes() {
    const LENGTH: usize = 3_000_000;
    let backend = server(|peer| async move {
        let (mut sink, mut stream) = peer.split();
        let sending = async {
            for piece in pattern(LENGTH).chunks(100_000) {
                sink.send(bytes(0, piece)).await.unwrap();
            }
            sink
        };
        let receiving = async {
            let mut all = Vec::new();
            while all.len() < LENGTH {
                if let Message::Binary(data) = stream.next().await.unwrap().unwrap() {
                    all.extend_from_slice(&data[1..]);
                }
            }
            assert!(all == pattern(LENGTH));
        };
        let (mut sink, ()) = tokio::join!(sending, receiving);
        sink.send(bytes(0, b"the end")).await.unwrap();
        sink.send(Message::Close(None)).await.unwrap();
    })
    .await;
    let mut stream = forward(&backend).await;
    // Nothing is read while it is written.
    stream.write_all(&pattern(LENGTH)).await.unwrap();
    stream.shutdown().await.unwrap();
    let (all, error) = rest(&mut stream).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(all.len(), LENGTH + 7, "a shutdown does not cut the other direction off");
    assert!(all[..LENGTH] == pattern(LENGTH) && all.ends_with(b"the end"));
}

#[tokio::test]
async fn the_nodes_words_are_the_error_of_the_stream() {
    let backend = server(|mut peer| async move {
        peer.send(binary(0, "first")).await.unwrap();
        for words in ["error forwarding port 8080: dial tcp4 127.0.0.1:8080: ", "connect: connection refused"] {
            peer.send(binary(1, words)).await.unwrap();
        }
        peer.close(None).await.unwrap();
    })
    .await;
    let mut stream = forward(&backend).await;
    let (all, error) = rest(&mut stream).await;
    let error = error.unwrap();
    assert_eq!((all.as_slice(), error.kind()), (&b"first"[..], io::ErrorKind::ConnectionRefused));
    let own = error.get_ref().unwrap().downcast_ref::<runtide_core::Error>().unwrap();
    assert_eq!(own.kind(), ErrorKind::Unexpected);
    assert!(own.message().ends_with("dial tcp4 127.0.0.1:8080: connect: connection refused"), "{own}");
    let later = stream.write_all(b"x").await.unwrap_err();
    assert!(later.to_string().contains("connection refused"), "{later}");
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_an_error_and_never_an_end() {
    let backend = server(|mut peer| async move {
        peer.send(binary(0, "half")).await.unwrap();
        drop(peer);
    })
    .await;
    let (all, error) = rest(&mut forward(&backend).await).await;
    assert_eq!((all.as_slice(), error.unwrap().kind()), (&b"half"[..], io::ErrorKind::ConnectionAborted));
}

#[tokio::test]
async fn what_was_written_before_the_drop_is_sent_and_then_the_connection_is_closed() {
    let (done, is_done) = std::sync::mpsc::channel();
    let done: &'static _ = Box::leak(Box::new(std::sync::Mutex::new(done)));
    let backend = server(move |mut peer| async move {
        let (all, is_closed) = received(&mut peer, usize::MAX).await;
        done.lock().unwrap().send((all == pattern(60_000), is_closed)).unwrap();
    })
    .await;
    let mut stream = forward(&backend).await;
    stream.write_all(&pattern(60_000)).await.unwrap();
    drop(stream);
    let outcome = tokio::task::spawn_blocking(move || is_done.recv_timeout(Duration::from_secs(60))).await.unwrap();
    assert_eq!(outcome.unwrap(), (true, true));
}

#[tokio::test]
async fn a_link_that_answers_nothing_is_dead_and_a_process_that_reads_nothing_is_not() {
    const IDLE: NonZeroU16 = NonZeroU16::new(81).unwrap();
    let resume: &'static tokio::sync::Notify = Box::leak(Box::default());
    let serve = move |mut peer: Peer, head: String| async move {
        let is_idle = head.contains("ports=81 ");
        let port = if is_idle { IDLE } else { PORT };
        for channel in [0, 1] {
            peer.send(bytes(channel, &port.get().to_le_bytes())).await.unwrap();
        }
        // Nothing is read, and no ping is answered.
        resume.notified().await;
        let (all, _) = received(&mut peer, 5).await;
        peer.send(bytes(0, &all)).await.unwrap();
        peer.close(None).await.unwrap();
    };
    let config = config_of("v1.20.2", || vec![pod("a", "5", "Running", 0, running())], serve).await;
    let backend = KubeBackend::new(config.with_max_silence(Duration::from_secs(2))).unwrap();
    let mut full = forward(&backend).await;
    full.write_all(b"bytes").await.unwrap();
    let mut idle = backend.forward(&"uid-a".into(), IDLE).await.unwrap();
    let (_, error) = rest(&mut idle).await;
    assert_eq!(error.unwrap().kind(), io::ErrorKind::TimedOut);
    // The first one has been silent for longer.
    resume.notify_waiters();
    let (all, error) = rest(&mut full).await;
    assert!(all == b"bytes" && error.is_none(), "{error:?}");
}

#[tokio::test]
async fn a_stream_ends_with_its_backend() {
    let backend = server(|mut peer| async move {
        received(&mut peer, usize::MAX).await;
    })
    .await;
    let mut stream = forward(&backend).await;
    backend.close().await.unwrap();
    let (_, error) = rest(&mut stream).await;
    assert!(error.unwrap().to_string().contains("closed"));
    let refused = backend.forward(&"uid-a".into(), PORT).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn a_node_that_does_not_take_it_is_an_error_of_the_call() {
    type Serve = fn(Peer, String) -> futures_util::future::BoxFuture<'static, ()>;
    let cases: [(Serve, ErrorKind, &str); 3] = [
        (
            |mut peer, _| Box::pin(async move { peer.close(None).await.unwrap() }),
            ErrorKind::Unavailable,
            "before it took it",
        ),
        (
            |mut peer, _| {
                Box::pin(async move {
                    for channel in [0, 1] {
                        peer.send(bytes(channel, &81_u16.to_le_bytes())).await.unwrap();
                    }
                })
            },
            ErrorKind::Protocol,
            "8080",
        ),
        (
            |mut peer, _| {
                Box::pin(async move {
                    peer.send(bytes(0, &8080_u16.to_le_bytes())).await.unwrap();
                    peer.send(bytes(1, &[&8080_u16.to_le_bytes(), &b"no such sandbox"[..]].concat())).await.unwrap();
                })
            },
            ErrorKind::Unexpected,
            "no such sandbox",
        ),
    ];
    for (serve, kind, text) in cases {
        let backend = serving("v1.20.2", || vec![pod("a", "5", "Running", 0, running())], serve).await;
        let error = backend.forward(&"uid-a".into(), PORT).await.unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_container_has_the_ports_of_its_pod() {
    let serve = |mut peer: Peer, head: String| async move {
        assert!(head.contains("/pods/a/portforward?"), "{head}");
        for channel in [0, 1] {
            peer.send(bytes(channel, &8080_u16.to_le_bytes())).await.unwrap();
        }
        peer.close(None).await.unwrap();
    };
    let config = config_of("v1.20.2", || vec![pod("a", "5", "Running", 0, ended(0))], serve).await;
    let backend = KubeBackend::new(config.with_granularity(Granularity::Container)).unwrap();
    let mut stream = backend.forward(&"uid-a/main".into(), PORT).await.unwrap();
    let (all, error) = rest(&mut stream).await;
    assert!(all.is_empty() && error.is_none(), "{error:?}");
}

#[tokio::test]
async fn a_pod_that_does_not_run_has_no_ports() {
    let serve = |_: Peer, head: String| async move { panic!("{head}") };
    let backend = serving("v1.20.2", || vec![pod("a", "5", "Succeeded", 0, ended(0))], serve).await;
    let error = backend.forward(&"uid-a".into(), PORT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let error = backend.forward(&"uid-b".into(), PORT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
