//! A Loki that counts entries and forgets them. It reads each request, unpacks it and answers 204; while it is told to
//! be away it answers 503.

use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a line of the steady load begins with: when it was written, in nanoseconds since the Unix epoch.
pub(super) const STAMP: &[u8] = b"t=";

/// See the module. It lives as long as the process.
#[derive(Clone)]
pub(super) struct Sink {
    state: Arc<State>,
    port: u16,
}

#[derive(Default)]
struct State {
    entries: AtomicU64,
    line_bytes: AtomicU64,
    requests: AtomicU64,
    request_bytes: AtomicU64,
    away: AtomicBool,
    /// Whether delays of lines are noted, and those that were, in microseconds.
    timed: AtomicBool,
    delays_us: Mutex<Vec<u32>>,
}

impl Sink {
    /// Listens on a free port of the loopback.
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let sink = Self { state: Arc::default(), port: listener.local_addr()?.port() };
        let state = sink.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || {
                    // Connections break when their aggregator is killed.
                    let broke = |e: &anyhow::Error| e.downcast_ref::<std::io::Error>().is_some();
                    if let Some(error) = serve(&stream, &state).err().filter(|e| !broke(e)) {
                        eprintln!("the sink gives up on a connection: {error:#}");
                    }
                });
            }
        });
        Ok(sink)
    }

    /// Its base URL.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Entries taken so far.
    pub(super) fn entries(&self) -> u64 {
        self.state.entries.load(Relaxed)
    }

    /// Bytes of lines taken so far.
    pub(super) fn line_bytes(&self) -> u64 {
        self.state.line_bytes.load(Relaxed)
    }

    /// Requests taken so far, and their bytes as they came.
    pub(super) fn requests(&self) -> (u64, u64) {
        (self.state.requests.load(Relaxed), self.state.request_bytes.load(Relaxed))
    }

    /// Answers 503 from now on, or takes again.
    pub(super) fn be_away(&self, away: bool) {
        self.state.away.store(away, Relaxed);
    }

    /// Begins to note how old lines are when they arrive.
    pub(super) fn time(&self) {
        self.state.timed.store(true, Relaxed);
    }

    /// The delays noted so far, in milliseconds, least first.
    pub(super) fn delays_ms(&self) -> Vec<f64> {
        let mut delays = std::mem::take(&mut *lock(&self.state.delays_us));
        delays.sort_unstable();
        delays.into_iter().map(|us| f64::from(us) / 1e3).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A connection's thread that panicked has said so.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nanoseconds since the Unix epoch.
pub(super) fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

/// Answers the requests of one connection.
fn serve(stream: &TcpStream, state: &State) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::with_capacity(256 << 10, stream);
    let (mut line, mut body, mut message) = (String::new(), Vec::new(), Vec::new());
    let mut snappy = snap::raw::Decoder::new();
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let pushed = line.contains("/loki/api/v1/push");
        let (mut length, mut snappy_packed) = (0, true);
        loop {
            line.clear();
            input.read_line(&mut line)?;
            let header = line.trim_end();
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').context("a header without a colon")?;
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            } else if name.eq_ignore_ascii_case("content-type") {
                snappy_packed = value.contains("protobuf");
            }
        }
        body.resize(length, 0);
        input.read_exact(&mut body)?;
        if state.away.load(Relaxed) {
            (&*stream).write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\naway")?;
            continue;
        }
        if pushed && snappy_packed {
            let unpacked = snap::raw::decompress_len(&body)?;
            if message.len() < unpacked {
                message.resize(unpacked, 0);
            }
            let unpacked = snappy.decompress(&body, &mut message)?;
            count(&message[..unpacked], state)?;
        }
        state.requests.fetch_add(1, Relaxed);
        state.request_bytes.fetch_add(length as u64, Relaxed);
        (&*stream).write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
}

/// `PushRequest.streams` is field 1, `Stream.entries` field 2, `Entry.line` field 2.
fn count(message: &[u8], state: &State) -> Result<()> {
    let timed = state.timed.load(Relaxed);
    let now_ns = if timed { now_ns() } else { 0 };
    let (mut entries, mut bytes, mut delays) = (0, 0, Vec::new());
    fields(message, |field, stream| {
        if field != 1 {
            return Ok(());
        }
        fields(stream, |field, entry| {
            if field != 2 {
                return Ok(());
            }
            entries += 1;
            fields(entry, |field, line| {
                if field == 2 {
                    bytes += line.len() as u64;
                    if timed && let Some(at_ns) = stamp(line) {
                        delays.push(u32::try_from(now_ns.saturating_sub(at_ns) / 1_000).unwrap_or(u32::MAX));
                    }
                }
                Ok(())
            })
        })
    })?;
    state.entries.fetch_add(entries, Relaxed);
    state.line_bytes.fetch_add(bytes, Relaxed);
    if !delays.is_empty() {
        lock(&state.delays_us).append(&mut delays);
    }
    Ok(())
}

fn stamp(line: &[u8]) -> Option<u64> {
    let digits = line.strip_prefix(STAMP)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// Walks the length-delimited fields of a message and skips its numbers.
fn fields(mut rest: &[u8], mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        match tag & 7 {
            0 => {
                varint(&mut rest)?;
            }
            2 => {
                let length = varint(&mut rest)? as usize;
                let (payload, behind) = rest.split_at_checked(length).context("a field that is cut off")?;
                each(tag >> 3, payload)?;
                rest = behind;
            }
            other => anyhow::bail!("a field of an unexpected type, {other}"),
        }
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first().context("a number that is cut off")?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    anyhow::bail!("a number that does not end")
}
