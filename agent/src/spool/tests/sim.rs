//! A disk that is simulated: every call can be refused or torn, a crash keeps what was synced.

use crate::spool::StoreError;
use crate::spool::store::{OpenSegment, SegmentName, SegmentStore};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing is done.
    Refused,
    /// A part is done, or all of it, and an error comes back.
    Torn,
}

#[derive(Default)]
struct Segment {
    ledger: Vec<u8>,
    synced_ledger_bytes: usize,
    chunks: BTreeMap<u32, Vec<u8>>,
    open: bool,
}

struct State {
    segments: BTreeMap<SegmentName, Segment>,
    quarantine: BTreeMap<SegmentName, Segment>,
    calls: u64,
    /// Calls from this one on fail, so many of them.
    fail_at: u64,
    fail_for: u64,
    fault: Fault,
    crashed: bool,
    rng: StdRng,
    /// Segments whose ledger was damaged or cut: their chunks are not damaged too.
    ledger_hurt: BTreeSet<SegmentName>,
    chunks_hurt: BTreeSet<SegmentName>,
}

/// A handle to the disk, which outlives the spool on it.
#[derive(Clone)]
pub(super) struct SimDisk(Arc<Mutex<State>>);

struct SimSegment {
    disk: SimDisk,
    name: SegmentName,
}

impl SimDisk {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            segments: BTreeMap::new(),
            quarantine: BTreeMap::new(),
            calls: 0,
            fail_at: u64::MAX,
            fail_for: 0,
            fault: Fault::Refused,
            crashed: false,
            rng: StdRng::seed_from_u64(seed),
            ledger_hurt: BTreeSet::new(),
            chunks_hurt: BTreeSet::new(),
        })))
    }

    pub(super) fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    pub(super) fn segments(&self) -> usize {
        self.0.lock().segments.len()
    }

    pub(super) fn fail(&self, in_calls: u64, fail_for: u64, fault: Fault) {
        let mut state = self.0.lock();
        state.fail_at = state.calls + in_calls;
        state.fail_for = fail_for;
        state.fault = fault;
    }

    pub(super) fn heal(&self) {
        self.0.lock().fail_at = u64::MAX;
    }

    /// From here on nothing is done, until [`SimDisk::restart`].
    pub(super) fn crash(&self) {
        self.0.lock().crashed = true;
    }

    /// After a power cut what was not synced may be gone; after a kill it is there.
    pub(super) fn restart(&self, power_cut: bool) {
        let mut state = self.0.lock();
        let State { segments, rng, ledger_hurt, chunks_hurt, crashed, .. } = &mut *state;
        *crashed = false;
        for (name, segment) in segments {
            segment.open = false;
            // Two harms to one segment at once can't be told from a segment that was never written.
            let whole = !chunks_hurt.contains(name);
            if power_cut && whole && segment.synced_ledger_bytes < segment.ledger.len() {
                let keep = rng.random_range(segment.synced_ledger_bytes..=segment.ledger.len());
                segment.ledger.truncate(keep);
                ledger_hurt.insert(*name);
            }
        }
    }

    /// Flips a bit in, or takes away, a random chunk or a piece of a ledger; at most one of the two in a segment.
    pub(super) fn damage(&self) {
        let mut state = self.0.lock();
        let State { segments, rng, ledger_hurt, chunks_hurt, .. } = &mut *state;
        if segments.is_empty() {
            return;
        }
        let at = rng.random_range(0..segments.len());
        let (name, segment) = segments.iter_mut().nth(at).expect("in range");
        if rng.random_bool(0.3) && !chunks_hurt.contains(name) && !segment.ledger.is_empty() {
            ledger_hurt.insert(*name);
            let byte = rng.random_range(0..segment.ledger.len());
            if rng.random_bool(0.5) {
                segment.ledger[byte] ^= 1 << rng.random_range(0..8);
            } else {
                segment.ledger.truncate(byte);
                segment.synced_ledger_bytes = segment.synced_ledger_bytes.min(byte);
            }
        } else if !ledger_hurt.contains(name) && !segment.chunks.is_empty() {
            chunks_hurt.insert(*name);
            let chunk = rng.random_range(0..segment.chunks.len());
            let (number, value) = segment.chunks.iter_mut().nth(chunk).expect("in range");
            let number = *number;
            let byte = rng.random_range(0..value.len());
            match rng.random_range(0..3) {
                0 => value[byte] ^= 1 << rng.random_range(0..8),
                1 => value.truncate(byte),
                _ => drop(segment.chunks.remove(&number)),
            }
        }
    }

    /// Counts a call; tells whether and how it is to fail.
    fn enter(&self) -> (parking_lot::MutexGuard<'_, State>, Option<Fault>) {
        let mut state = self.0.lock();
        state.calls += 1;
        let failing =
            state.calls >= state.fail_at && state.calls < state.fail_at.saturating_add(state.fail_for);
        let fault = if state.crashed { Some(Fault::Refused) } else { failing.then_some(state.fault) };
        (state, fault)
    }
}

fn refused(doing: &'static str) -> StoreError {
    StoreError::io(doing, PathBuf::from("sim"))(io::Error::from_raw_os_error(28))
}

impl SegmentStore for SimDisk {
    fn list(&mut self) -> Result<Vec<SegmentName>, StoreError> {
        let (state, fault) = self.enter();
        if fault.is_some() { Err(refused("listing")) } else { Ok(state.segments.keys().copied().collect()) }
    }

    fn create(&mut self, name: SegmentName, ledger: &[u8]) -> Result<Box<dyn OpenSegment>, StoreError> {
        let (mut state, fault) = self.enter();
        if fault != Some(Fault::Refused) {
            assert!(!state.segments.contains_key(&name), "numbers are used once");
            let segment = Segment { ledger: ledger.to_vec(), open: fault.is_none(), ..Segment::default() };
            state.segments.insert(name, segment);
        }
        drop(state);
        match fault {
            Some(_) => Err(refused("making")),
            None => Ok(Box::new(SimSegment { disk: self.clone(), name })),
        }
    }

    fn open(&mut self, name: SegmentName) -> Result<Box<dyn OpenSegment>, StoreError> {
        let (mut state, fault) = self.enter();
        if fault.is_some() {
            return Err(refused("opening"));
        }
        let Some(segment) = state.segments.get_mut(&name) else {
            return Err(StoreError::Damaged { path: "sim".into(), what: "missing".into() });
        };
        assert!(!segment.open, "a segment is open once");
        segment.open = true;
        drop(state);
        Ok(Box::new(SimSegment { disk: self.clone(), name }))
    }

    fn read_ledger(&mut self, name: SegmentName) -> Result<Vec<u8>, StoreError> {
        let (state, fault) = self.enter();
        match state.segments.get(&name) {
            Some(segment) if fault.is_none() => Ok(segment.ledger.clone()),
            _ => Err(refused("reading")),
        }
    }

    fn append_ledger(&mut self, name: SegmentName, bytes: &[u8], sync: bool) -> Result<(), StoreError> {
        let (mut state, fault) = self.enter();
        let part = state.rng.random_range(0..=bytes.len());
        let Some(segment) = state.segments.get_mut(&name) else { return Err(refused("appending")) };
        match fault {
            Some(Fault::Refused) => Err(refused("appending")),
            Some(Fault::Torn) => {
                segment.ledger.extend_from_slice(&bytes[..part]);
                Err(refused("appending"))
            }
            None => {
                segment.ledger.extend_from_slice(bytes);
                if sync {
                    segment.synced_ledger_bytes = segment.ledger.len();
                }
                Ok(())
            }
        }
    }

    fn replace_ledger(&mut self, name: SegmentName, bytes: &[u8]) -> Result<(), StoreError> {
        let (mut state, fault) = self.enter();
        let Some(segment) = state.segments.get_mut(&name) else { return Err(refused("replacing")) };
        if fault != Some(Fault::Refused) {
            segment.ledger = bytes.to_vec();
            segment.synced_ledger_bytes = bytes.len();
        }
        if fault.is_some() { Err(refused("replacing")) } else { Ok(()) }
    }

    fn remove(&mut self, name: SegmentName) -> Result<(), StoreError> {
        let (mut state, fault) = self.enter();
        if fault != Some(Fault::Refused) {
            state.segments.remove(&name);
        }
        if fault.is_some() { Err(refused("removing")) } else { Ok(()) }
    }

    fn quarantine(&mut self, name: SegmentName, _: &str) -> Result<(), StoreError> {
        let (mut state, fault) = self.enter();
        if fault != Some(Fault::Refused)
            && let Some(segment) = state.segments.remove(&name)
        {
            state.quarantine.insert(name, segment);
        }
        if fault.is_some() { Err(refused("setting aside")) } else { Ok(()) }
    }

    fn quarantined(&mut self) -> usize {
        self.0.lock().quarantine.len()
    }

    fn highest_number(&mut self) -> u64 {
        let state = self.0.lock();
        state.segments.keys().chain(state.quarantine.keys()).map(|n| n.number).max().unwrap_or(0)
    }

    fn check_space(&mut self, _: u64) -> Result<(), StoreError> {
        let (_, fault) = self.enter();
        if fault.is_some() { Err(refused("asking the free space of")) } else { Ok(()) }
    }
}

impl OpenSegment for SimSegment {
    fn write(&mut self, first: u32, chunks: Vec<Vec<u8>>) -> Result<(), StoreError> {
        let (mut state, fault) = self.disk.enter();
        let keep = match fault {
            None => chunks.len(),
            Some(Fault::Refused) => 0,
            Some(Fault::Torn) => state.rng.random_range(0..=chunks.len()),
        };
        let Some(segment) = state.segments.get_mut(&self.name) else { return Err(refused("writing")) };
        segment.chunks.extend((first..).zip(chunks).take(keep));
        if fault.is_some() { Err(refused("writing")) } else { Ok(()) }
    }

    fn read(&mut self, chunk: u32) -> Result<Option<Vec<u8>>, StoreError> {
        let (state, fault) = self.disk.enter();
        if fault.is_some() {
            return Err(refused("reading"));
        }
        Ok(state.segments.get(&self.name).and_then(|s| s.chunks.get(&chunk).cloned()))
    }
}

impl Drop for SimSegment {
    fn drop(&mut self) {
        if let Some(segment) = self.disk.0.lock().segments.get_mut(&self.name) {
            segment.open = false;
        }
    }
}
