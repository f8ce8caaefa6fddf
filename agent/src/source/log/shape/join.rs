//! From lines to events: a container's partial lines are put together, and lines that belong to one event.
//!
//! What is open at the end of the bytes is read again with what follows, so that nothing has to be remembered. That
//! takes *borders*: places in the source where nothing is open. Where a container writes to stdout and stderr in turn
//! there may be none for long, so that after [`GROUP_BYTES`] or [`GROUP_LINES`] everything open is closed. That, too,
//! depends on the bytes since the last border alone.

use super::container::{self, Container};
use super::event::Event;
use super::mask::Mask;
use super::multiline::{Multiline, Place};
use super::text::{Encoding, LOOK_AHEAD, prefix};
use std::ops::Range;
use std::sync::Arc;

/// After how many bytes without a border everything is closed.
pub(super) const GROUP_BYTES: usize = 256 << 10;
/// After how many lines without a border everything is closed.
pub(super) const GROUP_LINES: u32 = 4_096;

/// Joins lines.
#[derive(Debug)]
pub(super) struct Joiner {
    encoding: Encoding,
    container: Option<Container>,
    multiline: Option<Multiline>,
    mask: Option<Arc<Mask>>,
    max_line: usize,
    scratch: Event,
    /// The text of the events that are complete.
    text: String,
    /// Events of this group, in the order in which they were completed.
    pub events: Vec<Framed>,
    /// One for each output of a container; one without a name for others.
    outputs: Vec<Output>,
    lines: u32,
    /// Lines of this group that are nothing but a hole in their file.
    pub holes: u32,
}

/// An event.
#[derive(Debug, Clone)]
pub(super) struct Framed {
    pub text: Range<usize>,
    /// The output's number.
    pub output: usize,
    pub at_ns: Option<i64>,
    /// How many lines of the source it is made of.
    pub lines: u32,
    /// It goes on in the next one.
    pub cut: bool,
    /// How many of its lines had bytes that are no text, or were not of the runtime's format.
    pub bad: u32,
    /// Where it begins.
    pub offset: u64,
}

/// What is open of one output.
#[derive(Debug, Default)]
struct Output {
    name: String,
    part: Open,
    event: Open,
    place: Place,
}

#[derive(Debug, Default)]
struct Open {
    begun: bool,
    text: String,
    at_ns: Option<i64>,
    /// When its last line was written.
    last_ns: Option<i64>,
    source_lines: u32,
    joined: usize,
    bad: u32,
    offset: u64,
}

/// Where a border is, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Border {
    None,
    /// Before the line that was taken: it opened what is open.
    Before,
    After,
}

impl Open {
    fn begin(&mut self, at_ns: Option<i64>, offset: u64) {
        self.text.clear();
        *self = Self { begun: true, text: std::mem::take(&mut self.text), at_ns, offset, ..Self::default() };
    }

    fn add(&mut self, text: &str, at_ns: Option<i64>, lines: u32, bad: u32) {
        self.text.push_str(text);
        self.last_ns = at_ns.or(self.last_ns);
        self.source_lines += lines;
        self.bad += bad;
        self.joined += 1;
    }
}

impl Joiner {
    /// A joiner, or none if each line is an event as it is.
    pub fn new(
        encoding: Encoding,
        container: Option<Container>,
        multiline: Option<&Multiline>,
        mask: Option<&Arc<Mask>>,
        max_line: usize,
    ) -> Option<Self> {
        let mut multiline = multiline.cloned();
        if mask.is_some_and(|mask| mask.joins_keys()) {
            multiline.get_or_insert_with(Multiline::none).keys = true;
        }
        if container.is_none() && multiline.is_none() {
            return None;
        }
        Some(Self {
            encoding,
            container,
            multiline,
            mask: mask.cloned(),
            max_line,
            scratch: Event::default(),
            text: String::new(),
            events: Vec::new(),
            outputs: Vec::new(),
            lines: 0,
            holes: 0,
        })
    }

    /// Forgets everything: a border.
    pub fn restart(&mut self) {
        self.text.clear();
        self.events.clear();
        self.lines = 0;
        self.holes = 0;
        for output in &mut self.outputs {
            output.part.begun = false;
            output.event.begun = false;
        }
        // Names come from the source: they are not collected for ever.
        if self.outputs.len() > 8 {
            self.outputs.clear();
        }
    }

    /// Forgets the events of a group that were taken; what is open stays.
    pub fn next_group(&mut self) {
        self.text.clear();
        self.events.clear();
        self.holes = 0;
        let open =
            self.outputs.iter().flat_map(|output| [&output.part, &output.event]).filter(|open| open.begun);
        self.lines = open.map(|open| open.source_lines).sum();
    }

    pub fn event_text(&self, event: &Framed) -> &str {
        &self.text[event.text.clone()]
    }

    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    pub fn output(&self, number: usize) -> &str {
        &self.outputs[number].name
    }

    /// Whether so much is without a border that everything has to be closed before the next line.
    pub fn has_too_much(&self, bytes: usize) -> bool {
        (bytes >= GROUP_BYTES.max(self.max_line) || self.lines >= GROUP_LINES) && self.is_open()
    }

    fn is_open(&self) -> bool {
        self.outputs.iter().any(|output| output.part.begun || output.event.begun)
    }

    /// Closes everything: a border.
    pub fn close_all(&mut self) {
        for number in self.by_age() {
            if self.outputs[number].part.begun {
                let part = std::mem::take(&mut self.outputs[number].part);
                self.logical(number, &part, false);
                self.outputs[number].part = Open { begun: false, ..part };
            }
            self.close(number, false);
        }
    }

    /// The outputs with something open, the oldest first: whichever was seen first in an earlier group.
    fn by_age(&self) -> Vec<usize> {
        let since = |output: &Output| {
            let open = [&output.event, &output.part].into_iter().filter(|open| open.begun);
            open.map(|open| open.offset).min()
        };
        let mut open: Vec<_> =
            self.outputs.iter().enumerate().filter_map(|(n, output)| Some((since(output)?, n))).collect();
        open.sort_unstable();
        open.into_iter().map(|(_, number)| number).collect()
    }

    /// Takes a line that is nothing but a hole.
    pub fn skip(&mut self) -> Border {
        self.lines += 1;
        self.holes += 1;
        self.border(false)
    }

    /// Takes a line that begins at `offset`.
    pub fn line(&mut self, bytes: &[u8], cut: bool, offset: u64) -> Border {
        self.lines += 1;
        let (text, bad) = self.encoding.decode(bytes);
        let mut bad = u32::from(bad);
        let Some(container) = self.container else {
            let number = self.number("");
            let mut part = std::mem::take(&mut self.outputs[number].part);
            part.begin(None, offset);
            part.add(&text, None, 1, bad);
            let before = self.logical(number, &part, cut);
            self.outputs[number].part = Open { begun: false, ..part };
            return self.border(before);
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let part = container::read(container, &text, &mut scratch);
        self.scratch = scratch;
        let (stream, at_ns, text, partial) = if let Some(part) = part {
            (part.stream, part.at_ns, part.text, part.partial)
        } else {
            bad = 1;
            ("".into(), None, text, false)
        };
        self.close_silent(at_ns);
        let number = self.number(&stream);
        let mut before = !self.is_open();
        let mut open = std::mem::take(&mut self.outputs[number].part);
        // All parts of a line have the time of its first one in Docker's files (since 18.06). What a killed process left
        // half written is no part of what it writes when it runs again.
        let left = container == Container::Docker && open.begun && open.at_ns != at_ns;
        if left || (open.begun && open.text.len() + text.len() > self.max_line) {
            self.logical(number, &open, !left);
            open.begun = false;
            before = before || !self.is_open();
        }
        if !open.begun {
            open.begin(at_ns, offset);
        }
        open.add(&text, at_ns, 1, bad);
        if partial {
            self.outputs[number].part = open;
            return if before { Border::Before } else { Border::None };
        }
        // What the line closes was closed before it, unless its own parts began earlier.
        let alone = open.source_lines == 1;
        let closed = self.logical(number, &open, cut);
        self.outputs[number].part = Open { begun: false, ..open };
        self.border(alone && (before || closed))
    }

    fn border(&self, before: bool) -> Border {
        match () {
            () if !self.is_open() => Border::After,
            () if before => Border::Before,
            () => Border::None,
        }
    }

    fn number(&mut self, name: &str) -> usize {
        self.outputs.iter().position(|output| output.name == name).unwrap_or_else(|| {
            self.outputs.push(Output { name: name.to_owned(), ..Output::default() });
            self.outputs.len() - 1
        })
    }

    /// Closes events whose outputs were silent for longer than a next line is waited for.
    fn close_silent(&mut self, now_ns: Option<i64>) {
        let (Some(now_ns), Some(multiline)) = (now_ns, &self.multiline) else { return };
        let wait_ns = multiline.timeout.as_nanos() as i64;
        for number in self.by_age() {
            let output = &self.outputs[number];
            let silent = output.event.last_ns.is_some_and(|last| now_ns.saturating_sub(last) > wait_ns);
            if silent && !output.part.begun {
                self.close(number, false);
            }
        }
    }

    /// Takes a whole line of an output. Whether nothing was open between what it closed and itself.
    fn logical(&mut self, number: usize, line: &Open, cut: bool) -> bool {
        let Some(multiline) = &self.multiline else {
            let lone = !self.is_open();
            self.complete(number, line, cut);
            return lone;
        };
        let output = &mut self.outputs[number];
        let text = line.text.as_str();
        let most = multiline.most_lines(output.place);
        if output.event.begun
            && multiline.joins(text, &mut output.place)
            && output.event.joined < most
            && output.event.text.len() + 1 + text.len() <= self.max_line
        {
            output.event.text.push('\n');
            output.event.add(text, line.last_ns, line.source_lines, line.bad);
            if cut || !multiline.may_go_on(output.place) {
                self.close(number, cut);
            }
            return false;
        }
        let full = output.event.begun && multiline.goes_on(text, output.place);
        self.close(number, full);
        let lone = !self.is_open();
        let Some(multiline) = &self.multiline else { return lone };
        let output = &mut self.outputs[number];
        multiline.begins(text, &mut output.place);
        output.event.begin(line.at_ns, line.offset);
        output.event.add(text, line.last_ns, line.source_lines, line.bad);
        if cut || !multiline.may_go_on(output.place) {
            self.close(number, cut);
        }
        lone
    }

    fn close(&mut self, number: usize, cut: bool) {
        if self.outputs[number].event.begun {
            let event = std::mem::take(&mut self.outputs[number].event);
            self.complete(number, &event, cut);
            self.outputs[number].event = Open { begun: false, source_lines: 0, ..event };
        }
    }

    /// Puts down an event, in pieces if it is too long.
    fn complete(&mut self, number: usize, open: &Open, cut: bool) {
        let (mut rest, mut lines, mut bad) = (open.text.as_str(), open.source_lines, open.bad);
        loop {
            let mut piece = prefix(rest, self.max_line);
            if piece.len() < rest.len()
                && let Some(mask) = &self.mask
            {
                let near = prefix(rest, self.max_line + LOOK_AHEAD);
                let at = mask.before_cut(near, piece.len());
                piece = if at > 0 { &rest[..at] } else { piece };
            }
            rest = &rest[piece.len()..];
            let from = self.text.len();
            self.text.push_str(piece);
            self.events.push(Framed {
                text: from..self.text.len(),
                output: number,
                at_ns: open.at_ns,
                lines: std::mem::take(&mut lines),
                cut: cut || !rest.is_empty(),
                bad: std::mem::take(&mut bad),
                offset: open.offset,
            });
            if rest.is_empty() {
                break;
            }
        }
    }
}
