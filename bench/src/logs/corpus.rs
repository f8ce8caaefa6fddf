//! Logs as machines write them, from a seed: access logs, JSON, syslog and stack traces.

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const PATHS: [&str; 12] = [
    "/",
    "/cart",
    "/checkout",
    "/api/v2/items",
    "/api/v2/orders",
    "/static/app.js",
    "/static/style.css",
    "/images/hero.webp",
    "/login",
    "/logout",
    "/search",
    "/healthz",
];
const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "kube-probe/1.29",
    "curl/8.7.1",
];
const SERVICES: [&str; 8] =
    ["cart", "checkout", "catalogue", "payments", "shipping", "accounts", "search", "mailer"];
const MESSAGES: [&str; 8] = [
    "request handled",
    "cache miss, asking the database",
    "slow query",
    "payment authorised",
    "retrying after a temporary failure",
    "connection pool is exhausted",
    "user signed in",
    "job finished",
];
const UNITS: [&str; 6] = ["sshd", "systemd", "kernel", "cron", "dhclient", "postfix/smtpd"];
const EXCEPTIONS: [&str; 5] = [
    "java.lang.NullPointerException: Cannot invoke \"shop.Cart.items()\" because \"cart\" is null",
    "java.sql.SQLTransientConnectionException: HikariPool-1 - Connection is not available, request timed out after 30000ms",
    "java.net.SocketTimeoutException: Read timed out",
    "java.lang.IllegalStateException: the order was shipped already",
    "org.springframework.web.client.HttpServerErrorException: 503 Service Unavailable",
];
const CLASSES: [&str; 8] = [
    "shop.checkout.OrderService",
    "shop.cart.CartController",
    "shop.payments.Gateway",
    "shop.web.Filter",
    "org.springframework.web.servlet.FrameworkServlet",
    "org.apache.catalina.core.StandardWrapperValve",
    "com.zaxxer.hikari.pool.HikariPool",
    "java.util.concurrent.ThreadPoolExecutor",
];
const METHODS: [&str; 6] = ["handle", "invoke", "doFilter", "run", "submit", "getConnection"];

/// What kind of lines a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Access logs of a web server.
    Access,
    /// One JSON object a line.
    Json,
    /// A system's log.
    Syslog,
    /// Errors with their stack traces, each frame a line.
    Traces,
}

impl Kind {
    /// All of them, each with its share of the bytes, in percent.
    pub(super) const SHARES: [(Self, u64); 4] =
        [(Self::Access, 40), (Self::Json, 30), (Self::Syslog, 20), (Self::Traces, 10)];

    /// The file's name.
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Access => "access.log",
            Self::Json => "app.json",
            Self::Syslog => "messages",
            Self::Traces => "service.log",
        }
    }
}

/// Writes lines of one kind.
pub(super) struct Generator {
    kind: Kind,
    rng: SmallRng,
    /// Milliseconds of the day that the log tells of.
    clock_ms: u64,
    /// Frames of a trace that are still to come.
    frames: u32,
}

impl Generator {
    pub(super) fn new(kind: Kind, seed: u64) -> Self {
        Self {
            kind,
            rng: SmallRng::seed_from_u64(seed ^ kind as u64),
            clock_ms: 1_700_000_000_000,
            frames: 0,
        }
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        // The first ones are the usual ones.
        let at = self.rng.random_range(0..of.len()).min(self.rng.random_range(0..of.len()));
        of[at]
    }

    /// Appends a line without its end.
    pub(super) fn line(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.clock_ms += self.rng.random_range(0..20);
        let (h, m, s) =
            (self.clock_ms / 3_600_000 % 24, self.clock_ms / 60_000 % 60, self.clock_ms / 1_000 % 60);
        let ms = self.clock_ms % 1_000;
        match self.kind {
            Kind::Access => {
                let (path, agent) = (self.one(&PATHS), self.one(&AGENTS));
                let ip = self.rng.random_range(0..4_000_u32);
                let status = [200, 200, 200, 200, 304, 404, 500][self.rng.random_range(0..7)];
                write!(
                    out,
                    "10.{}.{}.{} - - [14/Nov/2023:{h:02}:{m:02}:{s:02} +0000] \"GET {path}?id={} HTTP/1.1\" {status} {} \"https://shop.example{path}\" \"{agent}\" rt=0.{:03} id={:016x}",
                    ip / 256 % 4,
                    ip % 256,
                    ip % 200,
                    self.rng.random_range(0..50_000),
                    self.rng.random_range(200..40_000),
                    self.rng.random_range(1..999),
                    self.rng.random::<u64>(),
                )?;
            }
            Kind::Json => {
                let (service, message) = (self.one(&SERVICES), self.one(&MESSAGES));
                let level = ["info", "info", "info", "debug", "warn", "error"][self.rng.random_range(0..6)];
                write!(
                    out,
                    "{{\"time\":\"2023-11-14T{h:02}:{m:02}:{s:02}.{ms:03}Z\",\"level\":\"{level}\",\"service\":\"{service}\",\"msg\":\"{message}\",\"duration_ms\":{},\"user\":{},\"trace_id\":\"{:032x}\",\"span_id\":\"{:016x}\",\"region\":\"eu-central-1\"}}",
                    self.rng.random_range(1..900),
                    self.rng.random_range(0..20_000),
                    self.rng.random::<u128>(),
                    self.rng.random::<u64>(),
                )?;
            }
            Kind::Syslog => {
                let unit = self.one(&UNITS);
                let pid = 300 + self.rng.random_range(0..700);
                write!(out, "Nov 14 {h:02}:{m:02}:{s:02} web-1 {unit}[{pid}]: ")?;
                match self.rng.random_range(0..4) {
                    0 => write!(
                        out,
                        "Accepted publickey for deploy from 10.0.{}.{} port {} ssh2",
                        self.rng.random_range(0..8),
                        self.rng.random_range(1..255),
                        self.rng.random_range(32_768..61_000)
                    )?,
                    1 => write!(out, "Started Session {} of user deploy.", self.rng.random_range(0..9_000))?,
                    2 => write!(
                        out,
                        "(root) CMD (/usr/lib/sysstat/debian-sa1 1 1; run={})",
                        self.rng.random_range(0..100_000)
                    )?,
                    _ => write!(
                        out,
                        "eth0: link becomes ready, {} packets in queue",
                        self.rng.random_range(0..512)
                    )?,
                }
            }
            Kind::Traces => {
                if self.frames == 0 {
                    let (service, exception) = (self.one(&SERVICES), self.one(&EXCEPTIONS));
                    self.frames = self.rng.random_range(4..24);
                    write!(
                        out,
                        "2023-11-14 {h:02}:{m:02}:{s:02}.{ms:03} ERROR [{service}-{}] {exception}",
                        self.rng.random_range(1..33)
                    )?;
                } else {
                    let (class, method) = (self.one(&CLASSES), self.one(&METHODS));
                    let file = class.rsplit('.').next().unwrap_or(class);
                    self.frames -= 1;
                    write!(out, "\tat {class}.{method}({file}.java:{})", self.rng.random_range(20..900))?;
                }
            }
        }
        Ok(())
    }
}

/// Files of a corpus.
#[derive(Debug)]
pub(super) struct Corpus {
    pub(super) files: Vec<PathBuf>,
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

/// Writes a corpus of about so many bytes into a directory.
pub(super) fn write(dir: &Path, bytes: u64, seed: u64) -> Result<Corpus> {
    let mut corpus = Corpus { files: Vec::new(), lines: 0, bytes: 0 };
    let mut line = Vec::new();
    for (kind, share) in Kind::SHARES {
        let path = dir.join(kind.file());
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        let mut generator = Generator::new(kind, seed);
        let mut left = bytes * share / 100;
        while left > 0 {
            line.clear();
            generator.line(&mut line)?;
            line.push(b'\n');
            file.write_all(&line)?;
            corpus.lines += 1;
            corpus.bytes += line.len() as u64;
            left = left.saturating_sub(line.len() as u64);
        }
        // On the disk before anybody is measured.
        file.into_inner().map_err(|error| anyhow::anyhow!("{error}"))?.sync_all()?;
        corpus.files.push(path);
    }
    Ok(corpus)
}
