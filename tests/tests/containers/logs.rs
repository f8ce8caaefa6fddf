//! What containers of a real engine say, in a real Loki: long lines, rotation by the engine, storms of restarts and
//! removals while they write.

use pegel_tests::chat::{Chat, INSIDE, directory};
use pegel_tests::docker::Docker;
use pegel_tests::loki::Loki;
use pegel_tests::pegel::{Agent, AgentSetup, Aggregator, Books, Site};
use pegel_tests::{eventually, let_run, rounds, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// How soon a line or a file has to be seen on a machine that does much else.
const SOON: Duration = Duration::from_secs(60);
/// So that the test's Loki takes what the storm brings.
const LIMITS: &str = "ingestion_rate_mb: 500\ningestion_burst_size_mb: 500\nper_stream_rate_limit: 500MB\n\
     per_stream_rate_limit_burst: 500MB\nmax_entries_limit_per_query: 1000000\n";
/// How the engine rotates: a container of the storm fills a file in some two seconds.
const ROTATED: [&str; 4] = ["--log-opt", "max-size=256k", "--log-opt", "max-file=5"];
/// Lines a second of a container, to each output.
const RATE: &str = "100";

struct World {
    docker: Docker,
    loki: Loki,
    agent: Agent,
    aggregator: Aggregator,
    site: Site,
}

impl World {
    async fn start() -> Option<Self> {
        let site = Site::new();
        let docker = Docker::start(site.dir()).await?;
        let loki = Loki::start(&site.dir().join("loki"), LIMITS).await?;
        let outputs = format!(
            "outputs:\n  - type: loki\n    name: loki\n    url: {0}\n    query_url: {0}\n    backoff_max: 500ms\n",
            loki.url()
        );
        let aggregator = site.aggregator_with("one", &outputs).await;
        let runtimes =
            serde_json::json!({"runtimes": {"sockets": [{"kind": "docker", "path": docker.socket()}]}});
        let setup = AgentSetup {
            containers: Some(runtimes.to_string()),
            logs: Some(
                "{inputs: [{name: containers, containers: {exclude_names: [\"left-out-*\"]}}]}".to_owned(),
            ),
            ..AgentSetup::default()
        };
        let mut agent = site.agent("web-1", &[aggregator.address()], setup);
        agent.start().await;
        Some(Self { docker, loki, agent, aggregator, site })
    }

    /// Starts a container that says lines. `nth` tells those of one name apart.
    async fn chat(&self, name: &str, nth: usize, options: &[&str]) -> Chat {
        let dir = directory(self.site.dir(), &format!("{name}-{nth}"));
        let volume = format!("{}:{INSIDE}", dir.display());
        let options = [&["--name", name, "--volume", &volume][..], options].concat();
        let id = self.docker.run(&options, &format!("chat {INSIDE} {RATE}")).await;
        let log = self.docker.cli(&["inspect", "--format", "{{.LogPath}}", &id]).await;
        Chat { dir, log: log.into() }
    }

    /// Waits until the agent reads a container's file.
    async fn followed(&self, chat: &Chat) {
        let path = chat.log.to_string_lossy();
        eventually(&format!("{path} is read"), SOON, || async {
            let status = self.agent.status().await?;
            let files = status["logs"]["files"]["files"].as_array()?.clone();
            files.iter().any(|file| file["path"] == *path).then_some(())
        })
        .await;
    }

    /// Waits until all that was said is settled.
    async fn settled(&self, chats: &[Chat]) -> Books {
        let said: u64 = chats.iter().map(Chat::lines).sum();
        eventually("all that was said is settled", 2 * SOON, || async {
            let books = self.agent.books_of("logs").await?;
            (books.collected >= said && books.in_front + books.spooled == 0).then_some(books)
        })
        .await
    }

    /// Checks what Loki has of each.
    async fn check(&self, chats: &[Chat]) {
        let mut lines = 0;
        for chat in chats {
            let (log, written) = (chat.log.display().to_string(), chat.lines());
            eventually(&format!("Loki has {written} lines of {log}"), SOON, || async {
                (self.loki.count(&format!("{{filename=\"{log}\"}}"), "tests").await >= written).then_some(())
            })
            .await;
            lines += chat.check(&self.loki).await;
        }
        println!(
            "{lines} lines of {} containers, {:?} lives",
            chats.len(),
            chats.iter().map(|c| c.lives().len()).sum::<usize>()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_containers_say_arrives_once_and_in_order_through_storms_of_restarts_and_removals() {
    let mut rng = StdRng::seed_from_u64(seed());
    let Some(mut world) = World::start().await else { return };
    let mut chats = Vec::new();
    for name in ["stays", "restarted", "killed"] {
        chats.push(world.chat(name, 0, &ROTATED).await);
    }
    let left_out = world.chat("left-out-1", 0, &ROTATED).await;
    for chat in &chats {
        world.followed(chat).await;
    }
    for nth in 0..rounds("PEGEL_STORMS", 8) {
        let again = world.chat("made-again", nth, &ROTATED).await;
        world.followed(&again).await;
        let_run(Duration::from_millis(rng.random_range(200..1_500))).await;
        world.docker.cli(&["restart", "--time", "0", "restarted"]).await;
        world.docker.cli(&["kill", "killed"]).await;
        let_run(Duration::from_millis(rng.random_range(0..600))).await;
        match nth % 4 {
            1 => {
                // What was read of the one that was removed before is stored by now: longer than the linger.
                let_run(Duration::from_secs(2)).await;
                world.agent.kill();
                let_run(Duration::from_millis(rng.random_range(0..500))).await;
                world.agent.start().await;
                world.followed(&again).await;
            }
            2 => {
                world.aggregator.kill();
                world.aggregator.start().await;
            }
            _ => {}
        }
        world.docker.cli(&["start", "killed"]).await;
        // It is removed with its files while it writes.
        world.docker.cli(&["rm", "--force", "made-again"]).await;
        chats.push(again);
    }
    let_run(Duration::from_millis(500)).await;
    world.docker.cli(&["kill", "stays", "restarted", "killed", "left-out-1"]).await;
    let books = world.settled(&chats).await;
    world.check(&chats).await;
    assert_eq!((books.dropped(), books.rejected(), books.lost_in_crash), (0, 0, 0), "{books:?}");
    let metrics = world.agent.metrics().await.expect("the agent answers");
    for lost in ["pegel_log_lost_bytes_total", "pegel_log_unread_files_total"] {
        assert!(metrics.contains(&format!("{lost}{{input=\"containers\"}} 0")), "{metrics}");
    }

    // Streams are found by what people know: the container's name, its output; and nobody asked for the other one.
    assert!(left_out.lines() > 0);
    let count = async |selector: &str| world.loki.count(selector, "tests").await;
    assert_eq!(count("{container=\"left-out-1\"}").await, 0);
    let of_name = count("{job=\"containers\", container=\"stays\", stream=\"stderr\", node=\"web-1\"}").await;
    assert_eq!(of_name as usize, chats[0].arrived(&world.loki, "stderr").await.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_container_said_that_ended_while_the_agent_was_away_is_read() {
    let Some(mut world) = World::start().await else { return };
    let ended = world.chat("ended", 0, &ROTATED).await;
    world.followed(&ended).await;
    eventually("it has said something", SOON, || async { (ended.lines() > 100).then_some(()) }).await;
    world.agent.kill();
    // It goes on for a while, rotated among others, and one begins and is rotated that nobody has seen.
    let unseen = world.chat("unseen", 0, &["--log-opt", "max-size=64k", "--log-opt", "max-file=9"]).await;
    let before = ended.lines();
    eventually("it has said more", SOON, || async {
        (ended.lines() > before + 400 && unseen.lines() > 300).then_some(())
    })
    .await;
    world.docker.cli(&["kill", "ended"]).await;
    world.agent.start().await;
    world.followed(&unseen).await;
    world.docker.cli(&["kill", "unseen"]).await;
    let chats = [ended, unseen];
    world.settled(&chats).await;
    world.check(&chats).await;
}
