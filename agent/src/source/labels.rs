//! The labels that a scraper would have added to a source's series.
//!
//! Dashboards and rules select by them: `job="node"`, or `job="kubelet",metrics_path="/metrics/cadvisor"`. An agent
//! that pushes is its own scraper, so a source takes them from a *preset*, named after whose dashboards it suits,
//! and the operator has the last word on each of them.

use pegel_proto::metrics::Labels;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a source's labels are before the operator sets any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset(&'static [(&'static str, &'static str)]);

impl Preset {
    /// As the node mixin, Node Exporter Full and most rules for node_exporter expect it.
    pub const NODE_MIXIN: Self = Self(&[("job", "node")]);
    /// As kube-prometheus' ServiceMonitor labels node-exporter: `instance` is the node's name. `namespace`, `pod`,
    /// `container`, `service` and `endpoint` of the pod that would have been scraped are not known here.
    pub const KUBE_PROMETHEUS_NODE: Self = Self(&[("job", "node-exporter")]);
    /// As dashboards for a cAdvisor that stands alone expect it.
    pub const CADVISOR: Self = Self(&[("job", "cadvisor")]);
    /// As the Kubernetes mixin and kube-prometheus expect cAdvisor's endpoint of the kubelet.
    pub const KUBELET: Self = Self(&[("job", "kubelet"), ("metrics_path", "/metrics/cadvisor")]);
    /// As the blackbox mixin expects blackbox_exporter.
    pub const BLACKBOX_MIXIN: Self = Self(&[("job", "blackbox-exporter")]);
    /// As blackbox_exporter's own examples name the job.
    pub const BLACKBOX: Self = Self(&[("job", "blackbox")]);
}

/// The labels of a source's target: a preset's, and what the operator set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetLabels {
    preset: Preset,
    set: BTreeMap<String, String>,
}

impl TargetLabels {
    /// A preset's labels with those of the operator, which win; one with an empty value takes the label away.
    pub const fn new(preset: Preset, set: BTreeMap<String, String>) -> Self {
        Self { preset, set }
    }

    /// The target labels of a series set. `own` is what the source knows of its target, `instance` above all; it
    /// gives way to what the operator set, as do the preset's, and all of them win over `external` labels.
    pub fn target(&self, own: &[(&str, &str)], external: &Labels) -> Arc<Labels> {
        let mut all: BTreeMap<&str, &str> = external.iter().collect();
        all.extend(self.preset.0.iter().copied());
        all.extend(own.iter().copied());
        all.extend(self.set.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        all.retain(|_, value| !value.is_empty());
        Arc::new(Labels::new(all).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(labels: &TargetLabels, own: &[(&str, &str)], external: &[(&str, &str)]) -> String {
        let external = Labels::new(external.iter().copied()).unwrap();
        let target = labels.target(own, &external);
        let pairs: Vec<_> = target.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(" ")
    }

    fn set(preset: Preset, set: &[(&str, &str)]) -> TargetLabels {
        let set = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        TargetLabels::new(preset, set.collect())
    }

    #[test]
    fn what_the_operator_sets_wins_over_the_source_the_preset_and_external_labels() {
        let external = [("job", "external"), ("dc", "x"), ("instance", "external")];
        let own = [("instance", "web-1")];
        assert_eq!(target(&set(Preset::NODE_MIXIN, &[]), &own, &external), "dc=x instance=web-1 job=node");
        let mine = set(Preset::KUBELET, &[("instance", "mine"), ("rack", "r1")]);
        assert_eq!(
            target(&mine, &own, &external),
            "dc=x instance=mine job=kubelet metrics_path=/metrics/cadvisor rack=r1"
        );
    }

    #[test]
    fn an_empty_value_takes_a_label_away_wherever_it_comes_from() {
        let none = set(Preset::NODE_MIXIN, &[("job", ""), ("instance", ""), ("dc", "")]);
        assert_eq!(target(&none, &[("instance", "web-1")], &[("dc", "x"), ("job", "y")]), "");
    }
}
