//! The labels of both schemes.

use crate::world::World;
use pegel_tests::docker::IMAGE;
use serde_json::json;

/// Labels of a container, as the kubelet sets them.
const POD: [&str; 10] = [
    "--label",
    "io.kubernetes.pod.name=web-0",
    "--label",
    "io.kubernetes.pod.namespace=shop",
    "--label",
    "io.kubernetes.pod.uid=0c1b",
    "--label",
    "io.kubernetes.container.name=nginx",
    "--label",
    "com.example.team=shop",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stand_alone_cadvisors_labels_with_those_of_the_list() {
    let Some(world) = World::start(json!({"container_labels": ["com.example.*"]})).await else { return };
    let id = world.docker.run(&[&["--name", "web"][..], &POD].concat(), "idle").await;
    let cgroup = format!("{}/{id}", world.docker.cgroup());
    let expected = json!({
        "__name__": "container_last_seen", "job": "cadvisor", "instance": world_host(),
        "tenant": "tests", "node": "web-1",
        "id": cgroup, "name": "web", "image": IMAGE, "container_label_com_example_team": "shop",
    });
    world.value("container_last_seen{name=\"web\"}", |_| true).await;
    let found =
        world.prometheus.query("container_last_seen{name=\"web\"}").await.expect("Prometheus answers");
    assert_eq!(found[0]["metric"], expected);
    // The machine itself, and cgroups between it and the container, without names.
    world.value("container_memory_usage_bytes{id=\"/\",name=\"\",image=\"\"}", |bytes| bytes > 1e6).await;
    world.value(&format!("container_memory_usage_bytes{{id=\"{}\"}}", world.docker.cgroup()), |_| true).await;
    world.value("machine_memory_bytes", |bytes| bytes > 1e6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubelets_labels_always_all_of_them() {
    let Some(world) = World::start(json!({"preset": "kubelet"})).await else { return };
    let id = world.docker.run(&[&["--name", "k8s_nginx"][..], &POD].concat(), "idle").await;
    let cgroup = format!("{}/{id}", world.docker.cgroup());
    world.value("container_last_seen{pod=\"web-0\"}", |_| true).await;
    let found =
        world.prometheus.query("container_last_seen{pod=\"web-0\"}").await.expect("Prometheus answers");
    let expected = json!({
        "__name__": "container_last_seen", "job": "kubelet", "metrics_path": "/metrics/cadvisor",
        "instance": world_host(), "tenant": "tests", "node": "web-1",
        "id": cgroup, "name": "k8s_nginx", "image": IMAGE, "container": "nginx", "pod": "web-0", "namespace": "shop",
    });
    assert_eq!(found[0]["metric"], expected);
}

/// What `instance` is unless somebody says otherwise.
fn world_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
