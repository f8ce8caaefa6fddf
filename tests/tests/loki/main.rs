//! The Loki output against a real Loki.

mod bad_entries;
mod delivery;
mod doubt;
mod limits;
mod rig;
