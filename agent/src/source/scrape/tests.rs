//! The source against real HTTP servers on ports of the system's choice.

use super::settings::{Auth, Job, LabelLimits, Secret, Settings, TargetGroup};
use super::{ScrapeSource, scrape_once};
use crate::intake::{IntakeReceiver, intake};
use crate::source::SourceContext;
use crate::source::clock::SampleClock;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use parking_lot::Mutex;
use pegel_proto::metrics::{Block, Labels, full_labels, is_stale_marker};
use pegel_runtime::metrics::Registry;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

mod assembling;
mod failing;
mod source;

const TEXT: &str = "text/plain; version=0.0.4";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// No test waits longer than this for anything.
const DEADLINE: Duration = Duration::from_secs(20);

type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;
type Answering = Arc<dyn Fn(Request) -> Answer + Send + Sync>;

/// An exporter whose answer the test decides.
#[derive(Clone)]
struct Exporter {
    address: String,
    answer: Arc<Mutex<Answering>>,
}

impl Exporter {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answer: Answering = Arc::new(|_| respond(200, TEXT, String::new()));
        let exporter = Self { address, answer: Arc::new(Mutex::new(answer)) };
        let answering = exporter.answer.clone();
        let router = axum::Router::new().fallback(move |request: Request| {
            let answer = answering.lock().clone();
            answer(request)
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        exporter
    }

    fn set(&self, answer: impl Fn(Request) -> Answer + Send + Sync + 'static) {
        *self.answer.lock() = Arc::new(answer);
    }

    fn exposes(&self, text: &str) {
        let text = text.to_owned();
        self.set(move |_| respond(200, TEXT, text.clone()));
    }
}

fn respond(status: u16, content_type: &'static str, body: String) -> Answer {
    let response = Response::builder().status(status).header("content-type", content_type);
    Box::pin(std::future::ready(response.body(Body::from(body)).unwrap()))
}

/// A source's surroundings.
struct Bench {
    context: SourceContext,
    receiver: IntakeReceiver,
}

impl Bench {
    fn new() -> Self {
        let registry = Registry::new();
        let (intake, receiver) = intake(1 << 20, &registry);
        let external_labels = Arc::new(Labels::new([("site", "lab")]).unwrap());
        let clock = SampleClock::default();
        let shutdown = CancellationToken::new();
        Self { context: SourceContext { intake, clock, registry, external_labels, shutdown }, receiver }
    }

    /// The next hand-over.
    async fn next(&mut self) -> Scrape {
        let collected = tokio::time::timeout(DEADLINE, self.receiver.next()).await;
        Scrape(collected.expect("a scrape within the deadline").expect("an open intake").blocks)
    }

    /// The next hand-over of which something holds.
    async fn next_where(&mut self, holds: impl Fn(&Scrape) -> bool) -> Scrape {
        let wait = async {
            loop {
                let scrape = Scrape(self.receiver.next().await.expect("an open intake").blocks);
                if holds(&scrape) {
                    return scrape;
                }
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("such a scrape within the deadline")
    }
}

/// The blocks of one hand-over.
#[derive(Debug)]
struct Scrape(Vec<Block>);

impl Scrape {
    /// Series as text, without labels of target and place, and their values; stale ones say so.
    fn values(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for block in &self.0 {
            for (series, value) in block.set.series().iter().zip(&block.values) {
                let labels: Vec<_> = full_labels(block.set.target(), series.labels())
                    .into_iter()
                    .filter(|(name, _)| !matches!(*name, "__name__" | "job" | "instance" | "site"))
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                let value = if is_stale_marker(*value) { "stale".into() } else { value.to_string() };
                let text = format!("{} {}", series.name(), labels.join(",")).trim_end().to_owned();
                assert_eq!(all.insert(text.clone(), value), None, "{text} is there twice");
            }
        }
        all
    }

    fn value(&self, series: &str) -> Option<String> {
        self.values().remove(series)
    }

    fn is_up(&self) -> bool {
        self.value("up").as_deref() == Some("1")
    }
}

fn job(name: &str, exporters: &[&Exporter]) -> Job {
    let targets = exporters.iter().map(|exporter| exporter.address.clone()).collect();
    Job {
        targets: vec![TargetGroup { targets, labels: vec![] }],
        interval: Duration::from_millis(100),
        timeout: Duration::from_millis(100),
        ..Job::new(name)
    }
}

fn settings(jobs: Vec<Job>) -> Settings {
    Settings { jobs, file_sd_refresh: Duration::from_millis(20) }
}
