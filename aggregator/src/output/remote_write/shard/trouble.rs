//! Waiting after failures, and parking an output that takes nothing at all.

use super::{Parked, Shard, Step};
use crate::fanout::Verdict;
use rand::Rng as _;
use std::collections::HashMap;
use std::time::{Duration, Instant};

impl Shard {
    /// Nothing was ever accepted, and the refusals give no reason: more likely a wrong URL than wrong records.
    pub(super) fn park_suspects(&mut self, now: Instant) -> Step {
        let reason = self.suspects[0].message.clone();
        for suspect in std::mem::take(&mut self.suspects).into_iter().rev() {
            self.left.push(suspect.piece);
        }
        self.park(reason, now);
        Step::Wait(self.not_before)
    }

    pub(super) fn park(&mut self, reason: String, now: Instant) {
        self.not_before = Some(now + self.jittered(self.settings.park_probe));
        if self.parked.is_some() {
            return;
        }
        tracing::warn!(output = self.tally.output(), tenant = self.tally.tenant(), reason, "output parked");
        let mut told = HashMap::new();
        for batch in self.batches.values() {
            told.entry(batch.session).or_insert_with(|| {
                batch.account.tell(Verdict::Parked(reason.clone()));
                batch.account.reply().clone()
            });
        }
        self.tally.parked(true);
        self.parked = Some(Parked { reason, told });
    }

    pub(super) fn in_trouble(&mut self, reason: String) {
        if self.trouble.is_none() {
            tracing::warn!(
                output = self.tally.output(),
                tenant = self.tally.tenant(),
                reason,
                "output fails"
            );
        }
        self.trouble = Some(reason);
    }

    pub(super) fn well(&mut self) {
        if let Some(parked) = self.parked.take() {
            tracing::info!(output = self.tally.output(), tenant = self.tally.tenant(), "output resumed");
            self.tally.parked(false);
            for reply in parked.told.into_values() {
                let _ = reply.0.send(Verdict::Resumed);
            }
        }
        if self.trouble.take().is_some() {
            tracing::info!(output = self.tally.output(), tenant = self.tally.tenant(), "output works again");
        }
    }

    /// Doubles with each failure; half of it is by chance, so that shards do not come back together.
    pub(super) fn backoff(&mut self, after: Option<Duration>) -> Duration {
        if let Some(after) = after {
            let wait = after.clamp(self.settings.min_backoff, self.settings.max_retry_after);
            // Never earlier than asked for.
            wait + self.random.random_range(Duration::ZERO..=self.settings.min_backoff)
        } else {
            let wait = self.settings.min_backoff.saturating_mul(1 << self.failures.min(20));
            self.jittered(wait.min(self.settings.max_backoff))
        }
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        wait / 2 + self.random.random_range(Duration::ZERO..=wait / 2)
    }
}
