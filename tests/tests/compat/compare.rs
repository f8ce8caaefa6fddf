//! One expression on both sides.

use crate::servers::{Servers, World};
use pegel_tests::expressions::{Expression, selectors};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

/// How far back is evaluated: what was read by then has been sent and written on both sides.
const SETTLED_SECONDS: f64 = 2.0;

/// What one side gives for an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Series, by their labels.
    Data(BTreeSet<String>),
    /// Nothing.
    Empty,
    /// It can't be evaluated.
    Wrong(String),
}

impl Answer {
    fn has_data(&self) -> bool {
        matches!(self, Self::Data(_))
    }

    fn series(&self) -> BTreeSet<String> {
        match self {
            Self::Data(series) => series.clone(),
            _ => BTreeSet::new(),
        }
    }
}

/// Who has data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Both sides, for the same labels.
    Same,
    /// Both sides, for labels that differ.
    OtherSeries,
    /// Neither: an alert that does not fire, hardware that is not there.
    Neither,
    /// Pegel only.
    OnlyPegel,
    /// The exporters only.
    OnlyExporters,
}

/// An expression's outcome.
#[derive(Debug)]
pub struct Outcome {
    /// The expression.
    pub expression: Expression,
    /// Who has data.
    pub verdict: Verdict,
    /// Why that is so, if it is known not to be the same.
    pub reason: Option<String>,
    /// The metrics that it asks for.
    pub metrics: BTreeSet<String>,
    /// Of the selectors in it, those whose series differ: the selector, and series of pegel's and of the exporters'
    /// that the other has not.
    pub differing: Vec<(String, BTreeSet<String>, BTreeSet<String>)>,
}

impl Outcome {
    /// Differences without a reason, as words.
    pub fn unexplained(&self, exceptions: &Exceptions) -> Vec<String> {
        let mut words = Vec::new();
        let Expression { source, name, text, .. } = &self.expression;
        if matches!(self.verdict, Verdict::OnlyPegel | Verdict::OnlyExporters) && self.reason.is_none() {
            words.push(format!("{:?}: {source}, {name}: {text}", self.verdict));
        }
        for (selector, pegel, exporters) in &self.differing {
            if exceptions.reason([metric_of(selector)].into_iter()).is_none() {
                words.push(format!(
                    "{source}, {name}: {selector}: only pegel {pegel:?}, only the exporters {exporters:?}"
                ));
            }
        }
        words
    }
}

/// Evaluates an expression, and each selector in it, on both sides at one instant.
pub async fn compare(servers: &Servers, expression: &Expression, exceptions: &Exceptions) -> Outcome {
    let query = expression.query(&servers.variables(&expression.source));
    let query = query.unwrap_or_else(|e| panic!("{}, {}: {e}", expression.source, expression.name));
    let query = servers.world.relabelled(&query);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let at = now - SETTLED_SECONDS;
    let (pegel, other) = both(servers, &query, at).await;
    let verdict = match (pegel.has_data(), other.has_data()) {
        (true, true) if pegel == other => Verdict::Same,
        (true, true) => Verdict::OtherSeries,
        (true, false) => Verdict::OnlyPegel,
        (false, true) => Verdict::OnlyExporters,
        (false, false) => Verdict::Neither,
    };
    for (side, answer) in [("pegel", &pegel), ("the exporters", &other)] {
        if let Answer::Wrong(error) = answer {
            eprintln!("{}, {} on {side}: {error}: {query}", expression.source, expression.name);
        }
    }
    let tree = servers.other.parse(&query).await.unwrap_or_else(|e| panic!("{query}: {e}"));
    let mut differing = Vec::new();
    let mut metrics = BTreeSet::new();
    for selector in selectors(&tree) {
        metrics.insert(metric_of(&selector).to_owned());
        let (pegel, other) = both(servers, &selector, at).await;
        let (pegel, other) = (pegel.series(), other.series());
        if pegel != other {
            let only =
                |one: &BTreeSet<String>, not: &BTreeSet<String>| one.difference(not).cloned().collect();
            differing.push((selector, only(&pegel, &other), only(&other, &pegel)));
        }
    }
    let reason = exceptions.reason(metrics.iter().map(String::as_str)).map(str::to_owned);
    Outcome { expression: expression.clone(), verdict, reason, metrics, differing }
}

async fn both(servers: &Servers, query: &str, at: f64) -> (Answer, Answer) {
    let (pegel, other) = tokio::join!(servers.pegel.query_at(query, at), servers.other.query_at(query, at));
    (answer(pegel, servers), answer(other, servers))
}

fn answer(data: Result<serde_json::Value, String>, servers: &Servers) -> Answer {
    let data = match data {
        Ok(data) => data,
        Err(error) => return Answer::Wrong(error),
    };
    let series = match data["result"].as_array() {
        // A scalar: the scalar of nothing is not a number.
        Some(pair) if data["resultType"] == "scalar" => match pair[1].as_str() {
            Some("NaN") | None => return Answer::Empty,
            Some(_) => BTreeSet::from(["a scalar".to_owned()]),
        },
        Some(series) => {
            let metrics = series.iter().map(|series| &series["metric"]);
            let here = metrics.filter(|metric| metric["id"].as_str().is_none_or(|id| servers.has_cgroup(id)));
            here.map(|metric| labels(metric, servers.world)).collect()
        }
        None => return Answer::Wrong(format!("an answer without a result: {data}")),
    };
    if series.is_empty() { Answer::Empty } else { Answer::Data(series) }
}

/// A series' labels as text, without `tenant` and `node`, which pegel's aggregator adds to everything.
fn labels(metric: &serde_json::Value, world: World) -> String {
    let labels: BTreeMap<String, String> = serde_json::from_value(metric.clone()).expect("labels");
    // Where the scraper gives the node too, it has to be the same.
    let gives_node = world == World::Kubernetes && labels.get("job").is_some_and(|job| job == "kubelet");
    let labels = labels.iter().filter(|(name, _)| match name.as_str() {
        "tenant" => false,
        "node" => gives_node,
        _ => true,
    });
    labels.map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>().join(",")
}

/// The metric that a selector names, or nothing.
pub fn metric_of(selector: &str) -> &str {
    let name = selector.split("__name__=\"").nth(1).and_then(|rest| rest.split('"').next());
    name.unwrap_or_default()
}

/// What may differ, by metric.
#[derive(Debug)]
pub struct Exceptions(Vec<(&'static str, &'static str)>);

impl Exceptions {
    /// Reads lines of a metric's name (or the beginning of names, with a `*` behind it), a tab and the reason.
    pub fn read(text: &'static str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| line.split_once('\t').expect("a name, a tab, a reason")).collect())
    }

    /// Why one of these metrics is not the same; none if all should be.
    pub fn reason<'a>(&self, metrics: impl Iterator<Item = &'a str>) -> Option<&'static str> {
        let mut metrics = metrics;
        metrics.find_map(|metric| {
            let (_, reason) = self.0.iter().find(|(pattern, _)| match pattern.strip_suffix('*') {
                Some(prefix) => metric.starts_with(prefix),
                None => metric == *pattern,
            })?;
            Some(*reason)
        })
    }
}
