//! What is scraped and how: valid, typed values. The configuration layer fills them in.

use super::exposition::Format;
use pegel_proto::caps;
use pegel_runtime::http_client::ClientTls;
use std::path::PathBuf;
use std::time::Duration;

/// How often a target is scraped unless told otherwise: what most dashboards' rate windows (`[1m]`) are made for,
/// four samples in each.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);

/// How long a scrape may take unless told otherwise: Prometheus' default, and less than the default interval.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest body that is read unless told otherwise, in bytes. At some 100 bytes a line it holds 160,000 samples,
/// nearly as many as one batch may.
pub const DEFAULT_BODY_SIZE_LIMIT: usize = 16 << 20;

/// The most samples of one scrape, whatever the settings say: what fits one batch beside a scrape's own series.
pub const SAMPLE_CEILING: usize = caps::MAX_BATCH_SAMPLES - 16;

/// How often `file_sd` files are looked at. Looking is one `stat` a file.
pub const DEFAULT_FILE_SD_REFRESH: Duration = Duration::from_secs(5);

/// What the scrape source does.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The jobs, each with a name of its own.
    pub jobs: Vec<Job>,
    /// How often `file_sd` files are looked at.
    pub file_sd_refresh: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { jobs: Vec::new(), file_sd_refresh: DEFAULT_FILE_SD_REFRESH }
    }
}

/// Targets that are scraped in the same way.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the switches that Prometheus' scrape configuration has"
)]
pub struct Job {
    /// The job's name: the `job` label of its series.
    pub name: String,
    /// Targets written down in the configuration.
    pub targets: Vec<TargetGroup>,
    /// Files with more targets, JSON or YAML by their ending; the last component may hold `*` and `?`.
    pub file_sd: Vec<PathBuf>,
    /// http or https.
    pub scheme: Scheme,
    /// The path of the metrics, beginning with a slash.
    pub metrics_path: String,
    /// Query parameters, each with its values.
    pub params: Vec<(String, Vec<String>)>,
    /// How often.
    pub interval: Duration,
    /// How long a scrape may take, at most the interval.
    pub timeout: Duration,
    /// A body of this many bytes or more fails the scrape; reading stops there. Zero means [`u32::MAX`].
    pub body_size_limit: usize,
    /// More samples than this fail the scrape; zero means [`SAMPLE_CEILING`], which holds in any case.
    pub sample_limit: usize,
    /// Limits on a series' labels; one that exceeds them fails the scrape.
    pub label_limits: LabelLimits,
    /// Whether a target's own labels win over those of its target (else they are renamed to `exported_…`).
    pub honor_labels: bool,
    /// Whether timestamps in the exposition are used.
    pub honor_timestamps: bool,
    /// Whether series with timestamps in the exposition get staleness markers when they vanish.
    pub track_timestamps_staleness: bool,
    /// Whether redirects are followed.
    pub follow_redirects: bool,
    /// How the agent proves itself.
    pub auth: Option<Auth>,
    /// TLS, for https.
    pub tls: ClientTls,
    /// What a body is taken for whose content type is missing or unknown; none fails the scrape.
    pub fallback_format: Option<Format>,
}

impl Job {
    /// A job of this name with the defaults and no target.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            targets: Vec::new(),
            file_sd: Vec::new(),
            scheme: Scheme::Http,
            metrics_path: "/metrics".into(),
            params: Vec::new(),
            interval: DEFAULT_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            body_size_limit: DEFAULT_BODY_SIZE_LIMIT,
            sample_limit: 0,
            label_limits: LabelLimits::default(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            follow_redirects: true,
            auth: None,
            tls: ClientTls::default(),
            fallback_format: None,
        }
    }
}

/// Some targets and the labels that they share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetGroup {
    /// Addresses, `host:port`.
    pub targets: Vec<String>,
    /// Labels of all their series. `job` and `instance` override the defaults; `__scheme__`, `__metrics_path__`,
    /// `__param_…`, `__scrape_interval__` and `__scrape_timeout__` override the job's settings.
    pub labels: Vec<(String, String)>,
}

/// http or https.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Limits on the labels of a series, the target's included. Zero means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LabelLimits {
    /// The most labels.
    pub labels: usize,
    /// The longest name, in bytes.
    pub name_bytes: usize,
    /// The longest value, in bytes.
    pub value_bytes: usize,
}

/// How the agent proves itself to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// `Authorization: Basic`.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// `Authorization: Bearer`.
    Bearer(Secret),
}

/// Where a secret is. It never shows in logs, errors or debug output.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In a file that is read for each scrape, so that it can be renewed; blanks around it are cut.
    File(PathBuf),
    /// Given directly, by interpolation for example.
    Text(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text(…)"),
        }
    }
}
