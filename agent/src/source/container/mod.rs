//! Containers: what runs on this node, under cAdvisor's names.
//!
//! Two parts that do not know each other's insides. *Discovery* (`runtime/`) asks the container runtimes (Docker,
//! Podman, containerd, CRI-O) who is there and keeps the [`Catalogue`]. *Accounting* walks the cgroup hierarchy,
//! v2 or v1, and reads every number from the kernel, never from a runtime: if the runtime is away, numbers go on
//! flowing, with ids for names, and the names return by themselves.

mod account;
mod accounting;
mod catalogue;
mod cgroup;
mod events;
mod identity;
mod machine;
mod pass;
pub mod runtime;
mod samples;
mod settings;
mod source;
mod status;
mod summary;
mod target;
mod tracked;

#[cfg(test)]
mod tests;

pub use catalogue::{Catalogue, Change};
pub use events::{Event, Events};
pub use identity::{Container, ContainerId, Health, PodIdentity, RunState, RuntimeKind};
pub use settings::{AllowList, Group, Groups, Scheme, Settings, WhichCgroups};
pub use source::ContainerSource;
pub use status::{Snapshot, Status};
pub use summary::Offender;
