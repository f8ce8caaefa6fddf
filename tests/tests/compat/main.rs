//! What dashboards, alerts and recording rules find: the same expressions on a Prometheus that pegel feeds and on one
//! that scrapes node_exporter, cAdvisor and blackbox_exporter on the same machine at the same time.
//!
//! The expressions are those of `expressions.tsv`: one or more a metric that public dashboards ask for. With
//! `PEGEL_QUERIES=/path/list.tsv` a list of one's own is evaluated too. What may differ is in `exceptions.tsv`, each
//! with its reason; anything else fails. `PEGEL_BLESS=1` writes `docs/compatibility.md`.

mod compare;
mod report;
mod servers;

use compare::{Exceptions, Outcome, compare};
use pegel_tests::expressions::{Expression, Kind, read};
use servers::{Servers, World};

/// The project's own list.
const OWN: &str = include_str!("expressions.tsv");
/// What may differ, and why.
const EXCEPTIONS: &str = include_str!("exceptions.tsv");

/// The expressions for one world.
fn expressions(world: World) -> Vec<Expression> {
    let mut all = read(OWN).unwrap_or_else(|e| panic!("expressions.tsv: {e}"));
    if let Some(path) = std::env::var_os("PEGEL_QUERIES") {
        let list = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        all.extend(read(&list).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    }
    all.retain(|expression| world.has(&expression.source));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboards_find_the_same_in_pegel_as_in_the_exporters() {
    let exceptions = Exceptions::read(EXCEPTIONS);
    let (stand_alone, kubernetes) =
        tokio::join!(outcomes(World::StandAlone, &exceptions), outcomes(World::Kubernetes, &exceptions));
    let (Some(stand_alone), Some(kubernetes)) = (stand_alone, kubernetes) else { return };
    let report = report::markdown(&stand_alone, &kubernetes, &exceptions);
    report::keep(&report);
    let unexplained: Vec<String> =
        stand_alone.iter().chain(&kubernetes).flat_map(|outcome| outcome.unexplained(&exceptions)).collect();
    assert!(
        unexplained.is_empty(),
        "{} differences have no reason in exceptions.tsv:\n{}",
        unexplained.len(),
        unexplained.join("\n")
    );
}

/// Evaluates all of a world's expressions on both sides; none if a server can't be had.
async fn outcomes(world: World, exceptions: &Exceptions) -> Option<Vec<Outcome>> {
    let expressions = expressions(world);
    let rules: Vec<&Expression> =
        expressions.iter().filter(|expression| expression.kind == Kind::Record).collect();
    let servers = Servers::start(world, &rules).await?;
    servers.filled().await;
    let mut outcomes = Vec::new();
    for expression in &expressions {
        outcomes.push(compare(&servers, expression, exceptions).await);
    }
    servers.end().await;
    Some(outcomes)
}
