//! `scrape`: exporters.

use super::host::check_interval;
use crate::source::scrape::exposition::Format;
use crate::source::scrape::settings::{
    Auth, DEFAULT_BODY_SIZE_LIMIT, DEFAULT_FILE_SD_REFRESH, DEFAULT_INTERVAL, DEFAULT_TIMEOUT, Job,
    LabelLimits, SAMPLE_CEILING, Scheme, Secret, Settings, TargetGroup,
};
use pegel_runtime::config::form::{ByteSize, FilePath, HostPort, Period};
use pegel_runtime::config::section::{self, RawBasicAuth, RawClientTls, check_labels, resolve_auth};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

/// Exporters that are scraped.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"configs": "jobs", "scrape_configs": "jobs"}))]
pub struct RawScrape {
    /// The jobs, each with a name of its own.
    pub jobs: Vec<RawJob>,
    /// How often the files of `file_sd` are looked at.
    pub file_sd_refresh: Period,
}

impl Default for RawScrape {
    fn default() -> Self {
        Self { jobs: Vec::new(), file_sd_refresh: Period(DEFAULT_FILE_SD_REFRESH) }
    }
}

/// http or https.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawScheme {
    /// In the clear.
    #[default]
    Http,
    /// Over TLS.
    Https,
}

/// What a body is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawFormat {
    /// Prometheus' text format.
    Text,
    /// OpenMetrics.
    Openmetrics,
}

/// Targets that are scraped in the same way.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "required" = ["name"],
    "x-renamed" = {
        "job_name": "name", "scrape_interval": "interval", "scrape_timeout": "timeout", "static_configs": "groups",
        "file_sd_configs": "file_sd", "body_size_limit": "body_limit", "tls_config": "tls"
    },
    "x-refused" = {
        "relabel_configs": "pegel does not relabel; give targets their labels in groups or file_sd",
        "metric_relabel_configs": "pegel does not relabel; drop series at the exporter or in the backend",
        "bearer_token": "tokens are read from files: use bearer_token_file"
    }
))]
#[expect(clippy::struct_excessive_bools, reason = "each is a key that Prometheus has as well")]
pub struct RawJob {
    /// The label `job` of its series.
    pub name: String,
    /// Targets, `HOST:PORT`.
    pub targets: Vec<HostPort>,
    /// Labels of the series of `targets`.
    pub labels: BTreeMap<String, String>,
    /// More targets, with labels of their own.
    pub groups: Vec<RawTargetGroup>,
    /// Files with more targets, in Prometheus' format, JSON or YAML by their ending; the last part of the path may
    /// hold `*` and `?`.
    pub file_sd: Vec<FilePath>,
    /// http or https.
    pub scheme: RawScheme,
    /// The path of the metrics.
    pub metrics_path: String,
    /// Query parameters, each with its values.
    pub params: BTreeMap<String, Vec<String>>,
    /// Time from scrape to scrape.
    pub interval: Period,
    /// How long a scrape may take; without it 10s, or the interval if that is shorter.
    pub timeout: Option<Period>,
    /// A body of this size or more fails the scrape.
    pub body_limit: ByteSize,
    /// More samples than this fail the scrape; 0 is as many as a batch may hold.
    #[schemars(range(max = SAMPLE_CEILING))]
    pub sample_limit: u32,
    /// More labels on a series than this fail the scrape; 0 is no limit.
    pub label_limit: u32,
    /// A longer label name fails the scrape, in bytes; 0 is no limit.
    pub label_name_length_limit: u32,
    /// A longer label value fails the scrape, in bytes; 0 is no limit.
    pub label_value_length_limit: u32,
    /// Whether labels of the exporter win over those of its target; else they are renamed to `exported_…`.
    pub honor_labels: bool,
    /// Whether timestamps that the exporter gives are used.
    pub honor_timestamps: bool,
    /// Whether series with timestamps of the exporter get staleness markers when they vanish.
    pub track_timestamps_staleness: bool,
    /// What a body is taken for whose content type is missing or unknown; without it, the scrape fails.
    pub fallback_format: Option<RawFormat>,
    /// Whether redirects are followed.
    pub follow_redirects: bool,
    /// User and password.
    pub basic_auth: Option<RawBasicAuth>,
    /// A file that holds a bearer token; it is read again when it changes.
    pub bearer_token_file: Option<FilePath>,
    /// TLS, for https.
    pub tls: RawClientTls,
}

impl Default for RawJob {
    fn default() -> Self {
        Self {
            name: String::new(),
            targets: Vec::new(),
            labels: BTreeMap::new(),
            groups: Vec::new(),
            file_sd: Vec::new(),
            scheme: RawScheme::Http,
            metrics_path: "/metrics".to_owned(),
            params: BTreeMap::new(),
            interval: Period(DEFAULT_INTERVAL),
            timeout: None,
            body_limit: ByteSize(DEFAULT_BODY_SIZE_LIMIT as u64),
            sample_limit: 0,
            label_limit: 0,
            label_name_length_limit: 0,
            label_value_length_limit: 0,
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            fallback_format: None,
            follow_redirects: true,
            basic_auth: None,
            bearer_token_file: None,
            tls: RawClientTls::default(),
        }
    }
}

/// Some targets and the labels that they share.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["targets"]))]
pub struct RawTargetGroup {
    /// Targets, `HOST:PORT`.
    pub targets: Vec<HostPort>,
    /// Labels of all their series. `__metrics_path__`, `__scheme__`, `__scrape_interval__`, `__scrape_timeout__` and
    /// `__param_NAME` override the job's settings, as in Prometheus.
    pub labels: BTreeMap<String, String>,
}

impl RawScrape {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Settings {
        let mut names: HashMap<&str, usize> = HashMap::new();
        let mut jobs = Vec::new();
        for (i, job) in self.jobs.iter().enumerate() {
            let path = path.key("jobs").index(i);
            if let Some(first) = names.insert(&job.name, i).filter(|_| !job.name.is_empty()) {
                let reason = format!("scrape.jobs[{first}] is called `{}` as well", job.name.escape_debug());
                mistakes.at(&path.key("name"), reason, "give each job a name of its own");
            }
            jobs.push(job.resolve(&path, mistakes));
        }
        if self.file_sd_refresh.0 < Duration::from_secs(1) {
            mistakes.at(&path.key("file_sd_refresh"), "is too short", "use 1s or more");
        }
        Settings { jobs, file_sd_refresh: self.file_sd_refresh.0 }
    }
}

impl RawJob {
    fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Job {
        if self.name.is_empty() {
            mistakes.at(&path.key("name"), "is empty", "give the job a name");
        }
        check_interval(&self.interval, &path.key("interval"), mistakes);
        let timeout = match &self.timeout {
            Some(timeout) if timeout.0 > self.interval.0 => {
                let reason = format!("`{timeout}` is longer than the interval of {}", self.interval);
                mistakes.at(
                    &path.key("timeout"),
                    reason,
                    "shorten it: a scrape must end before the next begins",
                );
                self.interval.0
            }
            Some(timeout) if timeout.0.is_zero() => {
                mistakes.at(&path.key("timeout"), "gives a scrape no time at all", "use 10s");
                DEFAULT_TIMEOUT
            }
            Some(timeout) => timeout.0,
            None => DEFAULT_TIMEOUT.min(self.interval.0),
        };
        if !self.metrics_path.starts_with('/') {
            let reason = format!("`{}` does not begin with a slash", self.metrics_path.escape_debug());
            mistakes.at(&path.key("metrics_path"), reason, "write /metrics");
        } else if self.metrics_path.contains('?') {
            mistakes.at(&path.key("metrics_path"), "holds a query", "write its parameters under params");
        }
        if self.body_limit.0 == 0 || self.body_limit.0 > u64::from(u32::MAX) {
            let reason = format!("`{}` is no limit that works", self.body_limit);
            mistakes.at(&path.key("body_limit"), reason, "use something between 1B and 4GB");
        }
        if self.scheme == RawScheme::Http && self.tls != RawClientTls::default() {
            mistakes.warn(&path.key("tls"), "is not used over http", "set scheme: https");
        }
        Job {
            name: self.name.clone(),
            targets: self.resolve_targets(path, mistakes),
            file_sd: resolve_files(&self.file_sd, path, mistakes),
            scheme: match self.scheme {
                RawScheme::Http => Scheme::Http,
                RawScheme::Https => Scheme::Https,
            },
            metrics_path: self.metrics_path.clone(),
            params: self.params.iter().map(|(name, values)| (name.clone(), values.clone())).collect(),
            interval: self.interval.0,
            timeout,
            body_size_limit: self.body_limit.0 as usize,
            sample_limit: self.sample_limit as usize,
            label_limits: LabelLimits {
                labels: self.label_limit as usize,
                name_bytes: self.label_name_length_limit as usize,
                value_bytes: self.label_value_length_limit as usize,
            },
            honor_labels: self.honor_labels,
            honor_timestamps: self.honor_timestamps,
            track_timestamps_staleness: self.track_timestamps_staleness,
            follow_redirects: self.follow_redirects,
            auth: match resolve_auth(
                self.basic_auth.as_ref(),
                self.bearer_token_file.as_ref(),
                path,
                mistakes,
            ) {
                Some(section::Auth::Basic { username, password_file }) => {
                    Some(Auth::Basic { username, password: Secret::File(password_file) })
                }
                Some(section::Auth::Bearer(file)) => Some(Auth::Bearer(Secret::File(file))),
                None => None,
            },
            tls: self.tls.resolve(&path.key("tls"), mistakes),
            fallback_format: self.fallback_format.map(|format| match format {
                RawFormat::Text => Format::Text,
                RawFormat::Openmetrics => Format::OpenMetrics,
            }),
        }
    }

    fn resolve_targets(&self, path: &Path, mistakes: &mut Mistakes) -> Vec<TargetGroup> {
        let mut groups = Vec::new();
        let mut add = |targets: &[HostPort], labels: &BTreeMap<String, String>, path: &Path| {
            check_labels(labels, overrides_a_setting, &path.key("labels"), mistakes);
            let mut seen = Vec::new();
            for (i, target) in targets.iter().enumerate() {
                if seen.contains(&target) {
                    let path = path.key("targets").index(i);
                    mistakes.at(&path, format!("`{target}` is listed twice"), "take one out");
                }
                seen.push(target);
            }
            if !targets.is_empty() {
                groups.push(TargetGroup {
                    targets: targets.iter().map(|target| target.0.clone()).collect(),
                    labels: labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
                });
            }
        };
        add(&self.targets, &self.labels, path);
        for (i, group) in self.groups.iter().enumerate() {
            add(&group.targets, &group.labels, &path.key("groups").index(i));
        }
        if self.targets.is_empty() && !self.labels.is_empty() {
            let reason = "apply to `targets`, and there are none";
            mistakes.at(&path.key("labels"), reason, "write them into groups, or into the files of file_sd");
        }
        let elsewhere = ["groups", "file_sd"].iter().any(|key| mistakes.is_spoken_of(&path.key(key)));
        if groups.is_empty() && self.file_sd.is_empty() && !elsewhere {
            mistakes.at(
                &path.key("targets"),
                "the job has no target",
                "list some as HOST:PORT, or use file_sd",
            );
        }
        groups
    }
}

/// Resolves the `file_sd` of a section.
pub(super) fn resolve_files(file_sd: &[FilePath], path: &Path, mistakes: &mut Mistakes) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (i, file) in file_sd.iter().enumerate() {
        let path = path.key("file_sd").index(i);
        let file = mistakes.path_of(&path, file);
        let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if !matches!(ending, "json" | "yml" | "yaml") {
            let reason = format!("`{}` does not say what it holds", file.display());
            mistakes.at(&path, reason, "let it end in .json, .yml or .yaml");
        }
        if file.parent().and_then(|parent| parent.to_str()).is_some_and(|parent| parent.contains(['*', '?']))
        {
            mistakes.at(&path, "has * or ? in a directory", "use them in the file's name only");
        }
        files.push(file);
    }
    files
}

/// The labels by which a target overrides its job's settings.
fn overrides_a_setting(name: &str) -> bool {
    matches!(name, "__scheme__" | "__metrics_path__" | "__scrape_interval__" | "__scrape_timeout__")
        || name.starts_with("__param_")
}
