//! The labels that say which container a series is of.

use super::settings::{Scheme, Settings};
use super::{Container, RuntimeKind};
use pegel_proto::caps::{MAX_LABEL_VALUE_BYTES, MAX_LABELS};
use pegel_proto::metrics::Labels;
use std::sync::Arc;

/// The most labels and variables of a container that become labels: room is left for those of the scheme, of series
/// and of the operator.
const MAX_SHOWN: usize = MAX_LABELS - 48;

/// A pod, as its cgroup's series name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodName {
    /// The namespace.
    pub(super) namespace: Box<str>,
    /// The pod.
    pub(super) pod: Box<str>,
}

/// What is known of a cgroup.
#[derive(Debug, Clone, Copy)]
pub(super) enum Known<'a> {
    /// No container.
    Nothing,
    /// A pod.
    Pod(&'a PodName),
    /// A container of which only the id is known.
    Id(&'a str),
    /// A container.
    Container(&'a Container),
}

/// The target labels of the cgroup at a path.
pub(super) fn target(
    settings: &Settings,
    external: &Labels,
    instance: &str,
    path: &str,
    known: Known<'_>,
) -> Arc<Labels> {
    let mut own = vec![("instance".to_owned(), cut(instance)), ("id".to_owned(), cut(path))];
    let mut add = |name: &str, value| own.push((name.to_owned(), cut(value)));
    match known {
        Known::Pod(pod) if settings.scheme == Scheme::Kubelet => {
            add("namespace", &pod.namespace);
            add("pod", &pod.pod);
        }
        Known::Nothing | Known::Pod(_) => {}
        Known::Id(id) => add("name", id),
        Known::Container(container) => {
            let in_kubelet = settings.scheme == Scheme::Kubelet;
            // The kubelet knows containerd's containers by nothing but their ids.
            let by_id = in_kubelet && container.runtime == RuntimeKind::Containerd;
            add("name", if by_id { container.id.as_str() } else { &container.name });
            add("image", &container.image);
            if let (true, Some(pod)) = (in_kubelet, &container.pod) {
                add("namespace", &pod.namespace);
                add("pod", &pod.pod);
                // containerd's sandboxes have no label that names the container.
                let is_nameless = container.runtime == RuntimeKind::Containerd && &*pod.container == "POD";
                add("container", if is_nameless { "" } else { &pod.container });
            }
            if !in_kubelet {
                own.extend(shown(settings, container));
            }
        }
    }
    let own: Vec<(&str, &str)> = own.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    settings.labels.target(&own, external)
}

/// A container's labels and variables that are let through. Of two whose names become the same, the first counts.
fn shown<'a>(settings: &Settings, container: &'a Container) -> Vec<(String, &'a str)> {
    let labels = container.labels.iter().filter(|(name, _)| settings.container_labels.passes(name));
    let env = container.env.iter().filter(|(name, _)| settings.container_env.passes(name));
    let mut shown: Vec<(String, &str)> = labels
        .map(|(name, value)| (label_name("container_label_", name), cut(value)))
        .chain(env.map(|(name, value)| (label_name("container_env_", &name.to_lowercase()), cut(value))))
        .collect();
    shown.sort_by(|a, b| a.0.cmp(&b.0));
    shown.dedup_by(|later, first| later.0 == first.0);
    shown.truncate(MAX_SHOWN);
    shown
}

/// A label's name: what may not stand in one becomes an underscore.
fn label_name(prefix: &str, name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    prefix.chars().chain(name.chars().take(512).map(allowed)).collect()
}

/// A value, cut to what the wire takes.
fn cut(value: &str) -> &str {
    if value.len() <= MAX_LABEL_VALUE_BYTES {
        return value;
    }
    let end = (0..=MAX_LABEL_VALUE_BYTES).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
    &value[..end]
}

#[cfg(test)]
mod tests {
    use super::super::{ContainerId, Health, PodIdentity, RunState};
    use super::*;
    use crate::source::container::settings::AllowList;

    fn container() -> Container {
        let pair = |name: &str, value: &str| (name.into(), value.into());
        Container {
            id: ContainerId::new("0123"),
            runtime: RuntimeKind::Containerd,
            name: "web".into(),
            image: "nginx:1".into(),
            labels: [
                pair("a.b", "1"),
                pair("a_b", "2"),
                pair("long", &"ä".repeat(9_000)),
                pair("other", "x"),
            ]
            .into(),
            env: [pair("STAGE", "prod"), pair("SECRET", "x")].into(),
            pod: Some(PodIdentity {
                namespace: "shop".into(),
                pod: "web-0".into(),
                uid: "u".into(),
                container: "nginx".into(),
            }),
            state: RunState::Running,
            health: Health::None,
            pid: None,
            created_ms: None,
            started_ms: None,
            restarts: None,
            log_path: None,
            host_network: false,
        }
    }

    fn shown_as(settings: &Settings, known: Known<'_>) -> String {
        let external = Labels::new([("dc", "x")]).unwrap();
        let target = target(settings, &external, "host", "/docker/0123", known);
        let value =
            |value: &str| if value.len() > 99 { format!("{} bytes", value.len()) } else { value.into() };
        let shown: Vec<String> = target.iter().map(|(name, v)| format!("{name}={} ", value(v))).collect();
        shown.concat()
    }

    #[test]
    fn a_cadvisor_that_stands_alone_shows_what_is_on_the_allow_list() {
        let settings = Settings {
            container_labels: AllowList::new(["a*", "long"]),
            container_env: AllowList::new(["STAGE"]),
            ..Settings::default()
        };
        assert_eq!(
            shown_as(&settings, Known::Container(&container())),
            "container_env_stage=prod container_label_a_b=1 container_label_long=16384 bytes dc=x id=/docker/0123 \
             image=nginx:1 instance=host job=cadvisor name=web "
        );
        assert_eq!(
            shown_as(&settings, Known::Id("0123")),
            "dc=x id=/docker/0123 instance=host job=cadvisor name=0123 "
        );
    }

    #[test]
    fn the_kubelet_shows_pod_and_container() {
        let settings = Settings { scheme: Scheme::Kubelet, ..Settings::default() };
        assert_eq!(
            shown_as(&settings, Known::Container(&container())),
            "container=nginx dc=x id=/docker/0123 image=nginx:1 instance=host job=cadvisor name=0123 \
             namespace=shop pod=web-0 "
        );
        let pod = PodName { namespace: "shop".into(), pod: "web-0".into() };
        assert_eq!(
            shown_as(&settings, Known::Pod(&pod)),
            "dc=x id=/docker/0123 instance=host job=cadvisor namespace=shop pod=web-0 "
        );
    }

    #[test]
    fn a_container_with_a_thousand_labels_stays_within_the_wires_cap() {
        let mut container = container();
        container.labels = (0..1_000).map(|n| (format!("l{n}").into(), "x".into())).collect();
        let settings = Settings { container_labels: AllowList::new(["*"]), ..Settings::default() };
        let target = target(&settings, &Labels::default(), "host", "/x", Known::Container(&container));
        assert!(target.len() < MAX_LABELS - 30, "{}", target.len());
    }
}
