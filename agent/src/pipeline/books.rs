//! The balance of one output, in records.

use pegel_proto::batch::{Outcome, RejectReason};
use std::collections::BTreeMap;

/// Why records never reached an output, other than that it refused them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// The buffer's quota was full and its oldest data gave way.
    QuotaOldest,
    /// The buffer was full and its policy keeps the oldest: what was collected last gave way.
    QuotaNewest,
    /// The disk took nothing (full, read-only, failing) and the memory front was at its budget.
    BufferUnavailable,
    /// A part of the buffer was damaged; it was set aside in quarantine.
    Damaged,
    /// The aggregator announced this output no longer, and its time to come back is over.
    OutputRetired,
    /// The agent ended while the disk took nothing: the front could not be saved.
    Shutdown,
    /// The intake was full: the machine did not keep up.
    IntakeFull,
}

impl DropReason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::QuotaOldest,
        Self::QuotaNewest,
        Self::BufferUnavailable,
        Self::Damaged,
        Self::OutputRetired,
        Self::Shutdown,
        Self::IntakeFull,
    ];

    /// The reason's name as a label value.
    pub fn name(self) -> &'static str {
        match self {
            Self::QuotaOldest => "quota_oldest",
            Self::QuotaNewest => "quota_newest",
            Self::BufferUnavailable => "buffer_unavailable",
            Self::Damaged => "damaged",
            Self::OutputRetired => "output_retired",
            Self::Shutdown => "shutdown",
            Self::IntakeFull => "intake_full",
        }
    }

    /// The reason of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }
}

/// One output's books. `in_front` and `spooled` are what is held now; all else are totals of the agent epoch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Books {
    /// Records collected for this output.
    pub collected: u64,
    /// Records that the backend accepted.
    pub delivered: u64,
    /// Records that a re-send found there already.
    pub held_already: u64,
    /// Records in memory that are not on disk.
    pub in_front: u64,
    /// Records on disk that are not settled.
    pub spooled: u64,
    /// Records dropped, by reason.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Records refused, by reason.
    pub rejected: BTreeMap<RejectReason, u64>,
    /// An upper bound of the records lost by kills and power cuts.
    pub lost_in_crash: u64,
}

impl Books {
    /// Everything but `collected`; the books balance when it equals `collected`.
    pub fn accounted(&self) -> u64 {
        self.settled() + self.in_front + self.spooled
    }

    /// What is done with, one way or another.
    pub fn settled(&self) -> u64 {
        self.delivered
            + self.held_already
            + self.dropped.values().sum::<u64>()
            + self.rejected.values().sum::<u64>()
            + self.lost_in_crash
    }

    /// Whether the books balance.
    pub fn balanced(&self) -> bool {
        self.collected == self.accounted()
    }

    pub(super) fn drop_records(&mut self, reason: DropReason, records: u64) {
        if records > 0 {
            *self.dropped.entry(reason).or_default() += records;
        }
    }

    pub(super) fn settle(&mut self, outcome: &Outcome) {
        self.delivered += outcome.delivered;
        self.held_already += outcome.held_already;
        for rejection in &outcome.rejections {
            *self.rejected.entry(rejection.reason).or_default() += rejection.count();
        }
    }

    /// Continues after a crash from the totals that were persisted last: what those said was collected and is
    /// neither settled nor on disk now was in memory, and is the bound of what was lost; what is on disk beyond
    /// them was collected after they were written. Where sources read again (`rereads`), what was in memory is not
    /// lost: it will be collected once more. What was on disk will not, so that is lost if it is gone: totals are
    /// persisted before what is settled is removed from the disk.
    #[must_use]
    pub fn resumed(mut self, spooled_now: u64, rereads: bool) -> Self {
        let gone_from_disk = self.spooled.saturating_sub(spooled_now);
        self.in_front = 0;
        self.spooled = spooled_now;
        let unaccounted = self.collected.saturating_sub(self.accounted());
        self.lost_in_crash += if rereads { gone_from_disk } else { unaccounted };
        self.collected = self.accounted();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_memory_at_a_crash_is_the_bound_of_the_loss() {
        let before = Books { collected: 100, delivered: 60, in_front: 30, spooled: 10, ..Books::default() };
        let after = before.clone().resumed(25, false);
        assert_eq!(after.lost_in_crash, 15);
        assert!(after.balanced());
        let reread = before.resumed(25, true);
        assert_eq!((reread.collected, reread.lost_in_crash), (85, 0));
    }

    #[test]
    fn what_was_on_disk_and_is_gone_is_lost_though_sources_read_again() {
        let before = Books { collected: 100, delivered: 60, in_front: 30, spooled: 10, ..Books::default() };
        let after = before.resumed(4, true);
        assert_eq!((after.collected, after.spooled, after.lost_in_crash), (70, 4, 6));
        assert!(after.balanced());
    }

    #[test]
    fn what_was_spooled_after_the_last_totals_was_collected() {
        let before = Books { collected: 100, delivered: 100, ..Books::default() };
        let after = before.resumed(40, false);
        assert_eq!((after.collected, after.lost_in_crash), (140, 0));
        assert!(after.balanced());
    }
}
