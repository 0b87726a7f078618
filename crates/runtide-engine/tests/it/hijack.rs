use std::time::Duration;

use runtide_core::ErrorKind;
use runtide_engine::{Request, output::Decoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::scripted::Daemon;

const SECONDS: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_upgraded_connection_is_raw_bytes_in_both_directions_and_half_closed() {
    let daemon = Daemon::new();
    let client = daemon.client(SECONDS);
    let serve = daemon.serve(|request, mut stream| async move {
        assert!(request.starts_with("POST /v1.41/exec/e1/start HTTP/1.1\r\n"), "{request}");
        for expected in ["upgrade: tcp", "connection: Upgrade", "{\"Detach\":false}"] {
            assert!(request.contains(expected), "{expected} is not in {request}");
        }
        // Output may arrive with the head; a first byte of 1 is no frame.
        let head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n\x01first";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut input = Vec::new();
        stream.read_to_end(&mut input).await.unwrap();
        assert_eq!(input, b"input");
        stream.write_all(b" last").await.unwrap();
    });
    let used = async {
        let request = Request::post("/exec/e1/start").with_json(&serde_json::json!({"Detach": false}));
        let mut hijacked = client.hijack("demo.exec", request).await.unwrap();
        assert_eq!(hijacked.content_type.as_deref(), Some("application/vnd.docker.raw-stream"));
        hijacked.writer.write_all(b"input").await.unwrap();
        hijacked.writer.shutdown().await.unwrap();
        let mut output = Vec::new();
        hijacked.reader.read_to_end(&mut output).await.unwrap();
        let mut decoder = Decoder::raw();
        decoder.push(output.into());
        assert_eq!(&decoder.next().unwrap().unwrap().bytes[..], b"\x01first last");
    };
    tokio::select! { () = used => {}, () = serve => {} }
}

#[tokio::test]
async fn a_refusal_to_upgrade_has_the_daemons_words() {
    let daemon = Daemon::new();
    let client = daemon.client(SECONDS);
    let serve = daemon.serve(|request, mut stream| async move {
        let (status, body) = if request.contains("/gone/") {
            ("404 Not Found", r#"{"message":"no such exec"}"#)
        } else {
            ("200 OK", "plain")
        };
        let length = body.len();
        stream
            .write_all(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())
            .await
            .unwrap();
        // Open until the client has read it.
        let _ = stream.read(&mut [0]).await;
    });
    let used = async {
        let gone = client.hijack("demo.exec", Request::post("/exec/gone/start")).await.unwrap_err();
        assert_eq!((gone.kind(), gone.message()), (ErrorKind::NotFound, "no such exec"));
        let plain = client.hijack("demo.exec", Request::post("/exec/e1/start")).await.unwrap_err();
        assert_eq!(plain.kind(), ErrorKind::Protocol, "{plain}");
    };
    tokio::select! { () = used => {}, () = serve => {} }
}
