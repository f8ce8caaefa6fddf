//! All samples of one cgroup, group by group.

use super::account::{self, Namespaces, Share, Spec, Subject};
use super::accounting::Accounting;
use super::cgroup::{Dirs, Layout};
use super::settings::Group;
use super::target::PodName;
use super::tracked::Tracked;
use super::{Container, Health};
use crate::source::reading::emit::Emitter;
use rustix::fd::OwnedFd;
use std::collections::HashMap;
use std::path::Path;

/// A cgroup that is being read.
pub(super) struct Reading<'a> {
    /// Where the trees are.
    pub(super) layout: &'a Layout,
    /// The pods that are known, by uid, and whether their sandbox is.
    pub(super) pods: &'a HashMap<Box<str>, (PodName, bool)>,
    /// The instant of the samples.
    pub(super) at_ms: i64,
    /// Its path.
    pub(super) path: &'a str,
    /// Its directories.
    pub(super) dirs: &'a Dirs,
    /// Whether it is the machine.
    pub(super) is_root: bool,
    /// Whether there are no cgroups in it.
    pub(super) is_leaf: bool,
}

impl Reading<'_> {
    /// Takes the samples of all groups into the segment.
    pub(super) fn samples(&self, accounting: &mut Accounting, tracked: &mut Tracked) {
        let Self { layout, at_ms, path, dirs, is_root, is_leaf, .. } = *self;
        let Accounting { settings, machine, reader, metrics, namespaces, report, scratch, .. } = accounting;
        let Some(procfs) = &accounting.procfs else { return };
        let groups = settings.groups;
        let mut segment = std::mem::take(&mut tracked.segment);
        let mut out = segment.emitter(accounting.pass);
        let mut seen = tracked.seen;
        reader.begin();
        let mut subject = Subject { layout, dirs, seen: &mut seen, reader, metrics, groups };
        let spec = if let Some((spec, _)) = tracked.spec {
            spec
        } else {
            if tracked.created_seconds.is_none() {
                tracked.created_seconds = account::created_seconds(&subject, machine.boot_seconds);
            }
            if is_root || tracked.id.is_some() {
                self.find_process(&mut subject, &settings.procfs, namespaces, tracked);
            }
            let spec = Spec::read(&mut subject, is_root, &machine.memory);
            tracked.spec = Some((spec, at_ms));
            spec
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
            network(&mut subject, procfs, tracked, &mut out);
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
        let started =
            container.and_then(|c| c.started_ms).map(seconds).or(tracked.created_seconds).or(created);
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
        procfs: &Path,
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
            Some(pod) if self.pods.get(&pod.uid).is_some_and(|(_, has_sandbox)| *has_sandbox) => {
                Share::Others
            }
            Some(_) => Share::FirstOfPod,
        }
    }
}

/// Emits the network of the container's process, or of another where that is gone.
fn network(subject: &mut Subject<'_>, procfs: &OwnedFd, tracked: &mut Tracked, out: &mut Emitter<'_>) {
    if tracked.pid.is_some_and(|pid| account::emit_network(subject, procfs, pid, out)) {
        return;
    }
    tracked.pid = account::first_pid(subject);
    if let Some(pid) = tracked.pid {
        account::emit_network(subject, procfs, pid, out);
    }
}
