//! One pass over all cgroups: depth first, all trees at once, each level in the order of its names.

use super::files::Dirs;
use super::layout::Layout;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, fstat, openat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::path::PathBuf;

/// The deepest cgroup that is looked at. Containers of pods in containers are at 12.
const MAX_DEPTH: usize = 32;

/// The most cgroups that a pass looks at.
const MAX_CGROUPS: usize = 50_000;

/// The room for directory entries, in bytes: some 100 of them.
const ENTRIES_BYTES: usize = 8 << 10;

/// What is to be done with a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Plan {
    /// It is visited.
    pub(in super::super) visit: bool,
    /// What is in it is looked at.
    pub(in super::super) descend: bool,
}

/// Who is shown the cgroups.
pub(in super::super) trait Visitor {
    /// What is to be done with the cgroup at a path.
    fn plan(&mut self, path: &str) -> Plan;
    /// Takes a cgroup. `is_leaf` if there are no cgroups in it.
    fn visit(&mut self, path: &str, dirs: &Dirs, is_leaf: bool);
}

/// Why a pass came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the cgroup file system at {}: {source}", mount.display())]
pub(in super::super) struct WalkError {
    /// Where it is mounted.
    mount: PathBuf,
    /// Why.
    source: std::io::Error,
}

/// Shows a visitor all cgroups. What vanishes meanwhile is passed over. Gives how many were left out for want of
/// permission, or because they are too many or too deep.
pub(in super::super) fn walk(layout: &Layout, visitor: &mut impl Visitor) -> Result<usize, WalkError> {
    let mut root = Dirs::default();
    for (dir, tree) in root.0.iter_mut().zip(layout.trees()) {
        let opened = openat(CWD, &tree.mount, OPEN_DIR, Mode::empty());
        *dir = Some(opened.map_err(|error| WalkError { mount: tree.mount.clone(), source: error.into() })?);
    }
    let mut walk = Walk {
        visitor,
        path: String::with_capacity(256),
        names: Vec::new(),
        ends: Vec::new(),
        entries: Vec::with_capacity(ENTRIES_BYTES),
        seen: 0,
        left_out: 0,
    };
    walk.path.push('/');
    let plan = walk.visitor.plan("/");
    walk.cgroup(&root, plan, 0);
    Ok(walk.left_out)
}

const OPEN_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

struct Walk<'a, V> {
    visitor: &'a mut V,
    path: String,
    /// The names of the subdirectories on the way down, each with its final NUL.
    names: Vec<u8>,
    /// Where each begins and ends.
    ends: Vec<(usize, usize)>,
    entries: Vec<u8>,
    seen: usize,
    left_out: usize,
}

impl<V: Visitor> Walk<'_, V> {
    fn cgroup(&mut self, dirs: &Dirs, plan: Plan, depth: usize) {
        self.seen += 1;
        let (first, first_name) = (self.ends.len(), self.names.len());
        for dir in dirs.all() {
            self.list(dir);
        }
        let Self { names, ends, .. } = self;
        ends[first..].sort_unstable_by(|a, b| names[a.0..a.1].cmp(&names[b.0..b.1]));
        let end = first + unique(&mut ends[first..], |a, b| names[a.0..a.1] == names[b.0..b.1]);
        self.ends.truncate(end);
        if plan.visit {
            self.visitor.visit(&self.path, dirs, first == end);
        }
        for at in first..end {
            if !plan.descend {
                break;
            }
            let parent_length = self.path.len();
            let (start, stop) = self.ends[at];
            if depth > 0 {
                self.path.push('/');
            }
            self.path.push_str(&String::from_utf8_lossy(&self.names[start..stop - 1]));
            self.child(dirs, start, stop, depth + 1);
            self.path.truncate(parent_length);
        }
        self.ends.truncate(first);
        self.names.truncate(first_name);
    }

    fn child(&mut self, parent: &Dirs, start: usize, stop: usize, depth: usize) {
        let plan = self.visitor.plan(&self.path);
        if !(plan.visit || plan.descend) {
            return;
        }
        if depth > MAX_DEPTH || self.seen >= MAX_CGROUPS {
            self.left_out += 1;
            return;
        }
        let Ok(name) = CStr::from_bytes_with_nul(&self.names[start..stop]) else { return };
        let mut dirs = Dirs::default();
        let mut denied = false;
        for (dir, parent) in dirs.0.iter_mut().zip(&parent.0) {
            let opened = parent.as_ref().map(|parent| openat(parent, name, OPEN_DIR, Mode::empty()));
            denied |= matches!(opened, Some(Err(Errno::ACCESS | Errno::PERM)));
            *dir = opened.and_then(Result::ok);
        }
        if dirs.is_empty() {
            self.left_out += usize::from(denied);
        } else {
            self.cgroup(&dirs, plan, depth);
        }
    }

    /// Appends the names of a directory's subdirectories. One that cannot be listed has none.
    fn list(&mut self, dir: &OwnedFd) {
        // Directories of kernfs have as many links as subdirectories, and two more.
        if fstat(dir).is_ok_and(|stat| stat.st_nlink == 2) {
            return;
        }
        let mut entries = RawDir::new(dir, self.entries.spare_capacity_mut());
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name().to_bytes_with_nul();
            if entry.file_type() == FileType::Directory && !matches!(name, b".\0" | b"..\0") {
                let start = self.names.len();
                self.names.extend_from_slice(name);
                self.ends.push((start, self.names.len()));
            }
        }
    }
}

/// Moves the first of each run of equals to the front and says how many there are.
fn unique<T: Copy>(sorted: &mut [T], equal: impl Fn(T, T) -> bool) -> usize {
    let mut kept = 0;
    for at in 0..sorted.len() {
        if kept == 0 || !equal(sorted[kept - 1], sorted[at]) {
            sorted[kept] = sorted[at];
            kept += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[derive(Default)]
    struct Noting {
        visits: Vec<String>,
        closed: &'static str,
    }

    impl Visitor for Noting {
        fn plan(&mut self, path: &str) -> Plan {
            Plan { visit: path != self.closed, descend: path != self.closed }
        }
        fn visit(&mut self, path: &str, dirs: &Dirs, is_leaf: bool) {
            self.visits.push(format!("{path} {}{}", dirs.all().count(), if is_leaf { " leaf" } else { "" }));
        }
    }

    fn layout(root: &Path) -> Layout {
        let line = |name: &str| format!("1 1 0:1 / {}/{name} rw - cgroup cgroup rw,{name}\n", root.display());
        std::fs::create_dir_all(root.join("self")).unwrap();
        std::fs::write(root.join("self/mountinfo"), line("cpu") + &line("memory")).unwrap();
        Layout::find(root, root).unwrap()
    }

    #[test]
    fn cgroups_of_all_trees_are_visited_once_each_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["cpu/b/d", "cpu/a", "memory/b/c", "memory/x/y/z"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::fs::write(dir.path().join("cpu/tasks"), "").unwrap();
        let layout = layout(dir.path());
        let mut noting = Noting { visits: Vec::new(), closed: "/x/y" };
        assert_eq!(walk(&layout, &mut noting).unwrap(), 0);
        assert_eq!(noting.visits, ["/ 2", "/a 1 leaf", "/b 2", "/b/c 1 leaf", "/b/d 1 leaf", "/x 1"]);
        std::fs::remove_dir_all(dir.path().join("cpu")).unwrap();
        let error = walk(&layout, &mut noting).unwrap_err().to_string();
        assert!(error.contains("cgroup file system at") && error.contains("cpu"), "{error}");
    }

    #[test]
    fn too_deep_a_tree_is_cut_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("memory")).unwrap();
        std::fs::create_dir_all(dir.path().join("cpu").join("d/".repeat(MAX_DEPTH + 3))).unwrap();
        let mut noting = Noting::default();
        assert_eq!(walk(&layout(dir.path()), &mut noting).unwrap(), 1);
        assert_eq!(noting.visits.len(), MAX_DEPTH + 1);
    }
}
