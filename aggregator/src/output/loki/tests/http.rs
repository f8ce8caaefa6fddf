//! The whole output over HTTP against the model behind a server that misbehaves on request.

use super::super::{Authorization, Loki, Settings};
use super::model::Model;
use super::{START_NS, agent_info, delivery};
use crate::fanout::{Output as _, Verdict};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use parking_lot::Mutex;
use pegel_proto::identity::OutputName;
use pegel_runtime::metrics::Registry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

struct Server {
    model: Model,
    /// Answers without a look at the request.
    faults: VecDeque<(u16, &'static str)>,
    seen: Vec<(Instant, HeaderMap)>,
}

type Shared = Arc<Mutex<Server>>;

async fn receive(State(server): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut server = server.lock();
    server.seen.push((Instant::now(), headers));
    let status = |code| StatusCode::from_u16(code).unwrap();
    if let Some((code, message)) = server.faults.pop_front() {
        let after = if code == 429 { "1" } else { "0" };
        return (status(code), [("retry-after", after)], message).into_response();
    }
    let answer = server.model.receive(&body, Instant::now());
    (status(answer.status), answer.message).into_response()
}

async fn start(
    max_message: usize,
    faults: &[(u16, &'static str)],
    change: impl FnOnce(&mut Settings),
) -> (Shared, Loki) {
    let model = Model {
        now_ns: START_NS,
        max_message,
        rate: 1e9,
        burst: 1e9,
        whole_streams: true,
        streams: HashMap::new(),
        room: 0,
        silently_dropped: 0,
    };
    let server = Server { model, faults: faults.iter().copied().collect(), seen: Vec::new() };
    let server = Arc::new(Mutex::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/loki/api/v1/push", listener.local_addr().unwrap()).parse().unwrap();
    let router = Router::new().route("/loki/api/v1/push", post(receive)).with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut settings = Settings::new(OutputName::parse("logs").unwrap(), url);
    settings.min_backoff = Duration::from_millis(5);
    settings.max_backoff = Duration::from_millis(20);
    change(&mut settings);
    (server, Loki::new(settings, &Registry::new()).unwrap())
}

async fn deliver(output: &Loki, lines: usize) -> u64 {
    let (sender, mut verdicts) = mpsc::unbounded_channel();
    let entries: Vec<_> = (0..lines as i64).map(|i| ("a", START_NS + i, format!("line {i:04}"))).collect();
    output.submit(delivery(&agent_info("n1", 1), 1, false, &entries, &sender));
    let verdict = tokio::time::timeout(Duration::from_secs(30), verdicts.recv()).await.unwrap().unwrap();
    let Verdict::Settled(_, outcome) = verdict else { panic!("{verdict:?}") };
    assert_eq!(outcome.rejections, []);
    outcome.delivered
}

#[tokio::test]
async fn what_is_too_large_at_once_is_split() {
    let (server, output) = start(5_000, &[], |_| {}).await;
    assert_eq!(deliver(&output, 1_000).await, 1_000);
    let stored = &server.lock().model.streams["{app=\"a\", node=\"n1\", tenant=\"acme\"}"];
    assert_eq!(stored.entries.len(), 1_000);
    assert!(stored.entries.values().all(|copies| *copies == 1));
}

#[tokio::test]
async fn retry_after_is_kept_to_and_requests_carry_tenant_and_credential() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2\n").unwrap();
    let limited = (429, "ingestion rate limit exceeded for user acme");
    let (server, output) = start(usize::MAX, &[limited], |settings| {
        settings.authorization = Authorization::Bearer { token_file: file.path().into() };
    })
    .await;
    assert_eq!(deliver(&output, 3).await, 3);
    let server = server.lock();
    let [(first, headers), (second, _)] = &server.seen[..] else { panic!() };
    assert!(second.duration_since(*first) >= Duration::from_secs(1));
    for (name, value) in [
        ("x-scope-orgid", "acme"),
        ("authorization", "Bearer hunter2"),
        ("content-type", "application/x-protobuf"),
    ] {
        assert_eq!(headers[name], value);
    }
}

#[tokio::test]
async fn a_wrong_path_parks_the_output() {
    let (_server, output) = start(usize::MAX, &[(404, "page not found")], |_| {}).await;
    let (sender, mut verdicts) = mpsc::unbounded_channel();
    output.submit(delivery(&agent_info("n1", 1), 1, false, &[("a", START_NS, "x".into())], &sender));
    assert!(matches!(verdicts.recv().await, Some(Verdict::Parked(_))));
    assert!(!output.health().ok);
}
