//! Space and inodes of mounted filesystems, by `statfs(2)` for each mount.
//!
//! `statfs` on a dead network filesystem hangs, so the calls run on a lane of their own: a mount that does not
//! answer in time is reported with `node_filesystem_device_error` 1 and not asked again before its call returns.
//! What hangs costs one thread a device, and no more threads than [`MAX_HUNG`] allows.

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::filter::Filter;
use super::lane::{Job, Lane, Limits, Round};
use super::mounts::{self, Mount};
use super::{CollectError, Collector, CollectorKind, FsUsage, Setup, System};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What the label `device_error` says of a mount that hangs, as in node_exporter.
const HUNG: &str = "mountpoint timeout";

/// How many calls may hang before filesystems of other machines and of processes are not asked any more; twice as
/// many, and none is asked. Each costs a thread, some 20 KB. A site whose file server is away has a few mounts of it,
/// a node that runs containers hundreds.
const MAX_HUNG: usize = 16;

/// What the label `device_error` says of a mount that is not asked because of [`MAX_HUNG`].
const NOT_ASKED: &str = "not asked: too many mounts hang";

/// How the types of filesystems begin that ask another machine or a process.
const REMOTE: [&str; 11] =
    ["nfs", "cifs", "smb", "fuse", "ceph", "9p", "afs", "lustre", "gluster", "gpfs", "ocfs2"];

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
    /// How many devices hang.
    hanging: Arc<AtomicUsize>,
}

/// A path to ask for; several mounts can share one.
struct Question {
    path: PathBuf,
    device: Arc<Device>,
    /// Away while the call hangs.
    job: Option<StatJob>,
    hung: bool,
    risk: Risk,
    /// The words for an error number, made once.
    error: Option<(i32, String)>,
}

/// What mounts of one device share: they hang together, and one of them is enough to wait for.
#[derive(Debug)]
struct Device {
    /// Major and minor number.
    numbers: (Box<str>, Box<str>),
    remote: bool,
    hangs: AtomicBool,
    /// How many devices hang.
    hanging: Arc<AtomicUsize>,
}

/// How likely a question hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Risk {
    /// It was answered last time.
    Answered,
    /// A filesystem of this machine.
    Local,
    /// A filesystem that asks another machine or a process.
    Remote,
}

struct StatJob {
    system: Arc<dyn System>,
    path: PathBuf,
    device: Arc<Device>,
    scrape: u64,
    answer: Option<(u64, Result<FsUsage, i32>)>,
}

impl Job for StatJob {
    fn run(&mut self) {
        // Others may have been found to hang since this job was queued.
        if self.device.passed_over().is_none() {
            self.answer = Some((self.scrape, self.system.statfs(&self.path)));
        }
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
        limit: setup.settings.limit_of(CollectorKind::Filesystem) * 4 / 5,
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
            let question = questions.get_mut(*question).and_then(Option::as_mut);
            if let Some(answer) = question.and_then(|question| question.answer(out.scrape())) {
                metrics.emit(mount, answer, out);
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
        // Those that may hang come last, so that they do not take the others' time.
        for risk in [Risk::Answered, Risk::Local, Risk::Remote] {
            let ready = questions.iter_mut().enumerate().filter_map(|(key, question)| {
                let question = question.as_mut().filter(|question| question.risk == risk)?;
                if question.device.passed_over().is_some() {
                    return None;
                }
                let mut job = question.job.take()?;
                job.scrape = scrape;
                Some((key, job))
            });
            lane.begin(ready);
        }
        let note_hung = |questions: &mut Vec<Option<Question>>, key: usize| {
            if let Some(Some(question)) = questions.get_mut(key) {
                question.hung = true;
                question.device.set_hangs(true);
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
                question.device.set_hangs(false);
                tracing::info!(path = %question.path.display(), "the mount answers again");
            }
            // What was never begun keeps its place in the order.
            if job.answer.is_some() {
                question.risk = Risk::Answered;
            }
            question.job = Some(job);
        }
    });
}

impl Known {
    /// Takes a new table over. Questions keep their numbers as long as anybody asks them or they hang.
    fn replace(&mut self, text: Vec<u8>, mounts: Vec<Mount>, system: &Arc<dyn System>) {
        type Key = (PathBuf, (Box<str>, Box<str>));
        let key = |mount: &Mount| -> Key { (mount.path.clone(), mount.device_numbers()) };
        let asked: HashSet<Key> = mounts.iter().map(key).collect();
        let mut numbers = HashMap::new();
        for (number, place) in self.questions.iter_mut().enumerate() {
            let Some(question) = place else { continue };
            let key = (question.path.clone(), question.device.numbers.clone());
            if question.job.is_none() || asked.contains(&key) {
                numbers.insert(key, number);
            } else {
                *place = None;
            }
        }
        let known = self.questions.iter().flatten().map(|question| &question.device);
        let mut devices: HashMap<_, _> =
            known.map(|device| (device.numbers.clone(), device.clone())).collect();
        let mut free = 0;
        let mut place = |mount: &Mount| {
            *numbers.entry(key(mount)).or_insert_with(|| {
                while self.questions.get(free).is_some_and(Option::is_some) {
                    free += 1;
                }
                if free == self.questions.len() {
                    self.questions.push(None);
                }
                let device = devices
                    .entry(mount.device_numbers())
                    .or_insert_with(|| Device::new(mount, &self.hanging));
                self.questions[free] = Some(Question::new(mount, device.clone(), system));
                free
            })
        };
        self.mounts =
            mounts.into_iter().map(|mount| (place(&mount), mount)).map(|(n, mount)| (mount, n)).collect();
        self.text = text;
    }
}

impl Device {
    fn new(mount: &Mount, hanging: &Arc<AtomicUsize>) -> Arc<Self> {
        Arc::new(Self {
            numbers: mount.device_numbers(),
            remote: REMOTE.iter().any(|prefix| mount.fs_type.starts_with(prefix)),
            hangs: AtomicBool::new(false),
            hanging: hanging.clone(),
        })
    }

    /// Why it is not asked now, in the words of the label `device_error`.
    fn passed_over(&self) -> Option<&'static str> {
        let room = if self.remote { MAX_HUNG } else { 2 * MAX_HUNG };
        if self.hangs.load(Ordering::Relaxed) {
            Some(HUNG)
        } else {
            (self.hanging.load(Ordering::Relaxed) >= room).then_some(NOT_ASKED)
        }
    }

    fn set_hangs(&self, hangs: bool) {
        match (self.hangs.swap(hangs, Ordering::Relaxed), hangs) {
            (false, true) => drop(self.hanging.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.hanging.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

impl Question {
    fn new(mount: &Mount, device: Arc<Device>, system: &Arc<dyn System>) -> Self {
        let job = StatJob {
            system: system.clone(),
            path: mount.path.clone(),
            device: device.clone(),
            scrape: 0,
            answer: None,
        };
        let risk = if device.remote { Risk::Remote } else { Risk::Local };
        Self { path: mount.path.clone(), device, job: Some(job), hung: false, risk, error: None }
    }

    /// The answer of this scrape, or the words why there is none; none if there was no time to ask.
    fn answer(&mut self, scrape: u64) -> Option<Result<FsUsage, &str>> {
        if self.hung {
            return Some(Err(HUNG));
        }
        let Some((_, answer)) = self.job.as_ref()?.answer.filter(|(at, _)| *at == scrape) else {
            return self.device.passed_over().map(Err);
        };
        let number = match answer {
            Ok(usage) => return Some(Ok(usage)),
            Err(number) => number,
        };
        if self.error.as_ref().is_none_or(|(known, _)| *known != number) {
            self.error = Some((number, words(number)));
        }
        self.error.as_ref().map(|(_, words)| Err(words.as_str()))
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
        let read_only = mount.read_only && ![HUNG, NOT_ASKED].contains(&error);
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
