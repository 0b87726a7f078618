use std::{cell::RefCell, time::Duration};

use bytes::Bytes;
use runtide_core::ErrorKind;
use runtide_engine::{OwnAnswer, Request, progress::ProgressBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::scripted::Daemon;

const SECONDS: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_call_is_versioned_and_its_errors_are_by_status() {
    let (daemon, seen) = (Daemon::new(), RefCell::new(Vec::new()));
    let client = daemon.client(SECONDS);
    let serve = daemon.serve(|request, mut stream| {
        let first = request.lines().next().unwrap_or_default().to_owned();
        let status = if first.contains("missing") { "404 Not Found" } else { "200 OK" };
        seen.borrow_mut().push(first);
        async move {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let used = async {
        let answer = client.call("demo.list", Request::get("/list").with_query("all", 1), SECONDS).await.unwrap();
        assert_eq!(answer, "hi");
        client.call("demo.ping", Request::get("/_ping").unversioned(), SECONDS).await.unwrap();
        let error = client.call("demo.inspect", Request::delete("/missing"), SECONDS).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "hi"), "a body that is no JSON is the text");
        client.close();
        let error = client.call("demo.list", Request::get("/list"), SECONDS).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    };
    tokio::select! { () = used => {}, () = serve => {} }
    let expected = ["GET /v1.41/list?all=1 HTTP/1.1", "GET /_ping HTTP/1.1", "DELETE /v1.41/missing HTTP/1.1"];
    assert_eq!(*seen.borrow(), expected);
}

#[tokio::test]
async fn a_call_to_a_daemon_that_stalls_ends_at_its_deadline_and_the_next_one_negotiates() {
    let daemon = Daemon::new();
    let client = daemon.client(SECONDS);
    let serve = daemon.serve(|_, mut stream| async move {
        let _ = stream.read(&mut [0]).await; // the client gives up
    });
    let used = async {
        client.server().await.unwrap();
        let error = client.call("demo.list", Request::get("/list"), Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        client.server().await.unwrap();
    };
    tokio::select! { () = used => {}, () = serve => {} }
}

#[tokio::test]
async fn a_body_is_sent_as_it_comes_and_progress_is_read_to_the_end() {
    let daemon = Daemon::new();
    let client = daemon.client(SECONDS);
    let serve = daemon.serve(|request, mut stream| async move {
        assert!(request.contains("transfer-encoding: chunked"), "{request}");
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") {
            assert!(stream.read_buf(&mut body).await.unwrap() > 0);
        }
        assert!(body.windows(5).any(|part| part == b"first"), "{body:?}");
        let lines = "{\"status\":\"Loading\"}\n{\"error\":\"no space left\"}\n{\"stat";
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        stream.write_all(format!("{head}{lines}").as_bytes()).await.unwrap();
    });
    let used = async {
        let chunks = ["first", "second"].map(|chunk| Ok(Bytes::from_static(chunk.as_bytes())));
        let request = Request::post("/images/load").with_body(futures_util::stream::iter(chunks), "application/x-tar");
        let mut progress = ProgressBody::new(OwnAnswer::open(&client, "demo.load", request, None).await.unwrap());
        assert_eq!(progress.next().await.unwrap().unwrap().status.as_deref(), Some("Loading"));
        assert_eq!(progress.next().await.unwrap().unwrap().error.as_deref(), Some("no space left"));
        let cut = progress.next().await.unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::Unavailable, "a line that is cut off is no end");
    };
    tokio::select! { () = used => {}, () = serve => {} }
}

#[tokio::test]
async fn an_answer_that_is_dropped_closes_its_connection_though_the_daemon_is_silent() {
    let daemon = Daemon::new();
    let client = daemon.client(SECONDS);
    let closed = std::rc::Rc::new(tokio::sync::Notify::new());
    let serve = daemon.serve(|_, mut stream| {
        let closed = closed.clone();
        async move {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{\"status\":\"Waiting\"}\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "closed");
            closed.notify_one();
        }
    });
    let used = async {
        let request = Request::post("/images/create");
        let answer = OwnAnswer::open(&client, "demo.pull", request, Some(client.deadline())).await.unwrap();
        let mut progress = ProgressBody::new(answer);
        assert_eq!(progress.next().await.unwrap().unwrap().status.as_deref(), Some("Waiting"));
        // It waits for the next line when it is dropped.
        assert!(tokio::time::timeout(Duration::from_millis(1), progress.next()).await.is_err());
        drop(progress);
        closed.notified().await;
    };
    tokio::select! { () = used => {}, () = serve => {} }
}

#[tokio::test]
async fn an_answer_that_stalls_ends_with_the_close_of_the_client() {
    for has_head in [true, false] {
        let daemon = Daemon::new();
        let client = daemon.client(SECONDS);
        let asked = std::rc::Rc::new(tokio::sync::Notify::new());
        let serve = daemon.serve(|_, mut stream| {
            let asked = asked.clone();
            async move {
                if has_head {
                    let head =
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{\"status\":\"Waiting\"}\r\n";
                    stream.write_all(head.as_bytes()).await.unwrap();
                }
                asked.notify_one();
                let _ = stream.read(&mut [0; 1]).await; // the client gives up
            }
        });
        let used = async {
            let pulled = async {
                let answer = OwnAnswer::open(&client, "demo.pull", Request::post("/images/create"), None).await?;
                let mut progress = ProgressBody::new(answer);
                assert_eq!(progress.next().await?.unwrap().status.as_deref(), Some("Waiting"));
                progress.next().await
            };
            let closed = async {
                asked.notified().await;
                tokio::task::yield_now().await;
                client.close();
            };
            let (error, ()) = tokio::join!(pulled, closed);
            error.unwrap_err()
        };
        let error = tokio::select! { error = used => error, () = serve => unreachable!() };
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    }
}
