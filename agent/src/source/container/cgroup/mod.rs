//! The cgroup hierarchies: where they are mounted, what is in them, and their files.
//!
//! Version 1 has a tree for each controller (or for some together), version 2 one tree for all; both may be mounted
//! beside each other, and a cgroup has the same path in each tree that it is in
//! (Documentation/admin-guide/cgroup-v1/cgroups.rst, cgroup-v2.rst).

mod files;
mod layout;
mod naming;
mod walk;

pub(super) use files::{Dirs, File, Reader, Seen};
pub(super) use layout::{Controller, Layout, Version};
pub(super) use naming::{Kind, pod_uid};
pub(super) use walk::{Plan, Visitor, walk};
