use super::*;
use crate::output::remote_write;
use pegel_runtime::config::{Flag, golden};
use std::path::Path as FsPath;

fn here(path: &str) -> PathBuf {
    FsPath::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(text: &str) -> Result<Loaded<Settings>, BadConfig> {
    let flags = vec![
        Flag::one("--ca", "tls.client_ca_file", "ca.pem"),
        Flag::one("--cert", "tls.cert_file", "aggregator.pem"),
        Flag::one("--key", "tls.key_file", "aggregator.key"),
    ];
    let input = Input { check_files: false, ..Input::new(None, flags) };
    pegel_runtime::config::load_text("aggregator.yaml".to_owned(), text, &input, RawAggregator::resolve)
}

#[test]
fn certificates_are_enough_and_the_missing_output_is_mentioned() {
    let loaded = read("").unwrap();
    assert!(loaded.settings.outputs.is_empty() && loaded.settings.node_up.is_some());
    assert!(loaded.warnings[0].to_string().contains("data is kept in memory only"), "{:?}", loaded.warnings);
}

#[test]
fn a_full_file_is_resolved() {
    let loaded = read(include_str!("testdata/full.yaml")).unwrap_or_else(|bad| panic!("{bad}"));
    assert_eq!(loaded.warnings, []);
    let settings = loaded.settings;
    let OutputSettings::RemoteWrite(output) = &settings.outputs[0] else { panic!() };
    assert_eq!((output.name.as_str(), output.protocol), ("prometheus", remote_write::Protocol::V1));
    assert_eq!(output.out_of_order_window, Duration::from_hours(30));
    assert_eq!(output.tenant_header.as_ref().unwrap(), "x-scope-orgid");
    assert_eq!((output.headers.len(), output.max_request_samples), (1, 2_000));
    let OutputSettings::Loki(logs) = &settings.outputs[1] else { panic!() };
    assert_eq!((logs.url.path(), logs.max_request_bytes), ("/loki/api/v1/push", 1 << 20));
    assert!(logs.query_url.is_some() && logs.tenant_header.as_ref().unwrap() == "x-scope-orgid");
    assert_eq!(settings.receiver.handshakes_per_second, 50);
    assert_eq!(settings.receiver.name, "hall-3");
    assert_eq!(settings.recent.forget_after, Duration::from_mins(30));
    assert_eq!(settings.status.status.hosts, crate::status::Hosts::Any);
}

#[test]
fn the_defaults_are_those_of_the_modules() {
    let text = "name: a\noutputs: [{type: remote_write, name: p, url: 'http://a/w'}]";
    let settings = read(text).unwrap().settings;
    let receiver = crate::receiver::Settings {
        name: "a".to_owned(),
        drain: settings.shutdown_timeout,
        ..crate::receiver::Settings::default()
    };
    assert_eq!(format!("{:?}", settings.receiver), format!("{receiver:?}"));
    assert_eq!(settings.recent, recent::Settings::default());
    let status = crate::status::Settings { name: "a".to_owned(), ..crate::status::Settings::default() };
    assert_eq!(settings.status.status, status);
    let OutputSettings::RemoteWrite(found) = &settings.outputs[0] else { panic!() };
    let name = pegel_proto::identity::OutputName::parse("p").unwrap();
    let expected = remote_write::Settings::new(name, "http://a/w".parse().unwrap());
    let times = |s: &remote_write::Settings| {
        let waits = [s.min_backoff, s.max_backoff, s.max_retry_after, s.park_probe];
        (waits, s.connect_timeout, s.request_timeout, s.linger)
    };
    assert_eq!(times(found), times(&expected));
    assert_eq!(
        (found.shards, found.max_request_samples, found.max_request_bytes, &found.url),
        (expected.shards, expected.max_request_samples, expected.max_request_bytes, &expected.url)
    );
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
    golden::compare_mistakes(&here("src/config/testdata/bad"), load_settings);
}

#[test]
fn the_reference_is_up_to_date() {
    golden::compare_reference::<RawAggregator>(&here("../docs/reference"), "aggregator", "pegel-aggregator");
}
