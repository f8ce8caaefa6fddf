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
            let labels = labels.split_inclusive("\",").map(|l| l.trim_end_matches(','));
            // An empty label is none.
            let mut labels: Vec<&str> = labels.filter(|label| !label.ends_with("=\"\"")).collect();
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
    agrees_with(name, &[], |_| {});
}

/// As [`agrees_on`], with options of node_exporter and ours.
fn agrees_with(name: &str, more: &[&str], change: impl FnOnce(&mut Settings)) {
    // The rest is asked of the running kernel.
    let asked = [
        CollectorKind::Filesystem,
        CollectorKind::Logind,
        CollectorKind::NetworkRoute,
        CollectorKind::Qdisc,
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
    arguments.extend(more.iter().map(ToString::to_string));
    std::fs::create_dir_all(tree.dir.path().join("sys")).unwrap();
    let Some((_running, port)) = started(&collectors, &arguments) else { return };
    let (theirs, their_types) = parsed(&scrape(port).unwrap());
    let mut settings = Settings { collectors, ..tree.settings() };
    change(&mut settings);
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

fn parameter(name: &str, fields: &[&str], info: bool) -> Sysctl {
    Sysctl { name: name.into(), fields: fields.iter().map(ToString::to_string).collect(), info }
}

#[test]
fn with_options_every_value_is_node_exporters() {
    let pattern = |text| Some(Pattern::parse(text).unwrap());
    let arguments = [
        "--collector.cpu.info",
        "--collector.cpu.info.flags-include=^(aes|avx.?|constant_tsc)$",
        "--collector.cpu.info.bugs-include=^(cpu_meltdown|spectre_.*|mds)$",
        "--collector.netdev.label-ifalias",
        "--collector.netdev.enable-detailed-metrics",
        "--collector.netdev.device-include=^veth01$",
        "--collector.arp.device-include=^veth0[0-2]$",
        "--collector.ipvs.backend-labels=local_address,proto",
        "--collector.interrupts.name-exclude=^LOC",
        "--no-collector.interrupts.include-zeros",
        "--collector.sysctl.include=vm.swappiness",
        "--collector.sysctl.include=net.ipv4.tcp_rmem:min,default,max",
        "--collector.sysctl.include=net.ipv4.ip_local_port_range",
        "--collector.sysctl.include=kernel.sched_rt_runtime_us",
        "--collector.sysctl.include-info=kernel.seccomp.actions_avail",
        "--collector.stat.softirq",
    ];
    agrees_with("router", &arguments, |settings| {
        settings.cpu_info = true;
        settings.cpu_flags = pattern("^(aes|avx.?|constant_tsc)$");
        settings.cpu_bugs = pattern("^(cpu_meltdown|spectre_.*|mds)$");
        settings.netdev_ifalias = true;
        settings.netdev_detailed = true;
        // With a label that only some interfaces have, node_exporter panics.
        settings.netdev_devices = Filter { include: pattern("^veth01$"), exclude: None };
        settings.arp_devices = Filter { include: pattern("^veth0[0-2]$"), exclude: None };
        settings.ipvs_backend_labels = vec![BackendLabel::LocalAddress, BackendLabel::Proto];
        settings.interrupts = Filter { include: None, exclude: pattern("^LOC") };
        settings.interrupts_zeros = false;
        settings.sysctls = vec![
            parameter("vm.swappiness", &[], false),
            parameter("net.ipv4.tcp_rmem", &["min", "default", "max"], false),
            parameter("net.ipv4.ip_local_port_range", &[], false),
            parameter("kernel.sched_rt_runtime_us", &[], false),
            parameter("kernel.seccomp.actions_avail", &[], true),
        ];
        settings.stat_softirq = true;
    });
}

#[test]
fn options_of_devices_choose_what_node_exporters_do() {
    let options = [
        "--collector.netclass.ignored-devices=^(veth.*|lo)$",
        "--collector.netclass.ignore-invalid-speed",
        "--collector.hwmon.chip-exclude=^platform_twin",
        "--collector.hwmon.sensor-exclude=;(temp2|fan.*)$",
        "--collector.rapl.enable-zone-label",
        "--collector.bcache.priorityStats",
        "--collector.tapestats.ignored-devices=^st1$",
        "--collector.infiniband.device-include=^mlx",
        "--collector.slabinfo.slabs-include=^kmalloc",
    ];
    let pattern = |text| Pattern::parse(text).unwrap();
    agrees_with("server", &options, |settings| {
        settings.netclass_devices = Filter::excluding(pattern("^(veth.*|lo)$"));
        settings.netclass_ignore_invalid_speed = true;
        settings.hwmon_chips = Filter::excluding(pattern("^platform_twin"));
        settings.hwmon_sensors = Filter::excluding(pattern(";(temp2|fan.*)$"));
        settings.rapl_zone_label = true;
        settings.bcache_priority_stats = true;
        settings.tapes = Filter::excluding(pattern("^st1$"));
        settings.infiniband_devices = Filter::including(pattern("^mlx"));
        settings.slabs = Filter::including(pattern("^kmalloc"));
    });
    agrees_with("arm64", &["--collector.powersupply.ignored-supplies=^dc"], |settings| {
        settings.power_supplies = Filter::excluding(pattern("^dc"));
    });
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
    agrees_live(&[], Settings { collectors, ..Settings::default() });
}

#[test]
fn on_this_machine_options_change_what_node_exporters_do() {
    let collectors = vec![CollectorKind::Cpu, CollectorKind::Netdev, CollectorKind::Sysctl];
    let arguments = [
        "--collector.cpu.info",
        "--collector.cpu.info.flags-include=.",
        "--collector.netdev.address-info",
        "--collector.netdev.enable-detailed-metrics",
        "--collector.sysctl.include=net.ipv4.tcp_mem",
    ];
    let settings = Settings {
        cpu_info: true,
        cpu_flags: Some(Pattern::parse(".").unwrap()),
        netdev_addresses: true,
        netdev_detailed: true,
        sysctls: vec![parameter("net.ipv4.tcp_mem", &[], false)],
        collectors,
        ..Settings::default()
    };
    agrees_live(&arguments, settings);
}

/// Both read the running kernel.
fn agrees_live(arguments: &[&str], settings: Settings) {
    let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
    let Some((_running, port)) = started(&settings.collectors, &arguments) else { return };
    let mut ours = source(settings, KernelSystem::new());
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

/// Textfiles, sound and not, as both see them: which are taken, and what of those that disagree.
#[test]
fn textfiles_are_taken_as_node_exporter_takes_them() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        (
            "1.prom",
            "# HELP a_seconds A.\n# TYPE a_seconds gauge\na_seconds{x=\"1\"} 1.5\na_seconds{y=\"2\"} NaN\n",
        ),
        ("2.prom", "no_help_or_type 7\nb_total{q=\"a\\\"b\\\\c\\n\"} 1e3\n"),
        (
            "3.prom",
            "# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 3\nh_sum 4.5\nh_count 3\n",
        ),
        ("4.prom", "# TYPE s summary\ns{quantile=\"0.5\"} 2\ns_sum 6\ns_count 3\n"),
        ("another_help.prom", "# HELP a_seconds Other.\n# TYPE a_seconds gauge\na_seconds{x=\"3\"} 1\nc 1\n"),
        ("another_type.prom", "# HELP a_seconds A.\n# TYPE a_seconds counter\na_seconds{x=\"4\"} 1\nd 1\n"),
        ("bad_line.prom", "e 1\ne{ 2\n"),
        ("bad_stamp.prom", "f 1\nf2 1 1700000000000\n"),
        ("cut_off.prom", "g 1\ng2 23"),
        ("empty.prom", ""),
        ("type_late.prom", "i 1\n# TYPE i gauge\n"),
        ("two_helps.prom", "# HELP j J.\n# HELP j K.\nj 1\n"),
        ("quoted.prom", "{\"k.k\"} 1\n"),
        ("twice.prom", "l 1\nl 2\n"),
        ("same.prom", "no_help_or_type{again=\"1\"} 7\n"),
        ("comment.prom", "# a comment\n\n  m 1\n"),
        ("not_read.txt", "n 1\n"),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let flag = format!("--collector.textfile.directory={}", dir.path().display());
    let Some((_running, port)) = started(&[CollectorKind::Textfile], &[flag]) else { return };
    let settings = Settings {
        collectors: vec![CollectorKind::Textfile],
        textfile_directories: vec![dir.path().display().to_string()],
        ..Settings::default()
    };
    let text = source(settings, KernelSystem::new()).once();
    let compared = |text: &str| -> BTreeMap<String, String> {
        let own = |name: &str| !ignored(name) && !name.contains("duration_seconds{collector");
        // A label without a value is none.
        let plain = |name: String| {
            name.replace("x=\"\",", "")
                .replace("y=\"\"", "")
                .replace("x=\"\"", "")
                .replace(",again=\"\"", "")
                .replace("again=\"\"", "")
                .replace(",}", "}")
        };
        parsed(text)
            .0
            .into_iter()
            .filter(|(name, _)| own(name))
            .map(|(name, value)| (plain(name), value.to_string()))
            .collect()
    };
    let (found, theirs) = (compared(&text), compared(&scrape(port).unwrap()));
    let wrong: Vec<_> =
        found.keys().chain(theirs.keys()).filter(|key| found.get(*key) != theirs.get(*key)).collect();
    let words =
        wrong.iter().map(|key| format!("{key}: {:?} here, {:?} there\n", found.get(*key), theirs.get(*key)));
    assert!(wrong.is_empty(), "{}", words.collect::<String>());
}
