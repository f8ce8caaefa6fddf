//! One request and its answer on a connection of its own.

use super::http3;
use crate::source::probe::net::quic;
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

/// A request as it is sent.
pub(super) type Request = http::Request<Full<Bytes>>;

/// The read buffer of a connection, at most, in bytes: heads of this size are answered, larger ones are an error.
const HEAD_BYTES: usize = 256 << 10;

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
    Http3(Box<http3::Sender>),
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
    /// HTTP/1.1 over a stream.
    pub(super) async fn http1<I>(io: I) -> Result<Self, Failure>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let opened = http1::Builder::new().max_buf_size(HEAD_BYTES).handshake(TokioIo::new(io)).await;
        let (sender, connection) = opened.map_err(|e| failure(Phase::Processing, &e))?;
        let driver = Driver(tokio::spawn(async move {
            // What goes wrong is told to the request as well.
            let _ = connection.await;
        }));
        Ok(Self { sender: Sender::Http1(sender), driver })
    }

    /// HTTP/2 over a stream, without asking.
    pub(super) async fn http2<I>(io: I) -> Result<Self, Failure>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let opened = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(HEAD_BYTES as u32)
            .handshake(TokioIo::new(io))
            .await;
        let (sender, connection) = opened.map_err(|e| failure(Phase::Processing, &e))?;
        let driver = Driver(tokio::spawn(async move {
            // What goes wrong is told to the request as well.
            let _ = connection.await;
        }));
        Ok(Self { sender: Sender::Http2(sender), driver })
    }

    /// HTTP/3 over a QUIC connection.
    pub(super) async fn http3(quic: quic::Connection) -> Result<Self, Failure> {
        let (sender, driver) = http3::open(quic, HEAD_BYTES as u64).await?;
        Ok(Self { sender: Sender::Http3(Box::new(sender)), driver })
    }

    /// The version in which requests are to be made.
    pub(super) fn version(&self) -> Version {
        match self.sender {
            Sender::Http1(_) => Version::HTTP_11,
            Sender::Http2(_) => Version::HTTP_2,
            Sender::Http3(_) => Version::HTTP_3,
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(self, request: Request) -> Result<Answer, Failure> {
        let method = request.method().clone();
        let told = |error: hyper::Error| failure(Phase::Processing, &error);
        let (head, body) = match self.sender {
            Sender::Http1(mut sender) => {
                let (head, body) = sender.send_request(request).await.map_err(told)?.into_parts();
                (head, Coming::Stream(body))
            }
            Sender::Http2(mut sender) => {
                let (head, body) = sender.send_request(request).await.map_err(told)?.into_parts();
                (head, Coming::Stream(body))
            }
            Sender::Http3(sender) => {
                let (head, body) = sender.send(request).await?;
                (head, Coming::Quic(Box::new(body)))
            }
        };
        Ok(Answer { head, body, method, _driver: self.driver })
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
    let target = if matches!(version, Version::HTTP_2 | Version::HTTP_3) {
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

/// A body on its way.
enum Coming {
    Stream(Incoming),
    Quic(Box<http3::Body>),
}

/// The head of an answer, with the connection that its body comes on.
pub(super) struct Answer {
    head: http::response::Parts,
    body: Coming,
    /// What was asked.
    method: Method,
    /// The body comes as long as this lives.
    _driver: Driver,
}

impl Answer {
    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The version.
    pub(super) fn version(&self) -> Version {
        self.head.version
    }

    /// The headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The announced length of the body as Go has it: -1 if it is not known, 0 where there can be none.
    pub(super) fn content_length(&self) -> f64 {
        let headers = self.headers();
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        let chunked = headers.contains_key(header::TRANSFER_ENCODING);
        let ended = match &self.body {
            Coming::Stream(body) => hyper::body::Body::is_end_stream(body),
            Coming::Quic(_) => false,
        };
        let ends_with_head =
            self.method != Method::HEAD && ended || matches!(self.status().as_u16(), 204 | 304);
        match announced {
            Some(length) if !chunked => length as f64,
            _ if ends_with_head && !chunked => 0.0,
            _ => -1.0,
        }
    }

    /// The next piece of the body.
    pub(super) async fn piece(&mut self) -> Option<Result<Bytes, Failure>> {
        use http_body_util::BodyExt as _;
        let body = match &mut self.body {
            Coming::Stream(body) => body,
            Coming::Quic(body) => return body.piece().await,
        };
        loop {
            match body.frame().await? {
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
