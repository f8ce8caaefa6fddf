//! `pegel status` and `pegel why`: what the page shows, on a terminal.

use crate::cli::{StatusArgs, WhyArgs};
use crate::client::StatusClient;
use crate::paint::{Paint, fit, printable, wrap};
use anyhow::{Result, bail};
use pegel_aggregator::status::findings::Level;
use pegel_aggregator::status::words::{bytes, count, span};
use pegel_aggregator::status::{AgentSummary, BooksRow, FleetAnswer};
use std::fmt::Write as _;

/// Asks for the fleet and prints it.
pub fn status(args: &StatusArgs) -> Result<String> {
    let client = StatusClient::new(&args.url.aggregator_url)?;
    let asked = async {
        if args.json {
            let mut text = String::from_utf8(client.body("/api/v1/fleet").await?)?;
            text.push('\n');
            return Ok(text);
        }
        Ok(table(&client.fleet().await?, args.brief, Paint::for_stdout()))
    };
    wait_for(asked)
}

/// Asks for a node and tells what there is to say.
pub fn why(args: &WhyArgs) -> Result<String> {
    let client = StatusClient::new(&args.url.aggregator_url)?;
    let fleet = wait_for(client.fleet())?;
    let named = |agent: &&AgentSummary| {
        agent.row.node == args.node && args.tenant.as_ref().is_none_or(|tenant| agent.row.tenant == *tenant)
    };
    let found: Vec<&AgentSummary> = fleet.agents.iter().filter(named).collect();
    match found[..] {
        [] => bail!(
            "the aggregator has not heard of node {} since it started. Is its agent running, with this aggregator's address? Another aggregator may have it. Known are: {}",
            args.node,
            known(&fleet)
        ),
        [agent] => Ok(told(agent, fleet.now_ms, Paint::for_stdout())),
        _ => {
            let tenants: Vec<&str> = found.iter().map(|agent| agent.row.tenant.as_str()).collect();
            bail!("several tenants have a node {}: say --tenant {}", args.node, tenants.join(" or --tenant "))
        }
    }
}

fn wait_for<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(asked)
}

fn known(fleet: &FleetAnswer) -> String {
    const MOST: usize = 20;
    let mut names: Vec<&str> = fleet.agents.iter().take(MOST).map(|agent| agent.row.node.as_str()).collect();
    if fleet.agents.is_empty() {
        names.push("none");
    } else if fleet.agents.len() > MOST {
        names.push("and others");
    }
    names.join(", ")
}

/// The fleet as a table: NODE 24, STATE 26, LAG 9, SPOOLED 9, LOST 9, with a space between: 81 less the last one.
fn table(fleet: &FleetAnswer, brief: bool, paint: Paint) -> String {
    let mut out = String::new();
    let connected = fleet.agents.iter().filter(|agent| agent.row.connected).count();
    let _ = writeln!(
        out,
        "{}  {} known, {connected} connected",
        paint.bold(&format!("aggregator {}", printable(&fleet.aggregator))),
        match fleet.agents.len() {
            1 => "1 node".to_owned(),
            n => format!("{n} nodes"),
        }
    );
    for output in &fleet.outputs {
        let level = if output.ok { Level::Good } else { Level::Bad };
        let _ = writeln!(
            out,
            "{}",
            paint.level(level, &wrap(&format!("output {}: {}", output.name, output.detail), 2))
        );
    }
    if fleet.agents.is_empty() {
        out.push_str(
            "\nNo agent yet. Issue a certificate with `pegel pki issue --tenant T --node N`, then\n",
        );
        out.push_str("start `pegel-agent run --aggregator HOST:PORT` on the node.\n");
        return out;
    }
    let head =
        format!("{} {} {:>9} {:>9} {:>8}", fit("NODE", 24), fit("STATE", 26), "LAG", "SPOOLED", "LOST");
    let _ = writeln!(out, "\n{}", paint.faint(&head));
    let mut agents: Vec<&AgentSummary> = fleet.agents.iter().collect();
    agents.sort_by_key(|agent| std::cmp::Reverse(agent.row.level));
    for agent in agents {
        let row = &agent.row;
        let lost = row.dropped + row.rejected;
        let lag = if row.lag_ms < 1000 { "0".to_owned() } else { span(row.lag_ms as i64) };
        let state = paint.level(row.level, &fit(&row.headline, 26));
        let name = fit(&format!("{}/{}", row.tenant, row.node), 24);
        let _ = writeln!(
            out,
            "{name} {state} {lag:>9} {:>9} {:>8}",
            bytes(row.spooled_bytes as f64),
            count(lost)
        );
        if !brief {
            for books in &agent.books {
                let _ = writeln!(out, "{}", paint.faint(&wrap(&balance(books), 2)));
            }
        }
    }
    out
}

/// The books in one sentence.
fn balance(row: &BooksRow) -> String {
    let books = &row.books;
    let mut parts = vec![format!("{} delivered", count(books.delivered))];
    for (n, name) in [
        (books.held_already, "held already"),
        (books.in_front, "in front"),
        (books.spooled, "spooled"),
        (books.dropped_total(), "dropped"),
        (books.rejected_total(), "refused"),
        (books.lost_in_crash, "lost in a crash"),
    ] {
        if n > 0 {
            parts.push(format!("{} {name}", count(n)));
        }
    }
    let verdict = match row.difference {
        0 => "balanced".to_owned(),
        off => format!("OFF BY {}", count(off.unsigned_abs())),
    };
    let output = if books.output.is_empty() { "no output yet" } else { &books.output };
    format!(
        "{} to {output}: {} collected = {}; {verdict}",
        books.signal,
        count(books.collected),
        parts.join(" + ")
    )
}

/// All that there is to say of one node.
fn told(agent: &AgentSummary, now_ms: i64, paint: Paint) -> String {
    let row = &agent.row;
    let mut out = String::new();
    let contact = if row.connected {
        format!("connected for {}", span(now_ms - agent.since_ms))
    } else {
        format!("last contact {} ago", span(now_ms - row.last_contact_ms))
    };
    let title = printable(&format!("{} of tenant {}", row.node, row.tenant));
    let _ = writeln!(
        out,
        "{}: {contact}, pegel-agent {}, {}\n",
        paint.bold(&title),
        printable(&row.version),
        agent.peer
    );
    for finding in &agent.findings {
        let _ = writeln!(out, "{}", paint.level(finding.level, &wrap(&finding.what, 0)));
        let _ = writeln!(out, "{}", wrap(&finding.why, 2));
        if !finding.todo.is_empty() {
            let _ = writeln!(out, "{}", wrap(&format!("-> {}", finding.todo), 2));
        }
        out.push('\n');
    }
    for books in &agent.books {
        let _ = writeln!(out, "{}", wrap(&balance(books), 0));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paint::COLUMNS;

    /// As the API gives it.
    fn fleet() -> FleetAnswer {
        let agent = |node: &str, level: &str, headline: &str, spooled: u64| {
            serde_json::json!({
                "tenant": "acme", "node": node, "version": "0.1.0", "connected": true, "last_contact_ms": 99_000,
                "level": level, "headline": headline, "lag_ms": 3_900_000, "spooled_bytes": 50_331_648,
                "waiting": spooled, "delivered": 10, "held": 0, "dropped": 0, "rejected": 900, "live": {},
                "hostname": node, "peer": "10.0.0.1:1", "epoch": "1", "since_ms": 0, "clock_ahead_ms": 3,
                "front_bytes": 0, "quarantined_segments": 0,
                "findings": [{"level": level, "what": headline, "why": "Because.", "todo": "Do it."}],
                "books": [{
                    "signal": "metrics", "output": "prometheus", "collected": 1_000_910 + spooled,
                    "delivered": 1_000_010, "held_already": 0, "in_front": 0, "spooled": spooled, "dropped": {},
                    "rejected": {"too_old": 900}, "lost_in_crash": 0, "lag_ms": 0, "parked": null, "difference": 0
                }]
            })
        };
        serde_json::from_value(serde_json::json!({
            "now_ms": 100_000, "aggregator": "site-1", "version": "0.1.0",
            "agents": [
                agent("web-1", "good", "All is well.", 0),
                agent("a-node-with-a-rather-long-name.example", "bad", "Output prometheus takes nothing: 401.", 2_345_678),
            ],
            "outputs": [{"name": "prometheus", "signal": "metrics", "ok": false, "detail": "401",
                "accepts_out_of_order": true, "out_of_order_window_seconds": 0}]
        }))
        .unwrap()
    }

    #[test]
    fn the_table_fits_eighty_columns_and_begins_with_trouble() {
        let text = table(&fleet(), false, Paint::plain());
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        let nodes: Vec<&str> = text.lines().filter(|line| line.starts_with("acme/")).collect();
        assert!(nodes[0].starts_with("acme/a-node-with-a-rath… Output prometheus takes n…"), "{text}");
        let unwrapped = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let books = "3,346,588 collected = 1,000,010 delivered + 2,345,678 spooled + 900 refused; balanced";
        assert!(unwrapped.contains(books), "{text}");
        assert!(!table(&fleet(), true, Paint::plain()).contains("collected"));
    }

    #[test]
    fn an_empty_fleet_says_what_to_do() {
        let fleet = FleetAnswer { agents: Vec::new(), ..fleet() };
        assert!(table(&fleet, false, Paint::plain()).contains("No agent yet. Issue a certificate"));
    }

    #[test]
    fn why_tells_what_is_so_and_what_to_do() {
        let text = told(&fleet().agents[1], 100_000, Paint::plain());
        for part in ["of tenant acme: connected for 1 min 40 s", "takes nothing", "  Because.", "  -> Do it."]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
