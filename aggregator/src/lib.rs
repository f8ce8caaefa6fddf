//! The aggregator: receiver, fan-out, outputs, status. `ARCHITECTURE.md` has the map; `app` wires everything.

#![forbid(unsafe_code)]

pub mod app;
pub mod cli;
pub mod config;
pub mod fanout;
pub mod fleet;
pub mod node_up;
pub mod output;
pub mod receiver;
pub mod session;
pub mod status;
pub mod symbols;
