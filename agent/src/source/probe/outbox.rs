//! Gathers what runs hand over within a moment: one batch of many blocks costs the pipeline, the uplink and the
//! aggregator little more than one of a single block, and with thousands of targets there is a run every few
//! milliseconds.

use crate::intake::Intake;
use parking_lot::Mutex;
use pegel_proto::metrics::Block;
use std::sync::Arc;
use std::time::Duration;

/// How long blocks wait for others, at most: a quarter of what the agent lingers before it stores what it cannot send.
const HOLD: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    intake: Intake,
    waiting: Arc<Mutex<Vec<Block>>>,
}

impl Outbox {
    pub(super) fn new(intake: Intake) -> Self {
        Self { intake, waiting: Arc::default() }
    }

    /// Takes the blocks of a run. They wait for a fraction of its interval, so that no batch has a series twice.
    pub(super) fn put(&self, blocks: Vec<Block>, interval: Duration) {
        if blocks.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock();
        let first = waiting.is_empty();
        waiting.extend(blocks);
        drop(waiting);
        if first {
            let outbox = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(HOLD.min(interval / 10)).await;
                outbox.flush();
            });
        }
    }

    /// Hands over what waits.
    pub(super) fn flush(&self) {
        let blocks = std::mem::take(&mut *self.waiting.lock());
        self.intake.offer(blocks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::intake;
    use pegel_proto::metrics::{Family, Labels, MetricType, Series, SeriesSet};
    use pegel_runtime::metrics::Registry;

    fn block(at_ms: i64) -> Block {
        let family = Family { name: "a".into(), kind: MetricType::Gauge, help: "A.".into(), unit: "".into() };
        let labels = Labels::new([("__name__", "a")]).unwrap();
        let series = vec![Arc::new(Series::new(labels, Arc::new(family)))];
        Block::new(at_ms, Arc::new(SeriesSet::new(Arc::default(), series)), vec![1.0])
    }

    #[tokio::test]
    async fn what_comes_within_a_moment_is_one_hand_over_in_its_order() {
        let (intake, mut receiver) = intake(1 << 20, &Registry::new());
        let outbox = Outbox::new(intake);
        let hour = Duration::from_secs(3_600);
        for at_ms in 1..4 {
            outbox.put(vec![block(at_ms)], hour);
        }
        assert!(receiver.take_now().is_none(), "they wait");
        let times = |blocks: Vec<Block>| blocks.iter().map(|block| block.at_ms).collect::<Vec<_>>();
        let before = tokio::time::Instant::now();
        assert_eq!(times(receiver.next().await.unwrap().blocks), [1, 2, 3]);
        assert!(before.elapsed() > HOLD / 2, "for others of the moment");
        // At the end nothing is left waiting.
        outbox.put(vec![block(4)], hour);
        outbox.flush();
        assert_eq!(times(receiver.take_now().unwrap().blocks), [4]);
    }
}
