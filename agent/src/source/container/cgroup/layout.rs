//! Where each controller's tree is mounted, from `/proc/self/mountinfo`.

use crate::source::reading::text::{lines, quoted};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// More trees than kernels have controllers of interest.
pub(in super::super) const MAX_TREES: usize = 8;

/// A controller whose files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) enum Controller {
    /// Bandwidth and shares.
    Cpu,
    /// Processor time, `cpu` in version 2.
    CpuAcct,
    /// Memory.
    Memory,
    /// Block devices, `io` in version 2.
    Io,
    /// Number of tasks.
    Pids,
    /// Huge pages.
    Hugetlb,
    /// What version 2 has in every cgroup: pressure, and the cgroup's own files.
    Core,
}

impl Controller {
    const ALL: [Self; 7] =
        [Self::Cpu, Self::CpuAcct, Self::Memory, Self::Io, Self::Pids, Self::Hugetlb, Self::Core];

    /// The name in mount options of version 1; none for what it does not have.
    fn name_v1(self) -> Option<&'static str> {
        match self {
            Self::Cpu => Some("cpu"),
            Self::CpuAcct => Some("cpuacct"),
            Self::Memory => Some("memory"),
            Self::Io => Some("blkio"),
            Self::Pids => Some("pids"),
            Self::Hugetlb => Some("hugetlb"),
            Self::Core => None,
        }
    }
}

/// Of which version a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Version {
    /// Version 1.
    V1,
    /// Version 2.
    V2,
}

/// A mounted tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Tree {
    /// Where.
    pub(in super::super) mount: PathBuf,
    /// Its version.
    pub(in super::super) version: Version,
}

/// Which trees there are, and where each controller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Layout {
    trees: Vec<Tree>,
    places: [Option<u8>; Controller::ALL.len()],
    /// The cgroup that is mounted, where that is not the whole hierarchy.
    pub(in super::super) part_of: Option<String>,
}

/// Why no cgroups can be read.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum LayoutError {
    /// The mount table cannot be read.
    #[error("cannot read {}: {source}; mount procfs there or set containers.procfs", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No cgroup file system is mounted.
    #[error(
        "{} has no cgroup file system: mount it (in a container, the host's /sys, and set containers.sysfs to that place)",
        path.display()
    )]
    None {
        /// The mount table.
        path: PathBuf,
    },
}

impl Layout {
    /// Reads the mount table of the own process. Mounts under `sysfs` come before others.
    pub(in super::super) fn find(procfs: &Path, sysfs: &Path) -> Result<Self, LayoutError> {
        let path = procfs.join("self/mountinfo");
        match std::fs::read(&path) {
            Ok(table) => {
                let root_controllers = |mount: &Path| {
                    std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()
                };
                Self::from_mounts(&table, sysfs, root_controllers).ok_or(LayoutError::None { path })
            }
            Err(source) => Err(LayoutError::Read { path, source }),
        }
    }

    /// Makes sense of a mount table. `root_controllers` gives the content of a tree's `cgroup.controllers`.
    fn from_mounts(table: &[u8], sysfs: &Path, root_controllers: impl Fn(&Path) -> String) -> Option<Self> {
        let mut mounts: Vec<Mount> = lines(table).filter_map(Mount::parse).collect();
        // A container sees its own part of the hierarchy besides the host's, if that is mounted at all.
        mounts.sort_by_key(|mount| (!mount.at.starts_with(sysfs), mount.root != "/"));
        let mut layout = Self { trees: Vec::new(), places: [None; Controller::ALL.len()], part_of: None };
        for controller in Controller::ALL {
            let Some(name) = controller.name_v1() else { continue };
            let holds = |mount: &&Mount| {
                mount.version == Version::V1 && mount.options.split(',').any(|option| option == name)
            };
            if let Some(mount) = mounts.iter().find(holds) {
                layout.places[controller as usize] = layout.place(mount);
            }
        }
        if let Some(unified) = mounts.iter().find(|mount| mount.version == Version::V2) {
            let controllers = root_controllers(&unified.at);
            let has = |name: &str| controllers.split_ascii_whitespace().any(|controller| controller == name);
            // Beside version 1 trees, version 2 is there for systemd's own use and counts no processor time.
            let alone = layout.trees.is_empty();
            let wanted = |controller: Controller| match controller {
                Controller::Core => true,
                Controller::Cpu | Controller::CpuAcct => alone || has("cpu"),
                Controller::Memory => has("memory"),
                Controller::Io => has("io"),
                Controller::Pids => has("pids"),
                Controller::Hugetlb => has("hugetlb"),
            };
            for controller in Controller::ALL {
                if layout.places[controller as usize].is_none() && wanted(controller) {
                    layout.places[controller as usize] = layout.place(unified);
                }
            }
        }
        (!layout.trees.is_empty()).then_some(layout)
    }

    fn place(&mut self, mount: &Mount) -> Option<u8> {
        let known = self.trees.iter().position(|tree| tree.mount == mount.at);
        if known.is_none() {
            if self.trees.len() == MAX_TREES {
                return None;
            }
            self.trees.push(Tree { mount: mount.at.clone(), version: mount.version });
            if mount.root != "/" {
                self.part_of = Some(mount.root.clone());
            }
        }
        u8::try_from(known.unwrap_or(self.trees.len() - 1)).ok()
    }

    /// The trees.
    pub(in super::super) fn trees(&self) -> &[Tree] {
        &self.trees
    }

    /// The place of a controller's tree among the trees; none if it is not mounted.
    pub(in super::super) fn tree_of(&self, controller: Controller) -> Option<usize> {
        self.places[controller as usize].map(usize::from)
    }

    /// The version of a controller's tree.
    pub(in super::super) fn version_of(&self, controller: Controller) -> Option<Version> {
        Some(self.trees[self.tree_of(controller)?].version)
    }
}

struct Mount {
    root: String,
    at: PathBuf,
    version: Version,
    options: String,
}

impl Mount {
    /// A line of mountinfo (Documentation/filesystems/proc.rst, 3.5); none for other file systems.
    fn parse(line: &[u8]) -> Option<Self> {
        let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
        let [_, _, _, root, at, _, .., fs_type, _, options] = fields[..] else { return None };
        let version = match fs_type {
            b"cgroup" => Version::V1,
            b"cgroup2" => Version::V2,
            _ => return None,
        };
        Some(Self {
            root: quoted(root),
            at: PathBuf::from(OsString::from_vec(unescaped(at))),
            version,
            options: String::from_utf8_lossy(options).into_owned(),
        })
    }
}

/// Replaces octal escapes by their bytes.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten().and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        out.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd\n";
    const UNIFIED: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    fn layout(table: &str, sysfs: &str, controllers: &str) -> Option<Layout> {
        Layout::from_mounts(table.as_bytes(), Path::new(sysfs), |_| controllers.to_owned())
    }

    fn mount_of(layout: &Layout, controller: Controller) -> Option<&str> {
        layout.tree_of(controller).and_then(|tree| layout.trees()[tree].mount.to_str())
    }

    #[test]
    fn controllers_that_share_a_tree_share_it_and_systemds_own_is_left_alone() {
        let found = layout(V1, "/sys", "").unwrap();
        assert_eq!(found.trees().len(), 2);
        assert_eq!(found.tree_of(Controller::Cpu), found.tree_of(Controller::CpuAcct));
        assert_eq!(mount_of(&found, Controller::Memory), Some("/sys/fs/cgroup/memory"));
        assert_eq!((found.tree_of(Controller::Io), found.tree_of(Controller::Core)), (None, None));
    }

    #[test]
    fn beside_version_1_version_2_has_what_it_was_given() {
        let found = layout(&(V1.to_owned() + UNIFIED), "/sys", "io pids").unwrap();
        assert_eq!(found.version_of(Controller::Cpu), Some(Version::V1));
        assert_eq!(found.version_of(Controller::Io), Some(Version::V2));
        assert_eq!(found.tree_of(Controller::Pids), found.tree_of(Controller::Core));
        let empty = layout(&(UNIFIED.to_owned() + V1), "/sys", "").unwrap();
        assert_eq!((empty.tree_of(Controller::Io), empty.tree_of(Controller::Core)), (None, Some(2)));
    }

    #[test]
    fn version_2_alone_counts_processor_time_without_a_controller() {
        let found = layout("1 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw,nsdelegate\n", "/sys", "memory")
            .unwrap();
        assert_eq!(
            (found.tree_of(Controller::CpuAcct), found.tree_of(Controller::Memory)),
            (Some(0), Some(0))
        );
        assert_eq!(found.tree_of(Controller::Io), None);
    }

    #[test]
    fn the_hosts_sys_comes_before_a_containers_own() {
        let table = "1 1 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw\n\
            2 1 0:26 / /host/sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let found = layout(table, "/host/sys", "memory").unwrap();
        assert_eq!(mount_of(&found, Controller::Memory), Some("/host/sys/fs/cgroup"));
        assert_eq!(found.part_of, None);
        let part = layout(table.lines().next().unwrap(), "/sys", "memory").unwrap();
        assert_eq!(part.part_of.as_deref(), Some("/docker/x"));
        assert_eq!(layout("1 1 8:1 / / rw - ext4 /dev/sda1 rw\n\\\\ \n", "/sys", ""), None);
    }
}
