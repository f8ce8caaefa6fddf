//! Checks of databases, queues and RPC servers on real ones: as they should be, stopped, hung, slow, with wrong
//! credentials, over TLS and without where the server wants it. A check is made by `pegel-agent once`.

#![allow(clippy::float_cmp, reason = "gauges that are 0 or 1 are those numbers exactly")]

use pegel_proto::identity::NodeId;
use pegel_runtime::pki::{AggregatorNames, DEFAULT_LEAF_LIFETIME, Existing};
use pegel_tests::process::Process;
use pegel_tests::services::{PASSWORD, Server, ServerTls, USER, etcd, postgres, rabbitmq, redis};
use pegel_tests::{binary, eventually, free_port, pegel::Site};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a server may take to start on a machine that builds something else meanwhile.
const STARTS_WITHIN: Duration = Duration::from_secs(90);

/// A directory with secrets and a server's certificate.
struct Bed {
    site: Site,
    tls: ServerTls,
}

/// What came of a check.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    success: bool,
    phase: String,
    reason: String,
    values: BTreeMap<String, f64>,
}

impl Bed {
    fn new() -> Self {
        let site = Site::new();
        let names = AggregatorNames {
            name: NodeId::parse("server").unwrap(),
            dns: vec!["localhost".into()],
            addresses: vec!["127.0.0.1".parse().unwrap()],
        };
        let issued =
            site.authority().issue_aggregator(&names, DEFAULT_LEAF_LIFETIME, Existing::Refuse).unwrap();
        let tls = ServerTls { cert: issued.cert, key: issued.key, ca: site.authority().certificate_path() };
        std::fs::write(site.dir().join("right"), PASSWORD).unwrap();
        std::fs::write(site.dir().join("wrong"), "wrong horse").unwrap();
        std::fs::write(site.dir().join("guest"), "guest").unwrap();
        Self { site, tls }
    }

    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.site.dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    /// One run of a check: `kind`, its target and the lines of its section; `$DIR` stands for the bed's directory.
    fn check(&self, kind: &str, target: &str, section: &str) -> Seen {
        let dir = self.site.dir();
        let section = section.replace("$DIR", &dir.display().to_string());
        let config = format!(
            "host: {{enabled: false}}\ncontainers: {{enabled: false}}\nprobes:\n  checks:\n  - name: it\n    kind: {kind}\n    \
             targets: ['{target}']\n    timeout: 2s\n    {kind}: {section}\n"
        );
        let file = dir.join("agent.yaml");
        std::fs::write(&file, config).unwrap();
        let output = Command::new(binary("pegel-agent")).arg("once").arg("-c").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        for secret in [PASSWORD, "wrong horse"] {
            assert!(!said.contains(secret) && !String::from_utf8_lossy(&output.stdout).contains(secret));
        }
        seen(&String::from_utf8_lossy(&output.stdout))
    }

    /// Until a check succeeds: the server is up.
    async fn up(&self, kind: &str, target: &str, section: &str) -> Seen {
        eventually(&format!("{kind} is up"), STARTS_WITHIN, || async {
            let seen = self.check(kind, target, section);
            seen.success.then_some(seen)
        })
        .await
    }
}

fn seen(text: &str) -> Seen {
    let mut seen = Seen::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let value: f64 = value.parse().unwrap();
        let name = series.split('{').next().unwrap();
        let label = |name: &str| {
            let (_, rest) = series.split_once(&format!("{name}=\""))?;
            rest.split('"').next().map(str::to_owned)
        };
        match name {
            "probe_success" => seen.success = value > 0.0,
            "pegel_probe_failure" => {
                seen.phase = label("phase").unwrap();
                seen.reason = label("reason").unwrap();
            }
            _ => {
                let own = label("phase").or_else(|| label("serving_status"));
                seen.values.insert(own.map_or(name.to_owned(), |own| format!("{name} {own}")), value);
            }
        }
    }
    seen
}

fn failure(seen: &Seen) -> (&str, &str) {
    assert!(!seen.success || seen.phase.is_empty(), "{seen:?}");
    (&seen.phase, &seen.reason)
}

/// A server that is stopped answers nobody and refuses nobody, until it goes on.
fn while_stopped(process: &Process, look: impl FnOnce()) {
    let all = family(process.pid());
    let tell = |signal| {
        for pid in &all {
            // A worker may have ended meanwhile.
            let _ = kill_process(Pid::from_raw(*pid).unwrap(), signal);
        }
    };
    tell(Signal::STOP);
    look();
    tell(Signal::CONT);
}

/// A process and all that it started.
fn family(pid: u32) -> Vec<i32> {
    let mut found = vec![pid as i32];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        let tasks = Path::new("/proc").join(parent.to_string()).join("task");
        for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
        at += 1;
    }
    found
}

/// What no server is needed for.
fn nobody_there(bed: &Bed, kind: &str, section: &str) {
    let target = format!("127.0.0.1:{}", free_port());
    assert_eq!(failure(&bed.check(kind, &target, section)), ("connect", "refused"), "{kind}");
}

fn at(server: &Server) -> String {
    format!("127.0.0.1:{}", server.port)
}

fn over_tls(server: &Server) -> String {
    format!("localhost:{}", server.tls_port)
}

/// A certificate was seen, whatever became of the check.
fn certificate_seen(seen: &Seen) -> bool {
    seen.values.get("probe_ssl_earliest_cert_expiry").is_some_and(|expiry| *expiry > 1.7e9)
}

#[tokio::test]
async fn redis_answers_ping() {
    let bed = Bed::new();
    let Some(server) = redis(&bed.dir("redis"), &bed.tls) else { return };
    let right = "{password_file: $DIR/right}";
    let good = bed.up("redis", &at(&server), right).await;
    assert!(good.values["pegel_probe_phase_seconds login"] > 0.0, "{good:?}");
    assert_eq!(failure(&bed.check("redis", &at(&server), "{}")), ("processing", "credentials"));
    assert_eq!(
        failure(&bed.check("redis", &at(&server), "{password_file: $DIR/wrong}")),
        ("login", "credentials")
    );
    let nobody = "{username: nobody, password_file: $DIR/right}";
    assert_eq!(failure(&bed.check("redis", &at(&server), nobody)), ("login", "credentials"));

    let trusted = format!("{{password_file: $DIR/right, tls: {{ca_file: {}}}}}", bed.tls.ca.display());
    let secure = bed.check("redis", &over_tls(&server), &trusted);
    assert!(secure.success && certificate_seen(&secure), "{secure:?}");
    let stranger = bed.check("redis", &over_tls(&server), "{password_file: $DIR/right, tls: {}}");
    assert_eq!(failure(&stranger), ("tls", "certificate_untrusted"));
    assert!(certificate_seen(&stranger));
    assert_eq!(failure(&bed.check("redis", &at(&server), &trusted)).0, "tls", "it speaks no TLS there");
    while_stopped(&server.process, || {
        assert_eq!(failure(&bed.check("redis", &at(&server), right)), ("login", "timeout"));
    });
    assert!(bed.check("redis", &at(&server), right).success, "it goes on");
    nobody_there(&bed, "redis", right);
}

#[tokio::test]
async fn postgresql_logs_in_and_answers_a_query() {
    let bed = Bed::new();
    let Some(server) = postgres(&bed.dir("postgres"), &bed.tls) else { return };
    let with = |rest: &str| format!("{{username: {USER}, database: postgres, {rest}}}");
    let right = with("password_file: $DIR/right");
    let good = bed.up("postgres", &at(&server), &right).await;
    assert_eq!(good.values["pegel_probe_postgres_rows"], 1.0);
    let check = |section: &str| bed.check("postgres", &at(&server), section);
    assert_eq!(failure(&check(&with("password_file: $DIR/wrong"))), ("login", "credentials"));
    let none = "password_file: $DIR/right, query: 'SELECT 1 WHERE false', fail_if_no_rows: true";
    assert_eq!(failure(&check(&with(none))), ("assertion", "records"));
    assert_eq!(failure(&check(&with("password_file: $DIR/right, query: SELEC"))), ("processing", "body"));
    let slow = with("password_file: $DIR/right, query: 'SELECT pg_sleep(0.7)'");
    let slow = check(&slow);
    assert!(slow.success && slow.values["probe_duration_seconds"] > 0.7, "{slow:?}");
    let too_slow = with("password_file: $DIR/right, query: 'SELECT pg_sleep(30)'");
    assert_eq!(failure(&check(&too_slow)), ("processing", "timeout"));

    let trusted = with(&format!("password_file: $DIR/right, tls: {{ca_file: {}}}", bed.tls.ca.display()));
    let secure = bed.check("postgres", &over_tls(&server), &trusted);
    assert!(secure.success && certificate_seen(&secure), "{secure:?}");
    // The server takes this database over TLS only.
    let wanted = trusted.replace("database: postgres", "database: secure");
    let refused =
        bed.check("postgres", &at(&server), &right.replace("database: postgres", "database: secure"));
    assert_eq!(failure(&refused), ("login", "credentials"));
    assert_eq!(
        failure(&bed.check("postgres", &over_tls(&server), &wanted)),
        ("login", "not_serving"),
        "there is none"
    );
    while_stopped(&server.process, || assert_eq!(failure(&check(&right)).1, "timeout"));
    assert!(check(&right).success, "it goes on");
    nobody_there(&bed, "postgres", &right);
}

#[tokio::test]
async fn rabbitmq_opens_a_connection() {
    let bed = Bed::new();
    let Some(server) = rabbitmq(&bed.dir("rabbitmq"), &bed.tls) else { return };
    let right = "{username: guest, password_file: $DIR/guest}";
    bed.up("amqp", &at(&server), right).await;
    let check = |section: &str| bed.check("amqp", &at(&server), section);
    assert_eq!(failure(&check("{username: guest, password_file: $DIR/wrong}")), ("login", "credentials"));
    let elsewhere = "{username: guest, password_file: $DIR/guest, vhost: nowhere}";
    assert_eq!(failure(&check(elsewhere)), ("processing", "not_serving"));
    let trusted =
        format!("{{username: guest, password_file: $DIR/guest, tls: {{ca_file: {}}}}}", bed.tls.ca.display());
    let secure = bed.check("amqp", &over_tls(&server), &trusted);
    assert!(secure.success && certificate_seen(&secure), "{secure:?}");
    assert_eq!(failure(&bed.check("amqp", &over_tls(&server), right)).1, "protocol", "it wants TLS there");
    while_stopped(&server.process, || assert_eq!(failure(&check(right)), ("login", "timeout")));
    assert!(check(right).success, "it goes on");
    nobody_there(&bed, "amqp", right);
}

#[tokio::test]
async fn a_grpc_server_says_how_it_is() {
    let bed = Bed::new();
    let Some(server) = etcd(&bed.dir("etcd"), &bed.tls) else { return };
    let good = bed.up("grpc", &at(&server), "{}").await;
    assert_eq!(good.values["probe_grpc_healthcheck_response SERVING"], 1.0);
    assert_eq!(good.values["probe_grpc_healthcheck_response NOT_SERVING"], 0.0);
    assert_eq!((good.values["probe_grpc_status_code"], good.values["probe_grpc_ssl"]), (0.0, 0.0));
    let unknown = bed.check("grpc", &at(&server), "{service: nothing}");
    assert_eq!(
        (failure(&unknown), unknown.values["probe_grpc_status_code"]),
        (("processing", "expectation"), 5.0)
    );
    let trusted = format!("{{tls_config: {{ca_file: {}}}}}", bed.tls.ca.display());
    let secure = bed.check("grpc", &over_tls(&server), &trusted);
    assert!(
        secure.success && certificate_seen(&secure) && secure.values["probe_grpc_ssl"] == 1.0,
        "{secure:?}"
    );
    assert_eq!(
        failure(&bed.check("grpc", &over_tls(&server), "{tls_config: {}}")),
        ("tls", "certificate_untrusted")
    );
    assert!(!bed.check("grpc", &over_tls(&server), "{}").success, "it wants TLS there");
    while_stopped(&server.process, || {
        assert_eq!(failure(&bed.check("grpc", &at(&server), "{}")), ("processing", "timeout"));
    });
    assert!(bed.check("grpc", &at(&server), "{}").success, "it goes on");
    nobody_there(&bed, "grpc", "{}");
}
