//! How fast shaping is. Not a test: `cargo test --release -p pegel-agent --lib shape::tests::speed -- --ignored --nocapture`.

use super::*;
use std::time::Instant;

fn measure(name: &str, settings: &Settings, line: &str) {
    let text = line.repeat((1 << 20) / line.len());
    let mut shaper = Shaper::new(settings);
    let mut block = BlockBuilder::new();
    let source =
        [("filename".to_owned(), "/var/log/app.log".to_owned()), ("job".to_owned(), "app".to_owned())];
    let (mut bytes, mut spent) = (0, std::time::Duration::ZERO);
    while spent < std::time::Duration::from_secs(1) {
        let mut at = 0;
        while at < text.len() {
            let rest = &text.as_bytes()[at..];
            let chunk = Chunk {
                bytes: rest,
                offset: 1,
                base_ns: BASE_NS,
                floor_ns: 0,
                end: End::Flush,
                again: false,
            };
            let begun = Instant::now();
            at += shaper.shape(&source, chunk, 1 << 20, &mut block).consumed;
            spent += begun.elapsed();
            // Compression is not what is measured.
            block.finish();
        }
        bytes += text.len();
    }
    println!("{name}: {:.0} MB/s", bytes as f64 / 1e6 / spent.as_secs_f64());
}

#[test]
#[ignore = "it measures; run it as a release build"]
fn bytes_a_second() {
    let access = "203.0.113.7 - - [21/Nov/2026:19:00:00 +0000] \"GET /api/v1/items/12345?page=2 HTTP/1.1\" 200 5316 \"-\" \"Mozilla/5.0 (X11; Linux x86_64) Gecko\"\n";
    let json = "{\"time\":\"2026-11-21T18:59:58.123456Z\",\"level\":\"info\",\"msg\":\"request served\",\"status\":200,\"ms\":12.5,\"path\":\"/api/v1/items\",\"user\":\"u-1234\"}\n";
    let timestamp = Step::Timestamp(Timestamp {
        field: "time".into(),
        formats: vec![Format::parse("rfc3339").unwrap()],
        zone: Zone::default(),
        bounds: Bounds::default(),
    });
    let with = |steps: Vec<Step>| Settings { steps: steps.into(), ..Settings::default() };
    let kinds = [MaskKind::Email, MaskKind::Card, MaskKind::Iban, MaskKind::Token, MaskKind::Secret].to_vec();
    let mask = Some(Arc::new(Mask::new(kinds, Vec::new())));
    let parse = || Step::Json(Parse::default());
    let labels = Step::Labels(vec![("level".into(), "level".into())]);
    measure("plain", &Settings::default(), access);
    measure("json", &with(vec![parse()]), json);
    measure(
        "json, timestamp, level",
        &with(vec![parse(), timestamp.clone(), Step::Level(None), labels.clone()]),
        json,
    );
    measure("json, metadata", &with(vec![parse(), Step::Metadata(Metadata::default())]), json);
    measure(
        "regex",
        &with(vec![Step::Capture("pattern", Parse::default(), Preset::NginxCombined.capture())]),
        access,
    );
    measure("level from words", &with(vec![Step::Level(None)]), access);
    measure("mask, access log", &Settings { mask: mask.clone(), ..Settings::default() }, access);
    measure("mask, JSON", &Settings { mask, ..Settings::default() }, json);
    let multiline = Some(Multiline { traces: vec![Trace::Java], ..Multiline::default() });
    measure("multiline", &Settings { multiline, ..Settings::default() }, access);
}
