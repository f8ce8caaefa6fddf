//! From the bodies of a target's scrapes to blocks.
//!
//! Most scrapes of a target have the same series in the same order as the one before, so an [`Assembly`] keeps the
//! last scrape's *shape*: the series texts in their order, and where each one's value goes. A body is walked with
//! the shape's next text as what is expected ([`Exposition::next_entry`]); while that holds, a line costs a
//! comparison and a number, and at the end the last [`SeriesSet`] is used again. Where it does not hold, the text is
//! looked up among the others (the order changed), and only a text that is new is taken apart. A set whose members
//! merely changed places is used again too.
//!
//! Series with timestamps of their own are in sets of their own, so that the others share the scrape's instant.

use super::exposition::{Entry, Exposition, Format, ParseError};
use super::own_labels::Rules;
use super::regions::{RegionScan, ScannedRegion};
use super::settings::SAMPLE_CEILING;
use super::shape::{Lookup, Scanned, Shape, Slot};
use crate::source::vanished;
use pegel_proto::metrics::{Block, Labels, stale_marker};
use std::sync::Arc;

/// How the scrapes of a target are read.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// What decides about labels.
    pub rules: Rules<'a>,
    /// The labels that the target's series share.
    pub shared: &'a Arc<Labels>,
    /// Whether timestamps in the exposition are used.
    pub honor_timestamps: bool,
    /// Whether series with timestamps get staleness markers.
    pub track_timestamps_staleness: bool,
    /// More samples than this fail the scrape; zero means the ceiling.
    pub sample_limit: usize,
    /// The fingerprints of the series that are reported beside the target's own, which a target may not claim.
    pub reserved: &'a [u64],
}

/// What a scrape came to, besides its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Samples in the body (up to the error, if there is one).
    pub scraped: usize,
    /// Series that the scrape before did not have.
    pub added: usize,
    /// Samples whose labels can't be stored: left out.
    pub invalid: usize,
    /// Samples of a series that the same body had before: left out.
    pub duplicates: usize,
    /// Exemplars: left out.
    pub exemplars: usize,
}

/// Why a body is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is not in its format.
    #[error("the exposition cannot be read: {0}")]
    Parse(#[from] ParseError),
    /// It has more samples than the limit.
    #[error("{scraped} samples exceed the limit of {limit}")]
    SampleLimit {
        /// How many there are.
        scraped: usize,
        /// How many may be.
        limit: usize,
    },
    /// A series exceeds a limit on labels.
    #[error("series `{series}` exceeds a limit: {limit}")]
    LabelLimit {
        /// The series as written, cut.
        series: String,
        /// Which limit.
        limit: String,
    },
}

/// A scrape read.
#[derive(Debug)]
pub struct Assembled {
    /// The blocks: samples, then staleness markers.
    pub blocks: Vec<Block>,
    /// The counts.
    pub counts: Counts,
    /// The first series that is left out and was not before, and why; to be named once.
    pub complaint: Option<(String, String)>,
}

/// What is kept from scrape to scrape of one target.
#[derive(Debug, Default)]
pub struct Assembly {
    shape: Shape,
    /// Whether the series of the shape are alive, that is, without a staleness marker.
    live: bool,
}

/// Room for reading a body, shared by scrapes that come one after the other.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) scanned: Vec<Scanned>,
    pub(super) regions: Vec<ScannedRegion>,
}

impl Assembly {
    /// How many series the last scrape had.
    pub fn series(&self) -> usize {
        if self.live { self.shape.series() } else { 0 }
    }

    /// Takes all series texts apart anew with the next scrape: what decides about labels has changed. Which series are
    /// alive stays known.
    pub fn relearn(&mut self) {
        self.shape.format = None;
    }

    /// Reads the body of a scrape begun at `at_ms`. On an error nothing of it is taken; the counts say how far it
    /// came, and the caller goes on with [`Assembly::end`].
    pub fn read(
        &mut self,
        body: &[u8],
        format: Format,
        reading: Reading<'_>,
        at_ms: i64,
        scratch: &mut Scratch,
    ) -> Result<Assembled, (BodyError, Counts)> {
        if body.is_empty() {
            // An empty answer is a success without series, whatever its format.
            return Ok(Assembled {
                blocks: self.end(reading, at_ms),
                counts: Counts::default(),
                complaint: None,
            });
        }
        let mut counts = Counts::default();
        let fits = self.scan(body, format, reading, scratch, &mut counts).map_err(|e| (e, counts))?;
        let mut blocks = Vec::with_capacity(4);
        let mut complaint = None;
        if fits {
            blocks_of(&self.shape, &scratch.scanned, at_ms, &mut blocks);
        } else {
            let rebuilt = self.shape.rebuilt(body, format, scratch, reading).map_err(|e| (e, counts))?;
            blocks_of(&rebuilt.shape, &scratch.scanned, at_ms, &mut blocks);
            if self.live {
                stale_blocks(&self.shape, Some(&rebuilt.shape), reading, at_ms, &mut blocks);
            }
            self.shape = rebuilt.shape;
            counts.added = rebuilt.added;
            complaint = rebuilt.complaint;
        }
        (counts.invalid, counts.duplicates) = self.shape.left_out();
        self.live = true;
        Ok(Assembled { blocks, counts, complaint })
    }

    /// Ends all series of the last scrape with staleness markers: the scrape failed or the target is gone.
    pub fn end(&mut self, reading: Reading<'_>, at_ms: i64) -> Vec<Block> {
        let mut blocks = Vec::new();
        if std::mem::take(&mut self.live) {
            stale_blocks(&self.shape, None, reading, at_ms, &mut blocks);
        }
        blocks
    }

    /// Walks the body into `scratch`; says whether it has the shape of the last one.
    fn scan(
        &self,
        body: &[u8],
        format: Format,
        reading: Reading<'_>,
        scratch: &mut Scratch,
        counts: &mut Counts,
    ) -> Result<bool, BodyError> {
        let limit = match reading.sample_limit {
            0 => SAMPLE_CEILING,
            limit => limit.min(SAMPLE_CEILING),
        };
        let Scratch { scanned, regions } = scratch;
        scanned.clear();
        let mut regions = RegionScan::new(regions, &self.shape.regions, self.shape.format == Some(format));
        let mut lookup = Lookup::new(&self.shape, format);
        let mut exposition = Exposition::new(body, format);
        loop {
            let mut position = exposition.position();
            if let Some((length, kind)) = regions.skip(body, position) {
                exposition.skip_metadata(length, kind);
                position += length;
            }
            let entry = match exposition.next_entry(lookup.expected()) {
                None => break,
                Some(entry) => entry?,
            };
            let Entry::Sample(sample) = entry else {
                regions.begin(position);
                continue;
            };
            regions.end(body, position, exposition.kind());
            counts.scraped += 1;
            counts.exemplars += usize::from(sample.exemplar);
            // Beyond the limit the rest is read only to be counted.
            if counts.scraped <= limit {
                scanned.push(Scanned {
                    at: sample.at as u32,
                    length: sample.series.len() as u32,
                    line: lookup.find(&sample),
                    region: regions.current(),
                    value: sample.value,
                    stamp_ms: sample.stamp_ms.filter(|_| reading.honor_timestamps),
                });
            }
        }
        if counts.scraped > limit {
            return Err(BodyError::SampleLimit { scraped: counts.scraped, limit });
        }
        Ok(self.shape.fits(format, scratch))
    }
}

/// The blocks of a scrape whose samples are `scanned`, which has the shape's lines.
fn blocks_of(shape: &Shape, scanned: &[Scanned], at_ms: i64, blocks: &mut Vec<Block>) {
    let mut values: Vec<Vec<f64>> = shape.sets.iter().map(|set| vec![0.0; set.len()]).collect();
    let mut stamps: Vec<Vec<i64>> = shape.sets.iter().skip(1).map(|set| vec![at_ms; set.len()]).collect();
    for (line, sample) in shape.lines.iter().zip(scanned) {
        if let Slot::In { set, index } = line.slot {
            values[usize::from(set)][index as usize] = sample.value;
            if set > 0 {
                stamps[usize::from(set) - 1][index as usize] = sample.stamp_ms.unwrap_or(at_ms);
            }
        }
    }
    let mut stamps = stamps.into_iter();
    for (number, (set, values)) in shape.sets.iter().zip(values).enumerate() {
        let stamps = if number == 0 { None } else { stamps.next() };
        if !set.is_empty() {
            let mut block = Block::new(at_ms, set.clone(), values);
            block.stamps_ms = stamps.map(Into::into);
            blocks.push(block);
        }
    }
}

/// Staleness markers for the series that `before` has and `now` has not.
fn stale_blocks(
    before: &Shape,
    now: Option<&Shape>,
    reading: Reading<'_>,
    at_ms: i64,
    blocks: &mut Vec<Block>,
) {
    let (before, now) = if reading.track_timestamps_staleness {
        (before.union(), now.map(Shape::union))
    } else {
        (before.plain(), now.map(Shape::plain))
    };
    let Some(before) = before else { return };
    let now = now.flatten();
    if now.as_ref().is_some_and(|now| Arc::ptr_eq(now, &before)) {
        return;
    }
    if let Some(gone) = vanished(&before, now.as_deref()) {
        let markers = vec![stale_marker(); gone.len()];
        blocks.push(Block::new(at_ms, gone, markers));
    }
}
