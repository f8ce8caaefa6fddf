//! What others push: a bounded hand-over from those who receive to the one who shapes, and from him to delivery.

use super::checkpoints::Checkpoints;
use crate::intake::LogIntake;
use pegel_proto::batch::Logs;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// How often a thread that waits for delivery looks whether the agent ends.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Delivery has ended, or the agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended;

/// Hands a block over from a thread; waits while delivery has no room, until the end of the agent. What was not handed
/// over then stays an intent. With `checkpoints`, it waits too while they can't be written: for what can be read again.
pub(super) fn hand_over(
    intake: &LogIntake,
    logs: Logs,
    checkpoints: Option<&Arc<Checkpoints>>,
    shutdown: &CancellationToken,
) -> Result<(), Ended> {
    let mut logs = logs;
    loop {
        if checkpoints.is_none_or(Checkpoints::take_records) {
            match intake.try_offer(logs) {
                Ok(()) => return Ok(()),
                Err(back) => logs = back,
            }
        }
        if shutdown.is_cancelled() {
            return Err(Ended);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A queue that is bounded in bytes.
pub(super) fn queue<T>(bytes: usize) -> (Inlet<T>, Outlet<T>) {
    let room = Arc::new(Semaphore::new(bytes));
    let (sender, receiver) = mpsc::unbounded_channel();
    (Inlet { sender, room: room.clone(), bytes }, Outlet { receiver, room })
}

/// Where things are put in.
pub(super) struct Inlet<T> {
    sender: mpsc::UnboundedSender<(T, usize)>,
    room: Arc<Semaphore>,
    bytes: usize,
}

impl<T> Clone for Inlet<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), room: self.room.clone(), bytes: self.bytes }
    }
}

impl<T> Inlet<T> {
    /// Puts something in; waits for room.
    pub(super) async fn push(&self, thing: T, bytes: usize) -> Result<(), Ended> {
        let bytes = bytes.min(self.bytes);
        self.room.acquire_many(bytes as u32).await.map_err(|_| Ended)?.forget();
        self.sender.send((thing, bytes)).map_err(|_| Ended)
    }

    /// Puts something in if there is room; whether there was.
    pub(super) fn try_push(&self, thing: T, bytes: usize) -> bool {
        let bytes = bytes.min(self.bytes);
        let Ok(permit) = self.room.try_acquire_many(bytes as u32) else { return false };
        permit.forget();
        self.sender.send((thing, bytes)).is_ok()
    }
}

/// Where they come out.
pub(super) struct Outlet<T> {
    receiver: mpsc::UnboundedReceiver<(T, usize)>,
    room: Arc<Semaphore>,
}

impl<T> Outlet<T> {
    /// The next one; none when nobody puts in any more.
    pub(super) async fn next(&mut self) -> Option<T> {
        let (thing, bytes) = self.receiver.recv().await?;
        self.room.add_permits(bytes);
        Some(thing)
    }

    /// The next one if there is one.
    pub(super) fn take_now(&mut self) -> Option<T> {
        let (thing, bytes) = self.receiver.try_recv().ok()?;
        self.room.add_permits(bytes);
        Some(thing)
    }
}
