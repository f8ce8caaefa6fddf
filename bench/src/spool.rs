//! `bench spool`: durable append and FIFO drain, its memory and its disk, beside a bare loop that writes and
//! fdatasyncs the same bytes.
//!
//! Each batch size runs in a process of its own, so that the peak of resident memory is its own. The whole backlog is
//! appended first and drained then: memory and disk at their worst.

use anyhow::{Context, bail};
use clap::Args;
use pegel_agent::spool::{
    Cursor, RecordHeader, SegmentedSpool, Settings, Spool, WhenFull, inspect::disk_bytes,
};
use pegel_proto::batch::BatchSeq;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Bytes of a group commit: what gathers during one linger of an agent that catches up.
const COMMIT_BYTES: usize = 4 << 20;

/// glibc raises its mmap threshold with every large block that is freed and then keeps such blocks: 45 MB resident
/// where 14 to 20 are in use. A fixed threshold ends that, at the price of more page faults. The agent is to be
/// started with the same setting.
const MALLOC: (&str, &str) = ("MALLOC_TRIM_THRESHOLD_", "131072");

/// What `bench spool` is told.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Where to write; a directory on the disk that is to be measured.
    #[arg(long, default_value = "target/bench-spool")]
    dir: PathBuf,
    /// The backlog in GB (10 for the full run).
    #[arg(long, default_value_t = 1.0)]
    backlog_gb: f64,
    /// Batch sizes in KiB.
    #[arg(long, value_delimiter = ',', default_values_t = [4, 16, 64, 256])]
    batch_kib: Vec<usize>,
    /// KiB in one commit.
    #[arg(long, default_value_t = COMMIT_BYTES >> 10)]
    commit_kib: usize,
    /// A segment's size in KiB.
    #[arg(long, default_value_t = (pegel_agent::spool::DEFAULT_SEGMENT_BYTES >> 10) as usize)]
    segment_kib: usize,
    /// Measures one size in this process.
    #[arg(long, hide = true)]
    alone: bool,
}

/// Runs the benchmark.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    for kib in &arguments.batch_kib {
        if arguments.alone {
            return measure(arguments, *kib);
        }
        let ended = Command::new(std::env::current_exe()?)
            .env(MALLOC.0, MALLOC.1)
            .args(["spool", "--alone", "--batch-kib", &kib.to_string()])
            .args(["--commit-kib", &arguments.commit_kib.to_string()])
            .args(["--segment-kib", &arguments.segment_kib.to_string()])
            .args(["--backlog-gb", &arguments.backlog_gb.to_string()])
            .arg("--dir")
            .arg(&arguments.dir)
            .status()?;
        if !ended.success() {
            bail!("bench spool with batches of {kib} KiB ended with {ended}");
        }
    }
    Ok(())
}

fn measure(arguments: &Arguments, kib: usize) -> anyhow::Result<()> {
    let dir = arguments.dir.join(format!("{kib}k"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let batch = noise(kib << 10);
    let total = (arguments.backlog_gb * 1e9) as usize / batch.len() * batch.len();
    let per_commit = (arguments.commit_kib << 10) / batch.len().max(1);

    let bare_before = bare_loop(&dir, &batch, total.min(512 << 20), per_commit.max(1))?;
    let spool_dir = dir.join("spool");
    let settings = Settings {
        quota_bytes: u64::MAX / 4,
        when_full: WhenFull::Wait,
        segment_bytes: (arguments.segment_kib as u64) << 10,
        ..Settings::new(&spool_dir)
    };
    let mut spool = SegmentedSpool::open(settings)?;
    let write_before = io_bytes("write_bytes")?;
    let cpu_before = cpu_seconds();

    let began = Instant::now();
    let mut seq = 0;
    let mut commits = Vec::new();
    while seq < (total / batch.len()) as u64 {
        let commit = Instant::now();
        for _ in 0..per_commit.max(1) {
            seq += 1;
            let header = RecordHeader { seq: BatchSeq(seq), records: 1, oldest_ms: 0, flags: 0 };
            spool.append(header, &mut |_, out| out.extend_from_slice(&batch))?;
        }
        if let Some(error) = spool.commit()?.failed {
            return Err(error.into());
        }
        commits.push(commit.elapsed());
    }
    let append_seconds = began.elapsed().as_secs_f64();
    let written_ratio =
        (io_bytes("write_bytes")? - write_before) as f64 / (seq as usize * batch.len()) as f64;
    let live = seq as usize * batch.len();
    let peak_disk = disk_bytes(&spool_dir);
    let accounted = spool.inventory().bytes;

    let drain = Instant::now();
    let mut cursor = Cursor::new(BatchSeq(1));
    let mut read = 0;
    let mut trimmed = 0;
    let mut most_disk = peak_disk;
    while let Some(record) = spool.next(&mut cursor)? {
        read += 1;
        if record.bytes.len() != batch.len() || record.header.seq.0 != read {
            bail!("batch {} came back wrong", record.header.seq);
        }
        if record.segment != trimmed {
            trimmed = record.segment;
            spool.trim(BatchSeq(read - 1))?;
            if trimmed % 64 == 1 {
                most_disk = most_disk.max(disk_bytes(&spool_dir));
            }
        }
    }
    spool.trim(BatchSeq(seq))?;
    let drain_seconds = drain.elapsed().as_secs_f64();
    if read != seq {
        bail!("{seq} batches were stored and {read} read");
    }
    let cpu_seconds = cpu_seconds() - cpu_before;
    commits.sort_unstable();
    let bare_after = bare_loop(&dir, &batch, total.min(512 << 20), per_commit.max(1))?;
    let bare = f64::midpoint(bare_before, bare_after);
    let mb = live as f64 / 1e6;
    println!(
        "{}",
        serde_json::json!({
            "bench": "spool",
            "batch_kib": kib,
            "mb_per_s": round(mb / append_seconds),
            "drain_mb_per_s": round(mb / drain_seconds),
            "both_mb_per_s": round(mb / (append_seconds + drain_seconds)),
            "bare_mb_per_s": round(bare),
            "of_bare": round(mb / append_seconds / bare),
            "commit_p99_ms": commits[commits.len() * 99 / 100].as_secs_f64() * 1e3,
            "cpu_seconds_per_gb": round(cpu_seconds / (mb / 1e3)),
            "written_ratio": round(written_ratio),
            "peak_disk_ratio": round(most_disk as f64 / live as f64),
            "accounted_ratio": round(accounted as f64 / live as f64),
            "disk_left_mb": round(disk_bytes(&spool_dir) as f64 / 1e6),
            "resident_mb": round(status_kb("VmHWM:")? / 1e3),
            "backlog_mb": round(mb),
            "malloc_trim_threshold": std::env::var(MALLOC.0).unwrap_or_else(|_| "default".to_owned()),
        })
    );
    drop(spool);
    fs::remove_dir_all(&dir)?;
    Ok(())
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The same bytes, written and fdatasynced in the same groups to one file a segment.
fn bare_loop(dir: &Path, batch: &[u8], total: usize, per_commit: usize) -> anyhow::Result<f64> {
    let path = dir.join("bare");
    let began = Instant::now();
    let mut written = 0;
    while written < total {
        let file = File::create(&path)?;
        let mut at = 0;
        while at < pegel_agent::spool::DEFAULT_SEGMENT_BYTES as usize && written < total {
            for _ in 0..per_commit {
                file.write_all_at(batch, at as u64)?;
                at += batch.len();
                written += batch.len();
            }
            file.sync_data()?;
        }
    }
    let rate = written as f64 / 1e6 / began.elapsed().as_secs_f64();
    fs::remove_file(&path)?;
    std::io::stdout().flush()?;
    Ok(rate)
}

/// Bytes that don't compress, the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn status_kb(key: &str) -> anyhow::Result<f64> {
    field("/proc/self/status", key)
}

fn io_bytes(key: &str) -> anyhow::Result<u64> {
    Ok(field("/proc/self/io", key)? as u64)
}

fn field(file: &str, key: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find(|line| line.starts_with(key)).with_context(|| format!("{key} in {file}"))?;
    Ok(line.split_whitespace().nth(1).context("a value")?.parse()?)
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}
