//! What goes over the network: the payload of all UDP datagrams, both ways, of the real uplink to a real aggregator,
//! counted by a relay between them. One scrape at a time, each acknowledged before the next.

use crate::process::round;
use crate::site::Site;
use anyhow::{Context as _, Result};
use pegel_agent::uplink::{self, Attempt, HeartbeatReport, StreamKey, UplinkEvent, UplinkHandle};
use pegel_proto::batch::{AgentEpoch, Batch, BatchSeq, Signal};
use pegel_proto::identity::OutputName;
use pegel_proto::metrics::Block;
use pegel_proto::wire::{self, ALPN};
use pegel_runtime::metrics::Registry;
use pegel_runtime::tls::{TlsFiles, UplinkTls};
use serde_json::json;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Longer than QUIC holds an acknowledgement back (25 ms): what both sides say of a scrape has been said, as it has
/// after seconds.
const SETTLE: Duration = Duration::from_millis(40);
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// QUIC keeps a silent connection alive every so often (the uplink's setting).
const KEEP_ALIVE_SECONDS: f64 = 10.0;
/// Seconds between the recordings' scrapes.
const RECORDED_SECONDS: f64 = 5.0;

/// Counts what passes between agents and one aggregator.
struct Relay {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
    datagrams: Arc<AtomicU64>,
}

impl Relay {
    fn start(aggregator: SocketAddr) -> Result<Self> {
        let (agents, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        other.connect(aggregator)?;
        let relay = Self { address: agents.local_addr()?, bytes: Arc::default(), datagrams: Arc::default() };
        let (agents_back, other_back) = (agents.try_clone()?, other.try_clone()?);
        let (first, agent_address) = mpsc::unbounded_channel();
        let (bytes, datagrams) = (relay.bytes.clone(), relay.datagrams.clone());
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok((length, from)) = agents.recv_from(&mut buffer) {
                let _ = first.send(from);
                bytes.fetch_add(length as u64, Relaxed);
                datagrams.fetch_add(1, Relaxed);
                let _ = other.send(&buffer[..length]);
            }
        });
        let (bytes, datagrams) = (relay.bytes.clone(), relay.datagrams.clone());
        std::thread::spawn(move || {
            let (mut buffer, mut agent_address, mut agent) = (vec![0; 64 << 10], agent_address, None);
            while let Ok(length) = other_back.recv(&mut buffer) {
                while let Ok(from) = agent_address.try_recv() {
                    agent = Some(from);
                }
                bytes.fetch_add(length as u64, Relaxed);
                datagrams.fetch_add(1, Relaxed);
                if let Some(agent) = agent {
                    let _ = agents_back.send_to(&buffer[..length], agent);
                }
            }
        });
        Ok(relay)
    }

    fn counts(&self) -> (u64, u64) {
        (self.bytes.load(Relaxed), self.datagrams.load(Relaxed))
    }
}

/// One line: all blocks, `every`th scrapes of the recording, with a new connection each `reconnect_every` of them.
pub fn line(format: &str, blocks: &[Block], every: usize, reconnect_every: usize) -> Result<()> {
    let site = Site::start(None)?;
    let relay = Relay::start(site.address)?;
    let files = site.issue("bench", "node")?;
    let tls =
        UplinkTls::load(TlsFiles { ca: site.ca_file(), cert: files.cert, key: files.key, crl: None }, ALPN)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seconds = RECORDED_SECONDS * every as f64;
    let idle = runtime.block_on(async {
        let mut idle = 0;
        for (session, part) in blocks.chunks(reconnect_every.min(blocks.len())).enumerate() {
            let first = (session * reconnect_every.min(blocks.len())) as u64;
            let mut agent = Agent::connect(&tls, relay.address).await?;
            agent.send_all(part, first, seconds).await?;
            if seconds > KEEP_ALIVE_SECONDS && session == 0 {
                // One silence between two scrapes, for real; it is the same each time.
                let before = relay.counts().0;
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                idle = relay.counts().0 - before;
            }
            agent.end().await;
        }
        anyhow::Ok(idle)
    })?;
    let (bytes, datagrams) = relay.counts();
    // The silence that was lived through is counted already.
    let bytes = bytes + idle * (blocks.len() as u64).saturating_sub(2);
    let samples = super::samples(blocks);
    println!(
        "{}",
        json!({
            "bench": "wire", "format": format, "samples": samples, "series": super::series(blocks),
            "bytes": bytes, "bytes_per_sample": round(bytes as f64 / samples as f64),
            "datagrams_per_scrape": round(datagrams as f64 / blocks.len() as f64),
            "keep_alive_bytes_per_scrape": idle,
        })
    );
    Ok(())
}

struct Agent {
    handle: UplinkHandle,
    events: mpsc::UnboundedReceiver<UplinkEvent>,
    stream: StreamKey,
    attempt: Attempt,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    async fn connect(tls: &Arc<UplinkTls>, address: SocketAddr) -> Result<Self> {
        let (handle, mut events, run) = uplink::uplink(uplink::Context {
            settings: uplink::Settings { aggregators: vec![address.to_string()] },
            tls: tls.clone(),
            epoch: AgentEpoch(1),
            hostname: "node".into(),
            registry: Registry::new(),
            wall_clock_ms: Arc::new(|| 0),
        });
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(run.run(shutdown.clone()));
        let (attempt, output) = loop {
            match next(&mut events).await? {
                UplinkEvent::Up { attempt, outputs, .. } => {
                    break (attempt, outputs.first().context("no output")?.name.clone());
                }
                UplinkEvent::Down { reason } => anyhow::bail!("no session: {reason}"),
                _ => {}
            }
        };
        Ok(Self { handle, events, stream: StreamKey::metrics(output), attempt, shutdown, task })
    }

    async fn send_all(&mut self, blocks: &[Block], first: u64, seconds: f64) -> Result<()> {
        let mut collected = 0;
        let scrapes_a_heartbeat = (uplink::HEARTBEAT_INTERVAL.as_secs_f64() / seconds).ceil() as usize;
        for (number, block) in blocks.iter().enumerate() {
            if number % scrapes_a_heartbeat == 0 {
                self.handle.heartbeat(Signal::Metrics, report(&self.stream.output, collected));
            }
            collected += block.values.len() as u64;
            let seq = BatchSeq(first + number as u64 + 1);
            let batch = Arc::new(Batch::metrics(seq, vec![block.clone()]));
            self.handle.try_send(&self.stream, self.attempt, batch, false)?;
            loop {
                match next(&mut self.events).await? {
                    UplinkEvent::Ack { acked, .. } if acked.up_to == Some(seq) => break,
                    UplinkEvent::Down { reason } | UplinkEvent::StreamReset { reason, .. } => {
                        anyhow::bail!("the session broke: {reason}")
                    }
                    _ => {}
                }
            }
            tokio::time::sleep(SETTLE).await;
        }
        Ok(())
    }

    async fn end(self) {
        self.shutdown.cancel();
        let _ = self.task.await;
    }
}

async fn next(events: &mut mpsc::UnboundedReceiver<UplinkEvent>) -> Result<UplinkEvent> {
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.context("the aggregator is silent")?;
    event.context("the uplink has ended")
}

/// What the pipeline would tell.
fn report(output: &OutputName, delivered: u64) -> HeartbeatReport {
    HeartbeatReport {
        books: vec![wire::Books {
            signal: wire::WireSignal::Metrics.into(),
            output: output.to_string(),
            collected: delivered,
            delivered,
            ..wire::Books::default()
        }],
        ..HeartbeatReport::default()
    }
}
