//! A listener on tcp before a daemon's socket: as `dockerd --tlsverify`, and as servers that are mistaken for it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use runtide_docker::Endpoint;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, crypto::ring, server::WebPkiClientVerifier},
};

use super::authority::{Authority, Identity};

/// Ends when it is dropped.
pub(crate) struct Front {
    port: u16,
    serving: JoinHandle<()>,
}

/// Treatment of a connection.
#[derive(Clone)]
enum Manner {
    Tls(TlsAcceptor),
    Plain,
    /// Sends these bytes, and hangs up.
    Says(&'static [u8]),
}

impl Front {
    /// Speaks this TLS alone, as `server`, and accepts clients that `clients` signed; `None`: all clients.
    pub(crate) async fn tls(
        socket: &Path,
        version: &'static SupportedProtocolVersion,
        server: &Identity,
        clients: Option<&Authority>,
    ) -> Self {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]).unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.certificate()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder.with_single_cert(server.chain.clone(), server.key.clone_key()).unwrap();
        Self::new(socket, Manner::Tls(TlsAcceptor::from(Arc::new(config)))).await
    }

    /// The daemon in the clear.
    pub(crate) async fn plain(socket: &Path) -> Self {
        Self::new(socket, Manner::Plain).await
    }

    /// Answers every request with these bytes.
    pub(crate) async fn says(words: &'static [u8]) -> Self {
        Self::new(Path::new(""), Manner::Says(words)).await
    }

    async fn new(socket: &Path, manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = socket.to_owned();
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, socket.clone(), manner.clone()));
            }
        });
        Self { port, serving }
    }

    pub(crate) fn endpoint(&self, scheme: &str, host: &str) -> Endpoint {
        format!("{scheme}://{host}:{}", self.port).parse().unwrap()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut tcp: TcpStream, socket: PathBuf, manner: Manner) {
    match manner {
        // A rejected client gets a TLS alert, and the connection is closed.
        Manner::Tls(acceptor) => {
            if let Ok(stream) = acceptor.accept(tcp).await {
                carry(stream, &socket).await;
            }
        }
        Manner::Plain => carry(tcp, &socket).await,
        Manner::Says(words) => {
            let _ = tcp.read(&mut [0; 4096]).await;
            let _ = tcp.write_all(words).await;
        }
    }
}

async fn carry(mut stream: impl AsyncRead + AsyncWrite + Unpin, socket: &Path) {
    let Ok(mut daemon) = UnixStream::connect(socket).await else { return };
    // However it ends, it has ended.
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut daemon).await;
}
