//! Checks from containers' labels: `pegel.probe.http=http://shop:8080/health` and what goes with it.
//!
//! The labels of one check share a middle part: `pegel.probe.KIND` has the target, `pegel.probe.KIND.interval`,
//! `.timeout` and `.name` refine it. A container is checked while it runs.

use super::kinds::Kind;
use super::settings::{Check, DEFAULT_TIMEOUT};
use crate::source::container::{Change, Container, RunState};
use crate::source::scrape::settings::TargetGroup;
use pegel_runtime::config::form::Period;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// What the names of labels begin with.
const PREFIX: &str = "pegel.probe.";

/// The shortest interval that a label may ask for: a container is not to have the agent flood anything.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// Waits until containers' checks may be others than before. Without a catalogue, that is never.
pub(super) async fn changed(changes: &mut Option<broadcast::Receiver<Change>>) {
    let Some(receiver) = changes else { return pending().await };
    loop {
        match receiver.recv().await {
            Ok(Change::OutOfMemory(_) | Change::Health(..)) => {}
            Ok(Change::Started(_) | Change::Stopped { .. } | Change::Updated(_) | Change::Removed(_))
            | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => {
                *changes = None;
                return pending().await;
            }
        }
    }
}

/// The checks that running containers ask for, and what is wrong with labels.
pub(super) fn checks(containers: &[Arc<Container>]) -> (Vec<Check>, Vec<String>) {
    let mut found = Vec::new();
    let mut bad = Vec::new();
    for container in containers.iter().filter(|c| c.state == RunState::Running) {
        for (label, value) in &container.labels {
            let Some(kind) = label.strip_prefix(PREFIX).filter(|rest| !rest.contains('.')) else { continue };
            match check(container, kind, value) {
                Ok(check) => found.push(check),
                Err(reason) => {
                    bad.push(format!("container {}: label {label}: {reason}", container.name));
                }
            }
        }
    }
    (found, bad)
}

fn check(container: &Container, kind: &str, target: &str) -> Result<Check, String> {
    let of_kind = match kind {
        "http" => Kind::Http(Box::default()),
        "icmp" => Kind::Icmp(super::kinds::icmp::Settings::default()),
        "tcp" => Kind::Tcp(Box::default()),
        "tls" => Kind::Tls(Box::default()),
        other => {
            return Err(format!(
                "`{other}` is no kind of check that labels can ask for (http, icmp, tcp, tls)"
            ));
        }
    };
    let label = |name: &str| {
        let name = format!("{PREFIX}{kind}.{name}");
        container.labels.iter().find(|(label, _)| **label == *name).map(|(_, value)| &**value)
    };
    let duration = |name: &str| -> Result<Option<Duration>, String> {
        label(name)
            .map(|text| Period::parse(text).map(|p| p.0).map_err(|e| format!("{name}: `{text}` {e}")))
            .transpose()
    };
    of_kind.check_address(target)?;
    let name = label("name").map_or_else(|| format!("{}-{kind}", container.name), str::to_owned);
    let mut check = Check::new(name, of_kind);
    check.from_container = true;
    if let Some(interval) = duration("interval")? {
        check.interval = interval.max(MIN_INTERVAL);
    }
    check.timeout = duration("timeout")?.unwrap_or(DEFAULT_TIMEOUT).min(check.interval);
    if check.timeout.is_zero() {
        return Err("timeout: a check needs some time".to_owned());
    }
    let labels = vec![("container".to_owned(), container.name.to_string())];
    check.targets = vec![TargetGroup { targets: vec![target.to_owned()], labels }];
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::container::{ContainerId, Health, RuntimeKind};

    fn container(state: RunState, labels: &[(&str, &str)]) -> Arc<Container> {
        Arc::new(Container {
            id: ContainerId::new("c0ffee"),
            runtime: RuntimeKind::Docker,
            name: "shop".into(),
            image: "shop:1".into(),
            labels: labels.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
            env: Box::default(),
            pod: None,
            state,
            health: Health::None,
            pid: None,
            created_ms: None,
            started_ms: None,
            restarts: None,
            log_path: None,
            host_network: false,
        })
    }

    #[test]
    fn running_containers_ask_for_checks_by_their_labels() {
        let labels = [
            ("pegel.probe.http", "http://127.0.0.1:8080/health"),
            ("pegel.probe.http.interval", "5s"),
            ("other", "x"),
        ];
        let (found, bad) =
            checks(&[container(RunState::Running, &labels), container(RunState::Exited, &labels)]);
        assert!(bad.is_empty() && found.len() == 1, "{bad:?}");
        assert_eq!((found[0].name.as_str(), found[0].interval.as_secs()), ("shop-http", 5));
        assert_eq!(found[0].timeout, found[0].interval);
        assert_eq!(found[0].targets[0].labels, [("container".to_owned(), "shop".to_owned())]);
    }

    #[test]
    fn labels_that_make_no_sense_are_named() {
        for (labels, words) in [
            (vec![("pegel.probe.smoke", "x")], "no kind of check"),
            (vec![("pegel.probe.http", "http://u:p@h/")], "user name"),
            (vec![("pegel.probe.http", "h"), ("pegel.probe.http.interval", "often")], "interval: `often`"),
        ] {
            let (found, bad) = checks(&[container(RunState::Running, &labels)]);
            assert!(found.is_empty() && bad[0].contains(words) && bad[0].contains("shop"), "{bad:?}");
        }
    }
}
