//! What is checked and how: valid, typed values. The configuration layer fills them in.

use super::hooks::settings::Hook;
use super::kinds::Kind;
use super::maintenance::Window;
use super::state::Thresholds;
use crate::slo::Objective;
use crate::source::labels::{Preset, TargetLabels};
use crate::source::scrape::settings::TargetGroup;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often a target is checked unless told otherwise: as often as exporters are scraped.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);

/// How long a run may take unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// How many runs may go on at once unless told otherwise. A run that hangs costs a file descriptor and some ten
/// KiB, one with TLS some fifty: so at worst all cost 50 MiB and a thousand descriptors, and 500 targets that hang
/// leave half of the runs to the others.
pub const DEFAULT_MAX_RUNNING: usize = 1_000;

/// Failures in a row until a target counts as down, unless told otherwise: one lost packet is no outage.
pub const DEFAULT_DOWN_AFTER: u32 = 2;

/// Successes in a row until a target that was down counts as up, unless told otherwise.
pub const DEFAULT_UP_AFTER: u32 = 1;

/// How often `file_sd` files are looked at. Looking is one `stat` a file.
pub const DEFAULT_FILE_SD_REFRESH: Duration = Duration::from_secs(5);

/// What the probe source does.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The checks, each with a name of its own.
    pub checks: Vec<Check>,
    /// What their users may expect.
    pub objectives: Vec<Objective>,
    /// What is done when a target's state changes.
    pub hooks: Vec<Hook>,
    /// How many runs may go on at once.
    pub max_running: usize,
    /// How often `file_sd` files are looked at.
    pub file_sd_refresh: Duration,
    /// Whether containers' labels make checks.
    pub from_containers: bool,
    /// Where what was heard of jobs is kept; none keeps it in memory only.
    pub state_dir: Option<PathBuf>,
    /// Name servers that are asked in place of those of `/etc/resolv.conf`.
    pub name_servers: Vec<SocketAddr>,
    /// Labels of all targets, beside `instance` and `check`; a target's own win.
    pub labels: TargetLabels,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            checks: Vec::new(),
            objectives: Vec::new(),
            hooks: Vec::new(),
            max_running: DEFAULT_MAX_RUNNING,
            file_sd_refresh: DEFAULT_FILE_SD_REFRESH,
            from_containers: true,
            state_dir: None,
            name_servers: Vec::new(),
            labels: TargetLabels::new(Preset::BLACKBOX_MIXIN, BTreeMap::new()),
        }
    }
}

/// Targets that are checked in the same way.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The check's name: the `check` label of its series.
    pub name: String,
    /// What is done.
    pub kind: Kind,
    /// Targets written down in the configuration.
    pub targets: Vec<TargetGroup>,
    /// Files with more targets, JSON or YAML by their ending; the last component may hold `*` and `?`.
    pub file_sd: Vec<PathBuf>,
    /// How often.
    pub interval: Duration,
    /// How long one attempt may take; with all attempts of a run, at most the interval.
    pub timeout: Duration,
    /// How many attempts a run makes after one that failed.
    pub retries: u32,
    /// When a target counts as down or up.
    pub thresholds: Thresholds,
    /// When the check is in maintenance.
    pub maintenance: Vec<Arc<Window>>,
    /// Whether a container asked for it by its labels.
    pub from_container: bool,
}

impl Check {
    /// A check of this name and kind with the defaults and no target.
    pub fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            targets: Vec::new(),
            file_sd: Vec::new(),
            interval: DEFAULT_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            retries: 0,
            thresholds: Thresholds { down_after: DEFAULT_DOWN_AFTER, up_after: DEFAULT_UP_AFTER },
            maintenance: Vec::new(),
            from_container: false,
        }
    }

    /// Whether it is in maintenance at an instant, in milliseconds since the Unix epoch.
    pub fn in_maintenance(&self, at_ms: i64) -> bool {
        self.maintenance.iter().any(|window| window.is_open(at_ms))
    }
}
