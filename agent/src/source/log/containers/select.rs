//! Which containers an input takes, and what their streams are called.

use crate::source::container::{Container, RuntimeKind};
use globset::{GlobMatcher, GlobSet};
use prost::Message;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// By this label with the value `false` a container leaves itself out.
const SWITCH_LABEL: &str = "pegel.logs";
/// Labels with this beginning name labels of the container's streams.
const LABEL_PREFIX: &str = "pegel.logs.label.";
/// This label names a preset of events that span lines.
const MULTILINE_LABEL: &str = "pegel.logs.multiline";

/// Which containers, and which of their labels.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Names that are taken; all, without any.
    pub names: Option<GlobSet>,
    /// Names that are left out.
    pub exclude_names: Option<GlobSet>,
    /// Namespaces that are taken; all, and what has none, without any.
    pub namespaces: Option<GlobSet>,
    /// Namespaces that are left out.
    pub exclude_namespaces: Option<GlobSet>,
    /// Container labels that must be there, with their values.
    pub with_labels: Vec<(String, GlobMatcher)>,
    /// A stream's label and the container's label that it comes from.
    pub labels_from: Vec<(String, String)>,
    /// Whether streams have the label `image`.
    pub image: bool,
}

/// How a runtime writes lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Docker's json-file.
    Docker,
    /// Kubernetes' CRI, which Podman's `k8s-file` is as well.
    Cri,
}

/// A container's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The container's id.
    pub key: String,
    /// Where its runtime writes.
    pub path: PathBuf,
    /// How.
    pub format: Format,
    /// The labels of its streams, without `stream`.
    pub labels: Vec<(String, String)>,
    /// The preset of multi-line events that it asks for.
    pub multiline: Option<String>,
}

/// A file as it is noted for the next start.
#[derive(Clone, PartialEq, Message)]
struct Note {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", tag = "2")]
    path: Vec<u8>,
    /// Whether it is Docker's format, and not CRI's.
    #[prost(bool, tag = "3")]
    docker: bool,
    #[prost(btree_map = "string, string", tag = "4")]
    labels: BTreeMap<String, String>,
    #[prost(string, optional, tag = "5")]
    multiline: Option<String>,
}

impl Followed {
    /// All of it in bytes.
    pub fn to_note(&self) -> Vec<u8> {
        let note = Note {
            key: self.key.clone(),
            path: self.path.as_os_str().as_bytes().to_vec(),
            docker: self.format == Format::Docker,
            labels: self.labels.iter().cloned().collect(),
            multiline: self.multiline.clone(),
        };
        note.encode_to_vec()
    }

    /// Reads it back; none if the bytes are of another format.
    pub fn from_note(bytes: &[u8]) -> Option<Self> {
        let Note { key, path, docker, labels, multiline } = Note::decode(bytes).ok()?;
        Some(Self {
            key,
            path: OsStr::from_bytes(&path).into(),
            format: if docker { Format::Docker } else { Format::Cri },
            labels: labels.into_iter().collect(),
            multiline,
        })
    }
}

impl Settings {
    /// Whether a container is one of the input's.
    pub fn takes(&self, container: &Container) -> bool {
        let namespace = container.pod.as_ref().map(|pod| &*pod.namespace);
        // A pod's sandbox writes nothing.
        let sandbox = container.pod.as_ref().is_some_and(|pod| &*pod.container == "POD");
        let has = |set: &Option<GlobSet>, value: Option<&str>| {
            set.as_ref().map(|set| value.is_some_and(|value| set.is_match(value)))
        };
        let name = Some(&*container.name);
        !sandbox
            && !label(container, SWITCH_LABEL).is_some_and(|value| value.eq_ignore_ascii_case("false"))
            && has(&self.names, name).unwrap_or(true)
            && !has(&self.exclude_names, name).unwrap_or(false)
            && has(&self.namespaces, namespace).unwrap_or(true)
            && !has(&self.exclude_namespaces, namespace).unwrap_or(false)
            && self
                .with_labels
                .iter()
                .all(|(name, value)| label(container, name).is_some_and(|found| value.is_match(found)))
    }
}

/// The file of a container and the labels of its streams; none if its runtime writes none.
pub fn select(
    settings: &Settings,
    configured: &BTreeMap<String, String>,
    container: &Container,
) -> Option<Followed> {
    let path = container.log_path.clone()?;
    let mut labels = BTreeMap::new();
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            labels.insert(name.to_owned(), value.to_owned());
        }
    };
    put("container", Some(&container.name));
    put("compose_project", label(container, "com.docker.compose.project"));
    put("compose_service", label(container, "com.docker.compose.service"));
    if let Some(pod) = &container.pod {
        put("namespace", Some(&pod.namespace));
        put("pod", Some(&pod.pod));
    }
    if settings.image {
        put("image", Some(&container.image));
    }
    for (name, from) in &settings.labels_from {
        put(name, label(container, from));
    }
    for (name, value) in &container.labels {
        if let Some(name) = name.strip_prefix(LABEL_PREFIX).filter(|name| is_label(name)) {
            put(name, Some(value));
        }
    }
    labels.extend(configured.clone());
    Some(Followed {
        key: container.id.as_str().to_owned(),
        path,
        format: match container.runtime {
            RuntimeKind::Docker => Format::Docker,
            RuntimeKind::Podman | RuntimeKind::Containerd | RuntimeKind::CriO => Format::Cri,
        },
        labels: labels.into_iter().collect(),
        multiline: label(container, MULTILINE_LABEL).map(str::to_owned),
    })
}

fn is_label(name: &str) -> bool {
    pegel_runtime::config::section::is_label_name(name) && !name.starts_with("__")
}

fn label<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
    let at = container.labels.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
    Some(&container.labels[at].1)
}
