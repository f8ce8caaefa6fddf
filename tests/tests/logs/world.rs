//! One agent, one aggregator, one Loki, and the comparison of what was written with what Loki holds.

use crate::writers::{Writer, Written};
use pegel_tests::loki::{Loki, LokiSetup};
use pegel_tests::pegel::{Agent, AgentSetup, Aggregator, Books, Site};
use pegel_tests::{eventually, let_run};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a backlog of a short campaign may take to drain on a machine that does much else.
pub const SETTLE_WITHIN: Duration = Duration::from_secs(120);

/// The tenant of every agent of a site.
const TENANT: &str = "tests";

/// A Loki that the campaign does not measure itself at: its default is 4 MB/s.
pub fn loki_setup() -> LokiSetup {
    LokiSetup::default().with_tenants().limit("max_entries_limit_per_query", "1000000")
}

pub struct World {
    pub loki: Loki,
    pub aggregator: Aggregator,
    pub agent: Agent,
    pub dir: PathBuf,
    /// The last to go: what programs said is in its directory, and is shown where a test fails.
    pub site: Site,
}

/// The YAML of an output towards a base URL, with the address that answers the ambiguous.
pub fn outputs(base: &str, query: Option<&str>) -> String {
    let query = query.map(|url| format!("    query_url: {url}\n")).unwrap_or_default();
    format!("outputs:\n  - type: loki\n    name: loki\n    url: {base}\n    backoff_max: 500ms\n{query}")
}

/// The YAML of `logs` for all files `*.log` of a directory, with further keys of the input and of `logs`.
pub fn files_of(dir: &Path, of_input: &str, more: &str) -> String {
    let include = format!("{}/*.log", dir.display());
    format!("{{inputs: [{{name: oracle, files: {{include: [\"{include}\"]}}{of_input}}}]{more}}}")
}

impl World {
    /// Everything runs; none if there is no Loki to be had. `more` is further YAML of `logs`.
    pub async fn start(more: &str) -> Option<Self> {
        Self::start_with(more, |setup| setup).await
    }

    pub async fn start_with(more: &str, change: impl FnOnce(AgentSetup) -> AgentSetup) -> Option<Self> {
        let site = Site::new();
        let loki = Loki::start_with(&site.dir().join("loki"), &loki_setup()).await?;
        let dir = site.dir().join("files");
        std::fs::create_dir_all(&dir).expect("a directory");
        let yaml = outputs(&loki.url(), Some(&loki.url()));
        let setup = AgentSetup { logs: Some(files_of(&dir, "", more)), ..AgentSetup::default() };
        Some(Self::assemble(site, loki, dir, &yaml, change(setup)).await)
    }

    /// An aggregator with these outputs and an agent are put to what is there, and started.
    pub async fn assemble(site: Site, loki: Loki, dir: PathBuf, outputs: &str, setup: AgentSetup) -> Self {
        let status = "status: {listen: \"127.0.0.1:0\", address_file: status.address}\n";
        let aggregator = site.aggregator_with("one", &format!("{outputs}{status}")).await;
        let mut agent = site.agent("web-1", &[aggregator.address()], setup);
        agent.start().await;
        Self { loki, aggregator, agent, dir, site }
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

    /// Waits until the agent's books of logs are as somebody wants them.
    pub async fn books_when(&self, what: &str, want: impl Fn(&Books) -> bool) -> Books {
        eventually(what, SETTLE_WITHIN, || async { self.agent.books_of("logs").await.filter(&want) }).await
    }

    /// Starts the agent again. What its books said of the life before is not forgotten, and not lost.
    pub async fn restart(&mut self, before: &mut u64) {
        self.agent.start().await;
        let books = self.books_when("the agent answers", |_| true).await;
        assert!(books.arrived() >= *before && books.lost_in_crash == 0, "{before} had arrived: {books:?}");
        *before = books.arrived();
    }

    /// Bytes of files that wait unread.
    pub async fn unread_bytes(&self) -> u64 {
        let status = self.agent.status().await.unwrap_or_default();
        let files = status["logs"]["files"]["files"].as_array();
        files.into_iter().flatten().filter_map(|file| file["lag_bytes"].as_u64()).sum()
    }

    /// The books of logs, once everything that was written is settled: `lines` in all.
    pub async fn settled(&self, lines: u64) -> Books {
        let mut deadline = Instant::now() + SETTLE_WITHIN;
        let mut before = 0;
        loop {
            let_run(Duration::from_millis(300)).await;
            let Some(books) = self.agent.books_of("logs").await else { continue };
            let open = books.in_front + books.spooled;
            if open == 0 && books.collected >= lines {
                return books;
            }
            // The time is for nothing happening: a long campaign leaves much to be delivered.
            if books.arrived() > before {
                before = books.arrived();
                deadline = deadline.max(Instant::now() + SETTLE_WITHIN / 2);
            }
            assert!(
                Instant::now() < deadline,
                "of {lines} lines, not all are settled: {books:?}\n{:#}",
                self.agent.status().await.unwrap_or_default()["logs"]
            );
        }
    }

    /// Ends writers and checks that Loki holds each of their lines once and in order.
    pub async fn check(&self, writers: Vec<Writer>) -> Books {
        self.check_written(writers.into_iter().map(Writer::end).collect()).await
    }

    /// Checks that Loki holds each line of what was written once and in order, and that the agent says so.
    pub async fn check_written(&self, written: Vec<Written>) -> Books {
        let lines: u64 = written.iter().map(Written::count).sum();
        let books = self.settled(lines).await;
        for file in &written {
            self.check_file(file).await;
        }
        println!("{lines} lines of {} files, {books:?}", written.len());
        assert!(books.arrived() >= lines, "of {lines} lines: {books:?}");
        assert_eq!((books.dropped(), books.rejected(), books.lost_in_crash), (0, 0, 0), "{books:?}");
        books
    }

    /// As [`World::check`], where nobody was killed: the agent's books say so to the line.
    pub async fn check_to_the_line(&self, writers: Vec<Writer>) -> Books {
        let written: Vec<Written> = writers.into_iter().map(Writer::end).collect();
        let lines: u64 = written.iter().map(Written::count).sum();
        let books = self.check_written(written).await;
        assert_eq!((books.collected, books.arrived()), (lines, lines), "{books:?}");
        books
    }

    /// All that Loki holds of a file, in the order of its times: of one stream, whose times rise strictly.
    pub async fn held_of(&self, path: &Path, at_least: u64) -> Vec<(i64, String)> {
        let selector = format!("{{filename=\"{}\"}}", path.display());
        // What is acknowledged can be asked for a moment later.
        let what = format!("Loki has {at_least} lines of {}", path.display());
        eventually(&what, Duration::from_secs(20), || async {
            (self.loki.count(&selector, TENANT).await >= at_least).then_some(())
        })
        .await;
        let streams = self.loki.entries(&selector, TENANT).await;
        // Loki divides a busy stream into shards by itself; the label that says so is its own.
        let names: BTreeSet<String> = streams.keys().map(|labels| without_shard(labels)).collect();
        assert!(names.len() <= 1, "{}: one stream, where there are {names:?}", path.display());
        let mut entries: Vec<(i64, String)> = streams.into_values().flatten().collect();
        entries.sort_by_key(|(at_ns, _)| *at_ns);
        assert!(entries.is_sorted_by(|a, b| a.0 < b.0), "{}: times rise strictly", path.display());
        let counted = self.loki.count(&selector, TENANT).await;
        assert_eq!(counted, entries.len() as u64, "{}: counted by Loki", path.display());
        entries
    }

    /// Checks one file's stream.
    async fn check_file(&self, written: &Written) {
        let path = written.path();
        let entries = self.held_of(path, written.count()).await;
        for (nth, (have, want)) in entries.iter().zip(written.lines()).enumerate() {
            let (at_ns, text) = want;
            // Where a line brings its time, the next one has the same and is moved by a nanosecond.
            let in_time = at_ns.is_none_or(|at_ns| (at_ns..=at_ns + 1).contains(&have.0));
            if have.1 != text || !in_time {
                let status = self.agent.status().await.unwrap_or_default();
                let near = &entries[nth.saturating_sub(2)..(nth + 3).min(entries.len())];
                panic!(
                    "{}: entry {nth} of {} is {have:?}, not {text:?} at {at_ns:?}; near it {near:#?}; {:#}",
                    path.display(),
                    written.count(),
                    status["logs"]
                );
            }
        }
        assert_eq!(entries.len() as u64, written.count(), "{}: as many entries as lines", path.display());
    }

    /// How many lines of a file Loki does not hold, and in how many stretches: all others it holds once and in order.
    /// `lost` is how many are to be missing.
    pub async fn missing_of(&self, written: &Written, lost: u64) -> (u64, u64) {
        let entries = self.held_of(written.path(), written.count() - lost).await;
        let mut held = entries.iter().map(|(_, text)| text).peekable();
        let (mut missing, mut stretches, mut in_stretch) = (0, 0, false);
        for (_, want) in written.lines() {
            let is_missing = held.next_if(|have| **have == want).is_none();
            missing += u64::from(is_missing);
            stretches += u64::from(is_missing && !in_stretch);
            in_stretch = is_missing;
        }
        assert_eq!(held.next(), None, "{}: in no place of what was written", written.path().display());
        (missing, stretches)
    }
}

fn without_shard(labels: &str) -> String {
    let mut labels: BTreeMap<String, String> = serde_json::from_str(labels).expect("labels");
    labels.remove("__stream_shard__");
    format!("{labels:?}")
}
