//! Writers of lines that say which they are, on threads of their own, and the ways in which people rotate files.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a file is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Not at all.
    Never,
    /// Renamed to `.1`, `.2` and so on up to 9, and made anew: logrotate's default.
    Rename,
    /// Renamed to a name with a number that rises, as logrotate's `dateext` does, and made anew. Two hundred are kept: for
    /// an agent that is killed all the time and gets little of a busy machine.
    Dated,
    /// Removed at once and made anew, so that its inode number is free for the next file.
    Remove,
    /// Copied to `.1` and truncated. The writer pauses between its last line and the truncation, because what is
    /// written in between is lost to everybody, whoever reads.
    CopyTruncate,
    /// Renamed, and the old one is compressed by gzip at once, so that a reader that is behind finds only that.
    Compress,
}

/// What lines say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// Their number; every tenth is followed by [`SAME`].
    Numbered,
    /// The same, all of them.
    Same,
    /// As numbered ones, with a time before it: that of number 0, and from one to the next, in nanoseconds.
    Timed { first_ns: i64, step_ns: i64 },
}

/// What one writer does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The file.
    pub path: PathBuf,
    /// Lines a second.
    pub rate: u64,
    /// What they say.
    pub text: Text,
    /// How the file is rotated, and how often.
    pub rotation: Rotation,
    /// Time from rotation to rotation.
    pub every: Duration,
    /// How many lines each generation begins with that are the same in all of them.
    pub header: u64,
}

impl Plan {
    pub fn plain(path: PathBuf, rate: u64) -> Self {
        Self::rotated(path, rate, Rotation::Never, Duration::MAX)
    }

    pub fn rotated(path: PathBuf, rate: u64, rotation: Rotation, every: Duration) -> Self {
        Self { path, rate, text: Text::Numbered, rotation, every, header: 0 }
    }

    /// Adds what is written for a number.
    fn put(&self, number: u64, out: &mut Vec<String>) {
        if self.text == Text::Same {
            return out.push(SAME.to_owned());
        }
        out.push(line(number));
        if number.is_multiple_of(10) {
            out.push(SAME.to_owned());
        }
    }

    /// A generation with these numbers.
    pub fn content(&self, numbers: Range<u64>) -> String {
        let mut lines: Vec<String> = (0..self.header).map(header_line).collect();
        numbers.for_each(|number| self.put(number, &mut lines));
        lines.into_iter().map(|line| line + "\n").collect()
    }

    /// How many lines these numbers are in so many generations.
    pub fn count(&self, numbers: Range<u64>, generations: u64) -> u64 {
        let tenths =
            if self.text == Text::Same { 0 } else { numbers.end.div_ceil(10) - numbers.start.div_ceil(10) };
        numbers.end - numbers.start + tenths + self.header * generations
    }

    /// What stands before the lines of a number.
    fn stamp(&self, number: u64) -> String {
        let Text::Timed { first_ns, step_ns } = self.text else { return String::new() };
        let at_ns = first_ns + step_ns * number as i64;
        let at = time::OffsetDateTime::from_unix_timestamp_nanos(at_ns.into()).expect("a time");
        at.format(&time::format_description::well_known::Rfc3339).expect("a time") + " "
    }
}

/// The line of a number: a third of it can't be compressed, as in usual logs. Every tenth is followed by one that says
/// the same whenever it comes.
pub fn line(number: u64) -> String {
    let mixed = |salt: u64| {
        (number ^ salt)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
            .wrapping_mul(0xbf58_476d_1ce4_e5b9)
    };
    format!(
        "line {number:08} of the oracle, with some words behind it: {:016x}{:016x}",
        mixed(0),
        mixed(1 << 40)
    )
}

/// The line that is written again and again: genuine repeats have to arrive as often as they were written.
pub const SAME: &str = "a line that says the same every time";

/// A line with which every generation begins: a dozen of them are more than what an agent may look at.
pub fn header_line(nth: u64) -> String {
    format!(
        "# {nth:02} this stands at the beginning of every file, as with formats that name their fields: {SAME}"
    )
}

/// A running writer.
pub struct Writer {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    thread: Option<JoinHandle<Written>>,
}

impl Writer {
    pub fn start(plan: Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let most = Arc::new(AtomicU64::new(u64::MAX));
        let (stopped, limit) = (stop.clone(), most.clone());
        let thread = std::thread::spawn(move || write(plan, &stopped, &limit));
        Self { stop, most, thread: Some(thread) }
    }

    /// Has it write no more than so many numbers, and what is due by then if it is more than before.
    pub fn write_up_to(&self, most: u64) {
        self.most.store(most, Ordering::Release);
    }

    /// Has it end, and says what it wrote.
    pub fn end(mut self) -> Written {
        self.stop.store(true, Ordering::Release);
        self.thread.take().expect("it ends once").join().expect("the writer wrote")
    }
}

/// What a writer has written.
#[derive(Debug)]
pub struct Written {
    plan: Plan,
    numbers: u64,
    /// Before which numbers generations began.
    begun: Vec<u64>,
}

impl Written {
    /// What somebody else wrote as a plan says, in generations that began before these numbers.
    pub fn by_hand(plan: Plan, numbers: u64, begun: Vec<u64>) -> Self {
        Self { plan, numbers, begun }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.plan.path
    }

    /// How many lines there are.
    pub fn count(&self) -> u64 {
        self.plan.count(0..self.numbers, self.begun.len() as u64)
    }

    /// All lines in their order, with their time in nanoseconds where they have one.
    pub fn lines(&self) -> impl Iterator<Item = (Option<i64>, String)> {
        let mut begun = self.begun.iter().peekable();
        (0..=self.numbers).flat_map(move |number| {
            let mut lines = Vec::new();
            while begun.next_if(|begun| **begun == number).is_some() {
                lines.extend((0..self.plan.header).map(header_line));
            }
            if number < self.numbers {
                self.plan.put(number, &mut lines);
            }
            let at_ns = match self.plan.text {
                Text::Timed { first_ns, step_ns } => Some(first_ns + step_ns * number as i64),
                _ => None,
            };
            lines.into_iter().map(move |line| (at_ns, line))
        })
    }
}

/// The file of a new generation, with what each begins with.
fn begin(plan: &Plan) -> File {
    let mut file = OpenOptions::new().create(true).append(true).open(&plan.path).expect("a file");
    put_header(plan, &mut file);
    file
}

fn put_header(plan: &Plan, file: &mut File) {
    let header: String = (0..plan.header).map(|nth| header_line(nth) + "\n").collect();
    file.write_all(header.as_bytes()).expect("lines are written");
}

fn write(plan: Plan, stop: &AtomicBool, most: &AtomicU64) -> Written {
    let mut file = begin(&plan);
    let began = Instant::now();
    let mut rotated = Instant::now();
    let (mut number, mut begun) = (0, vec![0]);
    let mut lines = Vec::new();
    while !stop.load(Ordering::Acquire) {
        // What is due by now, at once: a busy machine changes the moments, not the amount.
        let due = (began.elapsed().as_millis() as u64 * plan.rate) / 1_000;
        let due = due.min(most.load(Ordering::Acquire));
        let mut text = String::new();
        while number < due && text.len() < 64 << 10 {
            plan.put(number, &mut lines);
            let stamp = plan.stamp(number);
            lines.drain(..).for_each(|line| text.extend([&*stamp, &line, "\n"]));
            number += 1;
        }
        // In two pieces, so that a reader meets half a line now and then.
        let (head, tail) = text.as_bytes().split_at(text.len() / 3);
        file.write_all(head).and_then(|()| file.write_all(tail)).expect("lines are written");
        if rotated.elapsed() >= plan.every {
            file = rotate(&plan, file, begun.len());
            begun.push(number);
            rotated = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Written { plan, numbers: number, begun }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    PathBuf::from(format!("{}.{number}", path.display()))
}

fn shift(path: &Path) {
    for number in (1..9).rev() {
        let _ = fs::rename(numbered(path, number), numbered(path, number + 1));
    }
    fs::rename(path, numbered(path, 1)).expect("the file is renamed");
}

/// The `nth` rotation.
fn rotate(plan: &Plan, mut file: File, nth: usize) -> File {
    let path = &plan.path;
    match plan.rotation {
        Rotation::Never => file,
        Rotation::Rename => {
            shift(path);
            begin(plan)
        }
        Rotation::Dated => {
            let dated = |nth: usize| PathBuf::from(format!("{}-2026{nth:08}", path.display()));
            fs::rename(path, dated(nth)).expect("the file is renamed");
            if let Some(oldest) = nth.checked_sub(200) {
                let _ = fs::remove_file(dated(oldest));
            }
            begin(plan)
        }
        Rotation::Remove => {
            drop(file);
            // Time for a reader that is up to date; one that is behind holds the file open.
            std::thread::sleep(Duration::from_millis(100));
            fs::remove_file(path).expect("the file is removed");
            begin(plan)
        }
        Rotation::CopyTruncate => {
            std::thread::sleep(Duration::from_millis(100));
            fs::copy(path, numbered(path, 1)).expect("the file is copied");
            file.set_len(0).expect("the file is truncated");
            put_header(plan, &mut file);
            file
        }
        Rotation::Compress => {
            drop(file);
            let aside = numbered(path, 1);
            fs::rename(path, &aside).expect("the file is renamed");
            let status = std::process::Command::new("gzip").arg("-f").arg(&aside).status();
            assert!(status.is_ok_and(|s| s.success()), "gzip runs");
            begin(plan)
        }
    }
}
