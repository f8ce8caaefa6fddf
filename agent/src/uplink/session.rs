//! One session, from the welcome to its end.

use super::backoff::Backoff;
use super::connect::{Connected, describe};
use super::control::{Control, ControlError, Welcome, read_welcome};
use super::counters::Counters;
use super::liveness::{Action, Liveness};
use super::status::StatusCell;
use super::stream::{StreamContext, StreamEvent};
use super::throttle::Throttle;
use super::window::Windows;
use super::{Attempt, Context, EventSink, QueuedSend, Reports, StreamKey, UplinkEvent, stream};
use pegel_proto::codec::Encoder;
use pegel_proto::wire::{aggregator_control, close};
use pegel_runtime::pki::certificate_view;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a session that is left waits for the acknowledgements of what is in flight. Shorter than the time that an
/// aggregator gives a new connection to say hello, which waits meanwhile.
const LEAVE_LIMIT: Duration = Duration::from_secs(4);

/// How a session ended.
pub(super) enum Ended {
    /// The uplink is to stop.
    Shutdown,
    /// It was left for another connection, which is ready; or, without one, for none.
    Left { reason: String, replacement: Option<Connected> },
    /// It broke.
    Broken(String),
}

/// Finds the connection to go on with when this session is left; none if there is no other aggregator.
pub(super) type Replacement = Pin<Box<dyn Future<Output = Option<Connected>> + Send>>;

/// What a session takes from the uplink and gives back at its end.
pub(super) struct Ends<'a> {
    pub(super) context: &'a Context,
    pub(super) sends: &'a mut mpsc::UnboundedReceiver<QueuedSend>,
    pub(super) report: &'a mut watch::Receiver<Reports>,
    pub(super) events: &'a EventSink,
    pub(super) status: &'a StatusCell,
    pub(super) shutdown: &'a CancellationToken,
    /// Draws the next attempt.
    pub(super) attempts: &'a mut u64,
    pub(super) counters: &'a Counters,
}

pub(super) struct Session {
    connection: quinn::Connection,
    control: Control,
    welcome: Welcome,
    windows: Arc<Windows>,
    throttle: Arc<Throttle>,
    attempt: Attempt,
    streams: HashMap<StreamKey, OpenStream>,
    resets: HashMap<StreamKey, (u32, Backoff)>,
    tasks: JoinSet<()>,
    stream_events: (mpsc::UnboundedSender<StreamEvent>, mpsc::UnboundedReceiver<StreamEvent>),
    retries: (mpsc::UnboundedSender<UplinkEvent>, mpsc::UnboundedReceiver<UplinkEvent>),
    liveness: Liveness,
    leaving: Option<Leaving>,
    /// When the aggregator's certificate expires.
    not_after_seconds: i64,
}

struct OpenStream {
    attempt: Attempt,
    sends: mpsc::UnboundedSender<QueuedSend>,
}

struct Leaving {
    reason: String,
    until: tokio::time::Instant,
    replacement: Option<Replacement>,
    found: Option<Connected>,
}

impl Session {
    pub(super) fn new(
        connection: quinn::Connection,
        control: Control,
        welcome: Welcome,
        attempt: Attempt,
    ) -> Self {
        let not_after_seconds = connection
            .peer_identity()
            .and_then(|any| any.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok())
            .and_then(|chain| certificate_view(chain.first()?).ok())
            .map_or(i64::MAX, |view| view.not_after.unix_timestamp());
        let windows = Arc::new(Windows::new(attempt, welcome.limits.max_in_flight_bytes));
        Self {
            connection,
            control,
            welcome,
            windows,
            throttle: Arc::default(),
            attempt,
            streams: HashMap::new(),
            resets: HashMap::new(),
            tasks: JoinSet::new(),
            stream_events: mpsc::unbounded_channel(),
            retries: mpsc::unbounded_channel(),
            liveness: Liveness::new(Instant::now()),
            leaving: None,
            not_after_seconds,
        }
    }

    pub(super) fn windows(&self) -> &Arc<Windows> {
        &self.windows
    }

    /// Runs the session. `replace` is asked for another connection when this one is to be left: for another
    /// aggregator (`true`) or for any (`false`, when certificates changed).
    pub(super) async fn run(mut self, mut ends: Ends<'_>, replace: impl Fn(bool) -> Replacement) -> Ended {
        let ended = self.converse(&mut ends, replace).await;
        let (code, reason) = match &ended {
            Ended::Shutdown => (close::DONE, "the agent stops"),
            Ended::Left { .. } => (close::DONE, "the agent uses another session"),
            Ended::Broken(reason) => (close::SILENT, reason.as_str()),
        };
        self.connection.close(code.into(), reason.as_bytes());
        self.tasks.shutdown().await;
        ended
    }

    async fn converse(&mut self, ends: &mut Ends<'_>, replace: impl Fn(bool) -> Replacement) -> Ended {
        let mut certificates = ends.context.tls.changes();
        loop {
            if let Some(ended) = self.leave_if_done() {
                return ended;
            }
            // Looked at whenever anything happens, and each heartbeat: late by half a minute at most.
            if (ends.context.wall_clock_ms)() / 1_000 >= self.not_after_seconds {
                return Ended::Broken("the aggregator's certificate has expired".into());
            }
            let now = Instant::now();
            let wake = match self.liveness.poll(now) {
                Action::Leave => return Ended::Broken("the aggregator fell silent".into()),
                Action::Ask => {
                    if let Err(error) = self.heartbeat(ends).await {
                        return Ended::Broken(error.0);
                    }
                    continue;
                }
                Action::WaitUntil(at) => tokio::time::Instant::from_std(at),
            };
            let leave_at = self.leaving.as_ref().map(|l| l.until);
            tokio::select! {
                () = ends.shutdown.cancelled() => return Ended::Shutdown,
                error = self.connection.closed() => return Ended::Broken(describe(&error)),
                kind = self.control.next(&self.connection) => {
                    let taken = match kind {
                        Ok(kind) => self.take(kind, ends, &replace),
                        Err(error) => Err(error),
                    };
                    if let Err(error) = taken {
                        return Ended::Broken(error.0);
                    }
                }
                Some(event) = self.stream_events.1.recv() => self.stream_event(event, ends),
                Some(event) = self.retries.1.recv() => ends.events.send(event),
                Some(send) = ends.sends.recv() => self.send(send, ends),
                Ok(()) = ends.report.changed() => {
                    if let Err(error) = self.heartbeat(ends).await {
                        return Ended::Broken(error.0);
                    }
                }
                Ok(()) = certificates.changed() => {
                    self.leave("certificates changed".into(), LEAVE_LIMIT, replace(false));
                }
                found = found(&mut self.leaving) => {
                    let leaving = self.leaving.as_mut().expect("found only while leaving");
                    leaving.replacement = None;
                    leaving.found = found;
                }
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
                () = tokio::time::sleep_until(wake) => {}
                () = left(leave_at) => {}
            }
        }
    }

    async fn heartbeat(&mut self, ends: &mut Ends<'_>) -> Result<(), ControlError> {
        let report = ends.report.borrow_and_update().clone();
        let now_ms = (ends.context.wall_clock_ms)();
        self.control.heartbeat(&self.connection, &report, now_ms).await?;
        ends.counters.heartbeats.inc();
        self.liveness.asked(Instant::now());
        Ok(())
    }

    fn take(
        &mut self,
        kind: aggregator_control::Kind,
        ends: &mut Ends<'_>,
        replace: &impl Fn(bool) -> Replacement,
    ) -> Result<(), ControlError> {
        match kind {
            aggregator_control::Kind::HeartbeatAck(ack) => {
                self.liveness.answered(Instant::now());
                let now_ms = (ends.context.wall_clock_ms)();
                // Both ways are taken to be equally long (RFC 5905 section 8).
                let middle_ms = ack.sent_at_ms.saturating_add(now_ms.saturating_sub(ack.sent_at_ms) / 2);
                ends.status.skew(ack.received_at_ms.saturating_sub(middle_ms));
            }
            aggregator_control::Kind::Welcome(again) => {
                self.welcome = read_welcome(again, &self.connection, ends.context)?;
                self.windows.set_limit(self.welcome.limits.max_in_flight_bytes);
                let (outputs, limits) = (self.welcome.outputs.clone(), self.welcome.limits);
                ends.events.send(UplinkEvent::OutputsChanged { outputs, limits });
            }
            aggregator_control::Kind::Throttle(throttle) => {
                self.throttle.set(throttle.bytes_per_second);
                let bytes_per_second = throttle.bytes_per_second;
                ends.events.send(UplinkEvent::Throttle { bytes_per_second });
            }
            aggregator_control::Kind::GoAway(go_away) => {
                let within = Duration::from_millis(go_away.within_ms).min(LEAVE_LIMIT);
                self.leave(go_away.reason, within, replace(true));
            }
            aggregator_control::Kind::Refused(refused) => return Err(ControlError(refused.reason)),
        }
        Ok(())
    }

    fn leave(&mut self, reason: String, within: Duration, replacement: Replacement) {
        if self.leaving.is_none() {
            let until = tokio::time::Instant::now() + within;
            self.leaving = Some(Leaving { reason, until, replacement: Some(replacement), found: None });
        }
    }

    /// A session that is left ends when nothing is in flight and the search for another has ended, and at its limit.
    fn leave_if_done(&mut self) -> Option<Ended> {
        let leaving = self.leaving.as_ref()?;
        let done = leaving.replacement.is_none() && self.windows.total_bytes() == 0;
        if !done && tokio::time::Instant::now() < leaving.until {
            return None;
        }
        let leaving = self.leaving.take()?;
        Some(Ended::Left { reason: leaving.reason, replacement: leaving.found })
    }

    fn send(&mut self, send: QueuedSend, ends: &mut Ends<'_>) {
        // While leaving, nothing new is begun: what is not acknowledged is sent again in the next session.
        if self.leaving.is_some() || !self.windows.is_current(&send.stream, send.attempt) {
            self.windows.settle(&send.stream, send.attempt, send.estimate, 0);
            return;
        }
        self.liveness.sent(Instant::now());
        let key = send.stream.clone();
        if self.streams.get(&key).is_none_or(|open| open.attempt != send.attempt) {
            let open = self.open_stream(&key, send.attempt, ends);
            self.streams.insert(key.clone(), open);
        }
        // A stream that broke in this moment tells so by its own event.
        let _ = self.streams[&key].sends.send(send);
    }

    fn open_stream(&mut self, key: &StreamKey, attempt: Attempt, ends: &Ends<'_>) -> OpenStream {
        let (sends, queue) = mpsc::unbounded_channel();
        let stream = StreamContext {
            key: key.clone(),
            attempt,
            connection: self.connection.clone(),
            encoder: Encoder::new(),
            windows: self.windows.clone(),
            throttle: self.throttle.clone(),
            counters: ends.counters.clone(),
            max_frame_bytes: self.welcome.limits.max_frame_bytes,
            events: self.stream_events.0.clone(),
        };
        self.tasks.spawn(stream::run(stream, queue));
        OpenStream { attempt, sends }
    }

    fn stream_event(&mut self, event: StreamEvent, ends: &mut Ends<'_>) {
        match event {
            StreamEvent::Acked(stream, acked) => {
                if acked.up_to.is_some() {
                    self.liveness.progress(Instant::now(), self.windows.total_bytes() > 0);
                    self.resets.remove(&stream);
                }
                if let Some(parked) = &acked.parked {
                    ends.status.parked(stream.output.as_str(), parked.as_deref());
                }
                ends.events.send(UplinkEvent::Ack { stream, acked });
            }
            StreamEvent::Unsendable(stream, seq, reason) => {
                ends.events.send(UplinkEvent::Unsendable { stream, seq, reason });
            }
            StreamEvent::Reset(stream, attempt, reason) => {
                if self.streams.get(&stream).is_some_and(|open| open.attempt == attempt)
                    && self.connection.close_reason().is_none()
                {
                    self.restart(stream, reason, ends);
                }
            }
        }
    }

    /// Starts a stream's next attempt: the first time at once, then ever later while nothing gets through.
    fn restart(&mut self, stream: StreamKey, reason: String, ends: &mut Ends<'_>) {
        ends.counters.resets.inc();
        self.streams.remove(&stream);
        *ends.attempts += 1;
        let attempt = Attempt(*ends.attempts);
        self.windows.restart(&stream, attempt);
        let (resets, backoff) = self.resets.entry(stream.clone()).or_default();
        let wait = if *resets == 0 { Duration::ZERO } else { backoff.next(rand::random()) };
        *resets += 1;
        tracing::warn!(output = %stream.output, reason, resets_in_a_row = *resets, "data stream reset");
        let resets_without_progress = *resets;
        let event = UplinkEvent::StreamReset { stream, attempt, reason, resets_without_progress };
        let retries = self.retries.0.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = retries.send(event);
        });
    }

    /// The attempt that its first streams belong to.
    pub(super) fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// What the aggregator said.
    pub(super) fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The connection.
    pub(super) fn connection(&self) -> &quinn::Connection {
        &self.connection
    }
}

async fn found(leaving: &mut Option<Leaving>) -> Option<Connected> {
    match leaving.as_mut().and_then(|l| l.replacement.as_mut()) {
        Some(replacement) => replacement.await,
        None => std::future::pending().await,
    }
}

async fn left(leave_at: Option<tokio::time::Instant>) {
    match leave_at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
