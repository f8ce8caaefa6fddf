//! What containerd and CRI-O say of a container or a sandbox, as we say it.

use super::super::facts;
use super::super::roster::Sighting;
use super::messages::{
    ContainerState, ContainerStatusResponse, NamespaceMode, PodSandboxState, PodSandboxStatusResponse,
};
use crate::source::container::{Container, ContainerId, Health, PodIdentity, RunState, RuntimeKind};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The reason with which both runtimes mark a container that the kernel killed (`oomExitReason` in their sources).
const OOM_REASON: &str = "OOMKilled";

/// The verbose part of a status, which runtimes give as JSON of their own: containerd and CRI-O agree on `pid`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Info {
    pid: u32,
    #[serde(rename = "runtimeSpec")]
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    process: SpecProcess,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SpecProcess {
    env: Vec<String>,
}

impl Info {
    /// Reads it; a runtime that says nothing, or says it in another shape, is one without it.
    fn of(info: &BTreeMap<String, String>) -> Self {
        info.get("info").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }
}

/// What the sandbox of a container says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sandbox {
    /// Whether it uses the host's network.
    pub(super) host_network: bool,
}

/// A container's status; none if it has not begun or names no id.
pub(super) fn container(
    answer: ContainerStatusResponse,
    runtime: RuntimeKind,
    env: &[Box<str>],
    sandbox: Option<&Sandbox>,
    news: bool,
) -> Option<Sighting> {
    let status = answer.status?;
    let state = match status.state() {
        ContainerState::ContainerRunning => RunState::Running,
        ContainerState::ContainerExited | ContainerState::ContainerUnknown => RunState::Exited,
        ContainerState::ContainerCreated => return None,
    };
    if !facts::is_id(&status.id) {
        return None;
    }
    let running = state == RunState::Running;
    let info = Info::of(&answer.info);
    let metadata = status.metadata.unwrap_or_default();
    let image = status.image.unwrap_or_default();
    let image = [image.user_specified_image, image.image, status.image_ref];
    let labels = facts::labels(status.labels);
    let container = Container {
        id: ContainerId::new(&status.id),
        runtime,
        name: metadata.name.into(),
        image: image.into_iter().find(|name| !name.is_empty()).unwrap_or_default().into(),
        pod: facts::pod(&labels),
        env: facts::env(&info.spec.process.env, env),
        labels,
        state,
        health: Health::None,
        pid: Some(info.pid).filter(|pid| running && *pid > 0),
        created_ms: millis(status.created_at),
        started_ms: millis(status.started_at),
        restarts: Some(metadata.attempt.into()),
        log_path: Some(status.log_path).filter(|path| !path.is_empty()).map(Into::into),
        host_network: sandbox.is_some_and(|sandbox| sandbox.host_network),
    };
    let exit_code = (!running).then_some(status.exit_code.into());
    Some(Sighting { container, exit_code, oom_killed: !running && status.reason == OOM_REASON, news })
}

/// A sandbox's status: the container whose process holds a pod's namespaces, `POD` in cAdvisor's words.
pub(super) fn sandbox(answer: PodSandboxStatusResponse, runtime: RuntimeKind) -> Option<(Sighting, Sandbox)> {
    let status = answer.status?;
    if !facts::is_id(&status.id) {
        return None;
    }
    let running = status.state() == PodSandboxState::SandboxReady;
    let network = status.linux.and_then(|linux| linux.namespaces?.options).unwrap_or_default().network();
    let host_network = network == NamespaceMode::Node;
    let metadata = status.metadata.unwrap_or_default();
    let pod = PodIdentity {
        namespace: metadata.namespace.into(),
        pod: metadata.name.into(),
        uid: metadata.uid.into(),
        container: SANDBOX.into(),
    };
    let container = Container {
        id: ContainerId::new(&status.id),
        runtime,
        name: SANDBOX.into(),
        image: Box::default(),
        labels: facts::labels(status.labels),
        env: Box::default(),
        pod: Some(pod),
        state: if running { RunState::Running } else { RunState::Exited },
        health: Health::None,
        pid: Some(Info::of(&answer.info).pid).filter(|pid| running && *pid > 0),
        created_ms: millis(status.created_at),
        started_ms: millis(status.created_at),
        restarts: None,
        log_path: None,
        host_network,
    };
    Some((Sighting { container, exit_code: None, oom_killed: false, news: false }, Sandbox { host_network }))
}

/// A sandbox's container name.
pub(super) const SANDBOX: &str = "POD";

/// The CRI has nanoseconds since the epoch, 0 for never.
fn millis(nanos: i64) -> Option<i64> {
    (nanos > 0).then_some(nanos / 1_000_000)
}
