//! Space and inodes of mounted filesystems, by `statfs(2)` for each mount.
//!
//! `statfs` on a dead network filesystem hangs, so the calls run on a lane of their own: a mount that does not
//! answer in time is reported with `node_filesystem_device_error` 1 and not asked again before its call returns.

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::filter::Filter;
use super::lane::{Job, Lane, Limits, Round};
use super::mounts::{self, Mount};
use super::{CollectError, Collector, FsUsage, Setup, System};
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the label `device_error` says of a mount that hangs, as in node_exporter.
const HUNG: &str = "mountpoint timeout";

struct Filesystem {
    table: PolledFile,
    /// Where the table is if the first one is hidden (hidepid).
    own_table: PolledFile,
    rootfs: PathBuf,
    system: Arc<dyn System>,
    mount_points: Filter,
    fs_types: Filter,
    mount_limit: Duration,
    /// Less than the collector's own limit, so that what answered is reported in time.
    limit: Duration,
    lane: Lane<StatJob>,
    known: Known,
    metrics: Metrics,
}

/// What the mount table said last.
#[derive(Default)]
struct Known {
    text: Vec<u8>,
    /// The mounts to report, and the number of the question that each asks.
    mounts: Vec<(Mount, usize)>,
    questions: Vec<Option<Question>>,
}

/// A path to ask for; several mounts can share one.
struct Question {
    path: PathBuf,
    /// Away while the call hangs.
    job: Option<StatJob>,
    hung: bool,
    /// The words for an error number, made once.
    error: Option<(i32, String)>,
}

struct StatJob {
    system: Arc<dyn System>,
    path: PathBuf,
    scrape: u64,
    answer: Option<(u64, Result<FsUsage, i32>)>,
}

impl Job for StatJob {
    fn run(&mut self) {
        self.answer = Some((self.scrape, self.system.statfs(&self.path)));
    }
}

struct Metrics {
    device_error: Metric,
    read_only: Metric,
    size: Metric,
    free: Metric,
    avail: Metric,
    files: Metric,
    files_free: Metric,
    mount_info: Metric,
    purgeable: Metric,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let gauge = |name: &str, help: &str| {
        Metric::gauge(
            &format!("node_filesystem_{name}"),
            help,
            &["device", "device_error", "fstype", "mountpoint"],
        )
    };
    Box::new(Filesystem {
        table: PolledFile::new(setup.paths.procfs.join("1/mountinfo")),
        own_table: PolledFile::new(setup.paths.procfs.join("self/mountinfo")),
        rootfs: setup.paths.rootfs.clone(),
        system: setup.system.clone(),
        mount_points: setup.settings.mount_points.clone(),
        fs_types: setup.settings.fs_types.clone(),
        mount_limit: setup.settings.mount_limit(),
        limit: setup.settings.collector_limit() * 4 / 5,
        lane: Lane::new("pegel-statfs"),
        known: Known::default(),
        metrics: Metrics {
            device_error: gauge(
                "device_error",
                "1 if the filesystem could not be asked; the label says why.",
            ),
            read_only: gauge("readonly", "1 if the filesystem is read-only."),
            size: gauge("size_bytes", "All space."),
            free: gauge("free_bytes", "Free space."),
            avail: gauge("avail_bytes", "Free space for those who are not root."),
            files: gauge("files", "All inodes."),
            files_free: gauge("files_free", "Free inodes."),
            purgeable: gauge(
                "purgeable_bytes",
                "Space that macOS would free; 0 on Linux, as in node_exporter.",
            ),
            mount_info: Metric::gauge(
                "node_filesystem_mount_info",
                "1, with the numbers of the mounted device.",
                &["device", "major", "minor", "mountpoint"],
            ),
        },
    })
}

impl Collector for Filesystem {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        self.read_table()?;
        self.ask(out.scrape());
        let Self { known: Known { mounts, questions, .. }, metrics, .. } = self;
        for (mount, question) in mounts {
            if let Some(Some(question)) = questions.get_mut(*question) {
                metrics.emit(mount, question.answer(out.scrape()), out);
            }
        }
        Ok(())
    }
}

impl Filesystem {
    fn read_table(&mut self) -> Result<(), CollectError> {
        let text = match self.table.read_if_there()? {
            Some(text) => text,
            None => self.own_table.read()?,
        };
        if text.bytes == self.known.text {
            return Ok(());
        }
        let mut mounts = mounts::parse(text, &self.rootfs)?;
        let mut seen = HashSet::new();
        mounts.retain(|mount| {
            self.mount_points.passes(&mount.shown_at)
                && self.fs_types.passes(&mount.fs_type)
                && seen.insert((mount.device.clone(), mount.shown_at.clone(), mount.fs_type.clone()))
        });
        let text = text.bytes.to_vec();
        self.known.replace(text, mounts, &self.system);
        Ok(())
    }

    /// Asks for all mounts that do not hang.
    fn ask(&mut self, scrape: u64) {
        let Self { lane, known: Known { questions, .. }, .. } = self;
        give_back(lane, questions);
        let now = Instant::now();
        let limits = Limits { job: self.mount_limit, deadline: now + self.limit };
        // Those that answered before come first, so that new ones that hang do not take their time.
        for answered_before in [true, false] {
            let ready = questions.iter_mut().enumerate().filter_map(|(key, question)| {
                let question = question.as_mut()?;
                question.job.as_ref().filter(|job| job.answer.is_some() == answered_before)?;
                let mut job = question.job.take()?;
                job.scrape = scrape;
                Some((key, job))
            });
            lane.begin(ready);
        }
        let note_hung = |questions: &mut Vec<Option<Question>>, key: usize| {
            if let Some(Some(question)) = questions.get_mut(key) {
                question.hung = true;
                tracing::warn!(
                    path = %question.path.display(),
                    limit_seconds = limits.job.as_secs_f64(),
                    "a mount does not answer; it is reported as device_error until it does"
                );
            }
        };
        while let Round::WaitUntil(until) =
            lane.check(Instant::now(), limits, |key| note_hung(questions, key))
        {
            lane.wait(until);
        }
        give_back(lane, questions);
    }
}

fn give_back(lane: &Lane<StatJob>, questions: &mut [Option<Question>]) {
    lane.take(|key, job| {
        if let Some(Some(question)) = questions.get_mut(key) {
            if std::mem::take(&mut question.hung) {
                tracing::info!(path = %question.path.display(), "the mount answers again");
            }
            question.job = Some(job);
        }
    });
}

impl Known {
    /// Takes a new table over. Questions keep their numbers as long as anybody asks them or they hang.
    fn replace(&mut self, text: Vec<u8>, mounts: Vec<Mount>, system: &Arc<dyn System>) {
        self.text = text;
        for question in &mut self.questions {
            let idle = |q: &Question| q.job.is_some() && !mounts.iter().any(|mount| mount.path == q.path);
            if question.as_ref().is_some_and(idle) {
                *question = None;
            }
        }
        self.mounts = mounts
            .into_iter()
            .map(|mount| {
                let number = self.number_of(&mount.path, system);
                (mount, number)
            })
            .collect();
    }

    fn number_of(&mut self, path: &PathBuf, system: &Arc<dyn System>) -> usize {
        let asked = |question: &Option<Question>| question.as_ref().is_some_and(|q| q.path == *path);
        if let Some(number) = self.questions.iter().position(asked) {
            return number;
        }
        let job = StatJob { system: system.clone(), path: path.clone(), scrape: 0, answer: None };
        let question = Some(Question { path: path.clone(), job: Some(job), hung: false, error: None });
        let free = self.questions.iter().position(Option::is_none);
        let number = free.unwrap_or(self.questions.len());
        self.questions.resize_with(self.questions.len().max(number + 1), || None);
        self.questions[number] = question;
        number
    }
}

impl Question {
    /// The answer of this scrape, or the words why there is none.
    fn answer(&mut self, scrape: u64) -> Result<FsUsage, &str> {
        let answer = self.job.as_ref().and_then(|job| job.answer);
        match answer.filter(|(at, _)| *at == scrape) {
            None => Err(HUNG),
            Some((_, Ok(usage))) => Ok(usage),
            Some((_, Err(number))) => {
                if self.error.as_ref().is_none_or(|(known, _)| *known != number) {
                    self.error = Some((number, words(number)));
                }
                Err(self.error.as_ref().map_or("", |(_, words)| words))
            }
        }
    }
}

/// An error number in words, as Go writes them: without a capital, without the number.
fn words(number: i32) -> String {
    let text = std::io::Error::from_raw_os_error(number).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

impl Metrics {
    fn emit(&self, mount: &Mount, answer: Result<FsUsage, &str>, out: &mut Emitter<'_>) {
        let error = answer.err().unwrap_or_default();
        let labels = [&*mount.device, error, &*mount.fs_type, &*mount.shown_at];
        out.emit(&self.device_error, &labels, f64::from(u8::from(answer.is_err())));
        // Of a mount that hangs node_exporter says 0 here; it is kept so that both report the same.
        let read_only = mount.read_only && error != HUNG;
        out.emit(&self.read_only, &labels, f64::from(u8::from(read_only)));
        let Ok(usage) = answer else { return };
        out.emit(&self.size, &labels, usage.size_bytes);
        out.emit(&self.free, &labels, usage.free_bytes);
        out.emit(&self.avail, &labels, usage.avail_bytes);
        out.emit(&self.files, &labels, usage.files);
        out.emit(&self.files_free, &labels, usage.files_free);
        out.emit(&self.purgeable, &labels, 0.0);
        out.emit(&self.mount_info, &[&mount.device, &mount.major, &mount.minor, &mount.shown_at], 1.0);
    }
}
