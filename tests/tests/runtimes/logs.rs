//! What containers of a real containerd say, in CRI's format, rotated as a kubelet does, in a real Loki.

use crate::cri::containerd;
use crate::kubelet::Kubelet;
use crate::watching::SOON;
use pegel_tests::chat::{Chat, INSIDE, directory};
use pegel_tests::loki::Loki;
use pegel_tests::pegel::{AgentSetup, Site};
use pegel_tests::{eventually, let_run, rounds, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

const LIMITS: &str = "ingestion_rate_mb: 500\ningestion_burst_size_mb: 500\nper_stream_rate_limit: 500MB\n\
     per_stream_rate_limit_burst: 500MB\nmax_entries_limit_per_query: 1000000\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_pod_says_arrives_once_and_in_order_across_the_kubelets_rotation() {
    let mut rng = StdRng::seed_from_u64(seed());
    let site = Site::new();
    let Some(docker) = containerd(site.dir()).await else { return };
    let Some(loki) = Loki::start(&site.dir().join("loki"), LIMITS).await else { return };
    let outputs =
        format!("outputs:\n  - {{type: loki, name: loki, url: \"{0}\", query_url: \"{0}\"}}\n", loki.url());
    let aggregator = site.aggregator_with("one", &outputs).await;
    let sockets = serde_json::json!([{"kind": "containerd", "path": docker.containerd_socket()}]);
    let setup = AgentSetup {
        containers: Some(serde_json::json!({"runtimes": {"sockets": sockets}}).to_string()),
        logs: Some("{inputs: [{name: pods, containers: {namespaces: [shop]}}]}".to_owned()),
        ..AgentSetup::default()
    };
    let mut agent = site.agent("web-1", &[aggregator.address()], setup);
    agent.start().await;

    let mut kubelet = Kubelet::connect(&docker.containerd_socket(), &docker.cgroup()).await;
    let dir = directory(site.dir(), "server");
    kubelet.mount(&dir, INSIDE);
    let sandbox = kubelet.run_sandbox("web-0").await;
    let id = kubelet.run_container(&sandbox, "web-0", "server", &format!("chat {INSIDE} 100"), 0).await;
    let chat = Chat { dir, log: kubelet.log("server") };
    for time in 0..rounds("PEGEL_ROTATIONS", 10) {
        let_run(Duration::from_millis(rng.random_range(100..1_200))).await;
        kubelet.rotate(&id, "server", time as u64).await;
        if time % 4 == 2 {
            agent.kill();
            // Two generations that nobody has seen; the older one is compressed.
            let_run(Duration::from_millis(300)).await;
            kubelet.rotate(&id, "server", 100_000 + time as u64).await;
            agent.start().await;
        }
    }
    kubelet.stop_container(&id).await;
    let written = chat.lines();
    let selector = "{namespace=\"shop\", pod=\"web-0\", container=\"server\", job=\"pods\"}";
    eventually(&format!("Loki has {written} lines"), SOON, || async {
        (loki.count(selector, "tests").await >= written).then_some(())
    })
    .await;
    let books = eventually("all is settled", SOON, || async {
        let books = agent.books_of("logs").await?;
        (books.in_front + books.spooled == 0).then_some(books)
    })
    .await;
    let lines = chat.check(&loki).await;
    println!("{lines} lines, {books:?}");
    assert_eq!((books.dropped(), books.rejected(), books.lost_in_crash), (0, 0, 0), "{books:?}");
    drop(docker);
}
