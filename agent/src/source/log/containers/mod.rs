//! What containers write: the files of their runtimes, with names and labels from the container source.
//!
//! The catalogue says which containers there are and where their runtime writes; the thread of files reads. A
//! container that is gone is read to the end of its file as long as that can be: an open file stays readable after
//! the runtime deleted it.

mod select;

#[cfg(test)]
mod tests;

pub use select::{Followed, Format, Settings, select};

use crate::source::container::{Catalogue, Change, ContainerId};
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Containers without a file that the status names.
const MAX_NAMED: usize = 32;

/// Where followed files go.
pub trait Feed: Send + 'static {
    /// Reads a file from now on; one that is known under the key has other labels or another path.
    fn follow(&mut self, followed: Followed);

    /// A file gets no more bytes: it is read to its end and forgotten.
    fn gone(&mut self, key: &str);
}

/// How an input of containers fares.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// The input's name.
    pub input: String,
    /// Containers whose files are read.
    pub followed: usize,
    /// Containers of the input whose runtime writes no file that can be read: other logging drivers. Those of Docker's
    /// and Podman's `journald` are in the journal.
    pub without_file: Vec<String>,
}

/// Follows the catalogue until the end of the agent.
pub async fn run<F: Feed>(
    settings: Settings,
    labels: BTreeMap<String, String>,
    catalogue: Arc<Catalogue>,
    feed: F,
    status: Arc<Mutex<Status>>,
    shutdown: CancellationToken,
) {
    let mut follower = Follower {
        settings,
        labels,
        catalogue,
        feed,
        status,
        followed: HashMap::new(),
        without: BTreeMap::new(),
    };
    // Changes from before the first look are in it.
    let mut changes = follower.catalogue.changes();
    follower.look();
    loop {
        let change = tokio::select! {
            () = shutdown.cancelled() => return,
            change = changes.recv() => change,
        };
        match change {
            Ok(Change::Removed(id)) => follower.removed(&id),
            Ok(
                Change::Started(container) | Change::Updated(container) | Change::Stopped { container, .. },
            ) => {
                follower.consider(&container);
            }
            Ok(_) => continue,
            Err(RecvError::Lagged(_)) => follower.look(),
            Err(RecvError::Closed) => return,
        }
        follower.tell();
    }
}

struct Follower<F> {
    settings: Settings,
    labels: BTreeMap<String, String>,
    catalogue: Arc<Catalogue>,
    feed: F,
    status: Arc<Mutex<Status>>,
    followed: HashMap<ContainerId, Followed>,
    without: BTreeMap<ContainerId, String>,
}

impl<F: Feed> Follower<F> {
    /// Compares all that are there with what is followed.
    fn look(&mut self) {
        let all = self.catalogue.all();
        let gone: Vec<ContainerId> = self
            .followed
            .keys()
            .chain(self.without.keys())
            .filter(|id| all.binary_search_by(|container| container.id.cmp(id)).is_err())
            .cloned()
            .collect();
        for id in gone {
            self.removed(&id);
        }
        for container in &all {
            self.consider(container);
        }
        self.tell();
    }

    fn consider(&mut self, container: &crate::source::container::Container) {
        if !self.settings.takes(container) {
            return;
        }
        let Some(followed) = select(&self.settings, &self.labels, container) else {
            self.without.insert(container.id.clone(), container.name.to_string());
            return;
        };
        self.without.remove(&container.id);
        if self.followed.get(&container.id) != Some(&followed) {
            self.followed.insert(container.id.clone(), followed.clone());
            self.feed.follow(followed);
        }
    }

    fn removed(&mut self, id: &ContainerId) {
        self.without.remove(id);
        if self.followed.remove(id).is_some() {
            self.feed.gone(id.as_str());
        }
    }

    fn tell(&self) {
        let mut status = self.status.lock();
        status.followed = self.followed.len();
        status.without_file = self.without.values().take(MAX_NAMED).cloned().collect();
    }
}
