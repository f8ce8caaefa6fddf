//! syslog: messages that others send, over UDP, TCP, TLS and unix sockets.
//!
//! What was received is in memory until delivery has stored it: a killed agent loses it, and no sender notices. Over
//! streams a sender waits while delivery has no room; what comes over UDP then is dropped, and counted.

pub mod framing;
pub mod fuzzing;
pub mod message;
pub mod parse;
mod structured;

#[cfg(test)]
mod tests;
