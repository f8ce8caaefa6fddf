//! The frames of `pegel/1`, generated from `schema/pegel.proto`.

/// The generated messages.
#[allow(clippy::all, clippy::pedantic, missing_docs)]
pub mod generated {
    include!(concat!(env!("OUT_DIR"), "/pegel.wire.rs"));
}

pub use generated::*;

/// The ALPN protocol name.
pub const ALPN: &[u8] = b"pegel/1";
/// The wire version of this build.
pub const WIRE_VERSION: u32 = 1;
