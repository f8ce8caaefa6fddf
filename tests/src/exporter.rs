//! An exporter whose every value says which series and which scrape it belongs to.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::TcpListener;

/// The factor between scrape number and series number in a value.
pub const STRIDE: u64 = 1_000;

/// Serves `pegel_oracle_total{series="i"}` with the value `scrape × STRIDE + i`; scrapes count from 1.
#[derive(Debug, Clone)]
pub struct Exporter {
    address: SocketAddr,
    scrapes: Arc<AtomicU64>,
}

impl Exporter {
    /// Starts one with this many series (fewer than [`STRIDE`]).
    pub async fn start(series: u64) -> Self {
        assert!(series < STRIDE);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let scrapes = Arc::new(AtomicU64::new(0));
        let count = scrapes.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let count = count.clone();
                let service = service_fn(move |_: Request<Incoming>| {
                    let scrape = count.fetch_add(1, Ordering::SeqCst) + 1;
                    async move { Ok::<_, Infallible>(Response::new(Full::new(page(scrape, series)))) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        Self { address, scrapes }
    }

    /// Host and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of the last scrape served.
    pub fn scrapes(&self) -> u64 {
        self.scrapes.load(Ordering::SeqCst)
    }
}

fn page(scrape: u64, series: u64) -> Bytes {
    let mut text = String::from("# TYPE pegel_oracle_total counter\n");
    for i in 0..series {
        let _ = writeln!(text, "pegel_oracle_total{{series=\"{i}\"}} {}", scrape * STRIDE + i);
    }
    text.into()
}
