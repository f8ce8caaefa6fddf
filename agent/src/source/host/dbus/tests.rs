//! A bus of the test's own, and what it makes of us.

use super::*;
use crate::source::host::dbus::message::MAX_MESSAGE_BYTES;
use parking_lot::Mutex;
use proptest::prelude::*;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Time enough for a peer that answers.
const SOON: Duration = Duration::from_secs(20);

/// Writes the body of a reply.
#[derive(Default)]
pub(in crate::source::host) struct Body(Vec<u8>);

impl Body {
    pub(in crate::source::host) fn align(&mut self, to: usize) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
        self
    }

    pub(in crate::source::host) fn u32(&mut self, number: u32) -> &mut Self {
        self.align(4).0.extend(number.to_le_bytes());
        self
    }

    pub(in crate::source::host) fn string(&mut self, text: &str) -> &mut Self {
        self.u32(text.len() as u32).0.extend(text.as_bytes());
        self.0.push(0);
        self
    }

    /// An array of structures, written by `write`.
    pub(in crate::source::host) fn array(&mut self, write: impl FnOnce(&mut Self)) -> &mut Self {
        self.u32(0);
        let at = self.0.len();
        self.align(8);
        let begin = self.0.len();
        write(self);
        let length = (self.0.len() - begin) as u32;
        self.0[at - 4..at].copy_from_slice(&length.to_le_bytes());
        self
    }

    fn variant(&mut self, value: &Owned, boolean: bool) -> &mut Self {
        let signature: u8 = match value {
            Owned::Text(_) => b's',
            Owned::Number(_) if boolean => b'b',
            Owned::Number(_) => b't',
        };
        self.0.extend([1, signature, 0]);
        match value {
            Owned::Text(text) => self.string(text),
            Owned::Number(number) if boolean => self.u32(*number as u32),
            Owned::Number(number) => {
                self.align(8).0.extend(number.to_le_bytes());
                self
            }
        }
    }
}

/// What a bus says to a call.
pub(in crate::source::host) enum Says {
    /// A reply with this signature and body.
    Reply(&'static str, Body),
    /// A property.
    Property(Owned),
    /// A property that is a boolean.
    Boolean(bool),
    /// An error with this name.
    Refusal(&'static str),
}

/// A call as the bus sees it: path, member, string arguments.
#[derive(Debug)]
pub(in crate::source::host) struct Asked {
    pub(in crate::source::host) path: String,
    pub(in crate::source::host) member: String,
    pub(in crate::source::host) arguments: Vec<String>,
}

/// How a bus behaves towards who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::source::host) enum Manner {
    /// As it should.
    Sound,
    /// Never says a word.
    Silent,
    /// Lets nobody in.
    Rejects,
    /// Answers the first call with bytes that mean nothing.
    Garbage,
    /// Sends signals without end and never an answer.
    Floods,
    /// Claims a message of this many bytes, and sends none.
    Claims(u32),
    /// Closes the connection at the second call.
    Closes,
}

type Script = dyn Fn(&Asked) -> Says + Send + Sync;

/// A running bus.
pub(in crate::source::host) struct FakeBus {
    pub(in crate::source::host) manner: Arc<Mutex<Manner>>,
    pub(in crate::source::host) connections: Arc<AtomicUsize>,
    socket: PathBuf,
    open: Arc<Mutex<Vec<UnixStream>>>,
    accepting: Option<JoinHandle<()>>,
}

impl FakeBus {
    /// Listens on a socket and answers calls by a script.
    pub(in crate::source::host) fn start(
        socket: &Path,
        script: impl Fn(&Asked) -> Says + Send + Sync + 'static,
    ) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let manner = Arc::new(Mutex::new(Manner::Sound));
        let connections = Arc::new(AtomicUsize::new(0));
        let open = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let (ours, counted, streams) = (manner.clone(), connections.clone(), open.clone());
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let manner = *ours.lock();
                counted.fetch_add(1, Ordering::SeqCst);
                streams.lock().push(stream.try_clone().unwrap());
                if Arc::strong_count(&ours) == 1 {
                    return;
                }
                let script = script.clone();
                // A peer that goes away ends it.
                std::thread::spawn(move || serve(stream, manner, &*script));
            }
        });
        Self { manner, connections, socket: socket.to_owned(), open, accepting: Some(accepting) }
    }

    pub(in crate::source::host) fn behave(&self, manner: Manner) {
        *self.manner.lock() = manner;
    }

    /// Closes all connections, as a bus that is started anew does.
    pub(in crate::source::host) fn disconnect(&self) {
        for stream in self.open.lock().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for FakeBus {
    fn drop(&mut self) {
        self.disconnect();
        self.manner = Arc::new(Mutex::new(Manner::Sound));
        let _ = UnixStream::connect(&self.socket);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.disconnect();
    }
}

fn serve(mut stream: UnixStream, manner: Manner, script: &Script) -> Option<()> {
    let mut byte = [0];
    let mut line = || {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            (&stream).read_exact(&mut byte).ok()?;
            line.push(byte[0]);
        }
        Some(String::from_utf8(line).unwrap())
    };
    let user = rustix::process::geteuid().as_raw().to_string();
    let told = line()?;
    let told: Vec<char> = told.trim_end().strip_prefix("\0AUTH EXTERNAL ").unwrap().chars().collect();
    assert!(told.chunks(2).map(String::from_iter).eq(user.bytes().map(|byte| format!("{byte:02x}"))));
    match manner {
        Manner::Silent => {
            line()?;
        }
        Manner::Rejects => return (&stream).write_all(b"REJECTED EXTERNAL\r\n").ok(),
        _ => {}
    }
    (&stream).write_all(b"OK 0123456789abcdef\r\n").ok()?;
    assert_eq!(line()?, "BEGIN\r\n");
    for number in 0.. {
        let (serial, asked) = read_call(&mut stream)?;
        match manner {
            Manner::Garbage => return stream.write_all(&[0xff; 64]).ok(),
            Manner::Claims(bytes) => {
                let claim =
                    [b"l\x02\0\x01".as_slice(), &bytes.to_le_bytes(), &[1, 0, 0, 0], &[0; 4]].concat();
                stream.write_all(&claim).ok()?;
                continue;
            }
            Manner::Floods => loop {
                stream.write_all(&message(4, 0, "", &[])).ok()?;
            },
            Manner::Closes if number == 1 => return stream.shutdown(std::net::Shutdown::Both).ok(),
            _ => {}
        }
        let says = if asked.member == "Hello" {
            let mut name = Body::default();
            name.string(":1.1");
            // A bus says this of itself, too; nobody asked.
            stream.write_all(&message(4, 0, "s", &name.0)).ok()?;
            Says::Reply("s", name)
        } else {
            script(&asked)
        };
        stream.write_all(&reply(serial, says)).ok()?;
    }
    None
}

fn reply(serial: u32, says: Says) -> Vec<u8> {
    let mut body = Body::default();
    match says {
        Says::Reply(signature, body) => message(2, serial, signature, &body.0),
        Says::Property(value) => message(2, serial, "v", &body.variant(&value, false).0),
        Says::Boolean(is) => message(2, serial, "v", &body.variant(&Owned::Number(is.into()), true).0),
        Says::Refusal(name) => refusal(serial, name),
    }
}

fn field(body: &mut Body, code: u8, kind: u8) {
    body.align(8).0.extend([code, 1, kind, 0]);
}

fn frame(kind: u8, fields: &Body, body: &[u8]) -> Vec<u8> {
    let mut out = vec![b'l', kind, 0, 1];
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(7u32.to_le_bytes());
    out.extend((fields.0.len() as u32).to_le_bytes());
    out.extend(&fields.0);
    out.resize(out.len().next_multiple_of(8), 0);
    out.extend(body);
    out
}

fn message(kind: u8, serial: u32, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut fields = Body::default();
    if serial > 0 {
        field(&mut fields, 5, b'u');
        fields.u32(serial);
    }
    field(&mut fields, 8, b'g');
    fields.0.push(signature.len() as u8);
    fields.0.extend(signature.as_bytes());
    fields.0.push(0);
    frame(kind, &fields, body)
}

fn refusal(serial: u32, name: &str) -> Vec<u8> {
    let mut fields = Body::default();
    field(&mut fields, 5, b'u');
    fields.u32(serial);
    field(&mut fields, 4, b's');
    fields.string(name);
    field(&mut fields, 8, b'g');
    fields.0.extend([1, b's', 0]);
    let mut words = Body::default();
    words.string("no");
    frame(3, &fields, &words.0)
}

/// Reads a call with the reader under test: what it misreads in its own calls, it would misread in answers.
fn read_call(stream: &mut UnixStream) -> Option<(u32, Asked)> {
    let mut bytes = vec![0; HEADER_BYTES];
    stream.read_exact(&mut bytes).ok()?;
    let length = message_length(bytes[..].try_into().unwrap()).unwrap();
    bytes.resize(length, 0);
    stream.read_exact(&mut bytes[HEADER_BYTES..]).ok()?;
    assert_eq!(bytes[1..4], [1, 2, 1], "a call that starts nobody");
    let call = message::tests::call(&bytes);
    Some(call)
}

fn service(socket: &Path, limit: Duration) -> Service {
    Service::new(socket.to_owned(), Route::Bus("test.Service"), limit)
}

fn echo(asked: &Asked) -> Says {
    Says::Property(Owned::Text(format!("{} of {}", asked.arguments[1], asked.path).into()))
}

fn many(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("/object/{n}")).collect()
}

fn names(connection: &mut Connection, paths: &[String]) -> io::Result<Vec<Result<Owned, Refusal>>> {
    let wanted: Vec<_> =
        paths.iter().map(|path| Property { path, interface: "test.Interface", name: "Name" }).collect();
    connection.properties(&wanted)
}

#[test]
fn many_properties_come_over_one_connection_that_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bus");
    let bus = FakeBus::start(&socket, echo);
    let mut service = service(&socket, SOON);
    let paths = many(500);
    for _ in 0..3 {
        let found = service.ask(|connection| names(connection, &paths)).unwrap();
        for (path, value) in paths.iter().zip(&found) {
            assert_eq!(value.as_ref().unwrap().text(), Some(&*format!("Name of {path}")));
        }
    }
    assert_eq!(bus.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_bus_that_was_started_anew_costs_no_scrape() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bus");
    let bus = FakeBus::start(&socket, echo);
    let mut service = service(&socket, SOON);
    let paths = many(3);
    service.ask(|connection| names(connection, &paths)).unwrap();
    bus.disconnect();
    service.ask(|connection| names(connection, &paths)).unwrap();
    assert_eq!(bus.connections.load(Ordering::SeqCst), 2);
}

#[test]
fn a_refusal_is_of_one_property_and_an_error_of_a_call() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bus");
    let _bus = FakeBus::start(&socket, |asked| match &*asked.path {
        "/object/1" => Says::Refusal("org.freedesktop.DBus.Error.AccessDenied"),
        "/object/2" => Says::Boolean(true),
        _ => echo(asked),
    });
    let mut service = service(&socket, SOON);
    let found = service.ask(|connection| names(connection, &many(3))).unwrap();
    assert!(found[0].is_ok());
    let refusal = found[1].as_ref().unwrap_err().to_string();
    assert_eq!(refusal, "org.freedesktop.DBus.Error.AccessDenied: no");
    assert_eq!(found[2].as_ref().unwrap().number(), Some(1));
    let call = Call { path: "/object/1", interface: "test.Interface", member: "List", arguments: &[] };
    let error = service.ask(|connection| connection.call(call, |_| Ok(()))).unwrap_err().to_string();
    assert!(error.contains(&*socket.to_string_lossy()), "{error}");
    assert!(error.contains("List: org.freedesktop.DBus.Error.AccessDenied"), "{error}");
}

#[test]
fn a_bus_that_misbehaves_is_named_with_what_it_does_and_forgiven() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bus");
    let bus = FakeBus::start(&socket, echo);
    // A bus that says nothing costs the limit; the others are found out at once, whatever the limit.
    let (brief, ample) = (Duration::from_millis(300), SOON);
    for (manner, limit, words) in [
        (Manner::Silent, brief, "has not answered within 0.3 s"),
        (Manner::Floods, brief, "has not answered within 0.3 s"),
        (Manner::Claims(1 << 20), brief, "has not answered within 0.3 s"),
        (Manner::Claims(MAX_MESSAGE_BYTES as u32), ample, "is not D-Bus"),
        (Manner::Garbage, ample, "is not D-Bus"),
        (Manner::Rejects, ample, "does not let this user in: \"REJECTED EXTERNAL\""),
        (Manner::Closes, ample, "unexpected end of file"),
    ] {
        let mut service = service(&socket, limit);
        bus.behave(manner);
        let begun = Instant::now();
        let error = service.ask(|connection| names(connection, &many(3))).unwrap_err().to_string();
        assert!(error.contains(words), "{manner:?}: {error}");
        assert!(begun.elapsed() < SOON, "{manner:?}");
        bus.behave(Manner::Sound);
        service.limit = SOON;
        service.ask(|connection| names(connection, &many(3))).unwrap();
    }
    drop(bus);
    std::fs::remove_file(&socket).unwrap();
    let error = service(&socket, SOON).ask(|_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn a_listener_that_never_accepts_costs_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("bus");
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&SockAddr::unix(&socket).unwrap()).unwrap();
    listener.listen(0).unwrap();
    // The queue holds one: who comes then waits within connect(2).
    let _first = UnixStream::connect(&socket).unwrap();
    let error = service(&socket, Duration::from_millis(300)).ask(|_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("has not answered within 0.3 s"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]
    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        kind in 0u8..5,
        cut in 0usize..160,
        place in 0usize..160,
        byte in any::<u8>(),
    ) {
        let _ = answer(&bytes);
        let mut sound = message(kind, 3, "a(ssssssouso)", &bytes);
        if let Some(at) = sound.get_mut(place) {
            *at = byte;
        }
        sound.truncate(cut.max(HEADER_BYTES));
        let _ = message_length(sound[..HEADER_BYTES].try_into().unwrap());
        if let Ok(Some(answer)) = answer(&sound)
            && let Ok(body) = answer.outcome
            && let Ok(mut reader) = body.of("a(ssssssouso)")
        {
            let _ = reader.structures(|s| Ok((s.string()?.len(), s.u32()?)));
        }
    }
}
