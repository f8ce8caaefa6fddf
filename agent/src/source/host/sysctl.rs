//! Kernel parameters that the configuration names, from `/proc/sys` (Documentation/admin-guide/sysctl).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::text::{fields, hex, int};
use super::{CollectError, Collector, Setup};
use pegel_proto::metrics::MetricType;

/// A parameter to collect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Its name, as `net.ipv4.tcp_rmem`.
    pub name: String,
    /// What its values are called, each becoming a metric; without them they are told apart by a label `index`.
    pub fields: Vec<String>,
    /// Whether the values are shown as text, in labels of `node_sysctl_info`.
    pub info: bool,
}

struct Parameters {
    known: Vec<Parameter>,
    info: Metric,
    /// The places of values, as label values.
    places: Vec<Box<str>>,
}

struct Parameter {
    name: Box<str>,
    file: PolledFile,
    form: Form,
}

/// How a parameter's values are shown.
enum Form {
    Info,
    /// The metric of a lone value, and of many.
    Numbers(Metric, Metric),
    Fields(Vec<Metric>),
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let parameter = |sysctl: &Sysctl| {
        let Sysctl { name, fields, info } = sysctl;
        let part: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() || c == ':' { c } else { '_' }).collect();
        let metric = |suffix: &str, labels| {
            let full = format!("node_sysctl_{part}{suffix}");
            Metric::new(&full, &format!("sysctl {name}"), MetricType::Unknown, labels)
        };
        let form = match fields.as_slice() {
            _ if *info => Form::Info,
            [] => Form::Numbers(metric("", &[]), metric("", &["index"])),
            fields => Form::Fields(fields.iter().map(|field| metric(&format!("_{field}"), &[])).collect()),
        };
        let path = setup.paths.procfs.join("sys").join(name.replace('.', "/"));
        Parameter { name: name.as_str().into(), file: PolledFile::new(path), form }
    };
    Box::new(Parameters {
        known: setup.settings.sysctls.iter().map(parameter).collect(),
        info: Metric::gauge(
            "node_sysctl_info",
            "1, with a value of a parameter.",
            &["index", "name", "value"],
        ),
        places: Vec::new(),
    })
}

impl Collector for Parameters {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let Self { known, info, places } = self;
        for Parameter { name, file, form } in known {
            let text = file.read()?;
            let count = fields(text.bytes.trim_ascii()).count();
            while places.len() < count {
                places.push(places.len().to_string().into());
            }
            let wanted = match form {
                Form::Fields(metrics) => metrics.len(),
                _ => count,
            };
            if count == 0 || count != wanted {
                return Err(
                    text.bad("there are not as many values as the configuration has names", text.bytes)
                );
            }
            for (place, value) in fields(text.bytes.trim_ascii()).enumerate() {
                if let Form::Info = form {
                    out.emit(info, &[&places[place], name, &String::from_utf8_lossy(value)], 1.0);
                    continue;
                }
                let number =
                    number(value).ok_or_else(|| text.bad("a value is not a whole number", text.bytes))?;
                match form {
                    Form::Fields(metrics) => out.emit(&metrics[place], &[], number),
                    Form::Numbers(lone, _) if count == 1 => out.emit(lone, &[], number),
                    Form::Numbers(_, many) => out.emit(many, &[&places[place]], number),
                    Form::Info => {}
                }
            }
        }
        Ok(())
    }
}

/// A whole number, decimal or with `0x`.
fn number(text: &[u8]) -> Option<f64> {
    match text.strip_prefix(b"0x") {
        Some(digits) => hex(digits).map(|value| value as f64),
        None => int(text).map(|value| value as f64),
    }
}
