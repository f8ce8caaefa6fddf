//! .

#![forbid(unsafe_code)]
