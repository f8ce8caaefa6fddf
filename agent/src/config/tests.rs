use super::*;
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
    assert_eq!(settings.uplink.addresses, ["aggregator.example:4433"]);
    assert_eq!(settings.uplink.key_file, FsPath::new("agent.key"));
    let host = settings.host.expect("the host is read by default");
    assert_eq!((host.interval, host.collectors.len()), (Duration::from_secs(15), CollectorName::ALL.len()));
    assert!(settings.admin.listen.ip().is_loopback());
    assert_eq!(settings.buffer.linger, Duration::from_secs(1));
}

#[test]
fn a_full_file_is_resolved() {
    let settings = read(include_str!("testdata/full.yaml")).unwrap_or_else(|bad| panic!("{bad}")).settings;
    assert_eq!(settings.external_labels.value("site"), Some("hall-3"));
    let host = settings.host.unwrap();
    assert!(!host.collectors.contains(&CollectorName::Netstat));
    assert_eq!(host.mount_points.exclude.as_deref(), Some(&["/boot*".to_owned()][..]));
    let job = &settings.scrape.jobs[0];
    assert_eq!((job.interval, job.timeout), (Duration::from_secs(5), Duration::from_secs(5)));
    assert_eq!(job.targets.len(), 2);
    assert!(matches!(job.auth, Some(pegel_runtime::config::section::Auth::Bearer(_))));
    assert_eq!(settings.buffer.quota_bytes, 2 << 30);
    assert_eq!(settings.buffer.when_full_by_output[0].1, WhenFull::Wait);
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
fn every_rule_has_its_message() {
    golden::compare_mistakes(&here("src/config/testdata/bad"), |input| load_settings(input, Purpose::Run));
}

#[test]
fn the_reference_is_up_to_date() {
    golden::compare_reference::<RawAgent>(&here("../docs/reference"), "agent", "pegel-agent");
}
