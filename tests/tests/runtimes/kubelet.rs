//! As much of a kubelet as starts pods through the CRI. Field numbers are those of k8s.io/cri-api.

use hyper_util::rt::{TokioExecutor, TokioIo};
use pegel_tests::docker::IMAGE;
use prost::Message;
use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::body::Body;

/// The image of sandboxes that containerd 1.6 asks for.
pub const SANDBOX_IMAGE: &str = "registry.k8s.io/pause:3.6";
/// `NamespaceMode`'s NODE: no CNI plugin is needed.
const NODE: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct SandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct NamespaceOption {
    #[prost(int32, tag = "1")]
    network: i32,
}

#[derive(Clone, PartialEq, Message)]
struct SecurityContext {
    #[prost(message, optional, tag = "1")]
    namespaces: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxSandbox {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security: Option<SecurityContext>,
}

#[derive(Clone, PartialEq, Message)]
struct SandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<SandboxMetadata>,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(map = "string, string", tag = "6")]
    labels: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct RunSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<SandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Resources {
    #[prost(int64, tag = "4")]
    memory_limit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainer {
    #[prost(message, optional, tag = "1")]
    resources: Option<Resources>,
    #[prost(message, optional, tag = "2")]
    security: Option<LinuxContainerSecurity>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainerSecurity {
    #[prost(message, optional, tag = "3")]
    namespaces: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, Message)]
struct Mount {
    #[prost(string, tag = "1")]
    inside: String,
    #[prost(string, tag = "2")]
    host: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Named>,
    #[prost(message, optional, tag = "2")]
    image: Option<Named>,
    #[prost(string, repeated, tag = "4")]
    args: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    envs: Vec<KeyValue>,
    #[prost(message, repeated, tag = "7")]
    mounts: Vec<Mount>,
    #[prost(map = "string, string", tag = "9")]
    labels: HashMap<String, String>,
    #[prost(string, tag = "11")]
    log_path: String,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainer>,
}

#[derive(Clone, PartialEq, Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<SandboxConfig>,
}

/// A connection to a CRI socket.
pub struct Kubelet {
    sender: hyper::client::conn::http2::SendRequest<Body>,
    logs: String,
    cgroup: String,
    mounts: Vec<Mount>,
}

impl Kubelet {
    /// Connects. Pods are put below an engine's cgroup, so that they end with it.
    pub async fn connect(socket: &Path, cgroup: &str) -> Self {
        let stream = tokio::net::UnixStream::connect(socket).await.expect("containerd listens");
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .expect("containerd speaks HTTP/2");
        tokio::spawn(connection);
        let logs = socket.parent().expect("a directory").join("pod-logs");
        Self {
            sender,
            logs: logs.to_string_lossy().into_owned(),
            cgroup: cgroup.to_owned(),
            mounts: Vec::new(),
        }
    }

    /// Shows a directory of the host to containers that are started from now on, in place of the one before.
    pub fn mount(&mut self, host: &Path, inside: &str) {
        self.mounts = vec![Mount { inside: inside.into(), host: host.to_string_lossy().into_owned() }];
    }

    /// Where a container's output is written.
    pub fn log(&self, name: &str) -> PathBuf {
        Path::new(&self.logs).join(format!("{name}.log"))
    }

    /// Rotates a container's file as a kubelet does: it is renamed by the time, its runtime told to open it anew, and all
    /// but the newest of those that were renamed before are compressed.
    pub async fn rotate(&self, id: &str, name: &str, time: u64) {
        let (log, renamed) = (self.log(name), format!("{name}.log.20260101-{time:06}"));
        let older: Vec<PathBuf> = std::fs::read_dir(&self.logs)
            .expect("the directory of logs")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                file.starts_with(&format!("{name}.log.")) && !file.ends_with(".gz")
            })
            .collect();
        std::fs::rename(&log, log.with_file_name(renamed)).expect("the file is renamed");
        self.call::<_, ()>("ReopenContainerLog", Named { id: id.into() }).await;
        for path in older {
            compress(&path);
        }
    }

    async fn call<Q, A>(&self, name: &'static str, request: Q) -> A
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let origin = http::Uri::from_static("http://localhost");
        let mut client = tonic::client::Grpc::with_origin(Sender(self.sender.clone()), origin);
        client.ready().await.expect("a connection");
        let path = format!("/runtime.v1.RuntimeService/{name}").parse().expect("a path");
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let answer = client.unary(tonic::Request::new(request), path, codec).await;
        answer.unwrap_or_else(|status| panic!("{name}: {status}")).into_inner()
    }

    fn sandbox_config(&self, pod: &str) -> SandboxConfig {
        SandboxConfig {
            metadata: Some(SandboxMetadata {
                name: pod.into(),
                uid: format!("uid-{pod}"),
                namespace: "shop".into(),
            }),
            log_directory: self.logs.clone(),
            labels: labels(pod, None),
            linux: Some(LinuxSandbox {
                cgroup_parent: self.cgroup.clone(),
                security: Some(SecurityContext { namespaces: Some(NamespaceOption { network: NODE }) }),
            }),
        }
    }

    /// Starts a pod's sandbox in the namespace `shop`, on the host's network.
    pub async fn run_sandbox(&self, pod: &str) -> String {
        let request = RunSandbox { config: Some(self.sandbox_config(pod)) };
        self.call::<_, Named>("RunPodSandbox", request).await.id
    }

    /// Starts a container of the workload; a memory limit of 0 is none.
    pub async fn run_container(
        &self,
        sandbox: &str,
        pod: &str,
        name: &str,
        steps: &str,
        memory: i64,
    ) -> String {
        let env = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
        let config = ContainerConfig {
            metadata: Some(Named { id: name.into() }),
            image: Some(Named { id: format!("docker.io/{IMAGE}") }),
            args: steps.split_whitespace().map(str::to_owned).collect(),
            envs: vec![env("TEAM", "shop"), env("PASSWORD", "secret")],
            mounts: self.mounts.clone(),
            labels: labels(pod, Some(name)),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainer {
                resources: Some(Resources { memory_limit: memory }),
                security: Some(LinuxContainerSecurity {
                    namespaces: Some(NamespaceOption { network: NODE }),
                }),
            }),
        };
        let sandbox_config = Some(self.sandbox_config(pod));
        let request = CreateContainer { sandbox: sandbox.into(), config: Some(config), sandbox_config };
        let id = self.call::<_, Named>("CreateContainer", request).await.id;
        self.call::<_, ()>("StartContainer", Named { id: id.clone() }).await;
        id
    }

    /// Kills a container.
    pub async fn stop_container(&self, id: &str) {
        self.call::<_, ()>("StopContainer", Named { id: id.into() }).await;
    }

    /// Ends a pod.
    pub async fn stop_sandbox(&self, id: &str) {
        self.call::<_, ()>("StopPodSandbox", Named { id: id.into() }).await;
    }
}

/// As a kubelet does: into another file, which is renamed when it is whole.
fn compress(path: &Path) {
    let (new, whole) = (suffixed(path, ".tmp"), suffixed(path, ".gz"));
    let file = std::fs::File::create(&new).expect("a file");
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::default());
    std::io::copy(&mut std::fs::File::open(path).expect("a file"), &mut encoder).expect("it is compressed");
    encoder.finish().expect("it is compressed");
    std::fs::rename(&new, whole).and_then(|()| std::fs::remove_file(path)).expect("it takes its place");
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn labels(pod: &str, container: Option<&str>) -> HashMap<String, String> {
    let label = |name: &str, value: &str| (format!("io.kubernetes.{name}"), value.to_owned());
    [label("pod.name", pod), label("pod.namespace", "shop"), label("pod.uid", &format!("uid-{pod}"))]
        .into_iter()
        .chain(container.map(|name| label("container.name", name)))
        .collect()
}

struct Sender(hyper::client::conn::http2::SendRequest<Body>);

impl tower_service::Service<http::Request<Body>> for Sender {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
