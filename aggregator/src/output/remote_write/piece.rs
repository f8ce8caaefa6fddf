//! What one request holds: groups of series with their samples, in an order that keeps each series' time order, and
//! how a piece is split when a backend refuses it.

use super::batch::BatchKey;
use crate::session::{ResolvedBlock, ResolvedSet};
use crate::symbols::Symbol;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// One block of one batch.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// The batch.
    pub batch: BatchKey,
    /// All blocks of the batch.
    pub blocks: Arc<[ResolvedBlock]>,
    /// Which of them.
    pub block: u32,
    /// The index in the batch of the block's first record.
    pub base: u32,
}

impl Part {
    pub fn block(&self) -> &ResolvedBlock {
        &self.blocks[self.block as usize]
    }
}

/// The same series of one or several blocks of one set, oldest block first: one time series with a sample a part.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// The series.
    pub set: Arc<ResolvedSet>,
    /// The first of them.
    pub first: u32,
    /// How many.
    pub len: u32,
    /// Where the samples are.
    pub parts: Vec<Part>,
}

impl Group {
    pub fn samples(&self) -> usize {
        self.len as usize * self.parts.len()
    }

    fn with(&self, first: u32, len: u32, parts: Vec<Part>) -> Self {
        Self { set: self.set.clone(), first, len, parts }
    }
}

/// What one request holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Piece {
    /// Its series, in the order of their writing.
    pub groups: Vec<Group>,
    /// An earlier send of all of it may have arrived.
    pub sent_before: bool,
    /// A larger piece that held this one was refused by a backend that may have stored the rest.
    pub partly_stored: bool,
    /// It was refused without a known reason, and asked about again after something else was accepted.
    pub asked_again: bool,
}

/// One record of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Record {
    /// The batch.
    pub batch: BatchKey,
    /// The record's index in it.
    pub index: u32,
}

impl Piece {
    /// How many samples it holds.
    pub fn samples(&self) -> usize {
        self.groups.iter().map(Group::samples).sum()
    }

    /// Its only record, if it has only one.
    pub fn only_record(&self) -> Option<(Record, i64)> {
        match &*self.groups {
            [group] if group.len == 1 && group.parts.len() == 1 => {
                let part = &group.parts[0];
                let record = Record { batch: part.batch, index: part.base + group.first };
                Some((record, part.block().stamp_ms(group.first as usize)))
            }
            _ => None,
        }
    }

    /// Takes out what belongs to batches that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(BatchKey) -> bool) {
        for group in &mut self.groups {
            group.parts.retain(|part| keep(part.batch));
        }
        self.groups.retain(|group| !group.parts.is_empty());
    }

    /// Takes out the blocks whose samples are all at or before an instant.
    pub fn drain_up_to(&mut self, bound_ms: i64) -> Self {
        let mut taken = Self { groups: Vec::new(), ..*self };
        for group in &mut self.groups {
            let (old, rest): (Vec<_>, Vec<_>) =
                group.parts.drain(..).partition(|part| part.block().span_ms().1 <= bound_ms);
            group.parts = rest;
            if !old.is_empty() {
                taken.groups.push(group.with(group.first, group.len, old));
            }
        }
        self.groups.retain(|group| !group.parts.is_empty());
        taken
    }

    /// Moves the samples of one series into another piece, behind what is there.
    pub fn move_series(&mut self, labels: &[(Symbol, Symbol)], to: &mut Self) {
        let mut kept = Vec::with_capacity(self.groups.len());
        for mut group in self.groups.drain(..) {
            let members = &group.set.series[group.first as usize..(group.first + group.len) as usize];
            let Some(at) = members.iter().position(|series| *series.labels == *labels) else {
                kept.push(group);
                continue;
            };
            let (before, at) = (at as u32, group.first + at as u32);
            let after = group.len - before - 1;
            if before > 0 {
                kept.push(group.with(group.first, before, group.parts.clone()));
            }
            if after > 0 {
                kept.push(group.with(at + 1, after, group.parts.clone()));
            }
            (group.first, group.len) = (at, 1);
            to.groups.push(group);
            to.sent_before |= self.sent_before;
        }
        self.groups = kept;
    }

    /// Splits a piece of more than one record in two: between groups, else between series, else between samples.
    /// The first half is to be sent first.
    pub fn split(mut self) -> (Self, Self) {
        let marks = Self { groups: Vec::new(), ..self };
        if self.groups.len() > 1 {
            let half = self.samples() / 2;
            let mut before = 0;
            let at = self.groups.iter().position(|group| {
                before += group.samples();
                before > half
            });
            let at = at.unwrap_or(1).clamp(1, self.groups.len() - 1);
            let second = self.groups.split_off(at);
            return (self, Self { groups: second, ..marks });
        }
        let group = &self.groups[0];
        if group.len > 1 {
            let half = group.len / 2;
            let first = group.with(group.first, half, group.parts.clone());
            let second = group.with(group.first + half, group.len - half, group.parts.clone());
            return (Self { groups: vec![first], ..marks }, Self { groups: vec![second], ..marks });
        }
        let (older, newer) = group.parts.split_at(group.parts.len() / 2);
        let older = group.with(group.first, 1, older.to_vec());
        let newer = group.with(group.first, 1, newer.to_vec());
        (Self { groups: vec![older], ..marks }, Self { groups: vec![newer], ..marks })
    }

    /// The records that a later one of the same series follows.
    pub fn followed(&self) -> HashSet<Record> {
        let mut seen = HashSet::new();
        let mut followed = HashSet::new();
        for group in self.groups.iter().rev() {
            for index in group.first..group.first + group.len {
                let mut later = !seen.insert(&*group.set.series[index as usize].labels);
                for part in group.parts.iter().rev() {
                    if later {
                        followed.insert(Record { batch: part.batch, index: part.base + index });
                    }
                    later = true;
                }
            }
        }
        followed
    }
}

/// Puts blocks together into a piece, one after the other, and says when one must wait for the next request.
///
/// Prometheus checks a sample only against what was there before the request, and drops samples that are out of
/// order within it without a word (`commitFloats` in tsdb/head_append.go). So within a request each series' samples
/// are in the order of their times: a block that is not after the one before it of the same series waits.
#[derive(Debug, Default)]
pub(super) struct PieceBuilder {
    groups: Vec<Group>,
    tracks: HashMap<(u64, u32), Track>,
    samples: usize,
}

#[derive(Debug)]
struct Track {
    group: usize,
    last_ms: i64,
}

impl PieceBuilder {
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Adds a range of a block's records, if it may join the request. `session` and the set's lineage name the
    /// series that may meet.
    pub fn add(&mut self, session: u64, part: &Part, first: u32, len: u32) -> bool {
        let block = part.block();
        let (low, high) = block.span_ms();
        let track = self.tracks.get(&(session, block.set.lineage()));
        let mut join = None;
        if let Some(track) = track {
            let group = &self.groups[track.group];
            let same_block = group.parts.last().is_some_and(|last| {
                last.batch == part.batch
                    && last.block == part.block
                    && Arc::ptr_eq(&last.blocks, &part.blocks)
            });
            if same_block {
                // Another range of the same block: other series.
            } else if Arc::ptr_eq(&group.set, &block.set) {
                if low <= track.last_ms {
                    return false;
                }
                join = (group.first == first && group.len == len).then_some(track.group);
            } else if low < track.last_ms {
                return false;
            }
        }
        let group = join.unwrap_or(self.groups.len());
        if join.is_some() {
            self.groups[group].parts.push(part.clone());
        } else {
            let parts = vec![part.clone()];
            self.groups.push(Group { set: block.set.clone(), first, len, parts });
        }
        self.tracks.insert((session, block.set.lineage()), Track { group, last_ms: high });
        self.samples += len as usize;
        true
    }

    /// The piece.
    pub fn finish(self, sent_before: bool) -> Piece {
        Piece { groups: self.groups, sent_before, ..Piece::default() }
    }
}
