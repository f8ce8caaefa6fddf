//! Faults of runtimes, against sockets that follow a script.

use super::*;
use crate::source::container::{Change, RunState, RuntimeKind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Quick enough for a test, slow enough for a busy machine.
const PACE: Pace = Pace {
    call: Duration::from_millis(500),
    ping_every: Duration::from_millis(200),
    relist_every: Duration::from_secs(60),
    poll_every: Duration::from_millis(100),
    first_pause: Duration::from_millis(20),
    longest_pause: Duration::from_millis(100),
    look_every: Duration::from_millis(50),
};

/// An engine that answers by a script: a request's path to what is written. What ends with an open stream stays open.
struct Engine {
    dir: tempfile::TempDir,
    requests: Arc<Mutex<Vec<String>>>,
    listener: tokio::task::JoinHandle<()>,
}

/// What an engine does with a request.
enum Reply {
    /// Writes this and closes.
    Bytes(Vec<u8>),
    /// Writes this and leaves it at that.
    Open(Vec<u8>),
    /// Writes this again and again.
    Endless(Vec<u8>),
}

type Script = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

impl Engine {
    fn start(script: Script) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let listener = Self::listen(dir.path(), requests.clone(), script);
        Self { dir, requests, listener }
    }

    fn listen(dir: &Path, requests: Arc<Mutex<Vec<String>>>, script: Script) -> tokio::task::JoinHandle<()> {
        let socket = dir.join("docker.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(socket).expect("a socket");
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, requests.clone(), script.clone()));
            }
        })
    }

    /// From now on it does this; connections that are open break.
    fn becomes(&mut self, script: Script) {
        self.listener.abort();
        self.listener = Self::listen(self.dir.path(), self.requests.clone(), script);
    }

    fn count(&self, what: &str) -> usize {
        self.requests.lock().iter().filter(|path| path.contains(what)).count()
    }

    fn settings(&self) -> Settings {
        let socket = Socket { kind: RuntimeKind::Docker, path: self.dir.path().join("docker.sock") };
        Settings { sockets: Sockets::These(vec![socket]), pace: PACE, ..Settings::default() }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn serve(mut stream: UnixStream, requests: Arc<Mutex<Vec<String>>>, script: Script) {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(n @ 1..) => head.extend(&buffer[..n]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    requests.lock().push(path.clone());
    match script(&path) {
        Reply::Bytes(bytes) => drop(stream.write_all(&bytes).await),
        Reply::Open(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.read(&mut buffer).await;
        }
        Reply::Endless(bytes) => while stream.write_all(&bytes).await.is_ok() {},
    }
}

fn json(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn ok(body: &str) -> Reply {
    Reply::Bytes(json("200 OK", body))
}

/// An event stream that says this and goes on.
fn events(lines: &str) -> Vec<u8> {
    let chunk = if lines.is_empty() { String::new() } else { format!("{:x}\r\n{lines}\r\n", lines.len()) };
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}")
        .into_bytes()
}

const VERSION: &str =
    r#"{"ApiVersion":"1.41","Version":"20.10.24","Components":[{"Name":"Engine","Version":"20.10.24"}]}"#;
const LIST: &str = r#"[{"Id":"aa11","Names":["/web"],"Image":"shop:1","State":"running","Labels":{"tier":"front"},"Created":1700000000}]"#;
/// Its first process is this test's: one that is not there would have ended the container.
fn inspect() -> String {
    INSPECT.replace("4711", &std::process::id().to_string())
}

const INSPECT: &str = r#"{"Id":"aa11","Name":"/web","Created":"2026-11-21T15:34:36.1Z","RestartCount":2,
    "State":{"Status":"running","Running":true,"Pid":4711,"StartedAt":"2026-11-21T15:34:37.5Z"},
    "Config":{"Image":"shop:1","Env":["PASSWORD=secret"],"Labels":{"tier":"front"}},"HostConfig":{"NetworkMode":"bridge"}}"#;

/// An engine as it should be, with one container.
fn healthy(path: &str) -> Reply {
    match path.split('?').next().unwrap_or_default() {
        "/version" => ok(VERSION),
        "/v1.41/events" => Reply::Open(events("")),
        "/v1.41/containers/json" => ok(LIST),
        "/v1.41/containers/aa11/json" => ok(&inspect()),
        "/v1.41/_ping" => ok("OK"),
        other => Reply::Bytes(json("404 Not Found", &format!(r#"{{"message":"no {other}"}}"#))),
    }
}

/// An engine that is healthy but for one request.
fn but(part: &'static str, reply: impl Fn() -> Reply + Send + Sync + 'static) -> Script {
    Arc::new(move |path| if path.contains(part) { reply() } else { healthy(path) })
}

struct Bench {
    discovery: Discovery,
    catalogue: Arc<Catalogue>,
    registry: Registry,
}

impl Bench {
    fn start(settings: Settings) -> Self {
        let (catalogue, registry) = (Arc::new(Catalogue::default()), Registry::new());
        let discovery = Discovery::start(settings, catalogue.clone(), &registry, &CancellationToken::new());
        Self { discovery, catalogue, registry }
    }

    async fn until(&self, what: &str, fits: impl Fn(&RuntimeStatus) -> bool) -> RuntimeStatus {
        let words = || format!("{what}; it is {:?}", self.discovery.status());
        eventually_or(words, || self.discovery.status().into_iter().find(|status| fits(status))).await
    }

    async fn is_watching(&self) -> RuntimeStatus {
        self.until("the engine is watched", |s| s.state == RuntimeState::Watching).await
    }

    async fn is_away(&self, because: &str) -> RuntimeStatus {
        self.until(&format!("it is away: {because}"), |s| {
            s.state == RuntimeState::Away && s.last_error.as_ref().is_some_and(|e| e.contains(because))
        })
        .await
    }
}

async fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_or(|| what.to_owned(), look).await
}

async fn eventually_or<T>(what: impl Fn() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..3_000 {
        ticks.tick().await;
        if let Some(found) = look() {
            return found;
        }
    }
    panic!("it did not come true that {}", what());
}

#[tokio::test]
async fn the_api_version_is_negotiated_and_events_are_asked_for_before_the_list() {
    let engine = Engine::start(Arc::new(healthy));
    let bench = Bench::start(engine.settings());
    let status = bench.is_watching().await;
    assert_eq!((status.kind, status.version.as_deref(), status.containers), ("docker", Some("20.10.24"), 1));
    let container = bench.catalogue.container("aa11").expect("it is known");
    assert_eq!(
        (&*container.name, container.pid, container.restarts),
        ("web", Some(std::process::id()), Some(2))
    );
    assert!(container.env.is_empty() && container.started_ms == Some(1_795_275_277_500));
    let requests = engine.requests.lock();
    let at = |part: &str| requests.iter().position(|path| path.contains(part)).expect(part);
    assert!(at("/v1.41/events?") < at("/v1.41/containers/json?"), "{requests:?}");
    assert!(bench.registry.render().contains("pegel_runtime_up{socket="));
}

#[tokio::test]
async fn podman_is_told_by_its_components_and_asked_for_all_events() {
    let podman = VERSION.replace("\"Engine\"", "\"Podman Engine\"");
    let engine = Engine::start(but("version", move || ok(&podman)));
    let bench = Bench::start(engine.settings());
    assert_eq!(bench.is_watching().await.kind, "podman");
    assert!(engine.requests.lock().iter().all(|path| !path.contains("health_status")));
    assert_eq!(bench.catalogue.container("aa11").map(|c| c.runtime), Some(RuntimeKind::Podman));
}

#[tokio::test]
async fn whatever_hangs_is_named_and_names_return() {
    for part in ["version", "containers/json", "containers/aa11", "_ping"] {
        let mut engine = Engine::start(but(part, || Reply::Open(Vec::new())));
        let bench = Bench::start(engine.settings());
        bench.is_away("was not answered within 500ms").await;
        engine.becomes(Arc::new(healthy));
        bench.is_watching().await;
        assert!(bench.catalogue.container("aa11").is_some(), "{part}");
    }
}

#[tokio::test]
async fn garbage_is_named_without_a_piece_of_it() {
    for (part, reply, words) in [
        ("version", b"\x00\x01secret\r\n\r\n".to_vec(), "it is no HTTP"),
        ("version", json("200 OK", "{}"), "names no API version"),
        ("containers/json", json("200 OK", r#"[{"Id":"aa11","State":"secret"}]"#), "not as the API has it"),
        ("containers/json", json("200 OK", "[{"), "can't be understood"),
        (
            "containers/json",
            json("500 Internal Server Error", r#"{"message":"disk on fire"}"#),
            "status 500: disk on fire",
        ),
        (
            "containers/json",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[".to_vec(),
            "the connection ended",
        ),
        (
            "containers/json",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[{\"I".to_vec(),
            "the connection ended",
        ),
        ("events", events("{\"Type\": 7}\n"), "can't be understood"),
    ] {
        let engine = Engine::start(but(part, move || Reply::Bytes(reply.clone())));
        let bench = Bench::start(engine.settings());
        let status = bench.is_away(words).await;
        assert!(!status.last_error.expect("an error").contains("secret"), "{part} {words}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let endless: [(&str, &[u8]); 3] = [
        ("containers/json", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"),
        ("events", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"),
        ("version", b"HTTP/1.1 200 OK\r\nX-Header: "),
    ];
    for (part, begin) in endless {
        let first = AtomicUsize::new(0);
        let engine = Engine::start(but(part, move || {
            // Whatever is endless begins as an answer.
            first.fetch_add(1, Ordering::Relaxed);
            let mut bytes = begin.to_vec();
            bytes.resize(bytes.len() + (64 << 10), b' ');
            Reply::Endless(bytes)
        }));
        let bench = Bench::start(engine.settings());
        bench.until(part, |s| s.state == RuntimeState::Away && s.last_error.is_some()).await;
    }
}

#[tokio::test]
async fn a_container_that_is_gone_before_it_is_asked_about_is_nobodys_trouble() {
    let engine = Engine::start(but("aa11/json", || {
        Reply::Bytes(json("404 Not Found", r#"{"message":"no such container"}"#))
    }));
    let bench = Bench::start(engine.settings());
    let status = bench.is_watching().await;
    assert_eq!((status.containers, status.last_error), (0, None));
}

#[tokio::test]
async fn a_container_that_cannot_be_understood_has_what_the_list_says() {
    let engine = Engine::start(but("aa11/json", || ok(r#"{"Id":"aa11","State":{"Status":"molten"}}"#)));
    let bench = Bench::start(engine.settings());
    let status = bench.is_watching().await;
    assert!(status.last_error.is_some_and(|words| words.contains("container aa11: ")));
    let container = bench.catalogue.container("aa11").expect("it is known");
    assert_eq!((&*container.name, &*container.image, container.pid), ("web", "shop:1", None));
}

#[tokio::test]
async fn a_flood_of_events_is_read_slowly_and_ends_in_a_look_at_everything() {
    let flood = r#"{"Type":"container","Action":"start","Actor":{"ID":"aa11","Attributes":{}},"timeNano":1795275277500000000}"#;
    let line = format!("{flood}\n");
    let chunk = format!("{:x}\r\n{line}\r\n", line.len()).repeat(100);
    let begin = Arc::new(Mutex::new(Some(events(""))));
    let engine = Engine::start(Arc::new(move |path| {
        if !path.contains("events") {
            return healthy(path);
        }
        let mut bytes = begin.lock().take().unwrap_or_default();
        bytes.extend(chunk.repeat(14).into_bytes());
        Reply::Bytes(bytes)
    }));
    let bench = Bench::start(engine.settings());
    let mut changes = bench.catalogue.changes();
    bench.until("the flood was read or cut", |s| s.state == RuntimeState::Away).await;
    let rendered = bench.registry.render();
    let read =
        rendered.lines().find(|line| line.starts_with("pegel_runtime_events_total")).expect("a counter");
    let read: f64 = read.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(read >= 1_400.0, "{read}");
    assert!(engine.count("aa11/json") < 1_000, "not a question for each event");
    let started = std::iter::from_fn(|| changes.try_recv().ok()).filter(|c| matches!(c, Change::Started(_)));
    assert!(started.count() <= 1);
}

#[tokio::test]
async fn a_socket_that_may_not_be_opened_is_named_with_what_to_do() {
    let trouble = trouble::Trouble::connecting(&std::io::Error::from_raw_os_error(13));
    assert!(trouble.to_string().contains("into the socket's group"), "{trouble}");
    let gone = Settings {
        sockets: Sockets::These(vec![Socket {
            kind: RuntimeKind::Docker,
            path: "/nowhere/docker.sock".into(),
        }]),
        pace: PACE,
        ..Settings::default()
    };
    Bench::start(gone).is_away("nobody answers on its socket").await;
}

#[tokio::test]
async fn one_runtime_that_hangs_does_not_hold_up_another() {
    let hangs = Engine::start(Arc::new(|_| Reply::Open(Vec::new())));
    let works = Engine::start(Arc::new(healthy));
    let both = [hangs.settings(), works.settings()].map(|s| match s.sockets {
        Sockets::These(sockets) => sockets,
        Sockets::WellKnown { .. } => Vec::new(),
    });
    let bench = Bench::start(Settings { sockets: Sockets::These(both.concat()), ..works.settings() });
    bench.is_watching().await;
    assert_eq!(bench.catalogue.all().len(), 1);
    bench.is_away("was not answered").await;
}

#[tokio::test]
async fn a_runtime_that_is_installed_later_is_found_and_one_that_is_removed_is_forgotten() {
    let root = tempfile::tempdir().expect("a directory");
    let sockets = Sockets::WellKnown { root: root.path().to_owned() };
    let bench = Bench::start(Settings { sockets, pace: PACE, ..Settings::default() });
    assert_eq!(bench.discovery.status(), []);
    std::fs::create_dir(root.path().join("run")).expect("a directory");
    let empty = |path: &str| if path.contains("containers/json") { ok("[]") } else { healthy(path) };
    let engine = Engine::listen(&root.path().join("run"), Arc::default(), Arc::new(empty));
    bench.is_watching().await;
    engine.abort();
    std::fs::remove_file(root.path().join("run/docker.sock")).expect("the socket goes");
    eventually("it is forgotten", || bench.discovery.status().is_empty().then_some(())).await;
}

#[tokio::test]
async fn events_tell_of_ends_and_what_was_missed_is_found_on_return() {
    let at = "1795275290000000000";
    let die = format!(
        "{{\"Type\":\"container\",\"Action\":\"die\",\"Actor\":{{\"ID\":\"aa11\",\"Attributes\":{{\"exitCode\":\"3\"}}}},\"timeNano\":{at}}}\n"
    );
    let exited = INSPECT.replace(
        "\"Status\":\"running\",\"Running\":true,\"Pid\":4711",
        "\"Status\":\"exited\",\"ExitCode\":3",
    );
    let mut engine = Engine::start(Arc::new(healthy));
    let bench = Bench::start(engine.settings());
    bench.is_watching().await;
    let mut changes = bench.catalogue.changes();
    engine.becomes(Arc::new(move |path| match path {
        path if path.contains("events") => Reply::Open(events(&die)),
        path if path.contains("containers/json") => ok("[]"),
        path if path.contains("aa11/json") => ok(&exited),
        path => healthy(path),
    }));
    let told = eventually("its end is told", || changes.try_recv().ok()).await;
    assert!(matches!(&told, Change::Stopped { exit_code: Some(3), .. }), "{told:?}");
    let state = bench.catalogue.container("aa11").map(|c| c.state);
    assert_eq!(state, Some(RunState::Exited), "known until its last data was sent");
}
