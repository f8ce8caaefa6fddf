//! SIGKILL at random moments.

use crate::world::World;
use crate::writers::{Plan, Rotation, Writer};
use pegel_tests::{let_run, rounds, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

fn writers(world: &World) -> Vec<Writer> {
    let every = Duration::from_millis(700);
    let plain = Plan::plain(world.file("plain"), 1_000);
    let renamed = Plan::rotated(world.file("renamed"), 500, Rotation::Dated, every);
    vec![Writer::start(plain), Writer::start(renamed)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_loses_no_line_and_repeats_none() {
    let mut rng = StdRng::seed_from_u64(seed());
    let Some(mut world) = World::start("").await else { return };
    let writers = writers(&world);
    let mut arrived = 0;
    for _ in 0..rounds("PEGEL_KILLS", 20) {
        let_run(Duration::from_millis(rng.random_range(50..1_500))).await;
        world.agent.kill();
        let_run(Duration::from_millis(rng.random_range(0..300))).await;
        world.restart(&mut arrived).await;
    }
    let_run(Duration::from_secs(1)).await;
    world.check(writers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_that_had_nobody_to_deliver_to_loses_no_line() {
    let mut rng = StdRng::seed_from_u64(seed());
    let Some(mut world) = World::start("").await else { return };
    let writers = writers(&world);
    let (mut away, mut arrived) = (false, 0);
    for _ in 0..rounds("PEGEL_KILLS", 20) / 2 {
        if rng.random_bool(0.5) != away {
            away = !away;
            if away { world.aggregator.kill() } else { world.aggregator.start().await }
        }
        let_run(Duration::from_millis(rng.random_range(50..2_500))).await;
        world.agent.kill();
        world.restart(&mut arrived).await;
    }
    if away {
        world.aggregator.start().await;
    }
    world.check(writers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_aggregator_loses_no_line_and_repeats_none() {
    let mut rng = StdRng::seed_from_u64(seed());
    let Some(mut world) = World::start("").await else { return };
    let writers = writers(&world);
    for _ in 0..rounds("PEGEL_KILLS", 20) {
        let_run(Duration::from_millis(rng.random_range(50..1_000))).await;
        world.aggregator.kill();
        let_run(Duration::from_millis(rng.random_range(0..200))).await;
        world.aggregator.start().await;
    }
    world.check(writers).await;
}
