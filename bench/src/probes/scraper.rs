//! Scrapes blackbox_exporter for each target at even intervals over kept connections, as Prometheus does, but for
//! compression, which would only cost it more.

use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// See the module. It lives as long as the process.
pub struct Scraper {
    shared: Arc<Shared>,
}

struct Shared {
    exporter: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
    good: AtomicU64,
    bad: AtomicU64,
}

/// What came of the scrapes.
pub struct Counts {
    /// Those that say that the check succeeded.
    pub good: u64,
    /// All others.
    pub bad: u64,
}

impl Scraper {
    /// Starts it on a thread of its own; the targets are spread evenly over the interval.
    pub fn start(exporter: SocketAddr, urls: Vec<String>, interval: Duration) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared { exporter, idle: Mutex::default(), good: 0.into(), bad: 0.into() });
        let scraping = shared.clone();
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let begin = Instant::now();
                let count = urls.len() as u32;
                for (n, url) in (0..).zip(urls) {
                    let first = begin + interval * n / count;
                    tokio::spawn(again_and_again(scraping.clone(), url, first, interval));
                }
                std::future::pending::<()>().await;
            });
        });
        Ok(Self { shared })
    }

    /// What came of it so far.
    pub fn counts(&self) -> Counts {
        Counts { good: self.shared.good.load(Relaxed), bad: self.shared.bad.load(Relaxed) }
    }
}

async fn again_and_again(shared: Arc<Shared>, url: String, first: Instant, interval: Duration) {
    for round in 0.. {
        tokio::time::sleep_until(first + interval * round).await;
        let count = match scrape(&shared, &url).await {
            Ok(true) => &shared.good,
            _ => &shared.bad,
        };
        count.fetch_add(1, Relaxed);
    }
}

/// One scrape; whether it says that the check succeeded.
async fn scrape(shared: &Shared, url: &str) -> Result<bool> {
    let kept = shared.idle.lock().expect("nobody panics with it").pop();
    let mut stream = if let Some(stream) = kept {
        stream
    } else {
        let stream = TcpStream::connect(shared.exporter).await?;
        stream.set_nodelay(true)?;
        stream
    };
    let request = format!(
        "GET /probe?module=http&target={url} HTTP/1.1\r\nHost: {}\r\nUser-Agent: bench\r\n\
         Accept: text/plain;version=0.0.4\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n",
        shared.exporter
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(8 << 10);
    while !is_complete(&answer)? {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the exporter ended the connection");
    }
    shared.idle.lock().expect("nobody panics with it").push(stream);
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.starts_with("HTTP/1.1 200") && answer.contains("\nprobe_success 1\n"))
}

/// Whether an answer has come as a whole: by its length, or with the last of its chunks.
fn is_complete(answer: &[u8]) -> Result<bool> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(false) };
    let fields = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    match fields.lines().find_map(|line| line.strip_prefix("content-length:")) {
        Some(length) => {
            let length: usize = length.trim().parse().context("a length that is no number")?;
            Ok(answer.len() >= head + 4 + length)
        }
        None => Ok(answer.ends_with(b"\r\n0\r\n\r\n")),
    }
}
