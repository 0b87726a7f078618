//! The API server as the harness reaches it: an address without TLS, behind which every request is the administrator's.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use kube::config::Kubeconfig;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

const LIMIT: Duration = Duration::from_secs(60);

/// A plain listener that passes connections on to the server over TLS. While nothing listens there, it does not listen either. It has a
/// thread of its own, so that its tasks are not counted as the backend's.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    pub(crate) fn of(kubeconfig: &Path) -> Result<Self, String> {
        let config = Kubeconfig::read_from(kubeconfig).map_err(|_| "it is no kubeconfig".to_owned())?;
        let cluster = config.clusters.first().and_then(|entry| entry.cluster.clone()).ok_or("it has no cluster")?;
        let user = config.auth_infos.first().and_then(|entry| entry.auth_info.clone()).ok_or("it has no user")?;
        let uri: http::Uri = cluster.server.unwrap_or_default().parse().map_err(|_| "its server is no address")?;
        let target: SocketAddr = uri
            .authority()
            .and_then(|authority| authority.as_str().parse().ok())
            .ok_or("its server is no address with a port")?;
        let name = ServerName::from(target.ip());
        let file = |path: Option<String>, what: &str| path.ok_or(format!("it names no file with {what}"));
        let mut roots = RootCertStore::empty();
        let read = |error: tokio_rustls::rustls::pki_types::pem::Error| error.to_string();
        let ca = CertificateDer::from_pem_file(file(cluster.certificate_authority, "a CA")?).map_err(read)?;
        roots.add(ca).map_err(|error| error.to_string())?;
        let certificate =
            CertificateDer::from_pem_file(file(user.client_certificate, "a certificate")?).map_err(read)?;
        let key = PrivateKeyDer::from_pem_file(file(user.client_key, "a key")?).map_err(read)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(vec![certificate], key))
            .map_err(|error| error.to_string())?;
        let tls = TlsConnector::from(Arc::new(tls));

        let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    _ = stopped => {}
                    () = pass(listener, address, target, tls, name) => {}
                }
            });
        });
        Ok(Self { address, _stop: stop })
    }

    /// One request on a connection of its own; status and body.
    pub(crate) async fn try_ask(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value), String> {
        let asked = tokio::time::timeout(LIMIT, self.exchange(method, path, body)).await;
        asked.map_err(|_| format!("{method} {path}: no answer"))?.map_err(|error| format!("{method} {path}: {error}"))
    }

    /// As [`try_ask`](Self::try_ask), of which any refusal is an error.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        match self.try_ask(method, path, body).await? {
            (200..=299, answer) => Ok(answer),
            (status, answer) => Err(format!("{method} {path}: {status} {}", answer["message"])),
        }
    }

    /// Makes a namespace that takes pods at once: its account is the controllers' to make, which are slow after the server was away.
    #[allow(dead_code, reason = "not every program makes one")]
    pub(crate) async fn make_namespace(&self, name: &str, labels: Value) -> Result<(), String> {
        let named = serde_json::json!({ "metadata": { "name": name, "labels": labels } });
        self.ask("POST", "/api/v1/namespaces", &named).await?;
        let account = serde_json::json!({ "metadata": { "name": "default" } });
        let path = format!("/api/v1/namespaces/{name}/serviceaccounts");
        match self.try_ask("POST", &path, &account).await? {
            (200..=299 | 409, _) => Ok(()),
            (status, answer) => Err(format!("POST {path}: {status} {}", answer["message"])),
        }
    }

    async fn exchange(&self, method: &str, path: &str, body: &Value) -> io::Result<(u16, Value)> {
        let mut stream = TcpStream::connect(self.address).await?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        // HTTP/1.0: the answer has no chunks, and ends with the connection.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAccept: application/json\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer);
        let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
    }
}

async fn pass(
    mut listener: TcpListener,
    address: SocketAddr,
    target: SocketAddr,
    tls: TlsConnector,
    name: ServerName<'static>,
) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else { return };
        if let Ok(upstream) = TcpStream::connect(target).await {
            let (tls, name) = (tls.clone(), name.clone());
            tokio::spawn(async move {
                if let Ok(mut upstream) = tls.connect(name, upstream).await {
                    let _ = copy_bidirectional(&mut client, &mut upstream).await;
                }
            });
            continue;
        }
        drop((client, listener));
        while TcpStream::connect(target).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
    }
}
