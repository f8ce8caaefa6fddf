use crate::config::{Purpose, RawAgent, Settings};
use crate::source::log::shape::{Container, Encoding, Step};
use pegel_runtime::config::{BadConfig, Input, Loaded};

fn read(text: &str) -> Result<Loaded<Settings>, BadConfig> {
    let input = Input { check_files: false, ..Input::new(None, Vec::new()) };
    pegel_runtime::config::load_text("agent.yaml".to_owned(), text, &input, |raw: &RawAgent, mistakes| {
        raw.resolve(Purpose::Collect, mistakes)
    })
}

fn input(body: &str) -> String {
    let body: String = body.lines().map(|line| format!("      {line}\n")).collect();
    format!("logs:\n  inputs:\n    - name: app\n      files: {{include: [/var/log/app.log]}}\n{body}")
}

#[test]
fn every_step_can_be_written() {
    let text = input(
        r"encoding: utf-16le
format: cri
max_line: 100KiB
multiline: {start: '^\d', traces: [java, go], max_lines: 50, timeout: 2s}
count_repeats: true
mask: {kinds: [email, ip], patterns: [{pattern: 'cust-\d+', replacement: 'cust-*'}]}
limits: {labels: 20, line: 512KiB, max_age: 30d}
steps:
  - json: {}
  - logfmt: {field: msg, prefix: m_}
  - regex: {pattern: '(?<a>x+)'}
  - pattern: {name: nginx_error}
  - grok: {pattern: '%{IP:client} %{MINE:x}', patterns: {MINE: '\d+'}}
  - timestamp: {field: ts, formats: [rfc3339, '%d/%b/%Y', 2006-01-02], zone: '+01:00'}
  - level: {}
  - labels: {level: level}
  - metadata: {drop: [ts, 'tmp_*']}
  - output: {field: msg}
  - keep: {field: level, one_of: [warn, error]}
  - drop: {below: info}
  - sample: {keep: 0.5, field: trace_id}
  - rate_limit: {per_second: 100}
  - metric: {name: lines_total, labels: {level: level}}
  - metric: {name: seconds, type: histogram, field: ms, scale: 0.001, buckets: [0.1, 1]}",
    );
    let settings = read(&text).unwrap_or_else(|bad| panic!("{bad}")).settings;
    let shape = &settings.logs.source.inputs[0].shape;
    let names: Vec<_> = shape.steps.iter().map(Step::name).collect();
    assert_eq!(
        names,
        [
            "json",
            "logfmt",
            "regex",
            "pattern",
            "grok",
            "timestamp",
            "level",
            "labels",
            "metadata",
            "output",
            "keep",
            "drop",
            "sample",
            "rate_limit",
            "metric",
            "metric",
        ]
    );
    assert_eq!((shape.encoding, shape.container), (Encoding::Utf16Le, Some(Container::Cri)));
    assert_eq!((shape.max_line, shape.limits.labels, shape.limits.line), (100 << 10, 20, 512 << 10));
    assert!(shape.repeats && shape.mask.is_some() && shape.times.age.as_secs() == 30 * 24 * 3600);
    assert_eq!(shape.flush_after().as_secs(), 2);
    assert!(!shape.derived.is_empty());
}

#[test]
fn each_mistake_says_what_and_where_and_what_to_do() {
    for (body, key, words) in [
        ("steps: [{}]", "steps[0]", "does nothing"),
        ("steps: [{json: {}, level: {}}]", "steps[0]", "json and level"),
        ("steps: [{regex: {pattern: '(?=x)(?<a>y)'}}]", "steps[0].regex.pattern", "look-around"),
        ("steps: [{regex: {pattern: x}}]", "steps[0].regex.pattern", "names no group"),
        ("steps: [{grok: {pattern: '%{NOPE:x}'}}]", "steps[0].grok.pattern", "no pattern `NOPE`"),
        ("steps: [{timestamp: {field: t, formats: ['%Q']}}]", "steps[0].timestamp.formats[0]", "not known"),
        ("steps: [{timestamp: {field: t, zone: Atlantis}}]", "steps[0].timestamp.zone", "no time zone"),
        ("steps: [{labels: {node: n}}]", "steps[0].labels.node", "certificate"),
        ("steps: [{labels: {a-b: n}}]", "steps[0].labels.a-b", "no label"),
        ("steps: [{metadata: {keep: ['*a']}}]", "steps[0].metadata.keep[0]", "no name"),
        ("steps: [{drop: {field: x}}]", "steps[0].drop", "asks nothing"),
        ("steps: [{sample: {keep: 2}}]", "steps[0].sample.keep", "no share"),
        ("steps: [{rate_limit: {per_second: 0}}]", "steps[0].rate_limit.per_second", "no rate"),
        ("steps: [{metric: {name: x, type: gauge}}]", "steps[0].metric.field", "missing"),
        ("steps: [{metric: {name: 1x}}]", "steps[0].metric.name", "no name"),
        (
            "steps: [{metric: {name: x, type: histogram, field: f, buckets: [2, 1]}}]",
            "steps[0].metric.buckets",
            "ascending",
        ),
        ("steps: [{multiline: {}}]", "steps[0].multiline", "beside `steps`"),
        ("steps: [{mask: {}}]", "steps[0].mask", "beside `steps`"),
        ("multiline: {}", "multiline", "nowhere"),
        ("multiline: {start: '('}", "multiline.start", "no regular expression"),
        ("mask: {kinds: []}", "mask", "nothing"),
        ("mask: {patterns: [{pattern: 'x*'}]}", "mask.patterns[0].pattern", "nothing"),
        ("max_line: 1MiB", "max_line", "384 KiB"),
        ("limits: {line: 10B}", "limits.line", "not between"),
        ("pipeline_stages: []", "pipeline_stages", "steps"),
    ] {
        let bad = read(&input(body)).expect_err(body);
        let key = format!("logs.inputs[0].{key}");
        let said = bad.mistakes.iter().any(|mistake| {
            mistake.key == key && mistake.to_string().contains(words) && !mistake.remedy.is_empty()
        });
        assert!(said, "{body}: {bad}");
    }
}
