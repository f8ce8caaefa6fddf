//! A remote-write receiver that counts samples and forgets them.

use anyhow::{Context as _, Result, ensure};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// See the module. It lives as long as the process.
#[derive(Clone)]
pub struct NullReceiver {
    counts: Arc<Counts>,
    port: u16,
}

#[derive(Default)]
struct Counts {
    samples: AtomicU64,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl NullReceiver {
    /// Listens on a free port of the loopback.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let counts = Arc::new(Counts::default());
        let receiver = Self { counts: counts.clone(), port };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counts = counts.clone();
                std::thread::spawn(move || {
                    // Connections break when their aggregator is killed.
                    let broke = |e: &anyhow::Error| e.downcast_ref::<std::io::Error>().is_some();
                    if let Some(error) = serve(&stream, &counts).err().filter(|e| !broke(e)) {
                        eprintln!("the null receiver gives up on a connection: {error:#}");
                    }
                });
            }
        });
        Ok(receiver)
    }

    /// Where to write to.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api/v1/write", self.port)
    }

    /// Samples received so far.
    pub fn samples(&self) -> u64 {
        self.counts.samples.load(Relaxed)
    }

    /// Requests received so far.
    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Relaxed)
    }

    /// Compressed bytes received so far.
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Relaxed)
    }
}

/// Answers the requests of one connection.
fn serve(stream: &TcpStream, counts: &Counts) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::with_capacity(64 << 10, stream);
    let (mut line, mut body, mut message) = (String::new(), Vec::new(), Vec::new());
    let mut snappy = snap::raw::Decoder::new();
    loop {
        let (mut length, mut version_2) = (0, false);
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
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
                version_2 = value.contains("io.prometheus.write.v2.Request");
            }
        }
        body.resize(length, 0);
        input.read_exact(&mut body)?;
        let unpacked = snap::raw::decompress_len(&body)?;
        if message.len() < unpacked {
            message.resize(unpacked, 0);
        }
        let unpacked = snappy.decompress(&body, &mut message)?;
        let samples = count(&message[..unpacked], if version_2 { 5 } else { 1 })?;
        counts.samples.fetch_add(samples, Relaxed);
        counts.requests.fetch_add(1, Relaxed);
        counts.bytes.fetch_add(length as u64, Relaxed);
        let written = if version_2 {
            format!(
                "X-Prometheus-Remote-Write-Samples-Written: {samples}\r\n\
                 X-Prometheus-Remote-Write-Histograms-Written: 0\r\n\
                 X-Prometheus-Remote-Write-Exemplars-Written: 0\r\n"
            )
        } else {
            String::new()
        };
        (&*stream).write_all(format!("HTTP/1.1 204 No Content\r\n{written}\r\n").as_bytes())?;
    }
}

/// Samples are field 2 of time series, which are field 1 or 5 of a request.
fn count(message: &[u8], series_field: u64) -> Result<u64> {
    let mut samples = 0;
    fields(message, |field, series| {
        if field != series_field {
            return Ok(());
        }
        fields(series, |field, _| {
            samples += u64::from(field == 2);
            Ok(())
        })
    })?;
    Ok(samples)
}

/// Walks the length-delimited fields of a message; these messages have no others at their two upper levels.
fn fields(mut rest: &[u8], mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        ensure!(tag & 7 == 2, "a field of an unexpected type");
        let length = varint(&mut rest)? as usize;
        let (payload, behind) = rest.split_at_checked(length).context("a field that is cut off")?;
        each(tag >> 3, payload)?;
        rest = behind;
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
