//! The engine hangs, goes away and comes back; the containers go on.

use crate::world::World;
use pegel_tests::docker::IMAGE;
use rustix::process::Signal;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_engine_numbers_flow_under_ids_and_names_return_with_it() {
    let Some(mut world) = World::start(json!({})).await else { return };
    let id = world.docker.run(&["--name", "web"], "burn 0").await;
    let cgroup = format!("{}/{id}", world.docker.cgroup());
    let named =
        format!("sum(container_cpu_usage_seconds_total{{id=\"{cgroup}\",name=\"web\",image=\"{IMAGE}\"}})");
    let of_id = format!("sum(container_cpu_usage_seconds_total{{id=\"{cgroup}\"}})");
    let before = world.value(&named, |_| true).await;

    // The engine hangs: what was known of the container stays, and its numbers rise.
    world.docker.engine.signal(Signal::STOP);
    let before = world.value(&named, |now| now > before + 0.2).await;

    // The agent starts anew and knows nothing of the container but what the kernel says.
    let status = world.agent.end().await;
    assert!(status.success(), "{status}");
    world.docker.engine.signal(Signal::CONT);
    world.docker.kill_engine();
    world.agent.start().await;
    let nameless = format!("sum(container_cpu_usage_seconds_total{{id=\"{cgroup}\",name!=\"web\"}})");
    let now = world.value(&nameless, |now| now > before + 0.2).await;

    // Names return by themselves, and the series without them end.
    world.docker.start_engine_again().await;
    world.value(&named, |told| told > now).await;
    world.empty(&nameless).await;
    assert_eq!(world.prometheus.query(&of_id).await.map(|result| result.len()), Some(1));
}
