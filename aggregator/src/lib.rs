//! The aggregator: receiver, fan-out, outputs, status. `ARCHITECTURE.md` has the map; `app` wires everything.

pub mod fanout;
pub mod node_up;
pub mod output;
pub mod session;
pub mod symbols;
