//! What a cgroup's path says: whether a container is in it, and which.

/// Hexadecimal digits of a container's id.
const ID_DIGITS: usize = 64;

/// What a cgroup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind<'a> {
    /// The machine.
    Root,
    /// A container, with its id.
    Container(&'a str),
    /// One without series: mounts, which systemd gives cgroups without processes, and the monitors of containers.
    Ignored,
    /// A slice, a service, a pod, anything else.
    Other,
}

impl<'a> Kind<'a> {
    /// The kind of the cgroup at a path.
    ///
    /// Containers are in `…/ID` (Docker and containerd with the driver `cgroupfs`) or, with an optional `.scope`
    /// from the driver `systemd`, in `docker-ID`, `libpod-ID` (Podman), `cri-containerd-ID`, `crio-ID`.
    pub(in super::super) fn of(path: &'a str) -> Self {
        if path == "/" {
            return Self::Root;
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.rsplit_once('.').is_some_and(|(_, unit)| unit == "mount") {
            return Self::Ignored;
        }
        let stem = name.strip_suffix(".scope").unwrap_or(name);
        let Some(start) = stem.len().checked_sub(ID_DIGITS).filter(|start| stem.is_char_boundary(*start))
        else {
            return Self::Other;
        };
        let (prefix, id) = stem.split_at(start);
        if !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Self::Other;
        }
        match prefix {
            "" | "docker-" | "libpod-" | "cri-containerd-" | "crio-" | "nerdctl-" => Self::Container(id),
            "libpod-conmon-" | "crio-conmon-" => Self::Ignored,
            _ => Self::Other,
        }
    }
}

/// The uid of the pod whose cgroup is at a path: `…/podUID`, or `kubepods-burstable-podUID.slice` with underscores
/// for hyphens.
pub(in super::super) fn pod_uid(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let (uid, slice) = match name.strip_suffix(".slice") {
        Some(slice) => (slice.strip_prefix("kubepods")?.rsplit_once("-pod")?.1, true),
        None => (name.strip_prefix("pod")?, false),
    };
    let valid = !uid.is_empty() && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    valid.then(|| if slice { uid.replace('_', "-") } else { uid.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_recognized_as_their_runtimes_name_them() {
        let id = "0123456789abcdef".repeat(4);
        for path in [
            format!("/docker/{id}"),
            format!("/system.slice/docker-{id}.scope"),
            format!("/machine.slice/libpod-{id}.scope"),
            format!("/libpod_parent/libpod-{id}"),
            format!(
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podx.slice/cri-containerd-{id}.scope"
            ),
            format!("/kubepods/burstable/pod12/{id}"),
            format!("/kubepods.slice/crio-{id}.scope"),
            format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope"),
            format!("/docker/{}/docker/{id}", "f".repeat(64)),
        ] {
            assert_eq!(Kind::of(&path), Kind::Container(&id), "{path}");
        }
    }

    #[test]
    fn what_is_no_container_is_not_taken_for_one() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(Kind::of("/"), Kind::Root);
        for path in [
            format!("/machine.slice/libpod-conmon-{id}.scope"),
            format!("/system.slice/crio-conmon-{id}.scope"),
            format!("/system.slice/var-lib-docker-{id}.mount"),
        ] {
            assert_eq!(Kind::of(&path), Kind::Ignored, "{path}");
        }
        for path in [
            "/system.slice".to_owned(),
            "/docker".to_owned(),
            format!("/a/{}", id.to_uppercase()),
            format!("/a/other-{id}"),
            format!("/a/{}", &id[1..]),
            format!("/docker/{id}/init.scope"),
            "/ä".repeat(40),
        ] {
            assert_eq!(Kind::of(&path), Kind::Other, "{path}");
        }
    }

    #[test]
    fn pods_are_recognized_with_both_drivers() {
        assert_eq!(pod_uid("/kubepods/burstable/pod12-ab").as_deref(), Some("12-ab"));
        let slice = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_ab.slice";
        assert_eq!(pod_uid(slice).as_deref(), Some("12-ab"));
        assert_eq!(pod_uid("/kubepods.slice/kubepods-pod12_ab.slice").as_deref(), Some("12-ab"));
        for none in [
            "/kubepods",
            "/kubepods.slice/kubepods-burstable.slice",
            "/podman.slice",
            "/a-podx.slice",
            "/pod",
        ] {
            assert_eq!(pod_uid(none), None, "{none}");
        }
    }
}
