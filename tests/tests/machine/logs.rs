//! A machine's journal in a real Loki: by the shipped unit with the configuration that packages install, while journald
//! rotates and both are killed; what was vacuumed and what is damaged is counted.

use pegel_proto::identity::{AgentIdentity, NodeId, TenantId};
use pegel_runtime::pki::{DEFAULT_LEAF_LIFETIME, Existing};
use pegel_tests::http::{get, get_json};
use pegel_tests::loki::Loki;
use pegel_tests::machine::{Cgroups, Machine, MachineSetup};
use pegel_tests::pegel::{AgentSetup, Aggregator, Site};
use pegel_tests::{eventually, let_run, rounds, seed, workspace};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::{Duration, Instant};

/// How long something may take to arrive on a busy machine.
const SOON: Duration = Duration::from_secs(60);

const LIMITS: &str =
    "ingestion_rate_mb: 500\ningestion_burst_size_mb: 500\nmax_entries_limit_per_query: 1000000\n";

/// Where journald keeps the journal of a machine with a lasting one.
const LASTING: &str = "mkdir -p /var/log/journal && systemd-tmpfiles --create --prefix /var/log/journal
     systemctl restart systemd-journald && journalctl --flush";

/// Kills journald and waits until it is there again.
const KILL_JOURNALD: &str =
    "systemctl kill --signal=KILL systemd-journald; systemctl reset-failed systemd-journald
     for t in $(seq 100); do systemctl is-active -q systemd-journald && exit 0; sleep 0.1; done; exit 1";

struct World {
    machine: Machine,
    loki: Loki,
    _aggregator: Aggregator,
    _site: Site,
}

impl World {
    /// The shipped unit with the packaged configuration, but for its addresses and what `journal` says.
    async fn start(journal: &str) -> Option<Self> {
        let setup = MachineSetup::new(Cgroups::V2).host_network().program("pegel-agent");
        let machine = Machine::boot(setup).await?;
        let site = Site::new();
        let loki = Loki::start(&site.dir().join("loki"), LIMITS).await?;
        let outputs = format!(
            "outputs:\n  - {{type: loki, name: loki, url: \"{0}\", query_url: \"{0}\"}}\n",
            loki.url()
        );
        let aggregator = site.aggregator_with("one", &outputs).await;
        let of = |path: &str| std::fs::read(workspace().join(path)).expect("it is shipped");
        machine.write("/etc/systemd/system/pegel-agent.service", &of("systemd/pegel-agent.service"));
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
        let packaged = String::from_utf8(of("packaging/agent.yaml")).expect("text");
        let changed = packaged
            .replace("aggregator.example:4433", &aggregator.address().to_string())
            .replace("journal: {}", &format!("journal: {{{journal}}}"));
        assert_ne!(changed, packaged);
        let admin = "admin: {listen: \"127.0.0.1:0\", address_file: /var/lib/pegel-agent/admin.address}\n";
        machine.write("/etc/pegel/agent.yaml", (changed + admin).as_bytes());
        if journal.contains("journalctl") {
            // This kind of machine has a boot of its own by a mount, which the sandbox hides: journalctl would look for
            // entries of the host's boot.
            let path = "/etc/systemd/system/pegel-agent.service.d/boot.conf";
            machine.write(path, b"[Service]\nProtectKernelTunables=no\n");
        }
        machine.run(LASTING).await;
        machine
            .run("useradd --system --user-group pegel; chown -R pegel:pegel /etc/pegel; systemctl daemon-reload; systemctl start pegel-agent")
            .await;
        Some(Self { machine, loki, _aggregator: aggregator, _site: site })
    }

    fn admin(&self, path: &str) -> String {
        let file = format!("/proc/{}/root/var/lib/pegel-agent/admin.address", self.machine.leader());
        format!("http://{}{path}", std::fs::read_to_string(file).unwrap_or_default().trim())
    }

    async fn status(&self) -> Option<serde_json::Value> {
        let status = get_json(&self.admin("/api/v1/status")).await?;
        Some(status["logs"]["journals"][0].clone())
    }

    /// The lines of a selector that begin so, in Loki's order.
    async fn arrived(&self, selector: &str, begins: &str) -> Vec<String> {
        let mut entries: Vec<(i64, String)> =
            self.loki.entries(selector, "tests").await.into_values().flatten().collect();
        entries.sort();
        entries.into_iter().map(|(_, line)| line).filter(|line| line.starts_with(begins)).collect()
    }

    /// What journalctl has of it.
    async fn written(&self, options: &str, begins: &str) -> Vec<String> {
        let all = self.machine.run(&format!("journalctl --no-pager --quiet --output=cat {options}")).await;
        all.lines().filter(|line| line.starts_with(begins)).map(str::to_owned).collect()
    }

    /// Waits until Loki has what journalctl has, and compares both.
    async fn same(&self, options: &str, selector: &str, begins: &str) -> usize {
        let written = self.written(options, begins).await;
        eventually(&format!("Loki has {} lines of {selector}", written.len()), 2 * SOON, || async {
            (self.arrived(selector, begins).await.len() >= written.len()).then_some(())
        })
        .await;
        // What comes twice comes soon.
        let_run(Duration::from_secs(1)).await;
        let arrived = self.arrived(selector, begins).await;
        for (nth, (arrived, written)) in arrived.iter().zip(&written).enumerate() {
            assert_eq!(arrived, written, "line {nth} of {selector}");
        }
        assert_eq!(arrived.len(), written.len(), "{selector}");
        written.len()
    }
}

/// A storm of rotations and kills over a writer of numbered entries.
async fn storm(journal: &str, reader: &str, short: usize) -> Option<World> {
    let mut rng = StdRng::seed_from_u64(seed());
    let world = World::start(journal).await?;
    let machine = &world.machine;
    machine
        .run(
            "systemd-run --quiet --unit=oracle sh -c 'i=0; while [ ! -e /shared/stop ]; do echo \"entry $i\"; i=$((i+1)); sleep 0.005; done'",
        )
        .await;
    let deadline = Instant::now() + SOON;
    loop {
        let status = world.status().await.unwrap_or_default();
        if status["reader"] == reader && status["cursor"].is_string() {
            break;
        }
        if Instant::now() > deadline {
            let said =
                machine.run("journalctl --no-pager --unit=pegel-agent | tail -30; ps ax | tail -20").await;
            panic!("the journal is not read: {status:#}\n{said}");
        }
        let_run(Duration::from_millis(100)).await;
    }
    for round in 0..rounds("PEGEL_JOURNAL_ROUNDS", short) {
        let_run(Duration::from_millis(rng.random_range(300..1_500))).await;
        match round % 3 {
            0 => drop(machine.run("journalctl --rotate").await),
            1 => drop(machine.run("systemctl kill --signal=KILL pegel-agent").await),
            _ => drop(machine.run(KILL_JOURNALD).await),
        }
        // A killed agent is started again after two seconds; one kill too many in ten would be the last.
        if round % 3 == 1 {
            machine.run("for t in $(seq 100); do systemctl is-active -q pegel-agent && exit 0; sleep 0.1; done; exit 1").await;
        }
    }
    std::fs::write(machine.shared().join("stop"), "").expect("a file");
    machine.run("while systemctl is-active -q oracle; do sleep 0.05; done").await;
    let lines = world.same("--unit=oracle", "{unit=\"oracle.service\"}", "entry ").await;
    assert!(lines > 500, "{lines}");
    println!("{lines} entries by {reader}");
    let user = machine.run("ps -o user= -p $(systemctl show --property=MainPID --value pegel-agent)").await;
    assert_eq!(user.trim(), "pegel");
    Some(world)
}

/// The sequence number in a cursor.
fn number_in(cursor: &str) -> u64 {
    let number = cursor.split(';').find_map(|part| part.strip_prefix("i=")).expect("a cursor has a number");
    u64::from_str_radix(number, 16).expect("hexadecimal")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_entry_arrives_once_across_rotations_and_kills_and_what_was_vacuumed_is_counted() {
    let Some(world) = storm("", "files", 8).await else { return };
    let machine = &world.machine;
    let status = world.status().await.expect("the agent answers");
    let behind = number_in(status["cursor"].as_str().expect("a cursor"));
    machine.run("systemctl stop pegel-agent").await;
    let write = "for r in 1 2 3 4; do for i in $(seq 200); do echo \"vacuum $r $i $(head -c 400 /dev/zero | tr '\\0' x)\"; done | systemd-cat -t vacuum; journalctl --rotate; done";
    machine.run(write).await;
    let before = world.written("-t vacuum", "vacuum ").await.len() as u64;
    machine.run("journalctl --rotate --vacuum-files=1; logger -t vacuum 'vacuum last'").await;
    let left = world.written("-t vacuum", "vacuum ").await.len() as u64 - 1;
    let oldest = machine.run("journalctl --no-pager --output=export | grep -a -m 1 ^__CURSOR=").await;
    machine.run("systemctl start pegel-agent").await;
    world.same("-t vacuum", "{identifier=\"vacuum\"}", "vacuum ").await;
    let metrics = get(&world.admin("/metrics")).await.expect("the agent answers");
    let name = "pegel_log_journal_vacuumed_entries_total{input=\"journal\"} ";
    let counted = metrics.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok());
    let counted = counted.expect("it is counted") as u64;
    // Units write as well, and the agent's last place lies somewhat behind the one of its last status.
    let (least, most) = (before - left, number_in(oldest.trim()) - behind - 1);
    println!("{counted} entries were vacuumed, {least} of them ours; at most {most}");
    assert!(least > 0 && (least..=most).contains(&counted), "{least} <= {counted} <= {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_of_the_journal_cost_what_is_damaged_and_the_rest_arrives() {
    let mut rng = StdRng::seed_from_u64(seed());
    let Some(machine) = Machine::boot(MachineSetup::new(Cgroups::V2)).await else { return };
    let site = Site::new();
    let Some(loki) = Loki::start(&site.dir().join("loki"), LIMITS).await else { return };
    machine.run(LASTING).await;
    let script = "journalctl --rotate --vacuum-time=1us
         for f in flipped short whole later; do
           for i in $(seq 300); do echo \"$f $i\"; done | systemd-cat -t oracle; journalctl --sync; journalctl --rotate
           mkdir -p /shared/files; mv $(ls -t /var/log/journal/*/system@* | head -1) /shared/files/$f.journal
         done
         for f in flipped short whole later; do journalctl --file=/shared/files/$f.journal --output=export | grep -a -c ^__CURSOR=; done
         chmod -R a+rwX /shared/files";
    let told = machine.run(script).await;
    let entries: Vec<u64> = told.lines().filter_map(|line| line.trim().parse().ok()).collect();
    let [flipped, short, whole, later] = entries[..] else { panic!("{told}") };
    let (files, dir) = (machine.shared().join("files"), site.dir().join("journal"));
    std::fs::create_dir(&dir).expect("a directory");
    let put = |name: &str, bytes: &[u8]| {
        // At once, as journald's own rename does.
        let new = site.dir().join("new");
        std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, dir.join(name))).expect("a file");
    };
    let of = |name: &str| std::fs::read(files.join(name)).expect("a journal file");
    let mut bytes = of("flipped.journal");
    let used = used_bytes(&bytes);
    for _ in 0..40 {
        let at = rng.random_range(used / 4..used);
        bytes[at] ^= 1 << rng.random_range(0..8);
    }
    put("flipped.journal", &bytes);
    let bytes = of("short.journal");
    put("short.journal", &bytes[..used_bytes(&bytes) * 6 / 10]);
    put("whole.journal", &of("whole.journal"));

    let outputs = format!("outputs:\n  - {{type: loki, name: loki, url: \"{}\"}}\n", loki.url());
    let aggregator = site.aggregator_with("one", &outputs).await;
    let logs = format!(
        "{{inputs: [{{name: journal, journal: {{directory: {}, start: beginning, reader: files}}}}]}}",
        dir.display()
    );
    let mut agent = site.agent(
        "web-1",
        &[aggregator.address()],
        AgentSetup { logs: Some(logs), ..AgentSetup::default() },
    );
    agent.start().await;
    let arrive = async |name: &str| {
        eventually(&format!("all of {name} is in Loki"), SOON, || async {
            let selector = format!("{{identifier=\"oracle\"}} |~ \"^{name} \"");
            (loki.count(&selector, "tests").await == 300).then_some(())
        })
        .await;
    };
    arrive("whole").await;
    put("later.journal", &of("later.journal"));
    arrive("later").await;
    let status = agent.status().await.expect("the agent answers");
    assert!(
        status["logs"]["journals"][0]["set_aside"].as_str().is_some_and(|s| s.contains(".journal")),
        "{status:#}"
    );
    let total = flipped + short + whole + later;
    let accounted = eventually("each entry arrived or is counted", SOON, || async {
        let metrics = agent.metrics().await?;
        let counted = |name: &str| {
            let name = format!("pegel_log_journal_{name}_entries_total{{input=\"journal\"}} ");
            metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok()).unwrap_or(0.0)
                as u64
        };
        let books = agent.books_of("logs").await?;
        let (damaged, without) = (counted("damaged"), counted("without_message"));
        println!("{} collected, {damaged} damaged, {without} without a message, of {total}", books.collected);
        (books.collected + damaged + without >= total).then_some((books.collected, damaged, without))
    })
    .await;
    assert_eq!(accounted.0 + accounted.1 + accounted.2, total, "{accounted:?}");
    assert!(accounted.1 > 50 && accounted.0 >= whole + later + short / 4, "{accounted:?} of {entries:?}");
}

/// How many bytes of a journal file are used: its header and its arena up to the tail object.
fn used_bytes(bytes: &[u8]) -> usize {
    let number = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("a header")) as usize;
    // header_size, arena_size, tail_object_offset
    let tail = number(136);
    (tail + number(tail + 8)).min(number(88) + number(96)).min(bytes.len())
}
