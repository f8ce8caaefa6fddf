//! One agent, one aggregator, one Loki, and the comparison of what was written with what Loki holds.

use crate::writers::{SAME, Writer, line, lines_after};
use pegel_tests::loki::Loki;
use pegel_tests::pegel::{Agent, AgentSetup, Aggregator, Books, Site};
use pegel_tests::{eventually, let_run};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a backlog of a short campaign may take to drain on a machine that does much else.
pub const SETTLE_WITHIN: Duration = Duration::from_secs(120);

/// Limits that a test's Loki has, so that it is the campaign that is measured and not its default of 4 MB/s.
pub const WIDE_LIMITS: &str = "ingestion_rate_mb: 500\ningestion_burst_size_mb: 500\nper_stream_rate_limit: 500MB\nper_stream_rate_limit_burst: 500MB\n\
     max_entries_limit_per_query: 1000000\n";

pub struct World {
    pub site: Site,
    pub loki: Loki,
    pub aggregator: Aggregator,
    pub agent: Agent,
    pub dir: PathBuf,
}

/// The YAML of an output towards a base URL, with the address that answers the ambiguous.
pub fn outputs(base: &str, query: Option<&str>) -> String {
    let query = query.map(|url| format!("    query_url: {url}\n")).unwrap_or_default();
    format!("outputs:\n  - type: loki\n    name: loki\n    url: {base}\n    backoff_max: 500ms\n{query}")
}

/// The YAML of `logs` for all files `*.log` of a directory.
pub fn files_of(dir: &Path, more: &str) -> String {
    format!("{{inputs: [{{name: oracle, files: {{include: [\"{}/*.log\"]}}}}]{more}}}", dir.display())
}

impl World {
    /// Everything runs; none if there is no Loki to be had. `url` makes the output's base URL of Loki's.
    pub async fn start(more: &str) -> Option<Self> {
        Self::start_with(more, str::to_owned, |setup| setup).await
    }

    pub async fn start_with(
        more: &str,
        url: impl FnOnce(&str) -> String,
        change: impl FnOnce(AgentSetup) -> AgentSetup,
    ) -> Option<Self> {
        let site = Site::new();
        let loki = Loki::start(&site.dir().join("loki"), WIDE_LIMITS).await?;
        let dir = site.dir().join("files");
        std::fs::create_dir_all(&dir).expect("a directory");
        let base = url(&loki.url());
        let status = "status: {listen: \"127.0.0.1:0\", address_file: status.address}\n";
        let yaml = outputs(&base, Some(&loki.url())) + status;
        let aggregator = site.aggregator_with("one", &yaml).await;
        let setup = AgentSetup { logs: Some(files_of(&dir, more)), ..AgentSetup::default() };
        let mut agent = site.agent("web-1", &[aggregator.address()], change(setup));
        agent.start().await;
        Some(Self { site, loki, aggregator, agent, dir })
    }

    /// Where the first aggregator's page is.
    pub fn page(&self) -> String {
        let address = std::fs::read_to_string(self.site.dir().join("one/status.address")).unwrap_or_default();
        format!("http://{}", address.trim())
    }

    /// A path for a log file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    /// The books of logs, once everything that was written is settled: `lines` in all.
    pub async fn settled(&self, lines: u64) -> Books {
        let deadline = Instant::now() + SETTLE_WITHIN;
        loop {
            let_run(Duration::from_millis(300)).await;
            let Some(books) = self.agent.books_of("logs").await else { continue };
            let open = books.in_front + books.spooled;
            if open == 0 && books.collected >= lines {
                return books;
            }
            assert!(
                Instant::now() < deadline,
                "of {lines} lines, not all are settled: {books:?}\n{:#}",
                self.agent.status().await.unwrap_or_default()["logs"]
            );
        }
    }

    /// Ends writers and checks that Loki holds each of their lines once and in order.
    pub async fn check(&self, writers: Vec<(PathBuf, Writer)>) -> Books {
        let written: Vec<(PathBuf, u64)> = writers.into_iter().map(|(path, w)| (path, w.end())).collect();
        let lines = written.iter().map(|(_, n)| lines_after(*n)).sum();
        let books = self.settled(lines).await;
        for (path, numbers) in &written {
            self.check_file(path, *numbers).await;
        }
        println!("{lines} lines of {} files, {books:?}", written.len());
        books
    }

    /// Checks one file's stream.
    pub async fn check_file(&self, path: &Path, numbers: u64) {
        let selector = format!("{{filename=\"{}\"}}", path.display());
        // What is acknowledged can be asked for a moment later.
        let expected = lines_after(numbers);
        let what = format!("Loki has {expected} lines of {}", path.display());
        let seen = std::cell::Cell::new(0);
        let arrived = async {
            eventually(&what, Duration::from_secs(20), || async {
                let count = self.loki.count(&selector, "tests").await;
                seen.set(count);
                (count >= expected).then_some(())
            })
            .await;
        };
        arrived.await;
        // Loki divides a busy stream into shards by itself; the label that says so is its own.
        let streams = self.loki.entries(&selector, "tests").await;
        let names: BTreeSet<String> = streams.keys().map(|labels| without_shard(labels)).collect();
        assert_eq!(names.len(), 1, "{}: one stream, where there are {names:?}", path.display());
        let mut entries: Vec<(i64, String)> = streams.into_values().flatten().collect();
        entries.sort_by_key(|(at_ns, _)| *at_ns);
        let mut all = Vec::with_capacity(expected as usize);
        for number in 0..numbers {
            all.push(line(number));
            if number.is_multiple_of(10) {
                all.push(SAME.to_owned());
            }
        }
        for (nth, (have, want)) in entries.iter().map(|(_, text)| text).zip(&all).enumerate() {
            if have != want {
                let status = self.agent.status().await.unwrap_or_default();
                let near = &entries[nth.saturating_sub(2)..(nth + 3).min(entries.len())];
                panic!(
                    "{}: entry {nth} of {} is {have:?}, not {want:?}; near it {near:#?}; {:#}",
                    path.display(),
                    all.len(),
                    status["logs"]
                );
            }
        }
        assert_eq!(entries.len(), all.len(), "{}: as many entries as lines", path.display());
        assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "{}: times rise strictly", path.display());
        assert_eq!(
            self.loki.count(&selector, "tests").await,
            expected,
            "{}: counted by Loki",
            path.display()
        );
    }
}

fn without_shard(labels: &str) -> String {
    let mut labels: BTreeMap<String, String> = serde_json::from_str(labels).expect("labels");
    labels.remove("__stream_shard__");
    format!("{labels:?}")
}
