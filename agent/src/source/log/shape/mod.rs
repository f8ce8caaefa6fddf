//! From bytes to entries: lines are cut, joined, parsed, labelled, filtered and masked.
//!
//! ```text
//! bytes ─▶ text: lines ─▶ join: events ─▶ step, step, … ─▶ mask ─▶ limits ─▶ block
//! message ──────────────────────────────▶ step, step, … ─▶ mask ─▶ limits ─▶ block
//! ```
//!
//! A [`Shaper`] is made for each input and is a pure function of its arguments: it keeps nothing from one call to the
//! next that changes what entries are made. What is not complete at the end of the bytes (half a line, an event whose
//! next line may still belong to it, a container's partial line) is not consumed: the caller comes again with more, or
//! says that this is the end ([`End::Flush`]). In whatever portions the bytes come, the entries are the same.
//!
//! Rate limits are the one exception: their buckets are filled by the base times of calls. An entry that one leaves out
//! takes its timestamp all the same, so that those around it have the same ones when the bytes are read again and
//! everything passes ([`Chunk::again`]).
//!
//! Nothing is masked before the last step: steps see what was read. Nothing leaves unmasked: the line, the values of
//! labels and structured metadata with their names go through the mask after the last step; the labels of the source and
//! of derived metrics do when they are made.

mod capture;
mod container;
mod counts;
mod entry;
mod event;
pub mod explain;
pub mod fuzzing;
mod grok;
mod join;
mod json;
mod level;
mod logfmt;
mod mask;
mod matching;
mod metrics;
mod multiline;
mod settings;
mod step;
mod text;
mod time;

#[cfg(test)]
mod tests;

pub use capture::{BadCapture, Capture, Preset, compile};
pub use container::Container;
pub use counts::MAX_STEPS;
pub use grok::{BadGrok, compile as compile_grok, names as grok_names};
pub use level::Level;
pub use mask::{Kind as MaskKind, Mask, Own as OwnMask};
pub use matching::Condition;
pub use metrics::{DEFAULT_MAX_SERIES, Derived, Kind as MetricKind, MAX_SERIES, Metric};
pub use multiline::{DEFAULT_MAX_LINES, DEFAULT_TIMEOUT, Multiline, Trace};
pub use settings::{DEFAULT_MAX_LINE, Limits, MOST_MAX_LINE, Settings};
pub use step::{Metadata, Parse, RateLimit, Sample, Step, Timestamp, is_field_pattern, is_label};
pub use text::Encoding;
pub use time::{BadLayout, Bounds, Format, Zone};

use counts::Counts;
use entry::{Call, Maker, Put, Raw};
use join::{Border, Framed, Joiner};
use pegel_proto::logs::{BlockBuilder, StreamIndex};
use pegel_runtime::metrics::Registry;
use std::borrow::Cow;
use text::{Framing, LOOK_AHEAD};

/// So many bytes of a source are certainly enough to decide what its first entry is: a caller that holds so many and
/// hands them over makes progress.
pub const DECIDING_BYTES: usize = 1 << 20;

/// The longest line of a container's runtime, as it is written: a line of 16 KiB with each character escaped fits.
const MAX_CONTAINER_LINE: usize = 256 << 10;

/// Bytes of one source, from an entry's border on.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'a> {
    /// The bytes. [`DECIDING_BYTES`] of them make progress; fewer may have to be handed over again with more.
    pub bytes: &'a [u8],
    /// The first byte's offset in its source.
    pub offset: u64,
    /// The time of entries that bring none, nanoseconds since the Unix epoch.
    pub base_ns: i64,
    /// The timestamp of the source's entry before; all of this chunk's become later.
    pub floor_ns: i64,
    /// What to make of the end.
    pub end: End,
    /// The chunk was shaped before the last restart: what depends on the moment (rate limits) lets everything pass, and
    /// derived metrics don't count it again.
    pub again: bool,
}

/// What the end of a chunk's bytes means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// More may come that belongs to what is there.
    More,
    /// Nothing more comes, or has not for as long as the settings wait: what is there is complete.
    Flush,
}

/// One message of a source that brings them one by one.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The text; line ends within it stay.
    pub text: &'a [u8],
    /// Its own time, nanoseconds since the Unix epoch, if it brought one.
    pub at_ns: Option<i64>,
    /// The time of entries that bring none.
    pub base_ns: i64,
    /// The timestamp of the source's entry before.
    pub floor_ns: i64,
    /// Its structured metadata, which steps see as fields.
    pub metadata: &'a [(&'a str, &'a str)],
    /// The message was shaped before the last restart.
    pub again: bool,
}

/// What was made of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shaped {
    /// How many bytes became entries or were left out; the rest is to come again. Always at an entry's border.
    pub consumed: usize,
    /// The floor of what follows: the timestamp of the last entry, or of a later one that a rate limit left out; the
    /// chunk's floor if there was none.
    pub last_ns: i64,
    /// How many entries were written.
    pub entries: u32,
    /// The block is full: finish it and come again with the rest.
    pub full: bool,
}

/// The labels that a source gives to all its entries, sorted by name, without empty values.
pub type SourceLabels = [(String, String)];

/// Makes entries.
#[derive(Debug)]
pub struct Shaper {
    framing: Framing,
    joiner: Option<Joiner>,
    maker: Maker,
}

impl Shaper {
    /// A shaper for an input, whose counters nobody sees.
    pub fn new(settings: &Settings) -> Self {
        Self::with(settings, None)
    }

    /// A shaper whose counters (`pegel_log_lines_total{input}`, `pegel_log_entries_total{input}`,
    /// `pegel_log_lines_dropped_total{input,reason,step}` and so on) are registered. Those of several shapers of one
    /// input add up.
    pub fn counted(settings: &Settings, input: &str, registry: &Registry) -> Self {
        Self::with(settings, Some(Counts::new(registry, input, &settings.steps)))
    }

    fn with(settings: &Settings, counts: Option<Counts>) -> Self {
        let most = match settings.container {
            Some(_) => MAX_CONTAINER_LINE,
            None => settings.max_line.min(MOST_MAX_LINE),
        };
        let framing = Framing {
            encoding: settings.encoding,
            max_bytes: settings.encoding.bytes_for(most).max(4),
            mask: settings.mask.clone(),
        };
        let joiner = Joiner::new(
            settings.encoding,
            settings.container,
            settings.multiline.as_ref(),
            settings.mask.as_ref(),
            settings.max_line,
        );
        Self { framing, joiner, maker: Maker::new(settings, counts) }
    }

    /// Shapes a chunk of a source into the block. `block_bytes` is the text after which a block counts as full.
    pub fn shape(
        &mut self,
        source: &SourceLabels,
        chunk: Chunk<'_>,
        block_bytes: usize,
        block: &mut BlockBuilder,
    ) -> Shaped {
        self.maker.begin(source, chunk.floor_ns);
        let call = Call { source, base_ns: chunk.base_ns, again: chunk.again };
        let mut shaped = if self.joiner.is_some() {
            self.joined(chunk, call, block_bytes, block)
        } else if self.maker.is_plain() {
            self.plain(chunk, call, block_bytes, block)
        } else {
            self.lines(chunk, call, block_bytes, block)
        };
        shaped.entries = self.maker.entries;
        self.maker.end();
        shaped
    }

    /// Shapes one message into the block: [`Shaped::consumed`] is the text's length. Where the block is full, nothing
    /// was done. A step may leave it out: then it is consumed and there is no entry.
    pub fn message(
        &mut self,
        source: &SourceLabels,
        message: Message<'_>,
        block_bytes: usize,
        block: &mut BlockBuilder,
    ) -> Shaped {
        let call = Call { source, base_ns: message.base_ns, again: message.again };
        self.maker.begin(source, message.floor_ns);
        let (text, bad) = Encoding::Utf8.decode(message.text);
        let pieces = self.pieces(&text);
        let room = text.len() + 512 * (pieces.len() - 1);
        let mut full = block.entries() > 0 && (block.text_bytes() >= block_bytes || !block.fits(room));
        for (nth, piece) in pieces.iter().enumerate() {
            let raw = Raw {
                text: piece,
                stream: "",
                at_ns: message.at_ns,
                lines: u32::from(nth == 0),
                cut: nth + 1 < pieces.len(),
                bad: u32::from(bad && nth == 0),
                place: message.at_ns.unwrap_or(message.base_ns) as u64,
                metadata: message.metadata,
            };
            let put = if full { Put::Full } else { self.put(raw, call, block) };
            // Messages are not held: a twin may never come.
            let fits = put != Put::Full && self.maker.release(block);
            if !fits && nth == 0 {
                full = true;
                break;
            }
            if !fits {
                self.maker.give_up(&raw);
            }
        }
        let shaped = Shaped {
            consumed: if full { 0 } else { message.text.len() },
            last_ns: if full { message.floor_ns } else { self.maker.settled_ns() },
            entries: self.maker.entries,
            full,
        };
        self.maker.end();
        shaped
    }

    /// A message as one line, or as several if it is too long.
    fn pieces<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let most = self.maker.settings.max_line;
        let (mut pieces, mut rest) = (Vec::with_capacity(1), text);
        while rest.len() > most {
            let mut piece = text::prefix(rest, most);
            if let Some(mask) = &self.maker.settings.mask {
                let at = mask.before_cut(text::prefix(rest, most + LOOK_AHEAD), piece.len());
                piece = if at > 0 { &rest[..at] } else { piece };
            }
            pieces.push(piece);
            rest = &rest[piece.len()..];
        }
        pieces.push(rest);
        pieces
    }

    /// Lines that become entries as they are.
    fn plain(
        &mut self,
        chunk: Chunk<'_>,
        call: Call<'_>,
        block_bytes: usize,
        block: &mut BlockBuilder,
    ) -> Shaped {
        let mut shaped = Shaped { last_ns: chunk.floor_ns, ..Shaped::default() };
        let mut stream: Option<StreamIndex> = None;
        let mut at = self.start(chunk);
        while let Some(line) = self.framing.next_line(&chunk.bytes[at..], chunk.end) {
            let (bytes, hole) = without_hole(line.bytes, self.framing.encoding);
            at += line.taken;
            if hole && bytes.is_empty() {
                self.maker.count_hole();
                shaped.consumed = at;
                continue;
            }
            if block.text_bytes() >= block_bytes && block.entries() > 0 {
                shaped.full = true;
                break;
            }
            let (text, bad) = self.framing.encoding.decode(bytes);
            if line.cut || text.len() > self.maker.settings.limits.line {
                let raw = raw_line(&text, line.cut, bad, chunk.offset + shaped.consumed as u64);
                self.maker.last_ns = shaped.last_ns;
                if self.put(raw, call, block) == Put::Full {
                    shaped.full = true;
                    break;
                }
                shaped.last_ns = self.maker.last_ns;
            } else {
                if stream.is_none() {
                    stream = self.maker.plain_stream(block);
                }
                let Some(stream) = stream.filter(|_| block.fits(text.len())) else {
                    shaped.full = true;
                    break;
                };
                shaped.last_ns = chunk.base_ns.max(shaped.last_ns.saturating_add(1));
                block.push(stream, shaped.last_ns, &text, &[]);
                self.maker.entries += 1;
                let tally = &mut self.maker.tally;
                tally.lines += 1;
                tally.entries += 1;
                tally.bad_text += u64::from(bad);
            }
            shaped.consumed = at;
        }
        shaped
    }

    /// Lines that go through steps, each an event of its own.
    fn lines(
        &mut self,
        chunk: Chunk<'_>,
        call: Call<'_>,
        block_bytes: usize,
        block: &mut BlockBuilder,
    ) -> Shaped {
        let mut shaped = Shaped { last_ns: chunk.floor_ns, ..Shaped::default() };
        let (mut at, mut held_from) = (self.start(chunk), 0);
        while let Some(line) = self.framing.next_line(&chunk.bytes[at..], chunk.end) {
            let from = if at == self.start(chunk) { 0 } else { at };
            let (bytes, hole) = without_hole(line.bytes, self.framing.encoding);
            at += line.taken;
            let put = if hole && bytes.is_empty() {
                self.maker.count_hole();
                Put::Done
            } else if block.text_bytes() >= block_bytes && block.entries() > 0 {
                Put::Full
            } else {
                let (text, bad) = self.framing.encoding.decode(bytes);
                self.put(raw_line(&text, line.cut, bad, chunk.offset + from as u64), call, block)
            };
            if put == Put::Held {
                held_from = from;
            }
            shaped.consumed = match put {
                // What was held may fit where this does not.
                Put::Full if self.maker.release(block) => from,
                _ if self.maker.is_holding() => held_from,
                _ => at,
            };
            shaped.last_ns = self.maker.settled_ns();
            if put == Put::Full {
                shaped.full = true;
                return shaped;
            }
        }
        self.settle(&mut shaped, at, chunk.end, block);
        shaped
    }

    /// Lines that are joined to events.
    fn joined(
        &mut self,
        chunk: Chunk<'_>,
        call: Call<'_>,
        block_bytes: usize,
        block: &mut BlockBuilder,
    ) -> Shaped {
        let mut shaped = Shaped { last_ns: chunk.floor_ns, ..Shaped::default() };
        let Some(mut joiner) = self.joiner.take() else { return shaped };
        joiner.restart();
        let (mut at, mut from, mut held_from) = (self.start(chunk), 0, 0);
        loop {
            let line = self.framing.next_line(&chunk.bytes[at..], chunk.end);
            let border = match &line {
                Some(_) if joiner.has_too_much(at - from) => {
                    joiner.close_all();
                    Border::After
                }
                Some(line) => {
                    let begins = at;
                    at += line.taken;
                    let (bytes, hole) = without_hole(line.bytes, self.framing.encoding);
                    if hole && bytes.is_empty() {
                        joiner.skip()
                    } else {
                        match joiner.line(bytes, line.cut, chunk.offset + begins as u64) {
                            Border::Before => {
                                // What follows the border is read already; it stays open.
                                let full = self.group(
                                    &joiner,
                                    call,
                                    block_bytes,
                                    block,
                                    (from, begins),
                                    &mut held_from,
                                    &mut shaped,
                                );
                                if full {
                                    break;
                                }
                                joiner.next_group();
                                from = begins;
                                continue;
                            }
                            border => border,
                        }
                    }
                }
                None if chunk.end == End::Flush => {
                    joiner.close_all();
                    Border::After
                }
                None => Border::None,
            };
            if border == Border::After {
                let full =
                    self.group(&joiner, call, block_bytes, block, (from, at), &mut held_from, &mut shaped);
                if full {
                    break;
                }
                joiner.next_group();
                from = at;
            }
            if line.is_none() {
                self.settle(&mut shaped, from, chunk.end, block);
                break;
            }
        }
        self.joiner = Some(joiner);
        shaped
    }

    /// Makes entries of the events between two borders. Whether the block is full before them.
    #[expect(clippy::too_many_arguments, reason = "it is a part of `joined`")]
    fn group(
        &mut self,
        joiner: &Joiner,
        call: Call<'_>,
        block_bytes: usize,
        block: &mut BlockBuilder,
        (from, to): (usize, usize),
        held_from: &mut usize,
        shaped: &mut Shaped,
    ) -> bool {
        let many = joiner.events.len() > 1;
        // Events of one group are in one block: a block ends at a border. Fields and labels of theirs are parts of
        // their text, escaped twice at most.
        let room =
            if many { 4 * joiner.text_bytes() + 512 * joiner.events.len() } else { joiner.text_bytes() };
        let no_room = block.entries() > 0 && (block.text_bytes() >= block_bytes || !block.fits(room));
        if no_room && !joiner.events.is_empty() {
            if self.maker.release(block) {
                shaped.consumed = from;
                shaped.last_ns = self.maker.settled_ns();
            }
            shaped.full = true;
            return true;
        }
        for (nth, event) in joiner.events.iter().enumerate() {
            let raw = framed(joiner, event);
            match self.put(raw, call, block) {
                Put::Full if nth == 0 => {
                    if self.maker.release(block) {
                        shaped.consumed = from;
                        shaped.last_ns = self.maker.settled_ns();
                    }
                    shaped.full = true;
                    return true;
                }
                Put::Full => self.maker.give_up(&raw),
                Put::Held if many => {
                    self.maker.release(block);
                }
                Put::Held => *held_from = from,
                Put::Done => {}
            }
        }
        (0..joiner.holes).for_each(|_| self.maker.count_hole());
        shaped.consumed = if self.maker.is_holding() { *held_from } else { to };
        shaped.last_ns = self.maker.settled_ns();
        false
    }

    /// Ends a call whose bytes were all seen: what is held goes on waiting for repeats, or is put down.
    fn settle(&mut self, shaped: &mut Shaped, at: usize, end: End, block: &mut BlockBuilder) {
        if end == End::Flush && self.maker.is_holding() {
            if self.maker.release(block) {
                shaped.consumed = at;
                shaped.last_ns = self.maker.settled_ns();
            } else {
                shaped.full = true;
            }
        }
    }

    /// [`Maker::put`], where what fits no block is given up.
    fn put(&mut self, raw: Raw<'_>, call: Call<'_>, block: &mut BlockBuilder) -> Put {
        match self.maker.put(raw, call, block) {
            Put::Full if block.entries() == 0 && !self.maker.is_holding() => {
                self.maker.give_up(&raw);
                Put::Done
            }
            put => put,
        }
    }

    /// Where the text begins: after the byte order mark at a source's beginning.
    fn start(&self, chunk: Chunk<'_>) -> usize {
        if chunk.offset == 0 { self.framing.encoding.mark(chunk.bytes) } else { 0 }
    }
}

/// A line without the NUL bytes at its beginning: the hole that a file has where it was cut off under its writer.
fn without_hole(line: &[u8], encoding: Encoding) -> (&[u8], bool) {
    if line.first() != Some(&0) {
        return (line, false);
    }
    let hole = line.iter().take_while(|byte| **byte == 0).count();
    // In UTF-16 a NUL is half of most characters: pairs of them are taken away.
    let hole = hole - hole % encoding.unit_bytes();
    (&line[hole..], hole > 0)
}

fn raw_line<'a>(text: &'a Cow<'_, str>, cut: bool, bad: bool, place: u64) -> Raw<'a> {
    Raw { text, stream: "", at_ns: None, lines: 1, cut, bad: u32::from(bad), place, metadata: &[] }
}

fn framed<'a>(joiner: &'a Joiner, event: &Framed) -> Raw<'a> {
    Raw {
        text: joiner.event_text(event),
        stream: joiner.output(event.output),
        at_ns: event.at_ns,
        lines: event.lines,
        cut: event.cut,
        bad: event.bad,
        place: event.offset,
        metadata: &[],
    }
}
