//! The control stream, the agent's end.

use super::connect::describe;
use super::{AnnouncedOutput, Context, Limits, Reports};
use pegel_proto::caps;
use pegel_proto::framing::{FrameReader, write_frame};
use pegel_proto::identity::OutputName;
use pegel_proto::wire::{self, agent_control, aggregator_control};
use std::collections::HashMap;
use std::time::Duration;

/// How long the aggregator has for its welcome. Closing an earlier session of this agent is part of it.
const WELCOME_LIMIT: Duration = Duration::from_secs(5);
/// Balances that are told in one heartbeat, a hundred bytes each; the rest follows in the next.
const MAX_BOOKS_PER_HEARTBEAT: usize = 64;

pub(super) struct Control {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    frames: FrameReader,
    told: HashMap<(i32, String), wire::Books>,
}

/// What the aggregator said in its welcome.
#[derive(Debug, Clone)]
pub(super) struct Welcome {
    pub(super) name: String,
    pub(super) outputs: Vec<AnnouncedOutput>,
    pub(super) limits: Limits,
    pub(super) skew_ms: i64,
}

/// Why the control stream is of no further use, for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ControlError(pub(super) String);

impl Control {
    /// Says hello and waits for the welcome.
    pub(super) async fn open(
        connection: &quinn::Connection,
        context: &Context,
    ) -> Result<(Self, Welcome), ControlError> {
        let opened = async {
            let (send, recv) = connection.open_bi().await.map_err(|e| ControlError(describe(&e)))?;
            let _ = send.set_priority(1);
            let frames = FrameReader::new(caps::MAX_CONTROL_FRAME_BYTES);
            let mut control = Self { send, recv, frames, told: HashMap::new() };
            let hello = wire::Hello {
                wire_min: wire::WIRE_VERSION_MIN,
                wire_max: wire::WIRE_VERSION,
                features: 0,
                agent_version: env!("CARGO_PKG_VERSION").into(),
                epoch: context.epoch.0,
                hostname: wire::cut(&context.hostname, 253),
                sent_at_ms: (context.wall_clock_ms)(),
            };
            control.send(connection, agent_control::Kind::Hello(hello)).await?;
            match control.next(connection).await? {
                aggregator_control::Kind::Welcome(welcome) => {
                    let welcome = read_welcome(welcome, connection, context)?;
                    Ok((control, welcome))
                }
                aggregator_control::Kind::Refused(refused) => Err(ControlError(refused.reason)),
                _ => Err(ControlError("the aggregator did not begin with a welcome".into())),
            }
        };
        tokio::time::timeout(WELCOME_LIMIT, opened)
            .await
            .unwrap_or_else(|_| Err(ControlError("the aggregator did not say welcome in time".into())))
    }

    /// The next frame. Losing this future loses nothing: what arrived stays in the reader.
    pub(super) async fn next(
        &mut self,
        connection: &quinn::Connection,
    ) -> Result<aggregator_control::Kind, ControlError> {
        loop {
            let frame = self
                .frames
                .next_message::<wire::AggregatorControl>("control frame")
                .map_err(|e| ControlError(e.to_string()))?;
            match frame {
                Some(wire::AggregatorControl { kind: Some(kind) }) => return Ok(kind),
                // A kind that a newer aggregator knows is skipped, as the compatibility rules say.
                Some(_) => {}
                None => match self.recv.read_chunk(caps::MAX_CONTROL_FRAME_BYTES, true).await {
                    Ok(Some(chunk)) => self.frames.push(&chunk.bytes),
                    Ok(None) | Err(_) => return Err(broken(connection).await),
                },
            }
        }
    }

    /// Tells what changed since the last heartbeat.
    pub(super) async fn heartbeat(
        &mut self,
        connection: &quinn::Connection,
        reports: &Reports,
        now_ms: i64,
    ) -> Result<(), ControlError> {
        let delivery = || reports.delivery.values();
        let mut changed: Vec<wire::Books> = delivery()
            .flat_map(|report| &report.books)
            .filter(|books| self.told.get(&(books.signal, books.output.clone())) != Some(*books))
            .cloned()
            .collect();
        changed.truncate(MAX_BOOKS_PER_HEARTBEAT);
        for books in &changed {
            self.told.insert((books.signal, books.output.clone()), books.clone());
        }
        let heartbeat = wire::Heartbeat {
            sent_at_ms: now_ms,
            books: changed,
            spool_bytes: delivery().map(|r| r.spool_bytes).sum(),
            front_bytes: delivery().map(|r| r.front_bytes).sum(),
            quarantined_segments: delivery().map(|r| r.quarantined_segments).sum(),
            files_behind: reports.files_behind.clone(),
        };
        self.send(connection, agent_control::Kind::Heartbeat(heartbeat)).await
    }

    async fn send(
        &mut self,
        connection: &quinn::Connection,
        kind: agent_control::Kind,
    ) -> Result<(), ControlError> {
        let mut bytes = Vec::new();
        write_frame(&wire::AgentControl { kind: Some(kind) }, &mut bytes);
        match self.send.write_all(&bytes).await {
            Ok(()) => Ok(()),
            Err(_) => Err(broken(connection).await),
        }
    }
}

/// A stream seldom breaks alone: the connection's end has the reason, and is on its way.
async fn broken(connection: &quinn::Connection) -> ControlError {
    const REASON_LIMIT: Duration = Duration::from_secs(1);
    match tokio::time::timeout(REASON_LIMIT, connection.closed()).await {
        Ok(error) => ControlError(describe(&error)),
        Err(_) => ControlError("the aggregator closed the control stream".into()),
    }
}

pub(super) fn read_welcome(
    welcome: wire::Welcome,
    connection: &quinn::Connection,
    context: &Context,
) -> Result<Welcome, ControlError> {
    if !(wire::WIRE_VERSION_MIN..=wire::WIRE_VERSION).contains(&welcome.wire_version) {
        return Err(ControlError(format!(
            "the aggregator chose wire version {}, which this agent does not speak",
            welcome.wire_version
        )));
    }
    let mut outputs = Vec::with_capacity(welcome.outputs.len());
    for output in welcome.outputs {
        // A signal that a newer aggregator knows is no concern of this agent.
        let Some(signal) = output.signal().to_domain() else { continue };
        let name = OutputName::parse(&output.name).map_err(|e| {
            ControlError(format!("the aggregator announced an output whose name is bad: {e}"))
        })?;
        outputs.push(AnnouncedOutput {
            name,
            signal,
            accepts_out_of_order: output.accepts_out_of_order,
            out_of_order_window_seconds: output.out_of_order_window_seconds,
        });
    }
    let limits = welcome.limits.unwrap_or_default();
    let half_way_ms = (connection.rtt() / 2).as_millis() as i64;
    let now_ms = (context.wall_clock_ms)();
    Ok(Welcome {
        name: wire::cut(&welcome.aggregator_name, 253),
        outputs,
        limits: Limits {
            max_frame_bytes: usize::try_from(limits.max_frame_bytes)
                .unwrap_or(usize::MAX)
                .min(caps::MAX_FRAME_BYTES),
            max_in_flight_bytes: usize::try_from(limits.max_in_flight_bytes).unwrap_or(usize::MAX),
            max_series: usize::try_from(limits.max_series).unwrap_or(usize::MAX).min(caps::MAX_STREAM_SERIES),
        },
        skew_ms: welcome.sent_at_ms.saturating_add(half_way_ms).saturating_sub(now_ms),
    })
}
