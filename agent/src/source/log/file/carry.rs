//! Over a rotation: what is open at the end of a rotated file (half of a container's long line, a stack trace) goes on
//! in the file that took its path, and becomes one entry. It is said of its ranges that they are
//! [joined](crate::source::log::origin::Range::joined), so that they are shaped together again after a kill.

use super::identity::{Stat, Tail, beginning, begins_as};
use super::known::{Content, FileId, Generation};
use super::read::READ_BYTES;
use super::thread::Thread;
use crate::source::log::checkpoints::SourceKind;
use crate::source::log::cutter::BLOCK_TEXT_BYTES;
use crate::source::log::origin::Range;
use crate::source::log::shape::{Chunk, End};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// No more than this is carried over: what may be open at most, and some.
const MOST_BYTES: usize = 1 << 20;

/// Generations of one path whose bytes are shaped as if they were one file's.
struct Carried {
    /// Each with how many of the bytes are its own, the one that may still grow at the end.
    parts: Vec<(FileId, usize)>,
    bytes: Vec<u8>,
    /// How the last one begins.
    begins: Vec<u8>,
}

impl Thread {
    /// Shapes what is left at the end of rotated generations together with the beginning of the one that comes after
    /// them, as far as that makes entries.
    pub(super) fn carry_over(&mut self, next: FileId) {
        let Some(Carried { parts, bytes, begins }) = self.to_carry(next) else { return };
        let Some(first) = parts.first().and_then(|(id, _)| self.known.generation(*id)) else { return };
        let (nth, label, offset, last_ns) =
            (usize::from(first.input), first.label.clone(), first.offset, first.last_ns);
        let input = &mut self.inputs[nth];
        let floor_ns = input.floors.get(&label).copied().unwrap_or(0).max(last_ns);
        let (labels, shaper) = input.shaping(&label);
        let base_ns = self.cutter.begin();
        let chunk = Chunk { bytes: &bytes, offset, base_ns, floor_ns, end: End::More, again: false };
        let shaped = shaper.shape(&labels, chunk, BLOCK_TEXT_BYTES, self.cutter.builder());
        let consumed = shaped.consumed.min(bytes.len());
        let mut at = 0;
        for (id, length) in parts {
            let of_it = length.min(consumed - at);
            let Some(generation) = self.known.generation_mut(id).filter(|_| of_it > 0) else { break };
            let joined = at + of_it < consumed;
            self.cutter.cover(Range {
                source: generation.source,
                from: generation.offset,
                to: generation.offset + of_it as u64,
                floor_ns,
                // What they make together is the last one's.
                last_ns: if joined { floor_ns } else { shaped.last_ns },
                entries: if joined { 0 } else { shaped.entries },
                joined,
                ..Range::default()
            });
            generation.offset += of_it as u64;
            generation.bytes = generation.bytes.max(generation.offset);
            generation.tail = Tail::of(&bytes[at..at + of_it]);
            generation.last_ns = shaped.last_ns;
            if let Some(reading) = &mut generation.reading {
                reading.partial_since = None;
            }
            if id == next {
                self.known_better(next, &begins);
            }
            at += of_it;
        }
        if consumed > 0 {
            let input = &mut self.inputs[nth];
            input.floors.insert(label, shaped.last_ns);
            input.telemetry.bytes_read.add(consumed as u64);
        }
        if shaped.full || self.cutter.is_full() {
            self.cut();
        }
    }

    /// What is left of those before a generation, and what it begins with; none if there is nothing to be carried over.
    fn to_carry(&self, next: FileId) -> Option<Carried> {
        let new = self.known.generation(next)?;
        if new.offset > 0 || new.copy_of.is_some() || new.source == 0 {
            return None;
        }
        let mut before = Vec::new();
        let mut id = new.after;
        while let Some(one) = id {
            let generation = self.known.generation(one)?;
            if generation.unread() > 0 {
                before.push((one, generation));
            } else if generation.queued || generation.kind != SourceKind::File {
                return None;
            }
            id = generation.after;
        }
        before.reverse();
        // The first one was read to its end; the others wait for it.
        if before.first()?.1.queued {
            return None;
        }
        let (mut parts, mut bytes) = (Vec::with_capacity(before.len() + 1), Vec::new());
        for (id, old) in before {
            let left = usize::try_from(old.unread()).ok()?;
            let ended = old.path.as_ref() != Some(&old.label) && old.copy_of.is_none() && old.source != 0;
            let file = plain(old)?;
            if !ended
                || old.label != new.label
                || bytes.len() + left > MOST_BYTES
                || Stat::of_open(file).ok()?.bytes != old.bytes
            {
                return None;
            }
            let from = bytes.len();
            bytes.resize(from + left, 0);
            file.read_exact_at(&mut bytes[from..], old.offset).ok()?;
            // Half a line is nothing that its writer goes on with elsewhere.
            if bytes.last() != Some(&b'\n') {
                return None;
            }
            parts.push((id, left));
        }
        let file = plain(new)?;
        let begins = beginning(file).ok()?;
        let from = bytes.len();
        bytes.resize(from + READ_BYTES, 0);
        let read = file.read_at(&mut bytes[from..], 0).ok()?;
        bytes.truncate(from + read);
        parts.push((next, read));
        (read > 0 && begins_as(&begins, new.print)).then_some(Carried { parts, bytes, begins })
    }
}

fn plain(generation: &Generation) -> Option<&File> {
    match &generation.reading.as_ref()?.content {
        Content::Plain(file) if generation.kind == SourceKind::File => Some(file),
        _ => None,
    }
}
