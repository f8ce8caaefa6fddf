//! What is known of each target, for the page and the status API.

use super::target::Target;
use super::worker::Scraped;
use std::time::Duration;

/// The state of one target.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TargetStatus {
    /// Its job.
    pub job: String,
    /// Its `instance` label.
    pub instance: String,
    /// What is fetched.
    pub url: String,
    /// Whether the last scrape succeeded; none before the first.
    pub up: Option<bool>,
    /// Why it did not.
    pub last_error: Option<String>,
    /// The sample time of the last scrape, in milliseconds since the Unix epoch.
    pub last_scrape_ms: Option<i64>,
    /// How long it took.
    pub last_duration: Duration,
    /// Samples that it exposed.
    pub samples: usize,
    /// Series that are alive.
    pub series: usize,
}

impl TargetStatus {
    pub(super) fn before_first(target: &Target) -> Self {
        Self {
            job: target.job.name.clone(),
            instance: target.labels.value("instance").unwrap_or_default().to_owned(),
            url: target.url.to_string(),
            up: None,
            last_error: None,
            last_scrape_ms: None,
            last_duration: Duration::ZERO,
            samples: 0,
            series: 0,
        }
    }

    pub(super) fn after(target: &Target, scraped: &Scraped, at_ms: i64, series: usize) -> Self {
        Self {
            up: Some(scraped.error.is_none()),
            last_error: scraped.error.as_ref().map(ToString::to_string),
            last_scrape_ms: Some(at_ms),
            last_duration: scraped.took,
            samples: scraped.counts.scraped,
            series,
            ..Self::before_first(target)
        }
    }
}
