//! From session to session.

use super::address::Aggregator;
use super::backoff::Backoff;
use super::connect::{ConnectError, Connected, candidates, describe, race};
use super::control::Control;
use super::counters::Counters;
use super::session::{Ended, Ends, Replacement, Session};
use super::transport::Endpoints;
use super::{Attempt, Context, Uplink, UplinkEvent};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// Agents that are sent away by one aggregator go to the others spread over this time.
const LEAVE_SPREAD: Duration = Duration::from_secs(1);
/// A session that lasted this long was a good one: the next wait starts small again.
const GOOD_SESSION: Duration = Duration::from_secs(30);
/// How many aggregators that failed are tried last.
const MAX_AVOIDED: usize = 16;
/// How long the last packet may take to leave.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);

/// What finding a connection needs; shared with the search for a replacement while a session goes on.
struct Dialer {
    context: Context,
    aggregators: Vec<Aggregator>,
    endpoints: Mutex<Endpoints>,
}

impl Dialer {
    async fn dial(
        &self,
        last: &[SocketAddr],
        without: Option<SocketAddr>,
    ) -> Result<Connected, ConnectError> {
        let node = self.context.tls.own().identity.node;
        let mut found = candidates(&self.aggregators, node.as_str(), last).await?;
        found.retain(|c| Some(c.address) != without);
        if found.is_empty() {
            return Err(ConnectError::Unresolved("there is no other aggregator".into()));
        }
        race(&mut *self.endpoints.lock().await, &self.context.tls, found).await
    }
}

pub(super) async fn run(mut uplink: Uplink, shutdown: CancellationToken) {
    let dialer = Arc::new(Dialer {
        aggregators: uplink.context.settings.aggregators.iter().map(|a| Aggregator::parse(a)).collect(),
        endpoints: Mutex::default(),
        context: uplink.context.clone(),
    });
    let counters = Counters::new(&uplink.context.registry);
    let mut attempts = 0;
    let mut backoff = Backoff::default();
    let mut avoided: Vec<SocketAddr> = Vec::new();
    let mut replacement = None;
    let mut last_error = String::new();
    loop {
        uplink.status.connecting();
        let began = Instant::now();
        let opened = tokio::select! {
            () = shutdown.cancelled() => break,
            opened = open(&dialer, replacement.take(), &avoided) => opened,
        };
        let error = match opened {
            Ok((connected, control, welcome)) => {
                attempts += 1;
                let address = connected.candidate.address;
                let session = Session::new(connected.connection, control, welcome, Attempt(attempts));
                begin(&uplink, &session, address);
                last_error.clear();
                let ends = Ends {
                    context: &uplink.context,
                    sends: &mut uplink.sends,
                    report: &mut uplink.report,
                    events: &uplink.events,
                    status: &uplink.status,
                    shutdown: &shutdown,
                    attempts: &mut attempts,
                    counters: &counters,
                };
                let ended = session.run(ends, |elsewhere| replace(&dialer, elsewhere, address)).await;
                uplink.windows.store(None);
                // The last of those that were left: an aggregator that went away is tried after all others.
                avoided.retain(|a| *a != address);
                let (reason, error) = match ended {
                    Ended::Shutdown => break,
                    Ended::Left { reason, replacement: found } => {
                        avoided.push(address);
                        replacement = found;
                        (reason, None)
                    }
                    Ended::Broken(reason) => {
                        avoided.push(address);
                        (reason.clone(), Some(reason))
                    }
                };
                tracing::warn!(%address, reason, "uplink is down");
                uplink.status.disconnected(error.as_deref());
                uplink.events.send(UplinkEvent::Down { reason: reason.clone() });
                if began.elapsed() >= GOOD_SESSION {
                    backoff.reset();
                }
                reason
            }
            Err((address, error)) => {
                if let Some(address) = address {
                    avoided.retain(|a| *a != address);
                    avoided.push(address);
                }
                uplink.status.disconnected(Some(&error));
                if error != last_error {
                    tracing::warn!(error, "no session with an aggregator; trying on");
                }
                error
            }
        };
        last_error = error;
        if avoided.len() > MAX_AVOIDED {
            avoided.remove(0);
        }
        if replacement.is_none() {
            let wait = backoff.next(rand::random());
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
    uplink.windows.store(None);
    uplink.status.stopped();
    let _ = tokio::time::timeout(CLOSE_LIMIT, dialer.endpoints.lock().await.wait_idle()).await;
}

type OpenedSession = (Connected, Control, super::control::Welcome);

/// Connects (unless there is a connection already) and says hello. The error says where, if anybody answered.
async fn open(
    dialer: &Dialer,
    ready: Option<Connected>,
    avoided: &[SocketAddr],
) -> Result<OpenedSession, (Option<SocketAddr>, String)> {
    let connected = match ready {
        Some(connected) => connected,
        None => dialer.dial(avoided, None).await.map_err(|e| (None, e.to_string()))?,
    };
    let address = connected.candidate.address;
    match Control::open(&connected.connection, &dialer.context).await {
        Ok((control, welcome)) => Ok((connected, control, welcome)),
        Err(error) => {
            // The handshake is done for the client before the server has looked at its certificate.
            let reason = connected.connection.close_reason().map_or(error.0, |e| describe(&e));
            connected.connection.close(pegel_proto::wire::close::DONE.into(), b"");
            Err((Some(address), format!("{address}: {reason}")))
        }
    }
}

fn begin(uplink: &Uplink, session: &Session, address: SocketAddr) {
    let welcome = session.welcome();
    let aggregator = format!("{} ({address})", welcome.name);
    tracing::info!(aggregator, outputs = welcome.outputs.len(), "uplink is up");
    uplink.status.connected(
        &welcome.name,
        session.connection(),
        session.windows().clone(),
        welcome.skew_ms,
        Instant::now(),
    );
    uplink.windows.store(Some(session.windows().clone()));
    uplink.events.send(UplinkEvent::Up {
        attempt: session.attempt(),
        aggregator,
        outputs: welcome.outputs.clone(),
        limits: welcome.limits,
    });
}

fn replace(dialer: &Arc<Dialer>, elsewhere: bool, now_at: SocketAddr) -> Replacement {
    let dialer = dialer.clone();
    Box::pin(async move {
        if elsewhere {
            tokio::time::sleep(LEAVE_SPREAD.mul_f64(rand::random())).await;
        }
        let without = elsewhere.then_some(now_at);
        let last = if elsewhere { vec![now_at] } else { Vec::new() };
        match dialer.dial(&last, without).await {
            Ok(connected) => Some(connected),
            Err(error) => {
                tracing::debug!(%error, "no other aggregator was found");
                None
            }
        }
    })
}
