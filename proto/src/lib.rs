//! The contract between agent and aggregator.
//!
//! Domain types ([`metrics`], [`identity`], [`batch`]), the metrics codec ([`codec`]), the wire schema
//! ([`wire`]) and the caps on everything a peer may send ([`caps`]). No I/O, no clock, no tokio: every
//! function here is a pure function of its arguments, so that it can be fuzzed and simulated.

#![forbid(unsafe_code)]

pub mod batch;
pub mod caps;
pub mod codec;
pub mod framing;
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
pub mod logs;
pub mod metrics;
pub mod wire;
