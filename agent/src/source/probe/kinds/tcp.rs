//! Checks over TCP: that something listens, and what it says to what is sent, with TLS from the begin or from a
//! point of the conversation on (STARTTLS).

use super::assertion::{FAILED_REGEX, Pattern};
use crate::source::probe::net::resolve::Families;
use crate::source::probe::net::{self, host, tls};
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::record::Gauge;
use crate::source::probe::run::{Probe, Run, Running};
use std::net::{IpAddr, SocketAddr};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};

static FAILED_BYTES: Gauge =
    Gauge::new("probe_failed_due_to_bytes", "Whether bytes that were expected made the run fail.", &[]);

const INFO: &str = "probe_expect_info";
const INFO_HELP: &str = "What the check's expressions found in what the server said, always 1.";

/// The longest line that is looked at, in bytes.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// A step of the conversation: what must come, then what is sent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Step {
    /// Lines are read until this matches one.
    pub expect: Option<Pattern>,
    /// Exactly these bytes must come.
    pub expect_bytes: Option<Vec<u8>>,
    /// Labels of `probe_expect_info`; values may hold groups of `expect`, `${1}`.
    pub labels: Vec<(String, String)>,
    /// What is sent, with a line feed after it; may hold groups of `expect`.
    pub send: Option<String>,
    /// Whether TLS begins after that.
    pub starttls: bool,
}

/// What is connected to and what must come.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// Which addresses are used.
    pub families: Families,
    /// The address of this machine that is connected from.
    pub source_address: Option<IpAddr>,
    /// The conversation.
    pub steps: Vec<Step>,
    /// Whether TLS begins with the connection.
    pub tls: bool,
    /// How TLS is done.
    pub tls_settings: tls::Settings,
}

/// Says why an address is no target.
pub fn check_address(address: &str) -> Result<(), String> {
    host::split(address, None).map(|_| ())
}

/// The probe.
#[derive(Debug)]
pub struct TcpProbe {
    settings: Settings,
    tls: tls::Client,
}

/// A stream in the clear or within TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl TcpProbe {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        Self { tls: tls::Client::new(settings.tls_settings.clone(), &[]), settings }
    }

    async fn probe(&self, run: &mut Run) -> Result<(), Failure> {
        net::declare_address(run);
        run.record.set(&FAILED_REGEX, 0.0);
        run.record.set(&FAILED_BYTES, 0.0);
        let address = run.target.address.clone();
        let (host, port) =
            host::split(&address, None).map_err(|e| Failure::new(Phase::Setup, Reason::Configuration, e))?;
        let ip = net::resolve(run, host, self.settings.families).await?;
        let stream = net::connect(run, SocketAddr::new(ip, port), self.settings.source_address).await?;
        let mut stream: BufReader<Box<dyn Stream>> = if self.settings.tls {
            BufReader::new(Box::new(self.tls.connect(run, stream, host).await?))
        } else {
            BufReader::new(Box::new(stream))
        };
        for step in &self.settings.steps {
            let send = converse(run, &mut stream, step).await?;
            if let Some(send) = send {
                run.enter(Phase::Processing);
                let line = format!("{send}\n");
                let sent = async {
                    stream.write_all(line.as_bytes()).await?;
                    stream.flush().await
                };
                sent.await.map_err(|e| run.io_failure("cannot send", &e))?;
            }
            if step.starttls {
                // What came before the handshake and was not read is not within it: it is thrown away.
                let inner = stream.into_inner();
                stream = BufReader::new(Box::new(self.tls.connect(run, inner, host).await?));
            }
        }
        Ok(())
    }
}

/// Waits for what a step expects; gives what it sends.
async fn converse(
    run: &mut Run,
    stream: &mut BufReader<Box<dyn Stream>>,
    step: &Step,
) -> Result<Option<String>, Failure> {
    let mut send = step.send.clone();
    run.enter(Phase::Processing);
    if let Some(pattern) = &step.expect {
        loop {
            let Some(line) = line(run, stream).await? else {
                run.record.set(&FAILED_REGEX, 1.0);
                let words = format!(
                    "the server ended the connection and said nothing that matches `{}`",
                    pattern.text()
                );
                return Err(Failure::assertion(Reason::Expectation, words));
            };
            let Some(found) = pattern.captures(&line) else { continue };
            let expand = |template: &str| {
                let mut out = String::new();
                found.expand(template, &mut out);
                out
            };
            run.record.set(&FAILED_REGEX, 0.0);
            send = send.map(|template| expand(&template));
            if !step.labels.is_empty() {
                let labels = step.labels.iter().map(|(name, value)| (name.as_str().into(), expand(value)));
                run.record.set_named(INFO, INFO_HELP, labels.collect(), 1.0);
            }
            break;
        }
    }
    if let Some(expected) = &step.expect_bytes {
        let mut found = vec![0; expected.len()];
        stream
            .read_exact(&mut found)
            .await
            .map_err(|e| run.io_failure("cannot read what is expected", &e))?;
        if found != *expected {
            run.record.set(&FAILED_BYTES, 1.0);
            let words =
                format!("`{}` came where `{}` is expected", found.escape_ascii(), expected.escape_ascii());
            return Err(Failure::assertion(Reason::Expectation, words));
        }
    }
    Ok(send)
}

/// A line without its end; none at the end of the connection.
async fn line(run: &Run, stream: &mut BufReader<Box<dyn Stream>>) -> Result<Option<String>, Failure> {
    let mut bytes = Vec::new();
    let read = stream.take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes).await;
    let length = read.map_err(|e| run.io_failure("cannot read a line", &e))?;
    if length == 0 {
        return Ok(None);
    }
    if length as u64 == MAX_LINE_BYTES && bytes.last() != Some(&b'\n') {
        let words = format!("a line is longer than {MAX_LINE_BYTES} bytes");
        return Err(Failure::new(Phase::Processing, Reason::TooLarge, words));
    }
    let text = String::from_utf8_lossy(&bytes);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Some(text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

impl Probe for TcpProbe {
    fn attempt<'a>(&'a self, run: &'a mut Run) -> Running<'a> {
        Box::pin(self.probe(run))
    }
}
