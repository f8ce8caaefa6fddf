//! Where runtimes listen.

use super::super::RuntimeKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A runtime's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// Whose it is. Docker's API on Podman's socket is told apart by what answers.
    pub kind: RuntimeKind,
    /// The file.
    pub path: PathBuf,
}

/// Which sockets are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sockets {
    /// All well-known ones that exist below this root, whenever they appear. `DOCKER_HOST` is a user's setting for
    /// the command line and not looked at: what a service watches must not depend on who started it.
    WellKnown {
        /// `/`, or where the host's tree is mounted.
        root: PathBuf,
    },
    /// These, there or not.
    These(Vec<Socket>),
}

/// Well-known sockets, with `*` for any directory: Docker's default `-H`, `podman.socket`'s ListenStream as a system
/// and as a user unit, rootless Docker, and the endpoints that the kubelet's documentation names; k3s has its own.
const WELL_KNOWN: [(RuntimeKind, &str); 7] = [
    (RuntimeKind::Docker, "run/docker.sock"),
    (RuntimeKind::Docker, "run/user/*/docker.sock"),
    (RuntimeKind::Podman, "run/podman/podman.sock"),
    (RuntimeKind::Podman, "run/user/*/podman/podman.sock"),
    (RuntimeKind::Containerd, "run/containerd/containerd.sock"),
    (RuntimeKind::Containerd, "run/k3s/containerd/containerd.sock"),
    (RuntimeKind::CriO, "run/crio/crio.sock"),
];

impl Sockets {
    /// Those that are to be watched now. Two names of one socket (`podman-docker` links Docker's to Podman's) are
    /// one.
    pub(super) fn present(&self) -> Vec<Socket> {
        let root = match self {
            Self::These(sockets) => return sockets.clone(),
            Self::WellKnown { root } => root,
        };
        let mut found: Vec<(Socket, (u64, u64))> = Vec::new();
        for (kind, pattern) in WELL_KNOWN {
            for path in expand(root, pattern) {
                let Some(identity) = identity(&path) else { continue };
                if found.iter().all(|(_, other)| *other != identity) {
                    found.push((Socket { kind, path }, identity));
                }
            }
        }
        found.into_iter().map(|(socket, _)| socket).collect()
    }
}

/// Device and inode of a socket, by whatever name; none if it is no socket or not there.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    metadata.file_type().is_socket().then(|| (metadata.dev(), metadata.ino()))
}

fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once("/*/") else {
        return vec![root.join(pattern)];
    };
    let users = std::fs::read_dir(root.join(before)).into_iter().flatten().flatten();
    let mut paths: Vec<_> = users.map(|user| user.path().join(after)).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn sockets_of_root_and_of_users_are_found_once_by_whichever_name() {
        let root = tempfile::tempdir().expect("a directory");
        let run = root.path().join("run");
        for directory in ["podman", "user/1000/podman", "user/1001", "containerd"] {
            std::fs::create_dir_all(run.join(directory)).expect("a directory");
        }
        let all = Sockets::WellKnown { root: root.path().to_owned() };
        assert_eq!(all.present(), []);
        let _podman = UnixListener::bind(run.join("podman/podman.sock")).expect("a socket");
        let _rootless = UnixListener::bind(run.join("user/1000/podman/podman.sock")).expect("a socket");
        std::fs::write(run.join("containerd/containerd.sock"), "a file").expect("a file");
        std::os::unix::fs::symlink("podman/podman.sock", run.join("docker.sock")).expect("a link");
        let found: Vec<_> = all.present().into_iter().map(|s| (s.kind, s.path)).collect();
        let expected = [
            (RuntimeKind::Docker, run.join("docker.sock")),
            (RuntimeKind::Podman, run.join("user/1000/podman/podman.sock")),
        ];
        assert_eq!(found, expected);
    }
}
