//! How many runs may go on at once, and that those that hang leave room to the others.

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Descriptors that are left to the rest of the agent: its sockets, spool segments and /proc files, several times
/// over.
const OTHER_DESCRIPTORS: u64 = 256;

/// A run has one connection at a time, and while it looks a name up one socket for that. Runs of programs, of which a
/// machine has few at once, have three.
const DESCRIPTORS_A_RUN: u64 = 2;

/// The right to run; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot(#[expect(dead_code, reason = "held for its drop")] [Option<OwnedSemaphorePermit>; 2]);

/// See the module.
#[derive(Debug)]
pub(super) struct Slots {
    sizes: Mutex<usize>,
    all: Arc<Semaphore>,
    /// Targets whose last run ended by its time limit may take three slots of four, so that however many hang, one
    /// of four is there for those that answer.
    slow: Arc<Semaphore>,
}

impl Slots {
    /// So many slots, as far as the process may open descriptors.
    pub(super) fn new(wanted: usize) -> Self {
        let size = affordable(wanted);
        Self {
            sizes: Mutex::new(size),
            all: Arc::new(Semaphore::new(size)),
            slow: Arc::new(Semaphore::new(slow_share(size))),
        }
    }

    /// Takes a slot, and says whether it had to be waited for.
    pub(super) async fn take(&self, slow: bool) -> (Slot, bool) {
        let mut waited = false;
        let mut of_slow = None;
        if slow {
            let (permit, late) = acquire(&self.slow).await;
            waited |= late;
            of_slow = Some(permit);
        }
        let (permit, late) = acquire(&self.all).await;
        (Slot([of_slow, Some(permit)]), waited | late)
    }

    /// Goes on with another number of slots. Fewer take effect as runs end.
    pub(super) fn resize(&self, wanted: usize) {
        let mut size = self.sizes.lock();
        let new = affordable(wanted);
        for (semaphore, before, after) in
            [(&self.all, *size, new), (&self.slow, slow_share(*size), slow_share(new))]
        {
            if after >= before {
                semaphore.add_permits(after - before);
            } else {
                let missing = before - after - semaphore.forget_permits(before - after);
                if missing > 0 {
                    let semaphore = semaphore.clone();
                    tokio::spawn(async move {
                        if let Ok(permits) = semaphore.acquire_many_owned(missing as u32).await {
                            permits.forget();
                        }
                    });
                }
            }
        }
        *size = new;
    }
}

fn slow_share(size: usize) -> usize {
    (size * 3 / 4).max(1)
}

async fn acquire(semaphore: &Arc<Semaphore>) -> (OwnedSemaphorePermit, bool) {
    if let Ok(permit) = semaphore.clone().try_acquire_owned() {
        return (permit, false);
    }
    let permit = semaphore.clone().acquire_owned().await;
    (permit.expect("nothing closes the semaphore"), true)
}

/// As many of the wanted slots as there are descriptors for, after the soft limit was raised to what they take.
fn affordable(wanted: usize) -> usize {
    let needed = wanted as u64 * DESCRIPTORS_A_RUN + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if enough(limit.current) {
        return wanted;
    }
    let raised = if enough(limit.maximum) { Some(needed) } else { limit.maximum };
    let current = match setrlimit(Resource::Nofile, Rlimit { current: raised, maximum: limit.maximum }) {
        Ok(()) => raised,
        Err(_) => limit.current,
    };
    let Some(current) = current.filter(|current| *current < needed) else { return wanted };
    let slots = (current.saturating_sub(OTHER_DESCRIPTORS) / DESCRIPTORS_A_RUN).max(1) as usize;
    tracing::warn!(
        wanted,
        slots,
        descriptors = current,
        "fewer checks run at once than probes.max_running allows: the process may not open more files; raise its \
         limit (LimitNOFILE= in the unit)"
    );
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn however_many_hang_one_of_four_slots_is_left() {
        let slots = Slots::new(8);
        let mut held = Vec::new();
        for _ in 0..6 {
            held.push(slots.take(true).await.0);
        }
        assert!(slots.take(true).now_or_never().is_none());
        for _ in 0..2 {
            let (slot, waited) = slots.take(false).await;
            assert!(!waited);
            held.push(slot);
        }
        assert!(slots.take(false).now_or_never().is_none());
        held.truncate(5);
        assert!(!slots.take(true).await.1);
    }

    #[tokio::test]
    async fn a_smaller_number_takes_effect_as_runs_end() {
        let slots = Slots::new(4);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(slots.take(false).await.0);
        }
        slots.resize(2);
        // What is too many is taken back by a task as soon as it is given back.
        tokio::task::yield_now().await;
        held.truncate(2);
        tokio::task::yield_now().await;
        assert!(slots.take(false).now_or_never().is_none());
        held.pop();
        slots.take(false).await;
        slots.resize(4);
        held.push(slots.take(false).await.0);
        held.push(slots.take(false).await.0);
        assert!(!slots.take(false).await.1);
    }
}
