//! A relay before a daemon's socket.

use std::{
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Counts the requests that pass, and replaces words in their first lines. Its threads end with the process.
#[derive(Debug)]
pub struct Relay {
    socket: PathBuf,
    requests: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl Relay {
    /// A relay before this socket, which replaces each first word by its second.
    pub fn before(daemon: &Path, replaced: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the socket");
        let socket = folder.path().join("relay.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let relay = Self { socket, requests: Arc::default(), _folder: folder };
        let requests = Arc::clone(&relay.requests);
        let daemon = daemon.to_owned();
        let replaced: Vec<_> = replaced.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = UnixStream::connect(&daemon) else { continue };
                let (Ok(answers), Ok(asked)) = (server.try_clone(), client.try_clone()) else { continue };
                let (requests, replaced) = (Arc::clone(&requests), replaced.clone());
                thread::spawn(move || pass_requests(client, server, &requests, &replaced));
                thread::spawn(move || pass_answers(answers, asked));
            }
        });
        relay
    }

    /// The socket to connect to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Requests since the last call.
    pub fn take_requests(&self) -> usize {
        self.requests.swap(0, Ordering::Relaxed)
    }
}

/// Both clients write the head of a request at once, and ask for lists and inspections only, which have no body.
fn pass_requests(
    mut client: UnixStream,
    mut server: UnixStream,
    requests: &AtomicUsize,
    replaced: &[(String, String)],
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let mut head = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(head.starts_with("GET ") && head.ends_with("\r\n\r\n"), "no whole head: {head}");
        requests.fetch_add(1, Ordering::Relaxed);
        let line = head.find("\r\n").unwrap_or(head.len());
        let altered = replaced.iter().fold(head[..line].to_owned(), |line, (from, to)| line.replace(from, to));
        head.replace_range(..line, &altered);
        if server.write_all(head.as_bytes()).is_err() {
            break;
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
}

fn pass_answers(mut server: UnixStream, mut client: UnixStream) {
    let _ = io::copy(&mut server, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
}
