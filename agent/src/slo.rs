//! Service levels of checks as Prometheus rules: error ratios over several windows, what is left of the error budget,
//! and alerts on how fast it burns.
//!
//! Pure text out of objectives; `pegel-agent rules` prints it. The method is that of Google's Site Reliability Workbook,
//! chapter 5 ("multiwindow, multi-burn-rate alerts"): an alert fires when the budget burns so fast that a stated share
//! of it is gone within a long window, and still does in a short one, so that it ends soon after the trouble does.
//!
//! Everything is computed from `probe_success` and `probe_duration_seconds`, over all nodes that check a target. Runs in
//! a maintenance window count neither way.

use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often the rules are evaluated: as often as checks run, by default, at most.
const EVALUATION_INTERVAL: &str = "30s";
/// How often what covers the objective's whole window is evaluated: it reads a month of samples.
const WHOLE_WINDOW_INTERVAL: &str = "5m";
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// The windows over which error ratios are recorded.
const WINDOWS: [Duration; 7] = [
    Duration::from_mins(5),
    Duration::from_mins(30),
    HOUR,
    Duration::from_hours(2),
    Duration::from_hours(6),
    DAY,
    Duration::from_hours(72),
];

/// When somebody is told: the share of the budget that burns within the long window, that window, and the short one
/// that says whether it goes on.
struct Burn {
    share: f64,
    long: Duration,
    short: Duration,
}

/// Somebody has to come at once.
const PAGE: [Burn; 2] = [
    Burn { share: 0.02, long: HOUR, short: Duration::from_mins(5) },
    Burn { share: 0.05, long: Duration::from_hours(6), short: Duration::from_mins(30) },
];
/// Somebody has to look within the day.
const TICKET: [Burn; 2] = [
    Burn { share: 0.10, long: DAY, short: Duration::from_hours(2) },
    Burn { share: 0.10, long: Duration::from_hours(72), short: Duration::from_hours(6) },
];

/// What a check's users may expect.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// The check: the label `check` of its series.
    pub check: String,
    /// The share of runs that succeed, above 0 and below 1.
    pub availability: Option<f64>,
    /// How fast it answers.
    pub latency: Option<Latency>,
    /// The time over which it is looked at.
    pub window: Duration,
}

/// How fast a service answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// The share of good runs that are as fast, above 0 and below 1.
    pub share: f64,
    /// How long they may take.
    pub within: Duration,
}

#[derive(Debug, Serialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Debug, Serialize)]
struct Group {
    name: String,
    interval: &'static str,
    rules: Vec<Rule>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Rule {
    Record {
        record: String,
        expr: String,
        labels: BTreeMap<&'static str, String>,
    },
    Alert {
        alert: &'static str,
        expr: String,
        labels: BTreeMap<&'static str, String>,
        annotations: Annotations,
    },
}

#[derive(Debug, Serialize)]
struct Annotations {
    summary: String,
    description: String,
}

/// One of an objective's two indicators.
struct Indicator<'a> {
    check: &'a str,
    /// `availability` or `latency`.
    name: &'static str,
    /// 1 for a bad run, 0 for a good one.
    error: String,
    target: f64,
    window: Duration,
    /// What a bad run is, for people.
    bad: String,
}

/// The rule file for these objectives, as YAML.
pub fn rule_file(objectives: &[Objective]) -> String {
    let groups = objectives.iter().flat_map(indicators).flat_map(|indicator| indicator.groups()).collect();
    let head =
        "# Made by `pegel-agent rules` from the objectives of the checks. Load it with `rule_files`.\n";
    let body = serde_saphyr::to_string(&RuleFile { groups }).expect("plain structs become YAML");
    format!("{head}{body}")
}

fn indicators(objective: &Objective) -> Vec<Indicator<'_>> {
    let selector = format!("{{check={}}}", quoted(&objective.check));
    let maintained = format!("(pegel_probe_maintenance{selector} == 1)");
    let mut all = Vec::new();
    let mut add = |name, error: String, target, bad| {
        let Objective { check, window, .. } = objective;
        all.push(Indicator { check, name, error, target, window: *window, bad });
    };
    if let Some(target) = objective.availability {
        let error = format!("(1 - probe_success{selector}) unless {maintained}");
        add("availability", error, target, "fail".to_owned());
    }
    if let Some(Latency { share, within }) = objective.latency {
        let seconds = within.as_secs_f64();
        let error = format!(
            "((probe_duration_seconds{selector} > bool {seconds}) and (probe_success{selector} == 1)) unless {maintained}"
        );
        add("latency", error, share, format!("take longer than {seconds} s"));
    }
    all
}

impl Indicator<'_> {
    fn groups(&self) -> [Group; 2] {
        let mut rules = vec![self.record("pegel_slo:error", self.error.clone())];
        rules.push(self.record("pegel_slo:objective:ratio", format!("vector({})", self.target)));
        for window in WINDOWS {
            rules.push(self.record(&ratio(window), self.over(window)));
        }
        rules.extend(self.alert("PegelErrorBudgetBurnsFast", "critical", &PAGE, "1h and 5m, or 6h and 30m"));
        rules.extend(self.alert("PegelErrorBudgetBurns", "warning", &TICKET, "1d and 2h, or 3d and 6h"));
        let whole = ratio(self.window);
        let remaining = format!("1 - {whole}{} / {}", self.selector(), share(1.0 - self.target));
        let budget = vec![
            self.record(&whole, self.over(self.window)),
            self.record("pegel_slo:error_budget:remaining_ratio", remaining),
        ];
        let name = format!("pegel-slo-{}-{}", self.check, self.name);
        [
            Group { interval: WHOLE_WINDOW_INTERVAL, name: format!("{name}-budget"), rules: budget },
            Group { interval: EVALUATION_INTERVAL, name, rules },
        ]
    }

    fn labels(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([("slo", self.check.to_owned()), ("sli", self.name.to_owned())])
    }

    fn selector(&self) -> String {
        format!("{{slo={},sli=\"{}\"}}", quoted(self.check), self.name)
    }

    /// The mean over a window and over the nodes that check a target.
    fn over(&self, window: Duration) -> String {
        let (selector, window) = (self.selector(), words(window));
        format!("avg by (tenant, instance, slo, sli) (avg_over_time(pegel_slo:error{selector}[{window}]))")
    }

    fn record(&self, name: &str, expr: String) -> Rule {
        Rule::Record { record: name.to_owned(), expr, labels: self.labels() }
    }

    /// None where even an outage of everything would not burn so fast.
    fn alert(&self, name: &'static str, severity: &str, burns: &[Burn], windows: &str) -> Option<Rule> {
        let conditions: Vec<String> = burns
            .iter()
            .filter_map(|burn| {
                let factor = burn.share * self.window.as_secs_f64() / burn.long.as_secs_f64();
                let above = factor * (1.0 - self.target);
                let of = |window| format!("{}{} > {}", ratio(window), self.selector(), share(above));
                (above < 1.0).then(|| format!("({} and {})", of(burn.long), of(burn.short)))
            })
            .collect();
        if conditions.is_empty() {
            return None;
        }
        let Self { check, name: sli, bad, .. } = self;
        Some(Rule::Alert {
            alert: name,
            expr: conditions.join(" or "),
            labels: BTreeMap::from([("severity", severity.to_owned())]),
            annotations: Annotations {
                summary: format!("{check}: the {sli} budget of {{{{ $labels.instance }}}} burns too fast"),
                description: format!(
                    "{{{{ $value | humanizePercentage }}}} of the runs of check {check} against {{{{ $labels.instance }}}} {bad} \
                     (over {windows}); the objective allows {}. See `pegel status` and the check's last error.",
                    percent(1.0 - self.target)
                ),
            },
        })
    }
}

fn ratio(window: Duration) -> String {
    format!("pegel_slo:error:ratio_{}", words(window))
}

/// A duration as PromQL writes it, in one unit.
fn words(window: Duration) -> String {
    let seconds = window.as_secs();
    [(86_400, "d"), (3_600, "h"), (60, "m")]
        .into_iter()
        .find(|(unit, _)| seconds.is_multiple_of(*unit))
        .map_or_else(|| format!("{seconds}s"), |(unit, letter)| format!("{}{letter}", seconds / unit))
}

/// A share without the noise of binary fractions.
fn share(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

fn percent(value: f64) -> String {
    format!("{} %", share(value * 100.0))
}

/// A label value as PromQL quotes it.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests;
