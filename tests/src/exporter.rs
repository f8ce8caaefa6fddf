//! An exporter whose every value says which series and which scrape it belongs to.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::net::TcpListener;

/// The factor between scrape number and series number in a value.
pub const STRIDE: u64 = 1_000;

/// Serves `pegel_oracle_total{series="i"}` with the value `scrape × STRIDE + i`; scrapes count from 1.
#[derive(Debug, Clone)]
pub struct Exporter {
    address: SocketAddr,
    series: u64,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    served: Mutex<Vec<Instant>>,
    stopped: AtomicBool,
}

impl Exporter {
    /// Starts one with this many series (fewer than [`STRIDE`]).
    pub async fn start(series: u64) -> Self {
        assert!(series < STRIDE);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let shared = serving.clone();
                let service = service_fn(move |_: Request<Incoming>| {
                    let page = shared.page(series);
                    async move { page.map(answer) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        Self { address, series, shared }
    }

    /// Host and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many series it has.
    pub fn series(&self) -> u64 {
        self.series
    }

    /// The number of the last scrape served.
    pub fn scrapes(&self) -> u64 {
        self.shared.served.lock().len() as u64
    }

    /// The numbers of the scrapes that were served within a span of time.
    pub fn served_within(&self, span: &Range<Instant>) -> Range<u64> {
        let served = self.shared.served.lock();
        let number = |at: Instant| served.partition_point(|served| *served < at) as u64 + 1;
        number(span.start)..number(span.end)
    }

    /// Answers no more.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn page(&self, series: u64) -> io::Result<Bytes> {
        if self.stopped.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let mut served = self.served.lock();
        served.push(Instant::now());
        Ok(page(served.len() as u64, series))
    }
}

fn answer(page: Bytes) -> Response<Full<Bytes>> {
    let answer = Response::builder().header("content-type", "text/plain; version=0.0.4");
    answer.body(Full::new(page)).expect("a valid answer")
}

fn page(scrape: u64, series: u64) -> Bytes {
    let mut text = String::from("# TYPE pegel_oracle_total counter\n");
    for i in 0..series {
        let _ = writeln!(text, "pegel_oracle_total{{series=\"{i}\"}} {}", scrape * STRIDE + i);
    }
    text.into()
}
