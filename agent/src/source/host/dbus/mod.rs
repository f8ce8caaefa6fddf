//! A D-Bus client for collectors: asks for properties and lists, one connection, everything by a deadline.
//!
//! A library for all of D-Bus brings an executor, macros and a type system along; what collectors ask takes two
//! messages and five types. Calls are pipelined: a whole scrape takes a few round trips, however many units there are.
//! Nothing that a peer sends makes this wait beyond the deadline, panic or hold more than a message of bounded length.

mod message;

use super::CollectError;
use message::{HEADER_BYTES, answer, broken, message_length};
use socket2::{Domain, SockAddr, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) use message::{Body, Call, Refusal, Value};

/// Calls that wait for their answers at once. The system bus allows a connection 128
/// (dbus-daemon(1), `max_replies_per_connection`); more in flight gains nothing.
const CALLS_IN_FLIGHT: usize = 32;

/// The longest line of the authentication that is read, in bytes: the specification's lines are far shorter.
const MAX_LINE_BYTES: usize = 512;

/// What is kept of a buffer from scrape to scrape, in bytes.
const KEPT_BUFFER_BYTES: usize = 64 << 10;

const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Where a service is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Through the message bus, to the owner of this name.
    Bus(&'static str),
    /// The socket is the service's own.
    Direct,
}

/// A service: the connection is made when it is first asked, kept while all goes well, and made anew otherwise.
#[derive(Debug)]
pub(super) struct Service {
    socket: PathBuf,
    route: Route,
    limit: Duration,
    connection: Option<Connection>,
}

impl Service {
    /// A service behind a socket. `limit` is the time for all that is asked in one scrape.
    pub(super) fn new(socket: PathBuf, route: Route, limit: Duration) -> Self {
        Self { socket, route, limit, connection: None }
    }

    /// Its socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks by `ask`, which may be begun a second time if a kept connection turns out to be dead.
    pub(super) fn ask<T>(
        &mut self,
        mut ask: impl FnMut(&mut Connection) -> io::Result<T>,
    ) -> Result<T, CollectError> {
        let deadline = Instant::now() + self.limit;
        if let Some(mut kept) = self.connection.take() {
            kept.deadline = deadline;
            match ask(&mut kept) {
                Ok(answered) => {
                    self.keep(kept);
                    return Ok(answered);
                }
                // The bus was started anew since the last scrape.
                Err(error) if is_disconnect(&error) => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
        let asked = Connection::open(&self.socket, self.route, deadline).and_then(|mut fresh| {
            let answered = ask(&mut fresh)?;
            Ok((fresh, answered))
        });
        let (fresh, answered) = asked.map_err(|source| self.failed(source))?;
        self.keep(fresh);
        Ok(answered)
    }

    fn keep(&mut self, mut connection: Connection) {
        connection.trim();
        // A service sends its signals to whoever is connected directly, asked for or not, and nobody reads them here.
        if self.route != Route::Direct {
            self.connection = Some(connection);
        }
    }

    fn failed(&self, source: io::Error) -> CollectError {
        let source = match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it has not answered within {:.1} s", self.limit.as_secs_f64()),
            ),
            _ => source,
        };
        CollectError::Read { path: self.socket.clone(), source }
    }
}

fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof)
}

/// A property of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Property<'a> {
    /// The object.
    pub(super) path: &'a str,
    /// The interface that has the property.
    pub(super) interface: &'a str,
    /// The property.
    pub(super) name: &'a str,
}

/// A property's value, of those types that collectors ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owned {
    /// A string.
    Text(Box<str>),
    /// A number, or a boolean as 0 or 1.
    Number(u64),
}

impl Owned {
    /// The string; none if it is a number.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) => None,
        }
    }

    /// The number; none if it is a string.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Text(_) => None,
            Self::Number(number) => Some(*number),
        }
    }
}

/// An authenticated connection.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    route: Route,
    serial: u32,
    deadline: Instant,
    /// What was read and not yet consumed is `buffer[consumed..filled]`.
    buffer: Vec<u8>,
    consumed: usize,
    filled: usize,
}

impl Connection {
    fn open(path: &Path, route: Route, deadline: Instant) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Where the listener's queue is full, `connect` waits, for as long as sending may (unix(7)).
        socket.set_write_timeout(Some(remaining(deadline)?))?;
        socket.connect(&SockAddr::unix(path)?)?;
        let buffer = Vec::new();
        let mut this = Self { socket, route, serial: 0, deadline, buffer, consumed: 0, filled: 0 };
        this.authenticate()?;
        if route != Route::Direct {
            this.hello()?;
        }
        Ok(this)
    }

    /// Says who this is: the peer knows it from the socket and compares ("Authentication Protocol", EXTERNAL).
    fn authenticate(&mut self) -> io::Result<()> {
        // The decimal number, each digit of it in hexadecimal.
        let number = rustix::process::geteuid().as_raw().to_string();
        let user: String = number.chars().flat_map(|digit| ['3', digit]).collect();
        self.send(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let line = self.line()?;
        if !line.starts_with(b"OK ") {
            let words = String::from_utf8_lossy(&line).trim_end().to_owned();
            let kind = if line.starts_with(b"REJECTED") {
                io::ErrorKind::PermissionDenied
            } else {
                io::ErrorKind::InvalidData
            };
            return Err(io::Error::new(kind, format!("it does not let this user in: {words:?}")));
        }
        self.send(b"BEGIN\r\n")
    }

    /// The first call on a bus, by which it gives the connection a name.
    fn hello(&mut self) -> io::Result<()> {
        let call = Call {
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
            arguments: &[],
        };
        let mut message = Vec::new();
        self.serial += 1;
        call.write(self.serial, Some("org.freedesktop.DBus"), &mut message);
        self.send(&message)?;
        loop {
            let message = self.message()?;
            if let Some(answer) = answer(&message)?
                && answer.serial == self.serial
            {
                return answer.outcome.map(drop).map_err(io::Error::other);
            }
        }
    }

    /// Calls one method; a refusal is an error.
    pub(super) fn call<T>(
        &mut self,
        call: Call<'_>,
        read: impl FnOnce(Body<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut read = Some(read);
        let mut result = None;
        self.call_all(std::iter::once(call), |_, outcome| {
            let body = outcome.map_err(|refusal| io::Error::other(format!("{}: {refusal}", call.member)))?;
            if let Some(read) = read.take() {
                result = Some(read(body)?);
            }
            Ok(())
        })?;
        result.ok_or_else(broken)
    }

    /// Asks for properties; each is there or was refused.
    pub(super) fn properties(&mut self, wanted: &[Property<'_>]) -> io::Result<Vec<Result<Owned, Refusal>>> {
        let arguments: Vec<[&str; 2]> = wanted.iter().map(|p| [p.interface, p.name]).collect();
        let calls = wanted.iter().zip(&arguments).map(|(property, arguments)| Call {
            path: property.path,
            interface: PROPERTIES,
            member: "Get",
            arguments,
        });
        let mut found: Vec<Option<Result<Owned, Refusal>>> = vec![None; wanted.len()];
        self.call_all(calls, |at, outcome| {
            found[at] = Some(match outcome {
                Ok(body) => Ok(match body.of("v")?.variant()? {
                    Value::Text(text) => Owned::Text(text.into()),
                    Value::Number(number) => Owned::Number(number),
                }),
                Err(refusal) => Err(refusal),
            });
            Ok(())
        })?;
        found.into_iter().collect::<Option<Vec<_>>>().ok_or_else(broken)
    }

    /// Makes many calls, some at a time; `each` is given the answer to the n-th, in any order.
    fn call_all<'a>(
        &mut self,
        calls: impl Iterator<Item = Call<'a>>,
        mut each: impl FnMut(usize, Result<Body<'_>, Refusal>) -> io::Result<()>,
    ) -> io::Result<()> {
        let destination = match self.route {
            Route::Bus(name) => Some(name),
            Route::Direct => None,
        };
        let mut calls = calls.enumerate().peekable();
        let mut waiting: BTreeMap<u32, usize> = BTreeMap::new();
        let mut messages = Vec::new();
        while calls.peek().is_some() || !waiting.is_empty() {
            messages.clear();
            // Half of them at a time, so that a call of its own costs no system call of its own.
            let room = if waiting.len() <= CALLS_IN_FLIGHT / 2 { CALLS_IN_FLIGHT - waiting.len() } else { 0 };
            for (at, call) in calls.by_ref().take(room) {
                // Zero is no serial number.
                self.serial = self.serial.checked_add(1).unwrap_or(1);
                call.write(self.serial, destination, &mut messages);
                waiting.insert(self.serial, at);
            }
            if !messages.is_empty() {
                self.send(&messages)?;
            }
            let message = self.message()?;
            let Some(answer) = answer(&message)? else { continue };
            // The answer to a call that an earlier scrape gave up is nobody's.
            if let Some(at) = waiting.remove(&answer.serial) {
                each(at, answer.outcome)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.set_write_timeout(Some(remaining(self.deadline)?))?;
        self.socket.write_all(bytes)
    }

    /// The next message.
    fn message(&mut self) -> io::Result<Vec<u8>> {
        self.fill(HEADER_BYTES)?;
        let header = &self.buffer[self.consumed..self.consumed + HEADER_BYTES];
        let length = message_length(header.try_into().map_err(|_| broken())?)?;
        self.fill(length)?;
        let message = self.buffer[self.consumed..self.consumed + length].to_vec();
        self.consumed += length;
        Ok(message)
    }

    /// The next line, with its end.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut length = 0;
        loop {
            length += 1;
            if length > MAX_LINE_BYTES {
                return Err(broken());
            }
            self.fill(length)?;
            let line = &self.buffer[self.consumed..self.consumed + length];
            if line.ends_with(b"\n") {
                let line = line.to_vec();
                self.consumed += length;
                return Ok(line);
            }
        }
    }

    /// Reads until so many bytes are there that were not consumed.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        while self.filled - self.consumed < wanted {
            if self.consumed > 0 {
                self.buffer.copy_within(self.consumed..self.filled, 0);
                self.filled -= self.consumed;
                self.consumed = 0;
            }
            // A length that the peer only claims does not make the buffer grow: what has come does.
            if self.filled == self.buffer.len() {
                self.buffer.resize((2 * self.filled).max(4096), 0);
            }
            self.socket.set_read_timeout(Some(remaining(self.deadline)?))?;
            match self.socket.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the memory of a long answer back.
    fn trim(&mut self) {
        if self.filled - self.consumed <= KEPT_BUFFER_BYTES && self.buffer.len() > KEPT_BUFFER_BYTES {
            self.buffer.copy_within(self.consumed..self.filled, 0);
            self.filled -= self.consumed;
            self.consumed = 0;
            self.buffer.truncate(KEPT_BUFFER_BYTES);
            self.buffer.shrink_to_fit();
        }
    }
}

/// The time until the deadline; a socket's timeout of zero would mean none.
fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

#[cfg(test)]
pub(super) mod tests;
