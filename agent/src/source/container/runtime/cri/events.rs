//! Where news of containers come from: containerd's event service, the CRI's, or nowhere.

use super::super::Pace;
use super::super::trouble::Trouble;
use super::channel::{Channel, failure};
use super::messages::{ContainerEventResponse, GetEventsRequest};
use crate::source::container::{ContainerId, RuntimeKind};
use containerd::{Envelope, SubscribeRequest, TaskEvent, TaskExit};
use futures_util::StreamExt;
use prost::Message;
use std::future::{Future, pending};
use std::pin::Pin;
use tonic::{Code, Status, Streaming};

/// The messages, as `events.proto` has them.
#[allow(missing_docs, clippy::pedantic)]
mod containerd {
    include!(concat!(env!("OUT_DIR"), "/containerd.services.events.v1.rs"));
}

/// The namespace in which containerd's CRI keeps its containers.
const CRI_NAMESPACE: &str = "k8s.io";

/// What a stream says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Something happened to this container or sandbox.
    Changed(ContainerId),
    /// The kernel killed something in it.
    OutOfMemory {
        /// The container.
        id: ContainerId,
        /// When, in nanoseconds since the epoch.
        at_nanos: i64,
    },
}

type Opening<T> = Pin<Box<dyn Future<Output = Result<Streaming<T>, Status>> + Send>>;

/// See the module.
pub(super) enum Events {
    OpeningContainerd(Opening<Envelope>),
    Containerd(Box<Streaming<Envelope>>),
    OpeningCri(Opening<ContainerEventResponse>),
    Cri(Box<Streaming<ContainerEventResponse>>),
    /// The runtime has neither; lists have to do.
    None,
}

impl Events {
    /// Asks for what this runtime should have.
    pub(super) fn of(channel: &Channel, kind: RuntimeKind) -> Self {
        if kind == RuntimeKind::Containerd {
            let filters = vec![format!("namespace=={CRI_NAMESPACE},topic~=\"^/tasks/\"")];
            let path = "/containerd.services.events.v1.Events/Subscribe";
            return Self::OpeningContainerd(Box::pin(channel.stream(path, SubscribeRequest { filters })));
        }
        Self::of_cri(channel)
    }

    fn of_cri(channel: &Channel) -> Self {
        let path = "/runtime.v1.RuntimeService/GetContainerEvents";
        Self::OpeningCri(Box::pin(channel.stream(path, GetEventsRequest {})))
    }

    /// Whether a stream was opened.
    pub(super) fn are_heard(&self) -> bool {
        // The head of a stream's answer comes with its first message from some: until then lists are frequent.
        matches!(self, Self::Containerd(_) | Self::Cri(_))
    }

    /// The next news. May be dropped and called again without losing any.
    pub(super) async fn next(&mut self, channel: &Channel, pace: &Pace) -> Result<News, Trouble> {
        loop {
            match self {
                Self::OpeningContainerd(opening) => match opening.await {
                    Ok(stream) => *self = Self::Containerd(Box::new(stream)),
                    Err(status) if status.code() == Code::Unimplemented => *self = Self::of_cri(channel),
                    Err(status) => return Err(ended(pace, &status)),
                },
                Self::OpeningCri(opening) => match opening.await {
                    Ok(stream) => *self = Self::Cri(Box::new(stream)),
                    Err(status) if status.code() == Code::Unimplemented => *self = Self::None,
                    Err(status) => return Err(ended(pace, &status)),
                },
                Self::Containerd(stream) => match stream.next().await {
                    Some(Ok(envelope)) => {
                        if let Some(news) = of_task(&envelope) {
                            return Ok(news);
                        }
                    }
                    Some(Err(status)) => return Err(ended(pace, &status)),
                    None => return Err(Trouble::Ended("containerd ended its stream of events".into())),
                },
                Self::Cri(stream) => match stream.next().await {
                    Some(Ok(event)) if super::super::facts::is_id(&event.container_id) => {
                        return Ok(News::Changed(ContainerId::new(&event.container_id)));
                    }
                    Some(Ok(_)) => {}
                    // CRI-O has the call and ends it like this where `enable_pod_events` is off.
                    Some(Err(status)) if status.code() == Code::Unimplemented => *self = Self::None,
                    Some(Err(status)) => return Err(ended(pace, &status)),
                    None => *self = Self::None,
                },
                Self::None => pending().await,
            }
        }
    }
}

fn ended(pace: &Pace, status: &Status) -> Trouble {
    failure("the stream of events", pace, status).into_trouble("the stream of events")
}

fn of_task(envelope: &Envelope) -> Option<News> {
    let bytes = &envelope.event.as_ref()?.value[..];
    let event =
        TaskEvent::decode(bytes).ok().filter(|event| super::super::facts::is_id(&event.container_id))?;
    let id = ContainerId::new(&event.container_id);
    match envelope.topic.as_str() {
        "/tasks/start" | "/tasks/delete" | "/tasks/paused" | "/tasks/resumed" => Some(News::Changed(id)),
        "/tasks/exit" => {
            // A command that was run in the container ended; the container goes on.
            let exit = TaskExit::decode(bytes).ok()?;
            (exit.id == exit.container_id).then_some(News::Changed(id))
        }
        "/tasks/oom" => {
            let at = envelope.timestamp.unwrap_or_default();
            Some(News::OutOfMemory {
                id,
                at_nanos: at.seconds.saturating_mul(1_000_000_000) + i64::from(at.nanos),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use containerd::{Payload, Timestamp};

    fn envelope(topic: &str, value: Vec<u8>) -> Envelope {
        Envelope {
            timestamp: Some(Timestamp { seconds: 1, nanos: 5 }),
            namespace: CRI_NAMESPACE.into(),
            topic: topic.into(),
            event: Some(Payload { type_url: String::new(), value }),
        }
    }

    #[test]
    fn tasks_change_and_commands_in_them_do_not_matter() {
        let exit = |id: &str| TaskExit { container_id: "c1".into(), id: id.into() }.encode_to_vec();
        let c1 = ContainerId::new("c1");
        assert_eq!(of_task(&envelope("/tasks/exit", exit("c1"))), Some(News::Changed(c1.clone())));
        assert_eq!(of_task(&envelope("/tasks/exit", exit("exec-7"))), None);
        let oom = TaskEvent { container_id: "c1".into() }.encode_to_vec();
        let expected = News::OutOfMemory { id: c1, at_nanos: 1_000_000_005 };
        assert_eq!(of_task(&envelope("/tasks/oom", oom)), Some(expected));
        assert_eq!(of_task(&envelope("/tasks/start", vec![0xff])), None);
    }
}
