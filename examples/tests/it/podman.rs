//! The examples with a Podman, named as its own command names it.

use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    thread,
};

use crate::cli::{example, text};

/// A Podman without containers on this socket.
fn podman(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut request = [0; 8192];
                while let Ok(length @ 1..) = stream.read(&mut request) {
                    let line =
                        String::from_utf8_lossy(&request[..length]).lines().next().unwrap_or_default().to_owned();
                    let body = if line.contains("/containers/json") { "[]" } else { "{}" };
                    let head = "HTTP/1.1 200 OK\r\nLibpod-API-Version: 5.4.2\r\nServer: Libpod/5.4.2 (linux)";
                    let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                    if stream.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

#[test]
fn the_podman_that_the_user_names_is_found_without_a_word_of_docker() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("podman.sock");
    podman(&socket);
    let host = format!("unix://{}", socket.display());
    for args in [&["-v"][..], &["-v", "--backend", "podman"], &["-v", "--backend", "podman", "--host", &host]] {
        let mut command = example("ps");
        command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT").env("HOME", "/nonexistent");
        let output = command.args(args).env("CONTAINER_HOST", &host).output().unwrap();
        let notes = text(&output.stderr);
        assert!(output.status.success() && notes.contains("podman 5.4.2"), "{args:?}: {notes}");
        assert!(notes.contains(&host), "{args:?}: {notes}");
    }
    let mut command = example("ps");
    let nowhere = "unix:///nonexistent/podman.sock";
    command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT").env("HOME", "/nonexistent");
    let output = command.args(["--backend", "podman"]).env("CONTAINER_HOST", nowhere).output().unwrap();
    let complaint = text(&output.stderr);
    assert_eq!((output.status.code(), complaint.lines().count()), (Some(2), 1), "{complaint}");
    assert!(complaint.contains(nowhere) && complaint.contains("start the daemon"), "{complaint}");
}
