use super::*;
use crate::spool::codec::{RecordCodec, RecordDecoder, RecordEncoder};
use crate::spool::memory::MemorySpool;
use crate::spool::thread::{CursorId, Settings as ThreadSettings, SpoolState, SpoolThread};
use pegel_proto::batch::{Batch, Signal};
use pegel_proto::metrics::{Block, Family, Labels, NAME_LABEL, Series, SeriesSet};
use pegel_runtime::metrics::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Values only, behind the number of records since the last reset.
#[derive(Default)]
struct Plain(u64);

fn set() -> Arc<SeriesSet> {
    let labels = Labels::new([(NAME_LABEL, "x")]).unwrap();
    let series = Arc::new(Series::new(labels, Arc::new(Family::default())));
    Arc::new(SeriesSet::new(Arc::default(), vec![series]))
}

fn batch(seq: u64) -> Arc<Batch> {
    let blocks = vec![Block::new(seq as i64, set(), vec![seq as f64])];
    Arc::new(Batch::metrics(BatchSeq(seq), blocks))
}

impl RecordEncoder for Plain {
    fn reset(&mut self) {
        self.0 = 0;
    }

    fn encode(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        out.extend(self.0.to_le_bytes());
        out.extend(batch.blocks()[0].values[0].to_le_bytes());
        out.extend([7; 3000]);
        self.0 += 1;
    }
}

impl RecordDecoder for Plain {
    fn reset(&mut self) {
        self.0 = 0;
    }

    fn decode(&mut self, seq: BatchSeq, bytes: &[u8]) -> Result<Batch, String> {
        let counter = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        if counter != self.0 {
            return Err("out of step".into());
        }
        self.0 += 1;
        let value = f64::from_le_bytes(bytes[8..16].try_into().unwrap());
        Ok(Batch::metrics(seq, vec![Block::new(seq.0 as i64, set(), vec![value])]))
    }
}

fn codec() -> RecordCodec {
    RecordCodec {
        encoder: Box::<Plain>::default(),
        signal: Signal::Metrics,
        decoder: Box::new(|| Box::<Plain>::default()),
    }
}

async fn read_all(spool: &SpoolThread, cursor: u32, from: u64) -> Vec<u64> {
    let mut all = Vec::new();
    let mut from = BatchSeq(from);
    loop {
        let outcome = spool.read(CursorId(cursor), from, 10).await.unwrap();
        assert_eq!(outcome.losses, []);
        let Some(last) = outcome.batches.last() else { return all };
        from = last.seq.next();
        for read in &outcome.batches {
            assert_eq!(**read, *batch(read.seq.0));
            all.push(read.seq.0);
        }
    }
}

#[tokio::test]
async fn batches_are_stored_read_by_two_cursors_and_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new();
    let settings = ThreadSettings::new(settings(dir.path()));
    let spool = SpoolThread::start(&settings, codec(), &registry).unwrap();
    for chunk in (1..=100).collect::<Vec<u64>>().chunks(20) {
        let outcome = spool.append(chunk.iter().map(|n| batch(*n)).collect()).await.unwrap();
        assert_eq!(outcome.up_to.map(|seq| seq.0), chunk.last().copied());
        assert!(outcome.failed.is_none());
    }
    assert_eq!(read_all(&spool, 1, 1).await, (1..=100).collect::<Vec<_>>());
    assert_eq!(read_all(&spool, 2, 77).await, (77..=100).collect::<Vec<_>>());
    assert_eq!(read_all(&spool, 1, 50).await, (50..=100).collect::<Vec<_>>(), "a cursor that goes back");
    assert_eq!(spool.held_above(BatchSeq(90)).await.unwrap(), Tally { batches: 10, records: 10 });
    assert_eq!(spool.state(), SpoolState::Ready);
    assert!(registry.render().contains("pegel_spool_records{signal=\"metrics\"} 100"));
    spool.trim(BatchSeq(100)).await.unwrap();
    assert_eq!(spool.inventory().await.unwrap().segments, []);
}

#[tokio::test]
async fn a_spool_that_cannot_be_opened_is_tried_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let open = Box::new(move || {
        if counted.fetch_add(1, Ordering::SeqCst) < 2 {
            return Err(SpoolError::InUse { dir: "state".into() });
        }
        Ok(Box::new(MemorySpool::new(1 << 20, WhenFull::Wait)) as Box<dyn Spool>)
    });
    let mut settings = ThreadSettings::new(settings(Path::new("unused")));
    settings.reopen_interval = Duration::ZERO;
    let spool = SpoolThread::start_with(open, &settings, codec(), &Registry::new()).unwrap();
    let refused = spool.append(vec![batch(1)]).await;
    assert!(matches!(refused, Err(SpoolError::Unavailable { .. })));
    assert!(matches!(spool.state(), SpoolState::Unavailable(why) if why.contains("another running agent")));
    assert_eq!(spool.append(vec![batch(1)]).await.unwrap().up_to, Some(BatchSeq(1)));
    assert_eq!(spool.state(), SpoolState::Ready);
    assert_eq!(tries.load(Ordering::SeqCst), 3);
}

// The guard stands for a disk that hangs; the spool's thread is what waits for it.
#[allow(clippy::await_holding_lock)]
#[tokio::test]
async fn a_disk_that_hangs_shows_as_stalled_and_holds_up_nobody() {
    let (recover, hung) = std::sync::mpsc::channel::<()>();
    let open = Box::new(move || {
        let _ = hung.recv();
        Ok(Box::new(MemorySpool::new(1 << 20, WhenFull::Wait)) as Box<dyn Spool>)
    });
    let mut settings = ThreadSettings::new(settings(Path::new("unused")));
    settings.call_deadline = Duration::from_millis(50);
    let spool = SpoolThread::start_with(open, &settings, codec(), &Registry::new()).unwrap();
    assert!(matches!(spool.append(vec![batch(1)]).await, Err(SpoolError::Stalled { .. })));
    assert!(matches!(spool.state(), SpoolState::Stalled(..)));
    assert!(matches!(spool.append(vec![batch(1)]).await, Err(SpoolError::Stalled { .. })), "refused at once");
    drop(recover);
    // The disk answers again: what was asked for has happened, and appending it again does not store it twice.
    loop {
        match spool.append(vec![batch(1)]).await {
            Ok(outcome) => break assert_eq!(outcome.up_to, Some(BatchSeq(1))),
            Err(SpoolError::Stalled { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(read_all(&spool, 1, 1).await, [1]);
}
