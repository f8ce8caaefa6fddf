//! HTTP/1.1, HTTP/2 and HTTP/3, beside blackbox_exporter where it speaks them.

use crate::beside::{Case, Difference, compare};
use crate::once::once;
use crate::servers::{Pki, Says, answer, private_key, serve, serve_tls};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pegel_runtime::http_client::crypto_provider;
use pegel_tests::free_port;
use quinn::crypto::rustls::QuicServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

/// A server's TLS that offers protocols.
fn tls(pki: &Pki, from_days: i64, until_days: i64, protocols: &[&str]) -> rustls::ServerConfig {
    let (leaf, key) = pki.issue("server", &["127.0.0.1", "localhost"], from_days, until_days, |_| {});
    let mut config = rustls::ServerConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], private_key(&key)))
        .expect("a configuration");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

/// The page by the path: what was asked, 404, or a redirect.
fn page(request: &http::request::Parts) -> Response<Bytes> {
    let body = format!("{} {} by {:?}", request.method, request.uri.path(), request.version);
    let (status, location) = match request.uri.path() {
        "/missing" => (404, None),
        "/away" => (302, Some("/there".to_owned())),
        "/away-in-the-clear" => (302, Some("http://127.0.0.1:1/".to_owned())),
        _ => (200, None),
    };
    let mut answer = Response::builder().status(status).header("x-role", "primary");
    if let Some(location) = location {
        answer = answer.header("location", location);
    }
    let length = body.len();
    answer = answer.header("content-length", length);
    let body = if request.method == Method::HEAD { Bytes::new() } else { body.into() };
    answer.body(body).expect("an answer")
}

/// A server of HTTP/2 only, over TLS or in the clear.
async fn http2(tls: Option<rustls::ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| async move {
                    Ok::<_, std::convert::Infallible>(page(&request.into_parts().0).map(Full::new))
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                match tls {
                    None => drop(server.serve_connection(TokioIo::new(stream), service).await),
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            let _ = server.serve_connection(TokioIo::new(stream), service).await;
                        }
                    }
                }
            });
        }
    });
    address
}

/// A server of HTTP/3.
fn http3(tls: rustls::ServerConfig) -> SocketAddr {
    let config = QuicServerConfig::try_from(tls).expect("TLS 1.3");
    let config = quinn::ServerConfig::with_crypto(Arc::new(config));
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().expect("an address"));
    let endpoint = endpoint.expect("a port");
    let address = endpoint.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await.ok()?;
                let quic = h3_quinn::Connection::new(connection);
                let mut connection = h3::server::Connection::<_, Bytes>::new(quic).await.ok()?;
                while let Ok(Some(resolver)) = connection.accept().await {
                    let (request, mut stream) = resolver.resolve_request().await.ok()?;
                    let request = request.into_parts().0;
                    if request.uri.path() == "/hanging" {
                        std::future::pending::<()>().await;
                    }
                    if request.uri.path() == "/resetting" {
                        stream.stop_stream(h3::error::Code::H3_INTERNAL_ERROR);
                        continue;
                    }
                    let (head, body) = page(&request).into_parts();
                    stream.send_response(Response::from_parts(head, ())).await.ok()?;
                    if !body.is_empty() {
                        stream.send_data(body).await.ok()?;
                    }
                    stream.finish().await.ok()?;
                }
                Some(())
            });
        }
    });
    address
}

fn case(name: &'static str, settings: &str, target: impl ToString, success: bool) -> Case {
    Case { name, kind: "http", settings: settings.to_owned(), target: target.to_string(), success }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_beside_blackbox_exporter() {
    let pki = Pki::new();
    let ca = format!("tls_config: {{ca_file: {}}}", pki.ca_file().display());
    let two = http2(Some(tls(&pki, -1, 90, &["h2"]))).await;
    let one = serve_tls(Says::Bytes(answer("200 OK", &[], b"hi")), pki.server(&["127.0.0.1"], -1, 90)).await;
    let three = http3(tls(&pki, -1, 90, &["h3"]));
    let expired = http3(tls(&pki, -30, -1, &["h3"]));
    let quic = format!("enable_http3: true, enable_http2: false, {ca}");
    let cases = [
        case("two", &format!("{{{ca}}}"), format!("https://{two}/"), true),
        case(
            "two_is_valid",
            &format!(
                "{{{ca}, valid_http_versions: [HTTP/2.0], fail_if_body_not_matches_regexp: ['HTTP/2.0$']}}"
            ),
            format!("https://{two}/"),
            true,
        ),
        case("two_head", &format!("{{{ca}, method: HEAD}}"), format!("https://{two}/"), true),
        case("two_missing", &format!("{{{ca}}}"), format!("https://{two}/missing"), false),
        case("two_redirected", &format!("{{{ca}}}"), format!("https://{two}/away"), true),
        case(
            "two_is_not_valid",
            &format!("{{{ca}, valid_http_versions: [HTTP/1.1]}}"),
            format!("https://{two}/"),
            false,
        ),
        case("one", &format!("{{{ca}}}"), format!("https://{one}/"), true),
        case("one_only", &format!("{{{ca}, enable_http2: false}}"), format!("https://{one}/"), true),
        case("three", &format!("{{{quic}}}"), format!("https://{three}/"), true),
        case(
            "three_is_valid",
            &format!(
                "{{{quic}, valid_http_versions: [HTTP/3.0], fail_if_body_not_matches_regexp: ['^POST / by HTTP/3']\
                 , method: POST, body: hello, fail_if_header_not_matches: [{{header: X-Role, regexp: ^prim}}]}}"
            ),
            format!("https://{three}/"),
            true,
        ),
        case("three_missing", &format!("{{{quic}}}"), format!("https://{three}/missing"), false),
        case("three_redirected", &format!("{{{quic}}}"), format!("https://{three}/away"), true),
        case("three_from_http", &format!("{{{quic}}}"), format!("http://{three}/"), true),
        case("three_hanging", &format!("{{{quic}}}"), format!("https://{three}/hanging"), false),
        case("three_expired", &format!("{{{quic}}}"), format!("https://{expired}/"), false),
        case("three_not_there", &format!("{{{quic}}}"), format!("https://127.0.0.1:{}/", free_port()), false),
    ];
    compare(&cases, DIFFERENCES).await;
}

const SUITE: &str = "the suite of a QUIC connection is not told by the library that speaks it";
const SHOWN: &str =
    "what the handshake showed is reported though no answer came: alerts must not fall silent";
const CIPHER: &str = "probe_tls_cipher_info";
const DIFFERENCES: &[Difference] = &[
    ("three", CIPHER, SUITE),
    ("three_is_valid", CIPHER, SUITE),
    ("three_missing", CIPHER, SUITE),
    ("three_redirected", CIPHER, SUITE),
    ("three_from_http", CIPHER, SUITE),
    ("three_hanging", "probe_ssl_earliest_cert_expiry", SHOWN),
    ("three_hanging", "probe_ssl_last_chain_expiry_timestamp_seconds", SHOWN),
    ("three_hanging", "probe_ssl_last_chain_info", SHOWN),
    ("three_hanging", "probe_tls_version_info", SHOWN),
    ("three_expired", "probe_ssl_earliest_cert_expiry", SHOWN),
    ("three_expired", "probe_ssl_last_chain_info", SHOWN),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_version_may_be_demanded() {
    let pki = Pki::new();
    let ca = pki.ca_file();
    let secure_two = http2(Some(tls(&pki, -1, 90, &["h2"]))).await;
    let clear_two = http2(None).await;
    let ok = || Says::Bytes(answer("200 OK", &[], b"hi"));
    let secure_one = serve_tls(ok(), pki.server(&["127.0.0.1"], -1, 90)).await;
    let clear_one = serve(ok()).await;
    let three = http3(tls(&pki, -1, 90, &["h3"]));
    let wrong_protocol = http3(tls(&pki, -1, 90, &["hq-interop"]));
    // It hears the handshake's first packets, and says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let silent = silent.local_addr().expect("an address");
    let cases = [
        ("clear_two", "2", format!("http://{clear_two}/"), 2.0, ("", "")),
        ("secure_two", "2", format!("https://{secure_two}/"), 2.0, ("", "")),
        ("auto_two", "auto", format!("https://{secure_two}/"), 2.0, ("", "")),
        ("clear_one", "1.1", format!("http://{clear_one}/"), 1.1, ("", "")),
        ("auto_one", "auto", format!("http://{clear_one}/"), 1.1, ("", "")),
        ("three", "3", format!("https://{three}/"), 3.0, ("", "")),
        ("three_implied", "3", format!("{three}/"), 3.0, ("", "")),
        ("two_from_one", "2", format!("https://{secure_one}/"), 0.0, ("tls", "version")),
        ("two_from_one_clear", "2", format!("http://{clear_one}/"), 0.0, ("processing", "protocol")),
        ("one_from_two", "1.1", format!("https://{secure_two}/"), 0.0, ("tls", "handshake")),
        ("three_reset", "3", format!("https://{three}/resetting"), 0.0, ("processing", "reset")),
        ("three_hangs", "3", format!("https://{three}/hanging"), 0.0, ("processing", "timeout")),
        ("three_silent", "3", format!("https://{silent}/"), 0.0, ("connect", "timeout")),
        ("three_to_clear", "3", format!("https://{three}/away-in-the-clear"), 0.0, ("assertion", "redirect")),
        ("no_three", "3", format!("https://{wrong_protocol}/"), 0.0, ("tls", "handshake")),
    ];
    let checks: Vec<String> = cases
        .iter()
        .map(|(name, version, target, ..)| {
            format!(
                "{{name: {name}, kind: http, timeout: 3s, targets: ['{target}'], http: {{http_version: {version}, tls_config: {{ca_file: {}}}}}}}",
                ca.display()
            )
        })
        .collect();
    let (seen, said) = once(pki.dir(), &format!("{{checks: [{}]}}", checks.join(", ")));
    for (name, _, _, version, failure) in cases {
        let one = &seen[name];
        if name == "two_from_one_clear" {
            // What the library tells is a race between the broken connection and the request on it.
            assert!(matches!(one.failure(), ("processing", "protocol" | "closed")), "{one:?}");
        } else {
            assert_eq!(one.failure(), failure, "{name}: {one:?} {said}");
        }
        assert_eq!(one.value("probe_http_version"), Some(version), "{name}: {one:?}");
    }
    let three = &seen["three"];
    assert_eq!(three.value("probe_tls_version_info{version=\"TLS 1.3\"}"), Some(1.0), "{three:?}");
    assert!(three.value("probe_ssl_earliest_cert_expiry").is_some(), "{three:?}");
    for phase in ["tls", "processing"] {
        let took = three.value(&format!("probe_http_duration_seconds{{phase=\"{phase}\"}}"));
        assert!(took.is_some_and(|took| took > 0.0), "{phase}: {three:?}");
    }
}
