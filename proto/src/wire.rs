//! The frames of `pegel/1`, generated from `schema/pegel.proto`, and their conversion to and from domain types.

use crate::batch::{BatchSeq, RejectReason, Rejection, Signal};
use crate::caps;

/// The generated messages.
#[allow(clippy::all, clippy::pedantic, missing_docs)]
pub mod generated {
    include!(concat!(env!("OUT_DIR"), "/pegel.wire.rs"));
}

pub use generated::*;

/// The ALPN protocol name.
pub const ALPN: &[u8] = b"pegel/1";
/// The wire version of this build.
pub const WIRE_VERSION: u32 = 1;
/// The oldest wire version that this build still speaks (N-1 once there is a second one).
pub const WIRE_VERSION_MIN: u32 = 1;

/// The largest acknowledgement frame, in bytes. Longer lists of refused records are spread over several frames.
pub const MAX_ACK_FRAME_BYTES: usize = 64 << 10;
/// Ranges of refused records in one acknowledgement frame: two varints of at most 3 bytes each (a batch has at most
/// 200,000 records, a 18-bit number) make 48 KiB, which leaves room for the messages.
const MAX_RANGES_PER_FRAME: usize = 8 << 10;
/// Rejections in one acknowledgement frame: 16 messages of 512 bytes make 8 KiB.
const MAX_REJECTIONS_PER_FRAME: usize = 16;
/// Ranges that an agent keeps for batches whose acknowledgement has not come yet: every second record of two
/// batches of the largest size, 1.6 MB.
const MAX_HELD_RANGES: usize = caps::MAX_BATCH_SAMPLES;

/// Why a connection is closed or a stream reset: QUIC application error codes.
pub mod close {
    /// The session ends in good order.
    pub const DONE: u32 = 0;
    /// The peer broke the protocol.
    pub const PROTOCOL: u32 = 1;
    /// The same agent opened a newer session.
    pub const SUPERSEDED: u32 = 2;
    /// The aggregator goes away.
    pub const GOING_AWAY: u32 = 3;
    /// The peer's certificate names nobody, has expired or was revoked.
    pub const CERTIFICATE: u32 = 4;
    /// The session was refused; the reason says why and whether to come again.
    pub const REFUSED: u32 = 5;
    /// A limit of the session was passed.
    pub const LIMIT: u32 = 6;
    /// A stream's frames can't be decoded: only that stream is reset, and starts again from a full description.
    pub const DECODE: u32 = 7;
    /// The stream is for an output that there is not.
    pub const UNKNOWN_OUTPUT: u32 = 8;
    /// The output was configured anew: the stream starts again and reaches the new one.
    pub const OUTPUT_CHANGED: u32 = 10;
    /// The other side does not answer.
    pub const SILENT: u32 = 9;
}

impl WireSignal {
    /// The signal; none if the peer speaks of one that this build does not know.
    pub fn to_domain(self) -> Option<Signal> {
        match self {
            Self::Unspecified => None,
            Self::Metrics => Some(Signal::Metrics),
            Self::Logs => Some(Signal::Logs),
            Self::Traces => Some(Signal::Traces),
        }
    }
}

impl From<Signal> for WireSignal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Metrics => Self::Metrics,
            Signal::Logs => Self::Logs,
            Signal::Traces => Self::Traces,
        }
    }
}

impl From<RejectReason> for WireRejectReason {
    fn from(reason: RejectReason) -> Self {
        match reason {
            RejectReason::TooOld => Self::TooOld,
            RejectReason::OutOfOrder => Self::OutOfOrder,
            RejectReason::DuplicateTimestamp => Self::DuplicateTimestamp,
            RejectReason::TooFarInFuture => Self::TooFarInFuture,
            RejectReason::InvalidLabels => Self::InvalidLabels,
            RejectReason::TenantLimit => Self::TenantLimit,
            RejectReason::TooLarge => Self::TooLarge,
            RejectReason::Other => Self::Other,
        }
    }
}

impl From<WireRejectReason> for RejectReason {
    fn from(reason: WireRejectReason) -> Self {
        match reason {
            WireRejectReason::TooOld => Self::TooOld,
            WireRejectReason::OutOfOrder => Self::OutOfOrder,
            WireRejectReason::DuplicateTimestamp => Self::DuplicateTimestamp,
            WireRejectReason::TooFarInFuture => Self::TooFarInFuture,
            WireRejectReason::InvalidLabels => Self::InvalidLabels,
            WireRejectReason::TenantLimit => Self::TenantLimit,
            WireRejectReason::TooLarge => Self::TooLarge,
            WireRejectReason::Other => Self::Other,
        }
    }
}

/// What an aggregator says of one stream's batches: cumulative acknowledgements and the output's state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Acked {
    /// Every batch up to this one is done; none if only `parked` changed.
    pub up_to: Option<BatchSeq>,
    /// Records of those batches that the backend had already.
    pub held_already: u64,
    /// Records of those batches that were refused.
    pub rejections: Vec<Rejection>,
    /// `Some(Some(reason))`: the output takes nothing at present. `Some(None)`: it takes batches again.
    pub parked: Option<Option<String>>,
}

/// Writes one stream's acknowledgements. Remembers the last acknowledged batch, which the frames count from.
#[derive(Debug, Default)]
pub struct AckWriter {
    base: u64,
}

impl AckWriter {
    /// A writer for a new stream: the first frame counts from 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The frames of an acknowledgement. Refused records that do not fit one frame go ahead in frames that
    /// acknowledge nothing, so that the agent has them all when the last frame moves its cursor.
    pub fn write(&mut self, acked: Acked) -> Vec<AckFrame> {
        let mut frames = Vec::new();
        let mut frame = AckFrame::default();
        let mut ranges = 0;
        for rejection in acked.rejections {
            let seq_delta = rejection.seq.0.saturating_sub(self.base);
            let mut records = rejection.records.as_slice();
            while !records.is_empty() {
                if ranges == MAX_RANGES_PER_FRAME || frame.rejections.len() == MAX_REJECTIONS_PER_FRAME {
                    frames.push(std::mem::take(&mut frame));
                    ranges = 0;
                }
                let (piece, rest) = records.split_at(records.len().min(MAX_RANGES_PER_FRAME - ranges));
                records = rest;
                ranges += piece.len();
                frame.rejections.push(WireRejection {
                    seq_delta,
                    reason: WireRejectReason::from(rejection.reason).into(),
                    message: cut(&rejection.message, caps::MAX_REJECT_MESSAGE_BYTES),
                    records: ranges_to_wire(piece),
                });
            }
        }
        if let Some(up_to) = acked.up_to {
            frame.up_to_delta = up_to.0.saturating_sub(self.base);
            self.base = self.base.max(up_to.0);
        }
        frame.held_already = acked.held_already;
        if let Some(Some(reason)) = &acked.parked {
            frame.parked = cut(reason, caps::MAX_REJECT_MESSAGE_BYTES);
        }
        let lifts = acked.parked == Some(None);
        if frame != AckFrame::default() {
            frames.push(frame);
        }
        if lifts {
            frames.push(AckFrame::default());
        }
        frames
    }
}

/// Why an acknowledgement makes no sense. The stream must be reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// A batch number passes 64 bits.
    #[error("an acknowledgement's batch number is too large")]
    Overflow,
    /// A rejection is for a batch that the frame does not reach, or its ranges are not ascending.
    #[error("a rejection's records are not ascending ranges")]
    BadRanges,
    /// More refused records than batches in flight can have.
    #[error("too many rejections without an acknowledgement")]
    TooMany,
    /// Rejections for batches beyond the acknowledged ones.
    #[error("a rejection is for a batch that is not acknowledged")]
    Beyond,
}

/// Reads one stream's acknowledgements.
#[derive(Debug, Default)]
pub struct AckReader {
    base: u64,
    held: Vec<Rejection>,
    held_ranges: usize,
}

impl AckReader {
    /// A reader for a new stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a frame. None if it only carries refused records ahead of their acknowledgement.
    pub fn read(&mut self, frame: AckFrame) -> Result<Option<Acked>, AckError> {
        let lifts = frame == AckFrame::default();
        for rejection in frame.rejections {
            let seq = self.base.checked_add(rejection.seq_delta).ok_or(AckError::Overflow)?;
            self.held_ranges += rejection.records.len() / 2;
            if self.held_ranges > MAX_HELD_RANGES {
                return Err(AckError::TooMany);
            }
            let reason =
                WireRejectReason::try_from(rejection.reason).unwrap_or(WireRejectReason::Other).into();
            let records = ranges_from_wire(&rejection.records)?;
            let goes_on = |last: &Rejection| {
                let end = last.records.last().map_or(0, |(first, count)| first + count);
                records.first().is_some_and(|(first, _)| *first >= end)
                    && (last.seq.0, last.reason) == (seq, reason)
                    && last.message == rejection.message
            };
            match self.held.last_mut() {
                Some(last) if goes_on(last) => {
                    last.records.extend(records);
                }
                _ => self.held.push(Rejection {
                    seq: BatchSeq(seq),
                    reason,
                    message: cut(&rejection.message, caps::MAX_REJECT_MESSAGE_BYTES),
                    records,
                }),
            }
        }
        let parked =
            if lifts { Some(None) } else { (!frame.parked.is_empty()).then_some(Some(frame.parked)) };
        if frame.up_to_delta == 0 {
            return Ok(parked.map(|parked| Acked { parked: Some(parked), ..Acked::default() }));
        }
        self.base = self.base.checked_add(frame.up_to_delta).ok_or(AckError::Overflow)?;
        if self.held.iter().any(|r| r.seq.0 > self.base) {
            return Err(AckError::Beyond);
        }
        self.held_ranges = 0;
        Ok(Some(Acked {
            up_to: Some(BatchSeq(self.base)),
            held_already: frame.held_already,
            rejections: std::mem::take(&mut self.held),
            parked,
        }))
    }
}

fn ranges_to_wire(ranges: &[(u32, u32)]) -> Vec<u32> {
    let mut out = Vec::with_capacity(2 * ranges.len());
    let mut end = 0;
    for &(first, count) in ranges {
        out.push(first.saturating_sub(end));
        out.push(count);
        end = first.saturating_add(count);
    }
    out
}

fn ranges_from_wire(wire: &[u32]) -> Result<Vec<(u32, u32)>, AckError> {
    let mut end = 0_u32;
    let mut ranges = Vec::with_capacity(wire.len() / 2);
    let mut pairs = wire.chunks_exact(2);
    for pair in &mut pairs {
        let first = end.checked_add(pair[0]).ok_or(AckError::BadRanges)?;
        end = first.checked_add(pair[1]).ok_or(AckError::BadRanges)?;
        if end as usize > caps::MAX_BATCH_SAMPLES || pair[1] == 0 {
            return Err(AckError::BadRanges);
        }
        ranges.push((first, pair[1]));
    }
    if pairs.remainder().is_empty() { Ok(ranges) } else { Err(AckError::BadRanges) }
}

/// Cuts a text to at most `max` bytes, at a character's border.
pub fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(seq: u64, records: Vec<(u32, u32)>) -> Rejection {
        Rejection { seq: BatchSeq(seq), reason: RejectReason::TooOld, message: "too old".into(), records }
    }

    fn through_the_wire(writer: &mut AckWriter, reader: &mut AckReader, acked: Acked) -> Vec<Acked> {
        let frames = writer.write(acked);
        for frame in &frames {
            assert!(prost::Message::encoded_len(frame) <= MAX_ACK_FRAME_BYTES);
        }
        frames.into_iter().filter_map(|f| reader.read(f).unwrap()).collect()
    }

    #[test]
    fn acknowledgements_survive_the_wire() {
        let (mut writer, mut reader) = (AckWriter::new(), AckReader::new());
        for acked in [
            Acked { up_to: Some(BatchSeq(1_000)), held_already: 3, ..Acked::default() },
            Acked {
                up_to: Some(BatchSeq(1_003)),
                rejections: vec![rejection(1_001, vec![(0, 2), (5, 1)]), rejection(1_003, vec![(7, 9)])],
                ..Acked::default()
            },
            Acked { parked: Some(Some("401 Unauthorized".into())), ..Acked::default() },
            Acked { parked: Some(None), ..Acked::default() },
        ] {
            assert_eq!(through_the_wire(&mut writer, &mut reader, acked.clone()), [acked]);
        }
    }

    #[test]
    fn the_frame_of_steady_state_takes_three_bytes() {
        let mut writer = AckWriter::new();
        writer.write(Acked { up_to: Some(BatchSeq(70_000)), ..Acked::default() });
        let frames = writer.write(Acked { up_to: Some(BatchSeq(70_001)), ..Acked::default() });
        let mut bytes = Vec::new();
        crate::framing::write_frame(&frames[0], &mut bytes);
        assert_eq!(bytes.len(), 3);
    }

    #[test]
    fn a_long_list_of_records_is_spread_over_frames_and_put_together_again() {
        let every_second: Vec<_> = (0..caps::MAX_BATCH_SAMPLES as u32 / 2).map(|i| (2 * i, 1)).collect();
        let acked = Acked {
            up_to: Some(BatchSeq(9)),
            rejections: vec![rejection(9, every_second)],
            ..Acked::default()
        };
        let (mut writer, mut reader) = (AckWriter::new(), AckReader::new());
        assert_eq!(through_the_wire(&mut writer, &mut reader, acked.clone()), [acked]);
    }

    #[test]
    fn ranges_that_overflow_or_stand_beyond_the_batch_are_refused() {
        for records in [vec![u32::MAX, 1], vec![1, u32::MAX], vec![0, 0], vec![5], vec![200_000, 1]] {
            let frame = AckFrame {
                up_to_delta: 1,
                rejections: vec![WireRejection { seq_delta: 1, records, ..WireRejection::default() }],
                ..AckFrame::default()
            };
            assert_eq!(AckReader::new().read(frame), Err(AckError::BadRanges));
        }
        let frame = AckFrame { up_to_delta: u64::MAX, ..AckFrame::default() };
        let mut reader = AckReader::new();
        reader.read(frame.clone()).unwrap();
        assert_eq!(reader.read(frame), Err(AckError::Overflow));
    }
}
