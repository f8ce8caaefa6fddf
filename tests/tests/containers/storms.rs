//! Many containers that start and stop.

use crate::world::{SOON, World};
use pegel_tests::{eventually, rounds};
use serde_json::json;
use std::collections::BTreeSet;

/// How many containers the storms have, unless `PEGEL_CONTAINERS` says more.
const FEW: usize = 20;

/// The names of containers that have series now.
async fn names(world: &World) -> BTreeSet<String> {
    let result = world.prometheus.query("group by (name) (container_last_seen{name=~\"storm-.+\"})").await;
    let result = result.unwrap_or_default();
    result.iter().filter_map(|series| Some(series["metric"]["name"].as_str()?.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_starts_and_stops_leaves_the_series_of_those_that_run() {
    let count = rounds("PEGEL_CONTAINERS", FEW);
    let Some(world) = World::start(json!({})).await else { return };
    let all: BTreeSet<String> = (0..count).map(|n| format!("storm-{n}")).collect();
    for name in &all {
        world.docker.run(&["--name", name], "idle").await;
    }
    let began = std::time::Instant::now();
    eventually("all have series", SOON, || async { (names(&world).await == all).then_some(()) }).await;
    println!("{count} containers have series {:?} after the last start", began.elapsed());

    // Every other is killed, and as many are started that end by themselves.
    let killed: Vec<&str> = all.iter().step_by(2).map(String::as_str).collect();
    for some in killed.chunks(10) {
        world.docker.cli(&[&["kill"], some].concat()).await;
    }
    for n in 0..count / 2 {
        world.docker.run(&["--name", &format!("brief-{n}"), "--rm"], "exit 3").await;
    }
    let stay: BTreeSet<String> = all.iter().skip(1).step_by(2).cloned().collect();
    let began = std::time::Instant::now();
    eventually("those that stopped have ended", SOON, || async {
        (names(&world).await == stay).then_some(())
    })
    .await;
    println!("{} series ended {:?} after the last stop", killed.len(), began.elapsed());
    world.empty("container_last_seen{name=~\"brief-.+\"}").await;

    // The stopped start again under the same ids.
    for some in killed.chunks(10) {
        world.docker.cli(&[&["start"], some].concat()).await;
    }
    eventually("all have series again", SOON, || async { (names(&world).await == all).then_some(()) }).await;

    // An end is an end to the backend: a staleness marker, not silence for five minutes.
    world.docker.cli(&["kill", "storm-0"]).await;
    world.empty("container_last_seen{name=\"storm-0\"}").await;
    let twice = "count by (name) (container_last_seen{name=~\"storm-.+\"}) > 1";
    assert_eq!(world.prometheus.query(twice).await, Some(Vec::new()));
}
