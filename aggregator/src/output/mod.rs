//! Where batches go: one module an output.

mod matcher;
pub mod recent;
pub mod recent_logs;
pub mod remote_write;
