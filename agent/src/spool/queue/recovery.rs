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
            if let Some(ledger) = self.recover_segment(name)? {
                found.push((name, ledger));
            }
        }
        // What a later segment begins with was not committed in an earlier one.
        let mut bound = None;
        for (name, ledger) in found.iter_mut().rev() {
            ledger.entries.retain(|e| bound.is_none_or(|bound| e.seq < bound));
            if let Some(first) = ledger.entries.first() {
                bound = Some(first.seq);
            } else {
                self.leftovers.push(Segment::new(*name));
            }
        }
        found.retain(|(_, ledger)| !ledger.entries.is_empty());
        self.remove_leftovers();
        self.segments = found.iter().map(|(name, ledger)| Segment::of(*name, ledger)).collect();
        self.newest = self.segments.back().map_or(BatchSeq(0), |s| s.last);
        self.bound_losses();
        self.quarantined = self.store.quarantined();
        Ok(())
    }

    fn recover_segment(&mut self, name: SegmentName) -> Result<Option<Ledger>, StoreError> {
        let parsed = match self.store.read_ledger(name) {
            Ok(bytes) => ledger::parse(name, &bytes),
            Err(_) => Err(LedgerError::Header),
        };
        let noted = match parsed {
            Ok(ledger) if ledger.sealed => return Ok(Some(ledger)),
            Ok(ledger) => Some(ledger),
            Err(LedgerError::Header) => None,
            Err(error @ LedgerError::Format(_)) => {
                self.report_damage(name, None, Vec::new(), &error.to_string());
                self.set_aside(name, &error.to_string());
                return Ok(None);
            }
        };
        let scan = match self.scan(name) {
            Ok(scan) => scan,
            // The disk refuses for now. What is not known to be in here could be trimmed with the rest.
            Err(error) if !error.is_damage() => return Err(error),
            // The process ended before the database was there: nothing was committed.
            Err(error) if error.is_missing() && noted.as_ref().is_some_and(|l| l.entries.is_empty()) => {
                Scan::default()
            }
            Err(error) => Scan { damage: Some(error.to_string()), ..Scan::default() },
        };
        Ok(self.reconcile(name, noted, scan))
    }

    fn reconcile(&mut self, name: SegmentName, noted: Option<Ledger>, scan: Scan) -> Option<Ledger> {
        let noted = noted.unwrap_or_default();
        let intact = scan.entries.last().map(|e| e.seq);
        let lost: Vec<(BatchSeq, u64)> = noted
            .entries
            .iter()
            .filter(|e| intact.is_none_or(|intact| e.seq > intact))
            .map(|e| (e.seq, e.records))
            .collect();
        let damaged = !lost.is_empty() || scan.damage.is_some();
        if damaged {
            let words = scan.damage.as_deref().unwrap_or("records that were committed are missing");
            let first = lost.first().map(|(seq, _)| *seq).or(intact.map(BatchSeq::next));
            self.report_damage(name, first, lost, words);
            if scan.entries.is_empty() {
                self.set_aside(name, words);
                return None;
            }
        }
        let mut ledger = Ledger {
            entries: scan.entries,
            chunks: scan.chunks,
            length: noted.length,
            sealed: true,
            damaged: noted.damaged || damaged,
            ahead_of_file: false,
        };
        if !ledger.entries.is_empty() {
            let whole = ledger::rewrite(name, &ledger);
            match self.store.replace_ledger(name, &whole) {
                Ok(()) => ledger.length = whole.len() as u64,
                Err(error) => {
                    ledger.ahead_of_file = true;
                    tracing::debug!(segment = %name, %error, "a recovered ledger could not be written");
                }
            }
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

    /// A ledger without a seal may lack its end after a power cut, so what is lost is at least what it names, and
    /// at most everything up to the next segment (see [`Self::bound_losses`]).
    fn report_damage(
        &mut self,
        name: SegmentName,
        first: Option<BatchSeq>,
        batches: Vec<(BatchSeq, u64)>,
        words: &str,
    ) {
        self.losses.push(Loss {
            reason: LossReason::Damaged,
            first: first.unwrap_or(BatchSeq(name.first_seq)),
            last: BatchSeq(u64::MAX),
            batches,
            total: None,
            exact: false,
            words: format!("segment {name}: {words}"),
        });
    }

    fn set_aside(&mut self, name: SegmentName, words: &str) {
        tracing::warn!(segment = %name, "spool segment set aside in quarantine/: {words}");
        if let Err(error) = self.store.quarantine(name, words) {
            tracing::warn!(segment = %name, %error, "could not be set aside");
        }
    }

    /// The segments behind a loss bound it.
    fn bound_losses(&mut self) {
        for loss in &mut self.losses {
            let after = self.segments.iter().map(|s| s.first).filter(|first| *first > loss.first).min();
            if let Some(after) = after {
                loss.last = loss.last.min(BatchSeq(after.0 - 1));
            }
        }
    }
}
