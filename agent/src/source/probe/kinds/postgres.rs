//! Checks of PostgreSQL: log in, run a query (`SELECT 1` unless told otherwise), end in order.
//!
//! The protocol (version 3.0, PostgreSQL's documentation, chapter "Frontend/Backend Protocol") is spoken with the crate
//! postgres-protocol, so that the connection is this check's own: its phases are measured and its certificate is seen.

use super::service::{BoxedStream, Dialer, Login, Service, Way, broken, nonsense};
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::record::Gauge;
use crate::source::probe::run::{Probe, Run, Running};
use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
// The iterators that the crate's bodies give.
use fallible_iterator::FallibleIterator as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// PostgreSQL's port.
pub const PORT: u16 = 5432;
/// The query of a check that has none of its own.
pub const DEFAULT_QUERY: &str = "SELECT 1";
/// The most that is read in one message, in bytes: a row of a health query, not of a table.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// The most rounds of SCRAM-SHA-256 that a server may ask for: 25 times the default of 4,096, some 20 ms of CPU.
const MAX_SCRAM_ITERATIONS: u32 = 100_000;

static ROWS: Gauge = Gauge::new("pegel_probe_postgres_rows", "How many rows the check's query gave.", &[]);

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The way to it.
    pub service: Service,
    /// Who asks.
    pub login: Login,
    /// The database; without one, that of the user's name.
    pub database: Option<String>,
    /// What is run.
    pub query: String,
    /// Whether a query without a row is a failure.
    pub fail_if_no_rows: bool,
}

/// Says why an address is no target.
pub fn check_address(address: &str) -> Result<(), String> {
    Dialer::check_address(address, PORT)
}

/// The probe.
#[derive(Debug)]
pub struct PostgresProbe {
    dialer: Dialer,
    settings: Settings,
}

impl PostgresProbe {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        // A server of version 17 or newer may be asked for TLS by its name of the protocol.
        Self { dialer: Dialer::new(&settings.service, PORT, &[b"postgresql"]), settings }
    }

    async fn probe(&self, run: &mut Run) -> Result<(), Failure> {
        run.record.set(&ROWS, 0.0);
        let (mut way, mut tcp) = self.dialer.tcp(run).await?;
        if self.dialer.is_over_tls() {
            run.enter(Phase::Tls);
            let mut request = BytesMut::new();
            frontend::ssl_request(&mut request);
            tcp.write_all(&request).await.map_err(|e| broken(run, &e))?;
            match tcp.read_u8().await.map_err(|e| broken(run, &e))? {
                b'S' => {}
                b'N' => {
                    let words = "the server does not speak TLS (its `ssl` is off)";
                    return Err(Failure::new(Phase::Tls, Reason::TlsUse, words));
                }
                _ => return Err(nonsense(run, "the answer to the request for TLS is not PostgreSQL's")),
            }
        }
        let stream = self.dialer.secure(run, &mut way, tcp).await?;
        let mut session = Session { stream, buffer: BytesMut::new() };
        run.enter(Phase::Login);
        let entered = self.log_in(run, &mut session).await;
        way.lap(run, "login");
        entered?;
        run.enter(Phase::Processing);
        let answered = self.query(run, &mut session, &mut way).await;
        // The server logs a connection that breaks off; one that says goodbye it does not.
        let mut goodbye = BytesMut::new();
        frontend::terminate(&mut goodbye);
        let _ = session.stream.write_all(&goodbye).await;
        let _ = session.stream.shutdown().await;
        answered
    }

    async fn log_in(&self, run: &Run, session: &mut Session) -> Result<(), Failure> {
        let Login { username, .. } = &self.settings.login;
        let password = self.settings.login.password()?;
        let database = self.settings.database.as_deref().unwrap_or(username);
        let parameters =
            [("user", username.as_str()), ("database", database), ("application_name", "pegel-agent")];
        session.send(run, |out| frontend::startup_message(parameters, out)).await?;
        let mut scram: Option<ScramSha256> = None;
        loop {
            match session.next(run).await? {
                Message::AuthenticationOk
                | Message::ParameterStatus(_)
                | Message::BackendKeyData(_)
                | Message::NoticeResponse(_) => {}
                Message::ReadyForQuery(_) => return Ok(()),
                Message::AuthenticationCleartextPassword => {
                    if !self.dialer.is_over_tls() {
                        let words = "the server asks for the password in the clear; it is only sent over TLS";
                        return Err(Failure::new(Phase::Login, Reason::Credentials, words));
                    }
                    session.send(run, |out| frontend::password_message(password.as_bytes(), out)).await?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(username.as_bytes(), password.as_bytes(), body.salt());
                    session.send(run, |out| frontend::password_message(hash.as_bytes(), out)).await?;
                }
                Message::AuthenticationSasl(body) => {
                    let offered = body.mechanisms().any(|name| Ok(name == SCRAM_SHA_256));
                    if !offered.map_err(|e| nonsense(run, e.to_string()))? {
                        return Err(nonsense(run, "the server offers no SCRAM-SHA-256"));
                    }
                    let begun = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
                    let first = begun.message().to_vec();
                    scram = Some(begun);
                    session
                        .send(run, |out| frontend::sasl_initial_response(SCRAM_SHA_256, &first, out))
                        .await?;
                }
                Message::AuthenticationSaslContinue(body) => {
                    let scram =
                        scram.as_mut().ok_or_else(|| nonsense(run, "SASL goes on before it began"))?;
                    check_iterations(run, body.data())?;
                    scram.update(body.data()).map_err(|e| refused(&e.to_string()))?;
                    let response = scram.message().to_vec();
                    session.send(run, |out| frontend::sasl_response(&response, out)).await?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let scram = scram.as_mut().ok_or_else(|| nonsense(run, "SASL ends before it began"))?;
                    scram.finish(body.data()).map_err(|e| refused(&e.to_string()))?;
                }
                Message::ErrorResponse(body) => return Err(error(run, &body)),
                _ => {
                    return Err(nonsense(
                        run,
                        "the server asks for a way to log in that the check does not have",
                    ));
                }
            }
        }
    }

    async fn query(&self, run: &mut Run, session: &mut Session, way: &mut Way) -> Result<(), Failure> {
        session.send(run, |out| frontend::query(&self.settings.query, out)).await?;
        let mut rows = 0_u64;
        let mut failure = None;
        loop {
            match session.next(run).await? {
                Message::DataRow(_) => rows += 1,
                Message::ErrorResponse(body) => failure = Some(error(run, &body)),
                Message::ReadyForQuery(_) => break,
                Message::CopyInResponse(_) | Message::CopyOutResponse(_) => {
                    return Err(nonsense(run, "the check's query copies; use one that selects"));
                }
                _ => {}
            }
        }
        way.lap(run, "processing");
        run.record.set(&ROWS, rows as f64);
        match failure {
            Some(failure) => Err(failure),
            None if rows == 0 && self.settings.fail_if_no_rows => {
                Err(Failure::assertion(Reason::Records, "the query gave no row"))
            }
            None => Ok(()),
        }
    }
}

impl Probe for PostgresProbe {
    fn attempt<'a>(&'a self, run: &'a mut Run) -> Running<'a> {
        Box::pin(self.probe(run))
    }
}

struct Session {
    stream: BoxedStream,
    buffer: BytesMut,
}

impl Session {
    async fn send(
        &mut self,
        run: &Run,
        write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|e| Failure::new(run.phase(), Reason::Configuration, e.to_string()))?;
        self.stream.write_all(&out).await.map_err(|e| broken(run, &e))?;
        self.stream.flush().await.map_err(|e| broken(run, &e))
    }

    async fn next(&mut self, run: &Run) -> Result<Message, Failure> {
        loop {
            if let Some(length) = self.buffer.get(1..5) {
                let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
                if length > MAX_MESSAGE_BYTES {
                    let words = format!(
                        "the server sends a message of {length} bytes; the most is {MAX_MESSAGE_BYTES}"
                    );
                    return Err(nonsense(run, words));
                }
            }
            match Message::parse(&mut self.buffer) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(error) => return Err(nonsense(run, format!("the answer is not PostgreSQL's: {error}"))),
            }
            if self.stream.read_buf(&mut self.buffer).await.map_err(|e| broken(run, &e))? == 0 {
                return Err(Failure::new(run.phase(), Reason::Closed, "the server ended the connection"));
            }
        }
    }
}

/// The count of rounds is the server's choice, and each costs this machine's time.
fn check_iterations(run: &Run, message: &[u8]) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(message);
    let rounds = text.split(',').find_map(|part| part.strip_prefix("i="));
    match rounds.and_then(|rounds| rounds.parse::<u32>().ok()) {
        Some(rounds) if rounds <= MAX_SCRAM_ITERATIONS => Ok(()),
        _ => Err(nonsense(
            run,
            format!("the server asks for more than {MAX_SCRAM_ITERATIONS} rounds of SCRAM"),
        )),
    }
}

fn refused(words: &str) -> Failure {
    Failure::new(
        Phase::Login,
        Reason::Credentials,
        format!("the server does not prove that it knows the password: {words}"),
    )
}

/// What an error of the server means, by its SQLSTATE (PostgreSQL's documentation, appendix A).
fn error(run: &Run, body: &ErrorResponseBody) -> Failure {
    let mut fields = body.fields();
    let (mut code, mut text) = (String::new(), String::new());
    while let Ok(Some(field)) = fields.next() {
        let value = || String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => code = value(),
            b'M' => text = value(),
            _ => {}
        }
    }
    let reason = match (code.get(..2).unwrap_or_default(), code.as_str()) {
        ("28", _) | (_, "42501") => Reason::Credentials,
        ("53" | "57", _) => Reason::NotServing,
        _ if run.phase() == Phase::Processing => Reason::Body,
        _ => Reason::NotServing,
    };
    Failure::new(run.phase(), reason, format!("the server answers: {text} (SQLSTATE {code})"))
}
