//! One thing to scrape: an address with its job's settings and its labels, resolved and valid.

use super::settings::{Job, Scheme, TargetGroup};
use pegel_proto::metrics::{Labels, NAME_LABEL};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// A resolved target.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The settings of its job.
    pub job: Arc<Job>,
    /// What is fetched.
    pub url: http::Uri,
    /// Its labels: `job`, `instance` and what its group adds.
    pub labels: Labels,
    /// The same with the agent's external labels, which give way to them.
    pub shared: Arc<Labels>,
    /// How often it is scraped.
    pub interval: Duration,
    /// How long a scrape may take.
    pub timeout: Duration,
}

/// What makes two targets the same one: labels and URL. The other settings may change while its series go on.
pub type TargetKey = (Labels, String);

/// Why an address is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("target `{address}` of job `{job}` cannot be scraped: {reason}")]
pub struct BadTarget {
    /// The job's name.
    pub job: String,
    /// The address as given.
    pub address: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Target {
    /// What makes it the same target as another.
    pub fn key(&self) -> TargetKey {
        (self.labels.clone(), self.url.to_string())
    }

    /// A hash of what identifies it, external labels included, so that equal targets of many nodes have phases of
    /// their own.
    pub fn identity_hash(&self) -> u64 {
        let mut text = self.url.to_string();
        for (name, value) in self.shared.iter() {
            let _ = write!(text, "\0{name}\0{value}");
        }
        xxh3_64(text.as_bytes())
    }
}

/// The targets of a group: those that are valid, and why others are not.
pub fn resolve_group(
    job: &Arc<Job>,
    group: &TargetGroup,
    external: &Labels,
) -> (Vec<Target>, Vec<BadTarget>) {
    let mut targets = Vec::with_capacity(group.targets.len());
    let mut bad = Vec::new();
    for address in &group.targets {
        match resolve(job, address, &group.labels, external) {
            Ok(target) => targets.push(target),
            Err(reason) => {
                bad.push(BadTarget { job: job.name.clone(), address: address.clone(), reason });
            }
        }
    }
    (targets, bad)
}

fn resolve(
    job: &Arc<Job>,
    address: &str,
    group: &[(String, String)],
    external: &Labels,
) -> Result<Target, String> {
    if address.is_empty() || address.contains('/') {
        return Err("an address is HOST:PORT, without scheme or path".into());
    }
    let mut scheme = job.scheme.name().to_owned();
    let mut path = job.metrics_path.clone();
    let mut params = job.params.clone();
    let mut interval = job.interval;
    let mut timeout = job.timeout;
    let mut labels = BTreeMap::from([("job", job.name.as_str()), ("instance", address)]);
    for (name, value) in group {
        match name.as_str() {
            "__scheme__" => scheme.clone_from(value),
            "__metrics_path__" => path.clone_from(value),
            "__scrape_interval__" => interval = duration(name, value)?,
            "__scrape_timeout__" => timeout = duration(name, value)?,
            NAME_LABEL => return Err("a target cannot set __name__".into()),
            _ => {
                if let Some(param) = name.strip_prefix("__param_") {
                    params.retain(|(other, _)| other != param);
                    params.push((param.to_owned(), vec![value.clone()]));
                } else if !name.starts_with("__") && !value.is_empty() {
                    labels.insert(name, value);
                }
            }
        }
    }
    if ![Scheme::Http, Scheme::Https].iter().any(|known| known.name() == scheme) {
        return Err(format!("`{scheme}` is neither http nor https"));
    }
    if interval.is_zero() || timeout.is_zero() || timeout > interval {
        return Err(format!(
            "the timeout ({timeout:?}) is to be above zero and at most the interval ({interval:?})"
        ));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = format!("{scheme}://{address}{slash}{path}{}", query(&params, path.contains('?')));
    let url: http::Uri = url.parse().map_err(|e| format!("`{url}` is no URL: {e}"))?;
    let all = |pairs: Vec<(&str, &str)>| Labels::new(pairs).map_err(|e| e.to_string());
    let own = all(labels.iter().map(|(n, v)| (*n, *v)).collect())?;
    for (name, value) in external.iter() {
        labels.entry(name).or_insert(value);
    }
    let shared = Arc::new(all(labels.into_iter().collect())?);
    Ok(Target { job: job.clone(), url, labels: own, shared, interval, timeout })
}

/// A query string of the parameters, with its separator.
fn query(params: &[(String, Vec<String>)], continued: bool) -> String {
    let mut out = String::new();
    let mut separator = if continued { '&' } else { '?' };
    for (name, values) in params {
        for value in values {
            out.push(separator);
            percent_encode(&mut out, name);
            out.push('=');
            percent_encode(&mut out, value);
            separator = '&';
        }
    }
    out
}

fn percent_encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// A duration as Prometheus writes it: `1m30s`, `500ms`.
fn duration(name: &str, text: &str) -> Result<Duration, String> {
    let bad = || format!("{name}: `{text}` is no duration (write 15s, 1m30s or 500ms)");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let count: u32 = rest[..digits].parse().map_err(|_| bad())?;
        let unit_length = rest[digits..].find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len() - digits);
        let unit = match &rest[digits..digits + unit_length] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            "d" => Duration::from_hours(24),
            _ => return Err(bad()),
        };
        total = unit.checked_mul(count).and_then(|d| total.checked_add(d)).ok_or_else(bad)?;
        rest = &rest[digits + unit_length..];
    }
    if text.is_empty() { Err(bad()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(labels: &[(&str, &str)], change: impl FnOnce(&mut Job)) -> Result<Target, String> {
        let mut job = Job::new("node");
        change(&mut job);
        let labels: Vec<_> = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let external = Labels::new([("dc", "north"), ("instance", "external")]).unwrap();
        resolve(&Arc::new(job), "127.0.0.1:9100", &labels, &external)
    }

    #[test]
    fn job_and_instance_are_set_and_external_labels_give_way() {
        let target = resolved(&[("rack", "7"), ("__meta_x", "dropped"), ("empty", "")], |_| {}).unwrap();
        assert_eq!(target.url, "http://127.0.0.1:9100/metrics");
        let labels = Labels::new([("job", "node"), ("instance", "127.0.0.1:9100"), ("rack", "7")]).unwrap();
        assert_eq!(target.labels, labels);
        assert_eq!(target.shared.value("dc"), Some("north"));
        assert_eq!(target.shared.value("instance"), Some("127.0.0.1:9100"));
    }

    #[test]
    fn a_group_may_override_how_it_is_scraped() {
        let target = resolved(
            &[
                ("__scheme__", "https"),
                ("__metrics_path__", "/probe"),
                ("__param_target", "a b&c"),
                ("__scrape_interval__", "1m30s"),
                ("__scrape_timeout__", "500ms"),
                ("job", "other"),
                ("instance", "named"),
            ],
            |job| {
                job.params =
                    vec![("target".into(), vec!["x".into()]), ("m".into(), vec!["1".into(), "2".into()])];
            },
        )
        .unwrap();
        assert_eq!(target.url, "https://127.0.0.1:9100/probe?m=1&m=2&target=a%20b%26c");
        assert_eq!((target.interval, target.timeout), (Duration::from_secs(90), Duration::from_millis(500)));
        assert_eq!(target.labels.value("job"), Some("other"));
        assert_eq!(target.labels.value("instance"), Some("named"));
    }

    #[test]
    fn what_cannot_be_scraped_is_refused_with_the_reason() {
        for (labels, reason) in [
            ([("__scheme__", "ftp")], "neither http nor https"),
            ([("__scrape_interval__", "5s")], "at most the interval"),
            ([("__scrape_interval__", "5 s")], "no duration"),
            ([("__metrics_path__", "/a b")], "no URL"),
            ([("__name__", "x")], "__name__"),
        ] {
            let error = resolved(&labels, |_| {}).unwrap_err();
            assert!(error.contains(reason), "{labels:?}: {error}");
        }
        let job = Arc::new(Job::new("j"));
        let group = TargetGroup { targets: vec!["http://a:1/".into(), "a:1".into()], labels: vec![] };
        let (good, bad) = resolve_group(&job, &group, &Labels::default());
        assert_eq!((good.len(), bad.len()), (1, 1));
        assert!(bad[0].to_string().contains("HOST:PORT"), "{}", bad[0]);
    }
}
