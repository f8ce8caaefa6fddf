//! From what sources hand over to acknowledged batches: the agent's delivery.
//!
//! ```text
//! intake ─▶ cut ─▶ front ──────────────▶ one cursor an output ─▶ uplink
//!                    │ linger or budget        ▲        │
//!                    ▼                         │        ▼
//!                  spool ──── read in order ───┘      acks, rejections
//! ```
//!
//! [`core::Core`] decides; it has no socket, disk or clock, takes time as an argument and answers with effects, so
//! that seeded simulations drive it through every order of events. [`driver`] feeds it from the real parts.
//!
//! A batch is in one of these places for each output, and [`books`] counts it there: in front (in memory, sent or
//! not), spooled (on disk, fsynced), or settled (delivered, held already, rejected, dropped with a reason). The
//! front forgets a batch when every cursor has passed it or the spool holds it. The spool forgets a segment when
//! every cursor has passed it, or when the quota is full.

pub mod books;
pub mod core;
mod cursor;
pub mod driver;

pub mod effect;
