//! The whole output over HTTP against the model behind a server that misbehaves on request.

use super::super::{Authorization, Protocol, RemoteWrite, Settings, Version};
use super::model::{Kind, Model};
use super::{START_MS, agent_info, block, delivery, named};
use crate::fanout::{Output as _, Verdict};
use crate::session::{AgentInfo, ResolvedSet};
use crate::symbols::Symbols;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use parking_lot::Mutex;
use pegel_proto::batch::{Outcome, RejectReason};
use pegel_proto::identity::OutputName;
use pegel_runtime::metrics::Registry;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What the server does with one request instead of answering it properly.
#[derive(Debug, Clone)]
enum Fault {
    /// Answers so, and stores nothing.
    Answer(u16, Vec<(&'static str, String)>, &'static str),
    /// Stores it and never answers.
    TimeOutAfterCommit,
    /// Stores it and answers so.
    AnswerAfterCommit(u16),
}

struct Server {
    model: Model,
    faults: VecDeque<Fault>,
    seen: Vec<(Instant, HeaderMap)>,
}

type Shared = Arc<Mutex<Server>>;

async fn receive(State(server): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let v2 = headers["content-type"].to_str().unwrap().contains("v2");
    let version = if v2 { Version::V2 } else { Version::V1 };
    let fault = {
        let mut server = server.lock();
        server.seen.push((Instant::now(), headers));
        server.faults.pop_front()
    };
    let status = |code| StatusCode::from_u16(code).unwrap();
    match fault {
        Some(Fault::Answer(code, headers, text)) => {
            let mut response = (status(code), text).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            return response;
        }
        Some(Fault::TimeOutAfterCommit) => {
            server.lock().model.receive(version, &body);
            std::future::pending::<()>().await;
        }
        Some(Fault::AnswerAfterCommit(code)) => {
            server.lock().model.receive(version, &body);
            return status(code).into_response();
        }
        None => {}
    }
    let answer = server.lock().model.receive(version, &body);
    let mut response = (status(answer.status), answer.message).into_response();
    if let Some(written) = answer.written {
        response.headers_mut().insert("x-prometheus-remote-write-samples-written", written.into());
    }
    response
}

struct Rig {
    server: Shared,
    output: RemoteWrite,
    symbols: Arc<Symbols>,
    registry: Registry,
    agent: Arc<AgentInfo>,
    sender: mpsc::UnboundedSender<Verdict>,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
    seq: u64,
    set: Arc<ResolvedSet>,
}

const SERIES: usize = 20;

async fn rig(kind: Kind, protocol: Protocol, faults: Vec<Fault>, change: impl FnOnce(&mut Settings)) -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api/v1/write", listener.local_addr().unwrap());
    let server = Server { model: Model::new(kind, START_MS), faults: faults.into(), seen: Vec::new() };
    let server = Arc::new(Mutex::new(server));
    let app = Router::new().route("/api/v1/write", post(receive)).with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut settings = Settings {
        protocol,
        min_backoff: Duration::from_millis(10),
        park_probe: Duration::from_millis(50),
        request_timeout: Duration::from_millis(300),
        ..Settings::new(OutputName::parse("o").unwrap(), url.parse().unwrap())
    };
    change(&mut settings);
    let (symbols, registry) = (Arc::new(Symbols::new()), Registry::new());
    let output = RemoteWrite::new(settings, symbols.clone(), &registry).unwrap();
    let set = Arc::new(ResolvedSet::new(named(&symbols, "good", "n", SERIES), 1));
    let (sender, verdicts) = mpsc::unbounded_channel();
    Rig { server, output, symbols, registry, agent: agent_info("n", 1), sender, verdicts, seq: 0, set }
}

impl Rig {
    fn submit(&mut self, sent_before: bool) {
        self.seq += 1;
        let blocks = vec![block(&self.set, START_MS + self.seq as i64 * 1_000)];
        self.output.submit(delivery(&self.agent, self.seq, sent_before, blocks, &self.sender));
    }

    async fn verdict(&mut self) -> Verdict {
        tokio::time::timeout(Duration::from_secs(30), self.verdicts.recv()).await.expect("a verdict").unwrap()
    }

    async fn outcome(&mut self) -> Outcome {
        loop {
            if let Verdict::Settled(_, outcome) = self.verdict().await {
                return outcome;
            }
        }
    }

    /// Whether all series have all batches' samples.
    fn assert_all_stored(&self) {
        let server = self.server.lock();
        assert_eq!(server.model.store.len(), SERIES);
        for samples in server.model.store.values() {
            let stamps: Vec<_> = samples.iter().map(|s| s.0).collect();
            let expected: Vec<_> = (1..=self.seq as i64).map(|seq| START_MS + seq * 1_000).collect();
            assert_eq!(stamps, expected);
        }
    }
}

/// Submits three batches that all arrive, whatever the server does first.
async fn all_arrive(kind: Kind, protocol: Protocol, faults: Vec<Fault>) -> Rig {
    let mut rig = rig(kind, protocol, faults, |_| {}).await;
    let (mut delivered, mut held) = (0, 0);
    for _ in 0..3 {
        rig.submit(false);
    }
    for _ in 0..3 {
        let outcome = rig.outcome().await;
        assert_eq!(outcome.rejections, []);
        delivered += outcome.delivered;
        held += outcome.held_already;
    }
    assert_eq!(delivered + held, 3 * SERIES as u64);
    rig.assert_all_stored();
    rig
}

fn answer(code: u16) -> Fault {
    Fault::Answer(code, Vec::new(), "")
}

const BOTH: [Protocol; 2] = [Protocol::V1, Protocol::Auto];

#[tokio::test]
async fn failures_of_the_moment_cost_nothing() {
    for protocol in BOTH {
        let rig = all_arrive(Kind::Prometheus, protocol, vec![answer(500), answer(503), answer(429)]).await;
        let text = rig.registry.render();
        assert!(
            text.contains("pegel_output_requests_total{code=\"503\",output=\"o\"} 1")
                || text.contains("pegel_output_requests_total{output=\"o\",code=\"503\"} 1"),
            "{text}"
        );
        assert!(text.contains("pegel_output_retries_total{output=\"o\",tenant=\"acme\"} 3"), "{text}");
        assert!(rig.output.health().ok);
    }
}

#[tokio::test]
async fn retry_after_is_kept_in_both_forms() {
    let date = "Sun, 06 Nov 1994 08:49:38 GMT".to_owned();
    let since = "Sun, 06 Nov 1994 08:49:37 GMT".to_owned();
    for headers in [vec![("retry-after", "1".to_owned())], vec![("retry-after", date), ("date", since)]] {
        let fault = Fault::Answer(429, headers, "slow down");
        let rig = all_arrive(Kind::Prometheus, Protocol::V1, vec![fault]).await;
        let seen = &rig.server.lock().seen;
        assert!(seen[1].0 - seen[0].0 >= Duration::from_secs(1));
        assert_eq!(seen[1].1["retry-attempt"], "1");
    }
}

#[tokio::test]
async fn what_was_stored_before_a_time_out_is_held_or_accepted_again() {
    for protocol in BOTH {
        for kind in [Kind::Prometheus, Kind::Mimir] {
            all_arrive(kind, protocol, vec![Fault::TimeOutAfterCommit, Fault::AnswerAfterCommit(504)]).await;
        }
    }
}

#[tokio::test]
async fn a_re_send_of_what_is_there_behind_newer_samples_is_held_already() {
    for protocol in BOTH {
        let mut rig = rig(Kind::Prometheus, protocol, Vec::new(), |_| {}).await;
        rig.submit(false);
        rig.submit(false);
        assert_eq!((rig.outcome().await.delivered, rig.outcome().await.delivered), (20, 20));
        rig.seq = 0;
        rig.submit(true);
        rig.submit(false);
        let outcome = rig.outcome().await;
        assert_eq!((outcome.delivered, outcome.held_already, outcome.rejections.len()), (0, 20, 0));
        rig.assert_all_stored();
        // The same without the mark is refused: somebody else wrote it.
        rig.seq = 0;
        rig.submit(false);
        rig.outcome().await;
        let outcome = rig.outcome().await;
        assert_eq!(outcome.rejections[0].reason, RejectReason::OutOfOrder);
        assert_eq!(outcome.rejections[0].records, [(0, 20)]);
    }
}

#[tokio::test]
async fn a_backend_without_two_zero_gets_one_zero_from_then_on() {
    for kind in [Kind::Thanos, Kind::VictoriaMetrics] {
        let rig = all_arrive(kind, Protocol::Auto, Vec::new()).await;
        let server = rig.server.lock();
        let versions: Vec<_> = server
            .seen
            .iter()
            .map(|(_, h)| h["x-prometheus-remote-write-version"].to_str().unwrap())
            .collect();
        assert_eq!(versions[..2], ["2.0.0", "0.1.0"]);
        assert!(!versions[1..].contains(&"2.0.0"));
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_split_and_a_record_that_is_too_large_refused() {
    for protocol in BOTH {
        let mut rig = rig(Kind::Prometheus, protocol, Vec::new(), |_| {}).await;
        rig.server.lock().model.max_samples = 3;
        rig.submit(false);
        assert_eq!(rig.outcome().await.delivered, 20);
        rig.server.lock().model.max_samples = 0;
        rig.submit(false);
        let outcome = rig.outcome().await;
        assert_eq!(
            (outcome.rejections[0].reason, outcome.rejections[0].count()),
            (RejectReason::TooLarge, 20)
        );
    }
}

#[tokio::test]
async fn requests_above_the_limit_are_split_before_they_are_sent() {
    let mut rig = rig(Kind::Prometheus, Protocol::V1, Vec::new(), |s| s.max_request_bytes = 200).await;
    rig.submit(false);
    assert_eq!(rig.outcome().await.delivered, 20);
    assert!(rig.server.lock().seen.len() >= 5);
}

#[tokio::test]
async fn a_poisoned_series_is_found_by_every_kind_of_backend() {
    for kind in [Kind::Prometheus, Kind::Mimir, Kind::Thanos] {
        for protocol in BOTH {
            let mut rig = rig(kind, protocol, Vec::new(), |_| {}).await;
            rig.submit(false);
            assert_eq!(rig.outcome().await.delivered, 20);
            rig.seq += 1;
            let bad = Arc::new(ResolvedSet::new(named(&rig.symbols, "weird", "n", 1), 2));
            let at = START_MS + 2_000;
            let blocks = vec![block(&bad, at), block(&rig.set, at), block(&bad, at - 1)];
            // In one batch, so that it is one request.
            rig.output.submit(delivery(&rig.agent, rig.seq, false, blocks, &rig.sender));
            let outcome = rig.outcome().await;
            assert_eq!((outcome.delivered, outcome.held_already), (20, 0), "{kind:?} {protocol:?}");
            assert_eq!(outcome.rejections.len(), 1, "{outcome:?}");
            assert_eq!(outcome.rejections[0].reason, RejectReason::Other);
            assert_eq!(outcome.rejections[0].records, [(0, 1), (21, 1)]);
            assert!(outcome.rejections[0].message.contains("the stars are wrong"), "{outcome:?}");
            rig.assert_all_stored();
        }
    }
}

#[tokio::test]
async fn a_wrong_tenant_parks_the_output_and_its_repair_resumes_it() {
    let mut rig =
        rig(Kind::Prometheus, Protocol::Auto, vec![answer(401), answer(403), answer(404)], |_| {}).await;
    rig.submit(false);
    assert!(matches!(rig.verdict().await, Verdict::Parked(reason) if reason.contains("401")));
    assert!(!rig.output.health().ok);
    assert_eq!(rig.verdict().await, Verdict::Resumed);
    assert_eq!(rig.outcome().await.delivered, 20);
    assert!(rig.output.health().ok);
}

#[tokio::test]
async fn a_wrong_url_that_answers_bad_request_parks_and_refuses_nothing() {
    let words = || Fault::Answer(400, Vec::new(), "what is this");
    let mut rig = rig(Kind::Prometheus, Protocol::V1, vec![words(); 60], |_| {}).await;
    rig.submit(false);
    assert!(matches!(rig.verdict().await, Verdict::Parked(reason) if reason.contains("what is this")));
    let outcome = rig.outcome().await;
    assert_eq!((outcome.delivered, outcome.rejections.len()), (20, 0));
}

#[tokio::test]
async fn one_tenants_trouble_delays_no_other() {
    let mut rig = rig(Kind::Prometheus, Protocol::V1, Vec::new(), |s| {
        s.tenant_header = Some(HeaderName::from_static("x-scope-orgid"));
    })
    .await;
    let slow = vec![("retry-after", "3600".to_owned())];
    rig.server.lock().faults.push_back(Fault::Answer(429, slow, ""));
    rig.submit(false);
    let server = rig.server.clone();
    let limited = async || {
        while server.lock().seen.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), limited()).await.unwrap();
    let mut other = (*agent_info("n", 2)).clone();
    other.identity.tenant = pegel_proto::identity::TenantId::parse("other").unwrap();
    let blocks = vec![block(&rig.set, START_MS + 1_000)];
    rig.output.submit(delivery(&Arc::new(other), 1, false, blocks, &rig.sender));
    assert_eq!(rig.outcome().await.delivered, 20);
    let server = rig.server.lock();
    assert_eq!(server.seen[0].1["x-scope-orgid"], "acme");
    assert_eq!(server.seen[1].1["x-scope-orgid"], "other");
}

#[tokio::test]
async fn a_connection_that_is_reset_or_refused_is_tried_again() {
    let mut rig = rig(Kind::Prometheus, Protocol::V1, Vec::new(), |_| {}).await;
    let address = {
        // The first server resets what connects; then nothing listens; then the model does.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let settings = Settings {
            min_backoff: Duration::from_millis(10),
            max_backoff: Duration::from_millis(50),
            ..Settings::new(
                OutputName::parse("o").unwrap(),
                format!("http://{address}/api/v1/write").parse().unwrap(),
            )
        };
        rig.output = RemoteWrite::new(settings, rig.symbols.clone(), &Registry::new()).unwrap();
        rig.submit(false);
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut some = [0; 64];
        socket.read_exact(&mut some).await.unwrap();
        socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
        address
    };
    let health = async || {
        while rig.output.health().ok {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), health()).await.unwrap();
    let listener = TcpListener::bind(address).await.unwrap();
    let app = Router::new().route("/api/v1/write", post(receive)).with_state(rig.server.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    assert_eq!(rig.outcome().await.delivered, 20);
    rig.assert_all_stored();
}

#[tokio::test]
async fn credentials_and_headers_are_sent_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, "hunter2\n").unwrap();
    let basic = Authorization::Basic { user: "u".into(), password_file: file.clone() };
    for (authorization, header) in
        [(Authorization::Bearer { token_file: file }, "Bearer hunter2"), (basic, "Basic dTpodW50ZXIy")]
    {
        let mut rig = rig(Kind::Prometheus, Protocol::V1, Vec::new(), |s| {
            s.authorization = authorization;
            s.headers = vec![(HeaderName::from_static("x-key"), HeaderValue::from_static("sesame"))];
            assert!(!format!("{s:?}").contains("sesame"));
        })
        .await;
        rig.submit(false);
        rig.outcome().await;
        let server = rig.server.lock();
        let headers = &server.seen[0].1;
        assert_eq!(headers["authorization"], header);
        assert_eq!(headers["x-key"], "sesame");
        assert!(headers["user-agent"].to_str().unwrap().starts_with("pegel-aggregator/"));
        assert_eq!(headers["content-encoding"], "snappy");
    }
}

#[tokio::test]
async fn a_missing_credential_file_is_named_and_nothing_is_sent() {
    let mut rig = rig(Kind::Prometheus, Protocol::V1, Vec::new(), |s| {
        s.authorization = Authorization::Bearer { token_file: "/no/such/file".into() };
    })
    .await;
    rig.submit(false);
    let named = async || {
        while !rig.output.health().detail.contains("/no/such/file") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), named()).await.unwrap();
    assert!(rig.server.lock().seen.is_empty());
}

#[tokio::test]
async fn forgetting_a_session_drops_what_it_queued() {
    let fault = Fault::Answer(503, vec![("retry-after", "3600".to_owned())], "");
    let mut rig = rig(Kind::Prometheus, Protocol::V1, vec![fault], |_| {}).await;
    rig.submit(false);
    let failed = async || {
        while rig.output.health().ok {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), failed()).await.unwrap();
    rig.submit(false);
    rig.output.forget_session(1);
    let queued =
        rig.registry.gauge("pegel_output_queued_samples", "", &[("output", "o"), ("tenant", "acme")]);
    assert!(queued.value().abs() < 0.5);
    assert!(rig.verdicts.try_recv().is_err());
}
