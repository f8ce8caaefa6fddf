//! Containers of a real Docker engine: what pegel says of them, beside what they did.
//!
//! Their numbers come from the kernel alone; their names from the engine. `PEGEL_CONTAINERS` is how many the storms
//! have.

mod checks;
mod engine_away;
mod logs;
mod numbers;
mod schemes;
mod storms;
mod world;
