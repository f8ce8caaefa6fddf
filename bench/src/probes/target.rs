//! The server that is checked: it notes when each request arrived.

use anyhow::Result;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A page of a usual size.
const BODY_BYTES: usize = 1_000;

/// A request for `/WHO/NUMBER`.
struct Arrival {
    path: Box<str>,
    at: Instant,
}

type Noted = Arc<Mutex<Vec<Arrival>>>;

/// See the module. It lives as long as the process.
pub struct Target {
    address: SocketAddr,
    noted: Noted,
}

impl Target {
    /// Starts it on a thread of its own.
    pub fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let noted = Noted::default();
        let notes = noted.clone();
        std::thread::spawn(move || {
            runtime.block_on(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(answer(stream, notes.clone()));
                }
            });
        });
        Ok(Self { address, noted })
    }

    /// The URL of somebody's target with a number.
    pub fn url(&self, who: &str, number: usize) -> String {
        format!("http://{}/{who}/{number}", self.address)
    }

    /// The requests of somebody within a span.
    pub fn arrivals(&self, who: &str, begin: Instant, end: Instant) -> Arrivals {
        let mut by_target: HashMap<Box<str>, Vec<Instant>> = HashMap::new();
        for arrival in self.noted.lock().expect("nobody panics with it").iter() {
            let of_who = arrival.path.strip_prefix('/').and_then(|path| path.strip_prefix(who));
            if of_who.is_some_and(|rest| rest.starts_with('/')) && (begin..end).contains(&arrival.at) {
                by_target.entry(arrival.path.clone()).or_default().push(arrival.at);
            }
        }
        Arrivals { begin, by_target: by_target.into_values().collect() }
    }
}

/// Reads one request and answers it.
async fn answer(mut stream: TcpStream, noted: Noted) {
    let mut head = Vec::with_capacity(1 << 10);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
            return;
        }
    }
    let at = Instant::now();
    let line = String::from_utf8_lossy(&head);
    if let Some(path) = line.split(' ').nth(1) {
        noted.lock().expect("nobody panics with it").push(Arrival { path: path.into(), at });
    }
    let page = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BODY_BYTES}\r\nConnection: close\r\n\r\n{:x<BODY_BYTES$}",
        ""
    );
    // Whoever asked may be gone.
    let _ = stream.write_all(page.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// When the requests for each target came.
pub struct Arrivals {
    begin: Instant,
    by_target: Vec<Vec<Instant>>,
}

impl Arrivals {
    /// How many.
    pub fn count(&self) -> u64 {
        self.by_target.iter().map(|times| times.len() as u64).sum()
    }

    /// By how much each was late, beside a schedule of even intervals through the target's most punctual request.
    pub fn schedule_errors_ms(&self, interval: Duration) -> Vec<f64> {
        let mut errors = Vec::new();
        for times in &self.by_target {
            let seconds = |at: &Instant| at.duration_since(self.begin).as_secs_f64();
            let interval = interval.as_secs_f64();
            let Some(first) = times.first().map(seconds) else { continue };
            let phases: Vec<f64> = times
                .iter()
                .map(|at| {
                    let since = seconds(at) - first;
                    since - (since / interval).round() * interval
                })
                .collect();
            let punctual = phases.iter().copied().fold(f64::INFINITY, f64::min);
            errors.extend(phases.iter().map(|phase| (phase - punctual) * 1e3));
        }
        errors
    }
}
