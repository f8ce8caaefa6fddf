//! Who called in: cron jobs, backups, whatever has to say at times that it ran.
//!
//! A job calls `POST /api/v1/heartbeats/NAME` on the agent's admin address, at its end or, with `/start` and `?exit_code=N`,
//! at both ends. What was last heard is kept in a file of the state directory, so that a job that calls once a night is
//! not missed because the agent was restarted at noon.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The file in the state directory.
const FILE: &str = "heartbeats.json";
/// The largest file that is read, in bytes: ten thousand jobs.
const MAX_FILE_BYTES: u64 = 4 << 20;

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

/// The jobs that are expected to call, and what was heard of them.
#[derive(Debug)]
pub struct Heartbeats {
    path: Option<PathBuf>,
    jobs: Mutex<BTreeMap<String, Heard>>,
}

impl Heartbeats {
    /// With what the state directory remembers. A file that cannot be read is set aside with a warning: jobs then have
    /// a whole period from now on.
    pub fn open(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let jobs = match read(&path) {
            Ok(jobs) => jobs,
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
        Self { path: Some(path), jobs: Mutex::new(jobs) }
    }

    /// Without a file.
    pub fn in_memory() -> Self {
        Self { path: None, jobs: Mutex::default() }
    }

    /// Expects a job from now on, unless it is expected already.
    pub fn expect(&self, job: &str, now_ms: i64) {
        let mut jobs = self.jobs.lock();
        if !jobs.contains_key(job) {
            jobs.insert(job.to_owned(), Heard { expected_since_ms: now_ms, ..Heard::default() });
            self.keep(&jobs);
        }
    }

    /// Expects these jobs and no others.
    pub fn expect_only(&self, wanted: &[&str], now_ms: i64) {
        let mut jobs = self.jobs.lock();
        let before = jobs.len();
        jobs.retain(|job, _| wanted.contains(&job.as_str()));
        let gone = jobs.len() != before;
        drop(jobs);
        for job in wanted {
            self.expect(job, now_ms);
        }
        if gone {
            self.keep(&self.jobs.lock());
        }
    }

    /// A job calls.
    pub fn call(&self, job: &str, call: Call, now_ms: i64) -> Result<(), Unexpected> {
        let mut jobs = self.jobs.lock();
        let Some(heard) = jobs.get_mut(job) else {
            return Err(Unexpected(job.chars().take(64).collect()));
        };
        match call {
            Call::Started => heard.started_ms = Some(now_ms),
            Call::Ended(exit_code) => {
                heard.took_ms = heard.started_ms.take().map(|started| (now_ms - started).max(0));
                heard.ended_ms = Some(now_ms);
                heard.exit_code = exit_code;
            }
        }
        self.keep(&jobs);
        Ok(())
    }

    /// What is known of a job.
    pub fn heard(&self, job: &str) -> Option<Heard> {
        self.jobs.lock().get(job).cloned()
    }

    /// Writes the file anew: to another one first, so that none is ever half written.
    fn keep(&self, jobs: &BTreeMap<String, Heard>) {
        let Some(path) = &self.path else { return };
        let text = serde_json::to_vec(jobs).expect("plain structs become JSON");
        let beside = path.with_extension("json.new");
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(&beside)?;
            file.write_all(&text)?;
            file.sync_data()?;
            std::fs::rename(&beside, path)
        };
        if let Err(error) = write() {
            tracing::warn!(file = %path.display(), %error, "cannot keep what was heard of jobs; a restart forgets it");
        }
    }
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
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_outlives_the_agent_and_a_damaged_file() {
        let dir = tempfile::tempdir().unwrap();
        let heartbeats = Heartbeats::open(dir.path());
        heartbeats.expect_only(&["backup", "old"], 1_000);
        heartbeats.call("backup", Call::Started, 2_000).unwrap();
        heartbeats.call("backup", Call::Ended(0), 5_500).unwrap();
        let again = Heartbeats::open(dir.path());
        again.expect_only(&["backup", "new"], 9_000);
        let expected = Heard {
            expected_since_ms: 1_000,
            ended_ms: Some(5_500),
            took_ms: Some(3_500),
            ..Heard::default()
        };
        assert_eq!(again.heard("backup"), Some(expected));
        assert_eq!(again.heard("new").unwrap().expected_since_ms, 9_000);
        assert_eq!(Heartbeats::open(dir.path()).heard("old"), None);
        std::fs::write(dir.path().join(FILE), "{half").unwrap();
        assert_eq!(Heartbeats::open(dir.path()).heard("backup"), None);
        assert!(dir.path().join("heartbeats.json.damaged").exists());
    }

    #[test]
    fn a_job_that_nobody_expects_is_refused_in_words() {
        let heartbeats = Heartbeats::in_memory();
        let error = heartbeats.call("bakcup", Call::Ended(0), 1).unwrap_err().to_string();
        assert!(error.contains("`bakcup`") && error.contains("configuration"), "{error}");
    }
}
