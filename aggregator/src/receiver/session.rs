//! One session: from the handshake to the last stream's end.

use super::counters::PendingHandshake;
use super::{Outputs, Shared, stream};
use crate::session::{AgentInfo, SeriesBudget};
use pegel_proto::batch::AgentEpoch;
use pegel_proto::caps;
use pegel_proto::framing::{FrameReader, FramingError, write_frame};
use pegel_proto::wire::{self, agent_control, aggregator_control, close};
use pegel_runtime::tls::PeerCertificate;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Longest version and host name that an agent may give, in bytes.
const MAX_HELLO_TEXT_BYTES: usize = 256;

/// Why a session ends, beside the connection's own end.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    /// The certificate names no agent, or is no longer accepted.
    #[error("{0}")]
    Certificate(String),
    /// Hello did not come in time, or frames make no sense.
    #[error("{0}")]
    Protocol(String),
    /// The peer can't be served.
    #[error("{reason}")]
    Refused { reason: String, retry: bool },
    /// The connection ended.
    #[error("{0}")]
    Connection(#[from] quinn::ConnectionError),
}

impl From<FramingError> for SessionError {
    fn from(error: FramingError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<quinn::ReadError> for SessionError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::ConnectionLost(error) => Self::Connection(error),
            other => Self::Protocol(format!("the control stream broke off: {other}")),
        }
    }
}

impl From<quinn::WriteError> for SessionError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::ConnectionLost(error) => Self::Connection(error),
            other => Self::Protocol(format!("the control stream broke off: {other}")),
        }
    }
}

struct Control {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    frames: FrameReader,
}

impl Control {
    /// The next frame. Losing this future loses nothing: what arrived stays in the reader.
    async fn next(&mut self) -> Result<agent_control::Kind, SessionError> {
        loop {
            if let Some(frame) = self.frames.next_message::<wire::AgentControl>("control frame")? {
                if let Some(kind) = frame.kind {
                    return Ok(kind);
                }
                // A kind that a newer agent knows: skipped, as the compatibility rules say.
                continue;
            }
            match self.recv.read_chunk(caps::MAX_CONTROL_FRAME_BYTES, true).await? {
                Some(chunk) => self.frames.push(&chunk.bytes),
                None => return Err(SessionError::Protocol("the agent closed the control stream".into())),
            }
        }
    }

    async fn send(&mut self, kind: aggregator_control::Kind) -> Result<(), SessionError> {
        let mut bytes = Vec::new();
        write_frame(&wire::AggregatorControl { kind: Some(kind) }, &mut bytes);
        Ok(self.send.write_all(&bytes).await?)
    }
}

/// Runs a session to its end.
pub(super) async fn run(shared: Arc<Shared>, incoming: quinn::Incoming, pending: PendingHandshake) {
    let peer = incoming.remote_address();
    let hello_timeout = shared.context.settings.hello_timeout;
    let connection = match incoming.accept() {
        Ok(connecting) => match tokio::time::timeout(hello_timeout, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                shared.counters.handshake("failed");
                tracing::debug!(%peer, %error, "handshake failed");
                return;
            }
            Err(_) => {
                shared.counters.handshake("timeout");
                return;
            }
        },
        Err(_) => return,
    };
    let opened = tokio::time::timeout(hello_timeout, open(&shared, &connection))
        .await
        .unwrap_or_else(|_| Err(SessionError::Protocol("no hello within the time allowed".into())));
    drop(pending);
    let result = match opened {
        Ok(opened) => serve(&shared, &connection, opened).await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        end_connection(&shared, &connection, &error);
    }
}

fn end_connection(shared: &Shared, connection: &quinn::Connection, error: &SessionError) {
    let peer = connection.remote_address();
    match error {
        SessionError::Connection(reason) => tracing::debug!(%peer, %reason, "session ended"),
        SessionError::Certificate(reason) => {
            shared.counters.refused("certificate");
            tracing::warn!(%peer, reason, "agent refused for its certificate");
            connection.close(close::CERTIFICATE.into(), reason.as_bytes());
        }
        SessionError::Protocol(reason) => {
            shared.counters.protocol_errors.inc();
            tracing::warn!(%peer, reason, "session closed: the agent broke the protocol");
            connection.close(close::PROTOCOL.into(), reason.as_bytes());
        }
        SessionError::Refused { reason, .. } => {
            shared.counters.refused("version");
            tracing::warn!(%peer, reason, "agent refused");
            connection.close(close::REFUSED.into(), reason.as_bytes());
        }
    }
}

struct Opened {
    control: Control,
    hello: wire::Hello,
    chain: Vec<CertificateDer<'static>>,
    certificate: PeerCertificate,
}

async fn open(shared: &Shared, connection: &quinn::Connection) -> Result<Opened, SessionError> {
    let chain = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map(|chain| *chain)
        .unwrap_or_default();
    // The handshake checked the chain; the files may have been reloaded since.
    let now_seconds = u64::try_from((shared.context.wall_clock_ms)() / 1_000).unwrap_or(0);
    let certificate = shared
        .context
        .tls
        .verify_peer(&chain, UnixTime::since_unix_epoch(Duration::from_secs(now_seconds)))
        .map_err(|e| SessionError::Certificate(e.to_string()))?;
    let (send, recv) = connection.accept_bi().await?;
    let _ = send.set_priority(1);
    let mut control = Control { send, recv, frames: FrameReader::new(caps::MAX_CONTROL_FRAME_BYTES) };
    let agent_control::Kind::Hello(hello) = control.next().await? else {
        return Err(SessionError::Protocol("the first frame is not hello".into()));
    };
    if let Err(error) = check_hello(&hello) {
        if let SessionError::Refused { reason, retry } = &error {
            let refused = wire::Refused { reason: reason.clone(), retry: *retry };
            control.send(aggregator_control::Kind::Refused(refused)).await?;
            let _ = control.send.finish();
            // The close that follows would overtake the words.
            let _ = control.send.stopped().await;
        }
        return Err(error);
    }
    Ok(Opened { control, hello, chain, certificate })
}

fn check_hello(hello: &wire::Hello) -> Result<(), SessionError> {
    if hello.agent_version.len() > MAX_HELLO_TEXT_BYTES || hello.hostname.len() > MAX_HELLO_TEXT_BYTES {
        return Err(SessionError::Protocol("hello has a text that is too long".into()));
    }
    if negotiate(hello).is_none() {
        return Err(SessionError::Refused {
            reason: format!(
                "the agent speaks wire versions {} to {}, this aggregator {} to {}: update the older of the two",
                hello.wire_min,
                hello.wire_max,
                wire::WIRE_VERSION_MIN,
                wire::WIRE_VERSION
            ),
            retry: true,
        });
    }
    Ok(())
}

/// The newest version that both speak.
fn negotiate(hello: &wire::Hello) -> Option<u32> {
    let newest = hello.wire_max.min(wire::WIRE_VERSION);
    (newest >= hello.wire_min.max(wire::WIRE_VERSION_MIN)).then_some(newest)
}

async fn serve(
    shared: &Arc<Shared>,
    connection: &quinn::Connection,
    opened: Opened,
) -> Result<(), SessionError> {
    let Opened { control, hello, chain, certificate } = opened;
    let table = &shared.context.sessions;
    let info = Arc::new(AgentInfo {
        identity: certificate.identity,
        epoch: AgentEpoch(hello.epoch),
        session: table.draw_session(),
        version: hello.agent_version.clone(),
        hostname: hello.hostname.clone(),
        peer: connection.remote_address(),
    });
    let now_ms = (shared.context.wall_clock_ms)();
    let registered = table.register(&info, connection.clone(), chain, certificate.not_after_seconds, now_ms);
    if registered.conflict {
        shared.counters.conflicts.inc();
        tracing::warn!(
            tenant = %info.identity.tenant, node = %info.identity.node, peer = %info.peer,
            "two agents show certificates of one identity: the newer session is kept. Issue each its own"
        );
    }
    for before in registered.before {
        shared.counters.superseded.inc();
        before.supersede("a newer session of this agent was opened").await;
    }
    tracing::info!(
        tenant = %info.identity.tenant, node = %info.identity.node, peer = %info.peer,
        version = %info.version, session = info.session, "agent connected"
    );
    let mut streams = JoinSet::new();
    let result = converse(shared, connection, control, &hello, &info, &mut streams).await;
    // In this order: no stream submits anything once the outputs have forgotten the session.
    streams.shutdown().await;
    for output in shared.context.outputs.borrow().iter() {
        output.forget_session(info.session);
    }
    table.end(&info);
    tracing::info!(
        tenant = %info.identity.tenant, node = %info.identity.node, session = info.session,
        reason = result.as_ref().err().map(ToString::to_string), "agent disconnected"
    );
    result
}

async fn converse(
    shared: &Arc<Shared>,
    connection: &quinn::Connection,
    mut control: Control,
    hello: &wire::Hello,
    info: &Arc<AgentInfo>,
    streams: &mut JoinSet<()>,
) -> Result<(), SessionError> {
    let mut outputs = shared.context.outputs.clone();
    let welcome = |outputs: &Outputs| {
        aggregator_control::Kind::Welcome(welcome(shared, outputs, negotiate(hello).unwrap_or_default()))
    };
    let first = welcome(&outputs.borrow_and_update().clone());
    control.send(first).await?;
    let bytes_per_second = shared.context.settings.session_bytes_per_second;
    if bytes_per_second > 0 {
        control.send(aggregator_control::Kind::Throttle(wire::Throttle { bytes_per_second })).await?;
    }
    let mut told_to_go = false;
    let series = SeriesBudget::new(shared.context.settings.max_series);
    loop {
        tokio::select! {
            kind = control.next() => match kind? {
                agent_control::Kind::Heartbeat(heartbeat) => {
                    let answer = take_heartbeat(shared, connection, info, heartbeat);
                    control.send(aggregator_control::Kind::HeartbeatAck(answer)).await?;
                }
                agent_control::Kind::Hello(_) => {
                    return Err(SessionError::Protocol("a second hello".into()));
                }
            },
            stream = connection.accept_bi() => {
                let (send, recv) = stream?;
                let (shared, info, series) = (shared.clone(), info.clone(), series.clone());
                streams.spawn(stream::run(shared, info, series, connection.clone(), send, recv));
            }
            Some(_) = streams.join_next(), if !streams.is_empty() => {}
            Ok(()) = outputs.changed() => {
                let again = welcome(&outputs.borrow_and_update().clone());
                control.send(again).await?;
            }
            () = shared.drain.cancelled(), if !told_to_go => {
                told_to_go = true;
                let within_ms = shared.context.settings.drain.as_millis() as u64;
                let go_away = wire::GoAway { reason: "the aggregator is shutting down".into(), within_ms };
                control.send(aggregator_control::Kind::GoAway(go_away)).await?;
            }
        }
    }
}

fn take_heartbeat(
    shared: &Shared,
    connection: &quinn::Connection,
    info: &AgentInfo,
    heartbeat: wire::Heartbeat,
) -> wire::HeartbeatAck {
    let now_ms = (shared.context.wall_clock_ms)();
    let half_way_ms = (connection.rtt() / 2).as_millis() as i64;
    let sent_at_ms = heartbeat.sent_at_ms;
    let skew_ms = sent_at_ms.saturating_add(half_way_ms).saturating_sub(now_ms);
    shared.context.sessions.heartbeat(info, heartbeat, skew_ms, now_ms);
    wire::HeartbeatAck { sent_at_ms, received_at_ms: now_ms }
}

fn welcome(shared: &Shared, outputs: &Outputs, wire_version: u32) -> wire::Welcome {
    let settings = &shared.context.settings;
    let outputs = outputs
        .iter()
        .map(|output| output.announcement())
        .map(|a| wire::AnnouncedOutput {
            name: a.name.to_string(),
            signal: wire::WireSignal::from(a.signal).into(),
            accepts_out_of_order: a.accepts_out_of_order,
            out_of_order_window_seconds: a.out_of_order_window_seconds,
        })
        .collect();
    wire::Welcome {
        wire_version,
        features: 0,
        aggregator_version: env!("CARGO_PKG_VERSION").into(),
        outputs,
        limits: Some(wire::Limits {
            max_frame_bytes: settings.max_frame_bytes as u64,
            max_in_flight_bytes: settings.max_in_flight_bytes,
            max_series: settings.max_series as u64,
        }),
        sent_at_ms: (shared.context.wall_clock_ms)(),
        aggregator_name: settings.name.clone(),
    }
}
