//! Checks that containers ask for by their labels.

use crate::world::{SOON, World};
use pegel_tests::eventually;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A server that says yes to everything.
async fn yes() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/health", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4_096]).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                    .await;
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_make_checks_as_long_as_the_container_runs() {
    let Some(mut world) = World::start(json!({})).await else { return };
    let url = yes().await;
    let label = format!("pegel.probe.http={url}");
    let refused = "pegel.probe.tcp=127.0.0.1:1";
    let options = ["--label", &label, "--label", "pegel.probe.http.interval=1s", "--label", refused];
    let bad = ["--label", "pegel.probe.tcp.interval=1s", "--label", "pegel.probe.smoke=x"];
    let mut all = vec!["--name", "shop"];
    all.extend(options);
    all.extend(bad);
    world.docker.run(&all, "idle").await;

    let http = format!("probe_success{{check=\"shop-http\",container=\"shop\",instance=\"{url}\"}}");
    let tcp = "probe_success{check=\"shop-tcp\",container=\"shop\"}";
    let checks = "count(probe_success) or vector(0)";
    world.value(&http, |value| value > 0.0).await;
    world.value(&format!("{tcp} == bool 0"), |value| value > 0.0).await;
    world.value("pegel_probe_failure{check=\"shop-tcp\",reason=\"refused\"}", |value| value > 0.0).await;
    world.value(checks, |value| (1.5..2.5).contains(&value)).await;
    let log = world.agent.process().log();
    assert!(log.contains("pegel.probe.smoke") && log.contains("shop"), "{log}");

    // A container that stops takes its checks with it; one that starts again brings them back.
    world.docker.cli(&["stop", "--time", "0", "shop"]).await;
    world.value(checks, |value| value < 0.5).await;
    world.docker.cli(&["start", "shop"]).await;
    world.value(&http, |value| value > 0.0).await;
    world.docker.cli(&["rm", "--force", "shop"]).await;
    world.empty(&http).await;
    world.empty(tcp).await;
    eventually("the status has no check", SOON, || async {
        let status = world.agent.status().await?;
        status["checks"].as_array()?.is_empty().then_some(())
    })
    .await;
}
