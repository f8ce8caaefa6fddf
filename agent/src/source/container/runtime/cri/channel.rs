//! gRPC over a unix socket: one HTTP/2 connection with bounds on what the other side may send.
//!
//! tonic's own channel brings reconnection, balancing and buffering, none of which a session wants: if its
//! connection ends, the session does.

use super::super::Pace;
use super::super::trouble::{Trouble, shortened};
use http::uri::{PathAndQuery, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

/// The bound of one message: a list of 2,000 containers with their labels and annotations, 4 KiB each. gRPC's default
/// is half of it.
const MESSAGE_BYTES: usize = 8 << 20;
/// What may be on its way to us: the flow control's window, of a stream and of the connection.
const WINDOW_BYTES: u32 = 256 << 10;
/// The bound of an answer's headers.
const HEADER_BYTES: u32 = 16 << 10;

/// A connection to a CRI socket.
#[derive(Debug)]
pub(super) struct Channel {
    sender: http2::SendRequest<tonic::body::Body>,
    /// Ends with this.
    _connection: JoinSet<()>,
}

/// What a call failed with.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no such container.
    NotFound,
    /// The runtime has no such call.
    Unimplemented,
    /// Anything else.
    Trouble(Trouble),
}

impl Failure {
    /// As a trouble.
    pub(super) fn into_trouble(self, what: &'static str) -> Trouble {
        match self {
            Self::NotFound => Trouble::Refused { what, reason: "not found".into() },
            Self::Unimplemented => Trouble::Refused { what, reason: "it has no such call".into() },
            Self::Trouble(trouble) => trouble,
        }
    }
}

impl Channel {
    /// Connects.
    pub(super) async fn connect(socket: &Path, pace: &Pace) -> Result<Self, Trouble> {
        let stream = UnixStream::connect(socket).await.map_err(|error| Trouble::connecting(&error))?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_header_list_size(HEADER_BYTES)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = tokio::time::timeout(pace.call, handshake)
            .await
            .map_err(|_| Trouble::Silent { what: "the connection", limit: pace.call })?
            .map_err(|error| Trouble::Ended(error.to_string()))?;
        // How it ended is what the calls on it say.
        let mut task = JoinSet::new();
        task.spawn(async move { drop(connection.await) });
        Ok(Self { sender, _connection: task })
    }

    fn client(&self) -> Grpc<Sender> {
        let origin = Uri::from_static("http://localhost");
        Grpc::with_origin(Sender(self.sender.clone()), origin).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Calls and waits for the one answer.
    pub(super) fn call<Q, A>(
        &self,
        what: &'static str,
        path: &'static str,
        request: Q,
        pace: Pace,
    ) -> impl Future<Output = Result<A, Failure>> + Send + use<Q, A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut client = self.client();
        async move {
            let call = client.unary(
                tonic::Request::new(request),
                PathAndQuery::from_static(path),
                ProstCodec::<Q, A>::default(),
            );
            match tokio::time::timeout(pace.call, call).await {
                Ok(Ok(answer)) => Ok(answer.into_inner()),
                Ok(Err(status)) => Err(failure(what, &pace, &status)),
                Err(_) => Err(Failure::Trouble(Trouble::Silent { what, limit: pace.call })),
            }
        }
    }

    /// Calls for a stream of answers. Runtimes send the head of the answer at once or with the first message, which
    /// may be hours away: so there is no time limit, and no waiting for it either.
    pub(super) fn stream<Q, A>(
        &self,
        path: &'static str,
        request: Q,
    ) -> impl Future<Output = Result<Streaming<A>, Status>> + Send + use<Q, A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut client = self.client();
        async move {
            let request = tonic::Request::new(request);
            let codec = ProstCodec::<Q, A>::default();
            client
                .server_streaming(request, PathAndQuery::from_static(path), codec)
                .await
                .map(tonic::Response::into_inner)
        }
    }
}

/// What a status means.
pub(super) fn failure(what: &'static str, pace: &Pace, status: &Status) -> Failure {
    Failure::Trouble(match status.code() {
        Code::NotFound => return Failure::NotFound,
        Code::Unimplemented => return Failure::Unimplemented,
        Code::DeadlineExceeded => Trouble::Silent { what, limit: pace.call },
        // What h2, hyper or tonic could not read, as well as a connection that broke.
        Code::Unknown | Code::Internal | Code::OutOfRange if std::error::Error::source(status).is_some() => {
            Trouble::Ended(shortened(status.message()))
        }
        Code::OutOfRange | Code::Internal => Trouble::Nonsense { what, reason: shortened(status.message()) },
        Code::Unavailable | Code::Cancelled => Trouble::Ended(shortened(status.message())),
        _ => Trouble::Refused { what, reason: shortened(status.message()) },
    })
}

/// hyper's connection as the service that tonic asks for.
#[derive(Debug, Clone)]
struct Sender(http2::SendRequest<tonic::body::Body>);

impl Service<http::Request<tonic::body::Body>> for Sender {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
