use std::{ffi::OsStr, fs, process::Command};

use super::*;
use crate::docker_command::{docker, output};

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

fn ssh(text: &str) -> Endpoint {
    let endpoint = text.parse().unwrap();
    assert!(matches!(endpoint, Endpoint::Ssh(_)));
    endpoint
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
        ("127.0.0.1:2375", tcp("127.0.0.1", 2375, false), "docker:127.0.0.1:2375"),
        (":2375", tcp("localhost", 2375, false), "docker:localhost:2375"),
        ("tcp://:4243", tcp("localhost", 4243, false), "docker:localhost:4243"),
        ("tcp://", tcp("localhost", 2375, false), "docker:localhost:2375"),
        ("localhost", tcp("localhost", 2375, false), "docker:localhost:2375"),
        ("unix://", Endpoint::default(), "docker:local"),
        (" tcp://h:1\r\n", tcp("h", 1, false), "docker:h:1"),
        ("ssh://build-7", ssh("ssh://build-7"), "docker:ssh://build-7"),
        (
            "SSH://me@build-7:22/run/d.sock",
            ssh("ssh://me@build-7:22/run/d.sock"),
            "docker:ssh://me@build-7:22/run/d.sock",
        ),
        ("ssh://me@[::1]:22", ssh("ssh://me@[::1]:22"), "docker:ssh://me@[::1]:22"),
        ("unix:///a.sock\r", Endpoint::unix("/a.sock"), "docker:/a.sock"),
        (" \t\r", Endpoint::default(), "docker:local"),
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
        "unix://a://b",
        "tcp://h:0",
        "tcp://h:99999",
        "tcp://h:x",
        "tcp://h:+1",
        "tcp://h:1/path",
        "tcp://a b",
        "tcp://[::1",
        "tcp://[::g]:1",
        "tcp://[::1]x",
        "gopher://h",
        "://",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://h:0",
        "ssh://h/a?b",
    ];
    for host in invalid {
        let error = config([("DOCKER_HOST", host)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{host}");
        let named = error.message().matches("DOCKER_HOST").count();
        assert!(named == 1 && error.message().contains(host), "{error}");
    }
    for host in ["npipe:////./pipe/docker_engine", "fd://"] {
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
fn tls_verify_means_tls_and_the_files_of_the_cert_path() {
    let folder = docker_folder(&[("ca.pem", ""), ("cert.pem", ""), ("key.pem", "")]);
    let path = folder.path().to_str().unwrap();
    let all =
        |host: &str| config([("DOCKER_HOST", host), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", path)]).unwrap();
    assert_eq!(all("tcp://h").endpoint, tcp("h", 2375, true), "as the command has it");
    assert_eq!(all("").endpoint, tcp("localhost", 2376, true));
    assert_eq!(all(" ").endpoint, tcp("localhost", 2376, true));
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
    for text in ["v1.43", " 1.43\r"] {
        assert_eq!(
            config([("DOCKER_API_VERSION", text)]).unwrap().max_api_version,
            Some(ApiVersion::new(1, 43)),
            "{text}"
        );
    }
    assert_eq!(config([("DOCKER_API_VERSION", " ")]).unwrap().max_api_version, None);
    for text in ["1.40", "one", "vv1.43", "1.43.1"] {
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
    let folder = meta(r#"{"Endpoints":{"docker":{"Host":"npipe:////./pipe/docker_engine"}}}"#);
    assert_eq!(in_folder(&folder, "", "").unwrap_err().kind(), ErrorKind::Unsupported);
    let folder = meta(r#"{"Endpoints":{"docker":{"Host":"ssh://-oProxyCommand=x"}}}"#);
    assert_eq!(in_folder(&folder, "", "").unwrap_err().kind(), ErrorKind::InvalidInput);
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

#[test]
fn tls_without_verification_is_refused() {
    for host in ["", " ", "tcp://h", "h:1"] {
        let error = config([("DOCKER_HOST", host), ("DOCKER_TLS", "1")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{host}: {error}");
        assert!(error.to_string().contains("DOCKER_TLS"), "{error}");
    }
    let socket = config([("DOCKER_HOST", "unix:///a"), ("DOCKER_TLS", "1")]).unwrap();
    assert_eq!(socket.endpoint, Endpoint::unix("/a"), "a socket has no TLS");
}

/// The command reads its CA before it looks at an address.
fn certificate() -> String {
    rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem()
}

/// The address that the `docker` command finds with these variables, or its error.
fn found_by_docker(
    mut docker: Command,
    variables: &[(&str, &str)],
    context: Option<&str>,
) -> std::result::Result<String, String> {
    docker
        .envs(variables.iter().copied())
        .args(["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"])
        .args(context);
    let output = output(&mut docker);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// An address as the command writes it.
fn written(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Tcp { .. } => format!("tcp://{}", endpoint.authority()),
        other => other.to_string(),
    }
}

/// Every form of `DOCKER_HOST`, against the command itself.
#[test]
fn docker_host_is_what_the_docker_command_takes_it_for() {
    let forms = [
        "unix:///var/run/docker.sock",
        "unix:///tmp/a b.sock",
        "unix:///tmp/a%20b.sock",
        "unix:///tmp/a?b#c",
        "unix://relative.sock",
        "unix://",
        "tcp://h",
        "tcp://h:1",
        "tcp://h:1/",
        "tcp://h:",
        "tcp://:2375",
        "tcp://",
        "tcp://tcp://h",
        "tcp://127.0.0.1",
        "tcp://[::1]:4243",
        "tcp://[::1]:",
        "127.0.0.1:2375",
        "127.0.0.1",
        ":2375",
        ":",
        "localhost",
        "localhost:1",
        "h:",
        "[::1]:5",
        "[::1]:",
        " tcp://h:1",
        "tcp://h:1 ",
        "tcp://h:1\r",
        "tcp://h:1\r\n",
        "unix:///a.sock\r",
        "unix:// ",
        "localhost\t",
        " ",
        "\r",
        "\u{a0}h\u{a0}",
        "ssh://h",
        "ssh://me@h:22",
    ];
    // Both refuse these.
    let refused = ["://", "gopher://h", "unix://a://b", "tcp://h:x", "tcp://a://b", "tcp://[::1", "tcp://a b"];
    let folder = docker_folder(&[("ca.pem", &certificate())]);
    let path = folder.path().to_str().unwrap();
    for tls in ["", "1"] {
        for form in forms.iter().chain(&refused) {
            let Some(docker) = docker("addresses") else { return };
            let variables = [
                ("DOCKER_HOST", *form),
                ("DOCKER_CONFIG", path),
                ("DOCKER_CERT_PATH", path),
                ("DOCKER_TLS_VERIFY", tls),
            ];
            let theirs = found_by_docker(docker, &variables, Some("default"));
            let ours = config(variables);
            match theirs {
                Ok(theirs) => {
                    let theirs = theirs.strip_suffix('/').unwrap_or(&theirs);
                    assert_eq!(written(&ours.unwrap().endpoint), theirs, "{form:?}, TLS '{tls}'");
                }
                Err(_) => {
                    assert!(refused.contains(form) && ours.is_err(), "{form:?}, TLS '{tls}': {theirs:?}, {ours:?}");
                }
            }
        }
    }
    let Some(docker) = docker("addresses") else { return };
    let variables = [("DOCKER_CONFIG", path), ("DOCKER_CERT_PATH", path), ("DOCKER_TLS_VERIFY", "1")];
    let theirs = found_by_docker(docker, &variables, Some("default")).unwrap();
    assert_eq!(written(&config(variables).unwrap().endpoint), theirs, "TLS and no address");
}

/// Contexts that the command itself made, chosen in each way, against the command's own choice.
#[test]
fn contexts_are_those_of_the_docker_command() {
    let folder = docker_folder(&[("config.json", "{}"), ("ca.pem", &certificate())]);
    let path = folder.path().to_str().unwrap();
    let certificate = folder.path().join("ca.pem");
    for (name, endpoint) in [
        ("a-socket", "host=unix:///run/other.sock".to_owned()),
        ("remote", "host=tcp://build-7:4243".to_owned()),
        ("by-ssh", "host=ssh://me@build-7:22".to_owned()),
        ("secured", format!("host=tcp://build-8:2376,ca={}", certificate.display())),
    ] {
        let Some(mut docker) = docker("contexts") else { return };
        let made = output(docker.env("DOCKER_CONFIG", path).args(["context", "create", name, "--docker", &endpoint]));
        assert!(made.status.success(), "{made:?}");
    }
    let compare = |variables: &[(&'static str, &'static str)]| {
        let docker = docker("contexts").unwrap();
        let mut all = variables.to_vec();
        all.push(("DOCKER_CONFIG", ""));
        let theirs: Vec<_> =
            all.iter().map(|(name, value)| (*name, if *name == "DOCKER_CONFIG" { path } else { *value })).collect();
        let theirs = found_by_docker(docker, &theirs, None);
        let lookup: Vec<_> = variables.iter().map(|(name, value)| (*name, OsStr::new(*value))).collect();
        let of = |at: usize| lookup.get(at).copied().unwrap_or(("", OsStr::new("")));
        let ours = Environment::of([("DOCKER_CONFIG", folder.path().as_os_str()), of(0), of(1)]).config();
        match theirs {
            Ok(theirs) => assert_eq!(written(&ours.as_ref().unwrap().endpoint), theirs, "{variables:?}"),
            Err(_) => assert!(ours.is_err(), "{variables:?}: {theirs:?}, {ours:?}"),
        }
        ours
    };
    for chosen in ["a-socket", "remote", "by-ssh", "secured", "default", "no-such-context"] {
        let by_variable = compare(&[("DOCKER_CONTEXT", chosen)]);
        let _ = compare(&[("DOCKER_CONTEXT", chosen), ("DOCKER_HOST", "tcp://h:1")]);
        fs::write(folder.path().join("config.json"), format!(r#"{{"currentContext":"{chosen}"}}"#)).unwrap();
        let by_file = compare(&[]);
        assert_eq!(
            by_variable.ok().map(|config| config.endpoint),
            by_file.as_ref().ok().map(|config| config.endpoint.clone())
        );
        if chosen == "secured" {
            let config = by_file.unwrap();
            assert!(matches!(config.endpoint, Endpoint::Tcp { tls: true, .. }) && config.tls.unwrap().ca.is_some());
        }
        fs::write(folder.path().join("config.json"), "{}").unwrap();
    }
}
