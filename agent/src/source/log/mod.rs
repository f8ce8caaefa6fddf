//! Logs: from files, the journal, containers, syslog and pipes, each line once and in order.
//!
//! ```text
//! input ── bytes or messages ──▶ shape ── entries ──▶ cutter ── block + origin ──▶ intake ──▶ delivery
//!   ▲                                                   │ intent, before the block is handed over
//!   └────────────── checkpoints ◀───────────────────────┴────────────── safe(origin) ◀──────────┘
//! ```
//!
//! # What holds
//!
//! - A block's entries are a pure function of the bytes of its ranges, the base time and floors of its [`Origin`] and
//!   the configuration. So a killed agent rebuilds the block that it may have sent before, with the same timestamps.
//! - Before a block is handed over, its origin is appended to the checkpoints as an *intent* (not synced). When
//!   delivery says that the block is safe (stored, settled everywhere or given up with a count), the checkpoint of each
//!   of its sources moves to the end of its range, and never before.
//! - On start each source begins at its checkpoint; ranges of intents beyond it are read again first, as
//!   [`Logs::rebuilt`](pegel_proto::batch::Logs::rebuilt). What can't be read again is counted as lost in the crash.
//! - A range begins and ends at an entry's border. Within one source timestamps rise strictly: each is at least one
//!   nanosecond after the one before (the *floor*), across blocks, rotations and restarts.
//! - Delivery without room makes inputs wait where their data is: in the file, in the journal, in the client's socket.
//!   Only where nobody can wait (UDP) is something dropped, and counted.

pub mod checkpoints;
pub mod containers;
pub mod cutter;
pub mod file;
pub mod journal;
pub mod origin;
mod other;
pub mod pipe;
mod pushed;
pub mod settings;
pub mod shape;
mod source;
pub mod syslog;
mod tally;

pub use other::OtherStatus;
pub use source::{LogSource, Status};
