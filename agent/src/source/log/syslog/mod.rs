//! syslog: messages that others send, over UDP, TCP, TLS and unix sockets.
//!
//! What was received is in memory until delivery has stored it: a killed agent loses it, no sender notices, and the next
//! start counts it. Over streams a sender waits while delivery has no room; what comes over UDP then is dropped, and counted.

pub mod framing;
pub mod fuzzing;
pub(super) mod input;
mod listen;
pub mod message;
pub mod parse;
mod settings;
mod status;
mod structured;
mod tls;

#[cfg(test)]
mod tests;

pub use settings::{DEFAULT_CONNECTIONS, DEFAULT_MESSAGE_BYTES, Listener, Part, Settings, Tls};
pub use status::{ListenerStatus, Status};
