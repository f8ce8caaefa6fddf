use super::*;
use crate::source::container::{RuntimeKind, runtime};
use pegel_runtime::config::{Flag, golden};
use std::path::Path as FsPath;

fn here(path: &str) -> PathBuf {
    FsPath::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn identity() -> Vec<Flag> {
    vec![
        Flag::list("--aggregator", "aggregator.addresses", vec!["aggregator.example:4433".to_owned()]),
        Flag::one("--ca", "aggregator.ca_file", "ca.pem"),
        Flag::one("--cert", "aggregator.cert_file", "agent.pem"),
        Flag::one("--key", "aggregator.key_file", "agent.key"),
    ]
}

fn read(text: &str) -> Result<Loaded<Settings>, BadConfig> {
    let input = Input { check_files: false, ..Input::new(None, identity()) };
    pegel_runtime::config::load_text("agent.yaml".to_owned(), text, &input, |raw: &RawAgent, mistakes| {
        raw.resolve(Purpose::Run, mistakes)
    })
}

#[test]
fn an_address_and_a_certificate_are_enough() {
    let loaded = read("").unwrap();
    assert_eq!(loaded.warnings, []);
    let settings = loaded.settings;
    assert_eq!(settings.uplink.uplink.aggregators, ["aggregator.example:4433"]);
    assert_eq!(settings.uplink.tls.key, FsPath::new("agent.key"));
    let host = settings.host.expect("the host is read by default");
    assert_eq!(host.interval, Duration::from_secs(15));
    assert!(host.collectors.iter().all(|kind| kind.on_by_default()) && host.collectors.len() > 20);
    assert!(settings.admin.listen.ip().is_loopback());
    assert_eq!(settings.buffer.delivery.linger, Duration::from_secs(1));
}

#[test]
fn a_full_file_is_resolved() {
    let settings = read(include_str!("testdata/full.yaml")).unwrap_or_else(|bad| panic!("{bad}")).settings;
    assert_eq!(settings.external_labels.value("site"), Some("hall-3"));
    let host = settings.host.unwrap();
    assert!(!host.collectors.contains(&source::host::CollectorKind::Netstat));
    let own = source::host::CollectorKind::Filesystem;
    assert_eq!((host.intervals[&own], host.timeouts[&own]), (Duration::from_mins(1), Duration::from_secs(5)));
    assert_eq!((host.intervals.len(), host.timeouts.len(), host.cpu_guest), (2, 1, false));
    assert!(!host.mount_points.passes("/boot/efi") && host.mount_points.passes("/proc"));
    assert!(host.disk_devices.passes("sda") && !host.disk_devices.passes("sda1"));
    assert!(host.netdev_devices.passes("eth0") && !host.netdev_devices.passes("lo"));
    let target = host.labels.target(&[("instance", "this-machine")], &settings.external_labels);
    let agent = format!("{}-agent", rustix::system::uname().nodename().to_string_lossy());
    let target: Vec<_> = target.iter().collect();
    assert_eq!(target, [("instance", "web-1"), ("job", "node-exporter"), ("pod", &agent)]);
    let runtimes =
        settings.containers.and_then(|containers| containers.runtimes).expect("runtimes are asked");
    let crio = runtime::Socket { kind: RuntimeKind::CriO, path: "/run/crio/crio.sock".into() };
    assert_eq!(runtimes.sockets, runtime::Sockets::These(vec![crio]));
    assert_eq!(
        (&*runtimes.env, runtimes.writable_size_interval.is_some()),
        (&["APP_VERSION".into()][..], true)
    );
    let job = &settings.scrape.jobs[0];
    assert_eq!((job.interval, job.timeout), (Duration::from_secs(5), Duration::from_secs(5)));
    assert_eq!(job.targets.len(), 2);
    assert!(matches!(job.auth, Some(source::scrape::settings::Auth::Bearer(_))));
    let checks = &settings.probes.checks;
    assert_eq!((checks.len(), checks[0].retries, checks[0].maintenance.len()), (2, 1, 1));
    assert!(checks[1].maintenance.is_empty() && checks[1].kind.name() == "tcp");
    let spool = &settings.buffer.spool;
    assert_eq!((spool.quota_bytes, spool.when_full), (2 << 30, crate::spool::WhenFull::Wait));
    assert_eq!(spool.dir, FsPath::new("/var/lib/pegel-agent/spool"));
    assert!(settings.buffer.delivery.keep_oldest);
}

#[test]
fn collecting_once_needs_no_aggregator() {
    let input = Input { check_files: false, ..Input::new(None, Vec::new()) };
    assert!(load_settings(&input, Purpose::Collect).is_ok());
    let bad = load_settings(&input, Purpose::Run).unwrap_err();
    assert_eq!(bad.mistakes.len(), 4, "{bad}");
}

#[test]
fn a_file_that_is_not_there_is_a_mistake_when_files_are_looked_at() {
    let bad = load_settings(&Input::new(None, identity()), Purpose::Run).unwrap_err().to_string();
    assert!(bad.contains("--cert: `agent.pem` cannot be opened"), "{bad}");
}

#[test]
fn the_defaults_are_those_of_the_modules() {
    let settings = read("").unwrap().settings;
    let host = source::host::Settings::default();
    assert_eq!(format!("{:?}", settings.host.unwrap()), format!("{host:?}"));
    assert_eq!(settings.scrape, source::scrape::settings::Settings::default());
    let text = "scrape: {jobs: [{name: a, targets: [a:1]}]}";
    let mut job = source::scrape::settings::Job::new("a");
    job.targets =
        vec![source::scrape::settings::TargetGroup { targets: vec!["a:1".into()], labels: Vec::new() }];
    assert_eq!(read(text).unwrap().settings.scrape.jobs, [job]);
    let state_dir = Some("/var/lib/pegel-agent".into());
    let probes =
        source::probe::settings::Settings { state_dir, ..source::probe::settings::Settings::default() };
    assert_eq!(settings.probes, probes);
    let text = "probes: {checks: [{name: a, kind: http, targets: [a]}]}";
    let kind = source::probe::kinds::Kind::Http(Box::default());
    let mut check = source::probe::settings::Check::new("a", kind);
    check.targets =
        vec![source::scrape::settings::TargetGroup { targets: vec!["a".into()], labels: Vec::new() }];
    assert_eq!(read(text).unwrap().settings.probes.checks, [check]);
    let spool = crate::spool::Settings::new("/var/lib/pegel-agent/spool");
    assert_eq!(format!("{:?}", settings.buffer.spool), format!("{spool:?}"));
    let delivery = crate::pipeline::effect::Settings::default();
    assert_eq!(format!("{:?}", settings.buffer.delivery), format!("{delivery:?}"));
}

#[test]
fn every_collector_can_be_named() {
    for kind in source::host::CollectorKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
}

#[test]
fn any_text_gives_settings_or_mistakes() {
    for file in std::fs::read_dir(here("src/config/testdata/bad")).unwrap() {
        let mut bytes = std::fs::read(file.unwrap().path()).unwrap();
        fuzz(&bytes);
        for cut in (0..bytes.len()).step_by(7) {
            fuzz(&bytes[cut..]);
            bytes[cut] = b':';
            fuzz(&bytes);
        }
    }
}

#[test]
fn every_rule_has_its_message() {
    golden::compare_mistakes(&here("src/config/testdata/bad"), |input| load_settings(input, Purpose::Run));
}

#[test]
fn the_reference_is_up_to_date() {
    golden::compare_reference::<RawAgent>(&here("../docs/reference"), "agent", "pegel-agent");
}
