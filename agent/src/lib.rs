//! The agent: sources, batches, spool, uplink. `ARCHITECTURE.md` has the map; `app` wires everything.

pub mod app;
pub mod call_in;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod intake;
pub mod kept;
pub mod logs_line;
pub mod pipeline;
pub mod positions;
pub mod program_text;
pub mod rejects;
pub mod slo;
pub mod source;
pub mod spool;
pub mod status;
pub mod uplink;
