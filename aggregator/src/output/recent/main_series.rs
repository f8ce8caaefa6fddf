//! Which series of a set are a node's main ones, and what follows from their values.
//!
//! The plan is made once for a set: pairs of an index and a role. From then on a block costs one addition a pair.
//! Arithmetic: 8 bytes a pair; a machine of 16 CPUs has 16 × 8 CPU pairs and some 40 others: 1.4 KB a node.

use super::SymbolText;
use super::history::{Point, Track};
use crate::session::{ResolvedSeries, ResolvedSet};
use pegel_proto::metrics::{NAME_LABEL, is_stale_marker};
use std::sync::Arc;

/// Counter deltas over a longer time than this say nothing of "now": twenty steps of the default interval.
const LONGEST_DELTA_MS: i64 = 300_000;

/// What a value adds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    CpuIdle,
    CpuBusy,
    DiskRead,
    DiskWritten,
    NetworkReceived,
    NetworkSent,
    MemoryTotal,
    MemoryAvailable,
    Load1,
    FilesystemSize,
    /// The value of the pair before is this file system's size.
    FilesystemAvailable,
}

const COUNTERS: usize = 6;

/// Sums of counters at one instant, in the order of the first [`COUNTERS`] roles.
#[derive(Debug, Clone, Copy)]
struct Sums {
    at_ms: i64,
    values: [f64; COUNTERS],
}

/// The plan of one set, and the counters of its last blocks.
#[derive(Debug)]
pub(super) struct Plan {
    /// Whose series they are.
    pub(super) target: Arc<Target>,
    pairs: Box<[(u32, Role)]>,
    /// The sums before: of the newest block, and of a backlog that follows at its own place in time.
    fresh: Option<Sums>,
    backlog: Option<Sums>,
}

/// The labels of one series that a plan looks at.
#[derive(Default)]
struct Described {
    /// Name; CPU mode or device; mount point; file system type; job; instance.
    fields: [String; 6],
}

const NAME: usize = 0;
const PART: usize = 1;
const MOUNTPOINT: usize = 2;
const FSTYPE: usize = 3;

const JOB: usize = 4;
const INSTANCE: usize = 5;

/// The values of `job` and `instance`, as text: a symbol may mean something else once its series are gone.
pub(super) type Target = [String; 2];

impl Plan {
    /// The plan of a set; none where it holds nothing of the machine itself.
    pub(super) fn of(set: &ResolvedSet, text: &dyn SymbolText) -> Option<Self> {
        let mut pairs = Vec::new();
        // File systems come as separate families; their sizes wait here for their `avail` twins.
        let mut sizes: Vec<(String, u32)> = Vec::new();
        let mut available: Vec<(String, u32)> = Vec::new();
        let mut seen = Described::default();
        let mut target = None;
        for (index, series) in (0u32..).zip(&set.series) {
            if !series.family.name.starts_with("node_") {
                continue;
            }
            seen.read(series, text);
            let role = seen.role().filter(|_| *target.get_or_insert_with(|| seen.target()) == seen.target());
            match role {
                Some(Role::FilesystemSize) => sizes.push((seen.filesystem(), index)),
                Some(Role::FilesystemAvailable) => available.push((seen.filesystem(), index)),
                Some(role) => pairs.push((index, role)),
                None => {}
            }
        }
        for (filesystem, size) in &sizes {
            if let Some((_, avail)) = available.iter().find(|(other, _)| other == filesystem) {
                pairs.push((*size, Role::FilesystemSize));
                pairs.push((*avail, Role::FilesystemAvailable));
            }
        }
        let target = target.filter(|_| !pairs.is_empty())?;
        Some(Self { target: Arc::new(target), pairs: pairs.into(), fresh: None, backlog: None })
    }

    /// Reads a block. Tracks that this set says nothing of stay NaN. `fresh` is false for a block of a backlog that
    /// is older than what was read before.
    pub(super) fn read(&mut self, at_ms: i64, values: &[f64], fresh: bool) -> Point {
        let mut point = super::history::EMPTY_POINT;
        let mut sums = Sums { at_ms, values: [0.0; COUNTERS] };
        let mut counted = [false; COUNTERS];
        let (mut total, mut available, mut size) = (f64::NAN, f64::NAN, f64::NAN);
        for (index, role) in &self.pairs {
            let value = values[*index as usize];
            if is_stale_marker(value) {
                continue;
            }
            match role {
                Role::MemoryTotal => total = value,
                Role::MemoryAvailable => available = value,
                Role::Load1 => point[Track::Load1 as usize] = value as f32,
                Role::FilesystemSize => size = value,
                Role::FilesystemAvailable => {
                    let used = ratio(size - value, size);
                    let fullest = &mut point[Track::FilesystemUsed as usize];
                    *fullest = fullest.max(used);
                }
                counter => {
                    sums.values[*counter as usize] += value;
                    counted[*counter as usize] = true;
                }
            }
        }
        point[Track::MemoryUsed as usize] = ratio(total - available, total);
        let before = if fresh { self.fresh.replace(sums) } else { self.backlog.replace(sums) };
        if let Some(before) = before {
            rates(&mut point, &before, &sums, counted);
        }
        point
    }
}

/// Fills in the tracks that are rates of counters. A counter that went back has been reset: nothing is said.
fn rates(point: &mut Point, before: &Sums, now: &Sums, counted: [bool; COUNTERS]) {
    let elapsed_ms = now.at_ms - before.at_ms;
    if !(1..=LONGEST_DELTA_MS).contains(&elapsed_ms) {
        return;
    }
    let delta = |role: Role| {
        let delta = now.values[role as usize] - before.values[role as usize];
        (counted[role as usize] && delta >= 0.0).then_some(delta)
    };
    if let (Some(idle), Some(busy)) = (delta(Role::CpuIdle), delta(Role::CpuBusy)) {
        point[Track::CpuBusy as usize] = ratio(busy, busy + idle);
    }
    for (role, track) in [
        (Role::DiskRead, Track::DiskRead),
        (Role::DiskWritten, Track::DiskWritten),
        (Role::NetworkReceived, Track::NetworkReceived),
        (Role::NetworkSent, Track::NetworkSent),
    ] {
        if let Some(bytes) = delta(role) {
            point[track as usize] = (bytes * 1000.0 / elapsed_ms as f64) as f32;
        }
    }
}

/// A share between 0 and 1; NaN where the whole is nothing or unknown.
fn ratio(part: f64, whole: f64) -> f32 {
    if whole > 0.0 { (part / whole).clamp(0.0, 1.0) as f32 } else { f32::NAN }
}

impl Described {
    fn read(&mut self, series: &ResolvedSeries, text: &dyn SymbolText) {
        self.fields.iter_mut().for_each(String::clear);
        for (label, value) in &series.labels {
            let mut field = None;
            text.with_text(*label, &mut |label| match label {
                NAME_LABEL => field = Some(NAME),
                "mode" | "device" => field = Some(PART),
                "mountpoint" => field = Some(MOUNTPOINT),
                "fstype" => field = Some(FSTYPE),
                "job" => field = Some(JOB),
                "instance" => field = Some(INSTANCE),
                _ => {}
            });
            if let Some(field) = field {
                text.with_text(*value, &mut |value| self.fields[field].push_str(value));
            }
        }
    }

    fn target(&self) -> Target {
        [JOB, INSTANCE].map(|field| self.fields[field].clone())
    }

    fn filesystem(&self) -> String {
        format!("{}\0{}", self.fields[PART], self.fields[MOUNTPOINT])
    }

    fn role(&self) -> Option<Role> {
        let counts = |role, counts: bool| counts.then_some(role);
        match self.fields[NAME].as_str() {
            "node_cpu_seconds_total" => {
                let idle = matches!(self.fields[PART].as_str(), "idle" | "iowait");
                Some(if idle { Role::CpuIdle } else { Role::CpuBusy })
            }
            "node_memory_MemTotal_bytes" => Some(Role::MemoryTotal),
            "node_memory_MemAvailable_bytes" => Some(Role::MemoryAvailable),
            "node_load1" => Some(Role::Load1),
            "node_disk_read_bytes_total" => counts(Role::DiskRead, is_whole_disk(&self.fields[PART])),
            "node_disk_written_bytes_total" => counts(Role::DiskWritten, is_whole_disk(&self.fields[PART])),
            "node_network_receive_bytes_total" => {
                counts(Role::NetworkReceived, is_outer_link(&self.fields[PART]))
            }
            "node_network_transmit_bytes_total" => {
                counts(Role::NetworkSent, is_outer_link(&self.fields[PART]))
            }
            "node_filesystem_size_bytes" => counts(Role::FilesystemSize, self.is_lasting()),
            "node_filesystem_avail_bytes" => counts(Role::FilesystemAvailable, self.is_lasting()),
            _ => None,
        }
    }

    /// Whether a file system is one that fills up: not a memory one, not a read-only image. A container's root is an
    /// overlay, and counts; other overlays repeat the disk below them.
    fn is_lasting(&self) -> bool {
        match self.fields[FSTYPE].as_str() {
            "tmpfs" | "ramfs" | "devtmpfs" | "squashfs" | "iso9660" | "erofs" | "cdfs" => false,
            "overlay" => self.fields[MOUNTPOINT] == "/",
            _ => true,
        }
    }
}

/// Device-mapper and md devices repeat what their disks below them count.
fn is_whole_disk(device: &str) -> bool {
    !["dm-", "md", "loop", "ram", "zram"].iter().any(|prefix| device.starts_with(prefix))
}

/// Loopback and the links of containers repeat what passes the outer link, or never leave the machine.
fn is_outer_link(device: &str) -> bool {
    device != "lo"
        && !["veth", "docker", "br-", "cni", "cali", "virbr", "flannel"].iter().any(|p| device.starts_with(p))
}
