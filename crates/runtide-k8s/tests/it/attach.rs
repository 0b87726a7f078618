//! The main process, over a WebSocket that a test serves.

use std::{
    num::NonZeroU16,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use runtide_core::{
    ErrorKind, ExitCause, RuntimeBackend,
    manager::{AttachOptions, ExecSession, LogSource, TtySize},
};
use runtide_k8s::KubeBackend;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    exec::{SUCCESS, binary, serving},
    scripted::{ended, pod, running},
};

const LIMIT: Duration = Duration::from_secs(60);

/// A running pod whose container has these fields too.
fn made_with(fields: Value) -> Value {
    let mut one = pod("a", "5", "Running", 0, running());
    let container = one["spec"]["containers"][0].as_object_mut().unwrap();
    container.extend(fields.as_object().unwrap().clone());
    one
}

async fn attach(backend: &KubeBackend, options: AttachOptions) -> ExecSession {
    backend.exec().unwrap().attach(&"uid-a".into(), options).await.unwrap()
}

async fn said(session: &mut ExecSession) -> Vec<(LogSource, String)> {
    let mut said = Vec::new();
    while let Some(piece) = tokio::time::timeout(LIMIT, session.output.next()).await.unwrap() {
        let piece = piece.unwrap();
        said.push((piece.source, String::from_utf8(piece.bytes.to_vec()).unwrap()));
    }
    said
}

#[tokio::test]
async fn the_code_of_a_main_process_is_its_containers_and_never_the_success_of_the_connection() {
    static LOOKS: AtomicU32 = AtomicU32::new(0);
    // The attach, and two looks after the server's word that the session is over: the process goes on at the first.
    let pods = || match LOOKS.fetch_add(1, Ordering::SeqCst) {
        0..=2 => vec![pod("a", "5", "Running", 0, running())],
        _ => vec![pod("a", "6", "Failed", 0, ended(7))],
    };
    let backend = serving("v1.33.1", pods, |mut peer, head| async move {
        assert!(head.contains("/attach?container=main&stdin=false&stdout=true&stderr=true&tty=false"), "{head}");
        for message in [binary(1, "out"), binary(2, "err"), binary(3, SUCCESS)] {
            peer.send(message).await.unwrap();
        }
        peer.close(None).await.unwrap();
    })
    .await;
    let mut session = attach(&backend, AttachOptions::default()).await;
    assert!(session.stdin.is_none());
    let said = said(&mut session).await;
    assert_eq!(said, [(LogSource::Stdout, "out".to_owned()), (LogSource::Stderr, "err".to_owned())]);
    assert!(LOOKS.load(Ordering::SeqCst) > 3, "the output ends with the process");
    for _ in 0..2 {
        assert_eq!(session.control.wait().await.unwrap().unwrap().end, ExitCause::Code(7));
    }
}

#[tokio::test]
async fn a_main_process_whose_pod_is_gone_has_no_code() {
    static LOOKS: AtomicU32 = AtomicU32::new(0);
    let pods = || match LOOKS.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => vec![pod("a", "5", "Running", 0, running())],
        _ => vec![],
    };
    let backend = serving("v1.33.1", pods, |mut peer, _| async move {
        peer.send(binary(3, SUCCESS)).await.unwrap();
    })
    .await;
    let mut session = attach(&backend, AttachOptions::default()).await;
    assert!(said(&mut session).await.is_empty());
    assert_eq!(session.control.wait().await.unwrap(), None);
}

#[tokio::test]
async fn an_attach_that_breaks_is_an_error_and_no_end_of_the_process() {
    let pods = || vec![pod("a", "5", "Running", 0, running())];
    let backend = serving("v1.33.1", pods, |mut peer, _| async move {
        peer.send(binary(1, "half")).await.unwrap();
    })
    .await;
    let mut session = attach(&backend, AttachOptions::default()).await;
    assert_eq!(session.output.next().await.unwrap().unwrap().bytes, "half");
    let broke = tokio::time::timeout(LIMIT, session.output.next()).await.unwrap().unwrap().unwrap_err();
    let waited = tokio::time::timeout(LIMIT, session.control.wait()).await.unwrap().unwrap_err();
    assert_eq!((broke.kind(), waited.kind()), (ErrorKind::Unavailable, ErrorKind::Unavailable));
}

#[tokio::test]
async fn a_dropped_attach_closes_its_connection() {
    let (closed, mut seen) = tokio::sync::mpsc::channel::<()>(1);
    let closed: &'static _ = Box::leak(Box::new(closed));
    let pods = || vec![pod("a", "5", "Running", 0, running())];
    let backend = serving("v1.33.1", pods, move |mut peer, _| async move {
        let end = peer.next().await;
        assert!(!matches!(end, Some(Ok(Message::Binary(_)))), "{end:?}");
        closed.send(()).await.unwrap();
    })
    .await;
    drop(attach(&backend, AttachOptions::default()).await);
    assert_eq!(tokio::time::timeout(LIMIT, seen.recv()).await.unwrap(), Some(()));
}

#[tokio::test]
async fn a_main_process_with_a_terminal_has_one_output_and_is_resized_by_the_session() {
    let pods = || vec![made_with(json!({ "tty": true, "stdin": true, "stdinOnce": true }))];
    // Also before 1.30: the end of what is typed is a character.
    let backend = serving("v1.20.2", pods, |mut peer, head| async move {
        assert!(head.contains("stdin=true&stdout=true&stderr=false&tty=true"), "{head}");
        // A size and an input may overtake each other.
        let (mut typed, mut sizes) = (Vec::new(), 0);
        while typed != b"word\n\x04" || sizes == 0 {
            let message = peer.next().await.unwrap().unwrap();
            if message == binary(4, r#"{"Width":81,"Height":25}"#) {
                sizes += 1;
            } else {
                let data = message.into_data();
                assert_eq!(data.first(), Some(&0), "{data:?}");
                typed.extend_from_slice(&data[1..]);
            }
        }
        peer.send(binary(1, "bye")).await.unwrap();
    })
    .await;
    let mut session = attach(&backend, AttachOptions::default().with_stdin()).await;
    let cells = |n| NonZeroU16::new(n).unwrap();
    session.control.resize(TtySize::new(cells(81), cells(25))).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"word\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    let last = tokio::time::timeout(LIMIT, session.output.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((last.source, &last.bytes[..]), (LogSource::Console, &b"bye"[..]));
}

#[tokio::test]
async fn an_input_that_stays_open_for_the_next_has_no_end_that_an_old_server_could_miss() {
    let pods = || vec![made_with(json!({ "stdin": true }))];
    let backend = serving("v1.20.2", pods, |mut peer, _| async move {
        assert_eq!(peer.next().await.unwrap().unwrap(), binary(0, "word"));
        peer.send(binary(1, "bye")).await.unwrap();
        let end = peer.next().await;
        assert!(!matches!(end, Some(Ok(Message::Binary(_)))), "{end:?}");
    })
    .await;
    let mut session = attach(&backend, AttachOptions::default().with_stdin()).await;
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"word").await.unwrap();
    stdin.shutdown().await.unwrap();
    let last = tokio::time::timeout(LIMIT, session.output.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((last.source, &last.bytes[..]), (LogSource::Stdout, &b"bye"[..]));
}

#[tokio::test]
async fn what_an_attach_cannot_have_is_refused_before_it_connects() {
    let with_input = || AttachOptions::default().with_stdin();
    for (pods, options, kind) in [
        ((|| vec![made_with(json!({}))]) as fn() -> Vec<Value>, with_input(), ErrorKind::InvalidInput),
        (|| vec![made_with(json!({ "stdin": true, "stdinOnce": true }))], with_input(), ErrorKind::Unsupported),
        (|| vec![pod("a", "5", "Succeeded", 0, ended(0))], AttachOptions::default(), ErrorKind::Conflict),
        (Vec::new, AttachOptions::default(), ErrorKind::NotFound),
    ] {
        let backend = serving("v1.20.2", pods, |_, _| async { panic!("no connection") }).await;
        let error = backend.exec().unwrap().attach(&"uid-a".into(), options).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let before = backend.exec().unwrap().start_attached(&"uid-a".into(), AttachOptions::default()).await;
        assert_eq!(before.unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
