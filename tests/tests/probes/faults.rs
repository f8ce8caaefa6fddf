//! What fails around the checks: name servers, rights, descriptors; and that the others go on meanwhile.

use crate::once::{command, once, run};
use crate::servers::{Says, Zone, answer, name_server, serve};
use pegel_tests::pegel::{AgentSetup, Site};
use pegel_tests::process::Process;
use pegel_tests::{binary, eventually, free_port, let_run};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

const ZONES: &[(&str, Zone)] = &[
    ("fails", Zone::Code(2)),
    ("missing", Zone::Code(3)),
    ("refuses", Zone::Code(5)),
    ("silent", Zone::Silent),
    ("garbage", Zone::Garbage),
    ("late", Zone::Late(300)),
    ("truncated", Zone::Loopback),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn name_servers_of_every_kind() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = name_server(ZONES, None).await;
    let port = serve(Says::Bytes(answer("200 OK", &[], b"hi"))).await.port();
    let check = |kind: &str, name: &str| {
        let target = if kind == "http" {
            format!("http://{name}.example:{port}/")
        } else {
            format!("{name}.example:{port}")
        };
        format!(
            "{{name: {name}-{kind}, kind: {kind}, timeout: 2s, targets: ['{target}'], {kind}: {{preferred_ip_protocol: ip4}}}}"
        )
    };
    let checks: Vec<String> =
        ZONES.iter().flat_map(|(name, _)| [check("http", name), check("tcp", name)]).collect();
    let (seen, _) =
        once(dir.path(), &format!("{{name_servers: ['{server}'], checks: [{}]}}", checks.join(", ")));
    for (name, expected) in [
        ("fails", ("resolve", "name_server")),
        ("missing", ("resolve", "name_not_found")),
        ("refuses", ("resolve", "name_server")),
        ("silent", ("resolve", "timeout")),
        ("garbage", ("resolve", "timeout")),
        ("late", ("", "")),
        ("truncated", ("", "")),
    ] {
        for kind in ["http", "tcp"] {
            let one = &seen[&format!("{name}-{kind}")];
            assert_eq!(one.failure(), expected, "{name}: {one:?}");
        }
    }
    let late = seen["late-http"].value("probe_http_duration_seconds{phase=\"resolve\"}");
    assert!(late.is_some_and(|took| (0.3..2.0).contains(&took)), "{late:?}");
}

/// Runs a command as a user without rights in a network of its own, where the groups of `range` may have ICMP sockets.
fn without_rights(range: &str, command: &Command) -> Command {
    let mut shell = Command::new("unshare");
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    shell
        .args(["--net", "--", "sh", "-ec"])
        .arg(format!(
            "ip link set lo up; echo '{range}' > /proc/sys/net/ipv4/ping_group_range; \
             exec setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all -- \"$@\""
        ))
        .arg("sh")
        .args(words);
    shell
}

fn readable(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("its owner");
}

#[test]
fn echoes_without_rights() {
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: it takes root to become somebody without rights");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("pegel-agent");
    std::fs::copy(binary("pegel-agent"), &program).expect("a copy");
    let (config, _) = command(
        dir.path(),
        "{checks: [{name: four, kind: icmp, timeout: 3s, targets: [127.0.0.1]}, {name: six, kind: icmp, timeout: 3s, targets: ['::1']}, \
         {name: whole, kind: icmp, timeout: 3s, targets: [127.0.0.1], icmp: {dont_fragment: true}}]}",
    );
    for path in [dir.path(), &program, &config] {
        readable(path);
    }
    let mut once = Command::new(&program);
    once.arg("once").arg("--config").arg(&config);
    // Its group may.
    let (seen, said) = run(&mut without_rights("65534 65534", &once));
    assert!(seen["four"].success() && seen["six"].success(), "{said}");
    assert_eq!(
        seen["whole"].failure(),
        ("setup", "not_permitted"),
        "a header of one's own takes the right: {said}"
    );
    // Nobody may.
    let (seen, said) = run(&mut without_rights("1 0", &once));
    for name in ["four", "six", "whole"] {
        assert_eq!(seen[name].failure(), ("setup", "not_permitted"), "{said}");
    }
    for remedy in ["CAP_NET_RAW", "net.ipv4.ping_group_range"] {
        assert!(said.contains(remedy), "the error says what to do: {said}");
    }
}

/// Targets that are down; and few descriptors for them.
const DOWN: usize = 500;
const DESCRIPTORS: u64 = 320;
const GOOD: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_down_at_once_with_few_descriptors() {
    let site = Site::new();
    let good = serve(Says::Bytes(answer("200 OK", &[], b"hi"))).await;
    let hanging = serve(Says::Nothing).await;
    let refused = free_port();
    let list = |base: String, count: usize| {
        let mut out = String::new();
        for n in 0..count {
            let _ = write!(out, "'http://{base}/{n}', ");
        }
        out
    };
    let probes = format!(
        "{{checks: [{{name: good, kind: http, interval: 1s, targets: [{}]}}, {{name: refused, kind: http, interval: 2s, targets: [{}]}}, \
         {{name: hanging, kind: http, interval: 5s, timeout: 500ms, targets: [{}]}}]}}",
        list(good.to_string(), GOOD),
        list(format!("127.0.0.1:{refused}"), DOWN / 2),
        list(hanging.to_string(), DOWN / 2)
    );
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let setup = AgentSetup { probes: Some(probes), ..AgentSetup::default() };
    let agent = site.agent("web-1", &[nobody], setup);
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}")).arg("--").arg(binary("pegel-agent"));
    command.arg("run").arg("--config").arg(agent.config());
    let process = Process::start("limited", site.dir(), command);
    eventually("it listens", SOON, || async {
        std::fs::read_to_string(agent.config().with_file_name("admin.address"))
            .ok()
            .filter(|address| address.contains(':'))
    })
    .await;
    let states = || async {
        let status = agent.status().await?;
        let checks = status["checks"].as_array()?.clone();
        let count = |name: &str, state: &str, reason: Option<&str>| {
            let of = |check: &&serde_json::Value| {
                check["name"] == name && check["state"] == state && check["reason"].as_str() == reason
            };
            checks.iter().filter(of).count()
        };
        Some((
            count("good", "up", None),
            count("refused", "down", Some("refused")),
            count("hanging", "down", Some("timeout")),
            checks.iter().filter(|check| check["reason"] == "resources").count(),
        ))
    };
    let all = (GOOD, DOWN / 2, DOWN / 2, 0);
    eventually("all are checked", SOON, || async { states().await.filter(|seen| *seen == all) }).await;
    let mut most = 0;
    for _ in 0..8 {
        let_run(Duration::from_millis(500)).await;
        let open = std::fs::read_dir(format!("/proc/{}/fd", process.pid())).expect("a process").count();
        most = most.max(open);
    }
    assert_eq!(states().await, Some(all), "no run failed for want of a descriptor");
    let resident = process.resident_bytes() >> 20;
    let metrics = agent.metrics().await.expect("metrics");
    let lag = |quantile: f64| late(&metrics, quantile);
    println!(
        "{DOWN} down with {DESCRIPTORS} descriptors: at most {most} open, {resident} MiB, lag p90 {:?} s",
        lag(0.9)
    );
    assert!(most < DESCRIPTORS as usize, "{most} descriptors");
    assert!(resident < 120, "{resident} MiB of a debug build");
    assert!(process.log().contains("LimitNOFILE"), "it says that fewer run at once: {}", process.log());
    let status = agent.status().await.expect("a status");
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_millis();
    for check in status["checks"].as_array().expect("checks").iter().filter(|check| check["name"] == "good") {
        let ago = now as i64 - check["last_run_ms"].as_i64().expect("a run");
        assert!(ago < 2_500, "the good ones keep their schedule: {ago} ms ago: {check}");
    }
}

/// The upper bound of the bucket that a quantile of the schedule's lag is in.
fn late(metrics: &str, quantile: f64) -> Option<String> {
    let buckets: Vec<(String, f64)> = metrics
        .lines()
        .filter_map(|line| {
            let (bound, count) =
                line.strip_prefix("pegel_probe_lag_seconds_bucket{le=\"")?.split_once("\"}")?;
            Some((bound.to_owned(), count.trim().parse().ok()?))
        })
        .collect();
    let all = buckets.last()?.1;
    buckets.into_iter().find(|(_, count)| *count >= all * quantile).map(|(bound, _)| bound)
}
