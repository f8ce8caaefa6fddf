//! An agent with an aggregator and a receiver of its own.

use crate::null_receiver::NullReceiver;
use crate::process::Process;
use crate::site::{Backend, Site};
use anyhow::Result;
use std::time::Duration;

/// See the module.
pub struct Fed {
    /// The agent.
    pub agent: Process,
    /// Where it sends.
    pub site: Site,
    receiver: NullReceiver,
}

impl Fed {
    /// Starts one with more sections of configuration.
    pub fn start(interval: Duration, sections: &str) -> Result<Self> {
        let receiver = NullReceiver::start()?;
        let site = Site::start(Some(&Backend { url: &receiver.url(), protocol: "auto" }))?;
        let agent = site.agent(&format!("{}s", interval.as_secs()), sections)?;
        Ok(Self { agent, site, receiver })
    }

    /// Samples that have arrived.
    pub fn samples(&self) -> u64 {
        self.receiver.samples()
    }
}
