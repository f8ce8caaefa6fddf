//! One data stream: batches in, acknowledgements out.
//!
//! A single task reads, decodes, submits and acknowledges. It stops reading when the stream's window or the tenant's
//! budget is used up, and goes on acknowledging meanwhile; what it holds is then one decoded batch and what QUIC's
//! windows let arrive.

use super::budget::Budget;
use super::{Outputs, Shared};
use crate::fanout::{Delivery, Output, Payload, Reply, Verdict};
use crate::session::{AgentInfo, SeriesBudget, StreamDecoder};
use pegel_proto::batch::{BatchSeq, Outcome, Signal};
use pegel_proto::caps;
use pegel_proto::codec::DecoderLimits;
use pegel_proto::framing::{FrameReader, FramingError, write_frame};
use pegel_proto::logs::BlockPool;
use pegel_proto::wire::{self, AckWriter, Acked, close};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// The most read at once, in bytes: a handful of packets, so that one stream does not starve the rest.
const READ_BYTES: usize = 64 << 10;
/// Memory of a decoded sample beside its value, in bytes: its place in a request that is being built.
const BYTES_PER_SAMPLE: usize = 16;

/// Why a stream ends before its agent ends it.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    /// The stream is for an output or signal that there is not.
    #[error("there is no output `{0}` for this signal")]
    UnknownOutput(String),
    /// The bytes are no frames: the agent can't be trusted with the session.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// Batch numbers do not rise.
    #[error("batch numbers do not rise")]
    BadSequence,
    /// A frame is damaged: the stream starts again from a full description.
    #[error("{0}")]
    Decode(String),
    /// The output was taken away or configured anew.
    #[error("the output was configured anew")]
    OutputChanged,
    /// The stream or its connection ended.
    #[error("the stream broke off")]
    Gone,
}

struct InFlight {
    seq: BatchSeq,
    bytes: u64,
    outcome: Option<Outcome>,
    _room: OwnedSemaphorePermit,
}

struct Waiting {
    seq: BatchSeq,
    sent_before: bool,
    bytes: u64,
    payload: Payload,
}

/// Reads a stream's frames.
enum FrameDecoder {
    /// Samples, with the stream's state.
    Metrics(Box<StreamDecoder>),
    /// Log entries: each block stands alone.
    Logs(BlockPool),
}

impl FrameDecoder {
    fn decode(&mut self, frame: &[u8]) -> Result<Payload, StreamError> {
        let why = |error: &dyn std::fmt::Display| StreamError::Decode(error.to_string());
        match self {
            Self::Metrics(decoder) => Ok(Payload::Metrics(decoder.decode(frame).map_err(|e| why(&e))?)),
            Self::Logs(blocks) => Ok(Payload::Logs(Arc::new(blocks.read(frame).map_err(|e| why(&e))?))),
        }
    }
}

/// What a batch takes in memory until it is settled.
fn memory_bytes(payload: &Payload) -> usize {
    match payload {
        Payload::Metrics(_) => BYTES_PER_SAMPLE * payload.records() as usize,
        // Once decoded, and once in the request that is being built.
        Payload::Logs(block) => 2 * block.resident_bytes(),
    }
}

struct Stream {
    shared: Arc<Shared>,
    info: Arc<AgentInfo>,
    output: Arc<dyn Output>,
    decoder: FrameDecoder,
    budget: Budget,
    frames: FrameReader,
    reply: Reply,
    acks: AckWriter,
    last: u64,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: u64,
}

/// Runs a stream to its end; a breach of the protocol closes the connection.
pub(super) async fn run(
    shared: Arc<Shared>,
    info: Arc<AgentInfo>,
    series: Arc<SeriesBudget>,
    connection: quinn::Connection,
    mut send: quinn::SendStream,
    mut recv: quinn::RecvStream,
) {
    let Err(error) = serve(shared.clone(), info.clone(), series, &mut send, &mut recv).await else { return };
    let code = match &error {
        StreamError::Gone => return,
        StreamError::Framing(_) | StreamError::BadSequence => {
            shared.counters.protocol_errors.inc();
            tracing::warn!(
                tenant = %info.identity.tenant, node = %info.identity.node, %error,
                "session closed: the agent broke the protocol"
            );
            connection.close(close::PROTOCOL.into(), error.to_string().as_bytes());
            return;
        }
        StreamError::UnknownOutput(_) => close::UNKNOWN_OUTPUT,
        StreamError::OutputChanged => close::OUTPUT_CHANGED,
        StreamError::Decode(_) => {
            shared.counters.decode_errors.inc();
            tracing::warn!(
                tenant = %info.identity.tenant, node = %info.identity.node, %error,
                "stream reset: a frame can't be decoded"
            );
            close::DECODE
        }
    };
    let _ = send.reset(code.into());
    let _ = recv.stop(code.into());
}

async fn serve(
    shared: Arc<Shared>,
    info: Arc<AgentInfo>,
    series: Arc<SeriesBudget>,
    send: &mut quinn::SendStream,
    recv: &mut quinn::RecvStream,
) -> Result<(), StreamError> {
    let mut frames = FrameReader::new(shared.context.settings.max_frame_bytes);
    let open: wire::StreamOpen = loop {
        if let Some(open) = frames.next_message("stream opening")? {
            break open;
        }
        read(recv, &mut frames).await?.ok_or(StreamError::Gone)?;
    };
    let output = find_output(&shared, &open)?;
    let (reply, verdicts) = mpsc::unbounded_channel();
    let limits = DecoderLimits {
        max_series: shared.context.settings.max_series,
        max_samples: caps::MAX_BATCH_SAMPLES,
    };
    let decoder = match output.announcement().signal {
        Signal::Logs => FrameDecoder::Logs(shared.blocks.clone()),
        Signal::Metrics | Signal::Traces => FrameDecoder::Metrics(Box::new(StreamDecoder::new(
            shared.context.symbols.clone(),
            &info.identity,
            series,
            limits,
        ))),
    };
    let stream = Stream {
        budget: shared.budgets.of(&output.announcement().name, &info.identity.tenant),
        decoder,
        output,
        frames,
        reply: Reply(reply),
        acks: AckWriter::new(),
        last: 0,
        in_flight: VecDeque::new(),
        in_flight_bytes: 0,
        shared,
        info,
    };
    stream.run(send, recv, verdicts).await
}

fn find_output(shared: &Shared, open: &wire::StreamOpen) -> Result<Arc<dyn Output>, StreamError> {
    let signal = open.signal().to_domain();
    let outputs = shared.context.outputs.borrow();
    let found = outputs.iter().find(|output| {
        let announced = output.announcement();
        announced.name.as_str() == open.output && Some(announced.signal) == signal
    });
    found.cloned().ok_or_else(|| StreamError::UnknownOutput(wire::cut(&open.output, 64)))
}

async fn read(recv: &mut quinn::RecvStream, frames: &mut FrameReader) -> Result<Option<()>, StreamError> {
    match recv.read_chunk(READ_BYTES, true).await {
        Ok(Some(chunk)) => {
            frames.push(&chunk.bytes);
            Ok(Some(()))
        }
        Ok(None) => Ok(None),
        Err(_) => Err(StreamError::Gone),
    }
}

impl Stream {
    async fn run(
        mut self,
        send: &mut quinn::SendStream,
        recv: &mut quinn::RecvStream,
        mut verdicts: mpsc::UnboundedReceiver<Verdict>,
    ) -> Result<(), StreamError> {
        let mut ended = false;
        let mut outputs = self.shared.context.outputs.clone();
        loop {
            let mut waiting = None;
            if self.in_flight_bytes < self.shared.context.settings.max_in_flight_bytes {
                waiting = self.next_batch()?;
            }
            if let Some(batch) = waiting {
                let room = self.room_for(&batch, send, &mut verdicts).await?;
                self.submit(batch, room);
                continue;
            }
            if ended && self.in_flight.is_empty() {
                let _ = send.finish();
                return Ok(());
            }
            let may_read = !ended && self.in_flight_bytes < self.shared.context.settings.max_in_flight_bytes;
            tokio::select! {
                verdict = verdicts.recv() => self.acknowledge(verdict, &mut verdicts, send).await?,
                more = read(recv, &mut self.frames), if may_read => ended = more?.is_none(),
                Ok(()) = outputs.changed() => self.check_output(&outputs.borrow_and_update())?,
            }
        }
    }

    /// An output that is no longer in force settles nothing more: the agent is to send to the one in its place.
    fn check_output(&self, outputs: &Outputs) -> Result<(), StreamError> {
        if outputs.iter().any(|output| Arc::ptr_eq(output, &self.output)) {
            return Ok(());
        }
        self.output.forget_session(self.info.session);
        Err(StreamError::OutputChanged)
    }

    /// The next batch that has arrived whole, decoded.
    fn next_batch(&mut self) -> Result<Option<Waiting>, StreamError> {
        let Some(frame) = self.frames.next_message::<wire::BatchFrame>("batch")? else { return Ok(None) };
        self.last = match frame.seq_delta {
            0 => return Err(StreamError::BadSequence),
            delta => self.last.checked_add(delta).ok_or(StreamError::BadSequence)?,
        };
        let seq = BatchSeq(self.last);
        let payload = self.decoder.decode(&frame.blocks)?;
        let records = payload.records();
        let counters = &self.shared.counters;
        counters.batches.inc();
        match &payload {
            Payload::Metrics(_) => counters.samples.add(records),
            Payload::Logs(_) => counters.entries.add(records),
        }
        counters.frame_bytes.add(frame.blocks.len() as u64);
        let now_ms = (self.shared.context.wall_clock_ms)();
        self.shared.context.sessions.batch(&self.info, records, now_ms);
        if let Some(tap) = &self.shared.context.tap {
            match &payload {
                Payload::Metrics(blocks) => tap.observe(&self.info, seq, blocks),
                Payload::Logs(block) => tap.observe_logs(&self.info, seq, block),
            }
        }
        let bytes = frame.blocks.len() as u64;
        Ok(Some(Waiting { seq, sent_before: frame.sent_before, bytes, payload }))
    }

    /// Waits for room in the tenant's budget, acknowledging meanwhile.
    async fn room_for(
        &mut self,
        batch: &Waiting,
        send: &mut quinn::SendStream,
        verdicts: &mut mpsc::UnboundedReceiver<Verdict>,
    ) -> Result<OwnedSemaphorePermit, StreamError> {
        let mut room = std::pin::pin!(self.budget.clone().take(memory_bytes(&batch.payload)));
        loop {
            tokio::select! {
                room = &mut room => return Ok(room),
                verdict = verdicts.recv() => self.acknowledge(verdict, verdicts, send).await?,
            }
        }
    }

    fn submit(&mut self, batch: Waiting, room: OwnedSemaphorePermit) {
        self.in_flight.push_back(InFlight { seq: batch.seq, bytes: batch.bytes, outcome: None, _room: room });
        self.in_flight_bytes += batch.bytes;
        self.output.submit(Delivery {
            agent: self.info.clone(),
            seq: batch.seq,
            sent_before: batch.sent_before,
            payload: batch.payload,
            reply: self.reply.clone(),
        });
    }

    /// Tells the agent what became of its batches: all verdicts that are there, in as few frames as possible.
    async fn acknowledge(
        &mut self,
        first: Option<Verdict>,
        verdicts: &mut mpsc::UnboundedReceiver<Verdict>,
        send: &mut quinn::SendStream,
    ) -> Result<(), StreamError> {
        let mut acked = Acked::default();
        let mut next = first;
        while let Some(verdict) = next {
            match verdict {
                Verdict::Settled(seq, outcome) => {
                    if let Some(batch) = self.in_flight.iter_mut().find(|b| b.seq == seq) {
                        batch.outcome = Some(outcome);
                    }
                }
                Verdict::Parked(reason) => acked.parked = Some(Some(reason)),
                Verdict::Resumed => acked.parked = Some(None),
            }
            next = verdicts.try_recv().ok();
        }
        // Cumulative: a batch that is not settled holds back those behind it, whatever order verdicts come in.
        while let Some(done) = self.in_flight.pop_front_if(|b| b.outcome.is_some()) {
            let outcome = done.outcome.unwrap_or_default();
            self.in_flight_bytes -= done.bytes;
            acked.up_to = Some(done.seq);
            acked.held_already += outcome.held_already;
            acked.rejections.extend(outcome.rejections);
        }
        let context = &self.shared.context;
        if !acked.rejections.is_empty() {
            let (now_ms, output) = ((context.wall_clock_ms)(), self.output.announcement().name);
            context.rejects.note(&self.info.identity, output.as_str(), &acked.rejections, now_ms);
        }
        let mut bytes = Vec::new();
        for frame in self.acks.write(acked) {
            self.shared.counters.ack_frames.inc();
            write_frame(&frame, &mut bytes);
        }
        send.write_all(&bytes).await.map_err(|_| StreamError::Gone)
    }
}
