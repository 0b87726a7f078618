use std::{ffi::OsStr, fs};

use super::*;

fn config<const N: usize>(variables: [(&str, &str); N]) -> Result<Config> {
    Environment::of(variables.map(|(name, value)| (name, OsStr::new(value)))).config()
}

/// A docker folder with these files.
fn docker_folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn in_folder(folder: &tempfile::TempDir, name: &str, value: &str) -> Result<Config> {
    Environment::of([("DOCKER_CONFIG", folder.path().as_os_str()), (name, OsStr::new(value))]).config()
}

fn tcp(host: &str, port: u16, tls: bool) -> Endpoint {
    Endpoint::Tcp { host: host.to_owned(), port, tls }
}

#[test]
fn without_variables_it_is_the_default_socket() {
    assert_eq!(config([]).unwrap().endpoint, Endpoint::unix("/var/run/docker.sock"));
    assert_eq!(config([("DOCKER_HOST", "")]).unwrap().endpoint, Endpoint::default());
    assert_eq!(config([]).unwrap().backend_id().as_str(), "docker:local");
}

#[test]
fn every_form_of_a_host_is_read() {
    let table = [
        ("unix:///tmp/a b.sock", Endpoint::unix("/tmp/a b.sock"), "docker:/tmp/a b.sock"),
        ("unix:///run/docker.sock", Endpoint::unix("/run/docker.sock"), "docker:local"),
        ("tcp://build-7:2375", tcp("build-7", 2375, false), "docker:build-7:2375"),
        ("tcp://build-7", tcp("build-7", 2375, false), "docker:build-7:2375"),
        ("TCP://10.0.0.1:1/", tcp("10.0.0.1", 1, false), "docker:10.0.0.1:1"),
        ("http://h:80", tcp("h", 80, false), "docker:h:80"),
        ("https://h", tcp("h", 2376, true), "docker:h:2376"),
        ("tcp://[::1]:4243", tcp("::1", 4243, false), "docker:[::1]:4243"),
        ("tcp://[fe80::1]", tcp("fe80::1", 2375, false), "docker:[fe80::1]:2375"),
    ];
    for (host, endpoint, id) in table {
        let config = config([("DOCKER_HOST", host)]).unwrap();
        assert_eq!(config.endpoint, endpoint, "{host}");
        assert_eq!(config.backend_id().as_str(), id, "{host}");
    }
}

#[test]
fn a_bad_host_is_an_error_with_variable_and_value() {
    let invalid = [
        "/var/run/docker.sock",
        "unix://",
        "tcp://",
        "tcp://:2375",
        "tcp://h:0",
        "tcp://h:99999",
        "tcp://h:x",
        "tcp://h:1/path",
        "tcp://a b",
        "tcp://[::1",
        "tcp://[::g]:1",
        "tcp://[::1]x",
        "gopher://h",
        "://",
    ];
    for host in invalid {
        let error = config([("DOCKER_HOST", host)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{host}");
        let named = error.message().matches("DOCKER_HOST").count();
        assert!(named == 1 && error.message().contains(host), "{error}");
    }
    for host in ["ssh://", "ssh://user@host", "npipe:////./pipe/docker_engine", "fd://"] {
        let error = config([("DOCKER_HOST", host)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{host}");
        assert!(error.to_string().contains("DOCKER_HOST"), "{error}");
    }
}

#[test]
fn no_error_shows_a_credential() {
    for host in ["tcp://me:hunter2@h:2375", "ssh://me:hunter2@h", "me:hunter2@h", "https://hunter2@h"] {
        let error = config([("DOCKER_HOST", host)]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_not_text_is_an_error() {
    use std::os::unix::ffi::OsStrExt;
    let error = Environment::of([("DOCKER_HOST", OsStr::from_bytes(b"unix://\xff"))]).config().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn tls_verify_means_the_encrypted_port_and_the_files_of_the_cert_path() {
    let folder = docker_folder(&[("ca.pem", ""), ("cert.pem", ""), ("key.pem", "")]);
    let path = folder.path().to_str().unwrap();
    let all =
        |host: &str| config([("DOCKER_HOST", host), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", path)]).unwrap();
    assert_eq!(all("tcp://h").endpoint, tcp("h", 2376, true));
    assert_eq!(all("tcp://h:4243").endpoint, tcp("h", 4243, true));
    let tls = Tls::default()
        .with_ca(folder.path().join("ca.pem"))
        .with_identity(folder.path().join("cert.pem"), folder.path().join("key.pem"));
    assert_eq!(all("tcp://h").tls, Some(tls));
    assert_eq!(all("unix:///a").tls, None, "a socket needs none");

    let error = config([("DOCKER_HOST", "https://h"), ("DOCKER_CERT_PATH", "/nonexistent")]).unwrap_err();
    assert!(error.to_string().contains("DOCKER_CERT_PATH=/nonexistent"), "{error}");
}

#[test]
fn a_certificate_without_its_key_is_not_left_out_in_silence() {
    for (there, missing) in [("cert.pem", "key.pem"), ("key.pem", "cert.pem")] {
        let folder = docker_folder(&[("ca.pem", ""), (there, "")]);
        let path = folder.path().to_str().unwrap();
        let error = config([("DOCKER_HOST", "https://h"), ("DOCKER_CERT_PATH", path)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&format!("{missing}' is missing")), "{error}");
    }
    let folder = docker_folder(&[("ca.pem", "")]);
    let tls =
        config([("DOCKER_HOST", "https://h"), ("DOCKER_CERT_PATH", folder.path().to_str().unwrap())]).unwrap().tls;
    assert_eq!(tls, Some(Tls::default().with_ca(folder.path().join("ca.pem"))));
}

#[test]
fn an_api_version_limits_what_is_spoken() {
    assert_eq!(config([("DOCKER_API_VERSION", "1.43")]).unwrap().max_api_version, Some(ApiVersion::new(1, 43)));
    for text in ["1.40", "one", "v1.43", "1.43.1"] {
        let error = config([("DOCKER_API_VERSION", text)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("DOCKER_API_VERSION") && error.to_string().contains(text), "{error}");
    }
}

/// `printf desktop-linux | sha256sum`
const DESKTOP: &str = "fe9c6bd7a66301f49ca9b6a70b217107cd1284598bfc254700c989b916da791e";

fn meta(json: &str) -> tempfile::TempDir {
    docker_folder(&[
        ("config.json", r#"{"auths":{},"currentContext":"desktop-linux"}"#),
        (&format!("contexts/meta/{DESKTOP}/meta.json"), json),
    ])
}

#[test]
fn the_current_context_is_followed() {
    let folder = meta(
        r#"{"Name":"desktop-linux","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///home/me/.docker/desktop/docker.sock","SkipTLSVerify":false}}}"#,
    );
    let endpoint = Endpoint::unix("/home/me/.docker/desktop/docker.sock");
    assert_eq!(in_folder(&folder, "", "").unwrap().endpoint, endpoint);
    assert_eq!(in_folder(&folder, "DOCKER_CONTEXT", "desktop-linux").unwrap().endpoint, endpoint);
    assert_eq!(in_folder(&folder, "DOCKER_CONTEXT", "default").unwrap().endpoint, Endpoint::default());
    assert_eq!(
        in_folder(&folder, "DOCKER_HOST", "tcp://h:1").unwrap().endpoint,
        tcp("h", 1, false),
        "the host goes first"
    );
}

#[test]
fn a_context_brings_its_own_tls_files() {
    let folder = meta(r#"{"Endpoints":{"docker":{"Host":"tcp://build-7:2376"}}}"#);
    let tls = folder.path().join("contexts/tls").join(DESKTOP).join("docker");
    fs::create_dir_all(&tls).unwrap();
    fs::write(tls.join("ca.pem"), "").unwrap();
    let config = in_folder(&folder, "", "").unwrap();
    assert_eq!(config.endpoint, tcp("build-7", 2376, true));
    assert_eq!(config.tls, Some(Tls::default().with_ca(tls.join("ca.pem"))));
}

#[test]
fn a_context_that_cannot_be_followed_says_why() {
    let folder = meta(r#"{"Endpoints":{"docker":{"Host":"tcp://h:1","SkipTLSVerify":true}}}"#);
    assert_eq!(in_folder(&folder, "", "").unwrap_err().kind(), ErrorKind::Unsupported);
    let folder = meta(r#"{"Endpoints":{"docker":{"Host":"ssh://me@h"}}}"#);
    assert_eq!(in_folder(&folder, "", "").unwrap_err().kind(), ErrorKind::Unsupported);
    let folder = meta(r#"{"Endpoints":{"kubernetes":{}}}"#);
    assert_eq!(in_folder(&folder, "", "").unwrap_err().kind(), ErrorKind::InvalidInput);
    let folder = meta("{\"Endpoints\":");
    let error = in_folder(&folder, "", "").unwrap_err();
    assert!(error.to_string().contains("meta.json"), "{error}");
    let error = in_folder(&folder, "DOCKER_CONTEXT", "elsewhere").unwrap_err();
    assert!(error.to_string().contains("elsewhere") && error.to_string().contains("DOCKER_CONTEXT"), "{error}");
}

#[test]
fn a_missing_docker_folder_is_no_error_and_a_broken_one_is() {
    assert_eq!(config([("HOME", "/nonexistent")]).unwrap().endpoint, Endpoint::default());
    let folder = docker_folder(&[("config.json", r#"{"currentContext": 7, "auths": {"r": {"auth": "hunter2"}}}"#)]);
    let error = in_folder(&folder, "", "").unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"));
    let folder = docker_folder(&[("config.json", r#"{"auths":{}}"#)]);
    assert_eq!(in_folder(&folder, "", "").unwrap().endpoint, Endpoint::default());
}
