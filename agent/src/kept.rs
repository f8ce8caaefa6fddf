//! What an agent keeps in its state directory, for people: the buffer, and what outputs refused.

use crate::cli::{ConfigArgs, RejectsArgs};
use crate::config::{Purpose, load_settings};
use crate::delivery::LOGS_DIR;
use crate::intake::{Intake, LogIntake};
use crate::rejects::{self, Rejects, replay_blocks, replay_logs};
use crate::spool::inspect::{self, ListedRecord, ListedSegment, Listing};
use anyhow::Context as _;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::post;
use parking_lot::Mutex;
use pegel_runtime::http_client::{ClientTls, http_client};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Which rejects are replayed.
#[derive(serde::Deserialize)]
struct ReplayQuery {
    output: Option<String>,
}

/// What sends kept rejects again.
#[derive(Clone)]
pub struct Replay {
    /// Where they are kept.
    pub rejects: Arc<Mutex<Rejects>>,
    /// Where samples go.
    pub samples: Intake,
    /// Where log entries go; none if logs are not delivered.
    pub entries: Option<LogIntake>,
}

impl Replay {
    /// `POST /api/v1/rejects/replay`.
    pub fn route(self) -> axum::Router {
        let answer =
            move |Query(which): Query<ReplayQuery>| async move { self.again(which.output.as_deref()) };
        axum::Router::new().route("/api/v1/rejects/replay", post(answer))
    }

    fn again(&self, output: Option<&str>) -> Result<axum::Json<Value>, (StatusCode, String)> {
        let unreadable = |error: std::io::Error| {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot take the kept rejects: {error}\n"))
        };
        let mut rejects = self.rejects.lock();
        let kept = rejects.list(output).map_err(unreadable)?;
        let blocks = replay_blocks(&kept);
        let samples: usize = blocks.iter().map(|b| b.values.len()).sum();
        let logs = replay_logs(&kept);
        let entries: u64 = logs.iter().map(|l| u64::from(l.block.entries)).sum();
        // All or nothing: what is offered must be what is removed.
        let room =
            logs.is_empty() || self.entries.as_ref().is_some_and(|intake| intake.has_room_for(logs.len()));
        if !room || !self.samples.offer(blocks) {
            let words = if self.entries.is_none() && entries > 0 {
                "the agent delivers no logs (`logs.inputs` is empty): nothing was sent again, nothing was removed\n"
            } else {
                "the agent is busy: nothing was sent again, nothing was removed; try later\n"
            };
            return Err((StatusCode::SERVICE_UNAVAILABLE, words.to_owned()));
        }
        for block in logs {
            let offered = self.entries.as_ref().map(|intake| intake.try_offer(block));
            if let Some(Err(_)) = offered {
                // Another source was faster. They stay listed, and what went ahead may be repeated.
                let words = "the agent is busy: a part was sent again, nothing was removed; try later\n";
                return Err((StatusCode::SERVICE_UNAVAILABLE, words.to_owned()));
            }
        }
        if let Err(error) = rejects.take(output) {
            tracing::warn!(%error, "replayed rejects could not be removed; they are listed still");
        }
        Ok(axum::Json(json!({ "samples": samples, "entries": entries })))
    }
}

/// Describes the buffer in a state directory.
pub fn inspect_buffer(state_dir: &Path, json: bool) -> anyhow::Result<String> {
    let list =
        |dir: PathBuf| inspect::list(&dir).with_context(|| format!("cannot look into `{}`", dir.display()));
    let metrics = list(state_dir.join("spool"))?;
    let logs_dir = state_dir.join(LOGS_DIR);
    let logs = logs_dir.is_dir().then(|| list(logs_dir.join("spool"))).transpose()?;
    if json {
        let mut all = listing_json(&metrics);
        all["logs"] = logs.as_ref().map(listing_json).into();
        return Ok(format!("{all:#}\n"));
    }
    let mut text = listing_table(&metrics, "SAMPLES");
    if let Some(logs) = logs {
        text.push_str("\nlogs:\n");
        text.push_str(&listing_table(&logs, "ENTRIES"));
    }
    Ok(text)
}

/// Lists or replays rejects in a state directory.
pub fn rejects(state_dir: &Path, args: &RejectsArgs) -> anyhow::Result<String> {
    if args.replay {
        return replay(args);
    }
    let dir = state_dir.join("rejects");
    let kept = rejects::read(&dir).with_context(|| format!("cannot read `{}`", dir.display()))?;
    let wanted = |output: &str| args.output.as_ref().is_none_or(|name| name == output);
    let kept: Vec<_> = kept.into_iter().filter(|k| wanted(&k.output)).collect();
    if args.state.json {
        return Ok(format!("{}\n", serde_json::to_string_pretty(&kept)?));
    }
    let mut text = String::new();
    for rejection in &kept {
        let example = rejection.samples.first();
        let name = example.and_then(|s| s.labels.get("__name__")).cloned();
        let example = rejection.entries.first();
        let stream = example.map(|e| format!("{:?}", e.labels));
        let what = match rejection.entries.len() {
            0 => format!("{} samples", rejection.samples.len()),
            entries => format!("{entries} log entries"),
        };
        let _ = writeln!(
            text,
            "{} {} batch {}: {what} refused as {} (first {}): {}",
            rejection.at_ms,
            rejection.output,
            rejection.seq,
            rejection.reason,
            name.or(stream).unwrap_or_default(),
            rejection.message
        );
    }
    if kept.is_empty() {
        text.push_str("nothing was refused, or it was replayed\n");
    }
    Ok(text)
}

/// Has the running agent send kept rejects again, through its admin HTTP.
fn replay(args: &RejectsArgs) -> anyhow::Result<String> {
    let config = ConfigArgs {
        config: args.state.config.clone(),
        state_dir: args.state.state_dir.clone(),
        ..ConfigArgs::default()
    };
    let admin = load_settings(&config.input(), Purpose::Collect)?.settings.admin;
    let written = admin.address_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    let address = written.map_or_else(|| admin.listen.to_string(), |text| text.trim().to_owned());
    let query = args.output.as_ref().map(|name| format!("?output={name}")).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = http_client(&ClientTls::default(), Duration::from_secs(5))?;
        let request = http::Request::post(format!("http://{address}/api/v1/rejects/replay{query}"))
            .body(http_body_util::Full::default())?;
        let answer = client.request(request).await.with_context(|| {
            format!(
                "cannot reach the agent's admin HTTP on {address}: rejects are replayed by the running agent"
            )
        })?;
        let ok = answer.status().is_success();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        anyhow::ensure!(ok, "the agent on {address} refused: {text}");
        Ok(format!("sent again: {text}\n"))
    })
}

/// A spool's listing as JSON, for `pegel-agent buffer inspect --json`.
fn listing_json(listing: &Listing) -> Value {
    let segment = |s: &ListedSegment| {
        json!({
            "name": s.name,
            "first": s.records.first().map(|r| r.seq.0),
            "last": s.records.last().map(|r| r.seq.0),
            "batches": s.tally().batches,
            "samples": s.tally().records,
            "oldest_ms": s.records.iter().map(|r| r.oldest_ms).min(),
            "disk_bytes": s.disk_bytes,
            "sealed": s.sealed,
            "words": s.words,
        })
    };
    json!({
        "segments": listing.segments.iter().map(segment).collect::<Vec<_>>(),
        "quarantine": listing.quarantine.iter().map(segment).collect::<Vec<_>>(),
    })
}

/// A spool's listing as a table.
fn listing_table(listing: &Listing, records: &str) -> String {
    let mut out = String::new();
    if listing.segments.is_empty() {
        out.push_str("the buffer is empty: everything was delivered, or nothing had to be written to disk\n");
    } else {
        let _ = writeln!(
            out,
            "{:<24} {:>12} {:>12} {:>9} {:>11} {:>11}",
            "SEGMENT", "FIRST", "LAST", "BATCHES", records, "DISK BYTES"
        );
    }
    for (segments, heading) in
        [(&listing.segments, None), (&listing.quarantine, Some("set aside as damaged:"))]
    {
        if let Some(heading) = heading.filter(|_| !segments.is_empty()) {
            let _ = writeln!(out, "\n{heading}");
        }
        for s in segments {
            let seq = |r: Option<&ListedRecord>| r.map_or_else(String::new, |r| r.seq.to_string());
            let tally = s.tally();
            let _ = writeln!(
                out,
                "{:<24} {:>12} {:>12} {:>9} {:>11} {:>11}{}",
                s.name,
                seq(s.records.first()),
                seq(s.records.last()),
                tally.batches,
                tally.records,
                s.disk_bytes,
                s.words.as_ref().map(|w| format!("  {w}")).unwrap_or_default()
            );
        }
    }
    out
}
