//! The status server on a free port, over a fleet of the test's making.

use parking_lot::Mutex;
use pegel_aggregator::fanout::Tap;
use pegel_aggregator::output::recent::{self, Recent};
use pegel_aggregator::output::recent_logs::{self, RecentLogs};
use pegel_aggregator::session::{AgentInfo, ResolvedBlock, ResolvedSeries, ResolvedSet};
use pegel_aggregator::status::{AgentStatus, Books, FleetView, OutputStatus, Reject, Settings, Status};
use pegel_aggregator::symbols::Symbols;
use pegel_proto::batch::{AgentEpoch, BatchSeq, RejectReason};
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use pegel_proto::logs::BlockBuilder;
use pegel_proto::metrics::{Family, NAME_LABEL};
use pegel_runtime::metrics::Registry;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A label value that would do harm if it became markup.
pub const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\">";

/// The fleet as a receiver would tell it.
#[derive(Default)]
pub struct Fleet {
    pub agents: Mutex<Vec<AgentStatus>>,
    pub outputs: Mutex<Vec<OutputStatus>>,
    pub rejects: Mutex<Vec<Reject>>,
}

impl FleetView for Fleet {
    fn agents(&self) -> Vec<AgentStatus> {
        self.agents.lock().clone()
    }

    fn rejects(&self) -> Vec<Reject> {
        self.rejects.lock().clone()
    }

    fn outputs(&self) -> Vec<OutputStatus> {
        self.outputs.lock().clone()
    }
}

/// A running status server.
pub struct Site {
    pub fleet: Arc<Fleet>,
    pub recent: Arc<Recent>,
    pub logs: Arc<RecentLogs>,
    pub address: SocketAddr,
    symbols: Arc<Symbols>,
    _stop: DropGuard,
}

pub fn now_ms() -> i64 {
    recent::system_clock()()
}

pub fn identity(tenant: &str, node: &str) -> AgentIdentity {
    AgentIdentity { tenant: TenantId::parse(tenant).unwrap(), node: NodeId::parse(node).unwrap() }
}

impl Site {
    /// Starts a server on a thread of its own; it ends with the site.
    pub fn start() -> anyhow::Result<Self> {
        let registry = Registry::new();
        let symbols = Arc::new(Symbols::new());
        let recent = Recent::new(recent::Settings::default(), symbols.clone(), &registry);
        let fleet = Arc::new(Fleet::default());
        let settings = Settings {
            name: "site-1".into(),
            agent_address: "site-1.example:4646".into(),
            tick: std::time::Duration::from_millis(200),
            ..Settings::default()
        };
        let logs = RecentLogs::new(recent_logs::Settings::default(), &registry);
        let status = Status::new(settings, fleet.clone(), recent.clone(), Some(logs.clone()), &registry);
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("the listener is bound");
                tokio::spawn(status.clone().run(stopped.clone()));
                tokio::spawn(async move { axum::serve(listener, status.router()).await });
                stopped.cancelled().await;
            });
        });
        Ok(Self { fleet, recent, logs, address, symbols, _stop: stop.drop_guard() })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn set(&self, node: &str) -> Arc<ResolvedSet> {
        let mut series: Vec<Vec<(&str, String)>> = Vec::new();
        for cpu in 0..4 {
            for mode in ["idle", "user", "system", "iowait"] {
                series.push(vec![
                    (NAME_LABEL, "node_cpu_seconds_total".into()),
                    ("cpu", cpu.to_string()),
                    ("mode", mode.into()),
                ]);
            }
        }
        let plain = |name: &str| vec![(NAME_LABEL, name.to_owned())];
        let device = |name: &str, device: &str| {
            let mut labels = plain(name);
            labels.push(("device", device.to_owned()));
            labels
        };
        let mounted = |name: &str, on: &str, mountpoint: &str| {
            let mut labels = device(name, on);
            labels.push(("mountpoint", mountpoint.to_owned()));
            labels.push(("fstype", "ext4".to_owned()));
            labels
        };
        series.extend(
            ["node_memory_MemTotal_bytes", "node_memory_MemAvailable_bytes", "node_load1"].map(plain),
        );
        series.push(device("node_disk_read_bytes_total", "nvme0n1"));
        series.push(device("node_disk_written_bytes_total", "nvme0n1"));
        series.push(device("node_network_receive_bytes_total", "eth0"));
        series.push(device("node_network_transmit_bytes_total", "eth0"));
        series.push(mounted("node_filesystem_size_bytes", "/dev/nvme0n1p2", "/"));
        series.push(mounted("node_filesystem_avail_bytes", "/dev/nvme0n1p2", "/"));
        series.push(mounted("node_filesystem_size_bytes", "/dev/nvme0n1p3", "/var/lib/postgresql"));
        series.push(mounted("node_filesystem_avail_bytes", "/dev/nvme0n1p3", "/var/lib/postgresql"));
        series.push(plain("node_boot_time_seconds"));
        let mut uname = plain("node_uname_info");
        let told = [("sysname", "Linux"), ("release", "6.12.9-amd64"), ("machine", "x86_64")];
        uname.extend(told.map(|(n, v)| (n, v.to_owned())));
        series.push(uname);
        let mut hostile = plain("app_queue_length");
        hostile.push(("queue", HOSTILE.to_owned()));
        series.push(hostile);
        let resolved = series.into_iter().map(|mut labels| {
            labels.extend([("job", "node".to_owned()), ("instance", node.to_owned())]);
            labels.sort();
            let name: Box<str> = labels.iter().find(|(n, _)| *n == NAME_LABEL).unwrap().1.as_str().into();
            let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let family = Arc::new(Family { name, ..Family::default() });
            Arc::new(ResolvedSeries::new(&self.symbols, &labels, family))
        });
        Arc::new(ResolvedSet::new(resolved.collect::<Vec<_>>(), 0))
    }

    /// Sends an hour of a believable machine's values, 15 s apart, the last one now.
    pub fn an_hour_of(&self, tenant: &str, node: &str, phase: f64) {
        let agent = AgentInfo {
            identity: identity(tenant, node),
            epoch: AgentEpoch(1),
            session: 1,
            version: "0.1.0".into(),
            hostname: node.into(),
            peer: "10.1.2.3:40000".parse().unwrap(),
        };
        let set = self.set(node);
        let now = now_ms();
        let mut totals = [1e6, 1e5, 2e4, 1e3, 1e12, 1e12, 1e12, 1e12];
        for step in 0..=240 {
            let t = f64::from(step) / 12.0 + phase;
            let busy = (0.32 + 0.2 * (t / 3.0).sin() + 0.08 * (t * 2.7).sin() + 0.05 * (t * 7.1).cos())
                .clamp(0.02, 1.0);
            let spike = if (120..135).contains(&step) { 0.3 } else { 0.0 };
            let busy = (busy + spike).min(1.0);
            totals[0] += 15.0 * (1.0 - busy) * 0.97;
            totals[1] += 15.0 * busy * 0.7;
            totals[2] += 15.0 * busy * 0.3;
            totals[3] += 15.0 * (1.0 - busy) * 0.03;
            totals[4] += 15.0 * 3e6 * (1.0 + (t * 1.3).sin());
            totals[5] += 15.0 * 8e6 * (1.1 + (t * 0.8).cos()) * (1.0 + 3.0 * spike);
            totals[6] += 15.0 * 1.2e6 * (1.2 + (t * 0.9).sin());
            totals[7] += 15.0 * 4.5e5 * (1.3 + (t * 1.1).cos());
            let mut values = Vec::new();
            for _ in 0..4 {
                values.extend(&totals[..4]);
            }
            values.extend([16.6e9, 16.6e9 * (0.42 - 0.1 * (t / 4.0).sin()), 4.0 * busy + 0.3]);
            values.extend(&totals[4..]);
            values.extend([2.5e11, 1.1e11, 8e11, 8e11 * (0.085 - 0.0002 * f64::from(step))]);
            values.extend([now as f64 / 1000.0 - 1_900_000.0, 1.0, 7.0]);
            let block = ResolvedBlock {
                at_ms: now - i64::from(240 - step) * 15_000,
                set: set.clone(),
                values: values.into(),
                stamps_ms: None,
            };
            self.recent.observe(&agent, BatchSeq(step as u64 + 1), &[block]);
        }
    }
}

impl Site {
    /// Says how a check stands: `state` is its value of `pegel_probe_up`, `failure` the phase and reason of its last run.
    pub fn check(&self, node: &str, seq: u64, target: &str, state: f64, failure: Option<(&str, &str)>) {
        let now = now_ms();
        let seconds = now as f64 / 1_000.0;
        let mut series = vec![
            ("probe_success", vec![], f64::from(u8::from(failure.is_none()))),
            ("probe_duration_seconds", vec![], 0.042),
            ("probe_ssl_earliest_cert_expiry", vec![], seconds + 9.0 * 86_400.0),
            ("pegel_probe_maintenance", vec![], 0.0),
            ("pegel_probe_state_since_timestamp_seconds", vec![], seconds - 4_000.0),
            ("pegel_probe_up", vec![("kind", "http")], state),
        ];
        if let Some((phase, reason)) = failure {
            series.push(("pegel_probe_failure", vec![("phase", phase), ("reason", reason)], 1.0));
        }
        let values: Vec<f64> = series.iter().map(|(.., value)| *value).collect();
        let resolved = series.iter().map(|(name, own, _)| {
            let mut labels = own.clone();
            labels.extend([(NAME_LABEL, *name), ("job", "shop"), ("instance", target)]);
            labels.extend([("tenant", "acme"), ("node", node)]);
            labels.sort_unstable();
            let family = Arc::new(Family { name: (*name).into(), ..Family::default() });
            Arc::new(ResolvedSeries::new(&self.symbols, &labels, family))
        });
        let set = Arc::new(ResolvedSet::new(resolved.collect::<Vec<_>>(), seq as u32).of_target(seq));
        let agent = AgentInfo {
            identity: identity("acme", node),
            epoch: AgentEpoch(1),
            session: 1,
            version: "0.1.0".into(),
            hostname: node.into(),
            peer: "10.1.2.3:40000".parse().unwrap(),
        };
        let block = ResolvedBlock { at_ms: now, set, values: values.into(), stamps_ms: None };
        self.recent.observe(&agent, BatchSeq(seq), &[block]);
    }
}

impl Site {
    /// Sends log entries of one stream, 1 ms apart up to now.
    pub fn log(&self, node: &str, seq: u64, level: &str, lines: &[&str]) {
        let agent = AgentInfo {
            identity: identity("acme", node),
            epoch: AgentEpoch(1),
            session: 1,
            version: "0.1.0".into(),
            hostname: node.into(),
            peer: "10.1.2.3:40000".parse().unwrap(),
        };
        let mut builder = BlockBuilder::new();
        let key = builder.key("trace_id").unwrap();
        let labels = [("filename", "/var/log/shop/shop.log"), ("job", "shop"), ("level", level)];
        let stream = builder.stream(labels.into_iter()).unwrap();
        let first_ms = now_ms() - lines.len() as i64;
        for (nth, line) in lines.iter().enumerate() {
            builder.push(stream, (first_ms + nth as i64) * 1_000_000, line, &[(key, "5f3a")]);
        }
        let block = builder.finish().unwrap().decode().unwrap();
        self.logs.observe_logs(&agent, BatchSeq(seq), &Arc::new(block));
    }
}

/// An agent that is well: its books balance.
pub fn agent(tenant: &str, node: &str) -> AgentStatus {
    AgentStatus {
        identity: identity(tenant, node),
        version: "0.1.0".into(),
        hostname: node.into(),
        peer: "10.1.2.3:40000".parse().unwrap(),
        epoch: AgentEpoch(1),
        connected: true,
        since_ms: now_ms() - 7_300_000,
        last_contact_ms: now_ms(),
        ended: None,
        clock_ahead_ms: Some(12),
        spool_bytes: 0,
        front_bytes: 9_000,
        quarantined_segments: 0,
        conflicts: 0,
        certificate_expires_ms: None,
        books: vec![Books {
            signal: "metrics".into(),
            output: "prometheus".into(),
            collected: 12_345_600,
            delivered: 12_345_000,
            in_front: 600,
            lag_ms: 31,
            ..Books::default()
        }],
        files_behind: None,
    }
}

/// A fleet in which there is something to see.
pub fn troubled() -> (Vec<AgentStatus>, Vec<OutputStatus>, Vec<Reject>) {
    let mut parked = agent("acme", "db-1");
    parked.spool_bytes = 48 << 20;
    parked.books[0].spooled = 2_345_678;
    parked.books[0].collected += 2_345_678;
    parked.books[0].lag_ms = 3_900_000;
    parked.books[0].parked = Some("401 Unauthorized: bad credentials for tenant acme".into());
    let mut other = parked.books[0].clone();
    other.output = "long-term".into();
    other.delivered += other.spooled - 900;
    (other.spooled, other.parked, other.lag_ms) = (0, None, 48);
    other.rejected.insert("too_old".into(), 900);
    parked.books.push(other);
    let mut gone = agent("acme", "edge-frankfurt-7.example.net");
    gone.connected = false;
    gone.last_contact_ms -= 1_260_000;
    gone.since_ms = gone.last_contact_ms;
    gone.spool_bytes = 3 << 20;
    let mut late = agent("globex", "web-3");
    late.books[0].lag_ms = 260_000;
    late.books[0].spooled = 45_000;
    late.books[0].collected += 45_000;
    late.spool_bytes = 1 << 20;
    let mut agents = vec![parked, gone, late];
    agents.extend(["web-1", "web-2", "cache-1", "queue-1"].map(|node| agent("acme", node)));
    let output = |name: &str, ok, detail: &str| OutputStatus {
        name: name.into(),
        signal: "metrics".into(),
        ok,
        detail: detail.into(),
        accepts_out_of_order: true,
        out_of_order_window_seconds: 108_000,
        troubles: BTreeMap::new(),
    };
    let outputs = vec![
        output("prometheus", false, "parked for tenant acme: 401 Unauthorized"),
        output("long-term", true, "last request 0.2 s ago"),
    ];
    let reject = Reject {
        at_ms: now_ms() - 65_000,
        identity: identity("acme", "db-1"),
        output: "long-term".into(),
        seq: 4_711,
        reason: RejectReason::TooOld,
        message: HOSTILE.into(),
        count: 900,
    };
    (agents, outputs, vec![reject])
}
