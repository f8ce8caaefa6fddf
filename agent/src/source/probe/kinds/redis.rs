//! Checks of Redis and what speaks its protocol (RESP 2, <https://redis.io/docs/latest/develop/reference/protocol-spec/>):
//! `AUTH` where there are credentials, then `PING`.

use super::service::{Dialer, Login, Service, broken, nonsense};
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::run::{Probe, Run, Running};
use std::fmt::Write as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

/// Redis' port.
pub const PORT: u16 = 6379;
/// The longest answer that is read, in bytes: errors are short.
const MAX_ANSWER_BYTES: u64 = 4 << 10;

/// What is asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// The way to it.
    pub service: Service,
    /// Who asks; with an empty user name, by password alone.
    pub login: Option<Login>,
}

/// Says why an address is no target.
pub fn check_address(address: &str) -> Result<(), String> {
    Dialer::check_address(address, PORT)
}

/// The probe.
#[derive(Debug)]
pub struct RedisProbe {
    dialer: Dialer,
    login: Option<Login>,
}

impl RedisProbe {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        Self { dialer: Dialer::new(&settings.service, PORT, &[]), login: settings.login }
    }

    async fn probe(&self, run: &mut Run) -> Result<(), Failure> {
        let (mut way, stream) = self.dialer.open(run).await?;
        let mut stream = BufReader::new(stream);
        if let Some(login) = &self.login {
            run.enter(Phase::Login);
            let password = login.password()?;
            let mut words = vec!["AUTH", &password];
            if !login.username.is_empty() {
                words.insert(1, &login.username);
            }
            let answer = ask(run, &mut stream, &words).await;
            way.lap(run, "login");
            expect(run, &answer?, "+OK")?;
        }
        run.enter(Phase::Processing);
        let answer = ask(run, &mut stream, &["PING"]).await;
        way.lap(run, "processing");
        expect(run, &answer?, "+PONG")
    }
}

impl Probe for RedisProbe {
    fn attempt<'a>(&'a self, run: &'a mut Run) -> Running<'a> {
        Box::pin(self.probe(run))
    }
}

/// Sends a command as an array of bulk strings and reads the answer's line.
async fn ask<S>(run: &Run, stream: &mut BufReader<S>, words: &[&str]) -> Result<String, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        let _ = write!(command, "${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(command.as_bytes()).await.map_err(|e| broken(run, &e))?;
    stream.flush().await.map_err(|e| broken(run, &e))?;
    let mut line = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_until(b'\n', &mut line).await.map_err(|e| broken(run, &e))?;
    if line.is_empty() {
        return Err(Failure::new(run.phase(), Reason::Closed, "the server ended the connection"));
    }
    Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned())
}

fn expect(run: &Run, answer: &str, wanted: &str) -> Result<(), Failure> {
    if answer == wanted {
        return Ok(());
    }
    let Some(error) = answer.strip_prefix('-') else {
        return Err(nonsense(run, format!("`{answer}` is no answer of Redis to this")));
    };
    // The first word is the error's kind.
    let reason = match error.split(' ').next().unwrap_or_default() {
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" => Reason::Credentials,
        "ERR" if run.phase() == Phase::Login => Reason::Credentials,
        _ => Reason::NotServing,
    };
    Err(Failure::new(run.phase(), reason, format!("the server answers: {error}")))
}
