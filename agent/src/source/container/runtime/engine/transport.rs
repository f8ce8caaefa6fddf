//! Requests over an engine's socket with a bound on what comes back.
//!
//! bollard collects a whole answer before it looks at it, and a line of the event stream before it parses it. So
//! that a broken engine cannot fill our memory, each request has a connection of its own that ends when more bytes
//! came than the answer to such a request has: a fixed number for an answer, a number since the last event for the
//! stream of events.

use bollard::errors::Error;
use bollard::{BollardRequest, ClientVersion, Docker};
use hyper::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

/// The bound of a list of containers: 2,000 of them with 4 KiB each.
const LIST_BYTES: usize = 8 << 20;
/// The bound of any other answer: an inspected container has 8 to 16 KiB, and its health log up to 5 × 4 KiB.
const ANSWER_BYTES: usize = 512 << 10;
/// The bound of what may come between two events that were read: an event carries all labels of its container; and
/// what hyper and bollard read ahead has to fit.
const EVENT_BYTES: usize = 512 << 10;
/// The bound of an answer's head.
const HEAD_BYTES: usize = 16 << 10;

/// An engine's socket.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    socket: Arc<Path>,
    /// The path of the negotiated version, which bollard negotiates and then does not put before its paths: without
    /// it an engine answers in its newest version, whatever bollard knows.
    version: Arc<OnceLock<String>>,
    /// What the event stream may still bring.
    events_left: Arc<AtomicUsize>,
    /// The connections, ended with the last clone of this.
    connections: Arc<Mutex<JoinSet<()>>>,
}

impl Transport {
    /// For this socket. Nothing is opened yet.
    pub(super) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.into(),
            version: Arc::default(),
            events_left: Arc::new(AtomicUsize::new(EVENT_BYTES)),
            connections: Arc::default(),
        }
    }

    /// From now on requests are made in this version.
    pub(super) fn speak(&self, version: &ClientVersion) {
        let prefix = format!("/v{}.{}", version.major_version, version.minor_version);
        // A session negotiates once.
        let _ = self.version.set(prefix);
    }

    /// An event was read: the next one has the whole bound again.
    pub(super) fn event_was_read(&self) {
        self.events_left.store(EVENT_BYTES, Ordering::Relaxed);
    }

    /// A client that goes through here. `limit_seconds` is for the head of an answer only; whoever waits for the
    /// body has to watch the clock.
    pub(super) fn client(&self, limit_seconds: u64, version: &ClientVersion) -> Result<Docker, Error> {
        let transport = self.clone();
        let send = move |request| {
            let transport = transport.clone();
            async move { transport.send(request).await }
        };
        Docker::connect_with_custom_transport(send, Some("http://engine"), limit_seconds, version)
    }

    async fn send(&self, request: BollardRequest) -> Result<Response<Incoming>, Error> {
        let (mut head, body) = request.into_parts();
        let left = match head.uri.path().rsplit_once('/').map_or("", |(_, last)| last) {
            "events" => {
                self.event_was_read();
                self.events_left.clone()
            }
            "json" if head.uri.path().ends_with("/containers/json") => Arc::new(AtomicUsize::new(LIST_BYTES)),
            _ => Arc::new(AtomicUsize::new(ANSWER_BYTES)),
        };
        // A server wants the path alone; whose it is says the socket.
        let path = head.uri.path_and_query().map_or("/", |p| p.as_str());
        let version = self.version.get().map_or("", String::as_str);
        head.uri = format!("{version}{path}")
            .parse()
            .map_err(|e: http::uri::InvalidUri| io::Error::other(e.to_string()))?;
        head.headers.insert(http::header::HOST, http::HeaderValue::from_static("engine"));
        head.headers.insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
        let stream = UnixStream::connect(PathBuf::from(&*self.socket)).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(Bounded { stream, left }))
            .await?;
        {
            let mut connections = self.connections.lock();
            while connections.try_join_next().is_some() {}
            // How it ended is what reading the body says.
            connections.spawn(async move { drop(connection.await) });
        }
        Ok(sender.send_request(hyper::Request::from_parts(head, body)).await?)
    }
}

/// A stream that fails once it brought more than it may.
struct Bounded {
    stream: UnixStream,
    left: Arc<AtomicUsize>,
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, into))?;
        let came = into.filled().len() - before;
        let left = self.left.load(Ordering::Relaxed);
        if came > left {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::FileTooLarge, TOO_LONG)));
        }
        self.left.store(left - came, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

/// What an answer beyond its bound fails with.
pub(super) const TOO_LONG: &str = "the answer is longer than any that a working runtime gives";

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
