//! The host source: groups of collectors, each on its schedule.

use super::group::Group;
use super::status::HostStatus;
use super::{Settings, System};
use crate::source::render;
use crate::source::{SourceContext, schedule};
use pegel_proto::metrics::{Block, Labels};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// The host source. [`HostSource::run`] scrapes until shutdown; [`HostSource::once`] renders one scrape as text.
pub struct HostSource {
    interval: Duration,
    /// Tells this machine from the others of a fleet.
    identity: u64,
    /// The first one has the source's own interval.
    groups: Vec<Group>,
    status: HostStatus,
}

impl HostSource {
    /// Makes the source. Nothing is collected yet. Labels of the target are those of the settings, the host's name
    /// as `instance`, and `external`, which override none of them.
    pub fn new(settings: Settings, external: &Labels, system: &Arc<dyn System>) -> Self {
        let instance = system.uname().nodename;
        let target = settings.labels.target(&[("instance", &instance)], external);
        let collectors = settings.collectors.iter().map(|kind| (*kind, settings.interval_of(*kind)));
        let status = HostStatus::new(collectors.clone());
        let others: BTreeSet<Duration> = collectors
            .map(|(_, interval)| interval)
            .filter(|interval| *interval != settings.interval)
            .collect();
        let group = |interval| Group::new(interval, &settings, system, &target, &status);
        Self {
            interval: settings.interval,
            identity: identity(&target, &settings.paths.rootfs),
            groups: std::iter::once(settings.interval).chain(others).map(group).collect(),
            status,
        }
    }

    /// How the collectors fare.
    pub fn status(&self) -> HostStatus {
        self.status.clone()
    }

    /// Scrapes at the instants of the groups' schedules until the context's shutdown.
    ///
    /// The phase comes from a hash of the machine's identity, so that a fleet that was started at once does not
    /// scrape at once. It lies within the source's own interval for all groups: where a collector runs once an hour,
    /// nobody waits an hour for its first run.
    pub async fn run(self, context: SourceContext) {
        self.status.expose(&context.registry);
        let origin = tokio::time::Instant::now();
        let phase = schedule::offset(self.identity, self.interval);
        let mut groups = JoinSet::new();
        for group in self.groups {
            groups.spawn(group.run(context.clone(), origin, phase));
        }
        while groups.join_next().await.is_some() {}
    }

    /// One scrape of all groups at `at_ms` (milliseconds since the Unix epoch): its samples, and staleness markers
    /// for what vanished since the last one. Each group takes at most half its interval.
    pub async fn collect(&mut self, at_ms: i64) -> Vec<Block> {
        let mut blocks = Vec::new();
        for group in &mut self.groups {
            blocks.extend(group.collect(at_ms).await);
        }
        blocks
    }

    /// As [`HostSource::collect`], for callers without a runtime.
    pub fn collect_blocking(&mut self, at_ms: i64) -> Vec<Block> {
        self.groups.iter_mut().flat_map(|group| group.collect_blocking(at_ms)).collect()
    }

    /// Scrapes once and renders the samples in the Prometheus text format 0.0.4, without the target's labels, as
    /// an exporter would.
    pub fn once(&mut self) -> String {
        let scraped = self.groups.iter_mut().filter_map(|group| group.collect_blocking(0).pop());
        render::text(&scraped.collect::<Vec<_>>(), render::WhichLabels::Own)
    }
}

/// A hash of what tells this machine from others: its target's labels, and machine-id(5) for those that share a name.
fn identity(target: &Labels, rootfs: &Path) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for text in target.iter().flat_map(|(name, value)| [name, value]) {
        hash.update(text.as_bytes());
        hash.update(&[0]);
    }
    hash.update(&std::fs::read(rootfs.join("etc/machine-id")).unwrap_or_default());
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_of_machines_spreads_over_the_interval_even_if_they_share_a_name() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let mut tenths = [0; 10];
        for machine in 0..1000 {
            std::fs::write(root.path().join("etc/machine-id"), format!("{machine:032x}\n")).unwrap();
            let target = Labels::new([("instance", "localhost")]).unwrap();
            let phase = schedule::offset(identity(&target, root.path()), Duration::from_secs(15));
            tenths[(phase.as_millis() / 1_500) as usize] += 1;
        }
        assert!(tenths.iter().all(|machines| (60..140).contains(machines)), "{tenths:?}");
    }
}
