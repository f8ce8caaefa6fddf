//! Text expositions, read so that two can be compared.

use std::collections::BTreeMap;

/// Samples by their series, and types by their family.
#[derive(Debug, Default)]
pub struct Exposition {
    /// Series as `name{a="b",c="d"}`: labels sorted, without empty ones, which are none to Prometheus.
    pub samples: BTreeMap<String, f64>,
    /// Types by the family's name.
    pub types: BTreeMap<String, String>,
}

impl Exposition {
    /// Reads a text. Labels named in `without` are left out.
    pub fn read(text: &str, without: &[&str]) -> Self {
        let mut this = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                this.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.is_empty() && !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a series and a value");
                let value = value.parse().unwrap_or_else(|e| panic!("`{line}`: {e}"));
                this.samples.insert(normal(series, without), value);
            }
        }
        this
    }

    /// The value of a series.
    pub fn value(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// Whether a collector says that it has all of its samples; none if there is no such collector.
    pub fn success(&self, collector: &str) -> Option<bool> {
        let series = format!("node_scrape_collector_success{{collector=\"{collector}\"}}");
        self.value(&series).map(|value| value > 0.0)
    }
}

/// The family of a series.
pub fn family(series: &str) -> &str {
    series.split('{').next().unwrap_or_default()
}

/// The value of a series' label.
pub fn label<'a>(series: &'a str, name: &str) -> Option<&'a str> {
    let labels = series.split_once('{')?.1.trim_end_matches('}');
    pairs(labels).into_iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

fn normal(series: &str, without: &[&str]) -> String {
    let Some((name, labels)) = series.split_once('{') else { return format!("{series}{{}}") };
    let mut labels = pairs(labels.strip_suffix('}').unwrap_or(labels));
    labels.retain(|pair| {
        let (key, value) = pair.split_once('=').expect("a label has a value");
        value != "\"\"" && !without.contains(&key)
    });
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

/// Labels as `key="value"`: commas and quotes may stand in a value.
fn pairs(labels: &str) -> Vec<&str> {
    let (mut pairs, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in labels.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                pairs.push(&labels[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if begin < labels.len() {
        pairs.push(&labels[begin..]);
    }
    pairs
}

#[test]
fn series_are_read_whatever_stands_in_their_labels() {
    let text = "# TYPE a counter\na_b{z=\"1\",instance=\"i\",b=\"x,\\\"y}\",e=\"\"} 1e3\nplain 2\n";
    let read = Exposition::read(text, &["instance"]);
    let series = r#"a_b{b="x,\"y}",z="1"}"#;
    assert_eq!(read.value(series), Some(1000.0));
    assert_eq!(read.value("plain{}"), Some(2.0));
    assert_eq!((family(series), label(series, "z")), ("a_b", Some("1")));
}
