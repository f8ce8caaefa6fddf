//! The shipped unit file, under the systemd that it is for: not root, hardened, and nothing lost by it.

use crate::exposition::{Exposition, label};
use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use pegel_runtime::pki::{DEFAULT_LEAF_LIFETIME, Existing};
use pegel_tests::machine::{Cgroups, Machine, MachineSetup, SHARED};
use pegel_tests::pegel::Site;
use pegel_tests::{eventually, let_run, workspace};
use std::collections::BTreeSet;
use std::time::Duration;

/// What the journal says of a bus that stands still.
const NAMED: &str = "/run/dbus/system_bus_socket: it has not answered within";

/// How long the agent may take until it has collected something: one interval of 1 s on a busy machine.
const COLLECTED_WITHIN: Duration = Duration::from_secs(30);

/// Some scrapes at an interval of one second.
const SCRAPES: Duration = Duration::from_secs(3);

/// The collectors that hardening could take something from, beside those that are on.
const HOST: &str = "with_collectors: [systemd, logind, processes, tcpstat, interrupts]";

/// A machine with the shipped unit and its user.
async fn machine() -> Option<Machine> {
    let machine = Machine::boot(MachineSetup::new(Cgroups::V2).program("pegel-agent")).await?;
    let unit = std::fs::read(workspace().join("systemd/pegel-agent.service")).expect("the unit file");
    machine.write("/etc/systemd/system/pegel-agent.service", &unit);
    machine.run("useradd --system --user-group pegel && systemctl daemon-reload").await;
    machine.run("systemd-analyze verify --man=no pegel-agent.service").await;
    Some(machine)
}

/// Series that are there on whichever side has them at the moment.
fn is_lasting(series: &str) -> bool {
    let of_the_moment = ["node_processes_", "node_tcp_connection_states", "node_scrape_collector_duration"];
    let unit = label(series, "name").unwrap_or_default();
    series.starts_with("node_")
        && !of_the_moment.iter().any(|prefix| series.starts_with(prefix))
        && !unit.starts_with("run-")
        && unit != "pegel-agent.service"
}

#[tokio::test]
async fn in_its_sandbox_the_agent_sees_what_root_sees_outside() {
    let Some(machine) = machine().await else { return };
    machine.write("/etc/pegel/agent.yaml", format!("host: {{{HOST}}}\n").as_bytes());
    // The unit's own lines stay but for what is run: one collection in place of the agent.
    machine
        .unit(
            "pegel-agent.service.d/once.conf",
            &format!(
                "[Service]\nType=oneshot\nRestart=no\nExecStart=\nExecStart=/usr/bin/pegel-agent once --config /etc/pegel/agent.yaml\n\
                 StandardOutput=truncate:{SHARED}/inside\n"
            ),
        )
        .await;
    machine.run("systemctl start pegel-agent.service").await;
    machine.run(&format!("pegel-agent once --config /etc/pegel/agent.yaml >{SHARED}/outside")).await;
    let read = |name: &str| {
        let text = std::fs::read_to_string(machine.shared().join(name)).expect("a collection");
        Exposition::read(&text, &["instance", "job"])
    };
    let (inside, outside) = (read("inside"), read("outside"));
    let lasting = |seen: &Exposition| -> BTreeSet<String> {
        seen.samples.keys().filter(|series| is_lasting(series)).cloned().collect()
    };
    let (inside_has, outside_has) = (lasting(&inside), lasting(&outside));
    let lost: Vec<_> = outside_has.difference(&inside_has).collect();
    let added: Vec<_> = inside_has.difference(&outside_has).collect();
    assert!(lost.is_empty() && added.is_empty(), "lost: {lost:#?}\nadded: {added:#?}");
    assert!(inside_has.len() > 500, "{inside_has:?}");
    // The sandbox has mounts of its own, which are not the machine's; a collector succeeds or fails alike.
    for series in inside_has {
        if series.starts_with("node_filesystem_readonly")
            || series.starts_with("node_scrape_collector_success")
        {
            assert_eq!(inside.value(&series), outside.value(&series), "{series}");
        }
    }
    for collector in ["systemd", "logind", "processes", "tcpstat", "netdev", "filesystem"] {
        assert_eq!(inside.success(collector), Some(true), "{collector}");
    }
}

/// Stops the message bus for some scrapes: the journal of the running agent names it once a collector, and its return.
async fn bus_stands_still(machine: &Machine) {
    let signal = |signal: &str| {
        let status = machine.enter("systemctl").args(["kill", signal, "dbus.service"]).status();
        assert!(status.expect("nsenter starts").success());
    };
    let said = |words: &'static str| {
        let output = machine.enter("journalctl").args(["--unit=pegel-agent", "--output=cat"]).output();
        let journal = String::from_utf8_lossy(&output.expect("nsenter starts").stdout).into_owned();
        journal.lines().filter(|line| line.contains(words)).count()
    };
    signal("--signal=STOP");
    eventually("the bus is named", COLLECTED_WITHIN, || async { (said(NAMED) == 2).then_some(()) }).await;
    // Some scrapes more say nothing more.
    let_run(SCRAPES).await;
    assert_eq!(said(NAMED), 2);
    signal("--signal=CONT");
    eventually("both collectors work again", COLLECTED_WITHIN, || async {
        (said("the collector works again") == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_shipped_unit_runs_the_agent_and_keeps_what_it_collects() {
    let Some(machine) = machine().await else { return };
    let site = Site::new();
    let identity = AgentIdentity {
        tenant: TenantId::parse("tests").expect("a name"),
        node: NodeId::parse("machine").expect("a name"),
    };
    let files = site.authority().issue_agent(&identity, DEFAULT_LEAF_LIFETIME, Existing::Refuse);
    let files = files.expect("a certificate");
    for (name, file) in [
        ("agent.pem", &files.cert),
        ("agent.key", &files.key),
        ("ca.pem", &site.authority().certificate_path()),
    ] {
        machine.write(&format!("/etc/pegel/{name}"), &std::fs::read(file).expect("a file"));
    }
    // Nobody listens at the aggregator's address: what is collected goes to the buffer in the state directory.
    let config = format!(
        "aggregator: {{addresses: [\"127.0.0.1:4646\"], ca_file: /etc/pegel/ca.pem, cert_file: /etc/pegel/agent.pem, key_file: /etc/pegel/agent.key}}\n\
         state_dir: /var/lib/pegel-agent\nadmin: {{listen: \"127.0.0.1:4647\"}}\nhost: {{interval: 1s, {HOST}}}\n"
    );
    machine.write("/etc/pegel/agent.yaml", config.as_bytes());
    machine.run("chown -R pegel:pegel /etc/pegel && systemctl start pegel-agent.service").await;
    let status = "exec 3<>/dev/tcp/127.0.0.1/4647 && printf 'GET /api/v1/status HTTP/1.0\\r\\nHost: 127.0.0.1\\r\\n\\r\\n' >&3 && cat <&3";
    eventually("the agent has put something into its buffer", COLLECTED_WITHIN, || async {
        let answer = machine.attempt(status).await;
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        let status: serde_json::Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
        (status["books"][0]["spooled"].as_u64()? > 500).then_some(())
    })
    .await;
    bus_stands_still(&machine).await;
    let user =
        machine.run("ps -o user= -p $(systemctl show --property=MainPID --value pegel-agent.service)").await;
    assert_eq!(user.trim(), "pegel");
    machine.run("systemctl reload pegel-agent.service && systemctl stop pegel-agent.service").await;
    let result = machine.run("systemctl show --property=Result,NRestarts pegel-agent.service").await;
    assert!(result.contains("Result=success") && result.contains("NRestarts=0"), "{result}");
}
