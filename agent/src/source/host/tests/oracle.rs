//! A real node_exporter on the same machine, at the same time.

use super::*;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The exporter to compare with: `PEGEL_NODE_EXPORTER`, or the one that the test suite keeps.
fn exporter() -> Option<PathBuf> {
    let kept = || {
        let home = std::env::var_os("HOME")?;
        Some(Path::new(&home).join(".cache/pegel-tests/node_exporter-1.12.1/node_exporter"))
    };
    let path = std::env::var_os("PEGEL_NODE_EXPORTER").map(PathBuf::from).or_else(kept)?;
    path.is_file().then_some(path)
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn scrape(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// An exposition's samples by series with sorted labels, and its types by family.
fn parsed(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let (mut samples, mut types) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            types.insert(name.to_owned(), kind.to_owned());
        } else if !line.starts_with('#')
            && let Some((series, value)) = line.rsplit_once(' ')
        {
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.trim_end_matches('}');
            let mut labels: Vec<&str> =
                labels.split_inclusive("\",").map(|l| l.trim_end_matches(',')).collect();
            labels.sort_unstable();
            samples.insert(format!("{name}{{{}}}", labels.join(",")), value.parse().unwrap());
        }
    }
    (samples, types)
}

/// Values that stand still between two scrapes a moment apart.
fn stands_still(series: &str) -> bool {
    [
        "node_boot_time",
        "node_uname",
        "node_memory_MemTotal",
        "node_filesystem_size",
        "node_filesystem_readonly",
        "node_filesystem_files{",
        "node_filesystem_device_error",
        "node_disk_info",
        "node_time_zone",
        "node_time_clock",
        "node_filefd_maximum",
        "node_scrape_collector_success",
        "node_filesystem_mount_info",
        "node_memory_SwapTotal",
        "node_memory_HugePages",
        "node_memory_VmallocTotal",
        "node_netstat_Ip_Forwarding",
    ]
    .iter()
    .any(|prefix| series.starts_with(prefix))
}

/// Starts the exporter with these collectors and arguments; none, and words why, if there is none.
fn started(collectors: &[CollectorKind], arguments: &[String]) -> Option<(Running, u16)> {
    let Some(exporter) = exporter() else {
        println!("skipped: no node_exporter; set PEGEL_NODE_EXPORTER to the path of version 1.12");
        return None;
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(exporter);
    command.args(["--collector.disable-defaults", "--web.disable-exporter-metrics"]);
    command.arg(format!("--web.listen-address=127.0.0.1:{port}")).args(arguments);
    command.args(collectors.iter().map(|kind| format!("--collector.{}", kind.name())));
    let running = Running(command.stderr(Stdio::null()).spawn().unwrap());
    eventually(|| scrape(port).is_ok());
    Some((running, port))
}

/// Both read the same recorded tree: every value is the same to the last bit.
fn agrees_on(name: &str) {
    // The rest is asked of the running kernel.
    let asked = [
        CollectorKind::Filesystem,
        CollectorKind::Logind,
        CollectorKind::Selinux,
        CollectorKind::Systemd,
        CollectorKind::Tcpstat,
        CollectorKind::Time,
        CollectorKind::Timex,
        CollectorKind::Uname,
    ];
    let collectors: Vec<_> =
        CollectorKind::ALL.iter().copied().filter(|kind| !asked.contains(kind)).collect();
    let tree = Tree::recorded(name);
    let at = |flag: &str, dir: &str| format!("--path.{flag}={}", tree.dir.path().join(dir).display());
    let mut arguments =
        vec![at("procfs", "proc"), at("sysfs", "sys"), at("rootfs", "root"), at("udev.data", "udev")];
    arguments.extend(["netdev", "arp"].map(|collector| format!("--no-collector.{collector}.netlink")));
    std::fs::create_dir_all(tree.dir.path().join("sys")).unwrap();
    let Some((_running, port)) = started(&collectors, &arguments) else { return };
    let (theirs, their_types) = parsed(&scrape(port).unwrap());
    let settings = Settings { collectors, ..tree.settings() };
    let (found, types) = parsed(&source(settings, FixedSystem::new()).once());
    let compared = |all: BTreeMap<String, f64>| -> BTreeMap<String, f64> {
        all.into_iter()
            .filter(|(name, _)| !ignored(name) && !name.contains("duration_seconds{collector"))
            .collect()
    };
    let (found, theirs) = (compared(found), compared(theirs));
    let wrong: Vec<_> =
        found.keys().chain(theirs.keys()).filter(|key| found.get(*key) != theirs.get(*key)).collect();
    let words =
        wrong.iter().map(|key| format!("{key}: {:?} here, {:?} there\n", found.get(*key), theirs.get(*key)));
    assert!(wrong.is_empty(), "{}", words.collect::<String>());
    let wrong: Vec<_> =
        types.iter().filter(|(n, kind)| !ignored(n) && their_types.get(*n) != Some(kind)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    println!("{} series of {name} agree with node_exporter", found.len());
}

#[test]
fn on_recorded_trees_every_value_is_node_exporters() {
    for tree in ["weird", "old", "kernel310", "nfs", "router", "server", "arm64", "tasks"] {
        agrees_on(tree);
    }
}

/// What is not compared: the exporter's own version and process, what the scraper adds, and where ksmd of the version after
/// 1.12.1 differs: it knows one file more, and does not fail where one is missing.
fn ignored(name: &str) -> bool {
    [
        "node_exporter_build_info",
        "process_",
        "up",
        "scrape_",
        "node_ksmd_general_profit_bytes",
        "node_scrape_collector_success{collector=\"ksmd\"",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

#[test]
fn on_this_machine_names_labels_types_and_values_are_node_exporters() {
    // What needs D-Bus, or counts what comes and goes between two scrapes, is compared where systemd runs.
    let elsewhere =
        [CollectorKind::Logind, CollectorKind::Processes, CollectorKind::Systemd, CollectorKind::Tcpstat];
    let collectors: Vec<_> =
        CollectorKind::ALL.iter().copied().filter(|kind| !elsewhere.contains(kind)).collect();
    let Some((_running, port)) = started(&collectors, &[]) else { return };
    let mut ours = source(Settings { collectors, ..Settings::default() }, KernelSystem::new());
    let before = parsed(&scrape(port).unwrap()).0;
    let (found, types) = parsed(&ours.once());
    let (theirs, their_types) = parsed(&scrape(port).unwrap());

    let names = |all: &BTreeMap<String, f64>| -> BTreeSet<String> {
        all.keys().filter(|name| !ignored(name)).cloned().collect()
    };
    let missing: Vec<_> = names(&theirs).difference(&names(&found)).cloned().collect();
    let added: Vec<_> = names(&found).difference(&names(&theirs)).cloned().collect();
    assert!(missing.is_empty() && added.is_empty(), "missing: {missing:#?}\nadded: {added:#?}");

    let mut wrong = Vec::new();
    for (name, kind) in &types {
        if !ignored(name) && their_types.get(name) != Some(kind) {
            wrong.push(format!("{name}: {kind} here, {:?} there", their_types.get(name)));
        }
    }
    for (series, value) in found.iter().filter(|(series, _)| !ignored(series)) {
        let (low, high) = (before[series], theirs[series]);
        let counter = types.get(series.split('{').next().unwrap()).is_some_and(|kind| kind == "counter");
        let fits = if stands_still(series) {
            *value == high
        } else {
            // A counter lies between two readings; a tick or a request may fall between two files' readings.
            !counter || (low - 0.02..=high + 0.02).contains(value)
        };
        if !fits {
            wrong.push(format!("{series}: {value} here, {low} before and {high} after there"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{} series of this machine agree with node_exporter", names(&found).len());
}
