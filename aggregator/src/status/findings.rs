//! Why is my data not there? The one place that turns an agent's state into words, for the page, `pegel status` and
//! `pegel why`. A finding says what is so, why it matters or where the data is, and what to do.

mod files;

use super::fleet::{AgentStatus, Books, OutputStatus};
use super::words::{bytes, count, long_span, records, span};
use serde::{Deserialize, Serialize};

/// A session that ended this long ago may just be moving to another aggregator (idle limit of the uplink: 30 s).
const MOVING_MS: i64 = 30_000;
/// Batches are acknowledged within tens of milliseconds; a minute behind is a backlog.
const LAG_MS: u64 = 60_000;
/// Losses count as going on until they have not grown for this long.
pub(super) const ONGOING_MS: i64 = 600_000;
/// A clock this far off is worth a word: beyond what NTP leaves by orders of magnitude.
const CLOCK_NOTE_MS: i64 = 5_000;
/// Prometheus refuses samples that are more than ten minutes ahead; half of it is the last time to warn.
const CLOCK_WARN_MS: i64 = 300_000;
/// Long enough before its end to renew a certificate in working hours.
const CERTIFICATE_WARN_MS: i64 = 14 * 86_400_000;
/// Connected for this long, an agent has collected something: four default intervals.
const FIRST_DATA_MS: i64 = 60_000;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// All is well.
    Good,
    /// Worth knowing.
    Note,
    /// Data comes late, or will be refused soon.
    Warning,
    /// Data does not arrive, or is being lost.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What is so, in one short sentence.
    pub what: String,
    /// Where the data is, and why.
    pub why: String,
    /// What to do; empty if nothing.
    pub todo: String,
}

impl Finding {
    fn new(level: Level, what: impl Into<String>, why: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { level, what: what.into(), why: why.into(), todo: todo.into() }
    }
}

/// When an agent's losses last grew, as far as this aggregator has watched. Instants in milliseconds; none: not since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Growth {
    /// Records were dropped.
    pub dropped_ms: Option<i64>,
    /// Records were refused.
    pub rejected_ms: Option<i64>,
}

/// What there is to say of an agent, the worst first. Never empty. `outputs` are those of this aggregator, `heard_ms`
/// is when the last batch arrived here.
pub fn findings(
    agent: &AgentStatus,
    growth: &[Growth],
    outputs: &[OutputStatus],
    heard_ms: Option<i64>,
    now_ms: i64,
) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(contact(agent, now_ms));
    for (i, books) in agent.books.iter().enumerate() {
        if agent.connected
            && let Some(finding) = without_output(books, outputs)
        {
            found.push(finding);
            continue;
        }
        output(&mut found, books, growth.get(i).copied().unwrap_or_default(), now_ms);
    }
    if agent.connected {
        found.extend(files::behind(agent, outputs));
        found.extend(silence(agent, heard_ms, now_ms));
        found.extend(clock(agent));
    }
    found.extend(identity(agent, now_ms));
    if agent.quarantined_segments > 0 {
        found.push(Finding::new(
            Level::Warning,
            format!("{} damaged spool segments are set aside.", count(agent.quarantined_segments)),
            "Their batches could not be read back. The files were kept, in `quarantine` in the agent's state directory; everything else goes on.",
            "Check the node's disk (dmesg, smartctl).",
        ));
    }
    if found.is_empty() {
        let delivered = |signal: &str| -> u64 {
            let books = agent.books.iter().filter(|books| books.signal == signal);
            books.map(|books| books.delivered + books.held_already).sum()
        };
        let delivered: Vec<String> = ["metrics", "logs", "traces"]
            .into_iter()
            .filter(|signal| delivered(signal) > 0)
            .map(|signal| records(signal, delivered(signal)))
            .collect();
        let delivered = if delivered.is_empty() { "Nothing yet".to_owned() } else { delivered.join(" and ") };
        let waiting: u64 = agent.books.iter().map(|b| b.in_front + b.spooled).sum();
        let (what, why) = if agent.books.iter().all(|books| books.collected == 0) {
            ("Just connected.".to_owned(), "Its first report is due within half a minute.".to_owned())
        } else {
            let on_its_way =
                if waiting == 0 { String::new() } else { format!(", {} on their way", count(waiting)) };
            ("All is well.".to_owned(), format!("{delivered} delivered{on_its_way}."))
        };
        found.push(Finding::new(Level::Good, what, why, ""));
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    found
}

fn contact(agent: &AgentStatus, now_ms: i64) -> Option<Finding> {
    if agent.connected {
        return None;
    }
    let ago = now_ms - agent.last_contact_ms;
    let spooled = agent.spool_bytes + agent.front_bytes;
    let waiting = if spooled > 0 {
        format!(" When it last spoke, {} waited on the node.", bytes(spooled as f64))
    } else {
        String::new()
    };
    let ended = agent.ended.as_ref().map(|why| format!(" Its session ended: {why}.")).unwrap_or_default();
    if ago < MOVING_MS {
        return Some(Finding::new(
            Level::Note,
            "Disconnected a moment ago.",
            format!("It may be moving to another aggregator, or restarting.{ended}{waiting}"),
            "",
        ));
    }
    Some(Finding::new(
        Level::Bad,
        format!("No contact for {}.", long_span(ago)),
        format!(
            "If the node is up, its agent goes on collecting and keeps the data in its spool until it reaches an aggregator again.{ended}{waiting}"
        ),
        format!(
            "On {}: `systemctl status pegel-agent`, its log, and whether UDP reaches this aggregator. It last came from {}.",
            agent.hostname,
            agent.peer.ip()
        ),
    ))
}

/// Data that waits for an output which this aggregator does not have.
fn without_output(books: &Books, outputs: &[OutputStatus]) -> Option<Finding> {
    let (signal, name) = (&books.signal, &books.output);
    let backlog = books.in_front + books.spooled;
    let mut taking = outputs.iter().filter(|output| output.signal == *signal);
    if backlog == 0 || outputs.is_empty() || taking.clone().any(|output| output.name == *name) {
        return None;
    }
    let waiting = records(signal, backlog);
    if taking.next().is_none() {
        let kind = match signal.as_str() {
            "logs" => "of type `loki`",
            "metrics" => "of type `remote_write`",
            _ => "for them",
        };
        return Some(Finding::new(
            Level::Bad,
            format!("No output of this aggregator takes {signal}."),
            format!("{waiting} wait on the node; nothing is lost while its spool has room."),
            format!(
                "Add an output {kind} to the aggregator's configuration, or take {signal} out of the agent's."
            ),
        ));
    }
    // Before the first session nothing is assigned; a moment later it is.
    (!name.is_empty()).then(|| {
        Finding::new(
            Level::Warning,
            format!("This aggregator has no output {name}."),
            format!("{waiting} wait for it on the node, until the agent reaches an aggregator that has it, or gives it up after a day."),
            format!("Configure an output {name} for {signal} here too, or wait until it is given up (`buffer.retire_output_after`)."),
        )
    })
}

fn output(found: &mut Vec<Finding>, books: &Books, growth: Growth, now_ms: i64) {
    let name = &books.output;
    let logs = books.signal == "logs";
    let amount = |n: u64| records(&books.signal, n);
    let ongoing = |at: Option<i64>| at.is_some_and(|at| now_ms - at < ONGOING_MS);
    let backlog = books.in_front + books.spooled;
    if let Some(reason) = &books.parked {
        found.push(Finding::new(
            Level::Bad,
            format!("Output {name} takes nothing: {reason}."),
            format!("{} wait on the node; nothing is lost while its spool has room.", amount(backlog)),
            format!("Correct the URL, credentials or tenant of output {name} in the aggregator's configuration; it tries again by itself."),
        ));
    } else if books.lag_ms >= LAG_MS {
        found.push(Finding::new(
            Level::Warning,
            format!("{} behind to output {name}.", span(books.lag_ms as i64)),
            format!("{} wait on the node and are sent oldest first.", amount(backlog)),
            format!(
                "Nothing, if the number falls. If it does not: is the backend of {name} up, and fast enough?"
            ),
        ));
    }
    if books.dropped_total() > 0 {
        let now = ongoing(growth.dropped_ms);
        found.push(Finding::new(
            if now { Level::Bad } else { Level::Note },
            format!(
                "{} {} dropped on the node.",
                amount(books.dropped_total()),
                if now { "are being" } else { "were" }
            ),
            format!("{} (to output {name}).", reasons(&books.dropped, drop_words)),
            match (now, logs) {
                (true, false) => {
                    "Bring the backend back, or give the agent's spool more room (`buffer.quota`)."
                }
                (true, true) => {
                    "Bring the backend back, or give the agent's spool more room (`logs.buffer.quota`)."
                }
                (false, _) => "",
            },
        ));
    }
    if books.rejected_total() > 0 {
        let now = ongoing(growth.rejected_ms);
        let too_old = books.rejected.contains_key("too_old") || books.rejected.contains_key("out_of_order");
        found.push(Finding::new(
            if now { Level::Bad } else { Level::Note },
            format!(
                "{} {} refused by {name}.",
                amount(books.rejected_total()),
                if now { "are being" } else { "were" }
            ),
            format!(
                "{}. The agent keeps the latest: `pegel-agent rejects`.",
                reasons(&books.rejected, if logs { reject_words_of_logs } else { reject_words })
            ),
            match (now, too_old) {
                (true, true) if logs => {
                    "Raise `limits_config.reject_old_samples_max_age` in Loki above the longest outage to survive."
                }
                (true, true) => {
                    "Set `out_of_order_time_window` in Prometheus to the longest outage to survive."
                }
                (true, false) => "The last messages are under Refused.",
                _ => "",
            },
        ));
    }
    if books.lost_in_crash > 0 {
        found.push(Finding::new(
            Level::Note,
            format!("At most {} were lost in a crash.", amount(books.lost_in_crash)),
            if logs {
                "They were in memory when the agent was killed or the power went, and came from where nothing can be read again (syslog, a pipe, a file that is gone)."
            } else {
                "They were in memory, younger than the linger, when the agent was killed or the power went."
            },
            "",
        ));
    }
    let difference = books.difference();
    if difference != 0 {
        found.push(Finding::new(
            Level::Warning,
            format!("The books of {name} are off by {}.", amount(difference.unsigned_abs())),
            if difference > 0 {
                "That many were collected and are accounted for nowhere."
            } else {
                "That many are accounted for twice."
            },
            "Please report this: pegel's books should always balance.",
        ));
    }
}

fn identity(agent: &AgentStatus, now_ms: i64) -> Vec<Finding> {
    let mut found = Vec::new();
    if agent.conflicts > 0 {
        found.push(Finding::new(
            Level::Warning,
            "Another machine shows the same certificate.",
            format!(
                "It took this node's place {} times: each drives the other one out, and their series mix.",
                count(agent.conflicts)
            ),
            "Issue a certificate for each machine: `pegel pki issue`. A cloned disk image is the usual cause.",
        ));
    }
    let left_ms = agent.certificate_expires_ms.map(|at| at - now_ms);
    if let Some(left_ms) = left_ms.filter(|left| *left < CERTIFICATE_WARN_MS) {
        let (level, what) = if left_ms > 0 {
            (Level::Warning, format!("Its certificate expires in {}.", long_span(left_ms)))
        } else {
            (Level::Bad, "Its certificate has expired.".to_owned())
        };
        found.push(Finding::new(
            level,
            what,
            "Without a valid one it cannot connect; it keeps its data in its spool meanwhile.",
            "Issue a new one, `pegel pki issue --replace`, and put it in place; the agent takes it without a restart.",
        ));
    }
    found
}

fn silence(agent: &AgentStatus, heard_ms: Option<i64>, now_ms: i64) -> Option<Finding> {
    let connected_for = now_ms - agent.since_ms;
    if connected_for < FIRST_DATA_MS {
        return None;
    }
    if agent.books.iter().all(|books| books.collected == 0) {
        return Some(Finding::new(
            Level::Warning,
            "It collects nothing.",
            format!(
                "It has been connected for {} and has collected neither a sample nor a log entry.",
                long_span(connected_for)
            ),
            "Check the sources in its configuration: `pegel-agent validate`, `pegel-agent once`.",
        ));
    }
    // A node may have nothing to log for hours; a source of metrics is never silent.
    if agent.books.iter().all(|books| books.signal != "metrics" || books.collected == 0) {
        return None;
    }
    let silent = now_ms - heard_ms.unwrap_or(agent.since_ms);
    let held_back = agent.books.iter().any(|b| b.parked.is_some() || b.lag_ms >= LAG_MS);
    (silent >= 2 * FIRST_DATA_MS && !held_back).then(|| {
        Finding::new(
            Level::Warning,
            format!("Connected, but no samples for {}.", long_span(silent)),
            "Its heartbeats arrive; its batches do not, and none wait.",
            "Look at the agent's log: its sources may be stuck or their interval long.",
        )
    })
}

fn clock(agent: &AgentStatus) -> Option<Finding> {
    let ahead = agent.clock_ahead_ms.filter(|ahead| ahead.abs() >= CLOCK_NOTE_MS)?;
    let side = if ahead > 0 { "ahead" } else { "behind" };
    Some(Finding::new(
        if ahead.abs() >= CLOCK_WARN_MS { Level::Warning } else { Level::Note },
        format!("Its clock is {} {side}.", span(ahead.abs())),
        "Samples carry the node's time. Prometheus refuses what is more than ten minutes ahead, and charts are shifted.",
        "Check NTP on the node: `timedatectl`.",
    ))
}

fn reasons(
    counts: &std::collections::BTreeMap<String, u64>,
    words: impl Fn(&str) -> Option<&'static str>,
) -> String {
    let mut counts: Vec<_> = counts.iter().filter(|(_, n)| **n > 0).collect();
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let told: Vec<String> = counts
        .into_iter()
        .map(|(reason, n)| {
            format!("{} {}", count(*n), words(reason).map_or_else(|| reason.replace('_', " "), str::to_owned))
        })
        .collect();
    told.join(", ")
}

fn reject_words(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "too_old" => "too old for the backend",
        "out_of_order" => "behind their series' newest sample",
        "duplicate_timestamp" => "with another value than the backend has for that instant",
        "too_far_in_future" => "ahead of the backend's clock",
        "invalid_labels" => "with labels that the backend would not keep",
        "tenant_limit" => "above a limit of the tenant",
        "too_large" => "too large for the backend",
        _ => return None,
    })
}

fn reject_words_of_logs(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "too_old" => "older than the backend takes",
        "out_of_order" => "too far behind their stream's newest entry",
        "too_large" => "with lines longer than the backend takes",
        "invalid_labels" => "with labels that the backend does not take",
        other => return reject_words(other),
    })
}

fn drop_words(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "quota_oldest" => "because the spool was full and its oldest gave way",
        "quota_newest" => "because the spool was full",
        "buffer_unavailable" => "because the node's disk took nothing",
        "damaged" => "in damaged segments",
        "output_retired" => "because the output is no longer there",
        "shutdown" => "because the agent ended while its disk took nothing",
        "intake_full" => "because the agent could not keep up",
        _ => return None,
    })
}
