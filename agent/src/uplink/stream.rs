//! One data stream: an encoder and a writer, and a reader of acknowledgements. They live until the stream ends.

use super::counters::Counters;
use super::throttle::Throttle;
use super::window::Windows;
use super::{Attempt, QueuedSend, StreamKey};
use crate::uplink::Lane;
use bytes::Bytes;
use parking_lot::Mutex;
use pegel_proto::batch::{Batch, BatchSeq, Content};
use pegel_proto::codec::Encoder;
use pegel_proto::framing::{FrameReader, write_frame};
use pegel_proto::wire::{self, AckReader, Acked, MAX_ACK_FRAME_BYTES, close};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// What a batch is taken to weigh until it is encoded, in bytes a sample: twice what steady state takes, so that the
/// window is used well. The first frame of a stream is heavier; the window counts it right once it is encoded.
const ESTIMATED_BYTES_PER_SAMPLE: usize = 2;
/// The buffer of frames is given back above this size: a stream's first frame may have megabytes.
const KEEP_BUFFER_BYTES: usize = 16 << 10;

/// What a stream tells its session.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// The aggregator acknowledged something.
    Acked(StreamKey, Acked),
    /// A batch does not fit a frame.
    Unsendable(StreamKey, BatchSeq, String),
    /// The stream ended.
    Reset(StreamKey, Attempt, String),
}

/// What a stream works with.
pub(super) struct StreamContext {
    pub(super) key: StreamKey,
    pub(super) attempt: Attempt,
    pub(super) connection: quinn::Connection,
    pub(super) encoder: Encoder,
    pub(super) windows: Arc<Windows>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) counters: Counters,
    pub(super) max_frame_bytes: usize,
    pub(super) events: mpsc::UnboundedSender<StreamEvent>,
}

/// Batches written and not acknowledged: numbers and encoded bytes.
type InFlight = Arc<Mutex<VecDeque<(BatchSeq, usize)>>>;

/// What a batch is taken to weigh.
pub(super) fn estimated_bytes(batch: &Batch) -> usize {
    match &batch.content {
        Content::Metrics(_) => ESTIMATED_BYTES_PER_SAMPLE * batch.records() as usize,
        // Encoded already: exact but for the frame's head.
        Content::Logs(logs) => logs.block.bytes.len(),
    }
}

/// Runs a stream until it breaks or `sends` ends.
pub(super) async fn run(mut context: StreamContext, mut sends: mpsc::UnboundedReceiver<QueuedSend>) {
    let Ok((send, recv)) = context.connection.open_bi().await else {
        // The session sees that the connection ended.
        return;
    };
    let in_flight = InFlight::default();
    let (key, attempt, events) = (context.key.clone(), context.attempt, context.events.clone());
    let reader = Reader {
        key: key.clone(),
        attempt,
        windows: context.windows.clone(),
        counters: context.counters.clone(),
        in_flight: in_flight.clone(),
        events: events.clone(),
    };
    let reason = tokio::select! {
        reason = reader.run(recv) => reason,
        reason = context.write(send, &mut sends, &in_flight) => reason,
    };
    let _ = events.send(StreamEvent::Reset(key, attempt, reason));
}

impl StreamContext {
    async fn write(
        &mut self,
        mut send: quinn::SendStream,
        sends: &mut mpsc::UnboundedReceiver<QueuedSend>,
        in_flight: &InFlight,
    ) -> String {
        let open = wire::StreamOpen {
            signal: wire::WireSignal::from(self.key.signal).into(),
            output: self.key.output.to_string(),
            fresh: self.key.lane == Lane::Fresh,
        };
        let (mut frame, mut blocks) = (Vec::new(), Vec::new());
        // Goes with the first batch, in one packet.
        write_frame(&open, &mut frame);
        let mut last = 0;
        while let Some(next) = sends.recv().await {
            let seq = next.batch.seq;
            let Some(seq_delta) = seq.0.checked_sub(last).filter(|delta| *delta > 0) else {
                return format!("batch {seq} was sent after batch {last}");
            };
            let encoded = match &next.batch.content {
                Content::Metrics(samples) => {
                    blocks.clear();
                    self.encoder.encode(samples, &mut blocks);
                    Bytes::from(std::mem::take(&mut blocks))
                }
                // Cut and compressed once: what is sent is what would be stored.
                Content::Logs(logs) => logs.block.bytes.clone(),
            };
            let batch = wire::BatchFrame { seq_delta, sent_before: next.sent_before, blocks: encoded };
            let size = prost::Message::encoded_len(&batch);
            if size > self.max_frame_bytes {
                let reason =
                    format!("its frame has {size} bytes, the aggregator takes {}", self.max_frame_bytes);
                let _ = self.events.send(StreamEvent::Unsendable(self.key.clone(), seq, reason.clone()));
                let _ = send.reset(close::DONE.into());
                return reason;
            }
            last = seq.0;
            write_frame(&batch, &mut frame);
            self.windows.settle(&self.key, self.attempt, next.estimate, frame.len());
            in_flight.lock().push_back((seq, frame.len()));
            self.counters.batches.inc();
            self.counters.resent.add(u64::from(next.sent_before));
            self.counters.frame_bytes.add(frame.len() as u64);
            let wait = self.throttle.reserve(frame.len(), Instant::now());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            if let Err(error) = send.write_all(&frame).await {
                return reason_of_write(&error);
            }
            frame.clear();
            frame.shrink_to(KEEP_BUFFER_BYTES);
            // The frame owns the blocks alone, so that their buffer comes back.
            blocks = batch.blocks.try_into_mut().map(Vec::from).unwrap_or_default();
            blocks.shrink_to(KEEP_BUFFER_BYTES);
        }
        "the session ended".into()
    }
}

struct Reader {
    key: StreamKey,
    attempt: Attempt,
    windows: Arc<Windows>,
    counters: Counters,
    in_flight: InFlight,
    events: mpsc::UnboundedSender<StreamEvent>,
}

impl Reader {
    async fn run(self, mut recv: quinn::RecvStream) -> String {
        let mut frames = FrameReader::new(MAX_ACK_FRAME_BYTES);
        let mut acks = AckReader::new();
        loop {
            match frames.next_message::<wire::AckFrame>("acknowledgement") {
                Ok(Some(frame)) => {
                    self.counters.acks.inc();
                    match acks.read(frame) {
                        Ok(Some(acked)) => self.tell(acked),
                        Ok(None) => {}
                        Err(error) => return error.to_string(),
                    }
                }
                Ok(None) => match recv.read_chunk(MAX_ACK_FRAME_BYTES, true).await {
                    Ok(Some(chunk)) => frames.push(&chunk.bytes),
                    Ok(None) => return "the aggregator ended the stream".into(),
                    Err(error) => return reason_of_read(&error),
                },
                Err(error) => return error.to_string(),
            }
        }
    }

    fn tell(&self, acked: Acked) {
        if let Some(up_to) = acked.up_to {
            let mut in_flight = self.in_flight.lock();
            while let Some((_, bytes)) = in_flight.pop_front_if(|(seq, _)| *seq <= up_to) {
                self.windows.settle(&self.key, self.attempt, bytes, 0);
            }
        }
        let _ = self.events.send(StreamEvent::Acked(self.key.clone(), acked));
    }
}

fn reason_of_write(error: &quinn::WriteError) -> String {
    match error {
        quinn::WriteError::Stopped(code) => reason_of_code(*code),
        other => other.to_string(),
    }
}

fn reason_of_read(error: &quinn::ReadError) -> String {
    match error {
        quinn::ReadError::Reset(code) => reason_of_code(*code),
        other => other.to_string(),
    }
}

fn reason_of_code(code: quinn::VarInt) -> String {
    match u32::try_from(code.into_inner()) {
        Ok(close::DECODE) => "the aggregator could not decode a frame".into(),
        Ok(close::OUTPUT_CHANGED) => "the aggregator's output was configured anew".into(),
        Ok(close::UNKNOWN_OUTPUT) => "the aggregator has no such output any more".into(),
        _ => format!("the aggregator reset the stream (code {code})"),
    }
}
