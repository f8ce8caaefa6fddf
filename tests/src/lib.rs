//! The harness of the end-to-end tests: real processes, real backends, a deadline to poll against.
//!
//! Programs of backends come by environment from `scripts/test` (`PEGEL_PROMETHEUS` and so on) or are asked of
//! `tests/backends/backend`; a suite whose backend can't be had says so and is skipped.

#![forbid(unsafe_code)]

pub mod browser;
pub mod chat;
pub mod disk;
pub mod docker;
pub mod exporter;
pub mod expressions;
pub mod fault_proxy;
pub mod http;
pub mod loki;
pub mod machine;
pub mod oracle;
pub mod pegel;
pub mod process;
pub mod prometheus;
pub mod services;
pub mod udp_proxy;

use std::future::Future;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How often a condition is looked at until its deadline.
const POLL_EVERY: Duration = Duration::from_millis(50);

/// Waits until `look` gives something; panics with `what` at the deadline.
pub async fn eventually<T, F>(what: &str, within: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + within;
    let mut ticks = tokio::time::interval(POLL_EVERY);
    loop {
        ticks.tick().await;
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "within {within:?} it did not come true that {what}");
    }
}

/// Lets the programs under test run for a while: campaigns choose their moments with it.
pub async fn let_run(time: Duration) {
    tokio::time::sleep(time).await;
}

/// The path of a backend's program; none, with the reason printed, if it can't be had.
pub fn backend(name: &str) -> Option<PathBuf> {
    let variable = format!("PEGEL_{}", name.to_uppercase().replace('-', "_"));
    if let Some(path) = std::env::var_os(&variable) {
        return Some(path.into());
    }
    let script = workspace().join("tests/backends/backend");
    let output = Command::new(script).arg(name).output().ok()?;
    if output.status.success() {
        return Some(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    eprintln!("SKIPPED: backend {name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    None
}

/// The root of the checkout.
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").to_owned()
}

/// A binary of this workspace, beside the running test.
pub fn binary(name: &str) -> PathBuf {
    if let Some(dir) = std::env::var_os("PEGEL_BIN_DIR") {
        return PathBuf::from(dir).join(name);
    }
    let mut dir = std::env::current_exe().expect("a test knows its own path");
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace --bins` first", path.display());
    path
}

/// The seed of a random campaign: `PEGEL_SEED`, or the clock's. Print it.
pub fn seed() -> u64 {
    let seed = std::env::var("PEGEL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(1, |d| d.as_nanos() as u64)
    });
    eprintln!("PEGEL_SEED={seed}");
    seed
}

/// How many rounds of a campaign: the short form, or what `scripts/torture` sets in this variable.
pub fn rounds(variable: &str, short: usize) -> usize {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(short)
}

/// Several ports of the loopback that were free a moment ago, for servers that can't tell which they chose.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// A port for a server that is killed and started again on it: outside of the range from which the kernel gives ports
/// to clients, so that nobody takes it meanwhile.
pub fn lasting_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries may run beside each other: each begins somewhere else.
    let begin = (std::process::id() % 1_000) as u16 * 10;
    loop {
        let port = 20_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let free = std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if free && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
