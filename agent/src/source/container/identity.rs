//! What a runtime says of a container.

use std::borrow::Borrow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A container's id as its runtime has it: 64 hexadecimal digits for all that are known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(Arc<str>);

impl ContainerId {
    /// Takes an id.
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that maps of ids can be asked with a `&str`: hashes and orders are those of the text.
impl Borrow<str> for ContainerId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who runs a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuntimeKind {
    /// Docker's engine.
    Docker,
    /// Podman, of root or of a user.
    Podman,
    /// containerd, by its CRI socket.
    Containerd,
    /// CRI-O.
    CriO,
}

/// What a container is doing. One that was made and has not begun is not in the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended, not removed.
    Exited,
}

/// What a container's own health check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It has none.
    None,
    /// It has not answered yet.
    Starting,
    /// It passes.
    Healthy,
    /// It fails.
    Unhealthy,
}

/// The pod a container belongs to, from the labels that the kubelet sets (`io.kubernetes.pod.name` and so on).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodIdentity {
    /// The namespace.
    pub namespace: Box<str>,
    /// The pod.
    pub pod: Box<str>,
    /// The pod's uid.
    pub uid: Box<str>,
    /// The container's name in the pod; `POD` for the sandbox, as cAdvisor says.
    pub container: Box<str>,
}

/// A container. It never changes: a change is a new value in the [`Catalogue`](super::Catalogue).
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Who runs it.
    pub runtime: RuntimeKind,
    /// Its name, without a leading slash; in a pod the container's name there, as in [`PodIdentity::container`].
    pub name: Box<str>,
    /// Its image, as it was asked for.
    pub image: Box<str>,
    /// The labels, all of them, in the order of their names; what is shown is the reader's choice.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// The environment variables that the configuration lists (never others: they hold secrets).
    pub env: Box<[(Box<str>, Box<str>)]>,
    /// Its pod, if it has one.
    pub pod: Option<PodIdentity>,
    /// What it is doing.
    pub state: RunState,
    /// Its health.
    pub health: Health,
    /// The host's number of its first process, while it runs.
    pub pid: Option<u32>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: Option<i64>,
    /// When it last began.
    pub started_ms: Option<i64>,
    /// How often the runtime restarted it.
    pub restarts: Option<u64>,
    /// Where the runtime writes its output, if it says so.
    pub log_path: Option<PathBuf>,
    /// Whether it uses the host's network.
    pub host_network: bool,
}
