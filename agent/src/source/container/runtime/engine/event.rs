//! What an engine's event means for us.

use super::super::facts;
use crate::source::container::{ContainerId, Health};
use bollard::models::{EventMessage, EventMessageTypeEnum};

/// Actions that Docker is asked for. Those of exec, attach and copy would outnumber them. Docker takes
/// `health_status` for all that begin so.
pub(super) const ACTIONS: [&str; 10] =
    ["start", "restart", "die", "oom", "health_status", "destroy", "pause", "unpause", "rename", "update"];

/// A change in a container's life.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Notice {
    /// The container.
    pub(super) id: ContainerId,
    /// When, in nanoseconds since the epoch by the engine's clock.
    pub(super) at_nanos: i64,
    /// What.
    pub(super) what: What,
}

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Something that only the engine can say: it is asked.
    Changed,
    /// It ended, with this code.
    Ended(Option<i64>),
    /// It is no more.
    Removed,
    /// The kernel killed something in it.
    OutOfMemory,
    /// Its check says this.
    Health(Health),
}

/// Reads an event; none if it is not about the life of a container.
pub(super) fn read(event: EventMessage) -> Option<Notice> {
    if event.typ != Some(EventMessageTypeEnum::CONTAINER) {
        return None;
    }
    let actor = event.actor?;
    let attribute = |name: &str| actor.attributes.as_ref()?.get(name).map(String::as_str);
    // Docker's words and Podman's, which differ for the end and the removal.
    let what = match event.action?.as_str() {
        // Of its health, Podman says nothing here, or elsewhere from version to version.
        "start" | "restart" | "pause" | "unpause" | "rename" | "update" | "restore" | "health_status" => {
            What::Changed
        }
        "die" | "died" => {
            let code = attribute("exitCode").or_else(|| attribute("containerExitCode"));
            What::Ended(code.and_then(|code| code.parse().ok()))
        }
        "destroy" | "remove" => What::Removed,
        "oom" => What::OutOfMemory,
        other => What::Health(match other.strip_prefix("health_status: ")? {
            "healthy" => Health::Healthy,
            "unhealthy" => Health::Unhealthy,
            "starting" => Health::Starting,
            _ => Health::None,
        }),
    };
    let at_nanos = event.time_nano.or_else(|| event.time?.checked_mul(1_000_000_000)).unwrap_or(0);
    let id = actor.id.as_deref().filter(|id| facts::is_id(id))?;
    Some(Notice { id: ContainerId::new(id), at_nanos, what })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> Option<Notice> {
        read(serde_json::from_str(json).expect("an event"))
    }

    #[test]
    fn dockers_and_podmans_words_mean_the_same() {
        let docker = event(
            r#"{"Type":"container","Action":"die","Actor":{"ID":"ab","Attributes":{"exitCode":"137"}},"timeNano":5}"#,
        );
        let podman = event(
            r#"{"Type":"container","Action":"died","Actor":{"ID":"ab","Attributes":{"containerExitCode":"137"}},"timeNano":5}"#,
        );
        assert_eq!(docker, podman);
        assert_eq!(docker.map(|n| (n.at_nanos, n.what)), Some((5, What::Ended(Some(137)))));
    }

    #[test]
    fn health_is_in_the_action() {
        let notice =
            event(r#"{"Type":"container","Action":"health_status: unhealthy","Actor":{"ID":"ab"},"time":3}"#);
        assert_eq!(
            notice.map(|n| (n.at_nanos, n.what)),
            Some((3_000_000_000, What::Health(Health::Unhealthy)))
        );
    }

    #[test]
    fn what_is_not_a_containers_life_is_nothing() {
        for other in [
            r#"{"Type":"network","Action":"connect","Actor":{"ID":"ab"}}"#,
            r#"{"Type":"container","Action":"exec_start: sh","Actor":{"ID":"ab"}}"#,
            r#"{"Type":"container","Action":"start","Actor":{"ID":"../ab"}}"#,
            r#"{"Type":"container","Action":"start"}"#,
            "{}",
        ] {
            assert_eq!(event(other), None, "{other}");
        }
    }
}
