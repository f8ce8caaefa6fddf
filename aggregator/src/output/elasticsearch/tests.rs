//! The output against a server that answers as the bulk API's documentation says.

use super::{Elasticsearch, Settings};
use crate::fanout::{Delivery, Output as _, Payload, Reply, Verdict};
use crate::session::AgentInfo;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use parking_lot::Mutex;
use pegel_proto::batch::{AgentEpoch, BatchSeq, Outcome, RejectReason};
use pegel_proto::identity::{AgentIdentity, NodeId, OutputName, TenantId};
use pegel_proto::logs::BlockBuilder;
use pegel_runtime::metrics::Registry;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const START_NS: i64 = 1_700_000_000_000_000_000;

/// What the server does with one request.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Answers so, and stores nothing.
    Answer(u16),
    /// Asks to be left alone for a day.
    ComeBackTomorrow,
    /// Stores it and answers so: the answer is lost on the way.
    AnswerAfterCommit(u16),
    /// Puts every second item off.
    EverySecondAgain,
}

#[derive(Default)]
struct Server {
    documents: BTreeMap<String, Value>,
    templates: Vec<Value>,
    indices: Vec<String>,
    faults: VecDeque<Fault>,
    /// More bytes are 413.
    max_bytes: usize,
}

type Shared = Arc<Mutex<Server>>;

#[expect(
    clippy::map_entry,
    reason = "what is there, what is refused and what is new are three cases in one chain"
)]
async fn bulk(State(server): State<Shared>, Path(index): Path<String>, body: Bytes) -> Response {
    let mut server = server.lock();
    let status = |code| StatusCode::from_u16(code).unwrap();
    let fault = server.faults.pop_front();
    if let Some(Fault::Answer(code)) = fault {
        return status(code).into_response();
    }
    if matches!(fault, Some(Fault::ComeBackTomorrow)) {
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "86400")]).into_response();
    }
    if body.len() > server.max_bytes {
        return status(413).into_response();
    }
    server.indices.push(index);
    let text = std::str::from_utf8(&body).unwrap();
    assert!(text.ends_with('\n'), "the last line has an end, too");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut items = Vec::new();
    for (i, pair) in lines.chunks(2).enumerate() {
        let [action, document] = pair else { panic!("each action has a document") };
        let id = action["create"]["_id"].as_str().unwrap().to_owned();
        let error = |status: u16, kind: &str| json!({"create": {"status": status, "error": {"type": kind, "reason": "why"}}});
        items.push(if matches!(fault, Some(Fault::EverySecondAgain)) && i % 2 == 1 {
            error(429, "es_rejected_execution_exception")
        } else if server.documents.contains_key(&id) {
            error(409, "version_conflict_engine_exception")
        } else if document["message"].as_str().unwrap().contains("poison") {
            error(400, "document_parsing_exception")
        } else {
            server.documents.insert(id, document.clone());
            json!({"create": {"status": 201}})
        });
    }
    if let Some(Fault::AnswerAfterCommit(code)) = fault {
        return status(code).into_response();
    }
    axum::Json(json!({ "items": items })).into_response()
}

async fn template(State(server): State<Shared>, body: Bytes) -> StatusCode {
    server.lock().templates.push(serde_json::from_slice(&body).unwrap());
    StatusCode::OK
}

async fn start(max_bytes: usize, faults: &[Fault]) -> (Shared, Elasticsearch) {
    let server = Server { faults: faults.iter().copied().collect(), max_bytes, ..Server::default() };
    let server = Arc::new(Mutex::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let router = Router::new()
        .route("/{index}/_bulk", post(bulk))
        .route("/_index_template/pegel-logs", put(template))
        .with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut settings = Settings::new(OutputName::parse("elastic").unwrap(), url);
    settings.index = "logs-pegel-{tenant}".into();
    settings.min_backoff = Duration::from_millis(5);
    settings.max_backoff = Duration::from_millis(20);
    settings.max_retry_after = Duration::from_millis(50);
    settings.linger = Duration::from_millis(1);
    (server, Elasticsearch::new(settings, &Registry::new()).unwrap())
}

async fn deliver(output: &Elasticsearch, lines: &[String]) -> Outcome {
    let (sender, mut verdicts) = mpsc::unbounded_channel();
    let identity =
        AgentIdentity { tenant: TenantId::parse("acme").unwrap(), node: NodeId::parse("n1").unwrap() };
    let agent = Arc::new(AgentInfo {
        identity,
        epoch: AgentEpoch(1),
        session: 1,
        version: String::new(),
        hostname: String::new(),
        peer: ([127, 0, 0, 1], 1).into(),
    });
    let mut builder = BlockBuilder::new();
    for (i, line) in lines.iter().enumerate() {
        let stream = builder.stream([("app", "shop")].into_iter()).unwrap();
        let metadata = [("severity", "warn"), ("trace_id", "4bf9")];
        let metadata = metadata.map(|(key, value)| (builder.key(key).unwrap(), value));
        builder.push(stream, START_NS + i as i64, line, &metadata);
    }
    let block = Arc::new(builder.finish().unwrap().decode().unwrap());
    output.submit(Delivery {
        agent,
        seq: BatchSeq(1),
        sent_before: false,
        payload: Payload::Logs(block),
        reply: Reply(sender),
    });
    match tokio::time::timeout(Duration::from_secs(30), verdicts.recv()).await.unwrap().unwrap() {
        Verdict::Settled(_, outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

fn lines(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("line \"{i}\"\u{1} ü")).collect()
}

#[tokio::test]
async fn entries_become_documents_with_fields_to_search_by() {
    let (server, output) = start(usize::MAX, &[]).await;
    assert_eq!(deliver(&output, &lines(3)).await.delivered, 3);
    let server = server.lock();
    assert_eq!(server.indices, ["logs-pegel-acme"]);
    let documents = server.documents.values();
    let found: Vec<_> = documents.filter(|d| d["message"].as_str().unwrap().contains("\"1\"")).collect();
    assert_eq!(
        *found[0],
        json!({
            "@timestamp": "2023-11-14T22:13:20.000000001Z", "message": "line \"1\"\u{1} ü", "node": "n1",
            "tenant": "acme", "level": "warn", "service": "shop", "trace_id": "4bf9",
            "labels": {"app": "shop"}, "metadata": {"severity": "warn", "trace_id": "4bf9"}
        })
    );
    let [template] = &server.templates[..] else { panic!("it is put in place once") };
    let types = &template["template"]["mappings"]["properties"];
    for field in ["level", "service", "message", "trace_id", "span_id"] {
        assert!(types[field]["type"].is_string(), "{field}");
    }
}

#[tokio::test]
async fn each_item_has_its_own_fate() {
    let (server, output) = start(usize::MAX, &[Fault::EverySecondAgain, Fault::EverySecondAgain]).await;
    let mut all = lines(20);
    all[4] = "poison".into();
    all[7] = "poison".into();
    let outcome = deliver(&output, &all).await;
    assert_eq!((outcome.delivered, outcome.held_already), (18, 0));
    let [rejection] = &outcome.rejections[..] else { panic!("{outcome:?}") };
    assert_eq!((rejection.reason, &rejection.records[..]), (RejectReason::Other, &[(4, 1), (7, 1)][..]));
    assert_eq!(rejection.message, "document_parsing_exception: why");
    assert_eq!(server.lock().documents.len(), 18);
}

#[tokio::test]
async fn what_was_stored_without_an_answer_is_there_once() {
    let faults = [Fault::Answer(503), Fault::AnswerAfterCommit(504), Fault::Answer(429)];
    let (server, output) = start(usize::MAX, &faults).await;
    let outcome = deliver(&output, &lines(50)).await;
    assert_eq!((outcome.delivered, outcome.held_already, server.lock().documents.len()), (0, 50, 50));
}

#[tokio::test]
async fn what_is_too_large_is_split_and_a_single_entry_refused() {
    let (server, output) = start(2_000, &[]).await;
    let mut all = lines(100);
    all[30] = "x".repeat(3_000);
    let outcome = deliver(&output, &all).await;
    assert_eq!(outcome.delivered, 99);
    assert_eq!(outcome.rejections[0].reason, RejectReason::TooLarge);
    assert_eq!((outcome.rejections[0].records.clone(), server.lock().documents.len()), (vec![(30, 1)], 99));
}

#[tokio::test]
async fn what_a_server_asks_for_is_kept_to_within_bounds() {
    let (server, output) = start(usize::MAX, &[Fault::ComeBackTomorrow, Fault::ComeBackTomorrow]).await;
    let begin = std::time::Instant::now();
    assert_eq!(deliver(&output, &lines(3)).await.delivered, 3);
    // Twice the bound, and not the back-off, which would have been over within 20 ms.
    assert!(begin.elapsed() >= Duration::from_millis(100), "{:?}", begin.elapsed());
    assert_eq!(server.lock().documents.len(), 3);
    assert!(output.health().ok && output.troubles().is_empty());
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_told_for_its_tenant_and_since_when() {
    let (_server, output) = start(usize::MAX, &[Fault::Answer(503); 1_000]).await;
    let one = lines(1);
    let told = async {
        loop {
            if let Some(told) = output.troubles().get(&TenantId::parse("acme").unwrap()) {
                return told.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        outcome = deliver(&output, &one) => panic!("{outcome:?} though nothing was taken"),
        told = told => assert!(told.contains("503") && told.ends_with("(for less than a minute)"), "{told}"),
    }
}
