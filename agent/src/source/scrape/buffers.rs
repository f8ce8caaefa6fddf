//! Room for bodies, handed from scrape to scrape instead of being allocated for each.

use super::assembly::Scratch;
use parking_lot::Mutex;

/// How many are kept. More are in use only while that many scrapes run at once.
const KEPT: usize = 2;

/// The largest body whose room is kept, in bytes; one exporter of tens of megabytes is not to set the agent's size.
const KEPT_BYTES: usize = 1 << 20;

/// Room for one scrape.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) body: Vec<u8>,
    pub(super) scratch: Scratch,
}

#[derive(Debug, Default)]
pub(super) struct BufferPool(Mutex<Vec<Buffers>>);

impl BufferPool {
    pub(super) fn take(&self) -> Buffers {
        self.0.lock().pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, buffers: Buffers) {
        let mut kept = self.0.lock();
        if kept.len() < KEPT && buffers.body.capacity() <= KEPT_BYTES {
            kept.push(buffers);
        }
    }
}
