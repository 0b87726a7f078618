//! Getting in: TLS, users, and members that are not there.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use runtide_core::{
    ErrorKind,
    store::{Document, Precondition, ResourceRef, Selector, StoreBackend, StoreEvent, StoreWatchOptions},
};
use runtide_etcd::{Config, EtcdStore, Tls};

use crate::cluster::{Cluster, Setup, TIMEOUT, soon};

fn named(name: &str) -> ResourceRef {
    ResourceRef::new("apps", "Deployment", "shop", name).unwrap()
}

/// Signs certificates, and writes them into a folder.
struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, "authority");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, issuer: Issuer::new(parameters, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Certificate and key.
    fn signed(&self, name: &str, for_addresses: &[&str]) -> (PathBuf, PathBuf) {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        for address in for_addresses {
            parameters.subject_alt_names.push(match address.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*address).try_into().unwrap()),
            });
        }
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let files = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }
}

/// A member that wants a certificate of its clients, and its authority.
fn with_tls(names: &[&str]) -> Option<(Cluster, Authority)> {
    let authority = Authority::new();
    let (certificate, key) = authority.signed("member", names);
    let setup = Setup { tls: Some((certificate, key, authority.ca())), ..Setup::default() };
    Some((Cluster::one_with(setup)?, authority))
}

#[tokio::test]
async fn a_member_that_wants_a_certificate_is_read_and_watched() {
    let Some((cluster, authority)) = with_tls(&["127.0.0.1"]) else { return };
    let (certificate, key) = authority.signed("client", &["client"]);
    let tls = Tls::default().with_ca(authority.ca()).with_identity(certificate, key);
    let store = EtcdStore::new(cluster.config().with_tls(tls)).unwrap();
    let mut stream = store.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    let made = store.apply(&named("a"), Document::json("{}"), Precondition::None).await.unwrap();
    loop {
        let event = soon("the change", stream.next()).await.unwrap().unwrap();
        if let StoreEvent::Added(resource) = event {
            assert_eq!(resource.revision, made.revision);
            break;
        }
    }
}

#[tokio::test]
async fn a_name_that_is_not_the_address_can_be_given() {
    let Some((cluster, authority)) = with_tls(&["etcd.test"]) else {
        return;
    };
    let (certificate, key) = authority.signed("client", &["client"]);
    let tls = Tls::default().with_ca(authority.ca()).with_identity(certificate, key);
    let config = cluster.config();
    let hasty = config.clone().with_request_timeout(Duration::from_secs(20));
    let store = EtcdStore::new(hasty.with_tls(tls.clone())).unwrap();
    let error = store.stats().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error}");
    EtcdStore::new(config.with_tls(tls.with_server_name("etcd.test"))).unwrap().stats().await.unwrap();
}

#[tokio::test]
async fn a_rejected_client_learns_why_and_no_key_is_shown() {
    let Some((cluster, authority)) = with_tls(&["127.0.0.1"]) else { return };
    let other = Authority::new();
    let (certificate, key) = other.signed("client", &["client"]);
    let config = cluster.config().with_request_timeout(Duration::from_secs(2));
    for tls in [
        Tls::default().with_ca(other.ca()),
        Tls::default().with_ca(authority.ca()),
        Tls::default().with_ca(authority.ca()).with_identity(&certificate, &key),
    ] {
        let store = EtcdStore::new(config.clone().with_tls(tls.clone())).unwrap();
        let error = store.apply(&named("a"), Document::json("{}"), Precondition::None).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{tls:?}: {error:?}");
        let secret = std::fs::read_to_string(&key).unwrap();
        let secret = secret.lines().nth(1).unwrap();
        assert!(!format!("{error} {error:?} {store:?} {tls:?}").contains(secret));
    }
    let swapped = Tls::default().with_ca(authority.ca()).with_identity(&key, &certificate);
    let error = EtcdStore::new(cluster.config().with_tls(swapped)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// A member with authentication: users `root`, and `writer` with read and write below `/runtide/`.
async fn with_users(setup: Setup) -> Option<Cluster> {
    let cluster = Cluster::one_with(setup)?;
    add_users(&cluster).await;
    Some(cluster)
}

async fn add_users(cluster: &Cluster) {
    let raw = cluster.raw(0).await;
    for command in [
        &["user", "add", "root:toor"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "writer"],
        &["role", "grant-permission", "writer", "readwrite", "/runtide/", "--prefix"],
        &["user", "add", "writer:hunter2"],
        &["user", "grant-role", "writer", "writer"],
        &["auth", "enable"],
    ] {
        raw.must(command).await;
    }
}

#[tokio::test]
async fn a_user_can_do_what_it_may_and_no_more() {
    // Tokens that expire after seconds: the client requests new ones.
    let setup = Setup::with(&["--auth-token-ttl", "4"]);
    let Some(cluster) = with_users(setup).await else { return };
    let store = EtcdStore::new(cluster.config().with_user("writer", "hunter2")).unwrap();
    let mut stream = store.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap();
    let first = store.apply(&named("a"), Document::json("1"), Precondition::None).await.unwrap().revision;
    let mut bytes = Vec::new();
    store.snapshot(&mut bytes).await.unwrap();
    store.restore(&mut &bytes[..]).await.unwrap();
    assert_eq!(store.stats().await.unwrap().resource_count, 1);
    // Long enough for the token to expire; a new one is requested.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let last = store.apply(&named("a"), Document::json("2"), Precondition::None).await.unwrap().revision;
    let mut seen = Vec::new();
    while seen.last() != Some(&last) {
        let event = soon("the changes", stream.next()).await.unwrap().unwrap();
        seen.push(event.revision());
    }
    assert!(seen.contains(&first));

    let elsewhere = EtcdStore::new(cluster.config().with_user("writer", "hunter2").with_prefix("/other/")).unwrap();
    let error = elsewhere.apply(&named("a"), Document::json("1"), Precondition::None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let error = elsewhere.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error:?}");
    let root = EtcdStore::new(cluster.config().with_user("root", "toor")).unwrap();
    assert!(root.maintenance_snapshot(&mut Vec::new()).await.unwrap() > 0);
}

#[tokio::test]
async fn a_client_without_credentials_fails_at_once_and_no_password_is_shown() {
    let Some(cluster) = with_users(Setup::default()).await else { return };
    let patient = cluster.config().with_request_timeout(TIMEOUT * 4);
    for config in [patient.clone(), patient.with_user("writer", "12345678")] {
        let store = EtcdStore::new(config.clone()).unwrap();
        let begin = Instant::now();
        let error = store.apply(&named("a"), Document::json("{}"), Precondition::None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
        assert!(begin.elapsed() < TIMEOUT);
        assert!(!format!("{error} {error:?} {store:?} {config:?}").contains("12345678"));
        let error = store.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error:?}");
    }
}

#[tokio::test]
async fn a_password_for_a_member_that_asks_for_none_is_no_error() {
    let Some(cluster) = Cluster::one() else { return };
    let store = EtcdStore::new(cluster.config().with_user("writer", "hunter2")).unwrap();
    store.apply(&named("a"), Document::json("{}"), Precondition::None).await.unwrap();
}

#[tokio::test]
async fn authentication_that_is_enabled_later_is_met_with_the_password() {
    let Some(cluster) = Cluster::one() else { return };
    let store = EtcdStore::new(cluster.config().with_user("writer", "hunter2")).unwrap();
    store.apply(&named("a"), Document::json("1"), Precondition::None).await.unwrap();
    add_users(&cluster).await;
    store.apply(&named("a"), Document::json("2"), Precondition::None).await.unwrap();
}

#[tokio::test]
async fn without_a_listener_a_call_ends_in_time_and_is_known_to_have_done_nothing() {
    // Bound, so that no other test gets the port, and not listening.
    let deaf = tokio::net::TcpSocket::new_v4().unwrap();
    deaf.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = deaf.local_addr().unwrap().port();
    let config =
        Config::default().with_endpoints([format!("127.0.0.1:{port}")]).with_request_timeout(Duration::from_secs(2));
    let store = EtcdStore::new(config).unwrap();
    let begin = Instant::now();
    for error in [
        store.apply(&named("a"), Document::json("{}"), Precondition::None).await.unwrap_err(),
        store.delete(&named("a"), Precondition::None).await.unwrap_err(),
        store.get(&named("a"), None).await.unwrap_err(),
        store.watch(&Selector::all(), StoreWatchOptions::default()).await.unwrap_err(),
        store.stats().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(!error.to_string().contains("outcome"), "{error}");
        assert!(error.to_string().contains(&format!("endpoint=http://127.0.0.1:{port}")), "{error}");
    }
    assert!(begin.elapsed() < TIMEOUT);
}

#[tokio::test]
async fn a_call_to_a_silent_listener_ends_in_time() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let config = Config::default()
        .with_endpoints([listener.local_addr().unwrap().to_string()])
        .with_request_timeout(Duration::from_millis(500));
    let store = EtcdStore::new(config).unwrap();
    let begin = Instant::now();
    let error = store.stats().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error:?}");
    assert!(begin.elapsed() < TIMEOUT);
}
