//! A request over HTTP/3 (RFC 9114): one stream of a QUIC connection, which ends with the answer.

use super::exchange::{Driver, Request};
use crate::source::probe::net::quic;
use crate::source::probe::outcome::{Failure, Phase, Reason};
use bytes::{Buf as _, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3::error::StreamError;
use http_body_util::{BodyExt as _, Collected};

/// What sends the request.
pub(super) struct Sender {
    sender: SendRequest<h3_quinn::OpenStreams, Bytes>,
    connection: quic::Connection,
}

/// The body of the answer, with the connection that it comes on.
pub(super) struct Body {
    stream: RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>,
    /// The other side is told that it ends when this is dropped: after the stream.
    connection: quic::Connection,
}

/// Opens HTTP/3 on a connection. A head of more than so many bytes is an error.
pub(super) async fn open(connection: quic::Connection, head_bytes: u64) -> Result<(Sender, Driver), Failure> {
    let opened = h3::client::builder()
        .max_field_section_size(head_bytes)
        .build(h3_quinn::Connection::new(connection.handle()))
        .await;
    let (mut driver, sender) = opened.map_err(|error| {
        let reason = connection.end().unwrap_or(Reason::Protocol);
        Failure::new(Phase::Processing, reason, format!("no answer over HTTP/3: {error}"))
    })?;
    let driver = Driver(tokio::spawn(async move {
        // Settings and the like; what goes wrong is told to the request as well.
        let _ = std::future::poll_fn(|cx| driver.poll_close(cx)).await;
    }));
    Ok((Sender { sender, connection }, driver))
}

impl Sender {
    /// Sends the request; the head of its answer and the body to come.
    pub(super) async fn send(mut self, request: Request) -> Result<(http::response::Parts, Body), Failure> {
        let connection = self.connection;
        let told = |error: StreamError| of_stream(Phase::Processing, &connection, &error);
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_or_else(|never| match never {}, Collected::to_bytes);
        let mut stream = self.sender.send_request(http::Request::from_parts(head, ())).await.map_err(told)?;
        if !body.is_empty() {
            stream.send_data(body).await.map_err(told)?;
        }
        stream.finish().await.map_err(told)?;
        let (head, ()) = stream.recv_response().await.map_err(told)?.into_parts();
        Ok((head, Body { stream, connection }))
    }
}

impl Body {
    /// The next piece.
    pub(super) async fn piece(&mut self) -> Option<Result<Bytes, Failure>> {
        match self.stream.recv_data().await {
            Ok(None) => None,
            Ok(Some(mut piece)) => Some(Ok(piece.copy_to_bytes(piece.remaining()))),
            Err(error) => Some(Err(of_stream(Phase::Transfer, &self.connection, &error))),
        }
    }
}

fn of_stream(phase: Phase, connection: &quic::Connection, error: &StreamError) -> Failure {
    let reason = match error {
        StreamError::RemoteTerminate { .. } => Reason::Reset,
        _ => connection.end().unwrap_or(Reason::Protocol),
    };
    Failure::new(phase, reason, format!("no answer over HTTP/3: {error}"))
}
