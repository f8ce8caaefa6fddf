//! A spool on a thread of its own, for the pipeline: every call is a job with a deadline.
//!
//! A disk that hangs holds up this thread and nothing else: calls return [`SpoolError::Stalled`] and are refused at
//! once as long as the thread does not move. A state directory that can't be opened is tried again at every call,
//! at most once a [`Settings::reopen_interval`]; until then the agent runs from memory.

use super::codec::{RecordCodec, RecordDecoder};
use super::telemetry::Telemetry;
use super::{
    Cursor, Inventory, Loss, ReadRecord, RecordHeader, SegmentedSpool, Spool, SpoolError, Start, Tally,
};
use parking_lot::Mutex;
use pegel_proto::batch::{Batch, BatchSeq};
use pegel_runtime::metrics::Registry;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a call may take before the disk counts as stalled. A commit of a full segment on a saturated disk takes
/// a few seconds; the aggregator's patience with a silent agent is longer.
pub const DEFAULT_CALL_DEADLINE: Duration = Duration::from_secs(15);

/// How often a spool that could not be opened is tried again.
pub const DEFAULT_REOPEN_INTERVAL: Duration = Duration::from_secs(5);

/// Batches are appended in commits of at most this many encoded samples' worth of batches, so that the stage stays
/// some megabytes. At 1 to 3 bytes a sample 500,000 samples are about a segment.
const COMMIT_SAMPLES: u64 = 500_000;
/// A read ends after this much in memory, whatever was asked for: entries may be of any size.
const READ_BYTES: usize = 2 << 20;

/// Settings of the thread.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The spool's.
    pub spool: super::Settings,
    /// How long a call may take.
    pub call_deadline: Duration,
    /// How often to try again to open the spool.
    pub reopen_interval: Duration,
}

impl Settings {
    /// The defaults, over a spool's settings.
    pub fn new(spool: super::Settings) -> Self {
        Self { spool, call_deadline: DEFAULT_CALL_DEADLINE, reopen_interval: DEFAULT_REOPEN_INTERVAL }
    }
}

/// Names a cursor: one for each output that reads the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CursorId(pub u32);

/// What an append stored.
#[derive(Debug, Default)]
pub struct CommitOutcome {
    /// Every batch up to this one is stored. Those behind it are not: the caller keeps them and tries again.
    pub up_to: Option<BatchSeq>,
    /// Why those behind it are not stored.
    pub failed: Option<SpoolError>,
    /// What was lost since the last call: dropped to make room, found damaged. For the books of every cursor.
    pub losses: Vec<Loss>,
}

/// What a read gave.
#[derive(Debug, Default)]
pub struct ReadOutcome {
    /// Batches in order; empty if the cursor has read everything that is stored.
    pub batches: Vec<Arc<Batch>>,
    /// What was lost since the last call. For the books of every cursor.
    pub losses: Vec<Loss>,
}

/// How the spool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpoolState {
    /// Open and answering.
    Ready,
    /// Not open: the agent runs from memory. The words say why.
    Unavailable(String),
    /// The disk does not answer: what is being done, and for how long.
    Stalled(&'static str, Duration),
}

type Job = Box<dyn FnOnce(&mut Worker) + Send>;
type Opener = Box<dyn FnMut() -> Result<Box<dyn Spool>, SpoolError> + Send>;

#[derive(Default)]
struct Shared {
    /// What the thread is at, and since when.
    busy: Option<(&'static str, Instant)>,
    /// A call timed out on what the thread is at.
    stalled: bool,
    unavailable: Option<String>,
}

impl Shared {
    fn begin(&mut self, doing: &'static str) {
        self.busy = Some((doing, Instant::now()));
    }

    fn end(&mut self) {
        self.busy = None;
        self.stalled = false;
    }
}

/// The pipeline's handle. The thread ends when it is dropped.
pub struct SpoolThread {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Mutex<Shared>>,
    deadline: Duration,
}

impl SpoolThread {
    /// Starts the thread over a spool on disk. Whether it could be opened shows in [`SpoolThread::state`].
    ///
    /// # Errors
    /// If the thread could not be started.
    pub fn start(settings: &Settings, codec: RecordCodec, registry: &Registry) -> io::Result<Self> {
        let spool = settings.spool.clone();
        let open: Opener = Box::new(move || Ok(Box::new(SegmentedSpool::open(spool.clone())?)));
        Self::start_with(open, settings, codec, registry)
    }

    /// Starts the thread over any spool; `open` is called until it succeeds.
    ///
    /// # Errors
    /// If the thread could not be started.
    pub fn start_with(
        open: Opener,
        settings: &Settings,
        codec: RecordCodec,
        registry: &Registry,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let mut worker = Worker {
            open,
            spool: None,
            tried: None,
            reopen_interval: settings.reopen_interval,
            readers: HashMap::new(),
            losses: Vec::new(),
            telemetry: Telemetry::new(registry, codec.signal),
            codec,
            shared: shared.clone(),
        };
        shared.lock().begin("opening the spool");
        thread::Builder::new().name("spool".into()).spawn(move || {
            worker.reopen();
            worker.shared.lock().end();
            while let Ok(job) = queue.recv() {
                job(&mut worker);
            }
        })?;
        Ok(Self { jobs, shared, deadline: settings.call_deadline })
    }

    /// Stores batches durably, in order.
    ///
    /// # Errors
    /// If none of them was stored; the caller keeps them. After [`SpoolError::Stalled`] they may be stored later all
    /// the same: appending them again does not store them twice.
    pub async fn append(&self, batches: Vec<Arc<Batch>>) -> Result<CommitOutcome, SpoolError> {
        let give_back = |worker: &mut Worker, outcome: CommitOutcome| worker.losses.extend(outcome.losses);
        self.call_with("storing batches", move |worker| worker.append(&batches), give_back).await
    }

    /// Reads on from a batch, until `max_samples` are reached. Each cursor keeps its place (and a decoder) between
    /// calls; asking for another batch than the next one starts it anew.
    ///
    /// # Errors
    /// If the disk refuses; the cursor stays where it was.
    pub async fn read(
        &self,
        cursor: CursorId,
        from: BatchSeq,
        max_samples: u64,
    ) -> Result<ReadOutcome, SpoolError> {
        let give_back = |worker: &mut Worker, outcome: ReadOutcome| worker.losses.extend(outcome.losses);
        self.call_with("reading batches", move |worker| worker.read(cursor, from, max_samples), give_back)
            .await
    }

    /// Lets go of a cursor's place and decoder.
    ///
    /// # Errors
    /// If the thread does not answer.
    pub async fn forget(&self, cursor: CursorId) -> Result<(), SpoolError> {
        self.call("closing a cursor", move |worker| {
            worker.readers.remove(&cursor);
            Ok(())
        })
        .await
    }

    /// Removes what every cursor has acknowledged.
    ///
    /// # Errors
    /// If the disk refuses; the next trim tries again.
    pub async fn trim(&self, up_to: BatchSeq) -> Result<(), SpoolError> {
        self.call("removing acknowledged batches", move |worker| worker.trim(up_to)).await
    }

    /// What is held.
    ///
    /// # Errors
    /// If the thread does not answer or the spool could not be opened.
    pub async fn inventory(&self) -> Result<Inventory, SpoolError> {
        self.call("listing the spool", |worker| Ok(worker.spool()?.inventory())).await
    }

    /// How much is held above a batch.
    ///
    /// # Errors
    /// If the thread does not answer or the spool could not be opened.
    pub async fn held_above(&self, acknowledged: BatchSeq) -> Result<Tally, SpoolError> {
        self.call("counting batches", move |worker| worker.spool()?.held_above(acknowledged)).await
    }

    /// How the spool is.
    pub fn state(&self) -> SpoolState {
        let shared = self.shared.lock();
        match (&shared.busy, &shared.unavailable) {
            (Some((doing, since)), _) if shared.stalled || since.elapsed() > self.deadline => {
                SpoolState::Stalled(doing, since.elapsed())
            }
            (_, Some(words)) => SpoolState::Unavailable(words.clone()),
            _ => SpoolState::Ready,
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl FnOnce(&mut Worker) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        self.call_with(doing, job, |_, _| {}).await
    }

    /// A call whose answer is given back if nobody waits for it any more: losses must be told to somebody.
    async fn call_with<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl FnOnce(&mut Worker) -> Result<T, SpoolError> + Send + 'static,
        give_back: fn(&mut Worker, T),
    ) -> Result<T, SpoolError> {
        if let SpoolState::Stalled(doing, after) = self.state() {
            // Jobs must not pile up behind one that hangs.
            return Err(SpoolError::Stalled { doing, after });
        }
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |worker| {
            worker.shared.lock().begin(doing);
            let done = job(worker);
            worker.shared.lock().end();
            if let Err(Ok(unheard)) = reply.send(done) {
                give_back(worker, unheard);
            }
        });
        self.jobs.send(job).map_err(|_| SpoolError::Closed)?;
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(SpoolError::Closed),
            Err(_) => {
                let mut shared = self.shared.lock();
                // Only what the thread is at can end the stall; between two jobs there is none.
                shared.stalled = shared.busy.is_some();
                Err(SpoolError::Stalled { doing, after: self.deadline })
            }
        }
    }
}

struct Reader {
    cursor: Cursor,
    decoder: Box<dyn RecordDecoder>,
}

struct Worker {
    open: Opener,
    spool: Option<Box<dyn Spool>>,
    /// When opening was last tried.
    tried: Option<Instant>,
    reopen_interval: Duration,
    codec: RecordCodec,
    readers: HashMap<CursorId, Reader>,
    /// Losses that no caller has been told of yet.
    losses: Vec<Loss>,
    telemetry: Telemetry,
    shared: Arc<Mutex<Shared>>,
}

impl Worker {
    fn reopen(&mut self) {
        self.tried = Some(Instant::now());
        let was_unavailable = self.shared.lock().unavailable.is_some();
        match (self.open)() {
            Ok(spool) => {
                if was_unavailable {
                    tracing::info!("the spool is open");
                }
                self.shared.lock().unavailable = None;
                self.spool = Some(spool);
                self.collect_losses();
                self.telemetry.observe(self.spool.as_deref());
            }
            Err(error) => {
                if !was_unavailable {
                    tracing::warn!(%error, "the spool can't be opened: running from memory only, trying again");
                }
                self.shared.lock().unavailable = Some(error.to_string());
            }
        }
    }

    fn spool(&mut self) -> Result<&mut (dyn Spool + 'static), SpoolError> {
        let due = self.tried.is_none_or(|tried| tried.elapsed() >= self.reopen_interval);
        if self.spool.is_none() && due {
            self.reopen();
        }
        match self.spool.as_deref_mut() {
            Some(spool) => Ok(spool),
            None => Err(SpoolError::Unavailable {
                why: self.shared.lock().unavailable.clone().unwrap_or_default(),
            }),
        }
    }

    fn collect_losses(&mut self) {
        let Some(spool) = self.spool.as_deref_mut() else { return };
        for loss in spool.take_losses() {
            self.telemetry.count(&loss);
            self.losses.push(loss);
        }
    }

    fn append(&mut self, batches: &[Arc<Batch>]) -> Result<CommitOutcome, SpoolError> {
        self.spool()?;
        let mut outcome = CommitOutcome::default();
        let mut left = batches;
        while !left.is_empty() && outcome.failed.is_none() {
            let mut samples = 0;
            let full = left.iter().position(|batch| {
                samples += batch.records();
                samples >= COMMIT_SAMPLES
            });
            let (now, later) = left.split_at(full.map_or(left.len(), |at| at + 1));
            left = later;
            match self.commit(now) {
                Ok((up_to, failed)) => {
                    outcome.up_to = up_to.or(outcome.up_to);
                    outcome.failed = failed;
                }
                Err(error) => outcome.failed = Some(error),
            }
        }
        self.collect_losses();
        self.telemetry.observe(self.spool.as_deref());
        match outcome.failed.take() {
            Some(error) if outcome.up_to.is_none() => Err(error),
            failed => {
                outcome.failed = failed;
                outcome.losses = std::mem::take(&mut self.losses);
                Ok(outcome)
            }
        }
    }

    fn commit(
        &mut self,
        batches: &[Arc<Batch>],
    ) -> Result<(Option<BatchSeq>, Option<SpoolError>), SpoolError> {
        let began = Instant::now();
        let spool = self.spool.as_deref_mut().ok_or(SpoolError::Closed)?;
        let encoder = &mut self.codec.encoder;
        let mut appended = None;
        let mut refused = None;
        for batch in batches {
            let header = RecordHeader {
                seq: batch.seq,
                records: batch.records(),
                oldest_ms: batch.oldest_ms().unwrap_or_default(),
                flags: 0,
            };
            let mut encode = |start: Start, out: &mut Vec<u8>| {
                if start == Start::Fresh {
                    encoder.reset();
                }
                encoder.encode(batch, out);
            };
            if let Err(error) = spool.append(header, &mut encode) {
                refused = Some(error);
                break;
            }
            appended = Some(batch.seq);
        }
        let committed = spool.commit()?;
        self.telemetry.commits.observe(began.elapsed().as_secs_f64());
        // Nothing staged and nothing refused: all of it was stored before.
        let up_to = if committed.failed.is_some() { committed.up_to } else { appended };
        match committed.failed.or(refused) {
            Some(error) if up_to.is_none() => Err(error),
            failed => Ok((up_to, failed)),
        }
    }

    fn read(&mut self, id: CursorId, from: BatchSeq, max_samples: u64) -> Result<ReadOutcome, SpoolError> {
        // A spool that is not open is not an empty one.
        self.spool()?;
        let spool = self.spool.as_deref_mut().ok_or(SpoolError::Closed)?;
        let reader = self
            .readers
            .entry(id)
            .or_insert_with(|| Reader { cursor: Cursor::new(from), decoder: (self.codec.decoder)() });
        if reader.cursor.from() != from {
            reader.cursor = Cursor::new(from);
        }
        let mut outcome = ReadOutcome::default();
        let (mut samples, mut bytes) = (0, 0);
        while samples < max_samples && bytes < READ_BYTES {
            let record = match spool.next(&mut reader.cursor) {
                Ok(Some(record)) => record,
                Ok(None) => break,
                // What was read before the error is delivered; the error comes again with the next call.
                Err(_) if !outcome.batches.is_empty() => break,
                Err(error) => return Err(error),
            };
            match reader.decode(&record) {
                Ok(batch) if !record.replay => {
                    samples += batch.records();
                    bytes += batch.resident_bytes();
                    outcome.batches.push(Arc::new(batch));
                }
                Ok(_) => {}
                Err(words) => spool.condemn(&reader.cursor, record.header.seq, &words),
            }
        }
        self.collect_losses();
        outcome.losses = std::mem::take(&mut self.losses);
        Ok(outcome)
    }

    fn trim(&mut self, up_to: BatchSeq) -> Result<(), SpoolError> {
        if self.spool().is_err() {
            return Ok(());
        }
        let trimmed = self.spool.as_deref_mut().map_or(Ok(()), |spool| spool.trim(up_to));
        self.telemetry.observe(self.spool.as_deref());
        trimmed
    }
}

impl Reader {
    fn decode(&mut self, record: &ReadRecord) -> Result<Batch, String> {
        if record.start == Start::Fresh {
            self.decoder.reset();
        }
        let batch = self.decoder.decode(record.header.seq, &record.bytes)?;
        if batch.records() == record.header.records {
            Ok(batch)
        } else {
            Err(format!("batch {} decodes to another number of records", record.header.seq))
        }
    }
}
