//! Checks over HTTP and HTTPS: versions 1.0, 1.1, 2 and 3, one new connection for every request.
//!
//! A pool would hide what is measured, so nothing is kept from run to run. Each request goes the way from name to
//! body in steps of its own, which is where `probe_http_duration_seconds` comes from; over redirects they add up.

mod body;
mod cookies;
pub(super) mod exchange;
mod http3;
mod journey;
mod verdict;

use super::assertion::{FAILED_REGEX, JsonAssertion, Pattern};
use crate::source::probe::net::resolve::Families;
use crate::source::probe::net::{self, quic, tls};
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::record::Gauge;
use crate::source::probe::run::{Probe, Run, Running, Stopwatch};
use crate::source::scrape::settings::Auth;
use exchange::{Answer, Connection};
use http::header::{HeaderName, HeaderValue};
use http::uri::Scheme;
use http::{Method, Uri, Version};
use journey::{Journey, Next};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use verdict::judge;

pub use body::{Compression, MAX_MATCHED_BYTES};

/// How many redirects are followed: as many as blackbox_exporter does.
const MAX_REDIRECTS: usize = 10;

static DURATION: Gauge = Gauge::new(
    "probe_http_duration_seconds",
    "How long the phases of the request took, redirects added up.",
    &["phase"],
);
static STATUS: Gauge = Gauge::new("probe_http_status_code", "The status of the last answer.", &[]);
static LENGTH: Gauge =
    Gauge::new("probe_http_content_length", "The length that the last answer announced, -1 if none.", &[]);
static BODY_LENGTH: Gauge = Gauge::new(
    "probe_http_uncompressed_body_length",
    "How many bytes of body were read, after decompression.",
    &[],
);
static REDIRECTS: Gauge = Gauge::new("probe_http_redirects", "How many redirects there were.", &[]);
static SSL: Gauge = Gauge::new("probe_http_ssl", "Whether the last answer came over TLS.", &[]);
static VERSION: Gauge = Gauge::new("probe_http_version", "The version of HTTP of the last answer.", &[]);
static JSON: Gauge =
    Gauge::new("pegel_probe_failed_due_to_json", "Whether a value in the JSON body made the run fail.", &[]);
static LAST_MODIFIED: Gauge = Gauge::new(
    "probe_http_last_modified_timestamp_seconds",
    "When the answer says that it was last modified, in seconds since the Unix epoch.",
    &[],
);

/// A header held against a regular expression.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatch {
    /// The header.
    pub header: HeaderName,
    /// The expression.
    pub pattern: Pattern,
    /// Whether an answer without the header is fine.
    pub allow_missing: bool,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// This.
    Text(String),
    /// What this file holds when the check runs.
    File(PathBuf),
}

/// Which versions of HTTP a request may be made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offered {
    /// 2 or 1.1 over TLS, as the server chooses; 1.1 in the clear.
    #[default]
    Any,
    /// 1.1 only.
    Http1,
    /// 2 only; in the clear without asking (RFC 9113, section 3.3).
    Http2,
    /// 3 only, which is over TLS always.
    Http3,
}

impl Offered {
    /// What is offered in the TLS handshake.
    fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Self::Any => &[b"h2", b"http/1.1"],
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
            Self::Http3 => &[b"h3"],
        }
    }
}

/// What is requested and what must come.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The method.
    pub method: Method,
    /// Headers of the request; `Host` among them overrides the URL's.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body of the request.
    pub body: Option<Body>,
    /// How the agent proves itself, to the target's own host only.
    pub auth: Option<Auth>,
    /// Which addresses are used.
    pub families: Families,
    /// Whether redirects are followed.
    pub follow_redirects: bool,
    /// Which versions of HTTP are offered.
    pub offered: Offered,
    /// Statuses that are fine; empty means 200 to 299.
    pub valid_status_codes: Vec<u16>,
    /// Versions that are fine; empty means all.
    pub valid_versions: Vec<Version>,
    /// An answer over TLS is a failure.
    pub fail_if_ssl: bool,
    /// An answer without TLS is a failure.
    pub fail_if_not_ssl: bool,
    /// A body that one of these matches is a failure.
    pub fail_if_body_matches: Vec<Pattern>,
    /// A body that one of these does not match is a failure.
    pub fail_if_body_not_matches: Vec<Pattern>,
    /// A header that its expression matches is a failure.
    pub fail_if_header_matches: Vec<HeaderMatch>,
    /// A header that its expression does not match is a failure.
    pub fail_if_header_not_matches: Vec<HeaderMatch>,
    /// Values that a JSON body must have.
    pub body_json: Vec<JsonAssertion>,
    /// How the body must be compressed.
    pub compression: Option<Compression>,
    /// A body of more bytes than this, after decompression, is a failure; 0 is no limit.
    pub body_size_limit: u64,
    /// TLS.
    pub tls: tls::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            method: Method::GET,
            headers: Vec::new(),
            body: None,
            auth: None,
            families: Families::default(),
            follow_redirects: true,
            offered: Offered::default(),
            valid_status_codes: Vec::new(),
            valid_versions: Vec::new(),
            fail_if_ssl: false,
            fail_if_not_ssl: false,
            fail_if_body_matches: Vec::new(),
            fail_if_body_not_matches: Vec::new(),
            fail_if_header_matches: Vec::new(),
            fail_if_header_not_matches: Vec::new(),
            body_json: Vec::new(),
            compression: None,
            body_size_limit: 0,
            tls: tls::Settings::default(),
        }
    }
}

impl Settings {
    /// Whether the body has to be kept until it is complete.
    fn looks_at_body(&self) -> bool {
        !(self.fail_if_body_matches.is_empty()
            && self.fail_if_body_not_matches.is_empty()
            && self.body_json.is_empty())
    }
}

/// The URL of a target. Without a scheme, it is taken for http.
fn url_of(address: &str) -> Result<Uri, String> {
    let lower = address.get(..8).unwrap_or(address).to_ascii_lowercase();
    let absolute = if lower.starts_with("http://") || lower.starts_with("https://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    let url: Uri = absolute.parse().map_err(|e| format!("it is no URL: {e}"))?;
    let authority = url.authority().ok_or("it has no host")?;
    if authority.as_str().contains('@') {
        return Err("it holds a user name; use basic_auth, which takes the password from a file".to_owned());
    }
    if authority.as_str().ends_with(':')
        || authority.port().is_some_and(|port| port.as_str().parse() == Ok(0_u16))
    {
        return Err("its port is no number from 1 to 65535".to_owned());
    }
    net::host::check(host_of(&url))?;
    Ok(url)
}

/// Says why an address is no target.
pub fn check_address(address: &str) -> Result<(), String> {
    url_of(address).map(|_| ())
}

/// The host of a URL, without brackets.
fn host_of(url: &Uri) -> &str {
    let host = url.host().unwrap_or_default();
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

/// A URL as it is requested where only HTTP/3 is spoken: blackbox_exporter takes `http` for `https` then, too.
fn over_tls(url: Uri) -> Uri {
    let mut parts = url.clone().into_parts();
    parts.scheme = Some(Scheme::HTTPS);
    Uri::from_parts(parts).unwrap_or(url)
}

fn is_https(url: &Uri) -> bool {
    url.scheme_str() == Some("https")
}

/// The probe.
#[derive(Debug)]
pub struct HttpProbe {
    settings: Arc<Settings>,
    tls: tls::Client,
}

impl HttpProbe {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        let alpn = settings.offered.alpn();
        Self { tls: tls::Client::new(settings.tls.clone(), alpn), settings: Arc::new(settings) }
    }

    async fn probe(&self, run: &mut Run) -> Result<(), Failure> {
        let settings = self.settings.clone();
        net::declare_address(run);
        for gauge in [&STATUS, &LENGTH, &BODY_LENGTH, &REDIRECTS, &SSL, &VERSION, &FAILED_REGEX] {
            run.record.set(gauge, 0.0);
        }
        if !settings.body_json.is_empty() {
            run.record.set(&JSON, 0.0);
        }
        let phases = ["resolve", "connect", "tls", "processing", "transfer"];
        let mut watch = Stopwatch::start(&mut run.record, &DURATION, &phases);
        let mut url =
            url_of(&run.target.address).map_err(|e| Failure::new(Phase::Setup, Reason::Configuration, e))?;
        if settings.offered == Offered::Http3 {
            url = over_tls(url);
        }
        let mut journey = Journey::begin(&settings, url)?;
        watch.skip();
        journey.address = Some(net::resolve(run, host_of(&journey.url), settings.families).await?);
        watch.lap(&mut run.record, "resolve");
        loop {
            let answer = self.request(run, &mut watch, &mut journey).await?;
            match journey.redirected(&settings, &answer, run) {
                Next::Go => {
                    if journey.address.is_none() {
                        run.enter(Phase::Resolve);
                        watch.skip();
                        let host = host_of(&journey.url).to_owned();
                        let found = run.network.clone().resolver.address(&host, settings.families).await;
                        watch.lap(&mut run.record, "resolve");
                        journey.address = Some(found.map_err(|error| error.failure(&host))?);
                    }
                    watch.skip();
                }
                Next::Stay(trouble) => {
                    return judge(run, &mut watch, &settings, &journey.url, answer, trouble).await;
                }
            }
        }
    }

    /// One request over a connection of its own.
    async fn request(
        &self,
        run: &mut Run,
        watch: &mut Stopwatch,
        journey: &mut Journey,
    ) -> Result<Answer, Failure> {
        let url = journey.url.clone();
        let address = journey.address.expect("it was looked up before");
        let port = url.port_u16().unwrap_or(if is_https(&url) { 443 } else { 80 });
        let to = SocketAddr::new(address, port);
        watch.skip();
        let connection = match self.settings.offered {
            Offered::Http3 if is_https(&url) => {
                let connected = quic::connect(run, &self.tls, to, &journey.tls_name()).await;
                // Connection and TLS are one handshake.
                watch.lap(&mut run.record, "tls");
                run.enter(Phase::Processing);
                Connection::http3(connected?).await
            }
            Offered::Http3 => {
                let words = format!("it redirects to {}, and HTTP/3 is spoken over TLS only", host_of(&url));
                return Err(Failure::assertion(Reason::Redirect, words));
            }
            offered => {
                let stream = net::connect(run, to, None).await?;
                watch.lap(&mut run.record, "connect");
                if is_https(&url) {
                    let stream = self.tls.connect(run, stream, &journey.tls_name()).await;
                    watch.lap(&mut run.record, "tls");
                    over_stream(run, stream?, offered).await
                } else {
                    run.enter(Phase::Processing);
                    match offered {
                        Offered::Http2 => Connection::http2(stream).await,
                        _ => Connection::http1(stream).await,
                    }
                }
            }
        }?;
        let request = journey.request(connection.version())?;
        watch.skip();
        let answer = connection.send(request).await;
        watch.lap(&mut run.record, "processing");
        answer
    }
}

/// The version that was agreed on in a handshake.
async fn over_stream(
    run: &mut Run,
    stream: TlsStream<TcpStream>,
    offered: Offered,
) -> Result<Connection, Failure> {
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if offered == Offered::Http2 && !http2 {
        let words = "the server did not choose HTTP/2, which is all that was offered";
        return Err(Failure::new(Phase::Tls, Reason::Version, words));
    }
    run.enter(Phase::Processing);
    if http2 { Connection::http2(stream).await } else { Connection::http1(stream).await }
}

impl Probe for HttpProbe {
    fn attempt<'a>(&'a self, run: &'a mut Run) -> Running<'a> {
        Box::pin(self.probe(run))
    }
}
