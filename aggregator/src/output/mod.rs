//! Where batches go: one module an output.

pub mod recent;
