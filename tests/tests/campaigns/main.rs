//! Campaigns against the whole: real processes and a real Prometheus, with an exporter whose every value says which
//! scrape it belongs to. `scripts/torture` runs the same with larger counts.

mod account;
mod faults;
mod happy;
mod kills;
mod lifecycle;
mod outage;
mod state;
