//! What an agent does by itself when a check goes down and up again, and that nothing it says holds a secret.

use pegel_tests::pegel::{AgentSetup, Site};
use pegel_tests::{binary, eventually, free_port};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const SOON: Duration = Duration::from_secs(60);

/// A server that answers 200 as long as it is told so and 503 otherwise, and gives back what it was sent in any case, so
/// that whoever repeats answers repeats credentials. Requests are passed on as they came.
async fn echoing(well: Arc<AtomicBool>) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (well, sender) = (well.clone(), sender.clone());
            tokio::spawn(async move {
                let mut text = Vec::new();
                let mut piece = [0; 4_096];
                while !is_whole(&text) {
                    match stream.read(&mut piece).await {
                        Ok(n) if n > 0 => text.extend_from_slice(&piece[..n]),
                        _ => return,
                    }
                }
                let status = if well.load(Ordering::SeqCst) { "200 OK" } else { "503 Broken" };
                let head = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    text.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&text).await;
                let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
            });
        }
    });
    (address, receiver)
}

/// Whether a request is there with its body.
fn is_whole(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn events(runs: &Value, hook: &str) -> Vec<(String, String)> {
    let text = |run: &Value, key: &str| run[key].as_str().unwrap_or_default().to_owned();
    let runs = runs.as_array().into_iter().flatten().filter(|run| run["hook"] == hook);
    runs.map(|run| (text(run, "event"), text(run, "outcome"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_goes_down_has_its_hooks_run_and_no_secret_shows() {
    let site = Site::new();
    let dir = site.dir().to_owned();
    let well = Arc::new(AtomicBool::new(true));
    let (shop, _requests) = echoing(well.clone()).await;
    let (receiver, mut calls) = echoing(Arc::new(AtomicBool::new(true))).await;
    let (broken, _broken_calls) = echoing(Arc::new(AtomicBool::new(false))).await;

    // Everything that may be a secret is one.
    let mut secrets = Vec::new();
    let mut secret = |name: &str| {
        let text = format!("{name}-hunter2");
        let file = dir.join(name);
        std::fs::write(&file, format!("{text}\n")).expect("a file");
        secrets.push(text);
        file.display().to_string()
    };
    let (basic, bearer, redis, postgres, amqp, token) = (
        secret("basic"),
        secret("bearer"),
        secret("redis"),
        secret("postgres"),
        secret("amqp"),
        secret("token"),
    );
    let url_file = dir.join("url");
    std::fs::write(&url_file, format!("http://{receiver}/services/url-hunter2\n")).expect("a file");
    secrets.extend(["url-hunter2", "path-hunter2", "env-hunter2", "arg-hunter2"].map(str::to_owned));

    let restart = dir.join("restart");
    std::fs::write(&restart, "#!/bin/sh\necho \"$@\" $PEGEL_REASON >> restarted\n").expect("a file");
    std::fs::set_permissions(&restart, std::fs::Permissions::from_mode(0o755)).expect("a program");
    let nobody = format!("127.0.0.1:{}", free_port());
    let check = |name: &str, kind: &str, target: &str, section: Value| {
        json!({
            "name": name, "kind": kind, "targets": [target], "interval": "500ms", "down_after": 1, kind: section,
        })
    };
    let shop_url = format!("http://{shop}/health");
    let probes = json!({
        "checks": [
            check("shop", "http", &shop_url, json!({"basic_auth": {"username": "me", "password_file": basic}})),
            check("api", "http", &format!("http://{broken}/"), json!({"bearer_token_file": bearer})),
            check("cache", "redis", &nobody, json!({"password_file": redis})),
            check("echo", "redis", &broken.to_string(), json!({"password_file": redis})),
            check("db", "postgres", &nobody, json!({"password_file": postgres})),
            check("queue", "amqp", &nobody, json!({"password_file": amqp})),
            check("plugin", "command", "x", json!({
                "args": ["/bin/sh", "-c", "exit 2", "--password=arg-hunter2"], "env": {"TOKEN": "env-hunter2"},
            })),
        ],
        "allowed_commands": [restart],
        "hooks": [
            {"name": "restart", "checks": ["sh*"], "on": ["down"], "command": {
                "args": [restart, "{check}", "{target}", "$(id)", "arg-hunter2"],
                "env": {"TOKEN": "env-hunter2"}, "working_directory": dir,
            }},
            {"name": "tell", "checks": ["shop"], "on": ["down", "up"], "webhook": {
                "url_file": url_file, "bearer_token_file": token,
            }},
            {"name": "broken", "checks": ["shop"], "webhook": {
                "url": format!("http://{broken}/path-hunter2"), "bearer_token_file": token,
            }},
            {"name": "away", "checks": ["shop"], "webhook": {"url": format!("http://{nobody}/path-hunter2")}},
            {"name": "dry", "dry_run": true, "on": ["down"], "command": {"args": [restart, "dry"]}},
        ],
    });
    let aggregator = site.aggregator("one", None).await;
    let setup = AgentSetup { probes: Some(probes.to_string()), ..AgentSetup::default() };
    let mut agent = site.agent("web-1", &[aggregator.address()], setup);
    agent.start().await;
    eventually("all checks have run", SOON, || async {
        let status = agent.status().await?;
        let checks = status["checks"].as_array()?;
        let ran = checks.iter().filter(|check| !check["last_success"].is_null()).count();
        let up = checks.iter().any(|check| check["name"] == "shop" && check["state"] == "up");
        (ran == 7 && up).then_some(())
    })
    .await;
    let before = agent.status().await.expect("a status");
    assert!(events(&before["hook_runs"], "tell").is_empty(), "a first success is no event: {before:#}");

    well.store(false, Ordering::SeqCst);
    let mut bodies = Vec::new();
    for up_again in [false, true] {
        well.store(up_again, Ordering::SeqCst);
        let call = tokio::time::timeout(SOON, calls.recv()).await.expect("the webhook is called");
        bodies.push(call.expect("the server lives"));
    }
    let done = |outcome: &str| vec![("down".to_owned(), outcome.to_owned())];
    let status = eventually("all hooks have run", SOON, || async {
        let status = agent.status().await?;
        let of = |hook| events(&status["hook_runs"], hook);
        let all = of("tell").len() == 2 && of("restart").len() == 1 && of("broken").len() == 1;
        (all && of("away").len() == 1).then_some(status)
    })
    .await;
    let of = |hook| events(&status["hook_runs"], hook);
    assert_eq!(of("tell"), [("down".into(), "ok".into()), ("up".into(), "ok".to_owned())]);
    assert_eq!((of("restart"), of("broken"), of("away")), (done("ok"), done("failed"), done("not_done")));
    assert!(
        of("dry").len() >= 6 && of("dry").iter().all(|(_, outcome)| outcome == "dry_run"),
        "{:?}",
        of("dry")
    );
    let restarted = std::fs::read_to_string(dir.join("restarted")).expect("it ran");
    assert_eq!(restarted, format!("shop {shop_url} $(id) arg-hunter2 status\n"));
    assert!(bodies[0].starts_with("POST /services/url-hunter2 "), "{}", bodies[0]);
    assert!(bodies[0].to_ascii_lowercase().contains("authorization: bearer token-hunter2"), "{}", bodies[0]);
    let body = |i: usize| -> Value {
        serde_json::from_str(bodies[i].split_once("\r\n\r\n").expect("a body").1).expect("JSON")
    };
    assert_eq!((&body(0)["event"], &body(0)["reason"]), (&json!("down"), &json!("status")));
    assert_eq!(
        (&body(1)["event"], &body(1)["state"], &body(1)["reason"]),
        (&json!("up"), &json!("up"), &Value::Null)
    );

    // Each change of state is readable, in the status and in the log.
    let changes = status["check_changes"].as_array().expect("changes");
    let of_shop: Vec<_> = changes.iter().filter(|change| change["check"] == "shop").collect();
    let steps: Vec<_> = of_shop.iter().map(|c| (c["from"].as_str(), c["to"].as_str())).collect();
    let step = |from, to| (Some(from), Some(to));
    assert_eq!(steps, [step("pending", "up"), step("up", "down"), step("down", "up")]);
    assert_eq!((&of_shop[1]["phase"], &of_shop[1]["reason"]), (&json!("assertion"), &json!("status")));
    let metrics = agent.metrics().await.expect("metrics");
    for line in [
        "pegel_hook_runs_total{hook=\"restart\",outcome=\"ok\"} 1",
        "pegel_hook_runs_total{hook=\"tell\",outcome=\"ok\"} 2",
        "pegel_hook_missed_changes_total 0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let log = agent.process().log();
    let has = |parts: &[&str]| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(
        has(&["a check is down", "check=shop", "from=up", "phase=assertion", "reason=status", "since="]),
        "{log}"
    );
    assert!(
        has(&["pegel::audit", "a hook ran", "hook=restart", "event=down", "outcome=ok", "code=0"]),
        "{log}"
    );
    assert!(has(&["pegel::audit", "hook=broken", "outcome=failed", "code=503"]), "{log}");
    assert!(has(&["pegel::audit", "hook=dry", "outcome=dry_run"]), "{log}");

    // What is printed by all that reads the configuration.
    let config = dir.join("web-1/config.yaml");
    let said = |command: &str| {
        let output = Command::new(binary("pegel-agent")).arg(command).arg("--config").arg(&config).output();
        let output = output.expect("it runs");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let once = said("once");
    assert!(once.contains("probe_command_exit_code") && once.contains("reason=\"status\""), "{once}");
    // And by one that is wrong in every place around the secrets.
    let wrong = std::fs::read_to_string(&config).expect("a configuration").replace("\"kind\"", "\"kinds\"");
    std::fs::write(
        dir.join("wrong.yaml"),
        wrong.replace("/bin/sh", "/bin/none").replace("working_directory", "wd"),
    )
    .expect("a file");
    let output = Command::new(binary("pegel-agent"))
        .args(["validate", "--config"])
        .arg(dir.join("wrong.yaml"))
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = agent.status().await.expect("a status").to_string();
    for secret in &secrets {
        for (place, text) in [
            ("the log", &log),
            ("/metrics", &metrics),
            ("the status", &status),
            ("once", &once),
            ("validate", &said("validate")),
            ("mistakes", &wrong),
        ] {
            assert!(!text.contains(secret.as_str()), "{secret} shows in {place}: {text}");
        }
    }
    assert!(agent.end().await.success());
}
