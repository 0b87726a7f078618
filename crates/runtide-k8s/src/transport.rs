//! HTTP/1.1 to one API server, as the service below kube's client: connections, TLS, proxies, and the address of each request.
//!
//! kube's own stack is not used: its TLS takes the process's default provider, which panics where there is none or two, its retries
//! repeat every verb (trap K20), and its credentials are cached, or run without a deadline (trap K21). Each watch has a connection of
//! its own, since one that hangs must not keep others from being answered.

use std::{
    error::Error as StdError,
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use base64::Engine as _;
use http::{HeaderValue, Request, Response, Uri, uri::PathAndQuery};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        self,
        connect::{
            Connected, Connection,
            proxy::{SocksV5, Tunnel},
        },
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use kube::client::Body;
use percent_encoding::percent_decode_str;
use runtide_core::{Error, ErrorKind, Result, backend::poll_interval};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    },
};
use tower_service::Service;

use crate::{
    access::{Access, Identity, Pem},
    credentials::Credentials,
};

/// Operation in the errors of an access that cannot work.
const OPERATION: &str = "k8s.access";
/// Idle connections of the pool, and the time for which they stay.
const IDLE_CONNECTIONS: usize = 8;
const IDLE_FOR: Duration = Duration::from_secs(15);

type BoxError = Box<dyn StdError + Send + Sync>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, OPERATION, message)
}

/// Scheme, host and path of the server, put in front of each request's path.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    uri: Uri,
    host: String,
    port: u16,
    is_tls: bool,
}

impl Base {
    pub(crate) fn of(server: &str) -> Result<Self> {
        let unusable = |why: &str| invalid(format!("the server's address is unusable: {why}"));
        let with_scheme = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let uri: Uri = with_scheme.parse().map_err(|_| unusable("it is no URL"))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(unusable("its scheme is neither https nor http")),
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(unusable("it carries a name or password, which belongs to the user"));
        }
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if host.is_empty() || uri.query().is_some() {
            return Err(unusable("expected https://host:port, with or without a path"));
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { uri, host, port, is_tls })
    }

    /// The whole address for a path of the API.
    fn address(&self, path: Option<&PathAndQuery>) -> std::result::Result<Uri, http::Error> {
        let prefix = self.uri.path().trim_end_matches('/');
        let path = path.map_or("/", PathAndQuery::as_str);
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(format!("{prefix}{path}").parse()?);
        Ok(Uri::from_parts(parts)?)
    }
}

/// A way to one host and port, and TLS on it.
#[derive(Clone)]
struct Hop {
    host: Arc<str>,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Hop {
    async fn dial(&self) -> io::Result<Stream> {
        // An unknown host name is an error without a kind of its own.
        let unknown = |error| io::Error::new(io::ErrorKind::HostUnreachable, error);
        let found: Vec<_> = tokio::net::lookup_host((&*self.host, self.port)).await.map_err(unknown)?.collect();
        let tcp = TcpStream::connect(&found[..]).await.map_err(|error| match poll_interval(&error, false) {
            Some(interval) => io::Error::new(error.kind(), Unreached { interval, error }),
            None => error,
        })?;
        tcp.set_nodelay(true)?;
        self.encrypt(tcp).await
    }

    async fn encrypt(&self, io: impl Io + 'static) -> io::Result<Stream> {
        Ok(match &self.tls {
            Some((tls, name)) => Stream(Box::new(tls.connect(name.clone(), io).await?)),
            None => Stream(Box::new(io)),
        })
    }
}

impl Service<Uri> for Hop {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = BoxFuture<io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let hop = self.clone();
        Box::pin(async move { hop.dial().await.map(TokioIo::new) })
    }
}

/// A proxy on the way to the server.
#[derive(Clone)]
enum Proxy {
    Http(Tunnel<Hop>),
    Socks(SocksV5<Hop>),
}

/// Dials the server, through the proxy if there is one.
#[derive(Clone)]
pub(crate) struct Connector {
    server: Hop,
    proxy: Option<Proxy>,
    deadline: Duration,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("host", &self.server.host).finish_non_exhaustive()
    }
}

impl Connector {
    /// Reads the files of the access: they may have been replaced since the last time.
    pub(crate) fn new(access: &Access, identity: Option<&Identity>, deadline: Duration) -> Result<Self> {
        let base = Base::of(&access.server)?;
        let tls = if base.is_tls { Some(tls(access, identity, &base.host)?) } else { None };
        let proxy = access.proxy.as_ref().map(|url| proxy(url.reveal())).transpose()?;
        Ok(Self { server: Hop { host: base.host.into(), port: base.port, tls }, proxy, deadline })
    }

    async fn connect(&self, uri: Uri) -> io::Result<TokioIo<Stream>> {
        let dialled = tokio::time::timeout(self.deadline, async {
            let through = match self.proxy.clone() {
                None => return self.server.dial().await,
                Some(Proxy::Http(mut tunnel)) => tunnel.call(uri).await.map_err(io::Error::other)?,
                Some(Proxy::Socks(mut socks)) => {
                    socks.call(uri).await.map_err(|error| io::Error::other(error.to_string()))?
                }
            };
            self.server.encrypt(through.into_inner()).await
        });
        let stream = dialled.await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))?;
        Ok(TokioIo::new(stream))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = BoxFuture<io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri).await })
    }
}

/// The error of a dial that reached no server. A connection that breaks may have an error of the same kind.
#[derive(Debug)]
pub(crate) struct Unreached {
    /// Interval at which the dial may be repeated.
    pub(crate) interval: Duration,
    error: io::Error,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for Unreached {}

/// A carrier of bytes: a socket, or TLS on one.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection.
pub(crate) struct Stream(Box<dyn Io>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

fn proxy(url: &str) -> Result<Proxy> {
    // The address may hold a password, and is shown in no error.
    let unusable = |why: &str| invalid(format!("the proxy's address is unusable: {why}"));
    let uri: Uri = url.parse().map_err(|_| unusable("it is no URL"))?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| unusable("it names no host"))?;
    let host = host.trim_matches(['[', ']']);
    let login = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@')).map(|(login, _)| {
        let (name, password) = login.split_once(':').unwrap_or((login, ""));
        [name, password].map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
    });
    let hop = |port: u16, tls| Hop { host: host.into(), port: uri.port_u16().unwrap_or(port), tls };
    match uri.scheme_str() {
        Some(scheme @ ("http" | "https")) => {
            let hop = if scheme == "https" {
                let name =
                    ServerName::try_from(host.to_owned()).map_err(|_| unusable("no certificate has such a name"))?;
                let config = builder()?.with_root_certificates(native_roots()?).with_no_client_auth();
                hop(443, Some((TlsConnector::from(Arc::new(config)), name)))
            } else {
                hop(80, None)
            };
            let tunnel = Tunnel::new(uri.clone(), hop);
            Ok(Proxy::Http(match login {
                Some([name, password]) => {
                    let login = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
                    let mut header = HeaderValue::try_from(format!("Basic {login}"))
                        .map_err(|_| unusable("its login cannot be sent"))?;
                    header.set_sensitive(true);
                    tunnel.with_auth(header)
                }
                None => tunnel,
            }))
        }
        Some("socks5" | "socks5h") => {
            let socks = SocksV5::new(uri.clone(), hop(1080, None));
            Ok(Proxy::Socks(match login {
                Some([name, password]) => socks.with_auth(name, password),
                None => socks,
            }))
        }
        _ => Err(unusable("its scheme is none of http, https and socks5")),
    }
}

fn builder() -> Result<tokio_rustls::rustls::ConfigBuilder<ClientConfig, tokio_rustls::rustls::WantsVerifier>> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid("the provider has no usable protocol version").with_source(error))
}

fn tls(access: &Access, identity: Option<&Identity>, host: &str) -> Result<(TlsConnector, ServerName<'static>)> {
    let name = access.tls_server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned())
        .map_err(|error| invalid(format!("'{name}' is no name that a certificate could have")).with_source(error))?;
    let builder = if access.insecure {
        builder()?.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(ring::default_provider())))
    } else {
        let roots = match &access.ca {
            Some(ca) => roots(ca)?,
            None => native_roots()?,
        };
        builder()?.with_root_certificates(roots)
    };
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let chain = certificates(certificate, "the client's certificate")?;
            builder.with_client_auth_cert(chain, private_key(key)?).map_err(|error| {
                invalid("the client's certificate and key are unusable, or do not go together").with_source(error)
            })?
        }
    };
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// The bytes of PEM blocks, and where they are.
fn bytes(pem: &Pem, what: &str) -> Result<Vec<u8>> {
    match pem {
        Pem::Inline(text) => Ok(text.reveal().as_bytes().to_vec()),
        Pem::File(path) => std::fs::read(path).map_err(|error| {
            invalid(format!("{what} cannot be read from '{}'", path.display()))
                .with_context("path", path.display())
                .with_source(error)
        }),
    }
}

/// The error for PEM blocks that cannot be read. The parser's own text quotes the line, which may be a key.
fn no_pem(pem: &Pem, what: &str) -> Error {
    match pem {
        Pem::Inline(_) => invalid(format!("{what} is not PEM")),
        Pem::File(path) => invalid(format!("{what} is not PEM")).with_context("path", path.display()),
    }
}

fn certificates(pem: &Pem, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(pem, what)?).collect();
    read.ok().filter(|all| !all.is_empty()).ok_or_else(|| no_pem(pem, what))
}

fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>> {
    const WHAT: &str = "the client's key";
    PrivateKeyDer::from_pem_slice(&bytes(pem, WHAT)?).map_err(|_| no_pem(pem, WHAT))
}

fn roots(ca: &Pem) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca, "the certificate-authority")? {
        roots.add(certificate).map_err(|error| invalid("a CA's certificate is unusable").with_source(error))?;
    }
    Ok(roots)
}

fn native_roots() -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(invalid("this machine has no root certificates, and no CA is configured"));
    }
    Ok(roots)
}

/// `insecure-skip-tls-verify`: any certificate is taken; the signatures of the handshake are still checked.
#[derive(Debug)]
struct Anyone(CryptoProvider);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, tokio_rustls::rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Sends requests; the innermost service of kube's client.
#[derive(Clone)]
pub(crate) struct Transport {
    http: legacy::Client<Connector, Body>,
    base: Arc<Base>,
    credentials: Arc<Credentials>,
}

impl Transport {
    /// `pools`: idle connections are kept for the next request. Without, each request has a connection of its own.
    pub(crate) fn new(connector: Connector, base: Base, credentials: Arc<Credentials>, pools: bool) -> Self {
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(if pools { IDLE_CONNECTIONS } else { 0 })
            .build(connector);
        Self { http, base: Arc::new(base), credentials }
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<std::result::Result<Response<Incoming>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Self { http, base, credentials } = self.clone();
        Box::pin(async move {
            *request.uri_mut() = base.address(request.uri().path_and_query())?;
            credentials.authorize(request.headers_mut()).await?;
            Ok(http.request(request).await?)
        })
    }
}

/// An error and all of its causes. `io::Error::source` skips the error that it wraps; this iterator does not.
pub(crate) fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&current| {
        match current.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn StdError + 'static)),
            None => current.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_have_a_path_and_no_password() {
        let base = Base::of("https://rancher.example.com/k8s/clusters/c1/").unwrap();
        assert_eq!((base.host.as_str(), base.port, base.is_tls), ("rancher.example.com", 443, true));
        let address = base.address("/api/v1/pods?limit=1".parse().ok().as_ref()).unwrap();
        assert_eq!(address, "https://rancher.example.com/k8s/clusters/c1/api/v1/pods?limit=1");
        let base = Base::of("[fd00::1]:8080").unwrap();
        assert_eq!((base.host.as_str(), base.port, base.is_tls), ("fd00::1", 8080, false));
        for server in ["", "ftp://h", "https://", "https://me:pw@h", "https://h?x=1", "https://h h"] {
            let error = Base::of(server).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidInput && !error.to_string().contains("pw"), "{server}: {error}");
        }
    }

    #[test]
    fn proxies_are_http_https_and_socks_and_no_error_shows_their_password() {
        for url in ["http://proxy", "http://me:p%40w@proxy:3128", "socks5://proxy:1080", "socks5h://me:pw@[fd00::1]"] {
            proxy(url).map(drop).unwrap();
        }
        for url in ["ftp://me:pw@proxy", "http://", "me:pw"] {
            let error = proxy(url).map(drop).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidInput && !format!("{error:?}").contains("pw"), "{error:?}");
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_named_and_not_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let access = Access::new("https://h").with_ca(Pem::File(path.clone()));
        let missing = Connector::new(&access, None, Duration::from_secs(1)).unwrap_err();
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\ns3cret\n").unwrap();
        let torn = Connector::new(&access, None, Duration::from_secs(1)).unwrap_err();
        for error in [missing, torn] {
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(path.to_str().unwrap()) && !shown.contains("s3cret"), "{shown}");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }
}
