//! What is wrong with an output, and since when.

use crate::status::words::long_span;
use std::time::Instant;

/// A trouble that goes on until it is over, whatever its latest reason.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    /// The latest reason.
    pub reason: String,
    /// When it began.
    pub since: Instant,
}

impl Trouble {
    /// It begins, or goes on with another reason. Whether it begins.
    pub fn befall(trouble: &mut Option<Self>, reason: String, now: Instant) -> bool {
        let since = trouble.as_ref().map(|trouble| trouble.since);
        *trouble = Some(Self { reason, since: since.unwrap_or(now) });
        since.is_none()
    }

    /// For people; the words change once a minute at most.
    pub fn told(&self, now: Instant) -> String {
        let lasts = now.saturating_duration_since(self.since).as_millis() as i64;
        format!("{} (for {})", self.reason.trim().trim_end_matches('.'), long_span(lasts))
    }
}
