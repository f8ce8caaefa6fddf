//! How much one tenant's batches may hold in memory on their way to one output.
//!
//! The budget is per tenant and output, so that neither a dead output nor a noisy tenant takes what another one
//! needs.

use parking_lot::Mutex;
use pegel_proto::identity::{OutputName, TenantId};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits stand for KiB: a semaphore counts in 32 bits.
const UNIT_BYTES: usize = 1 << 10;

#[derive(Debug)]
pub(super) struct Budgets {
    units: usize,
    of: Mutex<HashMap<(OutputName, TenantId), Arc<Semaphore>>>,
}

impl Budgets {
    pub(super) fn new(bytes: usize) -> Self {
        Self { units: (bytes / UNIT_BYTES).max(1), of: Mutex::default() }
    }

    /// The budget of a tenant and output; the same for all its streams.
    pub(super) fn of(&self, output: &OutputName, tenant: &TenantId) -> Budget {
        let semaphore = self
            .of
            .lock()
            .entry((output.clone(), tenant.clone()))
            .or_insert_with(|| Arc::new(Semaphore::new(self.units)))
            .clone();
        Budget { units: self.units, semaphore }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Budget {
    units: usize,
    semaphore: Arc<Semaphore>,
}

impl Budget {
    /// Waits for room. What is larger than the whole budget waits until it is alone.
    pub(super) async fn take(self, bytes: usize) -> OwnedSemaphorePermit {
        let units = bytes.div_ceil(UNIT_BYTES).clamp(1, self.units);
        self.semaphore.acquire_many_owned(units as u32).await.expect("the semaphore is never closed")
    }
}
