//! The source as a task: its schedule, changes, a file that hangs.

use super::*;
use crate::intake::{IntakeReceiver, intake};
use crate::source::SourceContext;
use crate::source::clock::SampleClock;
use pegel_runtime::metrics::Registry;
use tokio_util::sync::CancellationToken;

struct Running {
    catalogue: Arc<Catalogue>,
    status: Status,
    registry: Registry,
    received: IntakeReceiver,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn run(settings: Settings) -> Running {
    let registry = Registry::new();
    let (intake, received) = intake(1 << 20, &registry);
    let shutdown = CancellationToken::new();
    let context = SourceContext {
        intake,
        clock: SampleClock::default(),
        registry: registry.clone(),
        external_labels: Arc::default(),
        shutdown: shutdown.clone(),
    };
    let catalogue = Arc::new(Catalogue::default());
    let system: Arc<dyn System> = Arc::new(FixedSystem);
    let source = ContainerSource::new(settings, &Arc::default(), &catalogue, &system);
    let status = source.status();
    let task = tokio::spawn(source.run(context));
    Running { catalogue, status, registry, received, shutdown, task }
}

impl Running {
    /// Blocks until `done` says so of one hand-over, or a minute has passed.
    async fn until(&mut self, mut done: impl FnMut(&[Block]) -> bool) {
        let wait = async {
            while let Some(collected) = self.received.next().await {
                if done(&collected.blocks) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_mins(1), wait).await.expect("within a minute");
    }

    async fn end(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

#[tokio::test]
async fn changes_are_collected_without_waiting_for_the_interval() {
    let tree = Tree::recorded("v2_linux_6_12");
    let mut running = run(Settings { interval: Duration::from_hours(24), ..tree.settings() });
    let web = Arc::new(container(&id("4e"), "web"));
    running.catalogue.put(web.clone());
    running.catalogue.tell(Change::Started(web.clone()));
    running.until(|blocks| value(blocks, "web", "container_memory_usage_bytes").is_some()).await;
    running.catalogue.tell(Change::Stopped { container: web, exit_code: Some(137) });
    running.until(|blocks| names(blocks, true).contains(&"web".to_owned())).await;
    let snapshot = running.status.snapshot();
    let events: Vec<_> = snapshot.events.iter().map(|event| (event.event, &*event.detail)).collect();
    assert_eq!(events, [("start", ""), ("stop", "exit code 137")]);
    let metrics = running.registry.render();
    assert!(metrics.contains("pegel_container_events_total{event=\"stop\"} 1"), "{metrics}");
    running.end().await;
}

#[tokio::test]
async fn a_file_that_hangs_is_left_behind_and_said() {
    let tree = Tree::recorded("v2_linux_6_12");
    let stat = tree.path(&format!("sys/fs/cgroup/system.slice/docker-{}.scope/cpu.stat", id("4e")));
    std::fs::remove_file(&stat).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &stat, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let interval = Duration::from_millis(200);
    let mut running = run(Settings { interval, ..tree.settings() });
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    while !running.status.snapshot().hung {
        assert!(std::time::Instant::now() < deadline, "it hangs and nobody says so");
        tokio::task::yield_now().await;
    }
    assert!(running.registry.render().contains("pegel_container_hung 1"));
    // The other end of the pipe opens: the read returns, and passes go on.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let pipe = std::fs::File::options().read(true).write(true).open(&stat).unwrap();
        std::fs::remove_file(&stat).unwrap();
        drop(pipe);
        drop(held);
    });
    writer.join().unwrap();
    drop(release);
    running.until(|blocks| names(blocks, false).contains(&"/system.slice".to_owned())).await;
    running.end().await;
}
