//! What Docker and Podman say of a container, as we say it.

use super::super::facts;
use super::super::roster::Sighting;
use crate::source::container::{Container, ContainerId, Health, RunState, RuntimeKind};
use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum, HealthStatusEnum,
};

/// A container that was inspected; none if it has not begun or says nothing that could be used.
pub(super) fn inspected(
    answer: ContainerInspectResponse,
    runtime: RuntimeKind,
    env: &[Box<str>],
    news: bool,
) -> Option<Sighting> {
    let id = answer.id.filter(|id| facts::is_id(id))?;
    let config = answer.config.unwrap_or_default();
    let state = answer.state.unwrap_or_default();
    let run_state = run_state(&state)?;
    let running = run_state != RunState::Exited;
    let labels = facts::labels(config.labels.unwrap_or_default());
    let pid = state.pid.filter(|pid| running && *pid > 0).and_then(|pid| u32::try_from(pid).ok());
    let container = Container {
        id: ContainerId::new(&id),
        runtime,
        name: answer.name.as_deref().unwrap_or_default().trim_start_matches('/').into(),
        image: config.image.or(answer.image).unwrap_or_default().into(),
        pod: facts::pod(&labels),
        labels,
        env: facts::env(&config.env.unwrap_or_default(), env),
        state: run_state,
        health: state.health.as_ref().map_or(Health::None, |health| self::health(health.status)),
        pid,
        created_ms: answer.created.as_deref().and_then(facts::unix_ms),
        started_ms: state.started_at.as_deref().and_then(facts::unix_ms),
        restarts: answer.restart_count.and_then(|n| u64::try_from(n).ok()),
        log_path: answer.log_path.filter(|path| !path.is_empty()).map(Into::into),
        host_network: answer.host_config.and_then(|h| h.network_mode).is_some_and(|mode| mode == "host"),
    };
    let exit_code = state.exit_code.filter(|_| !running);
    Some(Sighting { container, exit_code, oom_killed: state.oom_killed == Some(true) && !running, news })
}

/// Running, frozen or ended; none if it has not begun. A container that its engine is about to start again has
/// ended, and has no process.
fn run_state(state: &ContainerState) -> Option<RunState> {
    use ContainerStateStatusEnum as Status;
    match state.status {
        Some(Status::RUNNING | Status::STOPPING) => Some(RunState::Running),
        Some(Status::PAUSED) => Some(RunState::Paused),
        Some(Status::CREATED) => None,
        Some(Status::EMPTY) | None if state.paused == Some(true) => Some(RunState::Paused),
        Some(Status::EMPTY) | None if state.running == Some(true) => Some(RunState::Running),
        Some(Status::EMPTY | Status::EXITED | Status::DEAD | Status::REMOVING | Status::RESTARTING)
        | None => Some(RunState::Exited),
    }
}

fn health(status: Option<HealthStatusEnum>) -> Health {
    match status {
        Some(HealthStatusEnum::STARTING) => Health::Starting,
        Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
        Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) | None => Health::None,
    }
}

/// One entry of a list.
#[derive(Debug)]
pub(super) struct Listed {
    /// As much as a list says: no process, no times but the creation's.
    pub(super) container: Container,
    /// The size of the writable layer, if it was asked for.
    pub(super) writable_bytes: Option<u64>,
}

/// A container of a list of those that run; none if it does not.
pub(super) fn listed(summary: ContainerSummary, runtime: RuntimeKind) -> Option<Listed> {
    let id = summary.id.filter(|id| facts::is_id(id))?;
    let state = match summary.state {
        Some(ContainerSummaryStateEnum::PAUSED) => RunState::Paused,
        Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::STOPPING) => RunState::Running,
        _ => return None,
    };
    let labels = facts::labels(summary.labels.unwrap_or_default());
    let name = summary.names.unwrap_or_default().into_iter().next().unwrap_or_default();
    let container = Container {
        id: ContainerId::new(&id),
        runtime,
        name: name.trim_start_matches('/').into(),
        image: summary.image.unwrap_or_default().into(),
        pod: facts::pod(&labels),
        labels,
        env: Box::default(),
        state,
        health: Health::None,
        pid: None,
        created_ms: summary.created.and_then(|seconds| seconds.checked_mul(1_000)),
        started_ms: None,
        restarts: None,
        log_path: None,
        host_network: summary.host_config.and_then(|h| h.network_mode).is_some_and(|mode| mode == "host"),
    };
    Some(Listed { container, writable_bytes: summary.size_rw.and_then(|n| u64::try_from(n).ok()) })
}
