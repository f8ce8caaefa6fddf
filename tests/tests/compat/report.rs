//! The result as Markdown.

use crate::compare::{Exceptions, Outcome, Verdict, metric_of};
use pegel_tests::workspace;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Where the last run's result is, beside the build.
const KEPT: &str = "target/compatibility.md";
/// Where the result is kept for readers.
const BLESSED: &str = "docs/compatibility.md";

/// How many series of a metric are shown that only one side has.
const SHOWN: usize = 4;

/// Writes the result to where the build is, and with `PEGEL_BLESS` to the documents.
pub fn keep(report: &str) {
    let blessed = std::env::var_os("PEGEL_BLESS").is_some_and(|value| value != "0");
    for file in [Some(KEPT), blessed.then_some(BLESSED)].into_iter().flatten() {
        let path = workspace().join(file);
        std::fs::write(&path, report).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        eprintln!("wrote {}", path.display());
    }
}

/// All of it.
pub fn markdown(stand_alone: &[Outcome], kubernetes: &[Outcome], exceptions: &Exceptions) -> String {
    let all: Vec<&Outcome> = stand_alone.iter().chain(kubernetes).collect();
    let mut out = String::from(
        "# What dashboards find\n\n\
         <!-- Made by `PEGEL_BLESS=1 cargo test -p pegel-tests --test compat`; tests/README.md says how. -->\n\n\
         Each expression was evaluated on two Prometheus servers at the same instant: one that pegel feeds, and one that\n\
         scrapes node_exporter, cAdvisor and blackbox_exporter on the same machine.\n\n",
    );
    sources(&mut out, &all);
    differences(&mut out, &all);
    series(&mut out, &all, exceptions);
    neither(&mut out, &all);
    out
}

/// How many expressions of each source have data where.
fn sources(out: &mut String, all: &[&Outcome]) {
    let mut by_source: BTreeMap<&str, BTreeMap<Verdict, usize>> = BTreeMap::new();
    for outcome in all {
        let source = by_source.entry(&outcome.expression.source).or_default();
        *source.entry(outcome.verdict).or_default() += 1;
    }
    out.push_str(
        "| source | expressions | data in both, same series | data in both, other series | in neither | only pegel | only the exporters |\n\
         | --- | --: | --: | --: | --: | --: | --: |\n",
    );
    for (source, verdicts) in by_source {
        let of = |verdict| verdicts.get(&verdict).copied().unwrap_or(0);
        let total: usize = verdicts.values().sum();
        let _ = writeln!(
            out,
            "| {source} | {total} | {} | {} | {} | {} | {} |",
            of(Verdict::Same),
            of(Verdict::OtherSeries),
            of(Verdict::Neither),
            of(Verdict::OnlyPegel),
            of(Verdict::OnlyExporters),
        );
    }
}

/// The expressions with data on one side only.
fn differences(out: &mut String, all: &[&Outcome]) {
    out.push_str("\n## Data on one side only\n\n");
    let one_sided: Vec<&&Outcome> = all
        .iter()
        .filter(|outcome| matches!(outcome.verdict, Verdict::OnlyPegel | Verdict::OnlyExporters))
        .collect();
    if one_sided.is_empty() {
        out.push_str("None.\n");
        return;
    }
    out.push_str("| source | name | metrics | data in | reason |\n| --- | --- | --- | --- | --- |\n");
    for outcome in one_sided {
        let side = if outcome.verdict == Verdict::OnlyPegel { "pegel" } else { "the exporters" };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {side} | {} |",
            outcome.expression.source,
            outcome.expression.name,
            codes(&outcome.metrics),
            outcome.reason.as_deref().unwrap_or("**not explained**"),
        );
    }
}

/// Metrics whose series are not the same.
fn series(out: &mut String, all: &[&Outcome], exceptions: &Exceptions) {
    out.push_str(
        "\n## Metrics whose series differ\n\nAsked for by the selectors of the expressions above.\n\n",
    );
    let mut metrics: BTreeMap<&str, (BTreeSet<&str>, BTreeSet<&str>)> = BTreeMap::new();
    for (selector, pegel, exporters) in all.iter().flat_map(|outcome| &outcome.differing) {
        let (pegels, others) = metrics.entry(metric_of(selector)).or_default();
        pegels.extend(pegel.iter().map(String::as_str));
        others.extend(exporters.iter().map(String::as_str));
    }
    if metrics.is_empty() {
        out.push_str("None.\n");
        return;
    }
    out.push_str("| metric | series only in pegel | series only in the exporters | reason |\n| --- | --: | --: | --- |\n");
    for (metric, (pegel, exporters)) in metrics {
        let reason = exceptions.reason([metric].into_iter()).unwrap_or("**not explained**");
        let _ = writeln!(out, "| `{metric}` | {} | {} | {reason} |", pegel.len(), exporters.len());
        for (side, series) in [("pegel", &pegel), ("the exporters", &exporters)] {
            series.iter().take(SHOWN).for_each(|series| eprintln!("only in {side}: {series}"));
        }
    }
}

/// What nobody has on this machine.
fn neither(out: &mut String, all: &[&Outcome]) {
    let empty: BTreeSet<String> = all
        .iter()
        .filter(|outcome| outcome.verdict == Verdict::Neither)
        .flat_map(|outcome| outcome.metrics.iter().cloned())
        .collect();
    let full: BTreeSet<String> = all
        .iter()
        .filter(|outcome| outcome.verdict != Verdict::Neither)
        .flat_map(|outcome| outcome.metrics.iter().cloned())
        .collect();
    let nowhere: BTreeSet<String> = empty.difference(&full).cloned().collect();
    let _ = write!(
        out,
        "\n## In neither\n\nAlerts whose threshold is not reached, and metrics that this machine has not, nor the exporters on it:\n{}.\n",
        codes(&nowhere)
    );
}

fn codes(metrics: &BTreeSet<String>) -> String {
    let metrics: Vec<String> = metrics.iter().map(|metric| format!("`{metric}`")).collect();
    metrics.join(", ")
}
