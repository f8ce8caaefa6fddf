//! Whose containers are in the catalogue, and for how long.
//!
//! Sessions with runtimes report what they saw; the roster compares it with what was known, tells the difference and
//! keeps what ended until the last of its data was sent. It takes time as an argument and talks to nobody.

use super::super::{Catalogue, Change, Container, ContainerId, Health, RunState};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a container stays after it ended: its last numbers are collected one interval later (15 s by default,
/// rarely more than 30 s) and are on their way at once; a restart within it finds the container still there.
pub(super) const KEPT_AFTER_END: Duration = Duration::from_mins(1);
/// No more containers than this are kept, whatever runtimes report: eight times what a kubelet runs at most by its
/// documentation (110 pods), some 4 MiB with a dozen labels each.
pub(super) const MAX_CONTAINERS: usize = 2_048;

/// Which session reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Owner(pub(super) u32);

/// A container as a runtime describes it at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sighting {
    /// The container. Made and never begun is not reported at all.
    pub(super) container: Container,
    /// Its exit code, if it ended.
    pub(super) exit_code: Option<i64>,
    /// Whether the kernel killed it for want of memory.
    pub(super) oom_killed: bool,
    /// Whether it lived just now: then a life that was over before it was seen is told all the same.
    pub(super) news: bool,
}

impl Sighting {
    /// One that runs, or is frozen.
    pub(super) fn of_running(container: Container) -> Self {
        Self { container, exit_code: None, oom_killed: false, news: false }
    }
}

#[derive(Debug)]
struct Entry {
    owner: Owner,
    container: Arc<Container>,
    /// When it goes; none while it runs.
    remove_at: Option<Instant>,
    /// The out-of-memory event that was told last, in the runtime's nanoseconds; 0 for one without an event.
    oom_nanos: Option<i64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Roster {
    catalogue: Arc<Catalogue>,
    entries: HashMap<ContainerId, Entry>,
    /// Owners whose runtime answers.
    attending: HashSet<Owner>,
}

impl Roster {
    /// An empty roster that fills this catalogue.
    pub(super) fn new(catalogue: Arc<Catalogue>) -> Self {
        Self { catalogue, entries: HashMap::new(), attending: HashSet::new() }
    }

    /// An owner's runtime answers: what it reports is its own from now on.
    pub(super) fn attend(&mut self, owner: Owner) {
        self.attending.insert(owner);
    }

    /// An owner's runtime is away. Its containers stay, and any other runtime that has them may report them.
    pub(super) fn lose(&mut self, owner: Owner) {
        self.attending.remove(&owner);
    }

    /// Takes what a runtime says of a container. Says whether there was room for it.
    pub(super) fn see(&mut self, owner: Owner, sighting: Sighting, now: Instant) -> bool {
        let Sighting { container, exit_code, oom_killed, news } = sighting;
        let known = self.entries.get(&container.id);
        if known.is_none() && self.entries.len() >= MAX_CONTAINERS {
            return false;
        }
        if container.state == RunState::Exited {
            let known_start = known.map(|entry| entry.container.started_ms);
            if news && known_start != Some(container.started_ms) && !self.is_anothers(owner, &container.id) {
                self.begin(owner, Arc::new(container.clone()));
            }
            if oom_killed {
                self.out_of_memory(owner, &container.id, None);
            }
            self.end(owner, &container.id, exit_code, now);
            return true;
        }
        let container = Arc::new(container);
        let Some(entry) = self.entries.get_mut(&container.id) else {
            self.begin(owner, container);
            return true;
        };
        let ended = entry.remove_at.is_some();
        if entry.owner != owner && !ended && self.attending.contains(&entry.owner) {
            return true;
        }
        entry.owner = owner;
        let known = entry.container.clone();
        let started_again = known.started_ms.is_some()
            && container.started_ms.is_some()
            && known.started_ms != container.started_ms;
        if ended {
            self.begin(owner, container);
        } else if started_again {
            self.end(owner, &container.id, None, now);
            self.begin(owner, container);
        } else if *known != *container {
            entry.container = container.clone();
            self.catalogue.put(container.clone());
            self.catalogue.tell(if known.health == container.health {
                Change::Updated(container)
            } else {
                let health = container.health;
                Change::Health(container, health)
            });
        }
        true
    }

    fn begin(&mut self, owner: Owner, container: Arc<Container>) {
        let entry = Entry { owner, container: container.clone(), remove_at: None, oom_nanos: None };
        self.entries.insert(container.id.clone(), entry);
        self.catalogue.put(container.clone());
        self.catalogue.tell(Change::Started(container));
    }

    /// A container ended, with this exit code if that is known. Once is enough; later ends are not told again.
    pub(super) fn end(&mut self, owner: Owner, id: &ContainerId, exit_code: Option<i64>, now: Instant) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if entry.owner != owner || entry.remove_at.is_some() {
            return;
        }
        entry.remove_at = Some(now + KEPT_AFTER_END);
        let ended = Container { state: RunState::Exited, pid: None, ..(*entry.container).clone() };
        let container = Arc::new(ended);
        entry.container = container.clone();
        self.catalogue.put(container.clone());
        self.catalogue.tell(Change::Stopped { container, exit_code });
    }

    /// The kernel killed something in a container: by an event with its time, or because the container ended so, which
    /// is told only if no event was.
    pub(super) fn out_of_memory(&mut self, owner: Owner, id: &ContainerId, event_nanos: Option<i64>) {
        let Some(entry) = self.entries.get_mut(id).filter(|entry| entry.owner == owner) else { return };
        let news = match event_nanos {
            Some(nanos) => entry.oom_nanos != Some(nanos),
            None => entry.oom_nanos.is_none() && entry.remove_at.is_none(),
        };
        if news {
            entry.oom_nanos = Some(event_nanos.unwrap_or(0));
            self.catalogue.tell(Change::OutOfMemory(entry.container.clone()));
        }
    }

    /// A running container's health, where an event says it.
    pub(super) fn health(&mut self, owner: Owner, id: &ContainerId, health: Health) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if entry.owner != owner || entry.remove_at.is_some() || entry.container.health == health {
            return;
        }
        let container = Arc::new(Container { health, ..(*entry.container).clone() });
        entry.container = container.clone();
        self.catalogue.put(container.clone());
        self.catalogue.tell(Change::Health(container, health));
    }

    /// The size of a container's writable layer.
    pub(super) fn writable(&mut self, id: &ContainerId, bytes: u64) {
        self.catalogue.put_writable_bytes(id, bytes);
    }

    /// A container that runs, as last seen through this owner.
    pub(super) fn running(&self, owner: Owner, id: &ContainerId) -> Option<&Arc<Container>> {
        let entry = self.entries.get(id)?;
        (entry.owner == owner && entry.remove_at.is_none()).then_some(&entry.container)
    }

    /// Whether another runtime that answers has this container.
    pub(super) fn is_anothers(&self, owner: Owner, id: &ContainerId) -> bool {
        self.entries.get(id).is_some_and(|entry| {
            entry.owner != owner && entry.remove_at.is_none() && self.attending.contains(&entry.owner)
        })
    }

    /// All running containers of an owner.
    pub(super) fn all_running(&self, owner: Owner) -> Vec<Arc<Container>> {
        let running = self.entries.values().filter(|e| e.owner == owner && e.remove_at.is_none());
        running.map(|entry| entry.container.clone()).collect()
    }

    /// How many containers of an owner run.
    pub(super) fn count(&self, owner: Owner) -> usize {
        self.entries.values().filter(|e| e.owner == owner && e.remove_at.is_none()).count()
    }

    /// Ends those of an owner whose first process is gone, as `lives` sees it: for while its runtime is away.
    pub(super) fn sweep(&mut self, owner: Owner, lives: impl Fn(u32) -> bool, now: Instant) {
        for container in self.all_running(owner) {
            if container.pid.is_some_and(|pid| !lives(pid)) {
                self.end(owner, &container.id, None, now);
            }
        }
    }

    /// Removes what ended long enough ago.
    pub(super) fn expire(&mut self, now: Instant) {
        let due = |entry: &Entry| entry.remove_at.is_some_and(|at| at <= now);
        let gone: Vec<_> = self.entries.iter().filter(|(_, e)| due(e)).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.entries.remove(&id);
            self.catalogue.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
