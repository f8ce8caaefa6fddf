//! `recent`: the embedded default output, and the tap behind the page, the status API and `/federate`.
//!
//! It keeps, in memory only, the last value of every series ([`values`]) and an hour of each node's main series
//! ([`history`]). It is shown every batch that streams past, whatever output that batch is for; where no other
//! output is configured it is an output itself and acknowledges.
//!
//! *Order.* A batch is looked at once ([`seen`]); of two batches the one with the higher number has the newer
//! values, whatever the clocks say; history goes by the samples' own times, so that a backlog fills the gap that an
//! outage left.
//!
//! *Bounds.* 8 bytes a series beside the decoder's own set, at most [`Settings::max_series`] of them; 7.7 KB of
//! history and up to a few KB of plan a node, at most [`Settings::max_nodes`]. With 1,000 nodes of 1,000 series that
//! makes 8 + 8 + 2 = 18 MB. What does not fit is not shown, and counted; nothing is ever refused for it.

mod history;
mod machine;
mod main_series;
pub(in crate::output) mod seen;
mod selector;
#[cfg(test)]
pub(crate) mod tests;
mod values;

pub use history::{EMPTY_POINT, HistoryView, Point, STEP_MS, STEPS, TRACKS, Track, TrackView};
pub use machine::{Filesystem, Machine};
pub use selector::{BadSelector, Selector};

use crate::fanout::{Announcement, Delivery, Output, OutputHealth, Tap, Verdict};
use crate::session::{AgentInfo, ResolvedBlock, ResolvedSeries};
use crate::symbols::{Symbol, Symbols};
use history::History;
use main_series::Target;
use parking_lot::{Mutex, RwLock};
use pegel_proto::batch::{BatchSeq, Outcome, Signal};
use pegel_proto::identity::{AgentIdentity, OutputName};
use pegel_proto::logs::DecodedBlock;
use pegel_runtime::metrics::{Counter, Registry};
use seen::{Arrival, Seen};
use selector::Matching;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use values::{LastValues, MainPoint};

/// Reads interned strings back, one at a time, so that interning never waits for a long answer.
pub trait SymbolText: Send + Sync + 'static {
    /// Calls `read` once with the symbol's text. `read` must not read another symbol.
    fn with_text(&self, symbol: Symbol, read: &mut dyn FnMut(&str));
}

impl SymbolText for Symbols {
    fn with_text(&self, symbol: Symbol, read: &mut dyn FnMut(&str)) {
        read(self.view().text(symbol));
    }
}

/// The most series of one node by default: an agent with a few very large exporters. 200,000 × 8 B = 1.6 MB.
pub const DEFAULT_MAX_SERIES_PER_NODE: usize = 200_000;
/// The most series of all nodes by default. 4,000,000 × 8 B = 32 MB.
pub const DEFAULT_MAX_SERIES: usize = 4_000_000;
/// The most nodes by default. 10,000 × 10 KB of history and plan = 100 MB, were they all to send host metrics.
pub const DEFAULT_MAX_NODES: usize = 10_000;
/// How long a silent node's values and history are kept by default: as long as its history would show anything.
pub const DEFAULT_FORGET_AFTER: Duration = Duration::from_hours(1);
/// Samples that claim to be farther ahead of this machine's clock stay out of the history, or a wrong clock would push
/// an hour of true values out of it. Prometheus draws the same line for what it stores.
const MAX_AHEAD_MS: i64 = 600_000;
/// After this time without a word of it, a node's main target gives way to another one.
const MAIN_TARGET_SILENCE_MS: i64 = 300_000;

/// The settings of `recent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its name towards agents, where it acknowledges.
    pub name: OutputName,
    /// The most series of one node.
    pub max_series_per_node: usize,
    /// The most series of all nodes together.
    pub max_series: usize,
    /// The most nodes.
    pub max_nodes: usize,
    /// How long a silent node's values are kept.
    pub forget_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: OutputName::parse(OutputName::RECENT).expect("the name is valid"),
            max_series_per_node: DEFAULT_MAX_SERIES_PER_NODE,
            max_series: DEFAULT_MAX_SERIES,
            max_nodes: DEFAULT_MAX_NODES,
            forget_after: DEFAULT_FORGET_AFTER,
        }
    }
}

/// Tells the wall clock, in milliseconds since the Unix epoch.
pub type WallClock = Box<dyn Fn() -> i64 + Send + Sync>;

/// This machine's wall clock.
pub fn system_clock() -> WallClock {
    Box::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as i64)
    })
}

/// The recent past of all nodes.
pub struct Recent {
    settings: Settings,
    symbols: Arc<dyn SymbolText>,
    clock: WallClock,
    nodes: RwLock<HashMap<AgentIdentity, Arc<Mutex<Node>>>>,
    series: AtomicUsize,
    unkept: Counter,
    unkept_nodes: Counter,
}

/// What is kept of one node.
#[derive(Debug)]
struct Node {
    seen: Seen,
    values: LastValues,
    /// Made when the first main value arrives: a node that only scrapes has none.
    history: Option<History>,
    live: Live,
    main_target: Option<Arc<Target>>,
    main_heard_ms: i64,
}

/// A node's newest main values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Live {
    /// When the last batch arrived, by this machine's clock.
    pub heard_ms: i64,
    /// The instant of the newest main value, by the node's clock; 0 if there was none.
    pub at_ms: i64,
    /// The newest value of each track.
    pub point: Point,
}

impl Recent {
    /// An empty one, on this machine's clock.
    pub fn new(settings: Settings, symbols: Arc<dyn SymbolText>, registry: &Registry) -> Arc<Self> {
        Self::with_clock(settings, symbols, registry, system_clock())
    }

    /// An empty one on a clock of the caller's.
    pub fn with_clock(
        settings: Settings,
        symbols: Arc<dyn SymbolText>,
        registry: &Registry,
        clock: WallClock,
    ) -> Arc<Self> {
        let recent = Arc::new(Self {
            settings,
            symbols,
            clock,
            nodes: RwLock::default(),
            series: AtomicUsize::new(0),
            unkept: registry.counter(
                "pegel_recent_unkept_series_total",
                "Series not shown on the page because a bound of `recent` was reached.",
                &[],
            ),
            unkept_nodes: registry.counter(
                "pegel_recent_unkept_batches_total",
                "Batches of nodes not shown on the page because the bound on nodes was reached.",
                &[],
            ),
        });
        let series =
            registry.gauge("pegel_recent_series", "Series whose last value is kept for the page.", &[]);
        let nodes =
            registry.gauge("pegel_recent_nodes", "Nodes whose last values are kept for the page.", &[]);
        let weak = Arc::downgrade(&recent);
        registry.on_render(move || {
            if let Some(recent) = weak.upgrade() {
                series.set(recent.series.load(Ordering::Relaxed) as f64);
                nodes.set(recent.nodes.read().len() as f64);
            }
        });
        recent
    }

    /// Now, by the clock that it was given.
    pub fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// Reads symbols, for those who render series.
    pub fn symbols(&self) -> &dyn SymbolText {
        &*self.symbols
    }

    fn node(&self, identity: &AgentIdentity) -> Option<Arc<Mutex<Node>>> {
        self.nodes.read().get(identity).cloned()
    }

    fn node_or_new(&self, identity: &AgentIdentity) -> Option<Arc<Mutex<Node>>> {
        if let Some(found) = self.node(identity) {
            return Some(found);
        }
        let mut nodes = self.nodes.write();
        if nodes.len() >= self.settings.max_nodes && !nodes.contains_key(identity) {
            return None;
        }
        Some(nodes.entry(identity.clone()).or_insert_with(|| Arc::new(Mutex::new(Node::new()))).clone())
    }

    /// Forgets nodes that were silent for too long. To be called now and then.
    pub fn sweep(&self) {
        let before_ms = self.now_ms() - self.settings.forget_after.as_millis() as i64;
        self.nodes.write().retain(|_, node| {
            let mut node = node.lock();
            let had = node.values.series();
            if node.live.heard_ms >= before_ms {
                node.values.forget_before(before_ms);
                self.series.fetch_sub(had - node.values.series(), Ordering::Relaxed);
                return true;
            }
            self.series.fetch_sub(had, Ordering::Relaxed);
            false
        });
    }

    /// A node's newest main values.
    pub fn live(&self, identity: &AgentIdentity) -> Option<Live> {
        Some(self.node(identity)?.lock().live)
    }

    /// How many series are kept of a node.
    pub fn series_count(&self, identity: &AgentIdentity) -> usize {
        self.node(identity).map_or(0, |node| node.lock().values.series())
    }

    /// The last hour of a node's main series.
    pub fn history(&self, identity: &AgentIdentity) -> Option<HistoryView> {
        let now_ms = self.now_ms();
        self.node(identity)?.lock().history.as_ref().map(|history| history.view(now_ms))
    }

    /// What a node's last values say of the machine.
    pub fn machine(&self, identity: &AgentIdentity) -> Option<Machine> {
        let node = self.node(identity)?;
        let node = node.lock();
        Some(Machine::read(&*self.symbols, node.main_target.as_deref(), |visit| node.values.visit(visit)))
    }

    /// Shows the live series of those targets of a node whose first series `wanted` takes, with value and instant.
    /// The node is locked meanwhile, so neither may block.
    pub fn visit_targets(
        &self,
        of: &AgentIdentity,
        wanted: &dyn Fn(&ResolvedSeries) -> bool,
        visit: &mut dyn FnMut(&ResolvedSeries, f64, i64),
    ) {
        if let Some(node) = self.node(of) {
            node.lock().values.visit_targets(wanted, visit);
        }
    }

    /// Shows the live series of one node, or of all, that any of the selectors takes (all, if there are none), with
    /// value and instant (milliseconds since the Unix epoch). One node is locked at a time: its batches wait
    /// meanwhile, so `visit` must not block.
    pub fn visit(
        &self,
        of: Option<&AgentIdentity>,
        selectors: &[Selector],
        visit: &mut dyn FnMut(&ResolvedSeries, f64, i64),
    ) {
        let mut nodes: Vec<(AgentIdentity, Arc<Mutex<Node>>)> = match of {
            Some(identity) => self.node(identity).map(|node| (identity.clone(), node)).into_iter().collect(),
            None => self.nodes.read().iter().map(|(i, n)| (i.clone(), n.clone())).collect(),
        };
        nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (_, node) in nodes {
            // A node's series keep its symbols alive, but not another node's: what is known of symbols ends here.
            let mut matching = Matching::new(selectors, &*self.symbols);
            node.lock().values.visit(&mut |series, value, at_ms| {
                if selectors.is_empty() || matching.takes(series) {
                    visit(series, value, at_ms);
                }
            });
        }
    }
}

impl Node {
    fn new() -> Self {
        Self {
            seen: Seen::default(),
            values: LastValues::default(),
            history: None,
            live: Live { heard_ms: 0, at_ms: 0, point: EMPTY_POINT },
            main_target: None,
            main_heard_ms: 0,
        }
    }

    /// Takes over what a block said of the main series.
    fn note_main(&mut self, now_ms: i64, at_ms: i64, main: &MainPoint) {
        if self.main_target.as_ref() != Some(&main.target) {
            if self.main_target.is_some() && now_ms - self.main_heard_ms < MAIN_TARGET_SILENCE_MS {
                return;
            }
            self.main_target = Some(main.target.clone());
        }
        self.main_heard_ms = now_ms;
        for (track, value) in Track::ALL.into_iter().zip(main.point) {
            if value.is_nan() {
                continue;
            }
            if at_ms <= now_ms + MAX_AHEAD_MS {
                self.history.get_or_insert_with(History::new).put(at_ms, track, value);
            }
            if main.fresh {
                self.live.point[track as usize] = value;
                self.live.at_ms = at_ms;
            }
        }
    }
}

impl Tap for Recent {
    fn observe(&self, agent: &AgentInfo, seq: BatchSeq, blocks: &[ResolvedBlock]) {
        let Some(node) = self.node_or_new(&agent.identity) else {
            self.unkept_nodes.inc();
            return;
        };
        let now_ms = self.now_ms();
        let mut node = node.lock();
        let node = &mut *node;
        node.live.heard_ms = now_ms;
        match node.seen.note(agent.epoch, seq) {
            Arrival::Repeat => return,
            Arrival::NewEpoch => node.values.begin_epoch(),
            Arrival::Unseen | Arrival::Forgotten => {}
        }
        for block in blocks {
            let had = node.values.series();
            let room_here = self.settings.max_series_per_node.saturating_sub(had);
            let room_all = self.settings.max_series.saturating_sub(self.series.load(Ordering::Relaxed));
            let taken = node.values.take(seq.0, block, room_here.min(room_all), &*self.symbols);
            self.unkept.add(taken.unkept as u64);
            // Wrapping addition of a difference, which may be negative.
            self.series.fetch_add(node.values.series().wrapping_sub(had), Ordering::Relaxed);
            if let Some(main) = &taken.main {
                node.note_main(now_ms, block.at_ms, main);
            }
        }
    }

    fn observe_logs(&self, _: &AgentInfo, _: BatchSeq, _: &Arc<DecodedBlock>) {
        // Values only.
    }
}

impl Output for Recent {
    fn announcement(&self) -> Announcement {
        Announcement {
            name: self.settings.name.clone(),
            signal: Signal::Metrics,
            // The page is to show what is now before what was.
            accepts_out_of_order: true,
            out_of_order_window_seconds: 0,
        }
    }

    fn submit(&self, delivery: Delivery) {
        let delivered = delivery.payload.records();
        self.observe(&delivery.agent, delivery.seq, &delivery.payload.into_blocks());
        let outcome = Outcome { delivered, ..Outcome::default() };
        // Nobody listens any more if the session ended: the agent sends again.
        let _ = delivery.reply.0.send(Verdict::Settled(delivery.seq, outcome));
    }

    fn forget_session(&self, _session: u64) {
        // Nothing is queued.
    }

    fn health(&self) -> OutputHealth {
        let nodes = self.nodes.read().len();
        let detail = format!("in memory, of {nodes} node{}", if nodes == 1 { "" } else { "s" });
        OutputHealth { ok: true, detail }
    }
}
