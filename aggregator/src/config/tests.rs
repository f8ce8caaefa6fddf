use super::*;
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
    assert!(loaded.settings.outputs.is_empty() && loaded.settings.node_up.enabled);
    assert!(loaded.warnings[0].to_string().contains("data is kept in memory only"), "{:?}", loaded.warnings);
}

#[test]
fn a_full_file_is_resolved() {
    let loaded = read(include_str!("testdata/full.yaml")).unwrap_or_else(|bad| panic!("{bad}"));
    assert_eq!(loaded.warnings, []);
    let settings = loaded.settings;
    let OutputSettings::RemoteWrite(output) = &settings.outputs[0];
    assert_eq!((output.name.as_str(), output.protocol), ("prometheus", Protocol::V1));
    assert_eq!(output.out_of_order_window, Duration::from_secs(30 * 3600));
    assert!(output.accepts_out_of_order);
    assert_eq!(settings.limits.tenants[0].1.samples_per_second, 50_000);
    assert_eq!(settings.recent.history, Duration::from_secs(1_800));
}

#[test]
fn every_rule_has_its_message() {
    golden::compare_mistakes(&here("src/config/testdata/bad"), load_settings);
}

#[test]
fn the_reference_is_up_to_date() {
    golden::compare_reference::<RawAggregator>(&here("../docs/reference"), "aggregator", "pegel-aggregator");
}
