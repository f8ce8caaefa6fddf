//! Checks of AMQP 0-9-1 brokers such as RabbitMQ: a connection up to `connection.open-ok`, then closed in order.
//!
//! Frames and methods are those of the specification (AMQP 0-9-1, sections 4.2.3 to 4.2.5 and 1.4 of its reference). No
//! channel is opened: what the broker checks for a connection (credentials, virtual host, its own alarms do not
//! matter) is checked.

use super::service::{BoxedStream, Dialer, Login, Service, broken, nonsense, read_bytes};
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::run::{Probe, Run, Running};
use tokio::io::AsyncWriteExt as _;

/// AMQP's port.
pub const PORT: u16 = 5672;
const HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
const METHOD_FRAME: u8 = 1;
const HEARTBEAT_FRAME: u8 = 8;
const FRAME_END: u8 = 0xce;
/// The largest frame that is read, in bytes: a broker's `connection.start` describes the broker in some hundred.
const MAX_FRAME_BYTES: usize = 128 << 10;
const CONNECTION: u16 = 10;
const START: u16 = 10;
const START_OK: u16 = 11;
const TUNE: u16 = 30;
const TUNE_OK: u16 = 31;
const OPEN: u16 = 40;
const OPEN_OK: u16 = 41;
const CLOSE: u16 = 50;
const CLOSE_OK: u16 = 51;
/// Reply code of refused credentials (AMQP 0-9-1, section 1.2).
const ACCESS_REFUSED: u16 = 403;

/// The client's properties: a table with the table `capabilities` in it, which has `authentication_failure_close` true.
/// So the broker says that it refuses the credentials; otherwise it says nothing for a while and hangs up
/// (<https://www.rabbitmq.com/docs/auth-notification>).
const CLIENT_PROPERTIES: &str = "\x0ccapabilitiesF\x00\x00\x00\x1f\x1cauthentication_failure_closet\x01";

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The way to it.
    pub service: Service,
    /// Who asks.
    pub login: Login,
    /// The virtual host.
    pub vhost: String,
}

/// Says why an address is no target.
pub fn check_address(address: &str) -> Result<(), String> {
    Dialer::check_address(address, PORT)
}

/// The probe.
#[derive(Debug)]
pub struct AmqpProbe {
    dialer: Dialer,
    login: Login,
    vhost: String,
}

impl AmqpProbe {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        let Settings { service, login, vhost } = settings;
        Self { dialer: Dialer::new(&service, PORT, &[]), login, vhost }
    }

    async fn probe(&self, run: &mut Run) -> Result<(), Failure> {
        let (mut way, mut stream) = self.dialer.open(run).await?;
        run.enter(Phase::Login);
        stream.write_all(HEADER).await.map_err(|e| broken(run, &e))?;
        stream.flush().await.map_err(|e| broken(run, &e))?;
        read_method(run, &mut stream, START).await?;
        let response = format!("\0{}\0{}", self.login.username, self.login.password()?);
        let mut start_ok = Arguments::of(START_OK);
        start_ok.long_text(CLIENT_PROPERTIES);
        start_ok.short_text(run, "PLAIN")?;
        start_ok.long_text(&response);
        start_ok.short_text(run, "en_US")?;
        start_ok.send(run, &mut stream).await?;
        let tune = match read_method(run, &mut stream, TUNE).await {
            // Brokers that do not offer the client to be told end the connection instead.
            Err(failure) if failure.reason == Reason::Closed => {
                let words = "the broker ended the connection at the credentials";
                return Err(Failure::new(Phase::Login, Reason::Credentials, words));
            }
            tune => tune?,
        };
        way.lap(run, "login");
        run.enter(Phase::Processing);
        // The broker's own limits, and no heartbeats: the connection ends in a moment.
        let mut tune_ok = Arguments::of(TUNE_OK);
        tune_ok
            .bytes
            .extend_from_slice(tune.get(..6).ok_or_else(|| nonsense(run, "connection.tune is cut short"))?);
        tune_ok.bytes.extend_from_slice(&[0, 0]);
        tune_ok.send(run, &mut stream).await?;
        let mut open = Arguments::of(OPEN);
        open.short_text(run, &self.vhost)?;
        open.bytes.extend_from_slice(&[0, 0]);
        open.send(run, &mut stream).await?;
        read_method(run, &mut stream, OPEN_OK).await?;
        way.lap(run, "processing");
        let mut close = Arguments::of(CLOSE);
        close.bytes.extend_from_slice(&[0, 200]);
        close.short_text(run, "done")?;
        close.bytes.extend_from_slice(&[0; 4]);
        close.send(run, &mut stream).await?;
        read_method(run, &mut stream, CLOSE_OK).await.map(|_| ())
    }
}

impl Probe for AmqpProbe {
    fn attempt<'a>(&'a self, run: &'a mut Run) -> Running<'a> {
        Box::pin(self.probe(run))
    }
}

/// A method of the class `connection` with its arguments, on its way out.
struct Arguments {
    bytes: Vec<u8>,
}

impl Arguments {
    fn of(method: u16) -> Self {
        Self { bytes: [CONNECTION.to_be_bytes(), method.to_be_bytes()].concat() }
    }

    fn long(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    fn short_text(&mut self, run: &Run, text: &str) -> Result<(), Failure> {
        let length = u8::try_from(text.len()).map_err(|_| {
            Failure::new(run.phase(), Reason::Configuration, "a name is longer than AMQP's 255 bytes")
        })?;
        self.bytes.push(length);
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn long_text(&mut self, text: &str) {
        self.long(text.len() as u32);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    async fn send(self, run: &Run, stream: &mut BoxedStream) -> Result<(), Failure> {
        let mut frame = vec![METHOD_FRAME, 0, 0];
        frame.extend_from_slice(&(self.bytes.len() as u32).to_be_bytes());
        frame.extend_from_slice(&self.bytes);
        frame.push(FRAME_END);
        stream.write_all(&frame).await.map_err(|e| broken(run, &e))?;
        stream.flush().await.map_err(|e| broken(run, &e))
    }
}

/// Reads the method that has to come, and gives its arguments. A broker that closes instead says why.
async fn read_method(run: &Run, stream: &mut BoxedStream, wanted: u16) -> Result<Vec<u8>, Failure> {
    loop {
        let head = read_bytes(run, stream, 7).await?;
        if head.starts_with(b"AMQP") {
            return Err(nonsense(run, "the broker speaks another version of AMQP than 0-9-1"));
        }
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(nonsense(run, format!("the answer is no AMQP: a frame of {length} bytes")));
        }
        let mut payload = read_bytes(run, stream, length + 1).await?;
        if payload.pop() != Some(FRAME_END) {
            return Err(nonsense(run, "the answer is no AMQP: a frame without an end"));
        }
        if head[0] == HEARTBEAT_FRAME {
            continue;
        }
        let word = |at: usize| payload.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        return match (head[0], word(0), word(2)) {
            (METHOD_FRAME, Some(CONNECTION), Some(method)) if method == wanted => Ok(payload.split_off(4)),
            (METHOD_FRAME, Some(CONNECTION), Some(CLOSE)) => {
                Err(closed(run, word(4).unwrap_or_default(), &payload))
            }
            _ => Err(nonsense(run, "the broker's answer is not the one that AMQP has here")),
        };
    }
}

fn closed(run: &Run, code: u16, payload: &[u8]) -> Failure {
    let length = payload.get(6).copied().unwrap_or_default() as usize;
    let text = String::from_utf8_lossy(payload.get(7..7 + length).unwrap_or_default()).into_owned();
    let reason = if code == ACCESS_REFUSED { Reason::Credentials } else { Reason::NotServing };
    Failure::new(run.phase(), reason, format!("the broker refuses: {code} {text}"))
}
