//! What checks of databases, queues and RPC servers share: the way to the server, in the clear or over TLS from the
//! first byte or from a later one, credentials from files, and the time that each phase took.

use crate::source::probe::net::resolve::Families;
use crate::source::probe::net::{self, host, tls};
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::record::Gauge;
use crate::source::probe::run::{Run, Stopwatch};
use crate::source::scrape::fetch::read_secret;
use crate::source::scrape::settings::Secret;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;

static PHASES: Gauge =
    Gauge::new("pegel_probe_phase_seconds", "How long the phases of the run took.", &["phase"]);

/// Who the agent says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Option<Secret>,
}

impl Login {
    /// The password, read now; empty if there is none.
    pub(super) fn password(&self) -> Result<String, Failure> {
        let read = self.password.as_ref().map_or(Ok(String::new()), read_secret);
        read.map_err(|e| Failure::new(Phase::Setup, Reason::Configuration, e.to_string()))
    }
}

/// How a server is reached.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Service {
    /// Which addresses are used.
    pub families: Families,
    /// TLS; none for a connection in the clear.
    pub tls: Option<tls::Settings>,
}

/// A connection, whatever carries it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// See [`Stream`].
pub(super) type BoxedStream = Box<dyn Stream>;

/// Makes connections to servers of a kind.
#[derive(Debug)]
pub(super) struct Dialer {
    families: Families,
    tls: Option<tls::Client>,
    default_port: u16,
}

/// A run on its way to a server.
pub(super) struct Way {
    watch: Stopwatch,
    /// The server's host, as the target has it.
    pub(super) host: String,
}

impl Way {
    /// Notes that a phase is over.
    pub(super) fn lap(&mut self, run: &mut Run, phase: &'static str) {
        self.watch.lap(&mut run.record, phase);
    }
}

impl Dialer {
    /// `alpn` is what a server of the kind wants to be offered in the TLS handshake.
    pub(super) fn new(service: &Service, default_port: u16, alpn: &'static [&'static [u8]]) -> Self {
        let tls = service.tls.clone().map(|settings| tls::Client::new(settings, alpn));
        Self { families: service.families, tls, default_port }
    }

    /// Says why an address is no target.
    pub(super) fn check_address(address: &str, default_port: u16) -> Result<(), String> {
        host::split(address, Some(default_port)).map(|_| ())
    }

    /// Whether connections are to use TLS.
    pub(super) fn is_over_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// A TCP connection to the run's target.
    pub(super) async fn tcp(&self, run: &mut Run) -> Result<(Way, TcpStream), Failure> {
        net::declare_address(run);
        let phases = ["resolve", "connect", "tls", "login", "processing"];
        let watch = Stopwatch::start(&mut run.record, &PHASES, &phases);
        let address = run.target.address.clone();
        let (host, port) = host::split(&address, Some(self.default_port))
            .map_err(|e| Failure::new(Phase::Setup, Reason::Configuration, e))?;
        let mut way = Way { watch, host: host.to_owned() };
        let found = net::resolve(run, host, self.families).await;
        way.lap(run, "resolve");
        let stream = net::connect(run, SocketAddr::new(found?, port), None).await;
        way.lap(run, "connect");
        Ok((way, stream?))
    }

    /// TLS over a connection, where the settings ask for it.
    pub(super) async fn secure(
        &self,
        run: &mut Run,
        way: &mut Way,
        stream: TcpStream,
    ) -> Result<BoxedStream, Failure> {
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let stream = tls.connect(run, stream, &way.host).await;
        way.lap(run, "tls");
        Ok(Box::new(stream?))
    }

    /// The connection, with TLS from the first byte.
    pub(super) async fn open(&self, run: &mut Run) -> Result<(Way, BoxedStream), Failure> {
        let (mut way, stream) = self.tcp(run).await?;
        let stream = self.secure(run, &mut way, stream).await?;
        Ok((way, stream))
    }
}

/// The failure of a call that sends or receives.
pub(super) fn broken(run: &Run, error: &std::io::Error) -> Failure {
    run.io_failure("the connection broke", error)
}

/// The other side said what its protocol does not allow.
pub(super) fn nonsense(run: &Run, words: impl Into<String>) -> Failure {
    Failure::new(run.phase(), Reason::Protocol, words)
}

/// Reads exactly so many bytes; the caller has checked the number.
pub(super) async fn read_bytes(
    run: &Run,
    stream: &mut BoxedStream,
    length: usize,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.map_err(|e| broken(run, &e))?;
    Ok(bytes)
}
