//! What accounting keeps from pass to pass, and a pass over all cgroups as a job of a lane.

use super::account::{Devices, Filesystems, Metrics, Namespaces, page_sizes};
use super::cgroup::{Layout, Reader, walk};
use super::machine::{DiskStats, Machine};
use super::pass::{Order, PATIENCE_MS, Pass};
use super::settings::{Group, Settings};
use super::summary::{PassMetrics, PassReport};
use super::tracked::Tracked;
use super::{Catalogue, ContainerId};
use crate::source::host::System;
use crate::source::reading::emit::SeriesPool;
use crate::source::reading::lane::Job;
use pegel_proto::metrics::{Block, Labels, Series};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// How many ended containers are remembered: their cgroups may outlive the news of their end.
const ENDED_KEPT: usize = 1_024;

/// See the module.
pub(super) struct Accounting {
    pub(super) settings: Settings,
    pub(super) external: Arc<Labels>,
    pub(super) instance: String,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) system: Arc<dyn System>,
    pub(super) layout: Option<Arc<Layout>>,
    pub(super) procfs: Option<OwnedFd>,
    pub(super) metrics: Metrics,
    pub(super) reader: Reader,
    pub(super) devices: Devices,
    pub(super) namespaces: Namespaces,
    pub(super) filesystems: Filesystems,
    pub(super) disks: DiskStats,
    pub(super) machine: Machine,
    pub(super) page_sizes: Vec<Box<str>>,
    pub(super) tracked: HashMap<Box<str>, Tracked>,
    pub(super) pool: SeriesPool,
    /// The series of the cgroup that came last: the next will have much the same.
    pub(super) template: Vec<Arc<Series>>,
    /// The series of all sets.
    pub(super) series: usize,
    /// Whether there ever was a container.
    pub(super) seen_container: bool,
    pub(super) ended: VecDeque<ContainerId>,
    /// How long a new container waits for its name, in milliseconds.
    pub(super) patience_ms: i64,
    pub(super) pass: u64,
    pub(super) scratch: Vec<u32>,
    own: Tracked,
    own_metrics: PassMetrics,
    /// What the next run does.
    pub(super) order: Order,
    pub(super) at_ms: i64,
    /// What the last run gave.
    pub(super) report: PassReport,
}

impl Accounting {
    /// Reads what stays as it is.
    pub(super) fn new(
        settings: Settings,
        external: Arc<Labels>,
        catalogue: Arc<Catalogue>,
        system: Arc<dyn System>,
    ) -> Self {
        let Settings { procfs, sysfs, rootfs, .. } = &settings;
        let instance = system.uname().nodename;
        let mut own = Tracked::new(0, None);
        own.target = Some(settings.labels.target(&[("instance", &instance)], &external));
        Self {
            layout: None,
            procfs: None,
            metrics: Metrics::new(),
            reader: Reader::default(),
            devices: Devices::new(sysfs),
            namespaces: Namespaces::default(),
            filesystems: Filesystems::new(procfs, rootfs),
            disks: DiskStats::new(procfs),
            machine: Machine::read(procfs, sysfs, rootfs, &system),
            page_sizes: if settings.groups.has(Group::Hugetlb) { page_sizes(sysfs) } else { Vec::new() },
            tracked: HashMap::new(),
            pool: SeriesPool::default(),
            template: Vec::new(),
            series: 0,
            seen_container: !settings.only_with_containers,
            ended: VecDeque::new(),
            patience_ms: PATIENCE_MS,
            pass: 0,
            scratch: Vec::new(),
            own,
            own_metrics: PassMetrics::new(),
            order: Order::Full,
            at_ms: 0,
            report: PassReport::default(),
            settings,
            external,
            instance,
            catalogue,
            system,
        }
    }

    /// Remembers that a container ended.
    pub(super) fn note_ended(&mut self, id: ContainerId) {
        if self.ended.len() == ENDED_KEPT {
            self.ended.pop_front();
        }
        self.ended.push_back(id);
    }

    /// Forgets a cgroup; what it had is ended.
    pub(super) fn forget(&mut self, path: &str, at_ms: i64) -> Option<Block> {
        let mut tracked = self.tracked.remove(path)?;
        self.series -= tracked.series();
        self.namespaces.forget(path);
        tracked.end(at_ms)
    }

    /// Finds the trees, once and again as long as there are none.
    fn prepare(&mut self) -> Result<Arc<Layout>, String> {
        if self.layout.is_none() {
            let layout =
                Layout::find(&self.settings.procfs, &self.settings.sysfs).map_err(|e| e.to_string())?;
            if let Some(part) = &layout.part_of {
                tracing::warn!(
                    part,
                    "only a part of the cgroup hierarchy is mounted here: ids of cgroups begin at it; mount the \
                     host's /sys and set containers.sysfs to that place"
                );
            }
            self.layout = Some(Arc::new(layout));
        }
        if self.procfs.is_none() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let procfs = &self.settings.procfs;
            let opened = openat(CWD, procfs, flags, Mode::empty());
            self.procfs = Some(opened.map_err(|e| format!("cannot open {}: {e}", procfs.display()))?);
        }
        self.layout.clone().ok_or_else(|| "no cgroup file system is mounted".to_owned())
    }

    /// Goes over the cgroups as the order says; the report has what came of it.
    fn go(&mut self) {
        let begun = Instant::now();
        self.pass += 1;
        self.report = PassReport { is_full: matches!(self.order, Order::Full), ..PassReport::default() };
        let layout = match self.prepare() {
            Ok(layout) => layout,
            Err(trouble) => {
                self.report.trouble = Some(trouble);
                self.finish(begun, self.seen_container);
                return;
            }
        };
        self.machine.refresh();
        self.devices.begin();
        self.namespaces.note_host(&self.settings.procfs);
        let had_container = self.seen_container;
        let mut pass = Pass::new(self, layout.clone());
        match walk(&layout, &mut pass) {
            Ok(left_out) => pass.end(left_out),
            Err(error) => {
                // The next pass looks for the trees anew.
                self.layout = None;
                self.report.trouble = Some(error.to_string());
            }
        }
        self.finish(begun, had_container);
    }

    /// Ends a pass. Where containers were never seen, nothing is sent.
    fn finish(&mut self, begun: Instant, is_sent: bool) {
        if self.report.is_full {
            self.pool.tidy();
            if is_sent {
                self.own_block(begun);
            }
        }
        let mut report = std::mem::take(&mut self.report);
        report.count(self);
        report.seconds = begun.elapsed().as_secs_f64();
        self.report = report;
    }

    /// The machine's metrics, and those of the pass itself.
    fn own_block(&mut self, begun: Instant) {
        let samples: usize = self.report.blocks.iter().map(|block| block.values.len()).sum();
        let mut segment = std::mem::take(&mut self.own.segment);
        let mut out = segment.emitter(self.pass);
        self.machine.emit(&mut out);
        let trouble = self.report.trouble.is_some();
        self.own_metrics.emit(trouble, begun.elapsed().as_secs_f64(), samples, &mut out);
        out.finish();
        self.own.segment = segment;
        self.own.blocks(self.at_ms, &mut self.pool, &mut self.report.blocks);
    }
}

impl Job for Box<Accounting> {
    fn run(&mut self) {
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.go()));
        if run.is_err() {
            self.report.trouble = Some("reading cgroups panicked; please report the log above".to_owned());
        }
    }
}
