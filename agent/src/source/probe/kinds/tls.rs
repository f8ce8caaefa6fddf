//! Checks of a certificate: that a server shows one that is accepted, and for how long it will be.

use crate::source::probe::net::resolve::Families;
use crate::source::probe::net::{self, certificate, host, tls};
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::record::Gauge;
use crate::source::probe::run::{Probe, Run, Running, Stopwatch};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

static DURATION: Gauge =
    Gauge::new("pegel_probe_tls_duration_seconds", "How long the phases of the check took.", &["phase"]);

/// The port of a target that names none.
const DEFAULT_PORT: u16 = 443;

/// What is connected to and what must be shown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// Which addresses are used.
    pub families: Families,
    /// A certificate that expires within this time is a failure; zero is when it has expired.
    pub fail_if_expires_within: Duration,
    /// How TLS is done.
    pub tls: tls::Settings,
}

/// Says why an address is no target.
pub fn check_address(address: &str) -> Result<(), String> {
    host::split(address, Some(DEFAULT_PORT)).map(|_| ())
}

/// The probe.
#[derive(Debug)]
pub struct TlsProbe {
    settings: Settings,
    tls: tls::Client,
}

impl TlsProbe {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        Self { tls: tls::Client::new(settings.tls.clone(), &[]), settings }
    }

    async fn probe(&self, run: &mut Run) -> Result<(), Failure> {
        net::declare_address(run);
        let mut watch = Stopwatch::start(&mut run.record, &DURATION, &["resolve", "connect", "tls"]);
        let address = run.target.address.clone();
        let (host, port) = host::split(&address, Some(DEFAULT_PORT))
            .map_err(|e| Failure::new(Phase::Setup, Reason::Configuration, e))?;
        let ip = net::resolve(run, host, self.settings.families).await?;
        watch.lap(&mut run.record, "resolve");
        let stream = net::connect(run, SocketAddr::new(ip, port), None).await?;
        watch.lap(&mut run.record, "connect");
        let connected = self.tls.connect(run, stream, host).await;
        watch.lap(&mut run.record, "tls");
        connected?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let limit = (now + self.settings.fail_if_expires_within).as_secs_f64();
        match certificate::earliest_expiry(&run.record) {
            Some(expiry) if expiry < limit && !self.settings.fail_if_expires_within.is_zero() => {
                let days = ((expiry - now.as_secs_f64()) / 86_400.0).floor();
                let words = format!("a certificate of the chain expires in {days} days");
                Err(Failure::assertion(Reason::CertificateExpired, words))
            }
            _ => Ok(()),
        }
    }
}

impl Probe for TlsProbe {
    fn attempt<'a>(&'a self, run: &'a mut Run) -> Running<'a> {
        Box::pin(self.probe(run))
    }
}
