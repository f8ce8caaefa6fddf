//! The source as a whole, on servers of the test's own.

use super::kinds::{Kind, http};
use super::settings::{Check, Settings};
use super::state::State;
use super::*;
use crate::intake::{IntakeReceiver, intake};
use crate::source::clock::SampleClock;
use crate::source::scrape::settings::TargetGroup;
use pegel_proto::metrics::{Labels, full_labels, is_stale_marker};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

mod commands;
mod over_http;

const SOON: Duration = Duration::from_secs(20);

/// A context with the receiving end of its intake.
fn context() -> (SourceContext, IntakeReceiver) {
    let registry = Registry::new();
    let (intake, receiver) = intake(1 << 20, &registry);
    let context = SourceContext {
        intake,
        clock: SampleClock::default(),
        registry,
        external_labels: Arc::new(Labels::new([("site", "north")]).unwrap()),
        shutdown: CancellationToken::new(),
    };
    (context, receiver)
}

/// Answers every connection with this, byte for byte, when a request's head is there.
async fn server(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                let mut piece = [0; 1_024];
                while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                    match stream.read(&mut piece).await {
                        Ok(n) if n > 0 => head.extend_from_slice(&piece[..n]),
                        _ => return,
                    }
                }
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// A check of targets over HTTP.
fn check(name: &str, targets: &[String], interval: Duration) -> Check {
    let mut check = Check::new(name, Kind::Http(Box::default()));
    check.interval = interval;
    check.timeout = interval;
    check.targets = vec![TargetGroup { targets: targets.to_vec(), labels: Vec::new() }];
    check
}

fn settings(checks: Vec<Check>) -> Settings {
    Settings { checks, ..Settings::default() }
}

/// The value of a series in blocks, by its name and a part of its labels.
fn value(blocks: &[Block], name: &str, label: Option<(&str, &str)>) -> Option<f64> {
    blocks.iter().find_map(|block| {
        let fits = |series: &Arc<pegel_proto::metrics::Series>| {
            let labels = full_labels(block.set.target(), series.labels());
            series.name() == name && label.is_none_or(|label| labels.contains(&label))
        };
        block.set.series().iter().position(fits).map(|at| block.values[at])
    })
}

async fn next(receiver: &mut IntakeReceiver) -> Vec<Block> {
    tokio::time::timeout(SOON, receiver.next()).await.expect("blocks come").expect("the source lives").blocks
}

#[tokio::test]
async fn a_target_is_checked_again_and_again_and_its_series_end_when_it_is_removed() {
    let (context, mut receiver) = context();
    let shutdown = context.shutdown.clone();
    let url = format!("http://{}/", server(OK).await);
    let interval = Duration::from_millis(50);
    let source = ProbeSource::start(
        settings(vec![check("shop", std::slice::from_ref(&url), interval)]),
        None,
        context,
    );
    let mut last = 0;
    for _ in 0..3 {
        let blocks = next(&mut receiver).await;
        assert_eq!(value(&blocks, "probe_success", Some(("instance", &url))), Some(1.0));
        assert_eq!(value(&blocks, "pegel_probe_up", Some(("kind", "http"))), Some(1.0));
        assert_eq!(value(&blocks, "probe_http_status_code", Some(("site", "north"))), Some(200.0));
        assert_eq!(value(&blocks, "probe_success", Some(("check", "shop"))), Some(1.0));
        assert_eq!(blocks[0].at_ms.min(last), last, "time goes on");
        last = blocks[0].at_ms;
    }
    let status = source.status();
    assert_eq!((status.len(), status[0].state, status[0].last_success), (1, State::Up, Some(true)));
    source.apply(Settings::default());
    let ended = loop {
        let blocks = next(&mut receiver).await;
        if is_stale_marker(blocks[0].values[0]) {
            break blocks;
        }
    };
    assert!(ended[0].values.iter().all(|value| is_stale_marker(*value)));
    assert_eq!(source.status(), []);
    shutdown.cancel();
    source.stopped().await;
}

#[tokio::test]
async fn changes_of_state_are_told_once_with_their_reason() {
    let (context, mut receiver) = context();
    let shutdown = context.shutdown.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let source = ProbeSource::start(
        settings(vec![check("shop", std::slice::from_ref(&url), Duration::from_millis(50))]),
        None,
        context,
    );
    let mut changes = source.changes();
    let first = next(&mut receiver).await;
    assert_eq!(value(&first, "probe_success", None), Some(0.0));
    assert_eq!(value(&first, "pegel_probe_up", None), None, "one failure says nothing yet");
    assert_eq!(value(&first, "pegel_probe_failure", Some(("reason", "refused"))), Some(1.0));
    assert_eq!(value(&first, "pegel_probe_failure", Some(("phase", "connect"))), Some(1.0));
    let change = tokio::time::timeout(SOON, changes.recv()).await.unwrap().unwrap();
    assert_eq!(
        (change.from, change.to, change.target.address.as_str()),
        (State::Pending, State::Down, &*url)
    );
    assert!(change.failure.unwrap().words.contains("refused"));
    let second = next(&mut receiver).await;
    assert_eq!(value(&second, "pegel_probe_up", None), Some(0.0));
    next(&mut receiver).await;
    assert!(changes.try_recv().is_err(), "told once");
    let status = source.status();
    assert_eq!((status[0].state, status[0].reason), (State::Down, Some("refused")));
    shutdown.cancel();
    source.stopped().await;
}

#[tokio::test]
async fn targets_that_hang_delay_none_of_the_others() {
    let (context, mut receiver) = context();
    let shutdown = context.shutdown.clone();
    // It accepts nothing: connections stay in its backlog and are never answered.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging: Vec<String> =
        (0..40).map(|i| format!("http://{}/{i}", silent.local_addr().unwrap())).collect();
    let good = format!("http://{}/", server(OK).await);
    let mut hang = check("hang", &hanging, Duration::from_millis(300));
    hang.timeout = Duration::from_millis(290);
    let settings = Settings {
        checks: vec![hang, check("good", &[good], Duration::from_millis(100))],
        max_running: 8,
        ..Settings::default()
    };
    let source = ProbeSource::start(settings, None, context.clone());
    let mut good = 0;
    let mut timeouts = 0;
    let mut late = 0;
    while good < 20 {
        let blocks = next(&mut receiver).await;
        if value(&blocks, "probe_success", Some(("check", "good"))) == Some(1.0) {
            good += 1;
            // The very first runs do not know yet who hangs.
            let lag = value(&blocks, "pegel_probe_schedule_lag_seconds", None).unwrap();
            late += usize::from(good > 5 && lag > 0.15);
        } else if value(&blocks, "pegel_probe_failure", Some(("reason", "timeout"))).is_some() {
            timeouts += 1;
        }
    }
    assert!(timeouts > 10 && late == 0, "{timeouts} timeouts, {late} late");
    assert!(context.registry.render().contains("pegel_probe_waited_total"));
    shutdown.cancel();
    source.stopped().await;
}

#[tokio::test]
async fn maintenance_is_a_state_and_the_runs_go_on() {
    let (context, mut receiver) = context();
    let shutdown = context.shutdown.clone();
    let url = format!("http://{}/", server(OK).await);
    let mut shop = check("shop", &[url], Duration::from_millis(50));
    let when = maintenance::When::Once { from_ms: 0, until_ms: i64::MAX };
    shop.maintenance = vec![Arc::new(maintenance::Window::new("always", when))];
    let source = ProbeSource::start(settings(vec![shop]), None, context);
    let blocks = next(&mut receiver).await;
    assert_eq!(value(&blocks, "pegel_probe_maintenance", None), Some(1.0));
    assert_eq!(value(&blocks, "probe_success", None), Some(1.0));
    assert_eq!(source.status()[0].state, State::Maintenance);
    shutdown.cancel();
    source.stopped().await;
}

#[tokio::test]
async fn a_run_tries_again_as_often_as_it_may() {
    let (context, _receiver) = context();
    // The first connection is closed, the second is answered.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        drop(listener.accept().await);
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1_024]).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
    });
    let mut shop = check("shop", &[url], Duration::from_secs(10));
    shop.retries = 1;
    let (results, problems) = probe_once(&settings(vec![shop]), &context).await;
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(results[0].0.last_success, Some(true), "{:?}", results[0].0);
}
