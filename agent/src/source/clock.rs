//! Sample times: the wall clock at start plus monotonic time, re-anchored on a step of the wall clock.

/// Gives the time of a scrape. (Skeleton; the scrape source's branch writes the rule for steps.)
#[derive(Debug, Clone, Default)]
pub struct SampleClock {}

impl SampleClock {
    /// Now, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64)
    }
}
