//! Starting: what is there, what is whole, what is lost.
//!
//! A sealed ledger is believed without opening its database, so that a start costs one small read a segment. A
//! segment without a seal (the one being written at the crash) is read through and compared with its ledger. What
//! recovery may not do: remove anything but segments in which nothing was ever committed.

use super::{Segment, SegmentedSpool};
use crate::spool::ledger::{self, Entry, Ledger, LedgerError};
use crate::spool::record::{self, Assembler};
use crate::spool::store::{SegmentName, StoreError};
use crate::spool::{Loss, LossReason, SpoolError};
use pegel_proto::batch::BatchSeq;

/// What a segment's database turned out to hold.
#[derive(Default)]
struct Scan {
    entries: Vec<Entry>,
    chunks: u32,
    /// Why it was not read to its end.
    damage: Option<String>,
}

impl SegmentedSpool {
    pub(super) fn recover(&mut self) -> Result<(), SpoolError> {
        self.next_number = self.store.highest_number() + 1;
        let names = self.store.list()?;
        let mut found: Vec<(SegmentName, Ledger)> = Vec::new();
        for name in names {
            self.next_number = self.next_number.max(name.number + 1);
            if let Some(ledger) = self.recover_segment(name) {
                found.push((name, ledger));
            }
        }
        // What a later segment begins with was not committed in an earlier one.
        let mut bound = None;
        for (name, ledger) in found.iter_mut().rev() {
            ledger.entries.retain(|e| bound.is_none_or(|bound| e.seq < bound));
            if let Some(first) = ledger.entries.first() {
                bound = Some(first.seq);
            } else if let Err(error) = self.store.remove(*name) {
                tracing::warn!(segment = %name, %error, "an empty segment could not be removed");
            }
        }
        found.retain(|(_, ledger)| !ledger.entries.is_empty());
        self.segments = found.iter().map(|(name, ledger)| Segment::of(*name, ledger)).collect();
        self.newest = self.segments.back().map_or(BatchSeq(0), |s| s.last);
        self.bound_inexact_losses();
        self.quarantined = self.store.quarantined();
        Ok(())
    }

    fn recover_segment(&mut self, name: SegmentName) -> Option<Ledger> {
        let parsed = match self.store.read_ledger(name) {
            Ok(bytes) => ledger::parse(name, &bytes),
            Err(_) => Err(LedgerError::Header),
        };
        let noted = match parsed {
            Ok(ledger) if ledger.sealed => return Some(ledger),
            Ok(ledger) => Some(ledger),
            Err(LedgerError::Header) => None,
            Err(error @ LedgerError::Format(_)) => {
                self.set_aside_unread(name, &error.to_string());
                return None;
            }
        };
        let scan = match self.scan(name) {
            Ok(scan) => scan,
            // The disk refuses for now: believe the ledger; reading will tell.
            Err(error) if !error.is_damage() => {
                tracing::warn!(segment = %name, %error, "a segment could not be examined");
                return noted;
            }
            Err(error) => Scan { damage: Some(error.to_string()), ..Scan::default() },
        };
        self.reconcile(name, noted, scan)
    }

    fn reconcile(&mut self, name: SegmentName, noted: Option<Ledger>, scan: Scan) -> Option<Ledger> {
        let ledger_is_whole = noted.is_some();
        let noted = noted.unwrap_or_default();
        let intact = scan.entries.last().map(|e| e.seq);
        let lost: Vec<(BatchSeq, u64)> = noted
            .entries
            .iter()
            .filter(|e| intact.is_none_or(|intact| e.seq > intact))
            .map(|e| (e.seq, e.records))
            .collect();
        let words = scan.damage.clone().unwrap_or_else(|| "records that were committed are missing".into());
        if scan.entries.is_empty() && (!noted.entries.is_empty() || scan.damage.is_some()) {
            self.report_damage(name, &lost, ledger_is_whole, &words);
            self.set_aside(name, &words);
            return None;
        }
        if !lost.is_empty() || scan.damage.is_some() {
            self.report_damage(name, &lost, ledger_is_whole, &words);
        }
        let ledger = Ledger {
            entries: scan.entries,
            chunks: scan.chunks,
            sealed: true,
            damaged: noted.damaged || !lost.is_empty() || scan.damage.is_some(),
        };
        if !ledger.entries.is_empty()
            && let Err(error) = self.store.replace_ledger(name, &ledger::rewrite(name, &ledger))
        {
            tracing::debug!(segment = %name, %error, "a recovered ledger could not be written");
        }
        Some(ledger)
    }

    fn scan(&mut self, name: SegmentName) -> Result<Scan, StoreError> {
        let mut open = self.store.open(name)?;
        let mut scan = Scan::default();
        let mut assembler = Assembler::default();
        loop {
            let value = match open.read(scan.chunks) {
                Ok(Some(value)) => value,
                Ok(None) => break,
                Err(error) if error.is_damage() => {
                    scan.damage = Some(error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            };
            let Some(bytes) = record::verify(name.number, scan.chunks, &value) else {
                scan.damage = Some(format!("chunk {} fails its CRC", scan.chunks));
                break;
            };
            assembler.push(bytes);
            scan.chunks += 1;
            while let Ok(Some((header, bytes))) = assembler.pop() {
                scan.entries.push(Entry {
                    seq: header.seq,
                    records: header.records,
                    oldest_ms: header.oldest_ms,
                    bytes: bytes.len() as u64,
                });
            }
        }
        // A torn record at the very end belongs to a commit that never ended; nobody was told that it is stored.
        Ok(scan)
    }

    fn report_damage(&mut self, name: SegmentName, lost: &[(BatchSeq, u64)], exact: bool, words: &str) {
        let (first, last) = match (lost.first(), lost.last()) {
            (Some((first, _)), Some((last, _))) => (*first, *last),
            // Where it ends is for `bound_inexact_losses` to say.
            _ if !exact => (BatchSeq(name.first_seq), BatchSeq(u64::MAX)),
            _ => return,
        };
        self.losses.push(Loss {
            reason: LossReason::Damaged,
            first,
            last,
            batches: lost.to_vec(),
            exact,
            words: format!("segment {name}: {words}"),
        });
    }

    fn set_aside_unread(&mut self, name: SegmentName, words: &str) {
        self.report_damage(name, &[], false, words);
        self.set_aside(name, words);
    }

    fn set_aside(&mut self, name: SegmentName, words: &str) {
        tracing::warn!(segment = %name, "spool segment set aside in quarantine/: {words}");
        if let Err(error) = self.store.quarantine(name, words) {
            tracing::warn!(segment = %name, %error, "could not be set aside");
        }
    }

    /// Where nothing of a segment could be read, the segments around it bound what it held.
    fn bound_inexact_losses(&mut self) {
        for loss in self.losses.iter_mut().filter(|l| !l.exact) {
            let held = self.segments.iter();
            if let Some(before) = held.clone().filter(|s| s.first <= loss.first).map(|s| s.last).max() {
                loss.first = loss.first.max(before.next());
            }
            if let Some(after) = held.map(|s| s.first).filter(|first| *first > loss.first).min() {
                loss.last = loss.last.min(BatchSeq(after.0 - 1));
            }
        }
    }
}
