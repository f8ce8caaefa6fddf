//! Waiting after failures, what is put aside for a stream's limit, and parking an output that takes nothing at all.

use super::{Aside, Parked, Piece, Shard, Step};
use crate::fanout::Verdict;
use crate::output::trouble::Trouble;
use rand::Rng as _;
use std::collections::HashMap;
use std::time::{Duration, Instant};

impl Shard {
    /// Sends a piece again after a wait.
    pub(super) fn try_again(&mut self, piece: Piece, after: Option<Duration>, reason: String, now: Instant) {
        self.left.push(piece);
        self.wait(after, reason, now);
    }

    /// Sends nothing for a while.
    pub(super) fn wait(&mut self, after: Option<Duration>, reason: String, now: Instant) {
        self.tally.retry();
        let wait = self.backoff(after, self.failures);
        self.not_before = Some(now + wait);
        self.failures = self.failures.saturating_add(1);
        self.in_trouble(reason, now);
    }

    /// Puts a piece aside for its stream's limit; only its session waits.
    pub(super) fn put_aside(&mut self, mut piece: Piece, reason: String, now: Instant) {
        self.tally.retry();
        let due = now + self.backoff(None, piece.tries);
        piece.tries = piece.tries.saturating_add(1);
        self.aside.push(Aside { due, piece });
        self.in_trouble(reason, now);
    }

    /// Puts a piece aside for its stream's rate. More than the stream's burst at once never passes, however long one
    /// waits: after some tries it is made smaller.
    pub(super) fn put_aside_for_rate(&mut self, piece: Piece, reason: String, now: Instant) {
        if piece.len() > 1 && piece.tries >= 2 && piece.tries.is_multiple_of(2) {
            self.tally.split();
            let (first, second) = piece.split();
            self.put_aside(first, reason.clone(), now);
            self.put_aside(second, reason, now);
        } else {
            self.put_aside(piece, reason, now);
        }
    }

    /// Takes what was put aside and is due. Says whether there was anything.
    pub(super) fn take_from_aside(&mut self, now: Instant) -> bool {
        let Some(at) = self.aside.iter().position(|aside| aside.due <= now) else { return false };
        let aside = self.aside.remove(at);
        self.left.push(aside.piece);
        true
    }

    /// Nothing was ever accepted, and the refusals give no reason: more likely a wrong URL than wrong entries.
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
        Trouble::befall(&mut self.trouble, reason.clone(), now);
        self.parked = Some(Parked { reason, told });
    }

    pub(super) fn in_trouble(&mut self, reason: String, now: Instant) {
        let (output, tenant) = (self.tally.output(), self.tally.tenant());
        if self.trouble.is_none() {
            tracing::warn!(output, tenant, reason, "output fails");
        }
        Trouble::befall(&mut self.trouble, reason, now);
    }

    pub(super) fn well(&mut self) {
        if let Some(parked) = self.parked.take() {
            tracing::info!(output = self.tally.output(), tenant = self.tally.tenant(), "output resumed");
            self.tally.parked(false);
            for reply in parked.told.into_values() {
                let _ = reply.0.send(Verdict::Resumed);
            }
        }
        if self.aside.is_empty() && self.trouble.take().is_some() {
            tracing::info!(output = self.tally.output(), tenant = self.tally.tenant(), "output works again");
        }
    }

    /// Doubles with each failure; half of it is by chance, so that shards do not come back together.
    pub(super) fn backoff(&mut self, after: Option<Duration>, failures: u32) -> Duration {
        if let Some(after) = after {
            let wait = after.clamp(self.settings.min_backoff, self.settings.max_retry_after);
            // Never earlier than asked for.
            wait + self.random.random_range(Duration::ZERO..=self.settings.min_backoff)
        } else {
            let wait = self.settings.min_backoff.saturating_mul(1 << failures.min(20));
            self.jittered(wait.min(self.settings.max_backoff))
        }
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        wait / 2 + self.random.random_range(Duration::ZERO..=wait / 2)
    }
}
