//! Synthetic checks beside a real blackbox_exporter, on servers of the test's own.

mod beside;
mod end_to_end;
mod hooks;
mod http;
mod servers;
mod wire;
