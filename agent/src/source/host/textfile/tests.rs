use super::super::emit::Segment;
use super::super::{KernelSystem, Settings};
use super::*;
use crate::source::host::System;
use std::sync::Arc;

struct Files {
    dir: tempfile::TempDir,
    collector: Box<dyn Collector>,
    segment: Segment,
}

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings =
            Settings { textfile_directories: vec![dir.path().display().to_string()], ..Settings::default() };
        let system: Arc<dyn System> = Arc::new(KernelSystem::new());
        let collector = new(&Setup::new(&settings, &system));
        let this = Self { dir, collector, segment: Segment::default() };
        for (name, text) in files {
            this.write(name, text);
        }
        this
    }

    /// Puts a file into place as programs should: written beside and renamed.
    fn write(&self, name: &str, text: &str) {
        let beside = self.dir.path().join("beside.tmp");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.dir.path().join(name)).unwrap();
    }

    /// What is emitted, as `name{label=value}=number`, without the times of files.
    fn collect(&mut self) -> Vec<String> {
        let mut out = self.segment.emitter(1);
        self.collector.collect(&mut out).unwrap();
        out.finish();
        let all = self.segment.series().iter().zip(self.segment.values());
        let shown = all.map(|(series, value)| {
            let labels: Vec<_> =
                series.labels().iter().skip(1).map(|(name, value)| format!("{name}={value}")).collect();
            format!("{}{{{}}}={value}", series.name(), labels.join(","))
        });
        shown.filter(|text| !text.starts_with("node_textfile_mtime_seconds")).collect()
    }

    fn read_files(&self) -> usize {
        self.segment.series().iter().filter(|series| series.name() == "node_textfile_mtime_seconds").count()
    }
}

const FINE: &str = "node_textfile_scrape_error{}=0";
const WRONG: &str = "node_textfile_scrape_error{}=1";

#[test]
fn files_are_read_and_a_replaced_one_is_seen_at_the_next_scrape() {
    let mut files = Files::new(&[
        ("a.prom", "# HELP my_jobs Jobs.\n# TYPE my_jobs gauge\nmy_jobs{queue=\"x\"} 3\nmy_jobs 4\n"),
        ("b.prom", "b_total 1\n"),
        ("c.txt", "not_read 1\n"),
    ]);
    assert_eq!(files.collect(), ["my_jobs{queue=x}=3", "my_jobs{}=4", "b_total{}=1", FINE]);
    assert_eq!(files.read_files(), 2);
    let before = files.segment.series().to_vec();
    files.write("a.prom", "# HELP my_jobs Jobs.\n# TYPE my_jobs gauge\nmy_jobs{queue=\"x\"} 5\n");
    assert_eq!(files.collect(), ["my_jobs{queue=x}=5", "b_total{}=1", FINE]);
    assert!(Arc::ptr_eq(&before[0], &files.segment.series()[0]), "a series that stays is the same one");
    std::fs::remove_file(files.dir.path().join("b.prom")).unwrap();
    assert_eq!(files.collect(), ["my_jobs{queue=x}=5", FINE]);
}

#[test]
fn a_bad_file_is_named_with_line_and_reason_and_harms_no_other() {
    for (text, reason) in [
        ("a 1\na{b=\"c\" 2\n", "line 2, column"),
        ("a 1\n\na 2 1700000000000\n", "line 3: a timestamp"),
        ("a 1\na", "line 2"),
        ("a 1\nb 23", "line 2: the last line does not end"),
        ("a 1\n# TYPE a gauge\n", "line 2: a second # TYPE of `a`, or one after its samples"),
        ("# HELP a A.\n# HELP a B.\na 1\n", "line 2: a second # HELP"),
        ("{\"a.b\"} 1\n", "line 1: `a.b` or a label has a name"),
        ("a{b=\"1\",b=\"2\"} 1\n", "line 1: label `b` occurs twice"),
    ] {
        let error =
            parse::parse(text.as_bytes(), &Labels::default(), &HashMap::new()).unwrap_err().to_string();
        assert!(error.starts_with(reason), "{text:?}: {error}");
        let mut files = Files::new(&[("bad.prom", text), ("good.prom", "good 1\n")]);
        assert_eq!(files.collect(), ["good{}=1", WRONG], "{text:?}");
        assert_eq!(files.read_files(), 1, "a bad file does not look fresh");
        files.write("bad.prom", "a 1\n");
        assert_eq!(files.collect(), ["a{}=1", "good{}=1", FINE]);
    }
}

#[test]
fn what_files_disagree_about_is_taken_from_the_first() {
    let mut files = Files::new(&[
        ("1.prom", "# HELP x One.\n# TYPE x gauge\nx{file=\"1\"} 1\ny 1\n"),
        ("2.prom", "# HELP x Two.\n# TYPE x gauge\nx{file=\"2\"} 1\nz 1\n"),
    ]);
    assert_eq!(files.collect(), ["x{file=1}=1", "y{}=1", "z{}=1", WRONG]);
    assert_eq!(files.read_files(), 2);
    files.write("2.prom", "# HELP x One.\n# TYPE x counter\nx{file=\"2\"} 1\n");
    assert_eq!(files.collect(), ["x{file=1}=1", "y{}=1", FINE]);
    files.write("2.prom", "# HELP x One.\n# TYPE x gauge\nx{file=\"2\"} 1\nx{file=\"1\"} 9\n");
    assert_eq!(files.collect(), ["x{file=1}=1", "y{}=1", "x{file=2}=1", FINE]);
}

#[test]
fn labels_that_the_target_has_are_renamed_as_a_scraper_does() {
    let mut files = Files::new(&[("a.prom", "a{job=\"backup\",instance=\"\",x=\"\"} 1\n")]);
    assert_eq!(files.collect(), ["a{exported_job=backup}=1", FINE]);
}

#[test]
fn pipes_directories_and_missing_directories_are_errors_and_hold_nothing_up() {
    let mut files = Files::new(&[("good.prom", "good 1\n")]);
    let made = std::process::Command::new("mkfifo").arg(files.dir.path().join("pipe.prom")).status().unwrap();
    assert!(made.success());
    std::fs::create_dir(files.dir.path().join("dir.prom")).unwrap();
    assert_eq!(files.collect(), ["good{}=1", WRONG]);
    let settings = Settings { textfile_directories: vec!["/nowhere/*".into()], ..Settings::default() };
    let system: Arc<dyn System> = Arc::new(KernelSystem::new());
    files.collector = new(&Setup::new(&settings, &system));
    assert_eq!(files.collect(), [WRONG]);
}
