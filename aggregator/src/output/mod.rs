//! Where batches go: one module an output, and what they have in common: `backend` speaks HTTP, `settlement` keeps
//! account of a batch.

pub(crate) mod backend;
pub mod elasticsearch;
pub mod loki;
mod matcher;
pub mod recent;
pub mod recent_logs;
pub mod remote_write;
mod settlement;
mod trouble;
