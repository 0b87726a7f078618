//! The kubelet's HTTPS API, as far as the API server asks it for logs and for exec. Each connection has one request.

use std::io::BufReader;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::pods::Pods;
use super::request::{Request, answer};
use super::{exec, logs};
use crate::failure::{Doing, Failure, Outcome};

/// Longest wait for a request, and for an answer to be taken.
const LIMIT: Duration = Duration::from_secs(30);

/// Serves in the background.
pub(super) fn serve(port: u16, pki: &Path, pods: &Arc<Pods>) -> Outcome<()> {
    let tls = Arc::new(configuration(pki)?);
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).doing(format_args!("cannot listen on port {port}"))?;
    let pods = Arc::clone(pods);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let (tls, pods) = (Arc::clone(&tls), Arc::clone(&pods));
            thread::spawn(move || {
                let _ = connection(socket, tls, &pods);
            });
        }
    });
    Ok(())
}

fn configuration(pki: &Path) -> Outcome<ServerConfig> {
    let wrong = |error: &dyn std::fmt::Display| Failure::failed(format_args!("{}: {error}", pki.display()));
    let certificate = |name: &str| CertificateDer::from_pem_file(pki.join(name)).map_err(|error| wrong(&error));
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.crt")?).map_err(|error| wrong(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let verifier = verifier.map_err(|error| wrong(&error))?;
    let key = PrivateKeyDer::from_pem_file(pki.join("kubelet-server.key")).map_err(|error| wrong(&error))?;
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_client_cert_verifier(verifier).with_single_cert(
                vec![certificate("kubelet-server.crt").map_err(|error| rustls::Error::General(error.to_string()))?],
                key,
            )
        })
        .map_err(|error| wrong(&error))
}

fn connection(socket: TcpStream, tls: Arc<ServerConfig>, pods: &Pods) -> std::io::Result<()> {
    socket.set_read_timeout(Some(LIMIT))?;
    socket.set_write_timeout(Some(LIMIT))?;
    socket.set_nodelay(true)?;
    let tls = ServerConnection::new(tls).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(tls, socket));
    let Some(request) = Request::read(&mut stream) else { return Ok(()) };
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["healthz"] => answer(&mut stream, 200, "ok"),
        [verb @ ("containerLogs" | "exec"), namespace, pod, container] => {
            let Some(found) = pods.find(namespace, pod, container) else {
                let missing = format!("pod {namespace}/{pod} or its container {container} is not here");
                return answer(&mut stream, 404, &missing);
            };
            if *verb == "exec" {
                return exec::exec(&mut stream, &request);
            }
            logs::logs(&mut stream, &request, &found.log, || {
                pods.find(namespace, pod, container).is_some_and(|found| found.runs)
            })
        }
        _ => answer(&mut stream, 404, "a fakelet has logs and exec alone"),
    }
}
