//! Who called in: cron jobs, backups, whatever has to say at times that it ran.
//!
//! A job calls `POST /api/v1/heartbeats/NAME` on the agent's admin address, at its end or, with `/start` and `?exit_code=N`,
//! at both ends. What was last heard is kept in a file of the state directory, so that a job that calls once a night is
//! not missed because the agent was restarted at noon.

mod keeper;

use keeper::{Keeper, Version, Write};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The file in the state directory.
const FILE: &str = "heartbeats.json";
/// The largest file that is read, in bytes: ten thousand jobs.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// How long a caller waits until what it said is on the disk.
pub const KEPT_WITHIN: Duration = Duration::from_secs(5);

/// What is known of a job. All instants are milliseconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heard {
    /// Since when it is expected.
    pub expected_since_ms: i64,
    /// When it last said that it ended.
    pub ended_ms: Option<i64>,
    /// How that run ended: 0 for success.
    pub exit_code: i64,
    /// When it last said that it begins, if it did not say since that it ended.
    pub started_ms: Option<i64>,
    /// How long its last run took, if it said when it began.
    pub took_ms: Option<i64>,
}

/// A call of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// It begins.
    Started,
    /// It ended, with this exit code.
    Ended(i64),
}

/// A job that nobody expects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no check of kind heartbeat has the target `{0}`; add it to the agent's configuration")]
pub struct Unexpected(pub String);

/// What a call comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hearing {
    /// A restart of the agent remembers it.
    Kept,
    /// It was heard; a restart of the agent may forget it, for this reason.
    InMemory(String),
}

/// What is known of all jobs.
#[derive(Debug, Default)]
struct Jobs {
    heard: BTreeMap<String, Heard>,
    /// Counts changes.
    version: Version,
}

/// The jobs that are expected to call, and what was heard of them.
pub struct Heartbeats {
    jobs: Arc<Mutex<Jobs>>,
    keeper: Option<Arc<Keeper>>,
    patience: Duration,
}

impl fmt::Debug for Heartbeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heartbeats").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}

impl Heartbeats {
    /// With what the state directory remembers. A file that cannot be read is set aside with a warning: jobs then have
    /// a whole period from now on.
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let heard = match read(&path) {
            Ok(heard) => heard,
            Err(reason) => {
                let aside = path.with_extension("json.damaged");
                let kept = std::fs::rename(&path, &aside).is_ok();
                tracing::warn!(
                    file = %path.display(), %reason, set_aside = kept,
                    "what was heard of jobs is lost; each has a whole period from now on"
                );
                BTreeMap::new()
            }
        };
        let shown = path.display().to_string();
        Self::with(heard, Arc::new(move |bytes| keeper::replace(&path, bytes)), shown)
    }

    fn with(heard: BTreeMap<String, Heard>, write: Write, shown: String) -> Self {
        let jobs = Arc::new(Mutex::new(Jobs { heard, version: 0 }));
        let content = jobs.clone();
        let keeper = Keeper::new(write, shown, move || {
            let jobs = content.lock();
            let text = serde_json::to_vec(&jobs.heard).expect("plain structs become JSON");
            (jobs.version, text)
        });
        Self { jobs, keeper: Some(keeper), patience: KEPT_WITHIN }
    }

    /// Without a file.
    pub fn in_memory() -> Self {
        Self { jobs: Arc::default(), keeper: None, patience: KEPT_WITHIN }
    }

    /// Changes what is known, and has that kept if it did. Nobody waits for a disk here.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Heard>) -> bool) -> Version {
        let mut jobs = self.jobs.lock();
        let changed = change(&mut jobs.heard);
        if changed {
            jobs.version += 1;
        }
        let version = jobs.version;
        drop(jobs);
        if let Some(keeper) = self.keeper.as_ref().filter(|_| changed) {
            keeper.changed();
        }
        version
    }

    /// Expects a job from now on, unless it is expected already.
    pub fn expect(&self, job: &str, now_ms: i64) {
        self.change(|jobs| expect(jobs, job, now_ms));
    }

    /// Expects these jobs and no others.
    pub fn expect_only(&self, wanted: &[&str], now_ms: i64) {
        let names: HashSet<&str> = wanted.iter().copied().collect();
        self.change(|jobs| {
            let before = jobs.len();
            jobs.retain(|job, _| names.contains(job.as_str()));
            let mut changed = jobs.len() != before;
            for job in wanted {
                changed |= expect(jobs, job, now_ms);
            }
            changed
        });
    }

    /// A job calls. It is heard at once; this waits until that is kept, for [`KEPT_WITHIN`] at most.
    pub async fn call(&self, job: &str, call: Call, now_ms: i64) -> Result<Hearing, Unexpected> {
        let mut expected = false;
        let version = self.change(|jobs| {
            let Some(heard) = jobs.get_mut(job) else { return false };
            expected = true;
            match call {
                Call::Started => heard.started_ms = Some(now_ms),
                Call::Ended(exit_code) => {
                    heard.took_ms = heard.started_ms.take().map(|started| (now_ms - started).max(0));
                    heard.ended_ms = Some(now_ms);
                    heard.exit_code = exit_code;
                }
            }
            true
        });
        if !expected {
            return Err(Unexpected(job.chars().take(64).collect()));
        }
        Ok(self.kept(version).await)
    }

    /// Waits until a version is on the disk.
    async fn kept(&self, version: Version) -> Hearing {
        let Some(keeper) = &self.keeper else { return Hearing::Kept };
        let mut kept = keeper.kept();
        let written =
            tokio::time::timeout(self.patience, kept.wait_for(|kept| kept.version >= version)).await;
        match written {
            Ok(Ok(kept)) => kept.error.clone().map_or(Hearing::Kept, Hearing::InMemory),
            Ok(Err(_)) => Hearing::InMemory("the agent ends".to_owned()),
            Err(_) => {
                tracing::warn!(
                    "what was heard of a job is not on the disk in time: the disk of the state \
                     directory hangs or is busy"
                );
                Hearing::InMemory(format!("the disk took longer than {KEPT_WITHIN:?}"))
            }
        }
    }

    /// What is known of a job.
    pub fn heard(&self, job: &str) -> Option<Heard> {
        self.jobs.lock().heard.get(job).cloned()
    }
}

/// Expects a job; says whether that is new.
fn expect(jobs: &mut BTreeMap<String, Heard>, job: &str, now_ms: i64) -> bool {
    let new = !jobs.contains_key(job);
    if new {
        jobs.insert(job.to_owned(), Heard { expected_since_ms: now_ms, ..Heard::default() });
    }
    new
}

fn read(path: &Path) -> Result<BTreeMap<String, Heard>, String> {
    let length = match std::fs::metadata(path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.to_string()),
    };
    if length > MAX_FILE_BYTES {
        return Err(format!("it has {length} bytes, more than {MAX_FILE_BYTES}"));
    }
    let text = std::fs::read(path).map_err(|e| e.to_string())?;
    serde_json::from_slice(&text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests;
