//! The host source beside a real node_exporter in the same machine, at the same time: names, labels, types and values.

use crate::exposition::{Exposition, family, label};
use pegel_agent::source::host::CollectorKind;
use pegel_tests::backend;
use pegel_tests::machine::{Cgroups, Machine, MachineSetup, SHARED};
use std::fmt::Write as _;

/// Collectors of node_exporter that are off by default and run here on both sides, where pegel has them.
const EXTRA: [&str; 5] = ["systemd", "logind", "processes", "tcpstat", "interrupts"];

/// Collectors that node_exporter has on and pegel has not, with what their metrics begin with.
const LEFT_OUT: [(&str, &str, &str); 2] = [
    ("bcachefs", "node_bcachefs_", "a file system that the kernel has dropped again"),
    ("textfile", "node_textfile_", "has nothing to say where no directory is set, as here"),
];

/// Series that are not on both sides, and why.
const NAMES: [(&str, &str); 7] = [
    ("node_exporter_build_info", "tells of the program itself"),
    ("node_processes_state", "a state has a series while a process is in it"),
    ("node_processes_threads_state", "a state has a series while a thread is in it"),
    (
        "node_tcp_connection_states",
        "a state has a series while a connection is in it: the scrape's own comes and goes",
    ),
    ("node_systemd_unit_state", "units of the moment come and go"),
    ("node_systemd_unit_tasks", "units of the moment come and go"),
    ("node_scrape_collector", "each side tells of its own collectors; that they succeed is compared below"),
];

/// Gauges that change from moment to moment, so that a value read between two others need not lie between them.
const RESTLESS: [(&str, &str); 18] = [
    ("node_memory_", "pages are used and freed all the time"),
    ("node_filesystem_avail_bytes", "files are written meanwhile, the answers of this test among them"),
    ("node_filesystem_free_bytes", "files are written meanwhile"),
    ("node_filesystem_purgeable_bytes", "files are written meanwhile"),
    ("node_filesystem_files_free", "files are made meanwhile"),
    ("node_filefd_allocated", "files are opened meanwhile, each side's own among them"),
    ("node_sockstat_", "each scrape has a socket of its own"),
    ("node_netstat_Tcp_CurrEstab", "node_exporter's scrape is a connection itself"),
    ("node_tcp_connection_states", "node_exporter's scrape is a connection itself"),
    ("node_processes_", "each side is some threads itself"),
    ("node_procs_", "each side is a process itself"),
    ("node_forks_total", "counters of the moment of reading"),
    ("node_load", "averages rise and fall"),
    ("node_udp_queues", "datagrams come and go"),
    ("node_entropy_available_bits", "the pool is used and filled"),
    ("node_timex_", "the kernel steers its clock"),
    ("node_cpu_scaling_frequency_hertz", "processors change their speed"),
    ("node_softnet_backlog_len", "packets come and go"),
];

/// What a counter of processor time may go back by, in seconds: the kernel estimates idle and waiting time.
const TIME_ESTIMATE_SECONDS: f64 = 0.05;

/// Units of every kind that there is a metric for, and of every state that lasts.
async fn units(machine: &Machine) {
    for (name, content) in [
        ("failing.service", "[Service]\nExecStart=/bin/false\n"),
        ("lasting@a\\x2db.service", "[Service]\nType=exec\nExecStart=/bin/sleep 1d\nTasksMax=77\n"),
        ("waiting.service", "[Service]\nType=notify\nExecStart=/bin/sleep 1d\n"),
        ("once.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n"),
        (
            "restarting.service",
            "[Service]\nRestart=always\nRestartSec=0\nExecStart=/bin/false\n[Unit]\nStartLimitBurst=3\n",
        ),
        ("tick.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n"),
        ("tick.timer", "[Timer]\nOnActiveSec=1ms\nAccuracySec=1ms\n[Install]\nWantedBy=timers.target\n"),
        ("never.timer", "[Timer]\nOnCalendar=2099-01-01\nUnit=tick.service\n"),
        ("echo.socket", "[Socket]\nListenStream=/run/echo\nAccept=yes\nMaxConnections=1\n"),
        ("echo@.service", "[Service]\nExecStart=/bin/cat\nStandardInput=socket\n"),
    ] {
        machine.write(&format!("/etc/systemd/system/{name}"), content.as_bytes());
    }
    machine
        .run(
            "systemctl daemon-reload
             systemctl start 'lasting@a\\x2db.service' once.service tick.timer never.timer echo.socket
             systemctl start --no-block failing.service restarting.service waiting.service
             until systemctl is-failed --quiet failing.service && systemctl is-failed --quiet restarting.service &&
               [ \"$(systemctl show --property=LastTriggerUSec --value tick.timer)\" != '' ]; do :; done
             systemd-run --quiet --unit=client --property=StandardOutput=null \
               /usr/bin/perl -MIO::Socket::UNIX -e \
               'my @s = map { IO::Socket::UNIX->new(Peer => \"/run/echo\") or die } 1 .. 2; sleep 1e6'
             until [ \"$(systemctl show --property=NAccepted --value echo.socket)\" = 1 ] &&
               [ \"$(systemctl show --property=NRefused --value echo.socket)\" = 1 ]; do :; done",
        )
        .await;
}

/// Both sides in turn: node_exporter before and after pegel.
struct Seen {
    before: Exposition,
    ours: Exposition,
    after: Exposition,
}

async fn seen(machine: &Machine, config: &str) -> Seen {
    machine.write("/etc/pegel/agent.yaml", config.as_bytes());
    machine
        .run(&format!(
            "scrape() {{ exec 3<>/dev/tcp/127.0.0.1/9100 && printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3 && exec 3<&-; }}
             until scrape >/dev/null 2>&1; do :; done
             scrape >{SHARED}/before
             pegel-agent once --config /etc/pegel/agent.yaml >{SHARED}/ours
             scrape >{SHARED}/after"
        ))
        .await;
    let text =
        |name: &str| std::fs::read_to_string(machine.shared().join(name)).expect("the scrape's answer");
    let theirs = |name| Exposition::read(text(name).split_once("\r\n\r\n").expect("a head").1, &[]);
    let mut ours = Exposition::read(&text("ours"), &["instance", "job"]);
    ours.samples.retain(|series, _| series.starts_with("node_"));
    Seen { before: theirs("before"), ours, after: theirs("after") }
}

fn has(collector: &str) -> bool {
    CollectorKind::ALL.iter().any(|kind| kind.name() == collector)
}

fn listed(series: &str, list: &[(&str, &str)]) -> bool {
    list.iter().any(|(prefix, _)| series.starts_with(prefix))
}

/// Whether the series is of a place at which systemd-nspawn has mounted one read-only and one writable bind. Which of
/// them node_exporter tells of is chance: its workers race.
fn is_mounted_twice(series: &str) -> bool {
    family(series) == "node_filesystem_readonly"
        && label(series, "mountpoint").is_some_and(|at| at.starts_with("/run/host/"))
}

/// What should not differ and does.
fn differences(Seen { before, ours, after }: &Seen) -> String {
    let mut out = String::new();
    let left_out = |series: &str| LEFT_OUT.iter().any(|(_, prefix, _)| series.starts_with(prefix));
    for series in before.samples.keys().filter(|series| after.samples.contains_key(*series)) {
        if !ours.samples.contains_key(series) && !listed(series, &NAMES) && !left_out(series) {
            let _ = writeln!(out, "missing: {series}");
        }
    }
    for (series, value) in ours.samples.iter().filter(|(series, _)| !listed(series, &NAMES)) {
        let (Some(low), Some(high)) = (before.value(series), after.value(series)) else {
            if before.value(series).or(after.value(series)).is_none() {
                let _ = writeln!(out, "nobody else has: {series}");
            }
            continue;
        };
        let slack = if series.starts_with("node_cpu_seconds_total") { TIME_ESTIMATE_SECONDS } else { 0.0 };
        let between = (low.min(high) - slack..=low.max(high) + slack).contains(value);
        if !between && !listed(series, &RESTLESS) && !is_mounted_twice(series) {
            let _ = writeln!(out, "{series}: {value} here, {low} before and {high} after there");
        }
    }
    for (name, kind) in ours.types.iter().filter(|(name, _)| name.starts_with("node_")) {
        if let Some(theirs) = after.types.get(name).filter(|theirs| *theirs != kind) {
            let _ = writeln!(out, "{name} is a {kind} here and a {theirs} there");
        }
    }
    // Those that fail there, for want of hardware, fail here, too.
    for series in after.samples.keys().filter(|series| family(series) == "node_scrape_collector_success") {
        let collector = label(series, "collector").expect("the label is there");
        let named = LEFT_OUT.iter().any(|(name, _, _)| *name == collector);
        if !named && ours.success(collector) != after.success(collector) {
            let _ = writeln!(
                out,
                "collector {collector}: success {:?} here, {:?} there",
                ours.success(collector),
                after.success(collector)
            );
        }
    }
    out
}

/// What the units of this test must show, on whichever side.
fn assert_units(seen: &Exposition) {
    for (series, value) in [
        (r#"node_systemd_unit_state{name="failing.service",state="failed",type="simple"}"#, 1.0),
        (r#"node_systemd_unit_state{name="lasting@a\\x2db.service",state="active",type="exec"}"#, 1.0),
        (r#"node_systemd_unit_state{name="waiting.service",state="activating",type="notify"}"#, 1.0),
        (r#"node_systemd_unit_state{name="once.service",state="active",type="oneshot"}"#, 1.0),
        (r#"node_systemd_unit_state{name="never.timer",state="active"}"#, 1.0),
        (r#"node_systemd_unit_tasks_max{name="lasting@a\\x2db.service"}"#, 77.0),
        (r#"node_systemd_service_restart_total{name="restarting.service"}"#, 3.0),
        (r#"node_systemd_timer_last_trigger_seconds{name="never.timer"}"#, 0.0),
        (r#"node_systemd_socket_accepted_connections_total{name="echo.socket"}"#, 1.0),
        (r#"node_systemd_socket_current_connections{name="echo.socket"}"#, 1.0),
        (r#"node_systemd_socket_refused_connections_total{name="echo.socket"}"#, 1.0),
        (r#"node_systemd_units{state="failed"}"#, 2.0),
        ("node_systemd_system_running{}", 0.0),
        (r#"node_systemd_unit_start_time_seconds{name="failing.service"}"#, 0.0),
    ] {
        assert_eq!(seen.value(series), Some(value), "{series}");
    }
    let triggered = seen.value(r#"node_systemd_timer_last_trigger_seconds{name="tick.timer"}"#);
    assert!(triggered.is_some_and(|at| at > 1.6e9), "{triggered:?}");
}

#[tokio::test]
async fn a_machine_with_real_units_looks_the_same_to_both() {
    let Some(exporter) = backend("node_exporter") else { return };
    let setup =
        MachineSetup::new(Cgroups::V2).program("pegel-agent").bind(exporter, "/usr/bin/node_exporter");
    let Some(machine) = Machine::boot(setup).await else { return };
    units(&machine).await;
    let extra: Vec<&str> = EXTRA.into_iter().filter(|name| has(name)).collect();
    let flags: String = extra.iter().flat_map(|name| [" --collector.", name]).collect();
    machine
        .unit(
            "node_exporter.service",
            &format!(
                "[Service]\nExecStart=/usr/bin/node_exporter --web.listen-address=127.0.0.1:9100 --web.disable-exporter-metrics{flags} \
                 --collector.systemd.enable-task-metrics --collector.systemd.enable-restarts-metrics --collector.systemd.enable-start-time-metrics\n"
            ),
        )
        .await;
    machine.run("systemctl start node_exporter.service").await;
    let config = format!(
        "host:\n  with_collectors: [{}]\n  options: {{systemd: {{tasks: true, restarts: true, start_times: true}}}}\n",
        extra.join(", ")
    );
    let seen = seen(&machine, &config).await;
    assert_units(&seen.after);
    assert_units(&seen.ours);
    let differences = differences(&seen);
    assert!(differences.is_empty(), "{differences}");
    let both = seen.ours.samples.keys().filter(|series| seen.after.samples.contains_key(*series)).count();
    println!("{both} series of a machine with systemd agree with node_exporter");
}

#[tokio::test]
async fn a_message_bus_that_stands_still_costs_two_collectors_and_comes_back() {
    let setup = MachineSetup::new(Cgroups::V2).program("pegel-agent");
    let Some(machine) = Machine::boot(setup).await else { return };
    machine.write(
        "/etc/pegel/agent.yaml",
        b"host: {with_collectors: [systemd, logind], collector_timeout: 1s}\n",
    );
    // Not in a unit, which systemd-run asks for over the bus.
    let once = || {
        let mut command = machine.enter("pegel-agent");
        let output =
            command.args(["once", "--config", "/etc/pegel/agent.yaml"]).output().expect("nsenter starts");
        Exposition::read(&String::from_utf8_lossy(&output.stdout), &["instance", "job"])
    };
    let sound = once();
    let succeeds = |read: &Exposition| ["systemd", "logind", "uname", "stat"].map(|name| read.success(name));
    assert_eq!(succeeds(&sound), [Some(true); 4]);

    let signal = |signal: &str| {
        let status = machine.enter("systemctl").args(["kill", signal, "dbus.service"]).status();
        assert!(status.expect("nsenter starts").success());
    };
    signal("--signal=STOP");
    let stopped = once();
    assert_eq!(succeeds(&stopped), [Some(false), Some(false), Some(true), Some(true)]);
    for collector in ["systemd", "logind"] {
        let took =
            stopped.value(&format!("node_scrape_collector_duration_seconds{{collector=\"{collector}\"}}"));
        assert!(took.is_some_and(|seconds| (0.5..1.0).contains(&seconds)), "{collector} took {took:?}");
    }
    // Root may ask systemd itself meanwhile.
    machine.write(
        "/etc/pegel/agent.yaml",
        b"host: {with_collectors: [systemd, logind], collector_timeout: 1s, options: {systemd: {private_socket: true}}}\n",
    );
    let private = once();
    assert_eq!(succeeds(&private), [Some(true), Some(false), Some(true), Some(true)]);

    signal("--signal=CONT");
    assert_eq!(succeeds(&once()), [Some(true); 4]);
}
