//! Why do lines wait in their files?

use super::super::fleet::{AgentStatus, FilesBehind, NoRoom, OutputStatus};
use super::super::words::{bytes, count, span};
use super::{Finding, Level};
use std::fmt::Write as _;

/// From here on files are late, and not only on their way.
const LATE_MS: u64 = 60_000;
/// Without room for so long, files wait for somebody else.
const NO_ROOM_MS: u64 = 5_000;
/// How many files are named.
const MOST_NAMED: usize = 3;

/// What there is to say of files that are behind: they wait because there is no room, or they are read too slowly.
pub(super) fn behind(agent: &AgentStatus, outputs: &[OutputStatus]) -> Option<Finding> {
    let behind = agent.files_behind.as_ref()?;
    let waits = behind.no_room_ms >= NO_ROOM_MS;
    if !waits && behind.waits_ms < LATE_MS {
        return None;
    }
    let files = if behind.files == 1 {
        "1 log file".to_owned()
    } else {
        format!("{} log files", count(behind.files))
    };
    let verb = match (waits, behind.files == 1) {
        (true, true) => "waits unread",
        (true, false) => "wait unread",
        (false, true) => "is read late",
        (false, false) => "are read late",
    };
    let what =
        format!("{files} {verb}: {}, {} behind.", bytes(behind.bytes as f64), span(behind.waits_ms as i64));
    let cause = cause(behind, waits, &troubles(agent, outputs));
    let why = format!("{cause} {} {}", named(behind), KEPT);
    Some(Finding::new(Level::Warning, what, why, todo(behind, waits)))
}

const KEPT: &str =
    "Nothing is lost: files that are removed meanwhile are kept open, 1,024 at most, and are read later.";

/// The outputs of logs that are in trouble with this agent's tenant, in words.
fn troubles(agent: &AgentStatus, outputs: &[OutputStatus]) -> Vec<String> {
    let logs = || agent.books.iter().filter(|books| books.signal == "logs");
    let parked = logs()
        .filter_map(|books| Some(format!("{} takes nothing: {}", books.output, books.parked.as_ref()?)));
    let failing = outputs.iter().filter(|output| {
        output.signal == "logs" && logs().all(|books| books.output != output.name || books.parked.is_none())
    });
    let failing = failing.filter_map(|output| {
        let trouble = output.troubles.get(agent.identity.tenant.as_str())?;
        Some(format!("{}: {trouble}", output.name))
    });
    parked.chain(failing).collect()
}

fn cause(behind: &FilesBehind, waits: bool, troubles: &[String]) -> String {
    let mut cause = match (behind.no_room, waits) {
        (Some(NoRoom::BufferFull), true) => "The node's buffer for logs is full".to_owned(),
        (Some(NoRoom::Disk), true) => {
            "The node's disk takes nothing, and its memory for logs is full".to_owned()
        }
        (_, true) => "What was read is not acknowledged".to_owned(),
        (_, false) if troubles.is_empty() => {
            return "More is written than is taken, or the agent catches up after an outage or a first start."
                .to_owned();
        }
        (_, false) => "Less is taken than is written".to_owned(),
    };
    if waits {
        let _ = write!(cause, " (for {})", span(behind.no_room_ms as i64));
    }
    match troubles {
        [] => cause.push('.'),
        some => {
            let _ = write!(cause, ". Output {}.", some.join("; output "));
        }
    }
    cause
}

fn named(behind: &FilesBehind) -> String {
    let mut named = String::new();
    for file in behind.worst.iter().take(MOST_NAMED) {
        let before = if named.is_empty() { "Most waits in " } else { ", " };
        let (size, waits) = (bytes(file.bytes as f64), span(file.waits_ms as i64));
        let _ = write!(named, "{before}{} ({size}, {waits})", file.path);
    }
    if !named.is_empty() {
        named.push('.');
    }
    named
}

fn todo(behind: &FilesBehind, waits: bool) -> &'static str {
    match (behind.no_room, waits) {
        (Some(NoRoom::Disk), true) => "Look at the node's disk (df, dmesg). Files are read on by themselves.",
        (_, true) => {
            "Bring the backend back, or raise its limits; files are read on by themselves. More room on the node is `logs.buffer.quota`."
        }
        (_, false) => {
            "Nothing, if the numbers fall. If they do not: is the backend fast enough, and its limits high enough?"
        }
    }
}
