//! What the positions file holds, record by record, and its bytes.
//!
//! A body is a tag byte and its fields: integers little-endian, texts and bytes behind a `u32` length. A reader
//! passes over tags that it does not know, so that a version can add some and the one before it still starts.

use pegel_proto::batch::{AgentEpoch, BatchSeq, Signal};
use std::collections::BTreeMap;

/// Names an output of a signal.
pub type OutputKey = (Signal, String);

/// The books of one signal and output, in records (samples, entries, spans).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Collected, after shaping.
    pub collected: u64,
    /// Accepted by the backend.
    pub delivered: u64,
    /// Found there already by a re-send.
    pub held_already: u64,
    /// Lost in a crash: a bound.
    pub lost_in_crash: u64,
    /// Dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Rejected, by reason.
    pub rejected: BTreeMap<String, u64>,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The agent's epoch.
    Epoch(AgentEpoch),
    /// Sequence numbers of a signal below this one may have been used.
    Reserved(Signal, BatchSeq),
    /// An output's cursor: everything up to this batch is acknowledged.
    Cursor(OutputKey, BatchSeq),
    /// An output's books.
    Books(OutputKey, Totals),
    /// An output is no longer configured: its cursor and books go.
    OutputGone(OutputKey),
    /// A source's checkpoint; the bytes are the source's.
    Checkpoint(String, Vec<u8>),
    /// A source has no checkpoint any more.
    CheckpointGone(String),
    /// The agent ended in order: everything above is final.
    Ended,
}

impl Record {
    /// Appends the record's body.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Epoch(epoch) => {
                out.push(1);
                put_u64(out, epoch.0);
            }
            Self::Reserved(signal, below) => {
                out.extend([2, tag(*signal)]);
                put_u64(out, below.0);
            }
            Self::Cursor(output, acknowledged) => {
                out.push(3);
                put_output(out, output);
                put_u64(out, acknowledged.0);
            }
            Self::Books(output, totals) => {
                out.push(4);
                put_output(out, output);
                for total in [totals.collected, totals.delivered, totals.held_already, totals.lost_in_crash] {
                    put_u64(out, total);
                }
                for by_reason in [&totals.dropped, &totals.rejected] {
                    out.extend((by_reason.len() as u32).to_le_bytes());
                    for (reason, total) in by_reason {
                        put_bytes(out, reason.as_bytes());
                        put_u64(out, *total);
                    }
                }
            }
            Self::OutputGone(output) => {
                out.push(5);
                put_output(out, output);
            }
            Self::Checkpoint(key, value) => {
                out.push(6);
                put_bytes(out, key.as_bytes());
                put_bytes(out, value);
            }
            Self::CheckpointGone(key) => {
                out.push(7);
                put_bytes(out, key.as_bytes());
            }
            Self::Ended => out.push(8),
        }
    }

    /// Reads a body; none if it is of a later version.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        Some(match fields.u8()? {
            1 => Self::Epoch(AgentEpoch(fields.u64()?)),
            2 => Self::Reserved(signal(fields.u8()?)?, BatchSeq(fields.u64()?)),
            3 => Self::Cursor(fields.output()?, BatchSeq(fields.u64()?)),
            4 => Self::Books(fields.output()?, fields.totals()?),
            5 => Self::OutputGone(fields.output()?),
            6 => Self::Checkpoint(fields.text()?, fields.bytes()?.to_vec()),
            7 => Self::CheckpointGone(fields.text()?),
            8 => Self::Ended,
            _ => return None,
        })
    }
}

fn tag(signal: Signal) -> u8 {
    match signal {
        Signal::Metrics => 1,
        Signal::Logs => 2,
        Signal::Traces => 3,
    }
}

fn signal(tag: u8) -> Option<Signal> {
    Some(match tag {
        1 => Signal::Metrics,
        2 => Signal::Logs,
        3 => Signal::Traces,
        _ => return None,
    })
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

fn put_output(out: &mut Vec<u8>, (signal, name): &OutputKey) {
    out.push(tag(*signal));
    put_bytes(out, name.as_bytes());
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn output(&mut self) -> Option<OutputKey> {
        Some((signal(self.u8()?)?, self.text()?))
    }

    fn totals(&mut self) -> Option<Totals> {
        let mut totals = Totals {
            collected: self.u64()?,
            delivered: self.u64()?,
            held_already: self.u64()?,
            lost_in_crash: self.u64()?,
            ..Totals::default()
        };
        for by_reason in [&mut totals.dropped, &mut totals.rejected] {
            for _ in 0..self.u32()? {
                by_reason.insert(self.text()?, self.u64()?);
            }
        }
        Some(totals)
    }
}
