//! A journal input: a thread that reads entries, shapes them and cuts blocks.
//!
//! The place of each block is the cursor of its last entry. Where the journal is begun for the first time, the place
//! before its first entry is written down at once: after a restart "now" or "this boot" would be another place.

use super::fields::Fields;
use super::settings::{Begin, Reader, Settings};
use super::{Cursor, Directory, Entry, Id, Journal, JournalError, Journalctl, Start, Trouble};
use crate::source::log::checkpoints::{Checkpoints, Described, Place, Print, SourceId, SourceKind};
use crate::source::log::cutter::{BLOCK_LINGER, BLOCK_TEXT_BYTES, Cutter};
use crate::source::log::origin::{Origin, Range};
use crate::source::log::pushed::hand_over;
use crate::source::log::shape::{Message, Shaper};
use parking_lot::Mutex;
use pegel_runtime::metrics::{Counter, Registry};
use serde::Serialize;
use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often headers are looked at where nothing else tells of entries: journald itself tells every quarter of a
/// second. A look reads two hundred bytes of each file that is being written.
const LOOK_EVERY: Duration = Duration::from_millis(40);
/// How long entries that were left out wait until the place moves over them.
const PASS_EVERY: Duration = Duration::from_secs(5);
/// How long after an error the journal is opened anew.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How a journal input fares.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// The input's name.
    pub input: String,
    /// Who reads: `files` or `journalctl`.
    pub reader: &'static str,
    /// The cursor of the last entry that was read.
    pub cursor: Option<String>,
    /// How old that entry was when it was read, in seconds.
    pub lag_seconds: f64,
    /// Why nothing is read, if so.
    pub trouble: Option<String>,
    /// The last file that was set aside, and why.
    pub set_aside: Option<String>,
}

/// What the thread works with.
pub(in crate::source::log) struct Parts {
    pub(in crate::source::log) name: String,
    pub(in crate::source::log) settings: Settings,
    pub(in crate::source::log) fields: Fields,
    pub(in crate::source::log) shaper: Shaper,
    pub(in crate::source::log) cutter: Cutter,
    pub(in crate::source::log) registry: Registry,
    pub(in crate::source::log) shutdown: CancellationToken,
    pub(in crate::source::log) status: Arc<Mutex<Status>>,
}

struct Counters {
    files: Counter,
    damaged: Counter,
    vacuumed: Counter,
    fields: Counter,
    oversized: Counter,
    filtered: Counter,
    without_message: Counter,
}

impl Counters {
    fn new(registry: &Registry, input: &str) -> Self {
        let counter = |name, help| registry.counter(name, help, &[("input", input)]);
        Self {
            files: counter(
                "pegel_log_journal_damaged_files_total",
                "Files of the journal that were set aside because they are damaged.",
            ),
            damaged: counter(
                "pegel_log_journal_damaged_entries_total",
                "Entries of the journal that can't be read because their file is damaged.",
            ),
            vacuumed: counter(
                "pegel_log_journal_vacuumed_entries_total",
                "Entries of the journal that journald deleted before they were read.",
            ),
            fields: counter(
                "pegel_log_journal_damaged_fields_total",
                "Fields of journal entries that can't be read.",
            ),
            oversized: counter(
                "pegel_log_journal_cut_fields_total",
                "Fields of journal entries that were cut or left out for their length.",
            ),
            filtered: counter(
                "pegel_log_journal_filtered_entries_total",
                "Entries of the journal that the input's filters leave out.",
            ),
            without_message: counter(
                "pegel_log_journal_without_message_entries_total",
                "Entries of the journal that have no MESSAGE and are left out.",
            ),
        }
    }

    fn add(&self, trouble: &Trouble) {
        self.files.add(trouble.damaged_files);
        self.damaged.add(trouble.damaged_entries);
        self.vacuumed.add(trouble.vacuumed_entries);
        self.fields.add(trouble.damaged_fields);
        self.oversized.add(trouble.oversized_fields);
    }
}

/// The thread's state.
struct Input {
    parts: Parts,
    counters: Counters,
    source: SourceId,
    journal: Option<Box<dyn Journal>>,
    entry: Entry,
    /// The entry was read and nothing is made of it yet.
    pending: bool,
    /// Where reading stands, as the checkpoints spell it.
    cursor: String,
    floor_ns: i64,
    /// What was read since the cutter was last told.
    range: Option<Range>,
    /// When the block has to be cut.
    cut_at: Option<Instant>,
    /// The journal was opened behind this entry, and none that comes after it was taken since.
    behind: Option<Cursor>,
    /// Entries that were counted as unreadable since the journal was opened.
    unreadable: u64,
}

/// Nothing more is to be done.
struct Over;

pub(in crate::source::log) fn run(parts: Parts) {
    let counters = Counters::new(&parts.registry, &parts.name);
    let source = source(parts.cutter.checkpoints(), &parts.name, &directories(&parts.settings)[0]);
    let place = parts.cutter.checkpoints().place(source);
    parts.status.lock().input.clone_from(&parts.name);
    let mut input = Input {
        counters,
        source,
        journal: None,
        entry: Entry::default(),
        pending: false,
        cursor: place.cursor.into(),
        floor_ns: place.last_ns,
        range: None,
        cut_at: None,
        behind: None,
        unreadable: 0,
        parts,
    };
    if input.rebuild().is_ok() {
        let _ = input.follow();
    }
}

fn source(checkpoints: &Arc<Checkpoints>, name: &str, directory: &Path) -> SourceId {
    let known = checkpoints.sources(name).into_iter().find(|(_, known)| known.kind == SourceKind::Journal);
    known.map_or_else(
        || {
            checkpoints.source(Described {
                input: name.into(),
                kind: SourceKind::Journal,
                path: directory.into(),
                device: 0,
                inode: 0,
                born_ns: 0,
                print: Print::default(),
            })
        },
        |(id, _)| id,
    )
}

/// Where journald writes.
fn directories(settings: &Settings) -> Vec<PathBuf> {
    if let Some(directory) = &settings.directory {
        return vec![directory.clone()];
    }
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    ["/var/log/journal", "/run/log/journal"].map(|dir| Path::new(dir).join(id.trim())).to_vec()
}

impl Input {
    /// Reads the journal until the end of the agent.
    fn follow(&mut self) -> Result<(), Over> {
        loop {
            if self.parts.shutdown.is_cancelled() {
                // What was read is in the journal: it is cut now, and delivered or read again.
                return self.cut();
            }
            if self.due() {
                self.cut()?;
            }
            match self.next() {
                Ok(true) => self.take(false)?,
                Ok(false) => {
                    let until =
                        self.cut_at.map_or(LOOK_EVERY, |at| at.saturating_duration_since(Instant::now()));
                    if let Some(journal) = &mut self.journal {
                        journal.wait(until.min(LOOK_EVERY));
                    }
                }
                Err(error) => {
                    self.trouble(&error);
                    self.cut()?;
                    let again = Instant::now() + AGAIN_AFTER;
                    while Instant::now() < again && !self.parts.shutdown.is_cancelled() {
                        std::thread::sleep(LOOK_EVERY);
                    }
                }
            }
        }
    }

    /// Builds the blocks again that were handed over before a kill and that nobody may hold.
    fn rebuild(&mut self) -> Result<(), Over> {
        let checkpoints = self.parts.cutter.checkpoints().clone();
        for origin in checkpoints.outstanding() {
            let Some(range) = origin.ranges.iter().find(|range| range.source == self.source) else {
                continue;
            };
            if self.parts.shutdown.is_cancelled() {
                return Err(Over);
            }
            let (range, mut left) = (range.clone(), self.floor_ns);
            if range.from_cursor != self.cursor {
                // What lies between was settled.
                self.cursor.clone_from(&range.from_cursor);
                self.journal = None;
                self.pending = false;
            }
            std::mem::swap(&mut self.floor_ns, &mut left);
            self.floor_ns = range.floor_ns;
            let built = self.build_again(&origin, &range)?;
            self.behind = range.to_cursor.parse().ok();
            if built < range.entries {
                let lost = u64::from(range.entries - built);
                tracing::warn!(
                    input = self.parts.name,
                    lost,
                    "entries of the journal are gone that were to be sent again"
                );
                self.parts.cutter.intake().lost_in_crash(lost);
            }
        }
        Ok(())
    }

    /// How many entries it could make.
    fn build_again(&mut self, origin: &Origin, range: &Range) -> Result<u32, Over> {
        let Ok(end) = range.to_cursor.parse::<Cursor>() else {
            self.parts.cutter.checkpoints().withdraw(origin.intent);
            return Ok(0);
        };
        self.parts.cutter.begin_again(origin.base_ns);
        loop {
            match self.next() {
                Ok(true) if self.entry.cursor.order(&end) == Ordering::Greater => break,
                Ok(true) => {
                    let last = self.entry.cursor.order(&end) == Ordering::Equal;
                    self.take(true)?;
                    if last {
                        break;
                    }
                }
                Ok(false) => break,
                Err(error) => {
                    self.trouble(&error);
                    break;
                }
            }
        }
        let built = self.range.as_ref().map_or(0, |range| range.entries);
        self.cover();
        self.cut_at = None;
        if self.parts.cutter.is_empty() {
            self.parts.cutter.checkpoints().withdraw(origin.intent);
            return Ok(0);
        }
        match self.parts.cutter.finish_again(origin) {
            Some(logs) => self.hand_over(logs)?,
            None => self.parts.cutter.checkpoints().withdraw(origin.intent),
        }
        Ok(built)
    }

    /// Reads the next entry unless one is pending.
    fn next(&mut self) -> Result<bool, JournalError> {
        if self.pending {
            return Ok(true);
        }
        if self.journal.is_none() {
            self.open()?;
        }
        let journal = self.journal.as_mut().expect("it was opened");
        let found = journal.next(&mut self.entry);
        let trouble = journal.trouble();
        if trouble != Trouble::default() {
            self.counters.add(&trouble);
            self.unreadable += trouble.damaged_entries + trouble.vacuumed_entries;
            if trouble.last.is_some() {
                self.parts.status.lock().set_aside = trouble.last;
            }
        }
        match found {
            Ok(found) => {
                self.pending = found;
                if self.cursor.is_empty() && found {
                    self.put(&self.entry.cursor.before());
                }
                Ok(found)
            }
            Err(error @ JournalError::Format { .. }) if self.parts.settings.reader == Reader::Auto => {
                tracing::warn!(%error, "journalctl reads the journal instead");
                self.journal = None;
                self.parts.settings.reader = Reader::Journalctl;
                Ok(false)
            }
            Err(error) => {
                self.journal = None;
                Err(error)
            }
        }
    }

    fn open(&mut self) -> Result<(), JournalError> {
        let start = match (self.cursor.parse(), self.parts.settings.begin) {
            (Ok(cursor), _) => Start::After(cursor),
            (Err(_), Begin::Beginning) => Start::Beginning,
            (Err(_), Begin::Boot) => boot().map_or(Start::Beginning, Start::Boot),
            (Err(_), Begin::End) => Start::End,
        };
        if let Start::After(cursor) = start {
            self.behind.get_or_insert(cursor);
        }
        self.unreadable = 0;
        let settings = &self.parts.settings;
        let mut reader = "files";
        let opened = if settings.reader == Reader::Journalctl {
            None
        } else {
            match Directory::open(directories(settings), self.parts.fields.wanted(), start) {
                Ok(journal) => Some(journal),
                Err(error @ JournalError::Format { .. }) if settings.reader == Reader::Auto => {
                    tracing::warn!(%error, "journalctl reads the journal instead");
                    self.parts.settings.reader = Reader::Journalctl;
                    None
                }
                Err(error) => return Err(error),
            }
        };
        let settings = &self.parts.settings;
        let journal: Box<dyn Journal> = match opened {
            Some(journal) => Box::new(journal),
            None => {
                reader = "journalctl";
                let program = settings.journalctl.clone();
                Box::new(Journalctl::new(program, settings.directory.clone(), start)?)
            }
        };
        if let Some(place) = journal.place().filter(|_| self.cursor.is_empty()) {
            self.put(&place);
        }
        self.journal = Some(journal);
        let mut status = self.parts.status.lock();
        status.reader = reader;
        status.trouble = None;
        Ok(())
    }

    /// Writes down where the journal was begun.
    fn put(&mut self, cursor: &Cursor) {
        self.cursor = cursor.to_string();
        let place = Place { cursor: self.cursor.as_str().into(), ..Place::default() };
        self.parts.cutter.checkpoints().put(self.source, place);
    }

    /// Makes an entry of the one that is pending, or leaves it out.
    fn take(&mut self, again: bool) -> Result<(), Over> {
        self.pending = false;
        if !again && let Some(behind) = self.behind.take() {
            self.count_gone(&behind);
        }
        let base_ns = self.parts.cutter.begin();
        let mut made = 0;
        let floor_ns = self.floor_ns;
        match self.entry.field("MESSAGE") {
            _ if !self.parts.fields.takes(&self.entry) => self.counters.filtered.inc(),
            None => self.counters.without_message.inc(),
            Some(text) => {
                let at_ns = Some(Fields::at_ns(&self.entry));
                let labels = self.parts.fields.labels(&self.entry).to_vec();
                let metadata = self.parts.fields.metadata(&self.entry);
                let metadata: Vec<(&str, &str)> = metadata.iter().map(|(n, v)| (*n, v.as_ref())).collect();
                let message = Message { text, at_ns, base_ns, floor_ns, metadata: &metadata, again };
                let builder = self.parts.cutter.builder();
                let shaped = self.parts.shaper.message(&labels, message, BLOCK_TEXT_BYTES, builder);
                if shaped.full && !again {
                    // It goes into a block of its own time.
                    self.pending = true;
                    return self.cut();
                }
                self.floor_ns = shaped.last_ns;
                made = shaped.entries;
            }
        }
        let to = self.entry.cursor.to_string();
        let range = self.range.get_or_insert_with(|| Range {
            source: self.source,
            from_cursor: self.cursor.clone(),
            floor_ns,
            ..Range::default()
        });
        range.to_cursor.clone_from(&to);
        range.last_ns = self.floor_ns;
        range.entries += made;
        self.cursor = to;
        let linger = if range.entries > 0 { BLOCK_LINGER } else { PASS_EVERY };
        let due = Instant::now() + linger;
        self.cut_at = Some(self.cut_at.map_or(due, |at| at.min(due)));
        Ok(())
    }

    /// The first entry behind one where reading had ended: the numbers between them are of entries that were deleted
    /// meanwhile.
    fn count_gone(&self, behind: &Cursor) {
        let next = &self.entry.cursor;
        if next.seqnum_id != behind.seqnum_id {
            tracing::debug!(input = self.parts.name, "the journal goes on with numbers of another sequence");
            return;
        }
        let between = next.seqnum.saturating_sub(behind.seqnum).saturating_sub(1);
        let gone = between.saturating_sub(self.unreadable);
        if gone > 0 {
            self.counters.vacuumed.add(gone);
            tracing::warn!(
                input = self.parts.name,
                entries = gone,
                "entries of the journal were deleted before they were read; give the journal more room (SystemMaxUse=)"
            );
        }
    }

    fn due(&self) -> bool {
        self.parts.cutter.is_full() || self.cut_at.is_some_and(|at| Instant::now() >= at)
    }

    fn cover(&mut self) {
        if let Some(range) = self.range.take() {
            self.parts.cutter.cover(range);
        }
    }

    fn cut(&mut self) -> Result<(), Over> {
        self.cover();
        self.cut_at = None;
        {
            let mut status = self.parts.status.lock();
            if let Ok(cursor) = self.cursor.parse::<Cursor>() {
                let now_us = crate::source::clock::system_wall_ns() / 1_000;
                status.lag_seconds = (now_us - cursor.realtime_us as i64).max(0) as f64 / 1e6;
            }
            status.cursor = (!self.cursor.is_empty()).then(|| self.cursor.clone());
        }
        match self.parts.cutter.finish() {
            Some(logs) => self.hand_over(logs),
            None => Ok(()),
        }
    }

    fn hand_over(&self, logs: pegel_proto::batch::Logs) -> Result<(), Over> {
        let cutter = &self.parts.cutter;
        hand_over(cutter.intake(), logs, Some(cutter.checkpoints()), &self.parts.shutdown).map_err(|_| Over)
    }

    fn trouble(&mut self, error: &JournalError) {
        let mut status = self.parts.status.lock();
        if status.trouble.as_deref() != Some(&error.to_string()) {
            tracing::warn!(input = self.parts.name, %error, "the journal is not read; it is tried again every 5 s");
            status.trouble = Some(error.to_string());
        }
    }
}

/// The boot that runs.
fn boot() -> Option<Id> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().parse().ok()
}
