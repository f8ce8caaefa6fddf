//! Numbers beside what the containers did.

use crate::world::World;
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

/// The kernel's unit of times in /proc/PID/stat (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds that a process has used, its threads included.
fn cpu_seconds(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let behind = stat.rsplit_once(')').expect("a name").1;
    let ticks = behind.split_ascii_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / TICKS_PER_SECOND
}

/// The wall clock.
fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processors_memory_and_limits_are_those_of_the_container() {
    let Some(world) = World::start(json!({})).await else { return };
    let docker = &world.docker;
    // What it burns is known by its own /proc/PID/stat, as a busy machine gives it less than it wants.
    docker.run(&["--name", "burns"], "burn 2 2 then idle").await;
    docker.run(&["--name", "keeps", "--memory", "128m"], "allocate 64000000 then idle").await;
    docker.run(&["--name", "throttled", "--cpus", "0.2"], "burn 4 2 then idle").await;

    world.said("burns", "done burn").await;
    let pid = world.inspect("burns", "{{.State.Pid}}").await;
    let used = cpu_seconds(&pid);
    assert!(used > 0.05, "it burnt {used} s");
    // The runtime's own start of the process is in the cgroup too.
    let told = world
        .value("sum(container_cpu_usage_seconds_total{name=\"burns\"})", |told| {
            (used - 0.02..used + 0.3).contains(&told)
        })
        .await;
    println!("CPU: {told} s told, {used} s used");
    let user = world.value("container_cpu_user_seconds_total{name=\"burns\"}", |value| value > 0.0).await;
    assert!((used * 0.8..used * 1.2 + 0.1).contains(&user), "{user} of {used} s are the user's");

    let limit = world.value("container_spec_memory_limit_bytes{name=\"keeps\"}", |_| true).await;
    assert!((limit - f64::from(128 << 20)).abs() < 1.0, "{limit}");
    world.said("keeps", "done allocate").await;
    for metric in
        ["container_memory_rss", "container_memory_usage_bytes", "container_memory_working_set_bytes"]
    {
        // The program itself and the kernel's share: page tables, stacks.
        let told =
            world.value(&format!("{metric}{{name=\"keeps\"}}"), |told| (64e6..72e6).contains(&told)).await;
        println!("{metric}: {told} of 64000000 bytes");
    }

    world.said("throttled", "done burn").await;
    let pid = world.inspect("throttled", "{{.State.Pid}}").await;
    let (used, name) = (cpu_seconds(&pid), "{name=\"throttled\"}");
    // At most a fifth of a core for four seconds, and one period more at each end; a busy machine gives less.
    assert!((0.05..1.1).contains(&used), "{used} s at a fifth of a core for 4 s");
    world
        .value(&format!("sum(container_cpu_usage_seconds_total{name})"), |told| {
            (used - 0.02..used + 0.3).contains(&told)
        })
        .await;
    let periods = world.value(&format!("container_cpu_cfs_periods_total{name}"), |n| n >= 10.0).await;
    let throttled =
        world.value(&format!("container_cpu_cfs_throttled_periods_total{name}"), |n| n >= 1.0).await;
    let seconds = world.value(&format!("container_cpu_cfs_throttled_seconds_total{name}"), |n| n > 0.0).await;
    assert!(throttled <= periods, "{throttled} of {periods}");
    println!("throttled in {throttled} of {periods} periods, {seconds} s");
    let quota = world.value(&format!("container_spec_cpu_quota{name}"), |_| true).await;
    let period = world.value(&format!("container_spec_cpu_period{name}"), |_| true).await;
    assert!((quota / period - 0.2).abs() < 1e-9, "{quota} / {period}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_is_what_the_container_sent_and_writes_what_the_kernel_has_for_it() {
    let Some(world) = World::start(json!({})).await else { return };
    let docker = &world.docker;
    docker.run(&["--name", "takes"], "serve 80 then idle").await;
    let address = world.inspect("takes", "{{.NetworkSettings.IPAddress}}").await;
    docker.run(&["--name", "sends"], &format!("send {address}:80 20000000 then idle")).await;
    world.said("sends", "done send").await;
    // Headers of TCP, IP and Ethernet on segments of up to 64 KiB, and what else is said on a network.
    for expression in [
        "container_network_transmit_bytes_total{name=\"sends\",interface=\"eth0\"}",
        "container_network_receive_bytes_total{name=\"takes\",interface=\"eth0\"}",
    ] {
        let told = world.value(expression, |told| (20e6..22e6).contains(&told)).await;
        println!("{expression}: {told} for 20000000 bytes");
    }
    let back = world
        .value("container_network_receive_bytes_total{name=\"sends\",interface=\"eth0\"}", |_| true)
        .await;
    assert!(back < 5e6, "{back} bytes of acknowledgements");

    // Version 1 of cgroups counts buffered writes for whoever flushes them, mostly a thread of the kernel: what is
    // compared is what the kernel has for the container, which has no series as long as that is nothing.
    let id = docker.run(&["--name", "writes"], "write /file 16777216 then idle").await;
    world.said("writes", "done write").await;
    let file = format!("/sys/fs/cgroup/blkio{}/{id}/blkio.throttle.io_service_bytes", docker.cgroup());
    let kernel = std::fs::read_to_string(&file).unwrap_or_default();
    let written =
        kernel.lines().filter_map(|line| line.split(' ').skip_while(|word| *word != "Write").nth(1));
    let written: f64 = written.filter_map(|bytes| bytes.parse::<f64>().ok()).sum();
    let expression = "sum(container_fs_writes_bytes_total{name=\"writes\"})";
    if written > 0.0 {
        world.value(expression, |told| (told - written).abs() < 0.5).await;
    } else {
        world.empty(expression).await;
    }
    println!("of 16777216 bytes the kernel has {written:.0} for the container");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_files_and_times_are_those_of_the_container() {
    let groups = ["cpu", "memory", "process", "oom_event"];
    let Some(world) = World::start(json!({"groups": groups})).await else { return };
    let steps = "open 40 then threads 7 then spawn 5 then idle";
    let before = unix_seconds();
    world.docker.run(&["--name", "busy", "--ulimit", "nofile=4321:4321"], steps).await;
    let after = unix_seconds();
    world.said("busy", "done spawn").await;
    let value = |metric: &str| format!("{metric}{{name=\"busy\"}}");
    world.value(&value("container_processes"), |n| (n - 6.0).abs() < 0.5).await;
    world.value(&value("container_threads"), |n| (n - 13.0).abs() < 0.5).await;
    // Standard streams of six processes and the forty.
    world.value(&value("container_file_descriptors"), |n| (58.0..70.0).contains(&n)).await;
    let files = "container_ulimits_soft{name=\"busy\",ulimit=\"max_open_files\"}";
    world.value(files, |n| (n - 4321.0).abs() < 0.5).await;
    let told = world.value(&value("container_start_time_seconds"), |_| true).await;
    // cAdvisor's times are whole seconds.
    assert!((before - 1.0..after + 1.0).contains(&told), "{told} is not between {before} and {after}");
    let seen = world.value(&value("container_last_seen"), |_| true).await;
    world.value(&value("container_last_seen"), |again| again > seen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_kernel_kills_for_want_of_memory_is_counted_and_a_container_that_ends_of_it_has_no_series() {
    let Some(world) = World::start(json!({})).await else { return };
    let limits = ["--memory", "32m", "--memory-swap", "32m"];
    // In one container a process besides the first is killed, the other's first process is.
    world.docker.run(&[&["--name", "survives"][..], &limits].concat(), "idle").await;
    world.docker.run(&[&["--name", "hungry"][..], &limits].concat(), "sleep 5 then allocate 200000000").await;
    let killed = "container_oom_events_total{name=\"survives\"}";
    world.value(killed, |n| n.abs() < 0.5).await;
    world.value("container_memory_usage_bytes{name=\"hungry\"}", |_| true).await;
    let exec = world.docker.try_cli(&["exec", "survives", "/workload", "allocate", "200000000"]).await;
    assert!(exec.is_err(), "it was not killed: {exec:?}");
    world.value(killed, |n| (n - 1.0).abs() < 0.5).await;

    world.docker.cli(&["wait", "hungry"]).await;
    assert_eq!(world.inspect("hungry", "{{.State.OOMKilled}}").await, "true");
    world.empty("container_memory_usage_bytes{name=\"hungry\"}").await;
}
