//! The scrapes of one target: a task that nothing else waits for.

use super::Shared;
use super::assembly::{Assembled, Assembly, BodyError, Counts, Reading};
use super::buffers::Buffers;
use super::exposition::Format;
use super::fetch::{FetchError, fetch};
use super::own_labels::Rules;
use super::report::ReportSeries;
use super::settings::Job;
use super::status::TargetStatus;
use super::target::Target;
use super::telemetry::ScrapeMetrics;
use crate::source::schedule::{self, Schedule};
use pegel_proto::caps;
use pegel_proto::metrics::Block;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A body larger than this is read beside the runtime's threads, in bytes. Below it, reading takes a millisecond or
/// two even when every series is new.
const READ_ASIDE_BYTES: usize = 512 << 10;

/// Why a scrape failed.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// No body came.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The body is refused.
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// What a scrape gave.
pub(super) struct Scraped {
    pub(super) blocks: Vec<Block>,
    pub(super) counts: Counts,
    pub(super) took: Duration,
    pub(super) body_bytes: usize,
    pub(super) complaint: Option<(String, String)>,
    pub(super) error: Option<ScrapeError>,
}

/// What is kept of a target from scrape to scrape.
pub(super) struct TargetSeries {
    pub(super) assembly: Assembly,
    report: ReportSeries,
    last_ms: Option<i64>,
}

impl TargetSeries {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            assembly: Assembly::default(),
            report: ReportSeries::new(target.shared.clone()),
            last_ms: None,
        }
    }

    /// One scrape, begun at `at_ms`: whatever happens, there are blocks that say so. None if `stop` came before the
    /// body did.
    pub(super) async fn scrape(
        &mut self,
        target: &Arc<Target>,
        shared: &Shared,
        at_ms: i64,
        stop: impl Future<Output = ()>,
    ) -> Option<Scraped> {
        let began = Instant::now();
        let mut buffers = shared.buffers.take();
        let fetched = tokio::select! {
            biased;
            () = stop => return None,
            fetched = fetch(target, &shared.clients, &mut buffers.body) => fetched,
        };
        let body_bytes = buffers.body.len();
        let read = match fetched {
            Ok(format) => {
                // Without a body there is no format, and it does not matter.
                let (read, returned) =
                    self.read(target, format.unwrap_or(Format::Text), buffers, at_ms).await;
                buffers = returned;
                read.map_err(|(error, counts)| (error.into(), counts))
            }
            Err(error) => Err((error.into(), Counts::default())),
        };
        shared.buffers.give_back(buffers);
        let took = began.elapsed();
        self.last_ms = Some(at_ms);
        let (mut blocks, counts, complaint, error) = match read {
            Ok(Assembled { blocks, counts, complaint }) => (blocks, counts, complaint, None),
            Err((error, counts)) => {
                let ended = self.assembly.end(reading(target, self.report.fingerprints()), at_ms);
                (ended, counts, None, Some(error))
            }
        };
        blocks.push(self.report.block(at_ms, error.is_none(), took, counts));
        Some(Scraped { blocks, counts, took, body_bytes, complaint, error })
    }

    /// Reads a body: here if that is a matter of a millisecond, else beside the runtime's threads.
    async fn read(
        &mut self,
        target: &Arc<Target>,
        format: Format,
        mut buffers: Buffers,
        at_ms: i64,
    ) -> (Result<Assembled, (BodyError, Counts)>, Buffers) {
        let target = target.clone();
        let reserved = *self.report.fingerprints();
        let mut assembly = std::mem::take(&mut self.assembly);
        let large = buffers.body.len() > READ_ASIDE_BYTES;
        let work = move || {
            let reading = reading(&target, &reserved);
            let read = assembly.read(&buffers.body, format, reading, at_ms, &mut buffers.scratch);
            (read, assembly, buffers)
        };
        let (read, assembly, buffers) = if large {
            tokio::task::spawn_blocking(work).await.expect("reading a body does not panic and is not aborted")
        } else {
            work()
        };
        self.assembly = assembly;
        (read, buffers)
    }

    /// Staleness markers for everything: the target is gone.
    pub(super) fn end(&mut self, target: &Target, now_ms: i64) -> Vec<Block> {
        // A marker at the very instant of the last sample would be a second value for it.
        let at_ms = if self.last_ms == Some(now_ms) { now_ms + 1 } else { now_ms };
        let mut blocks = self.assembly.end(reading(target, self.report.fingerprints()), at_ms);
        blocks.extend(self.report.end(at_ms));
        blocks
    }
}

fn reading<'a>(target: &'a Target, reserved: &'a [u64]) -> Reading<'a> {
    let job = &target.job;
    Reading {
        rules: Rules { target: &target.labels, honor_labels: job.honor_labels, limits: job.label_limits },
        shared: &target.shared,
        honor_timestamps: job.honor_timestamps,
        track_timestamps_staleness: job.track_timestamps_staleness,
        sample_limit: job.sample_limit,
        reserved,
    }
}

/// The task of one target.
pub(super) struct Worker {
    pub(super) target: watch::Receiver<Arc<Target>>,
    pub(super) shared: Arc<Shared>,
    pub(super) status: Arc<arc_swap::ArcSwap<TargetStatus>>,
    /// The target is gone for good.
    pub(super) removed: CancellationToken,
}

impl Worker {
    /// Scrapes until the target is removed, which ends its series, or the agent shuts down, which does not: it may
    /// be back in a moment, as Prometheus presumes too.
    pub(super) async fn run(mut self) {
        let mut target = self.target.borrow_and_update().clone();
        let mut series = TargetSeries::new(&target);
        let mut log = FailureLog::default();
        let shutdown = self.shared.context.shutdown.clone();
        loop {
            let schedule =
                Schedule::new(target.interval, schedule::offset(target.identity_hash(), target.interval));
            let due = schedule.next_after(self.shared.origin.elapsed());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.removed.cancelled() => break,
                changed = self.target.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let new = self.target.borrow_and_update().clone();
                    let rules = |job: &Job| (job.honor_labels, job.label_limits);
                    if rules(&new.job) != rules(&target.job) {
                        series.assembly.relearn();
                    }
                    target = new;
                    continue;
                }
                () = tokio::time::sleep_until(self.shared.origin + due) => {}
            }
            let late = self.shared.origin.elapsed().saturating_sub(due);
            let early = schedule::stamp_lateness(late, target.interval);
            let at_ms = self.shared.context.clock.ms_before_now(early);
            let stop = async {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = self.removed.cancelled() => {}
                }
            };
            let Some(scraped) = series.scrape(&target, &self.shared, at_ms, stop).await else {
                continue;
            };
            let skipped = schedule.skipped_between(due, self.shared.origin.elapsed());
            self.shared.metrics.count(&scraped, skipped);
            log.note(&target, &scraped);
            self.status.store(Arc::new(TargetStatus::after(
                &target,
                &scraped,
                at_ms,
                series.assembly.series(),
            )));
            hand_over(&self.shared, scraped.blocks);
        }
        hand_over(&self.shared, series.end(&target, self.shared.context.clock.now_ms()));
    }
}

/// Offers blocks as one hand-over, or as few as the cap on a batch allows.
fn hand_over(shared: &Shared, blocks: Vec<Block>) {
    let mut batch = Vec::with_capacity(blocks.len());
    let mut samples = 0;
    for block in blocks {
        if samples + block.values.len() > caps::MAX_BATCH_SAMPLES {
            shared.context.intake.offer(std::mem::take(&mut batch));
            samples = 0;
        }
        samples += block.values.len();
        batch.push(block);
    }
    shared.context.intake.offer(batch);
}

/// Names a target's failure when it begins, and its end; not each scrape that fails alike.
#[derive(Default)]
struct FailureLog {
    failing: Option<String>,
}

impl FailureLog {
    fn note(&mut self, target: &Target, scraped: &Scraped) {
        let (job, url) = (&target.job.name, &target.url);
        if let Some((series, reason)) = &scraped.complaint {
            tracing::warn!(%job, %url, %series, %reason, "a series of a scrape is left out");
        }
        match &scraped.error {
            Some(error) => {
                let error = error.to_string();
                if self.failing.is_none() {
                    tracing::warn!(%job, %url, %error, "scraping fails");
                }
                self.failing = Some(error);
            }
            None => {
                if let Some(last_error) = self.failing.take() {
                    tracing::info!(%job, %url, %last_error, "scraping works again");
                }
            }
        }
    }
}

impl ScrapeMetrics {
    fn count(&self, scraped: &Scraped, skipped: u64) {
        let result = if scraped.error.is_none() { &self.succeeded } else { &self.failed };
        result.inc();
        self.skipped.add(skipped);
        self.exemplars.add(scraped.counts.exemplars as u64);
        self.invalid.add(scraped.counts.invalid as u64);
        self.duplicates.add(scraped.counts.duplicates as u64);
        self.body_bytes.add(scraped.body_bytes as u64);
        self.seconds.observe(scraped.took.as_secs_f64());
    }
}
