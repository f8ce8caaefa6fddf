//! Discovery against a real Docker engine: what it tells is what `docker` says.

use crate::watching::{SOON, Watching};
use futures_util::StreamExt;
use pegel_agent::source::container::runtime::{RuntimeState, Settings, Socket, Sockets};
use pegel_agent::source::container::{Change, Health, RunState, RuntimeKind};
use pegel_tests::docker::{Docker, IMAGE};
use pegel_tests::eventually;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::time::Duration;

/// How many commands of `docker` run at once in a storm.
const AT_ONCE: usize = 8;

fn settings(docker: &Docker) -> Settings {
    let socket = Socket { kind: RuntimeKind::Docker, path: docker.socket() };
    Settings { sockets: Sockets::These(vec![socket]), env: ["TEAM".into()].into(), ..Settings::default() }
}

/// Ids and names of what runs, as `docker ps` has them.
async fn ps(docker: &Docker) -> BTreeMap<String, String> {
    let text = docker.cli(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}"]).await;
    text.lines().filter_map(|line| line.split_once(' ')).map(|(id, name)| (id.into(), name.into())).collect()
}

/// The same as the catalogue has them.
fn known(watching: &Watching) -> BTreeMap<String, String> {
    let all = watching.catalogue.all();
    let running = all.iter().filter(|c| c.state != RunState::Exited);
    running.map(|c| (c.id.to_string(), c.name.to_string())).collect()
}

async fn agrees(watching: &Watching, docker: &Docker) {
    eventually("the catalogue is what `docker ps` says", SOON, || async {
        (known(watching) == ps(docker).await).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containers_life_is_told_with_its_facts() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(docker) = Docker::start(dir.path()).await else { return };
    let before = docker.run(&["--name", "before", "--network", "host"], "idle").await;
    let watching = Watching::start(settings(&docker));
    let status = watching.until(RuntimeState::Watching).await;
    assert_eq!((status.kind, status.containers), ("docker", 1));
    let found = watching.container("what ran before is known", &before, |_| true).await;
    assert!(found.host_network && found.pid.is_some());

    let options = [
        "--name",
        "web",
        "--env",
        "TEAM=shop",
        "--env",
        "PASSWORD=secret",
        "--label",
        "tier=front",
        "--label",
        "io.kubernetes.pod.name=web-0",
        "--label",
        "io.kubernetes.pod.namespace=shop",
        "--label",
        "io.kubernetes.container.name=server",
    ];
    let id = docker.run(&options, "idle").await;
    let web = watching.container("the new container is known", &id, |c| c.pid.is_some()).await;
    let inspect =
        docker.cli(&["inspect", "--format", "{{.State.Pid}} {{.LogPath}} {{.Config.Image}}", &id]).await;
    let log = web.log_path.as_ref().expect("a log").display();
    assert_eq!(inspect, format!("{} {log} {}", web.pid.expect("a process"), web.image));
    assert_eq!(
        (&*web.name, &*web.image, web.state, web.health),
        ("web", IMAGE, RunState::Running, Health::None)
    );
    assert_eq!(*web.env, [("TEAM".into(), "shop".into())], "nothing but what is listed");
    assert!(web.labels.iter().any(|(name, value)| (&**name, &**value) == ("tier", "front")));
    let pod = web.pod.as_ref().expect("a pod");
    assert_eq!((&*pod.pod, &*pod.namespace, &*pod.container), ("web-0", "shop", "server"));
    assert!(!web.host_network && web.created_ms.is_some() && web.started_ms >= web.created_ms);

    docker.cli(&["pause", "web"]).await;
    watching.container("it is frozen", &id, |c| c.state == RunState::Paused).await;
    docker.cli(&["unpause", "web"]).await;
    watching.container("it goes on", &id, |c| c.state == RunState::Running).await;
    docker.cli(&["rename", "web", "shop"]).await;
    watching.container("it has its new name", &id, |c| &*c.name == "shop").await;
    docker.cli(&["restart", "shop"]).await;
    let again = watching.container("it began again", &id, |c| c.started_ms > web.started_ms).await;
    assert_ne!(again.pid, web.pid);
    docker.cli(&["rm", "--force", "shop"]).await;
    let gone = watching.container("it ended, and is known still", &id, |c| c.state == RunState::Exited).await;
    assert_eq!((&*gone.name, gone.pid), ("shop", None));
    let of_it = |change: &Change| match change {
        Change::Started(c) if *c.id.as_str() == *id => Some("started"),
        Change::Stopped { container, .. } if *container.id.as_str() == *id => Some("stopped"),
        _ => None,
    };
    let life: Vec<_> = watching.all(of_it).into_iter().map(|(_, what)| what).collect();
    assert_eq!(life, ["started", "stopped", "started", "stopped"]);
    agrees(&watching, &docker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_out_of_memory_and_health_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(docker) = Docker::start(dir.path()).await else { return };
    let watching = Watching::start(settings(&docker));
    watching.until(RuntimeState::Watching).await;

    let stopped = |id: String, code| move |change: &Change| matches!(change, Change::Stopped { container, exit_code } if *container.id.as_str() == *id && *exit_code == Some(code));
    let quick = docker.run(&[], "exit 7").await;
    watching.heard("a life of some milliseconds is told with its exit code", stopped(quick, 7)).await;
    let fat = docker.run(&["--memory", "8m", "--memory-swap", "8m"], "sleep 1 then allocate 64000000").await;
    watching
        .heard("the kernel's kill is told", |c| matches!(c, Change::OutOfMemory(c) if *c.id.as_str() == *fat))
        .await;
    watching.heard("and the end", stopped(fat.clone(), 137)).await;

    // Health checks of an image without a shell have to be in the image.
    let recipe = format!(
        "FROM {IMAGE}\nHEALTHCHECK --interval=300ms --timeout=5s --retries=1 CMD [\"/workload\", \"check\", \"/healthy\"]\n"
    );
    let context = dir.path().join("health");
    std::fs::create_dir(&context).expect("a directory");
    std::fs::write(context.join("Dockerfile"), recipe).expect("a Dockerfile");
    docker.cli(&["build", "--quiet", "--tag", "pegel/health:1", &context.to_string_lossy()]).await;
    let id = docker.cli(&["run", "--detach", "pegel/health:1", "idle"]).await;
    let health = |id: &str, health| {
        let id = id.to_owned();
        move |change: &Change| matches!(change, Change::Health(c, to) if *c.id.as_str() == *id && *to == health)
    };
    watching.heard("it fails its check", health(&id, Health::Unhealthy)).await;
    docker.cli(&["exec", &id, "/workload", "touch", "/healthy"]).await;
    watching.heard("it passes its check", health(&id, Health::Healthy)).await;
    watching.container("that is known too", &id, |c| c.health == Health::Healthy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storms_of_starts_and_ends_leave_what_docker_ps_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(docker) = Docker::start(dir.path()).await else { return };
    let watching = Watching::start(settings(&docker));
    watching.until(RuntimeState::Watching).await;
    for count in [1, 10, 50] {
        let runs = futures_util::stream::iter(0..count).map(|_| docker.run(&["--network", "none"], "idle"));
        let ids: Vec<String> = runs.buffer_unordered(AT_ONCE).collect().await;
        agrees(&watching, &docker).await;
        let stops = ids.chunks(count / AT_ONCE + 1).map(|some| {
            let mut arguments = vec!["rm", "--force"];
            arguments.extend(some.iter().map(String::as_str));
            let docker = &docker;
            async move { docker.cli(&arguments).await }
        });
        futures_util::future::join_all(stops).await;
        agrees(&watching, &docker).await;
    }
    assert_eq!(watching.count(|c| matches!(c, Change::Started(_))), 61, "each start once");
    assert_eq!(watching.count(|c| matches!(c, Change::Stopped { .. })), 61, "each end once");
    let mut late: Vec<i64> = watching
        .all(|change| match change {
            Change::Started(container) => container.started_ms,
            _ => None,
        })
        .into_iter()
        .map(|(heard, started)| heard - started)
        .collect();
    late.sort_unstable();
    let within = late.iter().filter(|ms| **ms <= 1_000).count();
    eprintln!(
        "starts heard within a second: {within} of {}; the median after {} ms, the last after {} ms",
        late.len(),
        late[late.len() / 2],
        late[late.len() - 1]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_is_named_and_what_happened_meanwhile_is_told_when_it_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(docker) = Docker::start(dir.path()).await else { return };
    let id = docker.run(&["--network", "none"], "idle").await;
    let watching = Watching::start(settings(&docker));
    watching.until(RuntimeState::Watching).await;
    let pid = watching.container("it is known", &id, |c| c.pid.is_some()).await.pid.expect("a process");

    docker.engine.signal(Signal::STOP);
    let away = watching.until(RuntimeState::Away).await;
    assert!(away.last_error.as_ref().is_some_and(|e| e.contains("was not answered within 2s")), "{away:?}");
    assert_eq!(watching.catalogue.container(&id).map(|c| c.state), Some(RunState::Running), "its name stays");
    kill_process(Pid::from_raw(pid as i32).expect("a process"), Signal::KILL).expect("a kill");
    watching.container("its end shows without the engine", &id, |c| c.state == RunState::Exited).await;
    docker.engine.signal(Signal::CONT);
    watching.until(RuntimeState::Watching).await;
    let next = docker.run(&["--network", "none"], "idle").await;
    watching.container("the next one is known", &next, |c| c.pid.is_some()).await;
    agrees(&watching, &docker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_keeps_its_containers_known_and_is_found_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mut docker) = Docker::start(dir.path()).await else { return };
    let stays = docker.run(&["--network", "none"], "idle").await;
    let ends = docker.run(&["--network", "none"], "idle").await;
    let watching = Watching::start(settings(&docker));
    watching.until(RuntimeState::Watching).await;
    let pid = watching.container("it is known", &ends, |c| c.pid.is_some()).await.pid.expect("a process");
    for _ in 0..3 {
        docker.kill_engine();
        let away = watching.until(RuntimeState::Away).await;
        assert!(away.last_error.is_some(), "{away:?}");
        let _ = kill_process(Pid::from_raw(pid as i32).expect("a process"), Signal::KILL);
        docker.start_engine_again().await;
        watching.until(RuntimeState::Watching).await;
        agrees(&watching, &docker).await;
    }
    let of = |id: &str| {
        watching.all(|c| matches!(c, Change::Started(c) if c.id.as_str() == id).then_some(())).len()
    };
    assert_eq!((of(&stays), of(&ends)), (1, 1), "one life each, however often the engine is away");
    let end =
        watching.count(|c| matches!(c, Change::Stopped { container, .. } if container.id.as_str() == ends));
    assert_eq!(end, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_of_writable_layers_are_known_only_if_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(docker) = Docker::start(dir.path()).await else { return };
    let asked = Settings { writable_size_interval: Some(Duration::from_secs(1)), ..settings(&docker) };
    let (watching, without) = (Watching::start(asked), Watching::start(settings(&docker)));
    let id = docker.run(&[], "write /file 3000000 then idle").await;
    eventually("the size is known", SOON, || async {
        watching.catalogue.writable_bytes(&id).filter(|bytes| *bytes == 3_000_000)
    })
    .await;
    without.container("it is known", &id, |_| true).await;
    assert_eq!(without.catalogue.writable_bytes(&id), None);
}
