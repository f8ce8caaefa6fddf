//! The kinds of checks: one file each, and the table of them.

pub mod assertion;
pub mod http;

use super::run::Probe;
use std::sync::Arc;

/// What a check does, with the settings of its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A request over HTTP or HTTPS.
    Http(Box<http::Settings>),
}

impl Kind {
    /// As the configuration and `pegel_probe_up` name it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
        }
    }

    /// The probe that does it, for all targets of a check. Files that settings name are read when it first runs.
    pub fn probe(&self) -> Arc<dyn Probe> {
        match self {
            Self::Http(settings) => Arc::new(http::HttpProbe::new((**settings).clone())),
        }
    }

    /// Says why an address is no target of this kind.
    pub fn check_address(&self, address: &str) -> Result<(), String> {
        match self {
            Self::Http(_) => http::check_address(address),
        }
    }
}
