//! Discovery through the CRI of a real containerd, with pods as a kubelet would start them.

use crate::kubelet::{Kubelet, SANDBOX_IMAGE};
use crate::watching::{SOON, Watching};
use pegel_agent::source::container::runtime::{RuntimeState, Settings, Socket, Sockets};
use pegel_agent::source::container::{Change, RunState, RuntimeKind};
use pegel_tests::docker::{Docker, IMAGE};
use pegel_tests::eventually;
use std::path::Path;
use std::process::Command;

/// An engine whose containerd has the images in the CRI's namespace.
pub async fn containerd(dir: &Path) -> Option<Docker> {
    let docker = Docker::start(dir).await?;
    let recipe = format!("FROM {IMAGE}\nCMD [\"idle\"]\n");
    std::fs::create_dir(dir.join("pause")).expect("a directory");
    std::fs::write(dir.join("pause/Dockerfile"), recipe).expect("a Dockerfile");
    docker.cli(&["build", "--quiet", "--tag", SANDBOX_IMAGE, &dir.join("pause").to_string_lossy()]).await;
    let archive = dir.join("images.tar");
    docker.cli(&["save", "--output", &archive.to_string_lossy(), IMAGE, SANDBOX_IMAGE]).await;
    let mut import = docker.inside("ctr");
    import.arg("--address").arg(docker.containerd_socket());
    import.args(["--namespace", "k8s.io", "images", "import"]).arg(archive);
    succeeds(import);
    Some(docker)
}

fn succeeds(mut command: Command) {
    let output = command.output().expect("a program");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn settings(docker: &Docker, with_docker: bool) -> Settings {
    let mut sockets = vec![Socket { kind: RuntimeKind::Containerd, path: docker.containerd_socket() }];
    if with_docker {
        sockets.push(Socket { kind: RuntimeKind::Docker, path: docker.socket() });
    }
    Settings { sockets: Sockets::These(sockets), env: ["TEAM".into()].into(), ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_their_containers_are_known_from_the_cri_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(docker) = containerd(dir.path()).await else { return };
    let kubelet = Kubelet::connect(&docker.containerd_socket(), &docker.cgroup()).await;
    let before = kubelet.run_sandbox("before").await;
    let watching = Watching::start(settings(&docker, false));
    let status = watching.until(RuntimeState::Watching).await;
    assert_eq!((status.kind, status.containers), ("containerd", 1));
    let sandbox = watching.container("the sandbox is known", &before, |c| c.pid.is_some()).await;
    let pod = sandbox.pod.as_ref().expect("a pod");
    assert_eq!((&*pod.pod, &*pod.namespace, &*pod.container), ("before", "shop", "POD"));
    assert!(sandbox.host_network);

    let web = kubelet.run_sandbox("web-0").await;
    let id = kubelet.run_container(&web, "web-0", "server", "idle", 0).await;
    let server = watching.container("the container is known", &id, |c| c.pid.is_some()).await;
    let pod = server.pod.as_ref().expect("a pod");
    assert_eq!((&*pod.pod, &*pod.namespace, &*pod.container), ("web-0", "shop", "server"));
    assert_eq!(
        (&*server.name, server.state, server.runtime),
        ("server", RunState::Running, RuntimeKind::Containerd)
    );
    assert!(server.image.contains(IMAGE), "{}", server.image);
    assert!(server.host_network && server.started_ms.is_some() && server.log_path.is_some());
    assert_eq!(*server.env, [("TEAM".into(), "shop".into())], "nothing but what is listed");
    assert!(std::fs::exists(format!("/proc/{}", server.pid.expect("a process"))).expect("procfs"));

    kubelet.stop_container(&id).await;
    watching.heard("its end is told", |c| {
        matches!(c, Change::Stopped { container, exit_code: Some(137) } if container.id.as_str() == id)
    }).await;
    let fat = kubelet
        .run_container(&web, "web-0", "fat", "sleep 1 then allocate 64000000 then idle", 8 << 20)
        .await;
    watching
        .heard("the kernel's kill is told", |c| matches!(c, Change::OutOfMemory(c) if c.id.as_str() == fat))
        .await;
    watching
        .heard(
            "and the end",
            |c| matches!(c, Change::Stopped { container, .. } if container.id.as_str() == fat),
        )
        .await;
    let short = kubelet.run_container(&web, "web-0", "short", "sleep 1 then exit 3", 0).await;
    watching.heard("an exit code is told", |c| {
        matches!(c, Change::Stopped { container, exit_code: Some(3) } if container.id.as_str() == short)
    }).await;
    kubelet.stop_sandbox(&web).await;
    watching.container("the sandbox ended", &web, |c| c.state == RunState::Exited).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_docker_on_the_same_containerd_each_container_is_there_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(docker) = containerd(dir.path()).await else { return };
    let kubelet = Kubelet::connect(&docker.containerd_socket(), &docker.cgroup()).await;
    let watching = Watching::start(settings(&docker, true));
    let pod = kubelet.run_sandbox("web-0").await;
    let plain = docker.run(&["--network", "none"], "idle").await;
    eventually("both are known", SOON, || async { (watching.catalogue.all().len() == 2).then_some(()) })
        .await;
    let kind = |id: &str| watching.catalogue.container(id).map(|c| c.runtime);
    assert_eq!((kind(&plain), kind(&pod)), (Some(RuntimeKind::Docker), Some(RuntimeKind::Containerd)));
    assert_eq!(watching.count(|change| matches!(change, Change::Started(_))), 2);
}
