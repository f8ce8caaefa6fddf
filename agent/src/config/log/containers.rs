//! `logs.inputs[].containers`: what containers write to their standard output and error.

use super::patterns::names;
use crate::source::log::containers::Settings;
use pegel_runtime::config::section::is_label_name;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the containers of this node write to their standard output and error, read from the files of Docker's `json-file`
/// and of Kubernetes' runtimes. Streams have the labels `container`, `stream` and, where there are such, `namespace`, `pod`,
/// `compose_project` and `compose_service`. It takes `containers.runtimes`. A container leaves itself out by its label
/// `pegel.logs=false`, and gives a stream a label by its label `pegel.logs.label.NAME`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-renamed" = {"include": "names", "exclude": "exclude_names", "match_labels": "with_labels"}))]
pub struct RawContainerLogs {
    /// Names of containers that are taken, `*` and `?` for anything; all, if there are none.
    pub names: Vec<String>,
    /// Names of containers that are left out.
    pub exclude_names: Vec<String>,
    /// Namespaces of pods that are taken; all, if there are none. Containers without a pod are then left out.
    pub namespaces: Vec<String>,
    /// Namespaces that are left out.
    pub exclude_namespaces: Vec<String>,
    /// Container labels that a container must have, with a pattern of their value.
    pub with_labels: BTreeMap<String, String>,
    /// Container labels that become labels of its streams: the stream's label and the container's.
    pub labels_from: BTreeMap<String, String>,
    /// Whether streams get the label `image`.
    pub image: bool,
}

impl RawContainerLogs {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Settings {
        let mut with_labels = Vec::new();
        for (label, pattern) in &self.with_labels {
            let path = path.key("with_labels").key(label);
            match globset::Glob::new(pattern) {
                Ok(glob) => with_labels.push((label.clone(), glob.compile_matcher())),
                Err(error) => {
                    let reason = format!("`{}` is not a pattern: {}", pattern.escape_debug(), error.kind());
                    mistakes.at(&path, reason, "write a value or a pattern such as `web-*`");
                }
            }
        }
        for name in self.labels_from.keys().filter(|name| !is_label_name(name)) {
            let remedy = "use letters, digits and underscores, a digit not at the beginning";
            mistakes.at(&path.key("labels_from").key(name), "is not a label name", remedy);
        }
        let mut set = |key: &str, texts: &[String], example| names(texts, &path.key(key), example, mistakes);
        Settings {
            names: set("names", &self.names, "web-*"),
            exclude_names: set("exclude_names", &self.exclude_names, "web-*"),
            namespaces: set("namespaces", &self.namespaces, "shop-*"),
            exclude_namespaces: set("exclude_namespaces", &self.exclude_namespaces, "kube-*"),
            with_labels,
            labels_from: self.labels_from.clone().into_iter().collect(),
            image: self.image,
        }
    }
}
