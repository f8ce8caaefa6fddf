//! `bench wire`: bytes and CPU time a sample of a recording, through the metrics codec and as remote write.

mod recording;
mod remote_write;
mod udp;

use anyhow::{Context, Result, ensure};
use pegel_proto::caps;
use pegel_proto::codec::{Decoder, DecoderLimits, Encoder, FamilyView, Visitor};
use pegel_proto::metrics::{Block, Labels};
use serde_json::json;
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

/// Scrapes between two reconnects: five minutes at the recordings' five seconds.
const RECONNECT_EVERY: usize = 60;
/// Every third scrape of five seconds: the usual fifteen.
const THIN: usize = 3;
/// Prometheus' `max_samples_per_send`, which waits for so many up to five seconds.
const PROMETHEUS_BATCH: usize = 2000;
/// CPU times are the best of so many runs: what the machine does beside is not the codec's.
const RUNS: usize = 5;
/// Sessions whose decoders are held at once to see what one takes.
const SESSIONS: usize = 200;

const LIMITS: DecoderLimits =
    DecoderLimits { max_series: caps::MAX_STREAM_SERIES, max_samples: caps::MAX_BATCH_SAMPLES };

/// Runs all lines of the benchmark on one recording.
pub fn run(path: &Path) -> Result<()> {
    let blocks = recording::read(path)?;
    let thin: Vec<Block> = blocks.iter().step_by(THIN).cloned().collect();
    codec_line("codec", &blocks, usize::MAX)?;
    codec_line("codec, every third line", &thin, usize::MAX)?;
    codec_line("codec, a new stream every 60 lines", &blocks, RECONNECT_EVERY)?;
    remote_write_line("remote write 1.0, snappy", &blocks, 1, remote_write::version_1)?;
    let many = (PROMETHEUS_BATCH / blocks[0].values.len()).max(1);
    for (format, scrapes, with_metadata) in [
        ("remote write 2.0, snappy", 1, true),
        ("remote write 2.0, snappy, no metadata", 1, false),
        ("remote write 2.0, snappy, up to 2000 samples a request", many, true),
        ("remote write 2.0, snappy, up to 2000 samples a request, no metadata", many, false),
    ] {
        remote_write_line(format, &blocks, scrapes, |b| remote_write::version_2(b, with_metadata))?;
    }
    memory_line(&blocks)?;
    udp::line("UDP both ways", &blocks, 1, usize::MAX)?;
    udp::line("UDP both ways, every third line", &thin, THIN, usize::MAX)?;
    udp::line("UDP both ways, a new connection every 60 lines", &blocks, 1, RECONNECT_EVERY)
}

/// Encodes each block as one frame, with fresh state every so many.
fn encode(blocks: &[Block], reconnect_every: usize) -> (Vec<Vec<u8>>, Duration) {
    let mut encoder = Encoder::new();
    let mut frames = Vec::with_capacity(blocks.len());
    let mut buffer = Vec::new();
    let mut spent = Duration::ZERO;
    for (number, block) in blocks.iter().enumerate() {
        let begin = cpu_time();
        if number > 0 && number % reconnect_every == 0 {
            encoder = Encoder::new();
        }
        buffer.clear();
        encoder.encode(std::slice::from_ref(block), &mut buffer);
        spent += cpu_time().saturating_sub(begin);
        frames.push(buffer.clone());
    }
    (frames, spent)
}

/// Decodes all frames and checks that what arrives is what was sent.
fn check(blocks: &[Block], frames: &[Vec<u8>], reconnect_every: usize) -> Result<()> {
    let mut decoder = Decoder::new(LIMITS);
    for (number, (block, frame)) in blocks.iter().zip(frames).enumerate() {
        if number > 0 && number % reconnect_every == 0 {
            decoder = Decoder::new(LIMITS);
        }
        let arrived = decoder.decode_blocks(frame).with_context(|| format!("scrape {number}"))?;
        ensure!(arrived == std::slice::from_ref(block), "scrape {number} did not arrive as it was sent");
    }
    Ok(())
}

/// Takes the values as a receiver would, and forgets them.
#[derive(Default)]
struct Sink {
    samples: u64,
}

impl Visitor for Sink {
    fn target(&mut self, _: u32, _: &Labels) {}
    fn series(&mut self, _: u32, _: u32, _: &Labels, _: FamilyView<'_>) {}
    fn set(&mut self, _: u32, _: u32, _: &[u32]) {}
    fn block(&mut self, _: i64, _: u32, _: &[u32], values: &[f64], _: Option<&[i64]>) {
        self.samples += std::hint::black_box(values).len() as u64;
    }
    fn forget_series(&mut self, _: u32) {}
    fn forget_set(&mut self, _: u32) {}
    fn forget_target(&mut self, _: u32) {}
}

fn decode(frames: &[Vec<u8>], reconnect_every: usize) -> Result<Duration> {
    let begin = cpu_time();
    let mut decoder = Decoder::new(LIMITS);
    let mut sink = Sink::default();
    for (number, frame) in frames.iter().enumerate() {
        if number > 0 && number % reconnect_every == 0 {
            decoder = Decoder::new(LIMITS);
        }
        decoder.decode(frame, &mut sink)?;
    }
    Ok(cpu_time().saturating_sub(begin))
}

fn samples(blocks: &[Block]) -> usize {
    blocks.iter().map(|b| b.values.len()).sum()
}

fn series(blocks: &[Block]) -> usize {
    let all: HashSet<_> = blocks.iter().flat_map(|b| b.set.series()).map(|s| s.fingerprint()).collect();
    all.len()
}

fn codec_line(format: &str, blocks: &[Block], reconnect_every: usize) -> Result<()> {
    let (frames, _) = encode(blocks, reconnect_every);
    check(blocks, &frames, reconnect_every)?;
    let mut encoding = Duration::MAX;
    let mut decoding = Duration::MAX;
    for _ in 0..RUNS {
        encoding = encoding.min(encode(blocks, reconnect_every).1);
        decoding = decoding.min(decode(&frames, reconnect_every)?);
    }
    let samples = samples(blocks);
    let bytes: usize = frames.iter().map(Vec::len).sum();
    let each = |time: Duration| time.as_nanos() as f64 / samples as f64;
    let line = json!({
        "bench": "wire", "format": format, "samples": samples, "series": series(blocks), "bytes": bytes,
        "bytes_per_sample": bytes as f64 / samples as f64, "first_frame_bytes": frames[0].len(),
        "encode_ns_per_sample": each(encoding), "decode_ns_per_sample": each(decoding),
    });
    println!("{line}");
    Ok(())
}

/// One line of remote write with so many scrapes a request.
fn remote_write_line(
    format: &str,
    blocks: &[Block],
    scrapes: usize,
    bytes_of: impl Fn(&[Block]) -> Result<usize>,
) -> Result<()> {
    let mut bytes = 0;
    for request in blocks.chunks(scrapes) {
        bytes += bytes_of(request)?;
    }
    let samples = samples(blocks);
    let line = json!({
        "bench": "wire", "format": format, "samples": samples, "series": series(blocks), "bytes": bytes,
        "bytes_per_sample": bytes as f64 / samples as f64,
    });
    println!("{line}");
    Ok(())
}

/// What the decoder of one session holds after the whole recording: as it counts itself, and as the process grows
/// for each of many such decoders (allocator overhead included).
fn memory_line(blocks: &[Block]) -> Result<()> {
    let (frames, _) = encode(blocks, usize::MAX);
    let decoded = || -> Result<Decoder> {
        let mut decoder = Decoder::new(LIMITS);
        for frame in &frames {
            decoder.decode(frame, &mut Sink::default())?;
        }
        Ok(decoder)
    };
    let first = decoded()?;
    let before = resident_bytes()?;
    let sessions = (0..SESSIONS).map(|_| decoded()).collect::<Result<Vec<_>>>()?;
    let grown = resident_bytes()?.saturating_sub(before);
    let line = json!({
        "bench": "wire", "format": "codec, decoder memory", "series": series(blocks),
        "decoder_bytes": first.resident_bytes(), "process_bytes_per_decoder": grown / sessions.len(),
    });
    println!("{line}");
    Ok(())
}

/// The CPU time that this thread has used.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The process' resident memory, /proc/self/statm's second field (proc(5)).
fn resident_bytes() -> Result<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").context("cannot read /proc/self/statm")?;
    let pages: usize = statm.split(' ').nth(1).context("/proc/self/statm has no second field")?.parse()?;
    Ok(pages * rustix::param::page_size())
}
