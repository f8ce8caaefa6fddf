//! Checks of gRPC servers by their health service: `grpc.health.v1.Health/Check`
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>), with blackbox_exporter's names.
//!
//! The call is made over HTTP/2 directly, on a connection of its own (gRPC over HTTP2, section "Requests"): so phases are
//! measured and the certificate is seen.

use super::service::{Dialer, Service, nonsense};
use crate::source::probe::net;
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::record::Gauge;
use crate::source::probe::run::{Probe, Run, Running};
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;

/// The port of a target without one, in the clear and over TLS.
const PORT: u16 = 80;
const TLS_PORT: u16 = 443;
/// The longest answer that is read, in bytes: a health answer has two.
const MAX_ANSWER_BYTES: usize = 4 << 10;
/// gRPC's status codes that mean that nobody was asked (`UNAVAILABLE`) or may ask
/// (`PERMISSION_DENIED`, `UNAUTHENTICATED`), that the service is not known (`NOT_FOUND`) or has no health
/// (`UNIMPLEMENTED`).
const NOT_FOUND: u32 = 5;
const PERMISSION_DENIED: u32 = 7;
const UNIMPLEMENTED: u32 = 12;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;
/// `ServingStatus` of `health.proto`, by number.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: usize = 1;

static DURATION: Gauge =
    Gauge::new("probe_grpc_duration_seconds", "How long the phases of the call took.", &["phase"]);
static SSL: Gauge = Gauge::new("probe_grpc_ssl", "Whether the call went over TLS.", &[]);
static STATUS: Gauge = Gauge::new("probe_grpc_status_code", "The call's gRPC status.", &[]);
static RESPONSE: Gauge = Gauge::new(
    "probe_grpc_healthcheck_response",
    "1 for the status that the server gave of itself, 0 for the others.",
    &["serving_status"],
);

/// The request of `health.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// The response of `health.proto`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// The way to it.
    pub service: Service,
    /// The service that is asked for; empty for the server as a whole.
    pub name: String,
    /// Headers of the call.
    pub metadata: Vec<(HeaderName, HeaderValue)>,
}

/// Says why an address is no target.
pub fn check_address(address: &str) -> Result<(), String> {
    Dialer::check_address(address, PORT)
}

/// The probe.
#[derive(Debug)]
pub struct GrpcProbe {
    dialer: Dialer,
    settings: Settings,
}

impl GrpcProbe {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        let port = if settings.service.tls.is_some() { TLS_PORT } else { PORT };
        Self { dialer: Dialer::new(&settings.service, port, &[b"h2"]), settings }
    }

    async fn probe(&self, run: &mut Run) -> Result<(), Failure> {
        for gauge in [&SSL, &STATUS] {
            run.record.set(gauge, 0.0);
        }
        for phase in ["resolve", "check"] {
            run.record.set_label(&DURATION, phase, 0.0);
        }
        for status in STATUSES {
            run.record.set_label(&RESPONSE, status, 0.0);
        }
        // The code of a call that nobody answered.
        run.record.set(&STATUS, f64::from(UNAVAILABLE));
        let began = tokio::time::Instant::now();
        let opened = self.dialer.open(run).await;
        let resolving = run.record.value(&net::LOOKUP_TIME).unwrap_or_default();
        run.record.set_label(&DURATION, "resolve", resolving);
        let (mut way, stream) = opened?;
        run.record.set(&SSL, f64::from(u8::from(self.dialer.is_over_tls())));
        run.enter(Phase::Processing);
        let answer = self.call(run, stream).await;
        way.lap(run, "processing");
        run.record.set_label(&DURATION, "check", began.elapsed().as_secs_f64() - resolving);
        let (code, words, body) = answer?;
        run.record.set(&STATUS, f64::from(code));
        if code != 0 {
            let reason = match code {
                PERMISSION_DENIED | UNAUTHENTICATED => Reason::Credentials,
                UNIMPLEMENTED | NOT_FOUND => Reason::Expectation,
                _ => Reason::NotServing,
            };
            let words = format!("the call ends with gRPC status {code}: {words}");
            return Err(Failure::new(Phase::Processing, reason, words));
        }
        let response = message(&body)
            .and_then(|bytes| HealthCheckResponse::decode(bytes).ok())
            .ok_or_else(|| nonsense(run, "the answer is no HealthCheckResponse"))?;
        let status = usize::try_from(response.status).ok().and_then(|at| Some((at, *STATUSES.get(at)?)));
        let (at, name) =
            status.ok_or_else(|| nonsense(run, format!("{} is no ServingStatus", response.status)))?;
        run.record.set_label(&RESPONSE, name, 1.0);
        if at == SERVING {
            return Ok(());
        }
        Err(Failure::assertion(Reason::NotServing, format!("the server says {name}")))
    }

    /// The call: its status, what the server says to it, and the body.
    async fn call(
        &self,
        run: &Run,
        stream: super::service::BoxedStream,
    ) -> Result<(u32, String, Bytes), Failure> {
        let broken = |error: hyper::Error| super::http::exchange::failure(Phase::Processing, &error);
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(broken)?;
        let driver = tokio::spawn(async move {
            // What goes wrong is told to the call as well.
            let _ = connection.await;
        });
        let _ends = super::http::exchange::Driver(driver);
        let mut payload = vec![0; 5];
        HealthCheckRequest { service: self.settings.name.clone() }
            .encode(&mut payload)
            .map_err(|e| nonsense(run, e.to_string()))?;
        let length = (payload.len() - 5) as u32;
        payload[1..5].copy_from_slice(&length.to_be_bytes());
        let scheme = if self.dialer.is_over_tls() { "https" } else { "http" };
        let uri = format!("{scheme}://{}/grpc.health.v1.Health/Check", run.target.address);
        let mut request = http::Request::post(uri)
            .version(http::Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", concat!("pegel-agent/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &self.settings.metadata {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::new(Bytes::from(payload)))
            .map_err(|e| Failure::new(Phase::Setup, Reason::Configuration, e.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            let words =
                format!("the server answers with HTTP status {}, so it speaks no gRPC here", head.status);
            return Err(nonsense(run, words));
        }
        let collected = Limited::new(body, MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|e| nonsense(run, format!("the answer breaks off: {e}")))?;
        // A call that failed at once has its status in the head.
        let trailers = collected.trailers().cloned().unwrap_or(head.headers);
        let text = |name| trailers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let code = text("grpc-status").and_then(|code| code.parse().ok());
        let code = code.ok_or_else(|| nonsense(run, "the answer has no grpc-status"))?;
        Ok((code, text("grpc-message").unwrap_or_default().to_owned(), collected.to_bytes()))
    }
}

impl Probe for GrpcProbe {
    fn attempt<'a>(&'a self, run: &'a mut Run) -> Running<'a> {
        Box::pin(self.probe(run))
    }
}

/// The bytes of the one message of a body: a flag that says that it is not compressed, its length, itself.
fn message(body: &[u8]) -> Option<&[u8]> {
    let (head, rest) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    (head[0] == 0 && rest.len() == length).then_some(rest)
}
