//! Where batches go: one module an output.

pub mod recent;
pub mod remote_write;
