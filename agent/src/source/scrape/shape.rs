//! The shape of a scrape: its series texts in their order, and where each one's value goes.

use super::assembly::{BodyError, Reading, Scratch};
use super::exposition::{Format, Sample, labels};
use super::own_labels::{BadSeries, own_labels};
use super::regions::{Region, belongs};
use pegel_proto::metrics::{Family, MetricType, NAME_LABEL, Series, SeriesSet};
use std::collections::HashMap;
use std::collections::hash_map;
use std::sync::Arc;

/// A sample of the body at hand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scanned {
    /// Where its series text begins in the body, and how long it is, in bytes.
    pub(super) at: u32,
    pub(super) length: u32,
    /// The line of the shape that has the same text.
    pub(super) line: Option<u32>,
    /// Its region among those scanned.
    pub(super) region: u32,
    pub(super) value: f64,
    pub(super) stamp_ms: Option<i64>,
}

/// Where the value of a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// Into a set, at an index. Set 0 holds the series without timestamps of their own, the others those with,
    /// the n-th sample of a series in the n-th set.
    In { set: u16, index: u32 },
    /// Nowhere: its labels can't be stored.
    Invalid,
    /// Nowhere: the series was there before.
    Duplicate,
}

/// A line with a sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// The end of its text in the shape's texts.
    end: u32,
    region: u32,
    pub(super) slot: Slot,
}

/// What a scrape looked like.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// None: the texts are not to be compared with others.
    pub(super) format: Option<Format>,
    texts: Vec<u8>,
    pub(super) lines: Vec<Line>,
    pub(super) regions: Vec<Region>,
    pub(super) sets: Vec<Arc<SeriesSet>>,
}

/// A shape made for a body.
pub(super) struct Rebuilt {
    pub(super) shape: Shape,
    /// How many of its texts are new.
    pub(super) added: usize,
    /// The first text that is newly left out, and why.
    pub(super) complaint: Option<(String, String)>,
}

impl Shape {
    fn text(&self, line: usize) -> Option<&[u8]> {
        let end = self.lines.get(line)?.end as usize;
        let start = if line == 0 { 0 } else { self.lines[line - 1].end as usize };
        Some(&self.texts[start..end])
    }

    /// How many series there are.
    pub(super) fn series(&self) -> usize {
        self.sets.iter().map(|set| set.len()).sum()
    }

    /// How many lines are left out: invalid, duplicate.
    pub(super) fn left_out(&self) -> (usize, usize) {
        let count = |slot| self.lines.iter().filter(|line| line.slot == slot).count();
        (count(Slot::Invalid), count(Slot::Duplicate))
    }

    /// The series without timestamps of their own.
    pub(super) fn plain(&self) -> Option<Arc<SeriesSet>> {
        self.sets.first().cloned()
    }

    /// All series, as one set.
    pub(super) fn union(&self) -> Option<Arc<SeriesSet>> {
        let first = self.sets.first()?;
        if self.sets.len() == 1 {
            return Some(first.clone());
        }
        let all: Vec<_> = self.sets.iter().flat_map(|set| set.series()).cloned().collect();
        Some(Arc::new(SeriesSet::new(first.target().clone(), all)))
    }

    /// Whether a scanned body has this shape: the same texts in the same order under the same metadata.
    pub(super) fn fits(&self, format: Format, scratch: &Scratch) -> bool {
        self.format == Some(format)
            && self.lines.len() == scratch.scanned.len()
            && self.lines.iter().zip(&scratch.scanned).enumerate().all(|(number, (line, sample))| {
                sample.line == Some(number as u32)
                    && scratch.regions[sample.region as usize].same == Some(line.region)
                    && match line.slot {
                        Slot::In { set, .. } => (set > 0) == sample.stamp_ms.is_some(),
                        Slot::Invalid => true,
                        Slot::Duplicate => sample.stamp_ms.is_none(),
                    }
            })
    }

    /// The shape of a scanned body, sharing with this one what both have.
    pub(super) fn rebuilt(
        &self,
        body: &[u8],
        format: Format,
        scratch: &Scratch,
        reading: Reading<'_>,
    ) -> Result<Rebuilt, BodyError> {
        let regions: Vec<Region> =
            scratch.regions.iter().map(|region| region.keep(body, format, &self.regions)).collect();
        let mut builder = Builder::new(self, format, reading);
        let mut texts = Vec::with_capacity(self.texts.len());
        let mut lines = Vec::with_capacity(scratch.scanned.len());
        let mut added = 0;
        let mut complaint = None;
        for sample in &scratch.scanned {
            let text = &body[sample.at as usize..][..sample.length as usize];
            let scanned_region = &scratch.regions[sample.region as usize];
            let region = &regions[sample.region as usize];
            let before = sample
                .line
                .map(|line| self.lines[line as usize])
                .filter(|line| scanned_region.same == Some(line.region));
            let slot = match builder.series(text, before, region, scanned_region.kind) {
                Ok((series, place)) => builder.place(series, place, sample.stamp_ms.is_some()),
                Err(BadSeries::Limit(limit)) => {
                    return Err(BodyError::LabelLimit { series: printable(text), limit });
                }
                Err(reason) => {
                    if before.is_none_or(|line| line.slot != Slot::Invalid) && complaint.is_none() {
                        complaint = Some((printable(text), reason.to_string()));
                    }
                    Slot::Invalid
                }
            };
            if slot == Slot::Duplicate && sample.line.is_none() && complaint.is_none() {
                complaint = Some((printable(text), "the same series was there before".into()));
            }
            added += usize::from(sample.line.is_none() && matches!(slot, Slot::In { .. }));
            texts.extend_from_slice(text);
            lines.push(Line { end: texts.len() as u32, region: sample.region, slot });
        }
        texts.shrink_to_fit();
        let sets = builder.finish(&mut lines);
        Ok(Rebuilt { shape: Self { format: Some(format), texts, lines, regions, sets }, added, complaint })
    }
}

/// A text as a message shows it.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(200)]).chars().flat_map(char::escape_debug).collect()
}

/// Finds the lines of a shape by their texts, expecting them in the shape's order.
pub(super) struct Lookup<'s> {
    shape: &'s Shape,
    /// Texts of another format may mean something else, so they are not compared.
    comparable: bool,
    next: usize,
    index: Option<HashMap<&'s [u8], u32>>,
}

impl<'s> Lookup<'s> {
    pub(super) fn new(shape: &'s Shape, format: Format) -> Self {
        Self { shape, comparable: shape.format == Some(format), next: 0, index: None }
    }

    /// The text that comes next if the order is the shape's.
    pub(super) fn expected(&self) -> Option<&'s [u8]> {
        if self.comparable { self.shape.text(self.next) } else { None }
    }

    /// The line with a sample's text.
    pub(super) fn find(&mut self, sample: &Sample<'_>) -> Option<u32> {
        let found = if sample.expected || self.expected().is_some_and(|text| text == sample.series) {
            self.next
        } else if self.comparable && !self.shape.lines.is_empty() {
            let shape = self.shape;
            let index = self.index.get_or_insert_with(|| {
                (0..shape.lines.len()).rev().filter_map(|i| Some((shape.text(i)?, i as u32))).collect()
            });
            *index.get(sample.series)? as usize
        } else {
            return None;
        };
        self.next = found + 1;
        Some(found as u32)
    }
}

/// A series that is to be placed in a set, and where it was in the sets before.
struct Member {
    series: Arc<Series>,
    was: Option<u32>,
}

struct Builder<'a> {
    before: &'a Shape,
    format: Format,
    reading: Reading<'a>,
    members: Vec<Vec<Member>>,
    /// How many samples of each series were placed, by fingerprint.
    placed: HashMap<u64, u16>,
    /// Families of metrics that no metadata describes.
    undescribed: HashMap<String, Arc<Family>>,
}

impl<'a> Builder<'a> {
    fn new(before: &'a Shape, format: Format, reading: Reading<'a>) -> Self {
        let placed = reading.reserved.iter().map(|fingerprint| (*fingerprint, u16::MAX)).collect();
        let members = vec![Vec::with_capacity(before.series())];
        Self { before, format, reading, members, placed, undescribed: HashMap::new() }
    }

    /// The series of a text: that of the line before, or one taken from the text.
    fn series(
        &mut self,
        text: &[u8],
        before: Option<Line>,
        region: &Region,
        kind: MetricType,
    ) -> Result<(Arc<Series>, Option<Slot>), BadSeries> {
        if let Some(Line { slot: slot @ Slot::In { set, index }, .. }) = before {
            return Ok((self.before.sets[usize::from(set)].series()[index as usize].clone(), Some(slot)));
        }
        // The parser has read the text before, so it can be decoded.
        let written = labels::decode(text, self.format, kind).ok_or(BadSeries::NoName)?;
        let labels = own_labels(written, self.reading.rules)?;
        let name = labels.value(NAME_LABEL).unwrap_or_default();
        let described = region.family.as_ref().filter(|family| belongs(name, family)).cloned();
        let family = described.unwrap_or_else(|| {
            let make = || Arc::new(Family { name: name.into(), ..Family::default() });
            self.undescribed.entry(name.to_owned()).or_insert_with(make).clone()
        });
        Ok((Arc::new(Series::new(labels, family)), None))
    }

    /// Places a series' sample: in a set, or nowhere if it is a duplicate. The index is that among the members.
    fn place(&mut self, series: Arc<Series>, was: Option<Slot>, stamped: bool) -> Slot {
        let set = match self.placed.entry(series.fingerprint()) {
            hash_map::Entry::Vacant(entry) => {
                entry.insert(1);
                u16::from(stamped)
            }
            hash_map::Entry::Occupied(mut entry) => {
                // Several samples of a series make sense only at different instants.
                let Some(next) = entry.get().checked_add(1).filter(|_| stamped) else {
                    return Slot::Duplicate;
                };
                entry.insert(next);
                next
            }
        };
        while self.members.len() <= usize::from(set) {
            self.members.push(Vec::new());
        }
        let was = match was {
            Some(Slot::In { set: set_before, index }) if set_before == set => Some(index),
            _ => None,
        };
        let members = &mut self.members[usize::from(set)];
        members.push(Member { series, was });
        Slot::In { set, index: members.len() as u32 - 1 }
    }

    /// Makes the sets, in the order that they had as far as they had one, and sets the lines' indices to it.
    fn finish(self, lines: &mut [Line]) -> Vec<Arc<SeriesSet>> {
        let mut indices: Vec<Vec<u32>> = Vec::with_capacity(self.members.len());
        let mut sets = Vec::with_capacity(self.members.len());
        for (number, members) in self.members.into_iter().enumerate() {
            let before = self.before.sets.get(number).filter(|set| set.len() == members.len());
            if let Some(before) = before
                && members.iter().all(|member| member.was.is_some())
            {
                indices.push(members.iter().filter_map(|member| member.was).collect());
                sets.push(before.clone());
                continue;
            }
            let mut order: Vec<u32> = (0..members.len() as u32).collect();
            order.sort_by_key(|i| members[*i as usize].was.unwrap_or(u32::MAX));
            let mut index = vec![0; members.len()];
            for (rank, member) in order.iter().enumerate() {
                index[*member as usize] = rank as u32;
            }
            let series: Vec<_> = order.iter().map(|i| members[*i as usize].series.clone()).collect();
            indices.push(index);
            sets.push(Arc::new(SeriesSet::new(self.reading.shared.clone(), series)));
        }
        for line in lines {
            if let Slot::In { set, index } = &mut line.slot {
                *index = indices[usize::from(*set)][*index as usize];
            }
        }
        sets
    }
}
