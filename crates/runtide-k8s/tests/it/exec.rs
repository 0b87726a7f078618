//! Processes inside, over a WebSocket that a test serves.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use runtide_core::{
    ErrorKind, ExitCause, RuntimeBackend,
    manager::{ExecOptions, ExecSession, LogSource},
};
use runtide_k8s::{Access, Config, KubeBackend};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
    },
};

use crate::scripted::{list, pod, running};

pub(crate) type Peer = WebSocketStream<TcpStream>;

pub(crate) fn binary(channel: u8, text: &str) -> Message {
    Message::Binary([&[channel], text.as_bytes()].concat().into())
}

pub(crate) const SUCCESS: &str = r#"{"metadata":{},"status":"Success"}"#;

/// A server with one running pod, whose execs this function serves, in the newest protocol.
async fn server<F: Future<Output = ()> + Send>(
    serve: impl Fn(Peer, String) -> F + Send + Copy + 'static,
) -> KubeBackend {
    serving("v1.33.1", || vec![pod("a", "5", "Running", 0, running())], serve).await
}

/// A server of this version with these pods, which are looked at with each listing.
pub(crate) async fn serving<F: Future<Output = ()> + Send>(
    version: &'static str,
    pods: impl Fn() -> Vec<Value> + Send + Copy + 'static,
    serve: impl Fn(Peer, String) -> F + Send + Copy + 'static,
) -> KubeBackend {
    KubeBackend::new(config_of(version, pods, serve).await).unwrap()
}

/// The configuration for a backend of such a server.
pub(crate) async fn config_of<F: Future<Output = ()> + Send>(
    version: &'static str,
    pods: impl Fn() -> Vec<Value> + Send + Copy + 'static,
    serve: impl Fn(Peer, String) -> F + Send + Copy + 'static,
) -> Config {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut start = [0; 4096];
                let length = stream.peek(&mut start).await.unwrap();
                let head = String::from_utf8_lossy(&start[..length]).into_owned();
                if head.contains("/exec?") || head.contains("/attach?") || head.contains("/portforward?") {
                    #[expect(clippy::result_large_err, reason = "the type is the callback's")]
                    let choose = |_: &Request, mut response: Response| {
                        let is_old = version.starts_with("v1.2");
                        let protocol = if is_old { "v4.channel.k8s.io" } else { "v5.channel.k8s.io" };
                        response.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
                        Ok(response)
                    };
                    let peer = tokio_tungstenite::accept_hdr_async(stream, choose).await.unwrap();
                    serve(peer, head).await;
                    return;
                }
                let mut seen = Vec::new();
                while !seen.ends_with(b"\r\n\r\n") {
                    seen.push(stream.read_u8().await.unwrap());
                }
                let body =
                    if head.contains("/version") { json!({ "gitVersion": version }) } else { list("9", "", &pods()) };
                let body = body.to_string();
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            });
        }
    });
    Config::new(Access::new(format!("http://{address}")))
}

async fn run(backend: &KubeBackend, options: ExecOptions) -> ExecSession {
    backend.exec().unwrap().exec(&"uid-a".into(), options).await.unwrap()
}

fn argv(words: &[&str]) -> ExecOptions {
    ExecOptions::default().with_argv(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
}

#[tokio::test]
async fn a_connection_that_breaks_is_an_error_of_the_output_and_of_the_wait_and_never_a_code() {
    let backend = server(|mut peer, _| async move {
        peer.send(binary(1, "half")).await.unwrap();
        drop(peer);
    })
    .await;
    let mut session = run(&backend, argv(&["sh"])).await;
    assert_eq!(session.output.next().await.unwrap().unwrap().bytes, "half");
    let limit = Duration::from_secs(60);
    let broke = tokio::time::timeout(limit, session.output.next()).await.unwrap().unwrap().unwrap_err();
    let waited = tokio::time::timeout(limit, session.control.wait()).await.unwrap().unwrap_err();
    assert_eq!((broke.kind(), waited.kind()), (ErrorKind::Unavailable, ErrorKind::Unavailable));
    assert!(session.output.next().await.is_none());
}

#[tokio::test]
async fn arguments_go_as_they_are_and_the_input_ends_while_the_output_goes_on() {
    let backend = server(|mut peer, head| async move {
        assert!(head.contains("command=tr&command=a%20b&command=&command=%26x%3D%0A"), "{head}");
        assert!(head.contains("container=main&stdin=true&stdout=true&stderr=true&tty=false"), "{head}");
        let mut input = Vec::new();
        while let Some(Ok(message)) = peer.next().await {
            match message {
                Message::Binary(data) if data[0] == 0 => input.extend_from_slice(&data[1..]),
                Message::Binary(data) if data[..] == [255, 0] => break,
                Message::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(input.len(), 300_000);
        // Channels without bytes are how a session begins.
        for message in [binary(1, ""), binary(2, "warning"), binary(1, "after the end"), binary(3, SUCCESS)] {
            peer.send(message).await.unwrap();
        }
        peer.close(None).await.unwrap();
    })
    .await;
    let mut session = run(&backend, argv(&["tr", "a b", "", "&x=\n"]).with_stdin()).await;
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(&vec![b'i'; 300_000]).await.unwrap();
    stdin.shutdown().await.unwrap();
    let mut said = Vec::new();
    while let Some(piece) = session.output.next().await {
        let piece = piece.unwrap();
        said.push((piece.source, String::from_utf8(piece.bytes.to_vec()).unwrap()));
    }
    assert_eq!(said, [(LogSource::Stderr, "warning".to_owned()), (LogSource::Stdout, "after the end".to_owned())]);
    for _ in 0..2 {
        assert_eq!(session.control.wait().await.unwrap().unwrap().end, ExitCause::Code(0));
    }
}

#[tokio::test]
async fn a_dropped_session_closes_its_connection_and_a_detached_process_keeps_it() {
    let (closed, mut seen) = tokio::sync::mpsc::channel::<bool>(4);
    let closed: &'static _ = Box::leak(Box::new(closed));
    let backend = server(move |mut peer, head| async move {
        let is_detached = head.contains("command=detached");
        if is_detached {
            tokio::time::sleep(Duration::from_millis(300)).await;
            for _ in 0..100 {
                peer.send(binary(1, &"x".repeat(10_000))).await.unwrap();
            }
            peer.send(binary(3, SUCCESS)).await.unwrap();
            closed.send(true).await.unwrap();
        }
        let end = peer.next().await;
        if !is_detached {
            assert!(!matches!(end, Some(Ok(Message::Binary(_)))), "{end:?}");
            closed.send(false).await.unwrap();
        }
    })
    .await;
    drop(run(&backend, argv(&["sleep"])).await);
    let limit = Duration::from_secs(60);
    assert_eq!(tokio::time::timeout(limit, seen.recv()).await.unwrap(), Some(false));
    drop(backend.exec().unwrap().exec_detached(&"uid-a".into(), argv(&["detached"])).await.unwrap());
    assert_eq!(tokio::time::timeout(limit, seen.recv()).await.unwrap(), Some(true));
}

#[tokio::test]
async fn what_an_exec_cannot_have_is_refused_before_the_process_is_made() {
    let backend = server(|_, _| async { panic!("no process") }).await;
    let exec = backend.exec().unwrap();
    for (options, kind) in [
        (argv(&[]), ErrorKind::InvalidInput),
        (argv(&[""]), ErrorKind::InvalidInput),
        (argv(&["a", "b\0c"]), ErrorKind::InvalidInput),
        (argv(&["a"]).with_env([("K".to_owned(), "v".to_owned())]), ErrorKind::Unsupported),
        (argv(&["a"]).with_user(Some("root".to_owned())), ErrorKind::Unsupported),
        (argv(&["a"]).with_working_dir(Some("/".to_owned())), ErrorKind::Unsupported),
    ] {
        assert_eq!(exec.exec(&"uid-a".into(), options).await.unwrap_err().kind(), kind);
    }
    let detached = exec.exec_detached(&"uid-a".into(), argv(&["cat"]).with_stdin()).await.err().unwrap();
    assert_eq!(detached.kind(), ErrorKind::InvalidInput);
    assert_eq!(exec.exec(&"uid-b".into(), argv(&["a"])).await.unwrap_err().kind(), ErrorKind::NotFound);
}
