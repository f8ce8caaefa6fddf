//! The thread's turn: wait, hear what changed, hand over what waits, read.

use super::copies::Copied;
use super::departed::Aliases;
use super::identity::{Stat, Tail};
use super::known::{FileId, Generation, Known};
use super::missing::Missing;
use super::settings::{Settings, Start};
use super::telemetry::{NamedFiles, Telemetry};
use super::watch::Watch;
use super::{FileStatus, Followed, Parts, Remade, Shared, Status};
use crate::source::log::checkpoints::{Checkpoints, Print, SourceId, SourceKind};
use crate::source::log::cutter::{BLOCK_LINGER, Cutter};
use crate::source::log::origin::Origin;
use crate::source::log::shape::{self, Shaper};
use pegel_proto::batch::Logs;
use pegel_runtime::metrics::Registry;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

/// Open files are looked at this often: for what nobody tells, for half lines that stay, for being idle.
const TICK: Duration = Duration::from_millis(250);
/// All is looked at this often where inotify tells of changes, in case it did not.
const SCAN_EVERY: Duration = Duration::from_secs(60);
/// And this often where nobody tells, or as rarely as makes it cost half a percent of a core.
const POLL_EVERY: Duration = Duration::from_secs(1);
const POLL_SHARE: u32 = 200;
/// A file without news closes its descriptor after this.
const IDLE_AFTER: Duration = Duration::from_secs(10);
/// Descriptors for files, if the limit of the process leaves [`OTHER_FILES`] for everything else.
const MAX_OPEN: usize = 1_024;
const OTHER_FILES: usize = 512;
/// How long the end waits for delivery to take the last block; it is built again at the next start if it does not.
const END_WAIT: Duration = Duration::from_secs(2);
/// While delivery has no room it is asked again after this, then ever more rarely up to the second.
const ROOM_WAIT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// A file has so many visits for one block.
const BLOCK_VISITS: usize = 4;
/// The status names no more files than this.
const STATUS_FILES: usize = 1_000;

/// How long things wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) linger: Duration,
    pub(super) tick: Duration,
    pub(super) idle_after: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { linger: BLOCK_LINGER, tick: TICK, idle_after: IDLE_AFTER }
    }
}

/// One input.
pub(super) struct InputState {
    pub(super) name: Arc<str>,
    pub(super) settings: Settings,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) shaper: Shaper,
    pub(super) flush_after: Duration,
    /// What is made of the bytes of files that say nothing else.
    pub(super) shape: shape::Settings,
    pub(super) telemetry: Telemetry,
    /// Files come by the feed.
    pub(super) fed: bool,
    /// The feed told of all that there was at the start.
    pub(super) complete: bool,
    pub(super) followed: HashMap<Arc<Path>, FollowedState>,
    /// The last generation that left a path, until another one takes it.
    pub(super) left: HashMap<Arc<Path>, FileId>,
    /// The last timestamp of each stream, whichever generation it was of.
    pub(super) floors: HashMap<Arc<Path>, i64>,
    /// Paths of which a generation was forgotten, since then.
    pub(super) departed: VecDeque<(Instant, Arc<Path>)>,
}

pub(super) struct FollowedState {
    pub(super) followed: Followed,
    pub(super) shaper: Option<Shaper>,
    pub(super) flush_after: Duration,
    pub(super) gone: bool,
    /// Something of it was found.
    pub(super) seen: bool,
}

impl InputState {
    pub(super) fn takes(&self, path: &Path) -> bool {
        if self.fed { self.followed.contains_key(path) } else { self.settings.takes(path) }
    }

    /// Whether it is known what to make of a generation.
    pub(super) fn is_ready(&self, label: &Path) -> bool {
        !self.fed || self.followed.contains_key(label)
    }

    pub(super) fn flush_after(&self, label: &Path) -> Duration {
        self.followed.get(label).map_or(self.flush_after, |f| f.flush_after)
    }

    /// The labels of a generation's entries and what makes them.
    pub(super) fn shaping(&mut self, label: &Path) -> (Vec<(String, String)>, &mut Shaper) {
        let mut labels = self.labels.clone();
        labels.entry("job".to_owned()).or_insert_with(|| self.name.to_string());
        let filename = label.display().to_string();
        let of_path = self.settings.labels_of(&filename);
        labels.extend(of_path.map(|(name, value)| (name.to_owned(), value.to_owned())));
        labels.insert("filename".to_owned(), filename);
        let followed = self.followed.get_mut(label);
        if let Some(followed) = &followed {
            labels.extend(followed.followed.labels.iter().cloned());
        }
        labels.retain(|_, value| !value.is_empty());
        let shaper = followed.and_then(|f| f.shaper.as_mut()).unwrap_or(&mut self.shaper);
        (labels.into_iter().collect(), shaper)
    }
}

pub(super) struct Thread {
    pub(super) inputs: Vec<InputState>,
    pub(super) known: Known,
    pub(super) missing: Vec<Missing>,
    pub(super) aliases: Aliases,
    /// Generations that may have something to read.
    pub(super) queue: VecDeque<FileId>,
    /// And those that have to wait for the next tick.
    pub(super) later: Vec<FileId>,
    pub(super) open: HashSet<FileId>,
    pub(super) max_open: usize,
    pub(super) watch: Watch,
    pub(super) cutter: Cutter,
    pub(super) checkpoints: Arc<Checkpoints>,
    pub(super) buffer: Vec<u8>,
    /// A block for which delivery has no room.
    pub(super) pending: Option<Logs>,
    /// Blocks that may have been sent before the last kill.
    pub(super) outstanding: VecDeque<Origin>,
    /// Their sources: nothing else is read of them before.
    pub(super) held: HashSet<SourceId>,
    pub(super) rescan: bool,
    pub(super) started_at: Instant,
    pub(super) registry: Registry,
    pub(super) pace: Pace,
    /// Files that may be copies.
    pub(super) copies: HashMap<FileId, Copied>,
    /// The generations of the sources of outstanding blocks.
    pub(super) by_source: HashMap<SourceId, FileId>,
    /// Files that changed before this were looked at.
    pub(super) heard_before: SystemTime,
    /// Files that may not be read.
    pub(super) unreadable: BTreeSet<Arc<Path>>,
    /// Makes what a feed told out of its note.
    pub(super) remade: Remade,
    pub(super) measure_at: Instant,
    /// The files that metrics name.
    pub(super) named: NamedFiles,
    /// Since when delivery has had no room.
    pub(super) no_room_since: Option<Instant>,
    room_wait: Duration,
    /// More is there to read now.
    busy: bool,
    /// When what came is to be read and cut.
    due: Option<Instant>,
    next_tick: Instant,
    next_scan: Instant,
    shutdown: CancellationToken,
    pub(super) shared: Arc<Shared>,
    /// Inodes that may not be opened: tests run as root, who may.
    #[cfg(test)]
    pub(super) refused: HashSet<u64>,
}

/// What came of a generation's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visit {
    /// There is more to read.
    More,
    /// Nothing to do until something changes.
    Idle,
    /// Another one has to be read before.
    Waits,
    /// Not now.
    Later,
}

impl Thread {
    pub(super) fn new(parts: Parts, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        let inputs: Vec<_> = parts
            .inputs
            .into_iter()
            .map(|(input, settings)| InputState {
                name: input.name.as_str().into(),
                fed: settings.include.is_empty(),
                settings,
                labels: input.labels,
                shaper: Shaper::counted(&input.shape, &input.name, &parts.registry),
                flush_after: input.shape.flush_after(),
                shape: input.shape,
                telemetry: Telemetry::new(&input.name, &parts.registry),
                complete: false,
                followed: HashMap::new(),
                left: HashMap::new(),
                floors: HashMap::new(),
                departed: VecDeque::new(),
            })
            .collect();
        let mut thread = Self {
            known: Known::new(inputs.len()),
            inputs,
            missing: Vec::new(),
            aliases: Aliases::default(),
            queue: VecDeque::new(),
            later: Vec::new(),
            open: HashSet::new(),
            max_open: descriptors(),
            watch: Watch::new(false),
            cutter: Cutter::new(parts.checkpoints.clone(), parts.intake, parts.configuration),
            checkpoints: parts.checkpoints,
            buffer: Vec::new(),
            pending: None,
            outstanding: VecDeque::new(),
            held: HashSet::new(),
            rescan: false,
            started_at: now,
            registry: parts.registry.clone(),
            pace: Pace::default(),
            copies: HashMap::new(),
            by_source: HashMap::new(),
            heard_before: SystemTime::now(),
            unreadable: BTreeSet::new(),
            remade: parts.remade,
            measure_at: now,
            named: NamedFiles::new(&parts.registry),
            no_room_since: None,
            room_wait: ROOM_WAIT.0,
            busy: false,
            due: None,
            next_tick: now,
            next_scan: now + SCAN_EVERY,
            shutdown: parts.shutdown,
            shared,
            #[cfg(test)]
            refused: super::tests::REFUSED_AT_START.get().into_iter().collect(),
        };
        thread.begin();
        thread
    }

    /// Runs until the shutdown is said.
    pub(super) fn run(&mut self) {
        while !self.shutdown.is_cancelled() {
            self.wait();
            self.turn();
        }
        if self.pending.is_none() {
            self.cut();
        }
        let deadline = Instant::now() + END_WAIT;
        while !self.has_handed_over() && Instant::now() < deadline {
            std::thread::sleep(ROOM_WAIT.0);
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self) {
        let now = Instant::now();
        let (until, events) = if self.pending.is_some() {
            (now + self.room_wait, false)
        } else if self.busy {
            (now, false)
        } else if let Some(due) = self.due {
            // More events of what is read then anyway would only wake.
            (due, false)
        } else {
            let ticks = !self.open.is_empty() || !self.missing.is_empty() || !self.later.is_empty();
            let ticks = ticks || self.inputs.iter().any(|input| input.fed);
            (if ticks { self.next_tick.min(self.next_scan) } else { self.next_scan }, true)
        };
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            return;
        }
        let mut fds = Vec::with_capacity(2);
        fds.extend(self.shared.wake.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let inotify = self.watch.fd();
        fds.extend(inotify.as_ref().filter(|_| events).map(|fd| PollFd::new(fd, PollFlags::IN)));
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        // Interrupted or not: the turn looks at everything.
        let _ = poll(&mut fds, Some(&left));
        if let Some(wake) = &self.shared.wake {
            let _ = rustix::io::read(wake, &mut [0; 8]);
        }
    }

    /// One turn. Doesn't wait.
    pub(super) fn turn(&mut self) {
        self.hear();
        let now = Instant::now();
        if now >= self.next_tick {
            self.next_tick = now + self.pace.tick;
            self.tick(now);
        }
        if self.rescan || now >= self.next_scan {
            self.rescan = false;
            self.scan();
            let took = now.elapsed();
            let every = if self.watch.polls() { POLL_EVERY.max(took * POLL_SHARE) } else { SCAN_EVERY };
            self.next_scan = Instant::now() + every;
        }
        self.answer();
        if !self.has_handed_over() {
            self.room_wait = (self.room_wait * 2).min(ROOM_WAIT.1);
            return;
        }
        self.room_wait = ROOM_WAIT.0;
        if !self.outstanding.is_empty() {
            self.rebuild();
        }
        if self.pending.is_none() && (self.busy || self.due.is_some_and(|due| Instant::now() >= due)) {
            self.due = None;
            self.read_pass();
        } else if !self.queue.is_empty() && self.due.is_none() && !self.busy {
            self.due = Some(Instant::now() + self.pace.linger);
        }
    }

    /// Each that has something gets a turn; a flood in one does not keep others waiting. The pass ends with the first
    /// block, so that what happens to files meanwhile is heard.
    fn read_pass(&mut self) {
        self.busy = false;
        let mut waiting = Vec::new();
        for _ in 0..self.queue.len() {
            let Some(id) = self.queue.pop_front() else { break };
            let cut = match self.visit_for_a_block(id) {
                (Visit::More, cut) => {
                    self.busy = true;
                    self.queue.push_back(id);
                    cut
                }
                (Visit::Waits, cut) => {
                    waiting.push(id);
                    cut
                }
                (Visit::Later, cut) => {
                    self.later.push(id);
                    cut
                }
                (Visit::Idle, cut) => {
                    if let Some(generation) = self.known.generation_mut(id) {
                        generation.queued = false;
                    }
                    cut
                }
            };
            if cut || self.pending.is_some() {
                self.busy = true;
                break;
            }
        }
        self.queue.extend(waiting);
        if self.pending.is_none() && !self.busy {
            self.cut();
        }
    }

    /// Reads one file until it has no more or a block is full: lines of one file compress better than a mixture.
    /// Says whether a block was cut.
    fn visit_for_a_block(&mut self, id: FileId) -> (Visit, bool) {
        let before = self.cutter.finished();
        // Where next to nothing is kept of what is read, others have their turn all the same.
        for _ in 1..BLOCK_VISITS {
            let visit = self.visit(id);
            let cut = self.cutter.finished() > before;
            if visit != Visit::More || cut || self.pending.is_some() {
                return (visit, cut);
            }
        }
        (self.visit(id), self.cutter.finished() > before)
    }

    /// A generation may have something to read. It is opened now, so that it can be read whatever becomes of it.
    pub(super) fn activate(&mut self, id: FileId) {
        if let Some(generation) = self.known.generation_mut(id)
            && !generation.queued
        {
            generation.queued = true;
            generation.saw(generation.bytes, Instant::now());
            let unknown = generation.print.bytes == 0;
            self.queue.push_back(id);
            self.try_open(id);
            if unknown {
                self.look_at_beginning(id);
            }
        }
    }

    pub(super) fn cut(&mut self) {
        if let Some(logs) = self.cutter.finish() {
            self.offer(logs);
        }
    }

    pub(super) fn offer(&mut self, logs: Logs) {
        debug_assert!(self.pending.is_none(), "nothing is shaped while a block waits");
        // Its intent is in memory, and is written with all others as soon as anything can be.
        let intended = self.checkpoints.take_records();
        self.pending = if intended { self.cutter.intake().try_offer(logs).err() } else { Some(logs) };
        if self.pending.is_none() {
            self.no_room_since = None;
        } else {
            self.no_room_since.get_or_insert_with(Instant::now);
        }
    }

    fn has_handed_over(&mut self) -> bool {
        if let Some(logs) = self.pending.take() {
            self.offer(logs);
        }
        self.pending.is_none()
    }

    /// Hears of changes, and does what others say.
    fn hear(&mut self) {
        let heard_at = SystemTime::now();
        let mut events = Vec::new();
        self.watch.events(&mut events);
        self.happened(events);
        self.heard_before = heard_at;
        let told = std::mem::take(&mut *self.shared.told.lock());
        for told in told {
            self.do_told(told);
        }
    }

    /// Looks at open files.
    fn tick(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.later) {
            self.queue.push_back(id);
        }
        let open: Vec<FileId> = self.open.iter().copied().collect();
        for id in open {
            self.tick_open(id);
        }
        self.search_missing(now);
        self.forget_departed(now);
        self.measure(now);
    }

    fn answer(&self) {
        let mut asked = self.shared.asked.lock();
        if asked.0 {
            *asked = (false, self.status());
            self.shared.answered.notify_all();
        }
    }

    pub(super) fn status(&self) -> Status {
        let now = Instant::now();
        let missing = self.missing.iter().map(|missing| (&missing.generation, true));
        let mut files: Vec<_> =
            self.known.iter().map(|generation| (generation, false)).chain(missing).collect();
        files.sort_by_key(|(generation, _)| {
            (std::cmp::Reverse(generation.unread()), generation.reading.is_none(), generation.label.clone())
        });
        files.truncate(STATUS_FILES);
        Status {
            known: self.known.len(),
            open: self.open.len(),
            missing: self.missing.len(),
            waiting: self.pending.is_some(),
            unreadable: self.unreadable.iter().map(|path| path.display().to_string()).collect(),
            behind: self.shared.behind.lock().clone(),
            files: files.into_iter().map(|(g, missing)| self.status_of(g, missing, now)).collect(),
        }
    }

    pub(super) fn status_of(&self, generation: &Generation, missing: bool, now: Instant) -> FileStatus {
        let elsewhere = generation.path.as_ref().filter(|path| **path != generation.label);
        FileStatus {
            input: self.inputs[usize::from(generation.input)].name.to_string(),
            path: generation.label.display().to_string(),
            now_at: elsewhere.map(|path| path.display().to_string()),
            bytes: generation.bytes,
            offset: generation.offset,
            lag_bytes: generation.unread(),
            lag_seconds: generation.waits(now).as_secs_f64(),
            state: match generation {
                _ if missing => "missing",
                Generation { trouble: Some(_), .. } => "unreadable",
                Generation { copy_of: Some(_), .. } => "copy",
                Generation { kind: SourceKind::Gzip | SourceKind::Zstd, .. } => "compressed",
                Generation { path: None, .. } => "removed",
                _ if elsewhere.is_some() => "renamed",
                Generation { reading: Some(_), .. } => "reading",
                _ => "idle",
            },
        }
    }

    /// A generation that begins here, without a source yet.
    pub(super) fn generation(input: usize, path: &Arc<Path>, stat: &Stat) -> Generation {
        Generation {
            input: input as u16,
            source: 0,
            kind: SourceKind::File,
            label: path.clone(),
            path: Some(path.clone()),
            device: stat.device,
            inode: stat.inode,
            born_ns: stat.born_ns,
            print: Print::default(),
            offset: 0,
            last_ns: 0,
            tail: Tail::default(),
            bytes: stat.bytes,
            wait: None,
            after: None,
            copy_of: None,
            queued: false,
            trouble: None,
            reading: None,
        }
    }

    /// Whether files that are there at the start are read from their ends.
    pub(super) fn starts_at_end(&self, input: usize) -> bool {
        self.inputs[input].settings.start == Start::End
    }
}

/// Raises the process's limit of descriptors as far as it may be, and says how many files may be open.
fn descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = (MAX_OPEN + OTHER_FILES) as u64;
    let current = limit.current.unwrap_or(u64::MAX);
    let mut reached = current;
    if current < wanted {
        let raised = limit.maximum.map_or(wanted, |most| most.min(wanted));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }).is_ok() {
            reached = raised;
        }
    }
    (reached.min(wanted) as usize).saturating_sub(OTHER_FILES).max(16)
}
