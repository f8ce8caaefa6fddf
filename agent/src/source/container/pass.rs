//! One pass: which cgroups are read, what is read of each, what is left out.

use super::account::{self, Namespaces, Share, Spec, Subject};
use super::accounting::Accounting;
use super::cgroup::{Dirs, Kind, Layout, Plan, Visitor, pod_uid};
use super::settings::{Group, Scheme, WhichCgroups};
use super::target::{Known, PodName, target};
use super::tracked::Tracked;
use super::{Container, ContainerId, Health, RunState};
use crate::source::reading::emit::Emitter;
use rustix::fd::OwnedFd;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// How long limits are taken for unchanged, in milliseconds: they are a third of all files.
const SPEC_MS: i64 = 60_000;

/// How long a new container is not reported for want of a name, in milliseconds: its runtime tells of it meanwhile,
/// or is away.
pub(super) const PATIENCE_MS: i64 = 1_000;

/// Which cgroups a pass is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// All.
    #[default]
    Full,
    /// Containers that are new or changed, and those that ended.
    Urgent {
        /// Those to read.
        read: HashSet<ContainerId>,
        /// Those to end.
        ended: HashSet<ContainerId>,
    },
}

/// A pass that is under way.
pub(super) struct Pass<'a> {
    accounting: &'a mut Accounting,
    layout: Arc<Layout>,
    order: Order,
    at_ms: i64,
    /// The pods that are known, by uid, and whether their sandbox is.
    pods: HashMap<Box<str>, (PodName, bool)>,
}

impl<'a> Pass<'a> {
    /// Begins one.
    pub(super) fn new(accounting: &'a mut Accounting, layout: Arc<Layout>) -> Self {
        let order = std::mem::take(&mut accounting.order);
        if let Order::Urgent { read, .. } = &order {
            accounting.ended.retain(|ended| !read.contains(ended));
        }
        let mut pods: HashMap<Box<str>, (PodName, bool)> = HashMap::new();
        for container in accounting.catalogue.all() {
            let Some(pod) = &container.pod else { continue };
            let name = || PodName { namespace: pod.namespace.clone(), pod: pod.pod.clone() };
            let entry = pods.entry(pod.uid.clone()).or_insert_with(|| (name(), false));
            entry.1 |= &*pod.container == "POD";
        }
        let at_ms = accounting.at_ms;
        Self { accounting, layout, order, at_ms, pods }
    }

    /// Ends the pass: what was not seen is gone.
    pub(super) fn end(self, left_out: usize) {
        let Self { accounting, order, at_ms, .. } = self;
        accounting.report.cgroups_left_out += left_out;
        let this = accounting.pass;
        let gone = |(path, tracked): (&Box<str>, &Tracked)| {
            let ends = match &order {
                Order::Full => tracked.pass != this,
                Order::Urgent { ended, .. } => tracked.id.as_deref().is_some_and(|id| ended.contains(id)),
            };
            ends.then(|| path.clone())
        };
        let gone: Vec<Box<str>> = accounting.tracked.iter().filter_map(gone).collect();
        for path in gone {
            // Last values and markers must not be of one instant.
            let markers = accounting.forget(&path, at_ms + 1);
            accounting.report.blocks.extend(markers);
        }
        if let Order::Urgent { ended, .. } = order {
            ended.into_iter().for_each(|id| accounting.note_ended(id));
        }
    }

    /// Whether a container is over, though its cgroup may be there still.
    fn is_over(&self, id: &str) -> bool {
        let ended = self.accounting.ended.iter().any(|ended| ended.as_str() == id);
        ended || self.accounting.catalogue.container(id).is_some_and(|known| known.state == RunState::Exited)
    }
}

impl Visitor for Pass<'_> {
    fn plan(&mut self, path: &str) -> Plan {
        let nothing = Plan { visit: false, descend: false };
        let all = self.accounting.settings.cgroups == WhichCgroups::All;
        let seen_container = self.accounting.seen_container;
        let kind = Kind::of(path);
        match (&self.order, kind) {
            (_, Kind::Ignored) => nothing,
            (Order::Full, Kind::Root) => Plan { visit: seen_container, descend: true },
            (Order::Full, Kind::Other) => Plan { visit: seen_container && all, descend: true },
            (Order::Full, Kind::Container(id)) if self.is_over(id) => nothing,
            (Order::Full, Kind::Container(_)) => Plan { visit: true, descend: true },
            (Order::Urgent { .. }, Kind::Root | Kind::Other) => Plan { visit: false, descend: true },
            (Order::Urgent { read, ended }, Kind::Container(id)) => {
                let wanted = read.contains(id) || ended.contains(id);
                // What waits for its name, or was never seen, is looked at as well.
                let is_new = self.accounting.tracked.get(path).is_none_or(|tracked| tracked.series() == 0);
                match wanted || (is_new && !self.is_over(id)) {
                    true => Plan { visit: true, descend: is_new },
                    false => nothing,
                }
            }
        }
    }

    fn visit(&mut self, path: &str, dirs: &Dirs, is_leaf: bool) {
        let (id, is_root) = match Kind::of(path) {
            Kind::Container(id) => (Some(id), false),
            kind => (None, kind == Kind::Root),
        };
        let mut tracked = match self.accounting.tracked.remove_entry(path) {
            Some(entry) => entry,
            None => (path.into(), Tracked::new(self.at_ms, id)),
        };
        tracked.1.pass = self.accounting.pass;
        self.accounting.seen_container |= id.is_some();
        let before = tracked.1.series();
        let stays = self.read(path, &mut tracked.1, dirs, is_root, is_leaf);
        self.accounting.series = self.accounting.series - before + tracked.1.series();
        if stays {
            self.accounting.tracked.insert(tracked.0, tracked.1);
        } else {
            self.accounting.namespaces.forget(path);
        }
    }
}

impl Pass<'_> {
    /// Reads a cgroup. Whether it is still there.
    fn read(&mut self, path: &str, tracked: &mut Tracked, dirs: &Dirs, is_root: bool, is_leaf: bool) -> bool {
        let room = self.accounting.settings.max_series.saturating_sub(self.accounting.series);
        if room == 0 && tracked.series() == 0 && tracked.left_out > 0 {
            // What would be left out is not read either.
            self.accounting.report.leave_out(path, tracked, tracked.left_out);
            return true;
        }
        let is_renamed = match self.name(path, tracked) {
            Some(is_renamed) => is_renamed,
            None => {
                self.accounting.report.waiting += 1;
                return true;
            }
        };
        let at_ms = self.at_ms;
        if tracked.spec.is_some_and(|(_, read_ms)| is_renamed || !(0..SPEC_MS).contains(&(at_ms - read_ms))) {
            tracked.spec = None;
            tracked.seen.look_again();
        }
        let reading = Reading { layout: &self.layout, pods: &self.pods, at_ms, path, dirs, is_root, is_leaf };
        reading.samples(self.accounting, tracked);
        let accounting = &mut *self.accounting;
        if let Some((file, error)) = accounting.reader.failure() {
            accounting.report.note_unreadable(path, file, error);
        }
        if accounting.reader.vanished() {
            accounting.report.blocks.extend(tracked.end(at_ms));
            return false;
        }
        let most = accounting.settings.max_series_per_container.min(tracked.series() + room);
        tracked.left_out = tracked.cap(most);
        if tracked.left_out > 0 {
            accounting.report.leave_out(path, tracked, tracked.left_out);
        }
        tracked.blocks(at_ms, &mut accounting.pool, &mut accounting.report.blocks);
        true
    }

    /// Finds out what a cgroup is called. Whether that changed; none if a container has no name yet and may get one.
    fn name(&self, path: &str, tracked: &mut Tracked) -> Option<bool> {
        let accounting = &*self.accounting;
        let container = tracked.id.as_deref().and_then(|id| accounting.catalogue.container(id));
        let is_same = match (&container, &tracked.container) {
            (Some(now), Some(before)) => Arc::ptr_eq(now, before),
            (now, before) => now.is_none() && before.is_none(),
        };
        let is_kubelet = accounting.settings.scheme == Scheme::Kubelet;
        let pod = if is_kubelet && tracked.id.is_none() { pod_uid(path) } else { None };
        if is_same && tracked.target.is_some() && pod.is_none() {
            return Some(false);
        }
        let is_new = tracked.target.is_none();
        if is_new && tracked.id.is_some() && container.is_none() {
            let waited_ms = self.at_ms - tracked.first_seen_ms;
            if (0..accounting.patience_ms).contains(&waited_ms) {
                return None;
            }
        }
        let known = match (&container, tracked.id.as_deref(), pod.and_then(|uid| self.pods.get(uid.as_str()))) {
            (Some(container), ..) => Known::Container(container),
            (None, Some(id), _) => Known::Id(id),
            (None, None, Some((pod, _))) => Known::Pod(pod),
            (None, None, None) => Known::Nothing,
        };
        let target = target(&accounting.settings, &accounting.external, &accounting.instance, path, known);
        if tracked.target.as_ref() != Some(&target) {
            tracked.target = Some(target);
        }
        tracked.container = container;
        Some(!is_same || is_new)
    }
}

/// A cgroup that is being read.
struct Reading<'a> {
    layout: &'a Layout,
    pods: &'a HashMap<Box<str>, (PodName, bool)>,
    at_ms: i64,
    path: &'a str,
    dirs: &'a Dirs,
    is_root: bool,
    is_leaf: bool,
}

impl Reading<'_> {
    /// Takes the samples of all groups into the segment.
    fn samples(&self, accounting: &mut Accounting, tracked: &mut Tracked) {
        let Self { layout, at_ms, path, dirs, is_root, is_leaf, .. } = *self;
        let Accounting { settings, machine, reader, metrics, namespaces, report, scratch, .. } = accounting;
        let Some(procfs) = &accounting.procfs else { return };
        let groups = settings.groups;
        let mut segment = std::mem::take(&mut tracked.segment);
        let mut out = segment.emitter(accounting.pass);
        let mut seen = tracked.seen;
        reader.begin();
        let mut subject = Subject { layout, dirs, seen: &mut seen, reader, metrics, groups };
        let spec = match tracked.spec {
            Some((spec, _)) => spec,
            None => {
                if tracked.created_seconds.is_none() {
                    tracked.created_seconds = account::created_seconds(&subject, machine.boot_seconds);
                }
                if is_root || tracked.id.is_some() {
                    self.find_process(&mut subject, &settings.procfs, namespaces, tracked);
                }
                let spec = Spec::read(&mut subject, is_root, &machine.memory);
                tracked.spec = Some((spec, at_ms));
                spec
            }
        };
        self.facts(metrics, tracked, &mut out);
        account::emit_spec(&subject, &spec, &mut out);
        if groups.has(Group::Cpu) {
            account::emit_cpu(&mut subject, &spec, &mut out);
        }
        if groups.has(Group::CpuLoad) {
            account::emit_load(&mut subject, &mut tracked.load, at_ms, procfs, scratch, &mut out);
        }
        if groups.has(Group::Memory) {
            account::emit_memory(&mut subject, spec.use_hierarchy, &machine.memory, &mut out);
        }
        if groups.has(Group::OomEvent)
            && let Some(kills) = subject.oom_kills(tracked.id.is_some() || is_leaf)
        {
            out.emit(&metrics.oom_events, &[], kills as f64);
            let before = tracked.oom_kills.replace(kills);
            if let Some(more) = before.and_then(|before| kills.checked_sub(before)).filter(|more| *more > 0) {
                report.note_oom(path, tracked, more);
            }
        }
        if groups.has(Group::DiskIo) {
            account::emit_io(&mut subject, &mut accounting.devices, &mut out);
        }
        if groups.has(Group::Disk) {
            let writable = tracked.id.as_deref().and_then(|id| accounting.catalogue.writable_bytes(id));
            if let Some(bytes) = writable {
                out.emit(&metrics.fs_usage, &[""], bytes as f64);
            }
            if is_root {
                accounting.filesystems.emit(&accounting.system, &mut accounting.disks, metrics, &mut out);
            }
        }
        if groups.has(Group::Network) && tracked.reports_network {
            self.network(&mut subject, procfs, tracked, &mut out);
        }
        if groups.has(Group::Process) {
            account::emit_process(&mut subject, &spec, procfs, tracked.pid, scratch, &mut out);
        }
        if groups.has(Group::Hugetlb) {
            account::emit_hugetlb(&mut subject, &accounting.page_sizes, &mut out);
        }
        if groups.has(Group::Pressure) {
            account::emit_pressure(&mut subject, &mut out);
        }
        out.finish();
        tracked.seen = seen;
        tracked.segment = segment;
    }

    /// When it began, whether it is well.
    fn facts(&self, metrics: &account::Metrics, tracked: &Tracked, out: &mut Emitter<'_>) {
        let container = tracked.container.as_deref();
        out.emit(&metrics.last_seen, &[], self.at_ms.div_euclid(1_000) as f64);
        let seconds = |ms: i64| ms.div_euclid(1_000);
        let created = container.and_then(|c| c.created_ms).map(seconds).or(tracked.created_seconds);
        let started = container.and_then(|c| c.started_ms).map(seconds).or(tracked.created_seconds).or(created);
        if let Some(created) = created {
            out.emit(&metrics.created, &[], created as f64);
        }
        if let Some(started) = started {
            out.emit(&metrics.started, &[], started as f64);
        }
        let health = match container.map_or(Health::None, |container| container.health) {
            Health::None => -1.0,
            Health::Healthy => 1.0,
            Health::Starting | Health::Unhealthy => 0.0,
        };
        out.emit(&metrics.health, &[], health);
    }

    /// Finds a process of the container, and whether its network is this cgroup's to report.
    fn find_process(
        &self,
        subject: &mut Subject<'_>,
        procfs: &std::path::Path,
        namespaces: &mut Namespaces,
        tracked: &mut Tracked,
    ) {
        let container = tracked.container.as_deref();
        tracked.pid = match container.and_then(|container| container.pid) {
            _ if self.is_root => Some(1),
            Some(pid) => Some(pid),
            None => account::first_pid(subject),
        };
        tracked.reports_network = self.is_root
            || tracked.pid.is_some_and(|pid| match self.share_in_pod(container) {
                Share::Others => false,
                share => namespaces.is_reporter(procfs, self.path, pid, share),
            });
    }

    /// Whose the network of a container's pod is to report.
    fn share_in_pod(&self, container: Option<&Container>) -> Share {
        match container.and_then(|container| container.pod.as_ref()) {
            None => Share::First,
            Some(pod) if &*pod.container == "POD" => Share::Sandbox,
            Some(pod) if self.pods.get(&pod.uid).is_some_and(|(_, has_sandbox)| *has_sandbox) => Share::Others,
            Some(_) => Share::FirstOfPod,
        }
    }

    /// Emits the network of the container's process, or of another where that is gone.
    fn network(
        &self,
        subject: &mut Subject<'_>,
        procfs: &OwnedFd,
        tracked: &mut Tracked,
        out: &mut Emitter<'_>,
    ) {
        if tracked.pid.is_some_and(|pid| account::emit_network(subject, procfs, pid, out)) {
            return;
        }
        tracked.pid = account::first_pid(subject);
        if let Some(pid) = tracked.pid {
            account::emit_network(subject, procfs, pid, out);
        }
    }
}
