//! One request and its answer on a connection of its own.

use crate::source::probe::outcome::{Failure, Phase, Reason, reason_of_io};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri, Version};
use http_body_util::Full;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::error::Error;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

/// A request as it is sent.
pub(super) type Request = http::Request<Full<Bytes>>;

/// The read buffer of a connection, at most, in bytes: heads of this size are answered, larger ones are an error.
const HEAD_BYTES: usize = 256 << 10;

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What moves bytes between connection and socket; ends when dropped.
pub(in super::super) struct Driver(pub(in super::super) JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An open connection.
pub(super) struct Connection {
    sender: Sender,
    driver: Driver,
}

impl Connection {
    /// HTTP/1.1 in the clear.
    pub(super) async fn plain(stream: TcpStream) -> Result<Self, hyper::Error> {
        Self::http1(TokioIo::new(stream)).await
    }

    /// The version that was agreed on in the handshake.
    pub(super) async fn over_tls(stream: TlsStream<TcpStream>) -> Result<Self, hyper::Error> {
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        if !http2 {
            return Self::http1(io).await;
        }
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        let driver = Driver(tokio::spawn(async move {
            // What goes wrong is told to the request as well.
            let _ = connection.await;
        }));
        Ok(Self { sender: Sender::Http2(sender), driver })
    }

    async fn http1<I>(io: I) -> Result<Self, hyper::Error>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new().max_buf_size(HEAD_BYTES).handshake(io).await?;
        let driver = Driver(tokio::spawn(async move {
            // What goes wrong is told to the request as well.
            let _ = connection.await;
        }));
        Ok(Self { sender: Sender::Http1(sender), driver })
    }

    /// The version in which requests are to be made.
    pub(super) fn version(&self) -> Version {
        match self.sender {
            Sender::Http1(_) => Version::HTTP_11,
            Sender::Http2(_) => Version::HTTP_2,
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(mut self, request: Request) -> Result<Answer, hyper::Error> {
        let head = request.method() == Method::HEAD;
        let response = match &mut self.sender {
            Sender::Http1(sender) => sender.send_request(request).await?,
            Sender::Http2(sender) => sender.send_request(request).await?,
        };
        Ok(Answer { response, head, _driver: self.driver })
    }
}

/// A request for a version: its target as that version has it, the host, the headers.
pub(super) fn request(
    version: Version,
    method: &Method,
    url: &Uri,
    host: Option<&HeaderValue>,
    mut headers: HeaderMap,
    body: Option<Vec<u8>>,
) -> Result<Request, Failure> {
    let bad = |words: String| Failure::new(Phase::Setup, Reason::Configuration, words);
    let authority =
        url.authority().map(|a| a.as_str().rsplit('@').next().unwrap_or_default()).unwrap_or_default();
    let host = match host {
        Some(host) => host.clone(),
        None => HeaderValue::from_str(authority).map_err(|e| bad(e.to_string()))?,
    };
    let path = url.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let target = if version == Version::HTTP_2 {
        // The host goes into :authority.
        let host = host.to_str().map_err(|e| bad(format!("Host: {e}")))?;
        let scheme = url.scheme_str().unwrap_or("https");
        Uri::builder()
            .scheme(scheme)
            .authority(host)
            .path_and_query(path)
            .build()
            .map_err(|e| bad(e.to_string()))?
    } else {
        headers.insert(header::HOST, host);
        headers.entry(header::CONNECTION).or_insert(HeaderValue::from_static("close"));
        path.into()
    };
    if let Some(body) = &body {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let mut request = http::Request::new(Full::new(Bytes::from(body.unwrap_or_default())));
    *request.method_mut() = method.clone();
    *request.version_mut() = version;
    *request.uri_mut() = target;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The head of an answer, with the connection that its body comes on.
pub(super) struct Answer {
    response: http::Response<Incoming>,
    /// Whether only the head was asked for.
    head: bool,
    /// The body comes as long as this lives.
    _driver: Driver,
}

impl Answer {
    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The version.
    pub(super) fn version(&self) -> Version {
        self.response.version()
    }

    /// The headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The announced length of the body as Go has it: -1 if it is not known, 0 where there can be none.
    pub(super) fn content_length(&self) -> f64 {
        let headers = self.headers();
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        let chunked = headers.contains_key(header::TRANSFER_ENCODING);
        let ends_with_head = !self.head && hyper::body::Body::is_end_stream(self.response.body())
            || matches!(self.status().as_u16(), 204 | 304);
        match announced {
            Some(length) if !chunked => length as f64,
            _ if ends_with_head && !chunked => 0.0,
            _ => -1.0,
        }
    }

    /// The next piece of the body.
    pub(super) async fn piece(&mut self) -> Option<Result<Bytes, Failure>> {
        use http_body_util::BodyExt as _;
        loop {
            match self.response.body_mut().frame().await? {
                Ok(frame) => {
                    // Trailers are no body.
                    if let Ok(piece) = Frame::into_data(frame) {
                        return Some(Ok(piece));
                    }
                }
                Err(error) => return Some(Err(failure(Phase::Transfer, &error))),
            }
        }
    }
}

/// The failure that an error of a connection stands for.
pub(in super::super) fn failure(phase: Phase, error: &hyper::Error) -> Failure {
    let mut words = error.to_string();
    let mut reason = if error.is_parse() {
        Reason::Protocol
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        Reason::Closed
    } else {
        Reason::Other
    };
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            reason = reason_of_io(io);
            if matches!(io.get_ref(), Some(error) if error.is::<rustls::Error>()) {
                // With TLS 1.3 a server refuses the client's certificate only when the client thinks it is done.
                reason = Reason::Handshake;
            }
        }
        cause = inner.source();
    }
    if reason == Reason::Other {
        reason = Reason::Protocol;
    }
    Failure::new(phase, reason, format!("no answer: {words}"))
}
