//! Who is there: kept by discovery, read by everybody else.

use super::{Container, ContainerId, Health};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::broadcast;

/// How many changes a slow reader may be behind before it must look at the whole catalogue again: a storm of some
/// hundred starts and stops within a second.
const CHANGES_KEPT: usize = 1_024;

/// What happened to a container. Stopped containers stay in the catalogue until discovery removes them, which is
/// after the last of their data was sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It began.
    Started(Arc<Container>),
    /// It ended.
    Stopped {
        /// What was known of it.
        container: Arc<Container>,
        /// Its exit code.
        exit_code: Option<i64>,
    },
    /// The kernel killed something in it for want of memory.
    OutOfMemory(Arc<Container>),
    /// Its health check says something else than before.
    Health(Arc<Container>, Health),
    /// Something else is known of it: it was renamed, paused, resumed, or its runtime answers again.
    Updated(Arc<Container>),
    /// It is gone.
    Removed(ContainerId),
}

/// The known containers.
#[derive(Debug)]
pub struct Catalogue {
    known: RwLock<HashMap<ContainerId, Arc<Container>>>,
    writable_bytes: RwLock<HashMap<ContainerId, u64>>,
    changes: broadcast::Sender<Change>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            known: RwLock::default(),
            writable_bytes: RwLock::default(),
            changes: broadcast::Sender::new(CHANGES_KEPT),
        }
    }
}

impl Catalogue {
    /// What is known of a container.
    pub fn container(&self, id: &str) -> Option<Arc<Container>> {
        self.known.read().get(id).cloned()
    }

    /// The bytes in a container's writable layer, as its runtime last counted them; none unless the configuration
    /// asks for it, because runtimes walk every file to answer.
    pub fn writable_bytes(&self, id: &str) -> Option<u64> {
        self.writable_bytes.read().get(id).copied()
    }

    /// All of them, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Container>> {
        let mut all: Vec<_> = self.known.read().values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Changes from now on. A reader that lags is told so and looks at [`Catalogue::all`] again.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Puts a container in, or what is newly known of it.
    pub fn put(&self, container: Arc<Container>) {
        self.known.write().insert(container.id.clone(), container);
    }

    /// Takes a container out and tells of it.
    pub fn remove(&self, id: &ContainerId) {
        self.writable_bytes.write().remove(id);
        if self.known.write().remove(id).is_some() {
            self.tell(Change::Removed(id.clone()));
        }
    }

    /// Notes the size of a known container's writable layer.
    pub fn put_writable_bytes(&self, id: &ContainerId, bytes: u64) {
        if self.known.read().contains_key(id) {
            self.writable_bytes.write().insert(id.clone(), bytes);
        }
    }

    /// Tells of a change. Nobody has to listen.
    pub fn tell(&self, change: Change) {
        let _ = self.changes.send(change);
    }
}
