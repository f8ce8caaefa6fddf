//! `containers.runtimes`: who is asked for the names of containers.

use crate::source::container::runtime::{Settings, Socket, Sockets};
use crate::source::container::{self, RuntimeKind};
use pegel_runtime::config::form::FilePath;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How often runtimes are asked for the sizes of writable layers: they walk every file of every container to answer,
/// which cAdvisor does itself every one to two minutes.
const WRITABLE_SIZE_INTERVAL: Duration = Duration::from_mins(5);

/// The container runtimes that are asked for names, images, labels, pods and health of containers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("x-refused" = {"docker": "list its socket: `sockets: [{kind: docker, path: /run/docker.sock}]`", "endpoint": "list it: `sockets: [{kind: containerd, path: /run/containerd/containerd.sock}]`"}))]
pub struct RawRuntimes {
    /// Whether runtimes are asked at all. Without them, containers have ids for names.
    pub enabled: bool,
    /// The sockets to ask. Without the key, all that are found at the places where Docker, Podman, containerd and
    /// CRI-O have them, of users too, now and later: `/run/docker.sock`, `/run/user/*/docker.sock`,
    /// `/run/podman/podman.sock`, `/run/user/*/podman/podman.sock`, `/run/containerd/containerd.sock`,
    /// `/run/k3s/containerd/containerd.sock`, `/run/crio/crio.sock`. `DOCKER_HOST` is not looked at.
    pub sockets: Option<Vec<RawSocket>>,
}

/// A runtime's socket.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawSocket {
    /// What is spoken there: Docker's API for `docker` and `podman`, the container runtime interface for
    /// `containerd` and `cri-o`.
    pub kind: RawRuntimeKind,
    /// The socket.
    pub path: FilePath,
}

/// A container runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RawRuntimeKind {
    /// Docker's engine.
    Docker,
    /// Podman, of root or of a user.
    Podman,
    /// containerd.
    Containerd,
    /// CRI-O.
    CriO,
}

impl Default for RawRuntimes {
    fn default() -> Self {
        Self { enabled: true, sockets: None }
    }
}

impl RawRuntimes {
    /// The settings of discovery, with what it is to bring for accounting; none if it is turned off.
    pub(super) fn resolve(
        &self,
        accounting: &container::Settings,
        path: &Path,
        mistakes: &mut Mistakes,
    ) -> Option<Settings> {
        let sockets = match &self.sockets {
            None => Sockets::WellKnown { root: accounting.rootfs.clone() },
            Some(listed) => {
                let list = path.key("sockets");
                if listed.is_empty() && self.enabled {
                    let remedy =
                        "leave the key out to find sockets, or set containers.runtimes.enabled: false";
                    mistakes.at(&list, "lists no socket", remedy);
                }
                for (at, socket) in listed.iter().enumerate() {
                    let relative = !socket.path.0.is_absolute();
                    let twice = listed[..at].iter().any(|other| other.path.0 == socket.path.0);
                    let place = list.index(at).key("path");
                    if relative {
                        mistakes.at(
                            &place,
                            "is no absolute path",
                            "write it from the root on, without unix://",
                        );
                    } else if twice {
                        mistakes.at(&place, "is listed twice", "take one of them out");
                    }
                }
                Sockets::These(listed.iter().map(RawSocket::resolve).collect())
            }
        };
        self.enabled.then(|| Settings {
            sockets,
            env: accounting.container_env.names().map(Into::into).collect(),
            writable_size_interval: accounting.writable_layer_size.then_some(WRITABLE_SIZE_INTERVAL),
            procfs: accounting.procfs.clone(),
            ..Settings::default()
        })
    }
}

impl RawSocket {
    fn resolve(&self) -> Socket {
        let kind = match self.kind {
            RawRuntimeKind::Docker => RuntimeKind::Docker,
            RawRuntimeKind::Podman => RuntimeKind::Podman,
            RawRuntimeKind::Containerd => RuntimeKind::Containerd,
            RawRuntimeKind::CriO => RuntimeKind::CriO,
        };
        Socket { kind, path: self.path.0.clone() }
    }
}
