//! `preset` and `labels` of the sources: what a scraper would have added.
//!
//! A source's section has these two keys: `preset`, of an enumeration of its own, and `labels`, a map that sets any
//! label (`job`, `instance` and `metrics_path` among them) or takes it away by an empty value. [`resolve`] makes the
//! source's [`TargetLabels`] of them.

use crate::source::labels::{Preset, TargetLabels};
use pegel_runtime::config::section::check_labels;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// For whose dashboards and rules the host's series are labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawHostPreset {
    /// `job="node"`: the node mixin, Node Exporter Full, dockprom.
    #[default]
    NodeMixin,
    /// `job="node-exporter"`: kube-prometheus.
    KubePrometheus,
}

/// For whose dashboards and rules the containers' series are labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawContainerPreset {
    /// `job="cadvisor"`: a cAdvisor that stands alone.
    #[default]
    Cadvisor,
    /// `job="kubelet"`, `metrics_path="/metrics/cadvisor"`: the Kubernetes mixin, kube-prometheus.
    Kubelet,
}

/// For whose dashboards and rules the checks' series are labelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawProbePreset {
    /// `job="blackbox-exporter"`: the blackbox mixin.
    #[default]
    BlackboxMixin,
    /// `job="blackbox"`: blackbox_exporter's own examples.
    Blackbox,
}

impl From<RawHostPreset> for Preset {
    fn from(raw: RawHostPreset) -> Self {
        match raw {
            RawHostPreset::NodeMixin => Self::NODE_MIXIN,
            RawHostPreset::KubePrometheus => Self::KUBE_PROMETHEUS_NODE,
        }
    }
}

impl From<RawContainerPreset> for Preset {
    fn from(raw: RawContainerPreset) -> Self {
        match raw {
            RawContainerPreset::Cadvisor => Self::CADVISOR,
            RawContainerPreset::Kubelet => Self::KUBELET,
        }
    }
}

impl From<RawProbePreset> for Preset {
    fn from(raw: RawProbePreset) -> Self {
        match raw {
            RawProbePreset::BlackboxMixin => Self::BLACKBOX_MIXIN,
            RawProbePreset::Blackbox => Self::BLACKBOX,
        }
    }
}

/// Resolves the keys `preset` and `labels` of the section at a path.
pub(super) fn resolve(
    preset: impl Into<Preset>,
    labels: &BTreeMap<String, String>,
    section: &Path,
    mistakes: &mut Mistakes,
) -> TargetLabels {
    check_labels(labels, |_| false, &section.key("labels"), mistakes);
    TargetLabels::new(preset.into(), labels.clone())
}
