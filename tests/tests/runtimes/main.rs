//! Discovery of containers against real engines.

mod cri;
mod docker;
mod engine;
mod kubelet;
mod logs;
mod podman;
mod watching;
