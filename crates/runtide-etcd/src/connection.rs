//! Calls to one member over one connection, and the token that they carry: [`Connection`].

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll},
};

use futures_core::Stream;
use http::uri::PathAndQuery;
use runtide_core::manager::Secret;
use tokio::sync::mpsc;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use tonic_prost::ProstCodec;

use crate::wire::{
    AuthenticateRequest, AuthenticateResponse, CompactionRequest, CompactionResponse, RangeRequest, RangeResponse,
    SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse, TxnRequest, TxnResponse, WatchCreateRequest,
    WatchRequest, WatchResponse,
};

/// Most bytes of a received message that carries data. Pages of a listing are cut smaller until they are below it;
/// members cut the messages of a watch at 2 MiB, or put a single event into one.
const LARGEST_DATA: usize = 64 << 20;

/// Most bytes of any other message; the default of gRPC.
const LARGEST_OTHER: usize = 4 << 20;

/// Requests of a watch that wait to be sent. More than a handful means that the link is stuck.
const WATCH_REQUESTS: usize = 16;

const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";

type Token = MetadataValue<Ascii>;

/// A connection to one member. A clone is the same connection.
#[derive(Clone)]
pub(crate) struct Connection {
    channel: Channel,
    session: Arc<Session>,
}

/// Credentials, and the token that the member gave for them.
struct Session {
    user: Option<(String, Secret)>,
    /// `None` without a user, or if the cluster has authentication disabled.
    token: RwLock<Option<Token>>,
    /// Locked while a token is requested, so that concurrent calls with an expired one request a single new one.
    renewal: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    /// Authenticates, if there is a user; without one nothing is sent.
    pub(crate) async fn open(channel: Channel, user: Option<(String, Secret)>) -> Result<Self, Status> {
        let session = Session { user, token: RwLock::default(), renewal: tokio::sync::Mutex::default() };
        let connection = Self { channel, session: Arc::new(session) };
        connection.renew(None).await?;
        Ok(connection)
    }

    pub(crate) async fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        self.with_token(|token| self.unary(RANGE, LARGEST_OTHER, token, request.clone())).await
    }

    pub(crate) async fn txn(&self, request: &TxnRequest) -> Result<TxnResponse, Status> {
        self.with_token(|token| self.unary(TXN, LARGEST_DATA, token, request.clone())).await
    }

    pub(crate) async fn compact(&self, request: &CompactionRequest) -> Result<CompactionResponse, Status> {
        self.with_token(|token| self.unary(COMPACT, LARGEST_OTHER, token, *request)).await
    }

    pub(crate) async fn status(&self) -> Result<StatusResponse, Status> {
        self.with_token(|token| self.unary(STATUS, LARGEST_OTHER, token, StatusRequest {})).await
    }

    /// The member's database, in pieces.
    pub(crate) async fn snapshot(&self) -> Result<Streaming<SnapshotResponse>, Status> {
        self.with_token(async |token| {
            let mut grpc = self.ready(LARGEST_OTHER).await?;
            let (path, codec) = (PathAndQuery::from_static(SNAPSHOT), ProstCodec::default());
            Ok(grpc.server_streaming(request(SnapshotRequest {}, token), path, codec).await?.into_inner())
        })
        .await
    }

    pub(crate) async fn watch(&self, create: &WatchCreateRequest) -> Result<WatchStream, Status> {
        self.with_token(async |token| {
            let (requests, waiting) = mpsc::channel(WATCH_REQUESTS);
            requests.try_send(create.clone().into()).map_err(closed)?;
            let mut grpc = self.ready(LARGEST_DATA).await?;
            let (path, codec) = (PathAndQuery::from_static(WATCH), ProstCodec::default());
            let responses = grpc.streaming(request(Requests(waiting), token), path, codec).await?.into_inner();
            Ok(WatchStream { requests, responses })
        })
        .await
    }

    /// Sends; if the member refuses the token, requests another one and sends once more. A refused request had no effect.
    async fn with_token<T, F>(&self, send: impl Fn(Option<Token>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let token = self.token();
        match send(token.clone()).await {
            Err(status) if self.session.user.is_some() && wants_token(&status) => {
                self.renew(token).await?;
                send(self.token()).await
            }
            outcome => outcome,
        }
    }

    fn token(&self) -> Option<Token> {
        self.session.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests a token, unless another call has replaced the refused one already.
    async fn renew(&self, refused: Option<Token>) -> Result<(), Status> {
        let Some((name, password)) = &self.session.user else { return Ok(()) };
        let _renewal = self.session.renewal.lock().await;
        if self.token() != refused {
            return Ok(());
        }
        let credentials = AuthenticateRequest { name: name.clone(), password: password.expose().to_owned() };
        let token = match self.unary(AUTHENTICATE, LARGEST_OTHER, None, credentials).await {
            Ok(AuthenticateResponse { token }) => {
                let mut token = Token::try_from(token).map_err(|_| {
                    Status::unknown("the member's token cannot be sent back: it is not a header's value")
                })?;
                token.set_sensitive(true);
                Some(token)
            }
            // As etcdctl does: a password for a cluster with authentication disabled is no error.
            Err(status) if status.message().contains("is not enabled") => None,
            Err(status) => return Err(status),
        };
        *self.session.token.write().unwrap_or_else(PoisonError::into_inner) = token;
        Ok(())
    }

    async fn unary<Q, A>(
        &self,
        path: &'static str,
        largest: usize,
        token: Option<Token>,
        message: Q,
    ) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = self.ready(largest).await?;
        let (path, codec) = (PathAndQuery::from_static(path), ProstCodec::default());
        Ok(grpc.unary(request(message, token), path, codec).await?.into_inner())
    }

    async fn ready(&self, largest: usize) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(largest);
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        Ok(grpc)
    }
}

/// A request with its metadata.
fn request<M>(message: M, token: Option<Token>) -> Request<M> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    // A member that has lost its leader refuses then, and ends its watches: they go on elsewhere.
    metadata.insert("hasleader", MetadataValue::from_static("true"));
    if let Some(token) = token {
        metadata.insert("token", token);
    }
    request
}

/// The member refused the request for want of a valid token: it is expired, or authentication was enabled since.
fn wants_token(status: &Status) -> bool {
    match status.code() {
        Code::Unauthenticated => true,
        Code::InvalidArgument => status.message().contains("user name is empty"),
        _ => false,
    }
}

fn closed<T>(_: T) -> Status {
    Status::unavailable("the stream of the watch is closed")
}

/// A watch of one member. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct WatchStream {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl WatchStream {
    /// The next message; `None` if the member closed the stream.
    ///
    /// # Cancel safety
    /// Can be dropped: no message is lost.
    pub(crate) async fn message(&mut self) -> Result<Option<WatchResponse>, Status> {
        self.responses.message().await
    }

    /// Requests a progress message. Waits while too many requests are unsent.
    pub(crate) async fn request_progress(&self) -> Result<(), Status> {
        self.requests.send(WatchRequest::progress()).await.map_err(closed)
    }
}

/// Requests of a watch, as the stream that gRPC sends.
struct Requests(mpsc::Receiver<WatchRequest>);

impl Stream for Requests {
    type Item = WatchRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<WatchRequest>> {
        self.0.poll_recv(cx)
    }
}
