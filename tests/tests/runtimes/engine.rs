//! The harness itself: what other suites rely on.

use pegel_tests::docker::Docker;

#[tokio::test]
async fn an_engine_of_the_tests_own_runs_the_workload() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mut docker) = Docker::start(dir.path()).await else { return };
    let id =
        docker.run(&["--name", "web", "--memory", "64m"], "allocate 1000000 then serve 80 then idle").await;
    let address = docker.cli(&["inspect", "--format", "{{.NetworkSettings.IPAddress}}", &id]).await;
    let said = docker
        .cli(&["run", "--rm", pegel_tests::docker::IMAGE, "send", &format!("{address}:80"), "100000"])
        .await;
    assert!(said.contains("arrived 100000"), "{said}");
    let refused = docker.try_cli(&["run", "--rm", pegel_tests::docker::IMAGE, "exit", "7"]).await;
    assert_eq!(refused, Err(String::new()));
    docker.kill_engine();
    docker.start_engine_again().await;
    assert_eq!(docker.cli(&["ps", "--no-trunc", "--quiet"]).await, id, "containers outlive the engine");
    let cgroup = docker.cgroup();
    assert!(
        std::fs::exists(format!("/sys/fs/cgroup/memory{cgroup}/{id}")).expect("a cgroup")
            || std::fs::exists(format!("/sys/fs/cgroup{cgroup}/{id}")).expect("a cgroup")
    );
    drop(docker);
    assert!(!std::fs::exists(format!("/sys/fs/cgroup/memory{cgroup}")).expect("a hierarchy"));
}
