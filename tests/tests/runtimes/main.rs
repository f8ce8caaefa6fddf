//! Discovery of containers against real engines.

mod engine;
