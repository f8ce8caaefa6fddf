//! Discovery of containers against real engines.

mod docker;
mod engine;
mod watching;
