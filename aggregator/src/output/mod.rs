//! Outputs: each takes batches and says what its backend made of them.

pub mod recent;
pub mod remote_write;
