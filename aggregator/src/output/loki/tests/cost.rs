//! What a batch of log entries costs between its stream and its request: a measurement, not run by itself.
//!
//! `cargo test --release -p pegel-aggregator --lib loki::tests::cost -- --ignored --nocapture` prints CPU milliseconds a
//! MiB of columns for each stage, page faults, and the same for what can't be avoided: to decompress into a buffer that
//! is there, and to compress for Loki.

use super::super::answer::{Exchange, Meaning, Response};
use super::super::encode::RequestEncoder;
use super::super::shard::{Shard, ShardSettings, Step};
use super::super::tally::Tally;
use super::{SECOND, START_NS, agent_info};
use crate::fanout::{Delivery, Payload, Reply, Tap as _, Verdict};
use crate::output::loki::{DEFAULT_MAX_REQUEST_BYTES, DEFAULT_STREAM_BURST, DEFAULT_STREAM_RATE};
use crate::output::recent_logs::{self, RecentLogs};
use crate::session::AgentInfo;
use pegel_proto::batch::BatchSeq;
use pegel_proto::logs::{BlockBuilder, DecodedBlock};
use pegel_runtime::metrics::Registry;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The text of one block, as the agent cuts them.
const BLOCK_TEXT_BYTES: usize = 768 << 10;
const BLOCKS: usize = 96;
/// What the tenant's budget of 32 MiB lets be decoded at a time.
const AHEAD: usize = 16;

/// Blocks of access logs as they come over the wire.
fn frames() -> Vec<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(7);
    let mut builder = BlockBuilder::new();
    let mut at_ns = START_NS;
    let blocks = (0..BLOCKS).map(|_| {
        let stream = builder.stream([("file", "/var/log/access.log"), ("job", "web")].into_iter());
        let stream = stream.expect("a first stream");
        while builder.text_bytes() < BLOCK_TEXT_BYTES {
            at_ns += random.random_range(0..SECOND / 50);
            let line = format!(
                "10.0.{}.{} - - [14/Nov/2023:22:13:20 +0000] \"GET /api/v2/items?id={} HTTP/1.1\" 200 {} \"https://shop.example/cart\" \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\" rt=0.{:03} id={:016x}",
                random.random_range(0..4),
                random.random_range(0..250),
                random.random_range(0..50_000),
                random.random_range(200..40_000),
                random.random_range(1..999),
                random.random::<u64>(),
            );
            builder.push(stream, at_ns, &line, &[]);
        }
        builder.finish().expect("entries were pushed").bytes.to_vec()
    });
    blocks.collect()
}

/// Where a block's zstd frame begins: behind its version and three numbers.
fn body(frame: &[u8]) -> &[u8] {
    let ends = frame.iter().enumerate().skip(1).filter(|(_, byte)| **byte < 0x80);
    &frame[ends.map(|(at, _)| at + 1).nth(2).unwrap()..]
}

/// This thread's CPU time, and the page faults that needed no disk.
fn used() -> (Duration, u64) {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let faults = after_name.split(' ').nth(7).unwrap().parse().unwrap();
    (Duration::new(time.tv_sec as u64, time.tv_nsec as u32), faults)
}

#[derive(Default)]
struct Stage {
    time: Duration,
    faults: u64,
}

impl Stage {
    fn measure<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (before, faults_before) = used();
        let out = work();
        let (after, faults) = used();
        self.time += after - before;
        self.faults += faults - faults_before;
        out
    }

    fn ms_per_mib(&self, bytes: usize) -> f64 {
        self.time.as_secs_f64() * 1e3 / (bytes as f64 / f64::from(1 << 20))
    }

    fn print(&self, what: &str, bytes: usize) {
        let faults = self.faults as f64 / (bytes as f64 / f64::from(1 << 20));
        println!("{what:32} {:7.3} ms/MiB {faults:7.1} faults/MiB", self.ms_per_mib(bytes));
    }
}

struct Path {
    decode: Stage,
    tap: Stage,
    build: Stage,
    encode: Stage,
    settle: Stage,
    shard: Shard,
    encoder: RequestEncoder,
    tap_to: Arc<RecentLogs>,
    agent: Arc<AgentInfo>,
    sender: mpsc::UnboundedSender<Verdict>,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
    settled: usize,
}

impl Path {
    fn new() -> Self {
        let (sender, verdicts) = mpsc::unbounded_channel();
        let settings = ShardSettings {
            max_request_bytes: DEFAULT_MAX_REQUEST_BYTES,
            stream_limits: super::StreamLimits {
                rate: 100 * DEFAULT_STREAM_RATE,
                burst: 100 * DEFAULT_STREAM_BURST,
            },
            ..super::settings()
        };
        let registry = Registry::new();
        Self {
            decode: Stage::default(),
            tap: Stage::default(),
            build: Stage::default(),
            encode: Stage::default(),
            settle: Stage::default(),
            shard: Shard::new(settings, Tally::new(&registry, "o", "t"), 1),
            encoder: RequestEncoder::new(),
            tap_to: RecentLogs::new(recent_logs::Settings::default(), &registry),
            agent: agent_info("n1", 1),
            sender,
            verdicts,
            settled: 0,
        }
    }

    fn run(&mut self, frames: &[Vec<u8>]) {
        let now = Instant::now();
        for (seq, frame) in frames.iter().enumerate() {
            let seq = BatchSeq(seq as u64 + 1);
            let block = self.decode.measure(|| Arc::new(DecodedBlock::read(frame).unwrap()));
            self.tap.measure(|| self.tap_to.observe_logs(&self.agent, seq, &block));
            let payload = Payload::Logs(block);
            let reply = Reply(self.sender.clone());
            let delivery = Delivery { agent: self.agent.clone(), seq, sent_before: false, payload, reply };
            self.build.measure(|| self.shard.submit(delivery, now, START_NS));
            while seq.0 as usize - self.settled >= AHEAD {
                self.step(now);
            }
        }
        while self.settled < frames.len() {
            self.step(now);
        }
    }

    fn step(&mut self, now: Instant) {
        let Step::Send(piece) = self.build.measure(|| self.shard.poll(now + Duration::from_secs(1))) else {
            panic!("a request is due");
        };
        let encoded = self.encode.measure(|| self.encoder.encode(&piece));
        drop(piece);
        let stored = Response { status: 204, ..Response::default() };
        self.settle.measure(|| {
            drop(encoded);
            self.shard.answered(Meaning::of(Exchange::Answered(stored)), now);
            while self.verdicts.try_recv().is_ok() {
                self.settled += 1;
            }
        });
    }
}

#[test]
#[ignore = "a measurement"]
fn of_a_mebibyte() {
    let frames = frames();
    let mut zstd = zstd::bulk::Decompressor::new().unwrap();
    let raw: Vec<Vec<u8>> =
        frames.iter().map(|frame| zstd.decompress(body(frame), 2 * BLOCK_TEXT_BYTES).unwrap()).collect();
    let bytes: usize = raw.iter().map(Vec::len).sum();
    let (mut copy, mut inflate, mut deflate) = (Stage::default(), Stage::default(), Stage::default());
    let mut snappy = snap::raw::Encoder::new();
    let mut out = vec![0; snap::raw::max_compress_len(2 * BLOCK_TEXT_BYTES)];
    let mut path = Path::new();
    // Once to warm up.
    for round in 0..2 {
        if round == 1 {
            (copy, inflate, deflate) = Default::default();
        }
        for (frame, raw) in frames.iter().zip(&raw) {
            copy.measure(|| out[..raw.len()].copy_from_slice(raw));
            deflate.measure(|| snappy.compress(raw, &mut out).unwrap());
            inflate.measure(|| zstd.decompress_to_buffer(body(frame), &mut out[..]).unwrap());
        }
        path = Path::new();
        path.run(&frames);
    }
    copy.print("copying", bytes);
    inflate.print("zstd into a buffer", bytes);
    deflate.print("snappy", bytes);
    let stages = [
        ("decode", &path.decode),
        ("tap", &path.tap),
        ("build", &path.build),
        ("encode", &path.encode),
        ("settle", &path.settle),
    ];
    let mut all = 0.0;
    for (what, stage) in stages {
        stage.print(what, bytes);
        all += stage.ms_per_mib(bytes);
    }
    let least = inflate.ms_per_mib(bytes) + deflate.ms_per_mib(bytes);
    println!("in all {all:.3} ms/MiB, {:.2} times zstd and snappy alone", all / least);
    assert!(all < 2.0 * least, "the path costs as much again as zstd and snappy");
}
