//! A site in one process: a CA, aggregators with an output that remembers, and an agent with the smallest pipeline
//! that keeps the promise: it forgets a batch when it is acknowledged, and sends again what is not.

use parking_lot::Mutex;
use pegel_agent::uplink::{self, Attempt, StreamKey, UplinkEvent, UplinkHandle};
use pegel_aggregator::fanout::{Announcement, Delivery, Output, OutputHealth, Payload, Verdict};
use pegel_aggregator::receiver::{self, Receiver, SessionTable};
use pegel_aggregator::symbols::Symbols;
use pegel_proto::batch::{AgentEpoch, Batch, BatchSeq, Outcome, RejectReason, Rejection, Signal};
use pegel_proto::identity::{AgentIdentity, NodeId, OutputName, TenantId};
use pegel_proto::metrics::{Block, Labels, NAME_LABEL, Series, SeriesSet};
use pegel_proto::wire;
use pegel_runtime::metrics::Registry;
use pegel_runtime::pki::{AggregatorNames, CertificateAuthority, DEFAULT_CA_LIFETIME, Existing, IssuedFiles};
use pegel_runtime::tls::{ReceiverTls, TlsFiles, UplinkTls};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const SECOND: Duration = Duration::from_secs(1);
pub const HOUR: Duration = Duration::from_hours(1);
/// Longer than anything here takes on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(40);

pub fn wall_clock_ms() -> i64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64)
}

/// A CA and its directory.
pub struct Site {
    pub ca: CertificateAuthority,
    _dir: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        Self::of_domain("site")
    }

    pub fn of_domain(domain: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca =
            CertificateAuthority::init(dir.path(), domain, DEFAULT_CA_LIFETIME, Existing::Refuse).unwrap();
        Self { ca, _dir: dir }
    }

    pub fn files(&self, own: &IssuedFiles) -> TlsFiles {
        TlsFiles {
            ca: self.ca.certificate_path(),
            cert: own.cert.clone(),
            key: own.key.clone(),
            crl: Some(self.ca.crl_path()),
        }
    }

    pub fn agent_files(&self, node: &str, lifetime: Duration) -> TlsFiles {
        let identity =
            AgentIdentity { tenant: TenantId::parse("acme").unwrap(), node: NodeId::parse(node).unwrap() };
        self.files(&self.ca.issue_agent(&identity, lifetime, Existing::Replace).unwrap())
    }

    pub fn receiver_tls(&self) -> Arc<ReceiverTls> {
        self.receiver_tls_for(HOUR)
    }

    pub fn receiver_tls_for(&self, lifetime: Duration) -> Arc<ReceiverTls> {
        let names = AggregatorNames { name: NodeId::parse("agg").unwrap(), dns: vec![], addresses: vec![] };
        let own = self.ca.issue_aggregator(&names, lifetime, Existing::Replace).unwrap();
        ReceiverTls::load(self.files(&own), wire::ALPN, None).unwrap()
    }
}

/// What the output does with batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Takes them.
    Accept,
    /// Answers nothing.
    Hold,
    /// Refuses each batch's first sample.
    Reject,
}

/// An output that remembers what it was given.
pub struct Memory {
    mode: Mutex<Mode>,
    held: Mutex<Vec<Delivery>>,
    pub taken: Arc<Mutex<BTreeMap<u64, Vec<u64>>>>,
    pub sends: Mutex<Vec<(u64, bool)>>,
    pub forgotten: Mutex<Vec<u64>>,
}

impl Memory {
    /// An output; several aggregators' may share what was taken, as their backend would.
    pub fn new(taken: Arc<Mutex<BTreeMap<u64, Vec<u64>>>>) -> Arc<Self> {
        Arc::new(Self {
            mode: Mutex::new(Mode::Accept),
            held: Mutex::default(),
            taken,
            sends: Mutex::default(),
            forgotten: Mutex::default(),
        })
    }

    pub fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
        for delivery in self.held.lock().drain(..) {
            self.settle(&delivery, mode);
        }
    }

    /// Settles what is held, the newest first.
    pub fn settle_backwards(&self) {
        let held: Vec<_> = self.held.lock().drain(..).collect();
        for delivery in held.into_iter().rev() {
            self.settle(&delivery, Mode::Accept);
        }
    }

    pub fn park(&self, reason: Option<&str>) {
        for delivery in self.held.lock().iter().take(1) {
            let verdict = reason.map_or(Verdict::Resumed, |r| Verdict::Parked(r.into()));
            let _ = delivery.reply.0.send(verdict);
        }
    }

    pub fn held(&self) -> usize {
        self.held.lock().len()
    }

    fn settle(&self, delivery: &Delivery, mode: Mode) {
        let Payload::Metrics(blocks) = &delivery.payload else { panic!("logs, where samples are sent") };
        let values: Vec<u64> = blocks.iter().flat_map(|b| b.values.iter().map(|v| v.to_bits())).collect();
        let mut outcome = Outcome { delivered: values.len() as u64, ..Outcome::default() };
        if mode == Mode::Reject {
            outcome.delivered -= 1;
            outcome.rejections.push(Rejection {
                seq: delivery.seq,
                reason: RejectReason::TooOld,
                message: "too old".into(),
                records: vec![(0, 1)],
            });
        }
        let before = self.taken.lock().insert(delivery.seq.0, values.clone());
        assert!(before.is_none_or(|b| b == values), "batch {} came with other values", delivery.seq);
        let _ = delivery.reply.0.send(Verdict::Settled(delivery.seq, outcome));
    }
}

impl Output for Memory {
    fn announcement(&self) -> Announcement {
        Announcement {
            name: OutputName::parse("main").unwrap(),
            signal: Signal::Metrics,
            accepts_out_of_order: false,
            out_of_order_window_seconds: 0,
        }
    }

    fn submit(&self, delivery: Delivery) {
        self.sends.lock().push((delivery.seq.0, delivery.sent_before));
        match *self.mode.lock() {
            Mode::Hold => self.held.lock().push(delivery),
            mode => self.settle(&delivery, mode),
        }
    }

    fn forget_session(&self, session: u64) {
        self.forgotten.lock().push(session);
        self.held.lock().retain(|d| d.agent.session != session);
    }

    fn health(&self) -> OutputHealth {
        OutputHealth { ok: true, detail: String::new() }
    }
}

/// A running aggregator.
pub struct Aggregator {
    pub address: SocketAddr,
    pub output: Arc<Memory>,
    pub sessions: Arc<SessionTable>,
    pub tls: Arc<ReceiverTls>,
    pub registry: Registry,
    pub outputs: watch::Sender<receiver::Outputs>,
    pub task: JoinHandle<()>,
    pub shutdown: CancellationToken,
}

impl Aggregator {
    pub fn start(site: &Site) -> Self {
        Self::start_with(site, Arc::default(), |_| {})
    }

    pub fn start_with(
        site: &Site,
        taken: Arc<Mutex<BTreeMap<u64, Vec<u64>>>>,
        adjust: impl FnOnce(&mut receiver::Settings),
    ) -> Self {
        Self::start_as(site.receiver_tls(), taken, adjust)
    }

    pub fn start_as(
        tls: Arc<ReceiverTls>,
        taken: Arc<Mutex<BTreeMap<u64, Vec<u64>>>>,
        adjust: impl FnOnce(&mut receiver::Settings),
    ) -> Self {
        let output = Memory::new(taken);
        let (outputs, outputs_watch) = watch::channel(Arc::new(vec![output.clone() as Arc<dyn Output>]));
        let sessions = Arc::new(SessionTable::new());
        let registry = Registry::new();
        let mut settings = receiver::Settings {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            drain: Duration::from_secs(5),
            ..receiver::Settings::default()
        };
        adjust(&mut settings);
        let bound = Receiver::bind(receiver::Context {
            settings,
            tls: tls.clone(),
            outputs: outputs_watch,
            tap: None,
            symbols: Arc::new(Symbols::new()),
            sessions: sessions.clone(),
            rejects: Arc::default(),
            registry: registry.clone(),
            wall_clock_ms: Arc::new(wall_clock_ms),
        })
        .unwrap();
        let address = bound.local_addresses()[0];
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(bound.run(shutdown.clone()));
        Self { address, output, sessions, tls, registry, outputs, task, shutdown }
    }
}

/// What the agent's small pipeline knows.
#[derive(Debug, Default)]
pub struct Ledger {
    pub unacknowledged: VecDeque<(Arc<Batch>, bool)>,
    /// How many of them, from the oldest, were handed to the uplink in this attempt.
    handed: usize,
    attempt: Option<Attempt>,
    pub acknowledged: u64,
    pub rejected: u64,
    pub parked: Option<String>,
    pub ups: Vec<String>,
    pub downs: Vec<String>,
    pub resets: Vec<String>,
    pub outputs: usize,
    pub unsendable: Vec<u64>,
}

/// An agent: an uplink and a pipeline.
pub struct Agent {
    pub handle: UplinkHandle,
    pub ledger: Arc<Mutex<Ledger>>,
    pub tls: Arc<UplinkTls>,
    wake: mpsc::UnboundedSender<()>,
    shutdown: CancellationToken,
    next: u64,
    set: Arc<SeriesSet>,
}

impl Agent {
    pub fn start(files: TlsFiles, aggregators: &[SocketAddr]) -> Self {
        Self::start_as(files, aggregators, AgentEpoch(7))
    }

    pub fn start_as(files: TlsFiles, aggregators: &[SocketAddr], epoch: AgentEpoch) -> Self {
        let tls = UplinkTls::load(files, wire::ALPN).unwrap();
        let (handle, events, uplink) = uplink::uplink(uplink::Context {
            settings: uplink::Settings { aggregators: aggregators.iter().map(ToString::to_string).collect() },
            tls: tls.clone(),
            epoch,
            hostname: "host-a".into(),
            registry: Registry::new(),
            wall_clock_ms: Arc::new(wall_clock_ms),
        });
        let shutdown = CancellationToken::new();
        tokio::spawn(uplink.run(shutdown.clone()));
        let ledger: Arc<Mutex<Ledger>> = Arc::default();
        let (wake, woken) = mpsc::unbounded_channel();
        tokio::spawn(pipeline(handle.clone(), events, woken, ledger.clone()));
        Self { handle, ledger, tls, wake, shutdown, next: 1, set: series_set(600) }
    }

    /// Collects a batch; gives its number.
    pub fn collect(&mut self) -> u64 {
        let seq = self.next;
        self.next += 1;
        let values: Vec<f64> = (0..self.set.len()).map(|i| value(seq, i)).collect();
        let at_ms = 1_700_000_000_000 + 5_000 * seq as i64;
        let blocks = vec![Block::new(at_ms, self.set.clone(), values)];
        let batch = Batch::metrics(BatchSeq(seq), blocks);
        self.ledger.lock().unacknowledged.push_back((Arc::new(batch), false));
        let _ = self.wake.send(());
        seq
    }

    pub async fn all_acknowledged(&self) {
        let last = self.next - 1;
        self.until(&format!("batch {last} is acknowledged"), |l| l.acknowledged == last).await;
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&Ledger) -> bool) {
        let deadline = tokio::time::Instant::now() + SOON;
        while !holds(&self.ledger.lock()) {
            assert!(tokio::time::Instant::now() < deadline, "it did not come true that {what}: {:?}", {
                let l = self.ledger.lock();
                (
                    l.acknowledged,
                    l.handed,
                    l.unacknowledged.len(),
                    l.ups.clone(),
                    l.downs.clone(),
                    l.resets.clone(),
                    self.handle.status(),
                )
            });
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A slow counter, a gauge that does not change, and noise: what hosts send.
pub fn value(seq: u64, index: usize) -> f64 {
    match index % 8 {
        0 => (seq * (index as u64 + 1)) as f64,
        1 => ((seq * 2_654_435_761) % 1_000) as f64 / 100.0,
        _ => index as f64,
    }
}

/// What the output should hold of a batch.
pub fn expected(seq: u64) -> Vec<u64> {
    (0..600).map(|i| value(seq, i).to_bits()).collect()
}

pub fn stream() -> StreamKey {
    StreamKey::metrics(OutputName::parse("main").unwrap())
}

fn series_set(n: usize) -> Arc<SeriesSet> {
    let target = Arc::new(Labels::new([("job", "node"), ("instance", "host-a:9100")]).unwrap());
    let family = Arc::default();
    let series: Vec<_> = (0..n)
        .map(|i| {
            let name = format!("node_metric_number_{}_total", i / 4);
            let labels = Labels::new([(NAME_LABEL, name), ("device", format!("device-{}", i % 4))]).unwrap();
            Arc::new(Series::new(labels, Arc::clone(&family)))
        })
        .collect();
    Arc::new(SeriesSet::new(target, series))
}

async fn pipeline(
    handle: UplinkHandle,
    mut events: mpsc::UnboundedReceiver<UplinkEvent>,
    mut woken: mpsc::UnboundedReceiver<()>,
    ledger: Arc<Mutex<Ledger>>,
) {
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => take(&mut ledger.lock(), event),
                None => return,
            },
            _ = woken.recv() => {}
        }
        send(&handle, &mut ledger.lock());
    }
}

fn take(ledger: &mut Ledger, event: UplinkEvent) {
    match event {
        UplinkEvent::Up { attempt, aggregator, outputs, .. } => {
            ledger.ups.push(aggregator);
            ledger.outputs = outputs.len();
            (ledger.attempt, ledger.handed) = (Some(attempt), 0);
        }
        UplinkEvent::OutputsChanged { outputs, .. } => ledger.outputs = outputs.len(),
        UplinkEvent::Ack { acked, .. } => {
            if let Some(parked) = acked.parked {
                ledger.parked = parked;
            }
            ledger.rejected += acked.rejections.iter().map(Rejection::count).sum::<u64>();
            let Some(up_to) = acked.up_to else { return };
            while ledger.unacknowledged.front().is_some_and(|(b, _)| b.seq <= up_to) {
                ledger.unacknowledged.pop_front();
                ledger.handed = ledger.handed.saturating_sub(1);
            }
            ledger.acknowledged = ledger.acknowledged.max(up_to.0);
        }
        UplinkEvent::StreamReset { attempt, reason, .. } => {
            ledger.resets.push(reason);
            (ledger.attempt, ledger.handed) = (Some(attempt), 0);
        }
        UplinkEvent::Down { reason } => {
            ledger.downs.push(reason);
            (ledger.attempt, ledger.handed) = (None, 0);
        }
        UplinkEvent::Unsendable { seq, .. } => {
            ledger.unsendable.push(seq.0);
            ledger.unacknowledged.retain(|(b, _)| b.seq != seq);
        }
        UplinkEvent::Throttle { .. } => {}
    }
}

fn send(handle: &UplinkHandle, ledger: &mut Ledger) {
    let Some(attempt) = ledger.attempt else { return };
    let handed = ledger.handed;
    for (batch, sent_before) in ledger.unacknowledged.iter_mut().skip(handed) {
        if handle.try_send(&stream(), attempt, batch.clone(), *sent_before).is_err() {
            return;
        }
        *sent_before = true;
        ledger.handed += 1;
    }
}
