//! Checks of a running agent, as they arrive in a real Prometheus.

use crate::servers::{Pki, Says, answer, serve, serve_tls};
use pegel_tests::pegel::{AgentSetup, Site};
use pegel_tests::prometheus::Prometheus;
use pegel_tests::{eventually, free_port, let_run};
use std::fmt::Write as _;
use std::time::Duration;
use tokio::net::UdpSocket;

const SOON: Duration = Duration::from_secs(60);
/// Targets that hang, and names that nobody answers for.
const HANGING: usize = 300;
const UNKNOWN: usize = 200;
/// Targets that answer, checked every half second.
const GOOD: usize = 10;

fn output(base: &str) -> String {
    format!("url: {base}/api/v1/write\nbackoff_max: 500ms\n")
}

fn list(targets: impl Iterator<Item = String>) -> String {
    let mut out = String::from("[");
    for target in targets {
        let _ = write!(out, "{target:?}, ");
    }
    out.push(']');
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hangs_delays_nothing_and_costs_little() {
    let site = Site::new();
    let Some(prometheus) = Prometheus::start(&site.dir().join("prometheus"), "0s").await else { return };
    let pki = Pki::new();
    let ok = || Says::Bytes(answer("200 OK", &[], b"hi"));
    let (good, secure) = (serve(ok()).await, serve_tls(ok(), pki.server(&["127.0.0.1"], -1, 90)).await);
    let hanging = serve(Says::Nothing).await;
    // A name server that hears everything and says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let refused = free_port();
    let checks = [
        format!(
            "{{name: good, kind: http, interval: 500ms, targets: {}}}",
            list((0..GOOD).map(|i| format!("http://{good}/{i}")))
        ),
        format!(
            "{{name: hanging, kind: http, interval: 4s, timeout: 3500ms, targets: {}}}",
            list((0..HANGING).map(|i| format!("http://{hanging}/{i}")))
        ),
        format!(
            "{{name: unknown, kind: tcp, interval: 4s, timeout: 3500ms, targets: {}}}",
            list((0..UNKNOWN).map(|i| format!("host-{i}.example:80")))
        ),
        format!(
            "{{name: refused, kind: tcp, interval: 1s, down_after: 3, targets: [\"127.0.0.1:{refused}\"]}}"
        ),
        format!(
            "{{name: secure, kind: tls, interval: 1s, targets: [\"{secure}\"], labels: {{team: web}}, tls: {{tls_config: {{ca_file: {}}}}}}}",
            pki.ca_file().display()
        ),
    ];
    let name_server = silent.local_addr().expect("an address");
    let probes = format!("{{name_servers: [\"{name_server}\"], checks: [{}]}}", checks.join(", "));
    let aggregator = site.aggregator("one", Some(&output(&prometheus.url()))).await;
    let setup = AgentSetup {
        probes: Some(probes),
        containers: Some("{enabled: false}".to_owned()),
        ..AgentSetup::default()
    };
    let mut agent = site.agent("web-1", &[aggregator.address()], setup);
    agent.start().await;

    let count = |expression: String, is: f64| {
        let prometheus = &prometheus;
        async move {
            eventually(&format!("{expression} is {is}"), SOON, || async {
                (prometheus.value(&expression).await == Some(is)).then_some(())
            })
            .await;
        }
    };
    // What a dashboard of the blackbox mixin asks for.
    let job = "job=\"blackbox-exporter\"";
    count(format!("count(probe_success{{{job},check=\"good\"}} == 1)"), GOOD as f64).await;
    count(format!("count(probe_success{{{job}}} == 0)"), (HANGING + UNKNOWN + 1) as f64).await;
    count(format!("max by (instance) (probe_http_status_code{{{job},instance=\"http://{good}/0\"}})"), 200.0)
        .await;
    count(
        format!(
            "count(pegel_probe_failure{{{job},check=\"hanging\",phase=\"processing\",reason=\"timeout\"}})"
        ),
        HANGING as f64,
    )
    .await;
    count(
        format!("count(pegel_probe_failure{{{job},check=\"unknown\",phase=\"resolve\",reason=\"timeout\"}})"),
        UNKNOWN as f64,
    )
    .await;
    count("pegel_probe_up{check=\"refused\",kind=\"tcp\"}".to_owned(), 0.0).await;
    count("count(probe_ssl_earliest_cert_expiry{team=\"web\"} - time() > 80 * 24 * 3600)".to_owned(), 1.0)
        .await;

    // While 500 hang, the others go on as if they were alone.
    let_run(Duration::from_secs(12)).await;
    let runs = "min(count_over_time(probe_success{check=\"good\"}[10s]))";
    let (runs, lag) = (
        prometheus.value(runs).await.expect("runs"),
        prometheus
            .value("max(max_over_time(pegel_probe_schedule_lag_seconds{check=\"good\"}[10s]))")
            .await
            .expect("a lag"),
    );
    let pid = agent.process().pid();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count();
    let resident = agent.process().resident_bytes() >> 20;
    println!(
        "500 of {} targets hang: {runs} of 20 runs in 10 s, lag at most {lag} s, {descriptors} descriptors, {resident} MiB",
        512
    );
    assert!(runs >= 18.0 && lag < 0.5, "{runs} runs, {lag} s");
    assert!(descriptors < 1_200, "{descriptors} descriptors");
    assert!(resident < 120, "{resident} MiB of a debug build");

    // The status says it in words.
    let status = agent.status().await.expect("a status");
    let checks = status["checks"].as_array().expect("checks");
    assert_eq!(checks.len(), HANGING + UNKNOWN + GOOD + 2);
    let of = |name: &str| checks.iter().find(|check| check["name"] == name).expect("a check");
    assert_eq!((&of("good")["state"], &of("refused")["state"]), (&"up".into(), &"down".into()));
    assert_eq!(of("refused")["reason"], "refused");
    assert!(
        of("hanging")["last_error"].as_str().is_some_and(|words| words.contains("3.5s")),
        "{}",
        of("hanging")
    );
    let log = agent.process().log();
    assert!(log.contains("a check is down") && log.contains("reason=refused"), "the log names it: {log}");

    // A reload without them ends their series at once.
    agent.write_config(false);
    agent.hangup();
    count(format!("count(probe_success{{{job}}}) or vector(0)"), 0.0).await;
    assert!(agent.end().await.success());
}
