//! A daemon over tcp and TLS: the files that a client needs, and the errors without them.

mod authority;
mod front;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use authority::{Authority, Files, Identity};
use front::Front;
use runtide_core::{
    Error, ErrorKind, ExitStatus, Failure, InstanceId, ListOptions, RuntimeBackend, RuntimeEventKind, WatchOptions,
    manager::{Effect, LogOptions, StopOptions},
};
use runtide_docker::{Config, DockerBackend, Endpoint, Tls};
use tokio_rustls::rustls::{
    SupportedProtocolVersion,
    version::{TLS12, TLS13},
};

use crate::{
    fake_daemon::{Fake, id},
    scripted_daemon::{self, Reply},
};

const TIMEOUT: Duration = Duration::from_secs(60);
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn backend(endpoint: Endpoint, tls: Tls) -> DockerBackend {
    let config = Config::default().with_endpoint(endpoint).with_tls(tls).with_deadline(TIMEOUT);
    DockerBackend::new(config).unwrap()
}

#[tokio::test]
async fn a_daemon_that_wants_a_certificate_is_listed_and_watched() {
    let authority = Authority::new("ca");
    let files = Files::new(&authority, Some(&authority.client()));
    for version in VERSIONS {
        let fake = Fake::start();
        fake.state().run(&id(1), "one");
        let front = Front::tls(&fake.socket(), version, &authority.server("localhost"), Some(&authority)).await;
        let backend = backend(front.endpoint("https", "localhost"), files.tls());
        let info = backend.connect().await.unwrap();
        assert!(info.endpoint.starts_with("https://localhost:"), "{info:?}");
        assert_eq!(backend.list_instances(ListOptions::default()).await.unwrap().instances.len(), 1);
        assert_eq!(backend.inspect(&id(1).into()).await.unwrap().name, "one");

        let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
        let mut reported = async |name: &str| {
            loop {
                let event = tokio::time::timeout(TIMEOUT, stream.next()).await.expect("in time").unwrap().unwrap();
                if event.kind.name() == name {
                    return event;
                }
            }
        };
        reported("resync_end").await;
        fake.state().run(&id(2), "two");
        assert_eq!(reported("started").await.kind.instance().unwrap().name, "two");
        {
            let mut state = fake.state();
            state.sever();
            state.die(&id(2), "two", 7);
        }
        assert_eq!(reported("stopped").await.kind.instance().unwrap().name, "two", "and again after the link broke");
    }
}

#[tokio::test]
async fn the_verbs_go_the_same_way() {
    const RUNS: &str = r#"{"State":{"Status":"running","Running":true,"StartedAt":"2024-01-01T00:00:00.1Z"}}"#;
    const ENDED: &str = r#"{"State":{"Status":"exited","ExitCode":3,"StartedAt":"2024-01-01T00:00:00.1Z"}}"#;
    let authority = Authority::new("ca");
    let files = Files::new(&authority, Some(&authority.client()));
    let inspections = AtomicUsize::new(0);
    let fake = scripted_daemon::Fake::new(move |request| match request {
        request if request.contains("/logs") => {
            Reply::Stream { bytes: b"\x01\0\0\0\0\0\0\x03ab\n".to_vec(), whole: true }
        }
        request if request.ends_with("/c2/json") && inspections.fetch_add(1, Ordering::Relaxed) > 1 => Reply::ok(ENDED),
        request if request.ends_with("/json") => Reply::ok(RUNS),
        request if request.contains("/wait") => Reply::ok(r#"{"StatusCode":3}"#),
        _ => Reply::empty(),
    });
    let socket = PathBuf::from(fake.backend.connect().await.unwrap().endpoint.strip_prefix("unix://").unwrap());
    let front = Front::tls(&socket, &TLS13, &authority.server("localhost"), Some(&authority)).await;
    let backend = backend(front.endpoint("https", "localhost"), files.tls());
    let one = InstanceId::from("c1");
    assert_eq!(backend.lifecycle().unwrap().stop(&one, StopOptions::default()).await.unwrap(), Effect::Changed);
    let end = tokio::time::timeout(TIMEOUT, backend.lifecycle().unwrap().wait(&"c2".into())).await.expect("in time");
    assert_eq!(end.unwrap().unwrap().end, ExitStatus::code(3).end);
    let mut log = backend.logs().unwrap().logs(&one, LogOptions::default()).await.unwrap();
    assert_eq!(&log.next().await.unwrap().unwrap().bytes[..], b"ab\n");
}

/// Every error of this failure must be of that kind, name the remedy, and not show the key.
async fn refused(what: &str, endpoint: Endpoint, files: &Files, key: &Identity, kind: ErrorKind, advice: &str) {
    let config = Config::default().with_endpoint(endpoint).with_tls(files.tls()).with_deadline(TIMEOUT);
    let backend = DockerBackend::new(config).unwrap();
    let mut errors: Vec<Error> = vec![
        backend.connect().await.unwrap_err(),
        backend.list_instances(ListOptions::default()).await.unwrap_err(),
        backend.inspect(&id(1).into()).await.unwrap_err(),
        backend.lifecycle().unwrap().start(&id(1).into()).await.unwrap_err(),
    ];
    // A watch keeps trying, and reports the reason.
    let mut stream = backend.watch(WatchOptions::default()).await.unwrap();
    let event = tokio::time::timeout(TIMEOUT, stream.next()).await.expect("in time").unwrap().unwrap();
    let RuntimeEventKind::BackendDisconnected { cause } = &event.kind else { panic!("{what}: {event:?}") };
    let cause = cause.as_ref().expect("why it cannot be reached");
    errors.push(Error::new(cause.kind, "test.watch", cause.message.clone()));
    for error in errors {
        let said = Failure::from(&error).message;
        assert_eq!(error.kind(), kind, "{what}: {error:?}");
        assert!(said.contains(advice), "{what}: {said}");
        assert!(!said.contains("client error") && said.lines().count() == 1, "{what}: {said}");
        keeps_the_key(key, &format!("{error} {error:?} {backend:?}"));
    }
}

/// Neither as it is written, nor as bytes.
fn keeps_the_key(key: &Identity, text: &str) {
    let body: String = key.key_pem.lines().filter(|line| !line.starts_with('-')).collect();
    let (begin, end) = (&body[..12], &body[body.len() - 12..]);
    for part in [begin, end] {
        let bytes = format!("{:?}", part.as_bytes());
        assert!(!text.contains(part) && !text.contains(bytes.trim_matches(['[', ']'])), "{text}");
    }
}

#[tokio::test]
async fn an_untrusted_server_is_refused_with_a_remedy() {
    let (authority, other) = (Authority::new("ca"), Authority::new("other ca"));
    let client = authority.client();
    let files = Files::new(&authority, Some(&client));
    let fake = Fake::start();
    let cases = [
        ("a server that another CA signed", other.server("localhost"), "ca.pem"),
        ("a server of a CA that was made again", Authority::new("ca").server("localhost"), "ca.pem"),
        ("a server whose certificate has expired", authority.expired_server("localhost"), "expired"),
        ("a server of another name", authority.server("elsewhere.example"), "use a name that is in it"),
    ];
    for version in VERSIONS {
        for (what, server, advice) in &cases {
            let front = Front::tls(&fake.socket(), version, server, None).await;
            let endpoint = front.endpoint("https", "localhost");
            refused(what, endpoint, &files, &client, ErrorKind::Unauthenticated, advice).await;
        }
    }
    assert_eq!(fake.take_requests(), Vec::<String>::new(), "no request was sent to an untrusted server");
}

#[tokio::test]
async fn an_untrusted_client_learns_which_files_it_needs() {
    let (authority, other) = (Authority::new("ca"), Authority::new("other ca"));
    let stranger = other.client();
    let fake = Fake::start();
    for version in VERSIONS {
        let front = Front::tls(&fake.socket(), version, &authority.server("localhost"), Some(&authority)).await;
        for (what, files) in [
            ("a client without a certificate", Files::new(&authority, None)),
            ("a client that another CA signed", Files::new(&authority, Some(&stranger))),
            ("a client of a CA that was made again", Files::new(&authority, Some(&Authority::new("ca").client()))),
        ] {
            let endpoint = front.endpoint("https", "localhost");
            refused(what, endpoint, &files, &stranger, ErrorKind::Unauthenticated, "key.pem").await;
        }
    }
}

#[tokio::test]
async fn a_mismatch_of_plaintext_and_tls_is_named_in_both_directions() {
    let authority = Authority::new("ca");
    let client = authority.client();
    let files = Files::new(&authority, Some(&client));
    let fake = Fake::start();
    let plain = Front::plain(&fake.socket()).await;
    let endpoint = plain.endpoint("https", "localhost");
    refused("plain http behind https://", endpoint, &files, &client, ErrorKind::Protocol, "plain http").await;

    let tls = Front::tls(&fake.socket(), &TLS13, &authority.server("localhost"), Some(&authority)).await;
    let endpoint = tls.endpoint("tcp", "localhost");
    refused("TLS behind tcp://", endpoint, &files, &client, ErrorKind::Protocol, "DOCKER_TLS_VERIFY").await;

    let go = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    let dockerd = Front::says(go.as_bytes()).await;
    let endpoint = dockerd.endpoint("tcp", "localhost");
    refused("dockerd --tls behind tcp://", endpoint, &files, &client, ErrorKind::Protocol, "DOCKER_TLS_VERIFY").await;
}

#[test]
fn a_key_that_cannot_be_used_is_named_and_never_shown() {
    let authority = Authority::new("ca");
    let (client, other) = (authority.client(), authority.client());
    let body: String = client.key_pem.lines().filter(|line| !line.starts_with('-')).collect();
    let spoilt = [
        ("nothing", String::new()),
        ("not PEM", body.clone()),
        ("without its line breaks", client.key_pem.replace('\n', "")),
        ("with spaces for line breaks", client.key_pem.replace('\n', " ")),
        ("begun on the line of its body", client.key_pem.replacen("-----\n", "-----", 1)),
        ("cut short", client.key_pem[..client.key_pem.len() - 30].to_owned()),
        ("not base64", client.key_pem.replacen('M', "*", 1)),
        ("of no known kind", format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", &body[..40])),
        ("of another certificate", other.key_pem.clone()),
    ];
    for (what, text) in spoilt {
        let files = Files::new(&authority, Some(&client));
        files.write("key.pem", &text);
        let config = Config::default().with_endpoint("https://h".parse::<Endpoint>().unwrap()).with_tls(files.tls());
        let error = DockerBackend::new(config.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}");
        assert!(error.to_string().contains("key.pem"), "{what}: {error}");
        let said = format!("{error} {error:?} {} {config:?}", Failure::from(&error).message);
        keeps_the_key(&client, &said);
        keeps_the_key(&other, &said);
    }
    let files = Files::new(&authority, Some(&client));
    std::fs::remove_file(files.path("key.pem")).unwrap();
    let config = Config::default().with_endpoint("https://h".parse::<Endpoint>().unwrap()).with_tls(files.tls());
    let error = DockerBackend::new(config).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("key.pem"), "{error}");
}
