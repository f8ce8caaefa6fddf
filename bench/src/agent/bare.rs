//! A loop that reads the files of the default collectors and does nothing with them: the kernel's share of a scrape.

use anyhow::Result;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// The files that the default collectors read each time; those that this kernel has not are left out.
const FILES: [&str; 14] = [
    "/proc/meminfo",
    "/proc/stat",
    "/proc/diskstats",
    "/proc/net/dev",
    "/proc/net/netstat",
    "/proc/net/snmp",
    "/proc/net/snmp6",
    "/proc/vmstat",
    "/proc/loadavg",
    "/proc/sys/fs/file-nr",
    "/proc/pressure/cpu",
    "/proc/pressure/io",
    "/proc/pressure/memory",
    "/proc/self/mountinfo",
];
/// Larger than any of them on a machine of hundreds of CPUs.
const BUFFER_BYTES: usize = 256 << 10;

/// How often the files are read.
#[derive(Debug, clap::Args)]
pub struct BareArguments {
    /// Seconds between two readings.
    #[arg(long)]
    interval_seconds: u64,
}

/// Reads the files until killed, their descriptors kept open.
pub fn run(arguments: &BareArguments) -> Result<()> {
    let files: Vec<File> = FILES.iter().filter_map(|path| File::open(path).ok()).collect();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let real =
        |line: &&str| !line.contains(" /proc/") && !line.contains(" /sys/") && !line.contains(" /dev/");
    let points: Vec<String> =
        mounts.lines().filter(real).filter_map(|l| l.split(' ').nth(4)).map(str::to_owned).collect();
    let mut buffer = vec![0; BUFFER_BYTES];
    let begin = Instant::now();
    for number in 0.. {
        let due = begin + Duration::from_secs(arguments.interval_seconds) * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        for file in &files {
            let mut at = 0;
            while let Ok(read @ 1..) = file.read_at(&mut buffer, at) {
                at += read as u64;
            }
        }
        for point in &points {
            let _ = std::hint::black_box(rustix::fs::statvfs(point.as_str()));
        }
        std::hint::black_box(rustix::system::uname());
    }
    Ok(())
}
