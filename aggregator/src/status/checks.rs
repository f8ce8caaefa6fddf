//! The state of the synthetic checks of all nodes, read from the last values of their series.
//!
//! Nothing is kept for it: an agent says with every run what its check is taken for and since when
//! (`pegel_probe_up`, `pegel_probe_state_since_timestamp_seconds`, `pegel_probe_maintenance`), and with a failed run how
//! far it came and why (`pegel_probe_failure`), so that an aggregator that was just started knows it as well as one
//! that has run for a year.

use crate::output::recent::{Recent, SymbolText};
use crate::session::ResolvedSeries;
use pegel_proto::identity::AgentIdentity;
use pegel_proto::metrics::NAME_LABEL;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Labels that a check's series have of their own, beside those of their target.
const OWN_LABELS: [&str; 5] = [NAME_LABEL, "kind", "phase", "reason", "tenant"];

/// What a check is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// It does not work.
    Down,
    /// Nothing was heard of it lately: its node, or the way from there, is away.
    Unknown,
    /// It did not run often enough to say.
    Pending,
    /// It is worked on.
    Maintenance,
    /// It works.
    Up,
}

impl CheckState {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] = [Self::Down, Self::Unknown, Self::Pending, Self::Maintenance, Self::Up];

    /// As JSON and queries write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Pending => "pending",
            Self::Maintenance => "maintenance",
            Self::Up => "up",
        }
    }
}

/// One check on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRow {
    /// Whose node.
    pub tenant: String,
    /// The node that checks.
    pub node: String,
    /// The check's name: the label `check`, or `job` where an exporter checks.
    pub check: String,
    /// The label `job`.
    pub job: String,
    /// The label `instance`: what is checked.
    pub instance: String,
    /// `http`, `tcp` and so on; none before the check was up or down.
    pub kind: Option<String>,
    /// The check's other labels.
    pub labels: BTreeMap<String, String>,
    /// What it is taken for.
    pub state: CheckState,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Whether the last run failed: a check that is up may be on its way down.
    pub failing: bool,
    /// How far the failed run came; see the reference of checks.
    pub phase: Option<String>,
    /// Why it failed.
    pub reason: Option<String>,
    /// Both in words.
    pub error: Option<String>,
    /// When it last ran, by the node's clock.
    pub last_run_ms: i64,
    /// How long that took.
    pub duration_seconds: Option<f64>,
    /// When the first certificate of the chain that was shown expires.
    pub certificate_expires_ms: Option<i64>,
}

/// What was seen of a check so far.
#[derive(Debug, Default)]
struct Seen {
    up: Option<(bool, String)>,
    success: Option<f64>,
    since_ms: Option<i64>,
    maintenance: bool,
    failure: Option<(String, String)>,
    last_run_ms: i64,
    duration_seconds: Option<f64>,
    certificate_expires_ms: Option<i64>,
}

/// The checks of a node. Those that did not run since `fresh_since_ms` are unknown.
pub(super) fn checks(recent: &Recent, agent: &AgentIdentity, fresh_since_ms: i64) -> Vec<CheckRow> {
    let mut seen: BTreeMap<Vec<(String, String)>, Seen> = BTreeMap::new();
    recent.visit_targets(agent, &is_of_a_check, &mut |series, value, at_ms| {
        if is_of_a_check(series) {
            note(recent.symbols(), series, value, at_ms, &mut seen);
        }
    });
    let rows = seen.into_iter().filter(|(_, seen)| seen.success.is_some());
    rows.map(|(labels, seen)| row(agent, labels, seen, fresh_since_ms)).collect()
}

fn is_of_a_check(series: &ResolvedSeries) -> bool {
    series.family.name.starts_with("probe_") || series.family.name.starts_with("pegel_probe_")
}

fn note(
    text: &dyn SymbolText,
    series: &ResolvedSeries,
    value: f64,
    at_ms: i64,
    all: &mut BTreeMap<Vec<(String, String)>, Seen>,
) {
    let instant_ms = |seconds: f64| (seconds * 1_000.0) as i64;
    let wanted = matches!(
        &*series.family.name,
        "probe_success"
            | "probe_duration_seconds"
            | "probe_ssl_earliest_cert_expiry"
            | "pegel_probe_up"
            | "pegel_probe_state_since_timestamp_seconds"
            | "pegel_probe_maintenance"
            | "pegel_probe_failure"
    );
    if !wanted {
        return;
    }
    let labels = super::api::labels(text, series);
    let own = |name: &str| {
        labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let (kind, phase, reason) = (own("kind"), own("phase"), own("reason"));
    let shared = labels
        .into_iter()
        .filter(|(name, _)| !OWN_LABELS.contains(&name.as_str()) && name != "node")
        .collect();
    let seen = all.entry(shared).or_default();
    match &*series.family.name {
        "probe_success" => {
            seen.success = Some(value);
            seen.last_run_ms = at_ms;
        }
        "probe_duration_seconds" => seen.duration_seconds = Some(value),
        "probe_ssl_earliest_cert_expiry" => seen.certificate_expires_ms = Some(instant_ms(value)),
        "pegel_probe_up" => seen.up = Some((value > 0.0, kind)),
        "pegel_probe_state_since_timestamp_seconds" => seen.since_ms = Some(instant_ms(value)),
        "pegel_probe_maintenance" => seen.maintenance = value > 0.0,
        _ => seen.failure = Some((phase, reason)),
    }
}

fn row(agent: &AgentIdentity, labels: Vec<(String, String)>, seen: Seen, fresh_since_ms: i64) -> CheckRow {
    let mut labels: BTreeMap<String, String> = labels.into_iter().collect();
    let state = match &seen.up {
        _ if seen.last_run_ms < fresh_since_ms => CheckState::Unknown,
        _ if seen.maintenance => CheckState::Maintenance,
        Some((true, _)) => CheckState::Up,
        Some((false, _)) => CheckState::Down,
        None => CheckState::Pending,
    };
    let failing = seen.success.is_some_and(|success| success < 1.0);
    let job = labels.remove("job").unwrap_or_default();
    let (phase, reason) = seen.failure.filter(|_| failing).unzip();
    CheckRow {
        tenant: agent.tenant.to_string(),
        node: agent.node.to_string(),
        check: labels.remove("check").unwrap_or_else(|| job.clone()),
        job,
        instance: labels.remove("instance").unwrap_or_default(),
        kind: seen.up.map(|(_, kind)| kind).filter(|kind| !kind.is_empty()),
        labels,
        state,
        since_ms: if state == CheckState::Unknown { Some(seen.last_run_ms) } else { seen.since_ms },
        failing,
        error: phase.as_ref().zip(reason.as_ref()).map(|(phase, reason)| words(phase, reason)),
        phase,
        reason,
        last_run_ms: seen.last_run_ms,
        duration_seconds: seen.duration_seconds,
        certificate_expires_ms: seen.certificate_expires_ms,
    }
}

/// Phase and reason of a failure as a person says it.
fn words(phase: &str, reason: &str) -> String {
    let phase = match phase {
        "setup" => "before it began",
        "resolve" => "while the name was looked up",
        "connect" => "while connecting",
        "tls" => "in the TLS handshake",
        "login" => "while logging in",
        "processing" => "while waiting for the answer",
        "transfer" => "while reading the answer",
        "assertion" => "when the answer was looked at",
        other => return format!("{} ({other})", reason.replace('_', " ")),
    };
    format!("{} {phase}", reason.replace('_', " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::recent::Settings;
    use crate::output::recent::tests::{Bed, START_MS, identity};

    const SERIES: [&str; 7] = [
        "probe_success check=web job=blackbox instance=https://a/ team=shop node=n tenant=acme",
        "probe_duration_seconds check=web job=blackbox instance=https://a/ team=shop node=n tenant=acme",
        "probe_ssl_earliest_cert_expiry check=web job=blackbox instance=https://a/ team=shop node=n tenant=acme",
        "pegel_probe_maintenance check=web job=blackbox instance=https://a/ team=shop node=n tenant=acme",
        "pegel_probe_state_since_timestamp_seconds check=web job=blackbox instance=https://a/ team=shop node=n tenant=acme",
        "pegel_probe_up check=web job=blackbox instance=https://a/ team=shop node=n tenant=acme kind=http",
        "pegel_probe_failure check=web job=blackbox instance=https://a/ team=shop node=n tenant=acme phase=connect reason=refused",
    ];

    fn seen(values: &[f64]) -> CheckRow {
        let bed = Bed::new(Settings::default());
        let set = bed.set(&SERIES[..values.len()]);
        bed.observe("n", 1, START_MS, &set, values);
        bed.observe("n", 2, START_MS, &bed.set(&["node_load1 job=node"]), &[1.0]);
        let mut rows = checks(&bed.recent, &identity("n"), START_MS - 1);
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }

    #[test]
    fn a_check_that_is_down_says_since_when_how_far_it_came_and_why() {
        let row = seen(&[0.0, 0.25, 2_000_000_000.0, 0.0, 1_700_000_000.5, 0.0, 1.0]);
        assert_eq!((row.state, row.failing, row.since_ms), (CheckState::Down, true, Some(1_700_000_000_500)));
        assert_eq!(row.error.as_deref(), Some("refused while connecting"));
        assert_eq!(
            (row.check.as_str(), row.instance.as_str(), row.kind.as_deref()),
            ("web", "https://a/", Some("http"))
        );
        assert_eq!(row.labels, BTreeMap::from([("team".to_owned(), "shop".to_owned())]));
        assert_eq!(row.certificate_expires_ms, Some(2_000_000_000_000));
    }

    #[test]
    fn a_check_that_works_has_no_error_and_one_that_is_maintained_no_alarm() {
        let up = seen(&[1.0, 0.25, 2e9, 0.0, 1.7e9, 1.0]);
        assert_eq!((up.state, up.failing, up.error), (CheckState::Up, false, None));
        let maintained = seen(&[0.0, 0.25, 2e9, 1.0, 1.7e9, 0.0, 1.0]);
        assert_eq!((maintained.state, maintained.failing), (CheckState::Maintenance, true));
    }

    #[test]
    fn a_check_of_an_exporter_without_pegels_own_series_is_pending() {
        let row = seen(&[1.0, 0.25]);
        assert_eq!((row.state, row.kind, row.since_ms), (CheckState::Pending, None, None));
    }

    #[test]
    fn what_did_not_run_lately_is_unknown_since_it_last_did() {
        let bed = Bed::new(Settings::default());
        bed.observe("n", 1, START_MS, &bed.set(&SERIES[..6]), &[1.0, 0.25, 2e9, 0.0, 1.7e9, 1.0]);
        let rows = checks(&bed.recent, &identity("n"), START_MS + 1);
        assert_eq!((rows[0].state, rows[0].since_ms), (CheckState::Unknown, Some(START_MS)));
    }
}
