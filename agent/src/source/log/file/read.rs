//! A generation's turn: opened, compared with what is known of it, read, shaped.

use super::copies::Was;
use super::identity::{PRINT_BYTES, Stat, Tail, beginning, begins_as, print_of};
use super::known::{Content, FileId, Quiet, Reading};
use super::packed::Packed;
use super::thread::{Thread, Visit};
use super::trouble::is_gone;
use crate::source::log::checkpoints::SourceKind;
use crate::source::log::cutter::BLOCK_TEXT_BYTES;
use crate::source::log::origin::Range;
use crate::source::log::shape::{Chunk, End};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is read of one file before the next one's turn.
pub(super) const READ_BYTES: usize = 256 << 10;
/// The most that is read where an entry does not end; the shaper makes entries of so much in any case.
const READ_MOST_BYTES: usize = (1 << 20) + (64 << 10);
/// What is left at the end though more comes is an entry after so many times the wait for more.
const PARTIAL_WAITS: u32 = 5;

/// What came of reading.
enum Outcome {
    /// There is more.
    More,
    /// It is read to its end, for now.
    End,
    /// It is another content than before.
    Truncated,
    /// It can't be read.
    Failed(io::Error),
}

impl Thread {
    pub(super) fn visit(&mut self, id: FileId) -> Visit {
        let Some(generation) = self.known.generation(id) else { return Visit::Idle };
        let (input, after) = (usize::from(generation.input), generation.after);
        if self.held.contains(&generation.source) || !self.inputs[input].is_ready(&generation.label) {
            return Visit::Later;
        }
        if generation.trouble.as_ref().is_some_and(|trouble| !trouble.is_due()) {
            return Visit::Later;
        }
        if let Some(original) = generation.copy_of {
            return self.visit_copy(id, original);
        }
        match self.try_open(id) {
            Opened::Yes => {}
            Opened::Gone => {
                self.lose_sight(id);
                return Visit::Idle;
            }
            Opened::Later => return Visit::Later,
        }
        if let Some(before) = after {
            if self.holds_back(before) {
                self.carry_over(id);
                if self.pending.is_some() {
                    return Visit::More;
                }
                if self.holds_back(before) {
                    return Visit::Waits;
                }
            }
            let floor = self.last_ns_of(before);
            if let Some(generation) = self.known.generation_mut(id) {
                generation.after = None;
                generation.last_ns = generation.last_ns.max(floor);
            }
        }
        let Some(mut reading) = self.known.generation_mut(id).and_then(|g| g.reading.take()) else {
            return Visit::Idle;
        };
        let outcome = self.read(id, &mut reading);
        if let Some(generation) = self.known.generation_mut(id) {
            generation.reading = Some(reading);
        }
        if !matches!(outcome, Outcome::Failed(_)) {
            self.out_of_trouble(id);
        }
        match outcome {
            Outcome::More => Visit::More,
            Outcome::End => Visit::Idle,
            Outcome::Truncated => {
                self.truncated(id);
                Visit::Idle
            }
            Outcome::Failed(error) => {
                self.in_trouble(id, &error);
                Visit::Later
            }
        }
    }

    /// Reads a piece and shapes it.
    fn read(&mut self, id: FileId, reading: &mut Reading) -> Outcome {
        let now = Instant::now();
        let Some(generation) = self.known.generation(id) else { return Outcome::End };
        let (offset, tail) = (generation.offset, generation.tail);
        let mut size = u64::MAX;
        if let Content::Plain(file) = &reading.content {
            let stat = match Stat::of_open(file) {
                Ok(stat) => stat,
                Err(error) => return Outcome::Failed(error),
            };
            if stat.bytes < offset || stat.bytes < u64::from(generation.print.bytes) {
                return Outcome::Truncated;
            }
            if !reading.compared || (generation.print.bytes as usize) < PRINT_BYTES {
                let begins = match beginning(file) {
                    Ok(begins) => begins,
                    Err(error) => return Outcome::Failed(error),
                };
                if !begins_as(&begins, generation.print) {
                    return Outcome::Truncated;
                }
                if begins.len() > generation.print.bytes as usize {
                    self.known_better(id, &begins);
                }
            }
            reading.compared = true;
            size = stat.bytes;
        }
        let Some(generation) = self.known.generation_mut(id) else { return Outcome::End };
        let mut grown = size != generation.bytes;
        if size != u64::MAX {
            generation.saw(size, now);
        }
        if size == offset {
            reading.compared = false;
            reading.partial_since = None;
            return Outcome::End;
        }
        let label = generation.label.clone();
        let mut want = READ_BYTES;
        let mut full = false;
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = loop {
            let (bytes, end) = match &mut reading.content {
                Content::Plain(file) => match read_from(file, offset, tail, want, &mut buffer) {
                    Ok(Some(bytes)) => {
                        let end = offset + bytes.len() as u64 >= size || bytes.is_empty();
                        (bytes, end)
                    }
                    Ok(None) => break Outcome::Truncated,
                    Err(error) => break Outcome::Failed(error),
                },
                Content::Packed(packed) => match packed.read(offset, want) {
                    Ok(read) => read,
                    Err(error) => break Outcome::Failed(error),
                },
            };
            let packed_end = end && size == u64::MAX;
            let flush_after = self.inputs_flush_after(id, &label);
            // This is the look that tells: what came since the last one, or while it was read, is no silence.
            grown |= offset + bytes.len() as u64 > size;
            reading.quiet.looked(grown);
            let silent = end && reading.quiet.time >= flush_after;
            let end_of = if packed_end || silent { End::Flush } else { End::More };
            let Self { inputs, cutter, known, .. } = self;
            let mut consumed = shape(inputs, cutter, known, id, bytes, end_of);
            let old =
                reading.partial_since.is_some_and(|since| since.elapsed() >= flush_after * PARTIAL_WAITS);
            if consumed.bytes == 0
                && !consumed.full
                && end_of == End::More
                && (old || want >= READ_MOST_BYTES)
            {
                // Though more comes, or nothing ends in so much: all but the line that may be half written.
                let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
                consumed = shape(inputs, cutter, known, id, &bytes[..whole], End::Flush);
            }
            let left = bytes.len() - consumed.bytes;
            if consumed.bytes == 0 && !end && !consumed.full {
                want = (2 * want).min(READ_MOST_BYTES);
                continue;
            }
            if consumed.bytes > 0 {
                reading.partial_since = None;
            }
            full = consumed.full;
            if full || !end {
                break Outcome::More;
            }
            if left > 0 {
                reading.partial_since.get_or_insert(now);
            } else if packed_end {
                reading.ended = true;
            }
            break Outcome::End;
        };
        self.buffer = buffer;
        if matches!(outcome, Outcome::End) {
            reading.compared = false;
        }
        if full || self.cutter.is_full() {
            self.cut();
        }
        outcome
    }

    fn inputs_flush_after(&self, id: FileId, label: &Path) -> Duration {
        let input = self.known.generation(id).map_or(0, |generation| usize::from(generation.input));
        self.inputs[input].flush_after(label)
    }

    /// More of a generation's beginning is there than when it was looked at.
    pub(super) fn known_better(&mut self, id: FileId, begins: &[u8]) {
        let Some(generation) = self.known.generation_mut(id) else { return };
        generation.print = print_of(begins);
        if generation.source != 0 {
            let described = generation.described(&self.inputs[usize::from(generation.input)].name);
            self.checkpoints.describe(generation.source, described);
        }
    }

    /// Opens a generation, wherever it is.
    pub(super) fn try_open(&mut self, id: FileId) -> Opened {
        if self.known.generation(id).is_some_and(|generation| generation.reading.is_some()) {
            return Opened::Yes;
        }
        if self.open.len() >= self.max_open && !self.close_one() {
            return Opened::Later;
        }
        let Some(generation) = self.known.generation(id) else { return Opened::Gone };
        let file = match generation.path.as_ref().map(|path| self.open_file(path)) {
            Some(Ok(file)) if Stat::of_open(&file).is_ok_and(|stat| generation.is(&stat)) => file,
            Some(Err(error)) if !is_gone(&error) => {
                self.in_trouble(id, &error);
                return Opened::Later;
            }
            _ => {
                let Some(path) = self.locate(id) else { return Opened::Gone };
                let opened = self.open_file(&path);
                // It moved, and nobody has told yet: who took its path comes after it all the same.
                self.left(id);
                self.known.put(id, Some(path.into()));
                match opened {
                    Ok(file) => file,
                    Err(error) if is_gone(&error) => return Opened::Gone,
                    Err(error) => {
                        self.in_trouble(id, &error);
                        return Opened::Later;
                    }
                }
            }
        };
        let Some(generation) = self.known.generation_mut(id) else { return Opened::Gone };
        if !Stat::of_open(&file).is_ok_and(|stat| generation.is(&stat)) {
            return Opened::Gone;
        }
        let content = match generation.kind {
            SourceKind::File | SourceKind::Journal => Content::Plain(file),
            packed => match Packed::new(file, packed) {
                Ok(packed) => Content::Packed(packed),
                Err(_) => return Opened::Gone,
            },
        };
        generation.reading = Some(Box::new(Reading {
            content,
            compared: false,
            quiet: Quiet::new(),
            partial_since: None,
            ended: false,
        }));
        if !self.unreadable.is_empty() {
            self.unreadable.remove(&generation.label);
        }
        self.open.insert(id);
        Opened::Yes
    }

    /// An open generation changed: whether it was truncated is seen now, even where delivery has no room to read it.
    pub(super) fn look(&mut self, id: FileId) {
        let Some(generation) = self.known.generation(id).filter(|g| g.copy_of.is_none()) else { return };
        let Some(reading) = &generation.reading else { return self.look_from_outside(id) };
        let Content::Plain(file) = &reading.content else { return };
        let Ok(stat) = Stat::of_open(file) else { return };
        let print = generation.print;
        if stat.bytes < generation.bytes || (print.bytes as usize) < PRINT_BYTES {
            let Ok(begins) = beginning(file) else { return };
            if stat.bytes < generation.offset || !begins_as(&begins, print) {
                // It is remembered how much of it was there.
                return self.truncated(id);
            }
            if begins.len() > print.bytes as usize {
                self.known_better(id, &begins);
            }
        }
        let Some(generation) = self.known.generation_mut(id) else { return };
        if stat.bytes != generation.bytes {
            generation.saw(stat.bytes, Instant::now());
            if let Some(reading) = &mut generation.reading {
                reading.quiet.looked(true);
            }
        }
    }

    /// A generation for which there is no descriptor grew, for all that can be seen: it is known how much waits.
    fn look_from_outside(&mut self, id: FileId) {
        let Some(generation) = self.known.generation_mut(id) else { return };
        let stat = generation.path.as_deref().and_then(|path| Stat::of(path).ok());
        if let Some(stat) = stat.filter(|stat| generation.is(stat) && stat.bytes > generation.bytes) {
            generation.saw(stat.bytes, Instant::now());
        }
    }

    /// A generation of which nothing was read yet is recognised by its beginning, whatever becomes of it before.
    pub(super) fn look_at_beginning(&mut self, id: FileId) {
        let reading = self.known.generation(id).and_then(|generation| generation.reading.as_ref());
        if let Some(Content::Plain(file)) = reading.map(|reading| &reading.content)
            && let Ok(begins) = beginning(file)
            && !begins.is_empty()
        {
            self.known_better(id, &begins);
        }
    }

    /// Closes a generation that has nothing unread and can be opened again.
    fn close_one(&mut self) -> bool {
        let found = self.open.iter().copied().find(|id| {
            self.known.generation(*id).is_none_or(|g| !g.queued && g.path.is_some() && g.unread() == 0)
        });
        found.inspect(|id| self.close(*id)).is_some()
    }

    pub(super) fn close(&mut self, id: FileId) {
        self.open.remove(&id);
        if let Some(generation) = self.known.generation_mut(id) {
            generation.reading = None;
            // Of what is idle nothing is kept that is not needed: there may be very many.
            generation.wait = generation.wait.take().filter(|_| generation.unread() > 0);
        }
    }

    /// An open generation at the tick: what nobody told of, half lines, the end of being open.
    pub(super) fn tick_open(&mut self, id: FileId) {
        let Some(generation) = self.known.generation_mut(id) else {
            self.open.remove(&id);
            return;
        };
        let Some(reading) = &mut generation.reading else { return };
        let flush_after = self.inputs[usize::from(generation.input)].flush_after(&generation.label);
        if generation.queued {
            return;
        }
        let stat = match &reading.content {
            Content::Plain(file) => Stat::of_open(file).ok(),
            Content::Packed(_) if reading.ended => return self.finish(id),
            Content::Packed(_) => return self.activate(id),
        };
        let Some(stat) = stat else { return };
        reading.quiet.looked(stat.bytes != generation.bytes);
        let quiet = reading.quiet.time;
        if stat.bytes != generation.bytes || (reading.partial_since.is_some() && quiet >= flush_after) {
            return self.activate(id);
        }
        if quiet < self.pace.idle_after || generation.unread() > 0 {
            return;
        }
        if generation.path.is_some() {
            if !self.stays_open(id) {
                self.close(id);
            }
            return;
        }
        match self.locate(id).filter(|_| stat.links > 0) {
            Some(path) => {
                self.known.put(id, Some(path.into()));
                self.close(id);
            }
            None => self.finish(id),
        }
    }

    /// A generation is read to its end and can't get more.
    pub(super) fn finish(&mut self, id: FileId) {
        self.open.remove(&id);
        let Some(generation) = self.known.remove(id) else { return };
        let input = &mut self.inputs[usize::from(generation.input)];
        input.telemetry.lost_bytes.add(generation.known_unread());
        if generation.source != 0 {
            self.checkpoints.forget(generation.source);
        }
        let nth = usize::from(generation.input);
        if self.inputs[nth].fed && !self.has_generation(nth, &generation.label) {
            self.let_go(nth, &generation.label);
        }
        if generation.trouble.is_some() {
            self.unreadable.remove(&generation.label);
        }
        self.settle_copies(Was::of(id, &generation));
        self.departs(usize::from(generation.input), &generation.label);
    }
}

/// What came of opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    Yes,
    /// It is not there any more.
    Gone,
    /// It can't be opened now: no descriptor is left, or it may not be read.
    Later,
}

/// What was made of a piece.
pub(super) struct Consumed {
    pub(super) bytes: usize,
    /// The block is full.
    pub(super) full: bool,
}

/// Shapes bytes at a generation's offset, and moves it.
pub(super) fn shape(
    inputs: &mut [super::thread::InputState],
    cutter: &mut crate::source::log::cutter::Cutter,
    known: &mut super::known::Known,
    id: FileId,
    bytes: &[u8],
    end: End,
) -> Consumed {
    let none = Consumed { bytes: 0, full: false };
    let Some(generation) = known.generation_mut(id) else { return none };
    let input = &mut inputs[usize::from(generation.input)];
    // Whichever generation of the path was read last: a stream's times rise.
    let floor_ns = input.floors.get(&generation.label).copied().unwrap_or(0).max(generation.last_ns);
    let (labels, shaper) = input.shaping(&generation.label);
    let chunk =
        Chunk { bytes, offset: generation.offset, base_ns: cutter.begin(), floor_ns, end, again: false };
    let shaped = shaper.shape(&labels, chunk, BLOCK_TEXT_BYTES, cutter.builder());
    let consumed = shaped.consumed.min(bytes.len());
    cutter.cover(Range {
        source: generation.source,
        from: generation.offset,
        to: generation.offset + consumed as u64,
        floor_ns,
        last_ns: shaped.last_ns,
        entries: shaped.entries,
        ..Range::default()
    });
    if consumed > 0 {
        // What a tail lacks for a short piece is not made up from the one before.
        generation.tail = Tail::of(&bytes[..consumed]);
        generation.offset += consumed as u64;
        generation.last_ns = shaped.last_ns;
        input.floors.insert(generation.label.clone(), shaped.last_ns);
        input.telemetry.bytes_read.add(consumed as u64);
    }
    Consumed { bytes: consumed, full: shaped.full }
}

/// Reads from an offset on; none if the bytes before it are not the tail.
fn read_from<'a>(
    file: &File,
    offset: u64,
    tail: Tail,
    want: usize,
    buffer: &'a mut Vec<u8>,
) -> io::Result<Option<&'a [u8]>> {
    let before = usize::from(tail.bytes);
    buffer.resize((before + want).max(buffer.len()), 0);
    let from = offset - before as u64;
    let mut read = 0;
    while read < before + want {
        match file.read_at(&mut buffer[read..before + want], from + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if read < before || !tail.is(&buffer[..before]) {
        return Ok(None);
    }
    Ok(Some(&buffer[before..read]))
}
