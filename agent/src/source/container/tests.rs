//! Container accounting against recorded trees, with containers that come, go and misbehave.

use super::accounting::Accounting;
use super::pass::{Order, PATIENCE_MS};
use super::summary::PassReport;
use super::*;
use crate::source::host::{ClockState, FsUsage, Netlink, NetlinkProtocol, System, UnameInfo, Zone};
use crate::source::reading::lane::Job as _;
use crate::source::render;
use pegel_proto::metrics::{Block, Labels, is_stale_marker};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod cardinality;
mod golden;
mod life;
mod running;

/// A machine whose calls answer what does not change.
struct FixedSystem;

impl System for FixedSystem {
    fn statfs(&self, _: &Path) -> Result<FsUsage, i32> {
        Ok(FsUsage { size_bytes: 1e9, free_bytes: 6e8, avail_bytes: 5e8, files: 1000.0, files_free: 900.0 })
    }

    fn uname(&self) -> UnameInfo {
        UnameInfo { release: "6.12.0".into(), nodename: "golden".into(), ..UnameInfo::default() }
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn zone(&self, _: i64) -> Zone {
        Zone { name: "UTC".into(), offset_seconds: 0 }
    }

    fn clock_state(&self) -> Result<ClockState, i32> {
        Err(38)
    }

    fn netlink(&self, _: NetlinkProtocol) -> io::Result<Box<dyn Netlink>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A tree of files that stands in for the kernel's.
struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    /// The recorded tree of `agent/tests/container_golden/NAME.tree`: files, each headed `==> path`; `@ROOT@` is
    /// where the tree is.
    fn recorded(name: &str) -> Self {
        let tree = Self { dir: tempfile::tempdir().unwrap() };
        let text = std::fs::read_to_string(golden::path(name, "tree")).unwrap();
        for file in text.split("==> ").skip(1) {
            let (path, content) = file.split_once('\n').unwrap();
            tree.write(path, &content.replace("@ROOT@", &tree.dir.path().to_string_lossy()));
        }
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn remove(&self, path: &str) {
        std::fs::remove_dir_all(self.path(path)).unwrap();
    }

    fn settings(&self) -> Settings {
        Settings {
            procfs: self.path("proc"),
            sysfs: self.path("sys"),
            rootfs: self.dir.path().to_owned(),
            ..Settings::default()
        }
    }
}

/// Accounting on a tree, driven pass by pass.
struct Node {
    accounting: Box<Accounting>,
    catalogue: Arc<Catalogue>,
}

impl Node {
    fn new(settings: Settings) -> Self {
        let catalogue = Arc::new(Catalogue::default());
        let system: Arc<dyn System> = Arc::new(FixedSystem);
        let accounting = Accounting::new(settings, Arc::default(), catalogue.clone(), system);
        Self { accounting: Box::new(accounting), catalogue }
    }

    fn pass(&mut self, order: Order, at_ms: i64) -> PassReport {
        self.accounting.order = order;
        self.accounting.at_ms = at_ms;
        self.accounting.run();
        std::mem::take(&mut self.accounting.report)
    }

    fn full(&mut self, at_ms: i64) -> PassReport {
        self.pass(Order::Full, at_ms)
    }

    fn urgent(&mut self, read: &[&str], ended: &[&str], at_ms: i64) -> PassReport {
        let set = |ids: &[&str]| ids.iter().map(|id| ContainerId::new(id)).collect::<HashSet<_>>();
        self.pass(Order::Urgent { read: set(read), ended: set(ended) }, at_ms)
    }

    /// A node that has seen containers, so that all cgroups are reported, without waiting for names.
    fn started(settings: Settings) -> Self {
        let mut node = Self::new(settings);
        node.accounting.patience_ms = 0;
        node.full(0);
        node
    }
}

fn id(two_digits: &str) -> String {
    two_digits.repeat(32)
}

fn container(id: &str, name: &str) -> Container {
    Container {
        id: ContainerId::new(id),
        runtime: RuntimeKind::Docker,
        name: name.into(),
        image: "nginx:1".into(),
        labels: [("com.docker.compose.service".into(), "web".into()), ("build".into(), "17".into())].into(),
        env: [].into(),
        pod: None,
        state: RunState::Running,
        health: Health::Healthy,
        pid: Some(4711),
        created_ms: Some(1_700_000_000_900),
        started_ms: Some(1_700_000_001_900),
        restarts: None,
        log_path: None,
        host_network: false,
    }
}

/// Lines `name{labels} value` of the samples that are no markers.
fn text(blocks: &[Block]) -> String {
    let samples = |block: &&Block| !is_stale(block);
    let blocks: Vec<Block> = blocks.iter().filter(samples).cloned().collect();
    render::text(&blocks, render::WhichLabels::Full)
}

fn is_stale(block: &Block) -> bool {
    block.values.iter().all(|value| is_stale_marker(*value))
}

/// The `name` or else the `id` of each set with samples, and of each that is ended, in their order.
fn names(blocks: &[Block], stale: bool) -> Vec<String> {
    let of = |labels: &Labels| labels.value("name").or_else(|| labels.value("id")).map(str::to_owned);
    let wanted = blocks.iter().filter(|block| is_stale(block) == stale);
    wanted.filter_map(|block| of(block.set.target())).collect()
}

/// The value of a series of a container.
fn value(blocks: &[Block], name: &str, metric: &str) -> Option<f64> {
    let of = |block: &&Block| block.set.target().value("name") == Some(name) && !is_stale(block);
    let block = blocks.iter().find(of)?;
    let at = block.set.series().iter().position(|series| series.name() == metric)?;
    Some(block.values[at])
}
