//! One at a time for each key: who comes later waits until the permit of the one before is dropped.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who has a turn, and who waits for one.
#[derive(Debug)]
pub struct Turns<K> {
    taken: Mutex<HashMap<K, Weak<Semaphore>>>,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { taken: Mutex::default() }
    }
}

impl<K: Eq + Hash> Turns<K> {
    /// Waits for the key's turn. Those who wait get it in the order in which they came.
    pub async fn take(&self, key: K) -> OwnedSemaphorePermit {
        let turns = {
            let mut taken = self.taken.lock();
            if let Some(turns) = taken.get(&key).and_then(Weak::upgrade) {
                turns
            } else {
                // Only keys that somebody has or waits for are kept.
                taken.retain(|_, turns| turns.strong_count() > 0);
                let turns = Arc::new(Semaphore::new(1));
                taken.insert(key, Arc::downgrade(&turns));
                turns
            }
        };
        turns.acquire_owned().await.expect("nothing closes the semaphore")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_key_has_one_turn_and_is_forgotten_after_it() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        assert!(turns.take("a").now_or_never().is_none());
        let other = turns.take("b").await;
        drop(first);
        let again = turns.take("a").await;
        drop((again, other));
        drop(turns.take("c").await);
        assert_eq!(turns.taken.lock().len(), 1);
    }
}
