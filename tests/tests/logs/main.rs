//! Logs end to end: writers of numbered lines, the real agent and aggregator, a real Loki that must hold each line
//! exactly once and in order.

mod faults;
mod kills;
mod pushed;
mod rotation;
mod world;
mod writers;
