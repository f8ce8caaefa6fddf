//! The listeners with real senders: util-linux's `logger`, and rustls for TLS.

use crate::intake::{Inbox, log_intake};
use crate::source::log::checkpoints::Checkpoints;
use crate::source::log::cutter::Cutter;
use crate::source::log::shape::{self, Shaper};
use crate::source::log::syslog::input::{Parts, Syslog};
use crate::source::log::syslog::{Listener, Part, Settings, Tls};
use jiff::tz::TimeZone;
use pegel_proto::batch::Content;
use pegel_proto::identity::NodeId;
use pegel_runtime::http_client::{crypto_provider, read_certificates};
use pegel_runtime::metrics::Registry;
use pegel_runtime::pki::{AggregatorNames, CertificateAuthority, DEFAULT_LEAF_LIFETIME, Existing};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Messages of a sender that is faster than delivery.
const MESSAGES: usize = 40_000;

const WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, PartialEq)]
struct Got {
    labels: BTreeMap<String, String>,
    metadata: BTreeMap<String, String>,
    line: String,
}

struct Running {
    syslog: Syslog,
    inbox: Inbox,
    shutdown: CancellationToken,
    registry: Registry,
    got: Vec<Got>,
    dir: TempDir,
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn settings(listeners: Vec<Listener>) -> Settings {
    Settings {
        listeners,
        message_bytes: 8_192,
        connections: 4,
        labels: vec![Part::Host, Part::App, Part::Level],
        use_time: true,
        zone: TimeZone::system(),
    }
}

async fn start(listeners: impl FnOnce(&Path) -> Vec<Listener>) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(listeners(dir.path()));
    let checkpoints = Checkpoints::open(&dir.path().join("state")).unwrap().checkpoints;
    let (intake, receiver) = log_intake();
    let shutdown = CancellationToken::new();
    let registry = Registry::new();
    let syslog = Syslog::start(Parts {
        name: "syslog".to_owned(),
        settings,
        labels: BTreeMap::from([("job".to_owned(), "syslog".to_owned())]),
        shaper: Shaper::new(&shape::Settings::default()),
        cutter: Cutter::new(checkpoints, intake, 1),
        registry: registry.clone(),
        shutdown: shutdown.clone(),
    });
    let running = Running { syslog, inbox: Inbox::Logs(receiver), shutdown, registry, got: Vec::new(), dir };
    let deadline = Instant::now() + WITHIN;
    while running.syslog.status().listeners.iter().any(|listener| listener.bound.is_none()) {
        assert!(Instant::now() < deadline, "{:?}", running.syslog.status());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running
}

impl Running {
    fn bound(&self, nth: usize) -> SocketAddr {
        self.syslog.status().listeners[nth].bound.as_ref().unwrap().parse().unwrap()
    }

    async fn until(&mut self, entries: usize) -> &[Got] {
        let deadline = Instant::now() + WITHIN;
        while self.got.len() < entries {
            assert!(Instant::now() < deadline, "{entries} entries, but {:?}", self.got);
            let Some(Content::Logs(logs)) = self.inbox.take_now() else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let own = |pairs: Vec<(&str, &str)>| {
                pairs.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect::<BTreeMap<_, _>>()
            };
            let block = logs.block.decode().unwrap();
            for entry in block.entries() {
                self.got.push(Got {
                    labels: own(block.labels(entry.stream()).collect()),
                    metadata: own(entry.metadata().collect()),
                    line: entry.line().to_owned(),
                });
            }
        }
        &self.got
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.syslog.stopped().await;
    }
}

/// Runs `logger`; false where there is none.
async fn logger(arguments: &[&str]) -> bool {
    match tokio::process::Command::new("logger").args(arguments).status().await {
        Ok(status) => {
            assert!(status.success(), "logger {arguments:?} ended with {status}");
            true
        }
        Err(error) => {
            eprintln!("SKIPPED: util-linux's logger can't be run: {error}");
            false
        }
    }
}

#[tokio::test]
async fn what_logger_sends_arrives_with_its_parts() {
    let mut running = start(|dir| {
        vec![
            Listener::Udp(any_port()),
            Listener::Tcp(any_port()),
            Listener::UnixDatagram(dir.join("log")),
            Listener::UnixStream(dir.join("stream")),
        ]
    })
    .await;
    let (udp, tcp) = (running.bound(0).port().to_string(), running.bound(1).port().to_string());
    let (gram, stream) = (running.dir.path().join("log"), running.dir.path().join("stream"));
    let server = ["--server", "127.0.0.1", "--port"];
    let to = |port: &str, more: &[&str]| {
        let mut all: Vec<String> = server.map(str::to_owned).to_vec();
        all.push(port.to_owned());
        all.extend(more.iter().map(|text| (*text).to_owned()));
        all
    };
    let sd = ["--sd-id", "zoo@123", "--sd-param", "tiger=\"hungry\"", "--msgid", "M1"];
    let mut rich = vec!["--tcp", "--octet-count", "--rfc5424", "-t", "app5424", "-p", "local3.err"];
    rich.extend(sd);
    rich.push("octet counted");
    let runs = [
        to(&udp, &["--udp", "--rfc3164", "-t", "app3164", "-i", "-p", "auth.warning", "over udp"]),
        to(&tcp, &rich),
        to(&tcp, &["--tcp", "--rfc5424", "-t", "lines", "line framed"]),
        to(&tcp, &["--tcp", "--rfc3164", "-t", "lines", "line framed, old"]),
    ];
    for (nth, run) in runs.iter().enumerate() {
        let run: Vec<&str> = run.iter().map(String::as_str).collect();
        if !logger(&run).await {
            return running.stop().await;
        }
        running.until(nth + 1).await;
    }
    for path in [&gram, &stream] {
        assert!(
            logger(&["--socket", path.to_str().unwrap(), "-t", "local", "-p", "daemon.info", "by socket"])
                .await
        );
    }
    let got = running.until(6).await.to_vec();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let of = |got: &Got, names: &[&str]| {
        names
            .iter()
            .map(|name| got.labels.get(*name).or(got.metadata.get(*name)).cloned())
            .collect::<Vec<_>>()
    };
    let some = |texts: &[&str]| texts.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>();
    assert_eq!(
        of(&got[0], &["app", "level", "facility", "job"]),
        some(&["app3164", "warning", "auth", "syslog"])
    );
    assert_eq!((got[0].line.as_str(), got[0].metadata["peer"].as_str()), ("over udp", "127.0.0.1"));
    assert!(got[0].metadata["procid"].parse::<u32>().is_ok());
    assert_eq!(
        of(&got[1], &["app", "level", "facility", "msgid"]),
        some(&["app5424", "error", "local3", "M1"])
    );
    // Loki takes no `@` and no dot in a name.
    assert_eq!(
        (got[1].line.as_str(), got[1].metadata["zoo_123_tiger"].as_str()),
        ("octet counted", "hungry"),
        "{got:?}"
    );
    assert_eq!((got[2].line.as_str(), got[3].line.as_str()), ("line framed", "line framed, old"));
    for got in &got[4..] {
        assert_eq!(of(got, &["app", "level", "facility"]), some(&["local", "info", "daemon"]));
        assert_eq!((got.line.as_str(), got.metadata.get("peer")), ("by socket", None));
    }
    // util-linux writes the short name.
    assert_eq!(got[1].labels["host"].split('.').next(), host.split('.').next());
    assert!(got.iter().all(|got| !got.metadata.contains_key("syslog_flaw")), "{got:?}");
    let metrics = running.registry.render();
    assert!(metrics.contains("pegel_log_syslog_messages_total{input=\"syslog\"} 6"), "{metrics}");
    running.stop().await;
    assert!(!gram.exists() || !stream.exists());
}

#[tokio::test]
async fn bad_messages_are_kept_with_a_flaw_and_long_ones_are_cut() {
    let mut running = start(|_| vec![Listener::Tcp(any_port())]).await;
    let mut client = TcpStream::connect(running.bound(0)).await.unwrap();
    let long = "y".repeat(20_000);
    let sent = format!(
        "not syslog at all\n<13>1 2026-13-45T00:00:00Z h a - - - bad time\n<13>1 - h a - - - {long}\n<13>1 1999-01-01T00:00:00Z h a - - - old"
    );
    client.write_all(sent.as_bytes()).await.unwrap();
    client.write_all(b"\xff\xfe\n").await.unwrap();
    client.shutdown().await.unwrap();
    let got = running.until(4).await;
    assert_eq!(
        (got[0].line.as_str(), got[0].metadata["syslog_flaw"].as_str()),
        ("not syslog at all", "no_priority")
    );
    assert_eq!((got[1].line.as_str(), got[1].metadata["syslog_flaw"].as_str()), ("bad time", "bad_time"));
    assert_eq!(
        (got[2].line.len(), got[2].metadata["cut"].as_str()),
        (8_192 - "<13>1 - h a - - - ".len(), "true")
    );
    assert_eq!(got[3].metadata["syslog_time"], "1999-01-01T00:00:00Z");
    assert_eq!(got[3].line, "old\u{fffd}\u{fffd}");
    let metrics = running.registry.render();
    assert!(
        metrics.contains("pegel_log_syslog_flawed_messages_total{flaw=\"no_priority\",input=\"syslog\"} 1")
            || metrics
                .contains("pegel_log_syslog_flawed_messages_total{input=\"syslog\",flaw=\"no_priority\"} 1"),
        "{metrics}"
    );
    running.stop().await;
}

#[tokio::test]
async fn tls_asks_for_client_certificates_where_it_is_told_to() {
    let pki = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::init(&pki.path().join("ca"), "t", DEFAULT_LEAF_LIFETIME, Existing::Refuse)
        .unwrap();
    let names = AggregatorNames {
        name: NodeId::parse("syslog").unwrap(),
        dns: vec!["localhost".to_owned()],
        addresses: Vec::new(),
    };
    let files = ca.issue_aggregator(&names, DEFAULT_LEAF_LIFETIME, Existing::Refuse).unwrap();
    let tls = Tls { cert: files.cert.clone(), key: files.key.clone(), client_ca: None };
    let strict = Tls { client_ca: Some(ca.certificate_path()), ..tls.clone() };
    let mut running =
        start(|_| vec![Listener::Tls(any_port(), tls), Listener::Tls(any_port(), strict)]).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(read_certificates(&ca.certificate_path()).unwrap().remove(0)).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = || rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let tcp = TcpStream::connect(running.bound(0)).await.unwrap();
    let mut client = connector.connect(name(), tcp).await.unwrap();
    client.write_all(b"26 <34>1 - h su - - - by TLS.").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(running.until(1).await[0].line, "by TLS.");

    // Without a certificate the handshake fails, and is counted; so does a client that speaks no TLS.
    let tcp = TcpStream::connect(running.bound(1)).await.unwrap();
    if let Ok(mut client) = connector.connect(name(), tcp).await {
        let _ = client.write_all(b"26 <34>1 - h su - - - by TLS.").await;
        let _ = client.shutdown().await;
    }
    let mut plain = TcpStream::connect(running.bound(0)).await.unwrap();
    plain.write_all(b"<13>plain text, no TLS\n").await.unwrap();
    let deadline = Instant::now() + WITHIN;
    while !running.registry.render().contains("pegel_log_syslog_failed_handshakes_total{input=\"syslog\"} 2")
    {
        assert!(Instant::now() < deadline, "{}", running.registry.render());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(running.syslog.status().received, 1);
    running.stop().await;
}

#[tokio::test]
async fn without_room_streams_wait_and_datagrams_are_dropped_and_counted() {
    let mut running = start(|_| vec![Listener::Udp(any_port()), Listener::Tcp(any_port())]).await;
    let tcp = running.bound(1);
    // More than queue, blocks and the kernel's buffers hold; nothing takes blocks yet.
    let sender = tokio::spawn(async move {
        let mut client = TcpStream::connect(tcp).await.unwrap();
        for n in 0..MESSAGES {
            let line = format!("<13>1 - h a - - - {n} {}\n", "x".repeat(1_000));
            client.write_all(line.as_bytes()).await.unwrap();
        }
    });
    // The queue is full when the count of what was received stands still.
    let deadline = Instant::now() + WITHIN;
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = running.syslog.status().received;
        if now > 1_000 && now == before {
            break;
        }
        before = now;
        assert!(Instant::now() < deadline, "{now}");
    }
    assert!(!sender.is_finished(), "the sender waits");
    let udp = tokio::net::UdpSocket::bind(any_port()).await.unwrap();
    for _ in 0..20 {
        udp.send_to(&vec![b'z'; 8_000], running.bound(0)).await.unwrap();
    }
    let deadline = Instant::now() + WITHIN;
    while running.syslog.status().dropped == 0 {
        assert!(Instant::now() < deadline, "{:?}", running.syslog.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // With room again all of the stream arrives, each once and in order.
    let all: Vec<usize> = loop {
        let count = running.got.len() + 1;
        running.until(count).await;
        let numbers: Vec<usize> = running
            .got
            .iter()
            .filter(|got| !got.line.starts_with('z'))
            .filter_map(|got| got.line.split(' ').next()?.parse().ok())
            .collect();
        if numbers.len() == MESSAGES {
            break numbers;
        }
    };
    assert!(all.iter().copied().eq(0..MESSAGES));
    sender.await.unwrap();
    running.stop().await;
}
