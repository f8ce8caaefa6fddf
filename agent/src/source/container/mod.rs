//! Containers: what runs on this node, under cAdvisor's names.
//!
//! Two parts that do not know each other's insides. *Discovery* (`runtime/`) asks the container runtimes (Docker,
//! Podman, containerd, CRI-O) who is there and keeps the [`Catalogue`]. *Accounting* walks the cgroup hierarchy,
//! v2 or v1, and reads every number from the kernel, never from a runtime: if the runtime is away, numbers go on
//! flowing, with ids for names, and the names return by themselves.

mod catalogue;
mod identity;
pub mod runtime;

pub use catalogue::{Catalogue, Change};
pub use identity::{Container, ContainerId, Health, PodIdentity, RunState, RuntimeKind};
