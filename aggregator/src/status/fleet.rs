//! What the status needs to know of the fleet, as the receiver tells it.

use crate::fanout::Output;
use pegel_proto::batch::{AgentEpoch, RejectReason};
use pegel_proto::identity::AgentIdentity;
use pegel_proto::wire;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// The receiver's side of the status. Asked at most once a second, never on the path of a batch; the answers are
/// copies, so that nothing stays locked.
pub trait FleetView: Send + Sync + 'static {
    /// All agents that this aggregator knows, connected or not, in any order.
    fn agents(&self) -> Vec<AgentStatus>;
    /// The latest refusals, newest first, bounded by the one who keeps them. Only a view: the refused records
    /// themselves are with their agents.
    fn rejects(&self) -> Vec<Reject>;
    /// The outputs in the order of the configuration.
    fn outputs(&self) -> Vec<OutputStatus>;
}

/// One agent, as its session and its last heartbeat tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStatus {
    /// Who it is.
    pub identity: AgentIdentity,
    /// Its version.
    pub version: String,
    /// Its host name.
    pub hostname: String,
    /// Where its last session came from.
    pub peer: SocketAddr,
    /// Its epoch.
    pub epoch: AgentEpoch,
    /// Whether it has a session now.
    pub connected: bool,
    /// When its session began, or, if it has none, when the last one ended: milliseconds since the Unix epoch, as
    /// all instants here, by this aggregator's clock.
    pub since_ms: i64,
    /// When anything last came from it.
    pub last_contact_ms: i64,
    /// Why the last session ended, if it did and a reason is known.
    pub ended: Option<String>,
    /// How far its clock is ahead of the aggregator's (negative: behind), if known.
    pub clock_ahead_ms: Option<i64>,
    /// Bytes in its spool, on its disk.
    pub spool_bytes: u64,
    /// Bytes in its memory front.
    pub front_bytes: u64,
    /// Segments that it has set aside as damaged.
    pub quarantined_segments: u64,
    /// How often another live agent showed the same identity.
    pub conflicts: u64,
    /// When its certificate expires, if known.
    pub certificate_expires_ms: Option<i64>,
    /// Its books, one set for each signal and output. Empty before the first heartbeat.
    pub books: Vec<Books>,
    /// Its log files that are behind; none if it speaks of none.
    pub files_behind: Option<FilesBehind>,
}

/// Lines that wait in their files on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesBehind {
    /// How many files.
    pub files: u64,
    /// How many bytes of them are not read.
    pub bytes: u64,
    /// For how long the oldest of these has waited, in milliseconds.
    pub waits_ms: u64,
    /// For how long the agent has had no room for more, in milliseconds; 0 while it has.
    pub no_room_ms: u64,
    /// What there is no room in; none if it is the uplink that takes no more at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_room: Option<NoRoom>,
    /// The files with the most bytes; ten at most.
    pub worst: Vec<FileBehind>,
}

/// What there is no room in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoRoom {
    /// The quota of the buffer is used up.
    BufferFull,
    /// The disk takes nothing.
    Disk,
}

/// A log file that is behind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBehind {
    /// Where it is on the node.
    pub path: String,
    /// How many bytes of it are not read.
    pub bytes: u64,
    /// For how long the oldest of these has waited, in milliseconds.
    pub waits_ms: u64,
}

impl From<&wire::FilesBehind> for FilesBehind {
    fn from(behind: &wire::FilesBehind) -> Self {
        Self {
            files: behind.files,
            bytes: behind.bytes,
            waits_ms: behind.waits_ms,
            no_room_ms: behind.no_room_ms,
            no_room: match behind.no_room() {
                wire::NoRoom::Unspecified => None,
                wire::NoRoom::BufferFull => Some(NoRoom::BufferFull),
                wire::NoRoom::Disk => Some(NoRoom::Disk),
            },
            worst: behind
                .worst
                .iter()
                .map(|file| FileBehind {
                    path: file.path.clone(),
                    bytes: file.bytes,
                    waits_ms: file.waits_ms,
                })
                .collect(),
        }
    }
}

/// The balance of one signal and output, in records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    /// `metrics`, `logs` or `traces`.
    pub signal: String,
    /// The output.
    pub output: String,
    /// All that sources handed over.
    pub collected: u64,
    /// Accepted by the backend.
    pub delivered: u64,
    /// Found there already when it was sent again.
    pub held_already: u64,
    /// In the agent's memory.
    pub in_front: u64,
    /// On the agent's disk.
    pub spooled: u64,
    /// Given up by the agent, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Refused by the backend, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Lost in crashes, at most.
    pub lost_in_crash: u64,
    /// The age of the oldest batch that is not acknowledged, in milliseconds.
    pub lag_ms: u64,
    /// Why the output takes nothing at all, if it does not.
    pub parked: Option<String>,
}

impl Books {
    /// All that was given up.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// All that was refused.
    pub fn rejected_total(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// What is collected less what is accounted for: 0 if the books balance.
    pub fn difference(&self) -> i64 {
        let accounted = self.delivered
            + self.held_already
            + self.in_front
            + self.spooled
            + self.dropped_total()
            + self.rejected_total()
            + self.lost_in_crash;
        self.collected.wrapping_sub(accounted) as i64
    }
}

impl From<&wire::Books> for Books {
    fn from(books: &wire::Books) -> Self {
        let reasons = |counts: &[wire::ReasonCount]| {
            let mut by_reason = BTreeMap::new();
            for one in counts {
                *by_reason.entry(one.reason.clone()).or_default() += one.count;
            }
            by_reason
        };
        let signal = match books.signal() {
            wire::WireSignal::Metrics | wire::WireSignal::Unspecified => "metrics",
            wire::WireSignal::Logs => "logs",
            wire::WireSignal::Traces => "traces",
        };
        Self {
            signal: signal.to_owned(),
            output: books.output.clone(),
            collected: books.collected,
            delivered: books.delivered,
            held_already: books.held_already,
            in_front: books.in_front,
            spooled: books.spooled,
            dropped: reasons(&books.dropped),
            rejected: reasons(&books.rejected),
            lost_in_crash: books.lost_in_crash,
            lag_ms: books.lag_ms,
            parked: (!books.parked.is_empty()).then(|| books.parked.clone()),
        }
    }
}

/// Records of one batch that an output refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// When.
    pub at_ms: i64,
    /// Whose they were.
    pub identity: AgentIdentity,
    /// Which output refused.
    pub output: String,
    /// The batch.
    pub seq: u64,
    /// Why.
    pub reason: RejectReason,
    /// What the backend said.
    pub message: String,
    /// How many records.
    pub count: u64,
}

/// An output, as the page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputStatus {
    /// Its name.
    pub name: String,
    /// The signal that it takes.
    pub signal: String,
    /// Whether its last requests succeeded.
    pub ok: bool,
    /// What is wrong, or a word on what is well.
    pub detail: String,
    /// Whether it takes samples behind a series' newest.
    pub accepts_out_of_order: bool,
    /// How far behind, in seconds; 0 is unknown.
    pub out_of_order_window_seconds: u64,
    /// What is wrong, by tenant, with how long it has been so. Not every type of output tells.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub troubles: BTreeMap<String, String>,
}

impl OutputStatus {
    /// What an output says of itself.
    pub fn of(output: &dyn Output) -> Self {
        let announced = output.announcement();
        let health = output.health();
        Self {
            name: announced.name.to_string(),
            signal: announced.signal.name().to_owned(),
            ok: health.ok,
            detail: health.detail,
            accepts_out_of_order: announced.accepts_out_of_order,
            out_of_order_window_seconds: announced.out_of_order_window_seconds,
            troubles: output
                .troubles()
                .into_iter()
                .map(|(tenant, told)| (tenant.to_string(), told))
                .collect(),
        }
    }
}
