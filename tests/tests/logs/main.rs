//! Logs end to end: writers of numbered lines, the real agent and aggregator, a real Loki that must hold each line
//! exactly once and in order.

mod faults;
mod identity;
mod kills;
mod outage;
mod pushed;
mod rotation;
mod state;
mod world;
mod writers;
