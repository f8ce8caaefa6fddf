//! Synthetic checks beside a real blackbox_exporter, on servers of the test's own.

mod access;
mod beside;
mod end_to_end;
mod faults;
mod hooks;
mod http;
mod once;
mod servers;
mod stapling;
mod versions;
mod wire;
