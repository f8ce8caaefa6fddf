//! Random sequences against the twin in memory, with a fault at every call, crashes, power cuts and damage.
//!
//! What is checked: every batch that a commit reported as stored is read back, in order and bit for bit, unless it
//! was trimmed or a loss names it; nothing is read that was not appended; and without damage nothing is lost and
//! the twin reads the same.

use super::sim::{Fault, SimDisk};
use super::*;
use crate::spool::memory::MemorySpool;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

/// How many sequences of each kind by default.
const ROUNDS: u64 = 40;

/// The seeds: the same each time, so that a change is judged by what it changes. `PEGEL_ROUNDS` asks for more of them,
/// `PEGEL_SEED` for one other, both for so many from another on.
fn seeds() -> std::ops::Range<u64> {
    let number = |name| {
        let text: Option<String> = std::env::var(name).ok();
        text.map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    };
    let (first, asked) = (number("PEGEL_SEED"), number("PEGEL_ROUNDS"));
    let rounds = asked.unwrap_or(if first.is_some() { 1 } else { ROUNDS });
    let first = first.unwrap_or(0);
    first..first.saturating_add(rounds)
}

struct Model {
    disk: SimDisk,
    settings: Settings,
    spool: Option<SegmentedSpool>,
    encoder: CountingEncoder,
    twin: MemorySpool,
    twin_encoder: CountingEncoder,
    /// Batches reported as stored and not trimmed: records and bytes.
    stored: BTreeMap<u64, u64>,
    /// Staged in a commit that failed; may turn up after a restart.
    maybe: BTreeMap<u64, (u64, usize)>,
    lost: BTreeSet<u64>,
    inexact: Vec<(u64, u64)>,
    /// Batches that the caller still holds and appends again.
    pending: Vec<(u64, u64, usize)>,
    next_seq: u64,
    acknowledged: u64,
    damaged: bool,
}

impl Model {
    fn new(seed: u64, quota_bytes: u64) -> Self {
        let settings = Settings { quota_bytes, segment_bytes: 40 << 10, ..settings(Path::new("sim")) };
        let mut model = Self {
            disk: SimDisk::new(seed),
            settings,
            spool: None,
            encoder: CountingEncoder::default(),
            twin: MemorySpool::new(u64::MAX / 16, WhenFull::Wait),
            twin_encoder: CountingEncoder::default(),
            stored: BTreeMap::new(),
            maybe: BTreeMap::new(),
            lost: BTreeSet::new(),
            inexact: Vec::new(),
            pending: Vec::new(),
            next_seq: 1,
            acknowledged: 0,
            damaged: false,
        };
        model.open();
        model
    }

    fn open(&mut self) {
        self.spool = SegmentedSpool::over(Box::new(self.disk.clone()), self.settings.clone()).ok();
        self.take_losses();
    }

    fn take_losses(&mut self) {
        let Some(spool) = &mut self.spool else { return };
        for loss in spool.take_losses() {
            self.lost.extend(loss.batches.iter().map(|(seq, _)| seq.0));
            for (seq, records) in &loss.batches {
                assert!((loss.first..=loss.last).contains(seq));
                if let Some(stored) = self.stored.get(&seq.0) {
                    assert_eq!(stored, records, "a loss counts records right");
                }
            }
            if !loss.exact {
                self.inexact.push((loss.first.0, loss.last.0));
            }
        }
    }

    fn cut(&mut self, records: u64, bytes: usize) {
        self.pending.push((self.next_seq, records, bytes));
        self.next_seq += 1;
    }

    fn append_and_commit(&mut self) {
        let Some(spool) = &mut self.spool else { return };
        let mut up_to = 0;
        for (seq, records, bytes) in &self.pending {
            match self.encoder.append(spool, *seq, *records, *bytes) {
                Ok(()) => up_to = *seq,
                Err(SpoolError::Full { .. } | SpoolError::Storage(_)) => break,
                Err(other) => panic!("{other}"),
            }
        }
        let stored_up_to = match spool.commit() {
            Ok(committed) if committed.failed.is_none() => up_to,
            Ok(committed) => committed.up_to.map_or(0, |seq| seq.0),
            Err(_) => 0,
        };
        for (seq, records, bytes) in std::mem::take(&mut self.pending) {
            if seq <= stored_up_to {
                self.stored.insert(seq, records);
                self.maybe.remove(&seq);
                self.twin_encoder.append(&mut self.twin, seq, records, bytes).unwrap();
            } else {
                if seq <= up_to {
                    self.maybe.insert(seq, (records, bytes));
                }
                self.pending.push((seq, records, bytes));
            }
        }
        self.twin.commit().unwrap();
        self.take_losses();
    }

    fn trim(&mut self, up_to: u64) {
        let Some(spool) = &mut self.spool else { return };
        self.acknowledged = self.acknowledged.max(up_to);
        let _ = spool.trim(BatchSeq(self.acknowledged));
        self.twin.trim(BatchSeq(self.acknowledged)).unwrap();
        self.stored.retain(|seq, _| *seq > self.acknowledged);
    }

    /// Reads everything above a place and checks it.
    fn check(&mut self, from: u64) {
        let Some(spool) = &mut self.spool else { return };
        let mut reader = CheckingReader::new(from);
        let mut read = BTreeMap::new();
        for _ in 0..100_000 {
            match reader.next(spool) {
                Ok(Some((seq, records))) => {
                    assert!(read.last_key_value().is_none_or(|(last, _)| *last < seq), "in order");
                    read.insert(seq, records);
                }
                Ok(None) => break,
                // Faults end by themselves.
                Err(_) => {
                    let on = read.last_key_value().map_or(from, |(last, _)| last + 1);
                    reader = CheckingReader::new(on);
                }
            }
        }
        self.take_losses();
        for (seq, records) in &read {
            let known = self.stored.get(seq).or(self.maybe.get(seq).map(|(records, _)| records));
            assert_eq!(known, Some(records), "batch {seq} was read and is no stored one");
        }
        for seq in self.stored.keys().filter(|seq| **seq >= from && !read.contains_key(seq)) {
            let bounded = self.inexact.iter().any(|(first, last)| (first..=last).contains(&seq));
            assert!(self.lost.contains(seq) || bounded, "batch {seq} is gone without a word");
            assert!(self.damaged || self.settings.when_full == WhenFull::DropOldest);
        }
        if !self.damaged && self.settings.when_full == WhenFull::Wait {
            let mut twin = CheckingReader::new(from);
            let twin: Vec<u64> = twin.all(&mut self.twin);
            let stored: Vec<u64> = read.keys().copied().filter(|seq| self.stored.contains_key(seq)).collect();
            assert_eq!(stored, twin, "the twin reads the same");
        }
        let held = self.spool.as_mut().expect("open").held_above(BatchSeq(from - 1));
        if let (Ok(held), false) = (held, self.damaged) {
            assert_eq!(held.batches, read.len() as u64);
        }
    }

    fn restart(&mut self, power_cut: bool) {
        self.disk.crash();
        self.spool = None;
        self.disk.restart(power_cut);
        // What the agent held in memory is gone; numbers are never used again.
        self.pending.clear();
        self.encoder = CountingEncoder::default();
        self.open();
    }

    fn finish(&mut self) {
        self.disk.heal();
        if self.spool.is_none() {
            self.open();
        }
        self.append_and_commit();
        assert!(
            self.pending.is_empty() || self.settings.when_full == WhenFull::Wait,
            "a healed disk takes all"
        );
        self.check(self.acknowledged + 1);
        self.trim(u64::MAX - 1);
        assert_eq!(self.disk.segments(), 0, "nothing is left once all is trimmed");
    }
}

fn random_sequence(seed: u64, faults: bool, damage: bool, when_full: WhenFull) {
    let mut rng = StdRng::seed_from_u64(seed);
    let quota = if when_full == WhenFull::Wait { 1 << 30 } else { 4 << 20 };
    let mut model = Model::new(seed, quota);
    model.settings.when_full = when_full;
    model.settings.segment_bytes = 40 << 10;
    model.spool = None;
    model.open();
    for _ in 0..120 {
        match rng.random_range(0..100) {
            0..45 => {
                for _ in 0..rng.random_range(1..6) {
                    let bytes = [10, 300, 5_000, 16_300, 40_000][rng.random_range(0..5)];
                    model.cut(rng.random_range(0..50), bytes + rng.random_range(0..200));
                }
                model.append_and_commit();
            }
            45..60 => {
                let highest = model.next_seq;
                let up_to = rng.random_range(model.acknowledged..=highest.max(model.acknowledged));
                model.trim(up_to.min(model.next_seq.saturating_sub(1)));
            }
            60..75 => {
                let from = model.acknowledged + 1 + rng.random_range(0..4);
                model.check(from);
            }
            75..83 => model.restart(rng.random_bool(0.5)),
            83..95 if faults => {
                let fault = if rng.random_bool(0.5) { Fault::Torn } else { Fault::Refused };
                model.disk.fail(rng.random_range(1..12), rng.random_range(1..4), fault);
            }
            95..100 if damage => {
                model.damaged = true;
                model.disk.damage();
            }
            _ => {}
        }
        if model.spool.is_none() {
            model.open();
        }
    }
    model.finish();
}

fn campaign(name: &str, run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let seeds = seeds();
    println!("{name}: seeds {seeds:?}");
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("{name} failed; repeat with PEGEL_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn with_crashes_and_power_cuts_the_spool_reads_as_its_twin() {
    campaign("crashes", |seed| random_sequence(seed, false, false, WhenFull::Wait));
}

#[test]
fn with_faults_at_random_calls_nothing_that_was_stored_is_lost() {
    campaign("faults", |seed| random_sequence(seed, true, false, WhenFull::Wait));
}

#[test]
fn with_damage_every_stored_batch_is_read_or_counted_as_lost() {
    campaign("damage", |seed| random_sequence(seed, false, true, WhenFull::Wait));
}

#[test]
fn with_a_small_quota_every_stored_batch_is_read_or_counted_as_dropped() {
    // Faults or damage, not both: a batch that could not be noted and is then damaged leaves no trace.
    campaign("quota", |seed| random_sequence(seed, seed % 2 == 0, seed % 2 == 1, WhenFull::DropOldest));
}

/// The same short life of a spool with a fault at each of its calls in turn.
#[test]
fn a_fault_at_every_single_call_loses_nothing() {
    let script = |fault: Option<(u64, u64, Fault)>| -> u64 {
        let mut model = Model::new(1, 1 << 30);
        if let Some((at, length, kind)) = fault {
            model.disk.fail(at, length, kind);
        }
        for round in 0..12 {
            for _ in 0..3 {
                model.cut(round + 1, 9_000);
            }
            model.append_and_commit();
            model.check(model.acknowledged + 1);
            if round % 4 == 2 {
                model.trim(model.next_seq - 8);
            }
            if round == 6 || round == 9 {
                model.restart(round == 9);
            }
            if model.spool.is_none() {
                model.open();
            }
        }
        let calls = model.disk.calls();
        model.finish();
        calls
    };
    let calls = script(None);
    for at in 1..=calls {
        for length in [1, 4] {
            for kind in [Fault::Refused, Fault::Torn] {
                if let Err(panic) = std::panic::catch_unwind(|| script(Some((at, length, kind)))) {
                    eprintln!("with {length} faults ({kind:?}) from call {at} of {calls}");
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
    println!("a fault at each of {calls} calls, refused and torn, alone and four in a row");
}
