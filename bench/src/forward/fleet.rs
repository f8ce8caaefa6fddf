//! Simulated agents: the real uplink with the real encoder under values that look like a host's.

use crate::site::Site;
use anyhow::Result;
use pegel_agent::uplink::{self, Attempt, StreamKey, UplinkEvent, UplinkHandle};
use pegel_proto::batch::{AgentEpoch, Batch, BatchSeq};
use pegel_proto::identity::OutputName;
use pegel_proto::metrics::{Block, Family, Labels, MetricType, NAME_LABEL, Series, SeriesSet};
use pegel_proto::wire::ALPN;
use pegel_runtime::metrics::Registry;
use pegel_runtime::tls::{TlsFiles, UplinkTls};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// How many tenants the agents belong to.
const TENANTS: usize = 10;
/// The interval of scrapes: that of `bench latency`.
const INTERVAL: Duration = Duration::from_secs(1);
/// Series of one family: as many as a metric of 4 CPUs with 2 modes has.
const SERIES_A_FAMILY: usize = 8;
/// A quarter of a host's series change from one scrape to the next.
const CHANGES: f64 = 0.25;
/// Batches sent and not acknowledged; more wait, as a scrape does whose agent is held back.
const IN_FLIGHT: usize = 4;

/// All agents. They begin with one batch each, and go on each second once told.
pub(super) struct Fleet {
    warm: Arc<AtomicUsize>,
    go: watch::Sender<bool>,
}

impl Fleet {
    pub(super) fn start(site: &Site, agents: usize, series: usize) -> Result<Self> {
        let warm = Arc::new(AtomicUsize::new(0));
        let (go, start) = watch::channel(false);
        let shapes = shapes(series);
        for number in 0..agents {
            let (tenant, node) = (format!("tenant-{}", number % TENANTS), format!("node-{number}"));
            let files = site.issue(&tenant, &node)?;
            let tls = UplinkTls::load(
                TlsFiles { ca: site.ca_file(), cert: files.cert, key: files.key, crl: None },
                ALPN,
            )?;
            let (handle, events, run) = uplink::uplink(uplink::Context {
                settings: uplink::Settings { aggregators: vec![site.address.to_string()] },
                tls,
                epoch: AgentEpoch(rand::random()),
                hostname: node.clone(),
                registry: Registry::new(),
                wall_clock_ms: Arc::new(wall_ms),
            });
            tokio::spawn(run.run(CancellationToken::new()));
            let target = Labels::new([("job", "node"), ("instance", node.as_str())])?;
            let mut rng = SmallRng::seed_from_u64(number as u64);
            let agent = Agent {
                handle,
                events,
                set: Arc::new(SeriesSet::new(Arc::new(target), shapes.clone())),
                values: (0..series).map(|_| f64::from(rng.random_range(0..10_000_000_u32)) / 100.0).collect(),
                rng,
                stream: None,
                seq: BatchSeq(0),
                acked: BatchSeq(0),
            };
            tokio::spawn(agent.run(warm.clone(), start.clone(), INTERVAL * number as u32 / agents as u32));
        }
        Ok(Self { warm, go })
    }

    /// How many agents' first batch was acknowledged.
    pub(super) fn warm(&self) -> usize {
        self.warm.load(Relaxed)
    }

    /// Lets all agents send each second.
    pub(super) fn go(&self) {
        let _ = self.go.send(true);
    }
}

/// The series of an agent, which differ from those of another by their target.
fn shapes(series: usize) -> Vec<Arc<Series>> {
    let families: Vec<Arc<Family>> = (0..series.div_ceil(SERIES_A_FAMILY))
        .map(|n| {
            Arc::new(Family {
                name: format!("node_simulated_subsystem{n}_things_total").into(),
                kind: if n % 3 == 0 { MetricType::Gauge } else { MetricType::Counter },
                help: format!("Things of subsystem {n} that were simulated.").into(),
                unit: "".into(),
            })
        })
        .collect();
    (0..series)
        .map(|n| {
            let family = families[n / SERIES_A_FAMILY].clone();
            let (cpu, mode) = ((n % SERIES_A_FAMILY) / 2, if n % 2 == 0 { "idle" } else { "system" });
            let labels = Labels::new([
                (NAME_LABEL.to_owned(), family.name.to_string()),
                ("cpu".to_owned(), cpu.to_string()),
                ("mode".to_owned(), mode.to_owned()),
            ]);
            Arc::new(Series::new(labels.expect("three names"), family))
        })
        .collect()
}

fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

struct Agent {
    handle: UplinkHandle,
    events: mpsc::UnboundedReceiver<UplinkEvent>,
    set: Arc<SeriesSet>,
    values: Vec<f64>,
    rng: SmallRng,
    stream: Option<(StreamKey, Attempt)>,
    seq: BatchSeq,
    acked: BatchSeq,
}

impl Agent {
    async fn run(mut self, warm: Arc<AtomicUsize>, mut start: watch::Receiver<bool>, offset: Duration) {
        while self.acked.0 == 0 {
            if !self.event().await {
                return;
            }
            if self.stream.is_some() && self.seq.0 == 0 {
                self.scrape();
            }
        }
        warm.fetch_add(1, Relaxed);
        let started = tokio::select! {
            started = start.wait_for(|go| *go) => started.is_ok(),
            () = async { while self.event().await {} } => false,
        };
        if !started {
            return;
        }
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + offset, INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let may_send = self.seq.0 < self.acked.0 + IN_FLIGHT as u64;
            tokio::select! {
                _ = ticks.tick(), if may_send => self.scrape(),
                alive = self.event() => if !alive { return },
            }
        }
    }

    async fn event(&mut self) -> bool {
        match self.events.recv().await {
            Some(UplinkEvent::Up { attempt, outputs, .. }) => {
                let output = outputs.first().map(|o| o.name.clone());
                let output = output.unwrap_or_else(|| OutputName::parse("recent").expect("a name"));
                self.stream = Some((StreamKey::metrics(output), attempt));
                // What was in flight is not sent again: samples are counted where they arrive.
                self.acked = self.seq;
            }
            Some(UplinkEvent::Ack { acked, .. }) => self.acked = acked.up_to.unwrap_or(self.acked),
            Some(UplinkEvent::StreamReset { attempt, stream, reason, .. }) => {
                eprintln!("a stream was reset: {reason}");
                self.stream = Some((stream, attempt));
                self.acked = self.seq;
            }
            Some(UplinkEvent::Down { reason }) => {
                eprintln!("a session ended: {reason}");
                self.stream = None;
            }
            Some(_) => {}
            None => return false,
        }
        true
    }

    fn scrape(&mut self) {
        let Some((stream, attempt)) = &self.stream else { return };
        for value in &mut self.values {
            if self.rng.random_bool(CHANGES) {
                // Decimal steps, as the kernel's hundredths of seconds and whole counts are.
                let cents = (*value * 100.0).round() + f64::from(self.rng.random_range(1..200_u32));
                *value = cents / 100.0;
            }
        }
        self.seq = self.seq.next();
        let block = Block::new(wall_ms(), self.set.clone(), self.values.as_slice());
        let batch = Arc::new(Batch::metrics(self.seq, vec![block]));
        let _ = self.handle.try_send(stream, *attempt, batch, false);
    }
}
