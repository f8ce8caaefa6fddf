//! In a machine with systemd and real units: what only such a machine shows.
//!
//! `tests/backends/backend machine` makes the machine; without it the suite says `SKIPPED`.

mod boot;
mod exposition;
mod host;
mod logs;
mod unit;
