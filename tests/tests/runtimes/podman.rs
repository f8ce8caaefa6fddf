//! Discovery against a real Podman, in a machine with systemd and cgroup v2.

use crate::watching::Watching;
use pegel_agent::source::container::runtime::{RuntimeState, Settings, Socket, Sockets};
use pegel_agent::source::container::{Change, RunState, RuntimeKind};
use pegel_tests::backend;
use pegel_tests::machine::{Cgroups, Machine, MachineSetup};

/// Starts the API service and makes the image of the workload. crun wants to lift the limit on locked memory, and
/// both runtimes to limit processes, which a machine for tests does not always let them.
const SERVICE: &str = "\
set -e
mkdir -p /etc/containers
printf '[engine]\nruntime = \"runc\"\n' > /etc/containers/containers.conf
systemd-run --quiet --unit=podman-api --property=Delegate=yes podman system service --time=0 unix:///shared/podman.sock
printf 'FROM scratch\\nCOPY workload /workload\\nENTRYPOINT [\"/workload\"]\\nSTOPSIGNAL SIGKILL\\n' > /shared/image/Dockerfile
podman build --quiet --tag pegel/workload:1 /shared/image
for _ in $(seq 100); do [ -S /shared/podman.sock ] && exit 0; sleep 0.1; done
exit 1";

#[tokio::test(flavor = "multi_thread")]
async fn podmans_containers_are_known_and_their_lives_are_told() {
    let Some(workload) = backend("workload") else { return };
    let Some(machine) = Machine::boot(MachineSetup::new(Cgroups::V2)).await else { return };
    std::fs::create_dir(machine.shared().join("image")).expect("a directory");
    std::fs::copy(workload, machine.shared().join("image/workload")).expect("the workload is copied");
    machine.run(SERVICE).await;
    let run = |options: &str, steps: &str| {
        let script =
            format!("podman run --detach --network none --pids-limit 0 {options} pegel/workload:1 {steps}");
        let machine = &machine;
        async move { machine.run(&script).await.trim().to_owned() }
    };
    let before = run("--name before", "idle").await;
    let socket = Socket { kind: RuntimeKind::Podman, path: machine.shared().join("podman.sock") };
    let env = ["TEAM".into()].into();
    let watching =
        Watching::start(Settings { sockets: Sockets::These(vec![socket]), env, ..Settings::default() });
    let status = watching.until(RuntimeState::Watching).await;
    assert_eq!((status.kind, status.containers), ("podman", 1), "{status:?}");
    watching
        .container("what ran before is known", &before, |c| &*c.name == "before" && c.pid.is_some())
        .await;

    let id = run("--name web --label tier=front --env TEAM=shop --env PASSWORD=secret", "idle").await;
    let web = watching.container("the new one is known", &id, |c| c.pid.is_some()).await;
    assert_eq!((&*web.name, web.state, web.runtime), ("web", RunState::Running, RuntimeKind::Podman));
    assert!(web.image.contains("pegel/workload:1") && web.started_ms.is_some() && web.created_ms.is_some());
    assert_eq!(*web.env, [("TEAM".into(), "shop".into())]);
    assert!(web.labels.iter().any(|(name, value)| (&**name, &**value) == ("tier", "front")));
    machine.run("podman pause web").await;
    watching.container("it is frozen", &id, |c| c.state == RunState::Paused).await;
    machine.run("podman unpause web").await;
    watching.container("it goes on", &id, |c| c.state == RunState::Running).await;
    machine.run("podman rm --force --time 0 web").await;
    watching.container("it ended", &id, |c| c.state == RunState::Exited).await;

    let quick = run("", "exit 7").await;
    watching.heard("a short life is told with its exit code", |change| {
        matches!(change, Change::Stopped { container, exit_code: Some(7) } if container.id.as_str() == quick)
    }).await;
    for _ in 0..10 {
        run("", "idle").await;
    }
    let listed = machine.run("podman ps --no-trunc --quiet").await;
    let mut listed: Vec<_> = listed.split_whitespace().map(str::to_owned).collect();
    listed.sort_unstable();
    pegel_tests::eventually("the catalogue is what `podman ps` says", crate::watching::SOON, || async {
        let all = watching.catalogue.all();
        let running = all.iter().filter(|c| c.state != RunState::Exited).map(|c| c.id.to_string());
        (running.collect::<Vec<_>>() == listed).then_some(())
    })
    .await;

    // Away and back: what ended meanwhile is told.
    machine.run("systemctl stop podman-api && podman rm --force --time 0 before").await;
    watching.until(RuntimeState::Away).await;
    machine.run("rm -f /shared/podman.sock; systemd-run --quiet --unit=podman-api-2 podman system service --time=0 unix:///shared/podman.sock").await;
    watching.until(RuntimeState::Watching).await;
    watching.container("its end is known", &before, |c| c.state == RunState::Exited).await;
}
