//! Writers of numbered lines on threads of their own, and the ways in which people rotate files.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
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
    /// Removed at once and made anew, so that its inode number is free for the next file.
    Remove,
    /// Copied to `.1` and truncated. The writer pauses between its last line and the truncation, because what is
    /// written in between is lost to everybody, whoever reads.
    CopyTruncate,
    /// Renamed, and the old one is compressed by gzip at once, so that a reader that is behind finds only that.
    Compress,
}

/// A running writer.
pub struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// What one writer does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The file.
    pub path: PathBuf,
    /// Lines a second.
    pub rate: u64,
    /// How it is rotated, and how often.
    pub rotation: Rotation,
    /// Time from rotation to rotation.
    pub every: Duration,
}

impl Plan {
    pub fn plain(path: PathBuf, rate: u64) -> Self {
        Self { path, rate, rotation: Rotation::Never, every: Duration::MAX }
    }

    pub fn rotated(path: PathBuf, rate: u64, rotation: Rotation, every: Duration) -> Self {
        Self { path, rate, rotation, every }
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

/// How many lines a file has after so many numbers.
pub fn lines_after(numbers: u64) -> u64 {
    numbers + numbers.div_ceil(10)
}

impl Writer {
    pub fn start(plan: Plan) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), written.clone());
        let thread = std::thread::spawn(move || write(&plan, &stopped, &count));
        Self { stop, written, thread: Some(thread) }
    }

    /// How many numbers it has written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Has it end, and says how many numbers it wrote.
    pub fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.thread.take().expect("it ends once").join().expect("the writer wrote");
        self.written()
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).expect("a file")
}

fn write(plan: &Plan, stop: &AtomicBool, written: &AtomicU64) {
    let mut file = open(&plan.path);
    let began = Instant::now();
    let mut rotated = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Acquire) {
        // What is due by now, at once: a busy machine changes the moments, not the amount.
        let due = (began.elapsed().as_millis() as u64 * plan.rate) / 1_000;
        let mut text = String::new();
        while number < due && text.len() < 64 << 10 {
            text.push_str(&line(number));
            text.push('\n');
            if number.is_multiple_of(10) {
                text.push_str(SAME);
                text.push('\n');
            }
            number += 1;
        }
        // In two pieces, so that a reader meets half a line now and then.
        let (head, tail) = text.as_bytes().split_at(text.len() / 3);
        file.write_all(head).and_then(|()| file.write_all(tail)).expect("lines are written");
        written.store(number, Ordering::Release);
        if rotated.elapsed() >= plan.every {
            file = rotate(plan, file);
            rotated = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
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

fn rotate(plan: &Plan, mut file: File) -> File {
    let path = &plan.path;
    match plan.rotation {
        Rotation::Never => file,
        Rotation::Rename => {
            shift(path);
            open(path)
        }
        Rotation::Remove => {
            drop(file);
            // Time for a reader that is up to date; one that is behind holds the file open.
            std::thread::sleep(Duration::from_millis(100));
            fs::remove_file(path).expect("the file is removed");
            open(path)
        }
        Rotation::CopyTruncate => {
            std::thread::sleep(Duration::from_millis(100));
            fs::copy(path, numbered(path, 1)).expect("the file is copied");
            file.set_len(0).expect("the file is truncated");
            file.flush().expect("nothing is buffered");
            file
        }
        Rotation::Compress => {
            drop(file);
            let aside = numbered(path, 1);
            fs::rename(path, &aside).expect("the file is renamed");
            let status = std::process::Command::new("gzip").arg("-f").arg(&aside).status();
            assert!(status.is_ok_and(|s| s.success()), "gzip runs");
            open(path)
        }
    }
}
