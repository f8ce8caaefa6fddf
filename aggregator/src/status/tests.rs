//! The status over HTTP, and the words of its findings.

use super::findings::{Growth, Level, ONGOING_MS, findings};
use super::*;
use crate::output::recent::tests::{Bed, HOST, START_MS, host_values, identity};
use crate::output::recent_logs::tests::Bed as LogBed;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use pegel_proto::batch::{AgentEpoch, BatchSeq, RejectReason, Rejection};
use pegel_proto::wire;
use pegel_runtime::http_client::{ClientTls, HttpClient, http_client};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

#[derive(Default)]
struct Fleet(Mutex<Vec<AgentStatus>>, Mutex<Vec<OutputStatus>>);

impl FleetView for Fleet {
    fn agents(&self) -> Vec<AgentStatus> {
        self.0.lock().clone()
    }

    fn rejects(&self) -> Vec<Reject> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<OutputStatus> {
        self.1.lock().clone()
    }
}

fn agent(node: &str) -> AgentStatus {
    AgentStatus {
        identity: identity(node),
        version: "0.1.0".into(),
        hostname: node.into(),
        peer: "10.0.0.9:40000".parse().unwrap(),
        epoch: AgentEpoch(1),
        connected: true,
        since_ms: START_MS - 3_600_000,
        last_contact_ms: START_MS,
        ended: None,
        clock_ahead_ms: Some(-20),
        spool_bytes: 0,
        front_bytes: 0,
        quarantined_segments: 0,
        conflicts: 0,
        certificate_expires_ms: None,
        books: vec![Books {
            signal: "metrics".into(),
            output: "main".into(),
            collected: 1000,
            delivered: 990,
            in_front: 10,
            ..Books::default()
        }],
        files_behind: None,
    }
}

fn told(agent: &AgentStatus, growth: Growth) -> String {
    let found = findings(agent, &[growth], &[], Some(START_MS), START_MS);
    assert!(found.is_sorted_by_key(|finding| std::cmp::Reverse(finding.level)), "{found:?}");
    let lines = found.iter().map(|f| format!("{:?}: {} {} {}", f.level, f.what, f.why, f.todo));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn each_trouble_is_told_in_words() {
    let quiet = Growth::default();
    let lossy = Growth { dropped_ms: Some(START_MS - 5), rejected_ms: Some(START_MS - 5) };
    let case = |change: fn(&mut AgentStatus), growth: Growth, words: &[&str]| {
        let mut agent = agent("n");
        change(&mut agent);
        let told = told(&agent, growth);
        for word in words {
            assert!(told.contains(word), "{word} in {told}");
        }
    };
    case(|_| {}, quiet, &["Good: All is well. 990 samples delivered, 10 on their way."]);
    case(|a| a.books.clear(), quiet, &["It collects nothing", "pegel-agent validate"]);
    case(
        |a| (a.connected, a.last_contact_ms, a.spool_bytes) = (false, START_MS - 240_000, 5 << 20),
        quiet,
        &[
            "Bad: No contact for 4 min",
            "5.00 MiB waited on the node",
            "systemctl status pegel-agent",
            "10.0.0.9",
        ],
    );
    case(
        |a| (a.connected, a.last_contact_ms) = (false, START_MS - 2_000),
        quiet,
        &["Note: Disconnected a moment ago", "another aggregator"],
    );
    case(
        |a| {
            a.books[0].parked = Some("401 Unauthorized".into());
            (a.books[0].spooled, a.books[0].collected) = (5000, 6000);
        },
        quiet,
        &["Bad: Output main takes nothing: 401 Unauthorized.", "5,010 samples wait on the node"],
    );
    case(|a| a.books[0].lag_ms = 90_000, quiet, &["Warning: 1 min 30 s behind to output main"]);
    case(
        |a| {
            a.books[0].rejected.insert("too_old".into(), 7);
            a.books[0].collected += 7;
        },
        lossy,
        &[
            "Bad: 7 samples are being refused by main",
            "7 too old for the backend",
            "out_of_order_time_window",
        ],
    );
    case(
        |a| {
            a.books[0].dropped.insert("quota_oldest".into(), 3);
            a.books[0].collected += 3;
        },
        quiet,
        &["Note: 3 samples were dropped", "3 because the spool was full and its oldest gave way"],
    );
    case(|a| a.books[0].collected += 2, quiet, &["Warning: The books of main are off by 2 samples"]);
    case(|a| a.books[0].delivered += 1, quiet, &["off by 1 sample.", "accounted for twice"]);
    case(
        |a| {
            a.books[0].signal = "logs".into();
            a.books[0].rejected.insert("too_old".into(), 1);
            a.books[0].dropped.insert("quota_oldest".into(), 2);
            (a.books[0].lost_in_crash, a.books[0].collected) = (5, 1_008);
        },
        lossy,
        &[
            "1 log entry are being refused by main",
            "1 older than the backend takes",
            "reject_old_samples_max_age",
            "2 log entries are being dropped",
            "`logs.buffer.quota`",
            "At most 5 log entries were lost",
        ],
    );
    case(|a| a.clock_ahead_ms = Some(400_000), quiet, &["Warning: Its clock is 6 min 40 s ahead"]);
    case(|a| a.quarantined_segments = 2, quiet, &["2 damaged spool segments are set aside"]);
    case(|a| a.conflicts = 4, quiet, &["Another machine shows the same certificate"]);
    case(|a| a.certificate_expires_ms = Some(START_MS + 86_400_000), quiet, &["certificate expires in 24 h"]);
    case(|a| a.certificate_expires_ms = Some(START_MS - 1), quiet, &["Bad: Its certificate has expired"]);
}

#[test]
fn a_connected_agent_without_samples_is_told_apart_from_one_whose_output_is_away() {
    let silent = agent("n");
    let found = findings(&silent, &[], &[], Some(START_MS - 300_000), START_MS);
    assert_eq!((found[0].level, &*found[0].what), (Level::Warning, "Connected, but no samples for 5 min."));
    let mut behind = agent("n");
    behind.books[0].lag_ms = 300_000;
    let found = findings(&behind, &[], &[], Some(START_MS - 300_000), START_MS);
    assert!(found.iter().all(|finding| !finding.what.contains("no samples")), "{found:?}");
}

#[test]
fn books_from_the_wire_balance() {
    let reason = |reason: &str, count| wire::ReasonCount { reason: reason.into(), count };
    let books = Books::from(&wire::Books {
        signal: wire::WireSignal::Metrics as i32,
        output: "main".into(),
        collected: 100,
        delivered: 60,
        held_already: 1,
        in_front: 2,
        spooled: 3,
        dropped: vec![reason("quota", 4), reason("quota", 5)],
        rejected: vec![reason("too_old", 20)],
        lost_in_crash: 5,
        lag_ms: 7,
        parked: String::new(),
    });
    assert_eq!((books.dropped["quota"], books.parked.clone(), books.difference()), (9, None, 0));
}

/// A status server in the test's own runtime.
struct Site {
    bed: Bed,
    logs: LogBed,
    fleet: Arc<Fleet>,
    client: HttpClient,
    base: String,
    _stop: tokio_util::sync::DropGuard,
}

impl Site {
    async fn start(settings: Settings) -> Self {
        let bed = Bed::new(crate::output::recent::Settings::default());
        let fleet = Arc::new(Fleet::default());
        let settings = Settings { tick: Duration::from_millis(20), ..settings };
        let logs = LogBed::new(crate::output::recent_logs::Settings::default());
        let shown = (bed.recent.clone(), Some(logs.logs.clone()));
        let status = Status::new(settings, fleet.clone(), shown.0, shown.1, &bed.registry);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(status.clone().run(stop.clone()));
        tokio::spawn(async move { axum::serve(listener, status.router()).await });
        let client = http_client(&ClientTls::default(), Duration::from_secs(5)).unwrap();
        Self { bed, logs, fleet, client, base, _stop: stop.drop_guard() }
    }

    async fn text(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("{}{path}", self.base).parse().unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn json(&self, path: &str) -> Value {
        let (status, text) = self.text(path).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn fleet(&self) -> FleetAnswer {
        serde_json::from_value(self.json("/api/v1/fleet").await).unwrap()
    }

    /// Moves the clock; a second is beyond what a look at the fleet is good for.
    fn pass(&self, ms: i64) {
        self.bed.now_ms.fetch_add(ms, Ordering::Relaxed);
        self.logs.now_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_fleet_comes_with_its_books() {
    let site = Site::start(Settings { name: "site-1".into(), ..Settings::default() }).await;
    site.fleet.0.lock().extend([agent("b"), agent("a")]);
    site.bed.observe("a", 1, START_MS, &site.bed.set(&HOST), &host_values(1));
    site.pass(1000);
    let fleet = site.fleet().await;
    assert_eq!(fleet.aggregator, "site-1");
    let names: Vec<&str> = fleet.agents.iter().map(|agent| agent.row.node.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let first = &fleet.agents[0];
    assert_eq!((first.row.level, first.books[0].difference), (Level::Good, 0));
    assert_eq!((first.row.delivered, first.row.waiting), (990, 10));
    assert!((first.row.live["memory_used_ratio"] - 0.75).abs() < 1e-6);
    assert_eq!(fleet.agents[1].row.live.len(), 0);
}

#[tokio::test]
async fn losses_are_going_on_until_they_stop_growing() {
    let site = Site::start(Settings::default()).await;
    site.fleet.0.lock().push(agent("a"));
    site.fleet.0.lock()[0].books[0].rejected.insert("too_old".into(), 5);
    let says =
        |fleet: &FleetAnswer, words: &str| fleet.agents[0].findings.iter().any(|f| f.what.contains(words));
    let fleet = site.fleet().await;
    assert!(says(&fleet, "were refused"), "those from before this aggregator watched: {fleet:?}");
    site.fleet.0.lock()[0].books[0].rejected.insert("too_old".into(), 6);
    site.pass(1000);
    let fleet = site.fleet().await;
    assert!(says(&fleet, "are being refused"), "{fleet:?}");
    site.pass(ONGOING_MS);
    let fleet = site.fleet().await;
    assert!(says(&fleet, "were refused"), "{fleet:?}");
}

#[tokio::test]
async fn a_node_has_history_machine_and_series() {
    let site = Site::start(Settings::default()).await;
    site.fleet.0.lock().push(agent("n"));
    let set = site.bed.set(&HOST);
    for step in 0..3 {
        site.bed.observe("n", step as u64 + 1, START_MS + step * 15_000, &set, &host_values(step));
    }
    site.pass(30_000);
    let node = site.json("/api/v1/nodes/acme/n").await;
    assert_eq!(node["machine"]["cpus"], 1);
    assert_eq!(node["series"], 16);
    assert_eq!(node["history"]["tracks"][0]["name"], "cpu_busy_ratio");
    assert_eq!(node["history"]["tracks"][0]["values"].as_array().unwrap().len(), 240);
    let series = site.json("/api/v1/nodes/acme/n/series?match=node_load1").await;
    assert_eq!(series["matching"], 1);
    assert_eq!(series["series"][0]["labels"]["__name__"], "node_load1");
    assert_eq!(series["series"][0]["value"], "0.5");
    let all = site.json("/api/v1/nodes/acme/n/series").await;
    assert_eq!(all["matching"], 16);
    let (status, text) = site.text("/api/v1/nodes/acme/n/series?match=%7Bbroken").await;
    assert!(status == 400 && text.contains("cannot read the selector"), "{text}");
    let (status, text) = site.text("/api/v1/nodes/acme/other").await;
    assert!(status == 404 && text.contains("not heard of node other"), "{text}");
    assert_eq!(site.text("/api/v1/nodes/acme/..%2Fx").await.0, 400);
}

#[tokio::test]
async fn federate_speaks_the_text_format() {
    let site = Site::start(Settings { max_answer_series: 3, ..Settings::default() }).await;
    let set = site.bed.set(&["b_total path=a\"b\\c", "a job=x", "a job=y"]);
    site.bed.observe("n", 1, START_MS, &set, &[3.0, f64::NAN, f64::INFINITY]);
    site.bed.observe("m", 1, START_MS, &site.bed.set(&["a job=z"]), &[0.1]);
    let (status, text) = site.text("/federate?match[]=b_total&match[]=%7Bjob%3D~%22x%7Cy%22%7D").await;
    assert_eq!(status, 200);
    let expected = [
        "# TYPE a gauge",
        "a{job=\"x\"} NaN AT",
        "a{job=\"y\"} +Inf AT",
        "# TYPE b_total counter",
        r#"b_total{path="a\"b\\c"} 3 AT"#,
        "",
    ];
    assert_eq!(text, expected.join("\n").replace("AT", &START_MS.to_string()));
    assert_eq!(site.text("/federate").await, (200, String::new()));
    let (status, text) = site.text("/federate?match[]=%7B__name__%3D~%22.%2B%22%7D").await;
    assert!(status == 422 && text.contains("4 series match"), "{text}");
    site.pass(300_001);
    assert_eq!(site.text("/federate?match[]=a").await, (200, String::new()), "beyond the look-back");
}

#[tokio::test]
async fn events_begin_with_the_whole_and_go_on_with_changes() {
    let site = Site::start(Settings { max_event_streams: 1, ..Settings::default() }).await;
    site.fleet.0.lock().extend([agent("a"), agent("b")]);
    let url = format!("{}/api/v1/events?tenant=acme&node=a", site.base);
    let mut stream = site.client.get(url.parse().unwrap()).await.unwrap().into_body();
    let mut text = String::new();
    let mut next = async |wanted: &str| {
        while !text.contains(wanted) {
            let frame = tokio::time::timeout(Duration::from_secs(10), stream.frame()).await;
            let frame = frame.unwrap_or_else(|_| panic!("no {wanted} in {text}")).unwrap().unwrap();
            text.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
        }
        std::mem::take(&mut text)
    };
    let whole = next("event: node").await;
    assert!(whole.contains("\"whole\":true") && whole.contains("\"node\":\"b\""), "{whole}");
    site.fleet.0.lock()[1].books[0].lag_ms = 120_000;
    site.pass(1000);
    let change = next("behind to output").await;
    assert!(change.contains("\"whole\":false"), "{change}");
    site.fleet.0.lock().remove(1);
    site.pass(1000);
    next("\"gone\":[[\"acme\",\"b\"]]").await;
    let (status, _) = site.text("/api/v1/events").await;
    assert_eq!(status, 503, "one stream is all there may be here");
}

#[tokio::test]
async fn the_page_is_guarded_and_cached() {
    let site = Site::start(Settings::default()).await;
    let request = |path: &str, name: &'static str, value: &str| {
        let request = http::Request::get(format!("{}{path}", site.base)).header(name, value);
        site.client.request(request.body(http_body_util::Full::default()).unwrap())
    };
    let page = request("/nodes/acme/x", "accept", "text/html").await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let tag = page.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(request("/", "if-none-match", &tag).await.unwrap().status(), 304);
    assert_eq!(request("/", "host", "rebound.example").await.unwrap().status(), 421);
    assert_eq!(request("/", "host", "localhost:9").await.unwrap().status(), 200);
    assert_eq!(request("/assets/none.js", "accept", "*/*").await.unwrap().status(), 404);
    for (host, local) in
        [("[::1]:80", true), ("127.0.0.1", true), ("127.0.0.1.example", false), ("[::1]", true)]
    {
        assert_eq!(is_local_host(host), local, "{host}");
    }
}

#[test]
fn the_list_of_refusals_is_bounded_and_begins_with_the_newest() {
    let log = RejectLog::default();
    let rejection = |seq| Rejection {
        seq: BatchSeq(seq),
        reason: RejectReason::TooOld,
        message: "too old".into(),
        records: vec![(0, 3), (9, 1)],
    };
    for seq in 1..=300 {
        log.note(&identity("n"), "main", &[rejection(seq)], START_MS);
    }
    let fleet = ReceiverFleet {
        sessions: Arc::default(),
        outputs: tokio::sync::watch::channel(Arc::new(Vec::new())).1,
        rejects: Arc::new(log),
    };
    let rejects = fleet.rejects();
    assert_eq!((rejects.len(), rejects[0].seq, rejects[0].count), (200, 300, 4));
}

/// The series of one check, as an agent reports them.
fn check(bed: &Bed, node: &str, seq: u64, target: &str, values: [f64; 4]) {
    let own = format!("job=web instance={target} tenant=acme node={node}");
    let names = [
        "probe_success",
        "pegel_probe_up kind=http",
        "pegel_probe_maintenance",
        "pegel_probe_state_since_timestamp_seconds",
    ];
    let series = names.map(|name| format!("{name} {own}"));
    let set = bed.set(&series.each_ref().map(String::as_str));
    bed.observe(node, seq, START_MS, &set, &values);
}

#[tokio::test]
async fn the_status_lists_checks_the_worst_first_and_answers_what_was_asked() {
    let site = Site::start(Settings::default()).await;
    site.fleet.0.lock().extend([agent("a"), agent("b")]);
    check(&site.bed, "a", 1, "https://one/", [1.0, 1.0, 0.0, 1.7e9]);
    check(&site.bed, "a", 2, "https://two/", [0.0, 0.0, 0.0, 1.7e9]);
    check(&site.bed, "b", 1, "https://one/", [0.0, 1.0, 0.0, 1.7e9]);
    site.pass(1000);
    let all: overview::StatusAnswer = serde_json::from_value(site.json("/api/v1/status").await).unwrap();
    let found: Vec<_> =
        all.checks.iter().map(|c| (c.node.as_str(), c.instance.as_str(), c.failing)).collect();
    let expected = [("a", "https://two/", true), ("b", "https://one/", true), ("a", "https://one/", false)];
    assert_eq!(found, expected);
    assert_eq!(all.tenants["acme"].checks, [("down".to_owned(), 1), ("up".to_owned(), 2)].into());
    assert_eq!((all.tenants["acme"].nodes, all.nodes.len(), all.matching), (2, 2, 3));

    let down = site.json("/api/v1/status?state=down&job=web").await;
    assert_eq!((&down["matching"], &down["checks"][0]["instance"]), (&1.into(), &"https://two/".into()));
    assert_eq!(site.json("/api/v1/status?node=b").await["matching"], 1);
    assert_eq!(site.json("/api/v1/status?tenant=other").await["matching"], 0);
    for (query, words) in [("state=broken", "use down, unknown"), ("sate=down", "use tenant, node")] {
        let (status, text) = site.text(&format!("/api/v1/status?{query}")).await;
        assert!(status == 400 && text.contains(words), "{status} {text}");
    }
}

#[tokio::test]
async fn over_https_a_certificate_shows_its_tenants_state_and_no_other() {
    use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
    use pegel_runtime::pki::{AggregatorNames, CertificateAuthority, DEFAULT_CA_LIFETIME, Existing};
    use pegel_runtime::tls::{ReceiverTls, TlsFiles};

    let hour = Duration::from_hours(1);
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [ca, stranger] = dirs.each_ref().map(|dir| {
        CertificateAuthority::init(dir.path(), "site", DEFAULT_CA_LIFETIME, Existing::Refuse).unwrap()
    });
    let names = AggregatorNames {
        name: NodeId::parse("agg").unwrap(),
        dns: vec![],
        addresses: vec!["127.0.0.1".parse().unwrap()],
    };
    let own = ca.issue_aggregator(&names, hour, Existing::Replace).unwrap();
    let crl = Some(ca.crl_path());
    let files = TlsFiles { ca: ca.certificate_path(), cert: own.cert, key: own.key, crl };
    let tls = ReceiverTls::load(files, b"http/1.1", None).unwrap();

    let site = Site::start(Settings::default()).await;
    let mut other = agent("b");
    other.identity.tenant = TenantId::parse("globex").unwrap();
    site.fleet.0.lock().extend([agent("a"), other]);
    let settings = Settings::default();
    let shown = (site.bed.recent.clone(), Some(site.logs.logs.clone()));
    let status = Status::new(settings, site.fleet.clone(), shown.0, shown.1, &site.bed.registry);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(tenants::Tenants::new(status, tls, &site.bed.registry).serve(listener, stop));

    let client = |authority: Option<&CertificateAuthority>| {
        let node = AgentIdentity {
            tenant: TenantId::parse("acme").unwrap(),
            node: NodeId::parse("reader").unwrap(),
        };
        let issued = authority.map(|a| a.issue_agent(&node, hour, Existing::Replace).unwrap());
        let (cert_file, key_file) = issued.map(|files| (files.cert, files.key)).unzip();
        let tls =
            ClientTls { ca_file: Some(ca.certificate_path()), cert_file, key_file, ..ClientTls::default() };
        http_client(&tls, Duration::from_secs(5)).unwrap()
    };
    let ask = async |client: &HttpClient, path: &str| {
        let response = client.get(format!("{base}{path}").parse().unwrap()).await.ok()?;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Some((code, String::from_utf8(body.to_vec()).unwrap()))
    };
    let reader = client(Some(&ca));
    let (code, text) = ask(&reader, "/api/v1/status").await.unwrap();
    let answer: overview::StatusAnswer = serde_json::from_str(&text).unwrap();
    assert_eq!((code, answer.nodes.len(), answer.nodes[0].node.as_str()), (200, 1, "a"), "{text}");
    let (code, text) = ask(&reader, "/api/v1/status?tenant=globex").await.unwrap();
    assert!(code == 403 && text.contains("tenant acme"), "{code} {text}");
    assert_eq!(ask(&reader, "/api/v1/fleet").await.unwrap().0, 404);
    site.logs.observe("acme", "a", 1, &["own"]);
    site.logs.observe("globex", "b", 1, &["foreign"]);
    let (code, text) = ask(&reader, "/api/v1/tail?follow=false").await.unwrap();
    assert!(code == 200 && text.contains("own") && !text.contains("foreign"), "{code} {text}");
    assert_eq!(ask(&reader, "/api/v1/tail?tenant=globex").await.unwrap().0, 403);
    assert_eq!(ask(&reader, "/api/v1/tail?node=b").await.unwrap().0, 404, "of another tenant");
    for nobody in [client(None), client(Some(&stranger))] {
        assert_eq!(ask(&nobody, "/api/v1/status").await, None);
    }
}

#[test]
fn data_without_an_output_that_takes_it_is_told() {
    let output = |name: &str, signal: &str| OutputStatus {
        name: name.into(),
        signal: signal.into(),
        ok: true,
        detail: String::new(),
        accepts_out_of_order: false,
        out_of_order_window_seconds: 0,
        troubles: BTreeMap::new(),
    };
    let mut node = agent("n");
    node.books.push(Books {
        signal: "logs".into(),
        output: String::new(),
        collected: 70,
        in_front: 10,
        spooled: 60,
        ..Books::default()
    });
    let told = |node: &AgentStatus, outputs: &[OutputStatus]| {
        let first = findings(node, &[], outputs, Some(START_MS), START_MS).swap_remove(0);
        format!("{:?}: {} {} {}", first.level, first.what, first.why, first.todo)
    };
    let metrics = output("main", "metrics");
    let none = told(&node, std::slice::from_ref(&metrics));
    assert!(none.starts_with("Bad: No output of this aggregator takes logs. 70 log entries wait"), "{none}");
    assert!(none.contains("of type `loki`"), "{none}");
    let with_loki = [metrics, output("loki", "logs")];
    assert!(told(&node, &with_loki).starts_with("Good"), "assigned in a moment");
    node.books[1].output = "elsewhere".into();
    let other = told(&node, &with_loki);
    assert!(other.starts_with("Warning: This aggregator has no output elsewhere."), "{other}");
    node.books[1].output = "loki".into();
    assert!(told(&node, &with_loki).starts_with("Good"), "on their way");
    let well = told(&node, &with_loki);
    assert!(well.contains("990 samples delivered, 80 on their way"), "{well}");
}

/// Reads a stream until it has said something.
struct Told {
    body: hyper::body::Incoming,
    text: String,
}

impl Told {
    async fn until(&mut self, wanted: &str) -> String {
        while !self.text.contains(wanted) {
            let frame = tokio::time::timeout(Duration::from_secs(10), self.body.frame()).await;
            let frame = frame.unwrap_or_else(|_| panic!("no {wanted} in {}", self.text));
            let frame = frame.unwrap_or_else(|| panic!("the end before {wanted}: {}", self.text)).unwrap();
            self.text.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
        }
        std::mem::take(&mut self.text)
    }
}

impl Site {
    async fn follow(&self, query: &str, accept: &str) -> Told {
        let request =
            http::Request::get(format!("{}/api/v1/tail?{query}", self.base)).header("accept", accept);
        let response =
            self.client.request(request.body(http_body_util::Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        Told { body: response.into_body(), text: String::new() }
    }
}

fn entries(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap());
    lines.filter(|line: &Value| line.get("event").is_none()).collect()
}

#[tokio::test]
async fn a_tail_is_the_past_and_then_what_comes_each_entry_with_all_that_is_known() {
    let site = Site::start(Settings::default()).await;
    site.fleet.0.lock().extend([agent("a"), agent("b")]);
    site.logs.observe("acme", "a", 1, &["job=web node=inner|one", "job=web|two traced"]);
    site.pass(1_000);
    site.logs.observe("acme", "b", 1, &["three"]);
    let mut told = site.follow("", "*/*").await;
    let past = entries(&told.until("\"live\"").await);
    let lines: Vec<&str> = past.iter().map(|entry| entry["line"].as_str().unwrap()).collect();
    assert_eq!(lines, ["one", "two traced", "three"]);
    let first = serde_json::json!({
        "at_ns": "1699999999998000000", "tenant": "acme", "node": "a",
        "labels": {"exported_node": "inner", "job": "web"}, "metadata": {}, "line": "one",
    });
    assert_eq!(past[0], first);
    assert_eq!(past[1]["metadata"]["trace_id"], "5f3a");
    site.logs.observe("acme", "b", 2, &["<four> \"quoted\" \u{1b}[31m"]);
    let live = entries(&told.until("four").await);
    assert_eq!(live[0]["line"], "<four> \"quoted\" \u{1b}[31m");

    let lines = async |query: &str| -> Vec<String> {
        let (code, text) = site.text(&format!("/api/v1/tail?follow=false&{query}")).await;
        assert_eq!(code, 200, "{text}");
        entries(&text).iter().map(|entry| entry["line"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(lines("node=a").await, ["one", "two traced"]);
    assert_eq!(lines("match=%7Bnode%3D%22a%22%7D%20%7C%3D%20%22two%22").await, ["two traced"]);
    assert_eq!(lines("match=%7Bexported_node%3D%22inner%22%7D").await, ["one"]);
    assert_eq!(lines("contains=thr").await, ["three"]);
    assert_eq!(lines("limit=1&node=a").await, ["two traced"], "the newest ones");
    assert_eq!(lines("since=500ms&node=b").await.len(), 2);
    assert_eq!(lines("since=500ms&node=a").await.len(), 0);
    assert_eq!(lines("after=1699999999998000000&node=a").await, ["two traced"]);
    assert_eq!(lines("limit=0").await.len(), 0);
    for (query, code, words) in [
        ("node=nobody", 404, "not heard of node nobody"),
        ("match=%7Bjob%7D", 400, "cannot read the query"),
        ("limit=90000", 400, "no number from 0 to 5000"),
        ("since=yesterday", 400, "since:"),
        ("nod=a", 400, "use tenant, node, match"),
    ] {
        let (status, text) = site.text(&format!("/api/v1/tail?{query}")).await;
        assert!(status == code && text.contains(words), "{query}: {status} {text}");
    }
}

#[tokio::test]
async fn a_page_follows_by_events_and_is_told_when_no_output_takes_logs() {
    let site = Site::start(Settings::default()).await;
    site.fleet.1.lock().push(OutputStatus {
        name: "main".into(),
        signal: "metrics".into(),
        ok: true,
        detail: String::new(),
        accepts_out_of_order: false,
        out_of_order_window_seconds: 0,
        troubles: BTreeMap::new(),
    });
    site.logs.observe("acme", "a", 1, &["one", "two"]);
    let mut told = site.follow("", "text/event-stream").await;
    let text = told.until("event: live").await;
    assert!(text.starts_with("event: entries\ndata: [{\"at_ns\""), "{text}");
    assert!(
        text.contains("event: note") && text.contains("No output of this aggregator takes logs"),
        "{text}"
    );
    site.logs.observe("acme", "a", 2, &["three"]);
    let text = told.until("three").await;
    let data = text.trim().strip_prefix("event: entries\ndata: ").unwrap();
    assert_eq!(serde_json::from_str::<Value>(data).unwrap()[0]["line"], "three");
}

#[tokio::test]
async fn the_table_tells_how_many_entries_a_node_sends() {
    let site = Site::start(Settings::default()).await;
    site.fleet.0.lock().push(agent("a"));
    for second in 0..10 {
        site.logs.observe("acme", "a", second + 1, &["x"; 30]);
        site.pass(1_000);
    }
    let fleet = site.fleet().await;
    let rate = fleet.agents[0].row.live["log_entries_per_second"];
    assert!((25.0..=35.0).contains(&rate), "{rate}");
}

#[test]
fn files_that_wait_are_told_with_what_they_wait_for() {
    let output = |tenant: &str| OutputStatus {
        name: "loki".into(),
        signal: "logs".into(),
        ok: false,
        detail: String::new(),
        accepts_out_of_order: false,
        out_of_order_window_seconds: 0,
        troubles: [(tenant.to_owned(), "Loki answered 429: too much (for 5 min)".to_owned())].into(),
    };
    let mut agent = agent("n");
    agent.books.push(Books { signal: "logs".into(), output: "loki".into(), ..Books::default() });
    let file = |path: &str, bytes| FileBehind { path: path.into(), bytes, waits_ms: 300_000 };
    agent.files_behind = Some(FilesBehind {
        files: 5,
        bytes: 14 << 20,
        waits_ms: 300_000,
        no_room_ms: 298_000,
        no_room: Some(NoRoom::BufferFull),
        worst: vec![file("/var/log/x.log", 12 << 20), file("/b", 9), file("/c", 8), file("/d", 7)],
    });
    let told = |agent: &AgentStatus, tenant: &str| {
        let found = findings(agent, &[], &[output(tenant)], Some(START_MS), START_MS);
        found
            .iter()
            .map(|f| format!("{:?}: {} {} {}", f.level, f.what, f.why, f.todo))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let tenant = agent.identity.tenant.to_string();
    let full = told(&agent, &tenant);
    for words in [
        "Warning: 5 log files wait unread: 14.0 MiB, 5 min behind.",
        "The node's buffer for logs is full (for 4 min 58 s). Output loki: Loki answered 429: too much (for 5 min).",
        "Most waits in /var/log/x.log (12.0 MiB, 5 min), /b (9 B, 5 min), /c (8 B, 5 min). Nothing is lost",
        "`logs.buffer.quota`",
    ] {
        assert!(full.contains(words), "{words} in {full}");
    }
    // Of another tenant's trouble nothing is said.
    assert!(!told(&agent, "somebody-else").contains("429"));
    let behind = agent.files_behind.as_mut().unwrap();
    (behind.no_room_ms, behind.no_room, behind.files) = (0, None, 1);
    let late = told(&agent, &tenant);
    assert!(late.contains("1 log file is read late: 14.0 MiB, 5 min behind. Less is taken than"), "{late}");
    agent.files_behind.as_mut().unwrap().waits_ms = 59_000;
    assert!(!told(&agent, &tenant).contains("log file"));
}
