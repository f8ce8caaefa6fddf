//! The agent: sources, batches, spool, uplink. `ARCHITECTURE.md` has the map; `app` wires everything.

pub mod intake;
pub mod positions;
pub mod source;
pub mod spool;
