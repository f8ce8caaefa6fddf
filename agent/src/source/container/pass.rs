//! One pass: which cgroups are read, what is read of each, what is left out.

use super::accounting::Accounting;
use super::cgroup::{Dirs, Kind, Layout, Plan, Visitor, pod_uid};
use super::samples::Reading;
use super::settings::{Scheme, WhichCgroups};
use super::target::{Known, PodName, target};
use super::tracked::Tracked;
use super::{ContainerId, RunState};
use crate::source::reading::emit::Segment;
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
        let ends = |tracked: &Tracked| match &order {
            Order::Full => tracked.pass != this,
            Order::Urgent { ended, .. } => tracked.id.as_deref().is_some_and(|id| ended.contains(id)),
        };
        let gone = accounting.tracked.iter().filter(|(_, tracked)| ends(tracked));
        let gone: Vec<Box<str>> = gone.map(|(path, _)| path.clone()).collect();
        for path in gone {
            // Last values and markers must not be of one instant.
            let markers = accounting.forget(&path, at_ms + 1);
            accounting.report.blocks.extend(markers);
        }
        if let Order::Urgent { ended, .. } = order {
            for id in ended {
                accounting.note_ended(id);
            }
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
                if wanted || (is_new && !self.is_over(id)) {
                    Plan { visit: true, descend: is_new }
                } else {
                    nothing
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
        let is_new = tracked.1.target.is_none();
        if is_new {
            tracked.1.segment = Segment::like(self.accounting.template.clone());
        }
        let stays = self.read(path, &mut tracked.1, dirs, is_root, is_leaf);
        self.accounting.series = self.accounting.series - before + tracked.1.series();
        if is_new && tracked.1.series() > 0 {
            self.accounting.template = tracked.1.segment.series().to_vec();
        }
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
        let Some(is_renamed) = self.name(path, tracked) else {
            self.accounting.report.waiting += 1;
            return true;
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
        let known = match (&container, tracked.id.as_deref(), pod.and_then(|uid| self.pods.get(uid.as_str())))
        {
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
