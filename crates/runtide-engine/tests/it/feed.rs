use std::{future::poll_fn, time::Duration};

use runtide_core::ErrorKind;
use runtide_engine::{Feed, Framed, Request, Values};
use tokio::{io::AsyncWriteExt, sync::Notify};

use crate::scripted::Daemon;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn a_head_that_comes_late_does_not_keep_a_feed_from_being_opened() {
    let (daemon, spoken) = (Daemon::new(), Notify::new());
    let client = daemon.client(Duration::from_secs(60));
    let serve = daemon.serve(|request, mut stream| {
        let spoken = &spoken;
        async move {
            assert!(request.starts_with("GET /v1.41/events?since=1 "), "{request}");
            spoken.notified().await;
            stream.write_all(HEAD).await.unwrap();
            stream.write_all(b"9\r\n{\"id\":1}\n\r\n0\r\n\r\n").await.unwrap();
        }
    });
    let used = async {
        let request = Request::get("/events").with_query("since", 1);
        let mut feed = Feed::open_patiently(&client, "demo.events", request, Duration::from_millis(1)).await.unwrap();
        assert!(!feed.has_head());
        spoken.notify_one();
        assert!(poll_fn(|cx| feed.poll_more(cx)).await.unwrap());
        assert!(feed.has_head());
        let values: Vec<_> = Values::<serde_json::Value>::of(feed.unread()).collect();
        assert!(matches!(&values[..], [Framed::Value(value)] if value["id"] == 1), "{values:?}");
        feed.consume(9);
        assert!(!poll_fn(|cx| feed.poll_more(cx)).await.unwrap(), "the daemon ended it");
    };
    tokio::select! { () = used => {}, () = serve => {} }
}

#[tokio::test]
async fn a_refusal_is_an_error_whether_it_comes_at_once_or_late() {
    let (daemon, refused) = (Daemon::new(), Notify::new());
    let client = daemon.client(Duration::from_secs(60));
    let serve = daemon.serve(|request, mut stream| {
        let refused = &refused;
        async move {
            if request.contains("late") {
                refused.notified().await;
            }
            let body = r#"{"message":"no events logger"}"#;
            let answer = format!("HTTP/1.1 500 Internal Server Error\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let used = async {
        let error = Feed::open(&client, "demo.events", Request::get("/events")).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unexpected, "no events logger"));
        let late = Request::get("/events?late=1");
        let mut feed = Feed::open_patiently(&client, "demo.events", late, Duration::from_millis(1)).await.unwrap();
        refused.notify_one();
        let error = poll_fn(|cx| feed.poll_more(cx)).await.unwrap_err();
        assert_eq!(error.message(), "no events logger");
        for _ in 0..2 {
            assert!(!poll_fn(|cx| feed.poll_more(cx)).await.unwrap(), "it never has more");
        }
    };
    tokio::select! { () = used => {}, () = serve => {} }
}

#[tokio::test]
async fn a_value_that_never_ends_is_an_error_and_then_the_end() {
    let daemon = Daemon::new();
    let client = daemon.client(Duration::from_secs(60));
    let serve = daemon.serve(|_, mut stream| async move {
        stream.write_all(HEAD).await.unwrap();
        let chunk = [b"10000\r\n", vec![b'1'; 1 << 16].as_slice(), b"\r\n"].concat();
        while stream.write_all(&chunk).await.is_ok() {}
    });
    let used = async {
        let mut feed = Feed::open(&client, "demo.events", Request::get("/events")).await.unwrap();
        let error = loop {
            match poll_fn(|cx| feed.poll_more(cx)).await {
                Ok(more) => assert!(more),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
        assert!(!poll_fn(|cx| feed.poll_more(cx)).await.unwrap(), "it never has more");
    };
    tokio::select! { () = used => {}, () = serve => {} }
}
