//! Generations that came and were rotated away between two looks: while the agent did not run, or did not get to run.

use super::identity::{Kind, PRINT_BYTES, Stat, beginning, begins_as, print_of};
use super::known::FileId;
use super::packed::{Packed, is_packed, kind_of};
use super::thread::Thread;
use crate::source::log::checkpoints::SourceKind;
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// File systems keep times by a clock that may be some milliseconds behind.
const COARSE: Duration = Duration::from_millis(20);
/// Records are also written by those who deliver: while the thread of files did not get to look, for so long perhaps.
const RECORDED: Duration = Duration::from_secs(10);

impl Thread {
    /// The generation at a path moved while the agent runs: those that came after it and are not at the path any more.
    pub(super) fn unseen_since_last_look(&mut self, input: usize, label: &Arc<Path>) {
        if !self.inputs[input].takes(label) {
            return;
        }
        let since = self.heard_before - COARSE;
        let mut last = HashMap::new();
        let before = self.inputs[input].left.get(label).copied();
        last.extend(before.map(|before| (label.clone(), before)));
        self.unseen(input, label, &mut last, since, false);
        if let Some(after) = last.get(label).copied().filter(|after| Some(*after) != before) {
            self.inputs[input].left.insert(label.clone(), after);
        }
    }

    /// Files beside a path, whose names say that they were rotated from it, that were written since its generation was
    /// looked at, and are of another content than anything known of it: oldest first, after `last` of it.
    pub(super) fn unseen(
        &mut self,
        input: usize,
        label: &Arc<Path>,
        last: &mut HashMap<Arc<Path>, FileId>,
        since: SystemTime,
        at_start: bool,
    ) {
        let (Some(dir), Some(name)) = (label.parent(), label.file_name()) else { return };
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        let recorded = since.checked_sub(RECORDED).unwrap_or(since);
        // A name with the date in its middle may as well be a file of its own: it is a rotated one where what was at
        // the path has moved.
        let moved = self.known.at(input, label).is_none_or(|holder| last.get(label) != Some(&holder));
        let mut unseen = Vec::new();
        for entry in entries.flatten() {
            let other = entry.file_name();
            let Some(rotated) = Rotated::of(name.as_encoded_bytes(), other.as_encoded_bytes()) else {
                continue;
            };
            let order = match rotated {
                Rotated::Behind(order) => order,
                Rotated::Between(date) if moved => (0, date),
                Rotated::Between(_) => continue,
            };
            let path = entry.path();
            let Ok(meta) = entry.metadata() else { continue };
            let Ok(modified) = meta.modified() else { continue };
            let late = modified < since;
            if late && !(at_start && modified >= recorded && self.is_younger(&path, last.get(label))) {
                continue;
            }
            if self.inputs[input].settings.leaves_out(&path) {
                continue;
            }
            // Something older that is being compressed just now is as young: what is compressed gets the time of what
            // it was made of when it is complete.
            if !at_start && is_packed(&path) && !was_set_back(&meta, modified) {
                continue;
            }
            unseen.push((modified, order, path));
        }
        unseen.sort();
        for (_, _, path) in unseen {
            self.take_unseen(input, label, &path, last);
        }
    }

    /// Counts generations that were rotated and removed while the agent did not run, as far as that is certain: the
    /// newest that it knew was at the path then, and is called `.3` now; so `.2` and `.1` came after it.
    pub(super) fn count_removed(&self, input: usize, label: &Arc<Path>, newest: FileId) {
        // Where nothing is at the path the next start would find the same gap.
        let another = Stat::of(label).is_ok_and(|stat| {
            self.known.generation(newest).is_some_and(|newest| stat.kind == Kind::File && !newest.is(&stat))
        });
        let path = self.known.generation(newest).and_then(|generation| generation.path.clone());
        let Some(number) = path.filter(|_| another).and_then(|path| number_behind(label, &path)) else {
            return;
        };
        let numbered = |n: u32| {
            ["", ".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip"].iter().any(|packed| {
                let mut path = label.as_os_str().to_owned();
                path.push(format!(".{n}{packed}"));
                std::fs::symlink_metadata(path).is_ok()
            })
        };
        let removed = (1..number).filter(|n| !numbered(*n)).count();
        if removed > 0 {
            self.inputs[input].telemetry.lost_generations.add(removed as u64);
            tracing::warn!(
                path = %label.display(),
                generations = removed,
                "log files were rotated and removed while the agent did not run: their lines are lost, nobody knows \
                 how many"
            );
        }
    }

    /// Whether a plain file was made after the inode of a generation.
    fn is_younger(&self, path: &Path, than: Option<&FileId>) -> bool {
        let Some(id) = than.filter(|_| !is_packed(path)) else { return false };
        let missing = || self.missing.iter().find(|missing| missing.id == *id).map(|m| &m.generation);
        let than = self.known.generation(*id).or_else(missing).map_or(0, |generation| generation.born_ns);
        than != 0 && Stat::of(path).is_ok_and(|stat| stat.born_ns > than)
    }

    fn take_unseen(
        &mut self,
        input: usize,
        label: &Arc<Path>,
        path: &Path,
        last: &mut HashMap<Arc<Path>, FileId>,
    ) {
        let Ok(stat) = Stat::of(path) else { return };
        let known = self.known.of_inode(input, &stat).and_then(|id| self.known.generation(id));
        if stat.kind != Kind::File || known.is_some_and(|generation| generation.is(&stat)) {
            return;
        }
        let Some((kind, begins)) = begins_with(path) else { return };
        let of_label = self.known.iter().chain(self.missing.iter().map(|missing| &missing.generation));
        let seen = of_label
            .filter(|g| usize::from(g.input) == input && g.label == *label)
            .any(|g| g.print.bytes > 0 && begins_as(&begins, g.print));
        if begins.is_empty() || seen {
            return;
        }
        if let Some(other) = self.known.at(input, path) {
            // It was moved on, or is gone.
            self.detach(other);
        }
        let mut generation = Self::generation(input, label, &stat);
        generation.kind = kind;
        generation.path = Some(path.into());
        generation.print = print_of(&begins);
        if kind != SourceKind::File {
            generation.bytes = 0;
        }
        generation.source = self.checkpoints.source(generation.described(&self.inputs[input].name));
        // What holds the path still was truncated since: it comes after its copies.
        let holder = self.known.at(input, label).filter(|id| last.get(label) == Some(id));
        let holder_after = holder.and_then(|id| self.known.generation(id)).map(|holder| holder.after);
        generation.after = holder_after.unwrap_or_else(|| last.get(label).copied());
        let id = self.known.add(generation);
        self.note(id);
        self.activate(id);
        match holder.and_then(|holder| self.known.generation_mut(holder)) {
            Some(holder) => holder.after = Some(id),
            None => {
                last.insert(label.clone(), id);
            }
        }
    }
}

/// How a name says that it is a rotated file's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rotated {
    /// `app.log.1`, `app.log-20260101.gz`: by what stands behind it.
    Behind((i64, String)),
    /// `app-20260101.log`, `app.2026-01-01.log.gz`: by a date before what a name ends with.
    Between(String),
}

impl Rotated {
    /// Whether a name is that of another one's rotated file.
    pub(super) fn of(name: &[u8], other: &[u8]) -> Option<Self> {
        if let Some(order) = other.strip_prefix(name).and_then(order_of) {
            return Some(Self::Behind(order));
        }
        let dot = name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0)?;
        let (stem, ending) = name.split_at(dot);
        let plain =
            [&b".gz"[..], b".zst"].iter().find_map(|packed| other.strip_suffix(*packed)).unwrap_or(other);
        let middle = plain.strip_prefix(stem)?.strip_suffix(ending)?;
        let date =
            std::str::from_utf8(middle.strip_prefix(b"-").or_else(|| middle.strip_prefix(b"."))?).ok()?;
        // Year, month and day at least: a shorter number is more likely that of a worker.
        let digits = date.bytes().filter(u8::is_ascii_digit).count();
        let dated = date.starts_with(|c: char| c.is_ascii_digit())
            && date.chars().all(|c| c.is_ascii_digit() || "-_.:TZ".contains(c));
        (dated && digits >= 8).then(|| Self::Between(date.to_owned()))
    }
}

/// Whether what a name goes on with says that it was rotated; the order of those that are written at the same time,
/// oldest first: of `.2` and `.1` the higher number is older, of dates the lower one.
fn order_of(suffix: &[u8]) -> Option<(i64, String)> {
    let suffix = std::str::from_utf8(suffix).ok()?;
    let plain = [".gz", ".zst"].iter().find_map(|ending| suffix.strip_suffix(ending)).unwrap_or(suffix);
    let rest = plain.strip_prefix(['.', '-', '_']);
    match rest {
        None if plain.is_empty() && !suffix.is_empty() => Some((0, String::new())),
        None => None,
        Some("old" | "bak" | "prev") => Some((0, String::new())),
        Some(rest) => {
            let dated = rest.starts_with(|c: char| c.is_ascii_digit())
                && rest.chars().all(|c| c.is_ascii_digit() || "-_.:TZ".contains(c));
            let number = rest.parse::<i64>().ok().filter(|_| rest.len() < 5);
            dated.then(|| (number.map_or(0, |n| -n), rest.to_owned()))
        }
    }
}

/// The number that a path has behind another one's: 3 of `app.log.3`. A thousand are enough for everybody.
fn number_behind(label: &Path, path: &Path) -> Option<u32> {
    let behind = path.as_os_str().as_encoded_bytes().strip_prefix(label.as_os_str().as_encoded_bytes())?;
    let digits = std::str::from_utf8(behind.strip_prefix(b".")?).ok()?;
    digits.parse().ok().filter(|number| *number < 1_000)
}

/// Whether a file's time of change was set to an earlier one than that at which it was made.
fn was_set_back(meta: &Metadata, modified: SystemTime) -> bool {
    meta.created().is_ok_and(|made| modified < made)
}

/// What a file is and how its content begins; none if it can't be read, or is of no kind that can.
fn begins_with(path: &Path) -> Option<(SourceKind, Vec<u8>)> {
    let file = File::open(path).ok()?;
    match kind_of(path) {
        Some(kind) => {
            let mut packed = Packed::new(file, kind).ok()?;
            let (bytes, _) = packed.read(0, PRINT_BYTES).ok()?;
            Some((kind, bytes.to_vec()))
        }
        None if is_packed(path) => None,
        None => Some((SourceKind::File, beginning(&file).ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Rotated, number_behind, order_of};
    use std::path::Path;

    #[test]
    fn names_of_rotated_files_and_which_is_older() {
        for (suffix, rotated) in [
            (".1", true),
            (".12.gz", true),
            ("-20260101", true),
            (".2026-01-01T10:00:00Z.zst", true),
            (".old", true),
            (".gz", true),
            ("", false),
            (".json", false),
            ("2", false),
            ("-debug.1", false),
        ] {
            assert_eq!(order_of(suffix.as_bytes()).is_some(), rotated, "{suffix}");
        }
        assert!(order_of(b".10") < order_of(b".9.gz") && order_of(b".9") < order_of(b".1"));
        assert!(order_of(b"-20260101") < order_of(b"-20260102"));
    }
    #[test]
    fn names_with_a_date_in_their_middle() {
        let of = |other: &str| Rotated::of(b"app.log", other.as_bytes());
        let between = |date: &str| Some(Rotated::Between(date.to_owned()));
        assert_eq!(of("app-20260101.log"), between("20260101"));
        assert_eq!(of("app-20260101.log.gz"), between("20260101"));
        assert_eq!(of("app.2026-01-01T10.log.zst"), between("2026-01-01T10"));
        assert_eq!(of("app.log-20260101.gz"), Some(Rotated::Behind((0, "20260101".to_owned()))));
        for other in [
            "app-1.log",
            "app-2026.log",
            "app-debug.log",
            "app-20260101.txt",
            "app.log",
            "other-20260101.log",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(Rotated::of(b"app", b"app-20260101.log"), None);
        assert!(between("20260101") < between("20260102"));
    }

    #[test]
    fn numbers_behind_names() {
        let number = |path: &str| number_behind(Path::new("/a/x.log"), Path::new(path));
        assert_eq!((number("/a/x.log.3"), number("/a/x.log"), number("/b/x.log.3")), (Some(3), None, None));
        assert_eq!((number("/a/x.log.3.gz"), number("/a/x.log.99999")), (None, None));
    }
}
