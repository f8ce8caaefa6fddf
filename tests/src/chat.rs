//! What containers say whose workload has the step `chat`: numbered lines to stdout and to stderr, each life of the
//! container from 0 on, and a file a life that has how many were written.

use crate::loki::Loki;
use std::path::{Path, PathBuf};

/// The directory of a container's files as the container has it.
pub const INSIDE: &str = "/chat";

/// One container that says lines.
#[derive(Debug, Clone)]
pub struct Chat {
    /// Its files.
    pub dir: PathBuf,
    /// Where its runtime writes what it says.
    pub log: PathBuf,
}

/// The line of a number in a life; `tests/workload/workload.rs` has the same.
pub fn line(life: usize, number: u64) -> String {
    let words = if number % 50 == 49 { 2_500 } else { 4 };
    let mut text = format!("life {life} line {number:08}");
    for word in 0..words {
        let word = ((number << 20) | word).wrapping_mul(0x9e37_79b9_7f4a_7c15) as u32;
        text.push_str(&format!(" {word:08x}"));
    }
    text
}

impl Chat {
    /// How many lines each life has written at least.
    pub fn lives(&self) -> Vec<u64> {
        let written = |life: usize| {
            let text = std::fs::read_to_string(self.dir.join(life.to_string())).ok()?;
            Some(text.trim().parse().unwrap_or(0))
        };
        (0..).map_while(written).collect()
    }

    /// What Loki has of an output, in the order of its times.
    pub async fn arrived(&self, loki: &Loki, output: &str) -> Vec<String> {
        let selector = format!("{{filename=\"{}\", stream=\"{output}\"}}", self.log.display());
        let mut entries: Vec<(i64, String)> =
            loki.entries(&selector, "tests").await.into_values().flatten().collect();
        entries.sort_by_key(|(at_ns, _)| *at_ns);
        assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "{selector}: times rise strictly");
        entries.into_iter().map(|(_, text)| text).collect()
    }

    /// Checks both outputs: each line of each life once and in order. Says how many there are, which is as many as were
    /// written, and at most one more of each life and output: a life ends at any time.
    pub async fn check(&self, loki: &Loki) -> u64 {
        let lives = self.lives();
        let mut lines = 0;
        for output in ["stdout", "stderr"] {
            let arrived = self.arrived(loki, output).await;
            let what = format!("{} {output}", self.log.display());
            check(&what, &arrived, &lives);
            lines += arrived.len() as u64;
        }
        lines
    }

    /// How many lines both outputs have at least.
    pub fn lines(&self) -> u64 {
        2 * self.lives().iter().sum::<u64>()
    }
}

fn check(what: &str, arrived: &[String], lives: &[u64]) {
    let (mut life, mut number, mut torn) = (0, 0, false);
    for (nth, text) in arrived.iter().enumerate() {
        let wanted = line(life, number);
        if *text == wanted && !torn {
            number += 1;
        } else if wanted.starts_with(text.as_str()) && !torn && wanted.len() > 4_096 {
            // Killed within its last line, which was longer than what a pipe takes at once.
            torn = true;
        } else {
            let begun = (life + 1..lives.len()).find(|next| line(*next, 0) == *text);
            let near: Vec<String> = arrived[nth.saturating_sub(2)..(nth + 3).min(arrived.len())]
                .iter()
                .map(|t| shortened(t))
                .collect();
            let Some(next) = begun else {
                panic!(
                    "{what}: entry {nth} of {} is not line {number} of life {life} of {lives:?}; near it {near:#?}",
                    arrived.len()
                );
            };
            ended(what, life, number, torn, lives);
            assert!(
                lives[life + 1..next].iter().all(|n| *n == 0),
                "{what}: nothing of lives before {next} of {lives:?}; near {near:#?}"
            );
            (life, number, torn) = (next, 1, false);
        }
    }
    ended(what, life, number, torn, lives);
    assert!(
        lives.get(life + 1..).is_none_or(|rest| rest.iter().all(|n| *n == 0)),
        "{what}: nothing after life {life} of {lives:?}"
    );
}

fn ended(what: &str, life: usize, number: u64, torn: bool, lives: &[u64]) {
    let written = lives.get(life).copied().unwrap_or(0);
    let most = written + u64::from(!torn);
    assert!(
        (written..=most).contains(&number),
        "{what}: {number} lines of life {life}, where {written} were written"
    );
}

fn shortened(text: &str) -> String {
    let begins: String = text.chars().take(70).collect();
    format!("{begins}… ({} bytes)", text.len())
}

/// A directory for a container's files that anybody may write to.
pub fn directory(within: &Path, name: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = within.join("chats").join(name);
    std::fs::create_dir_all(&dir).expect("a directory");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).expect("it may be written to");
    dir
}
