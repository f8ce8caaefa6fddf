//! Checks over HTTP beside blackbox_exporter.

use crate::beside::{Case, Difference, compare};
use crate::servers::{Pki, Says, answer, serve, serve_on, serve_tls};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use pegel_tests::free_port;
use std::io::Write as _;
use std::time::Duration;

const KEPT: &str =
    "a certificate that is refused is shown all the same: alerts on its expiry must not fall silent";

const STEADY: &str =
    "all phases are there in every run, so that series do not come and go with the name server";

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

/// Cases of one server each, over plain HTTP.
const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";

fn case(name: &'static str, settings: &str, target: impl ToString, success: bool) -> Case {
    Case { name, kind: "http", settings: settings.to_owned(), target: target.to_string(), success }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_answers_of_every_kind() {
    let ok = answer(
        "200 OK",
        &["X-Role: primary", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"],
        b"all is well",
    );
    let json = answer("200 OK", &["Content-Type: application/json"], br#"{"state": "green"}"#);
    let paths = vec![
        ("/ok", ok.clone()),
        ("/json", json),
        ("/empty", answer("204 No Content", &[], b"")),
        ("/chunked", CHUNKED.to_vec()),
        ("/until-end", b"HTTP/1.0 200 OK\r\n\r\nto the end".to_vec()),
        ("/teapot", answer("418 Teapot", &[], b"short and stout")),
        ("/away", answer("302 Found", &["Location: /ok"], b"elsewhere")),
        ("/loop", answer("302 Found", &["Location: /loop"], b"")),
        ("/nowhere", answer("302 Found", &[], b"no location")),
        ("/gzip", answer("200 OK", &["Content-Encoding: gzip"], &gzip(&[b'x'; 5_000]))),
        ("/deflate", answer("200 OK", &["Content-Encoding: deflate"], &deflate(b"deflated"))),
        ("/zlib", answer("200 OK", &["Content-Encoding: deflate"], &zlib(b"with a frame"))),
        ("/large", answer("200 OK", &[], &[b'y'; 100_000])),
    ];
    let base = format!("http://{}", serve(Says::Paths(paths)).await);
    let slow = serve(Says::Slowly(ok.clone(), Duration::from_millis(2))).await;
    let hanging = serve(Says::Nothing).await;
    let resetting = serve(Says::Reset).await;
    let ending = serve(Says::End).await;
    let halfway =
        serve(Says::ThenNothing(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec())).await;
    let cut = serve(Says::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec())).await;
    let garbage = serve(Says::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec())).await;
    let refused = free_port();
    let at = |path: &str| format!("{base}{path}");
    let cases = [
        case("ok", "{}", at("/ok"), true),
        case("no_scheme", "{}", at("/ok").trim_start_matches("http://"), true),
        case("empty", "{}", at("/empty"), true),
        case("chunked", "{}", at("/chunked"), true),
        case("until_end", "{}", at("/until-end"), true),
        case("head", "{method: HEAD}", at("/empty"), true),
        case("not_found", "{}", at("/missing"), false),
        case("teapot_is_valid", "{valid_status_codes: [418]}", at("/teapot"), true),
        case("post", "{method: POST, body: hello, headers: {X-Try: 'yes'}}", at("/ok"), true),
        case("redirected", "{}", at("/away"), true),
        case("redirect_not_followed", "{follow_redirects: false}", at("/away"), false),
        case("redirect_is_valid", "{follow_redirects: false, valid_status_codes: [302]}", at("/away"), true),
        case("redirect_loop", "{}", at("/loop"), false),
        case("redirect_nowhere", "{}", at("/nowhere"), false),
        case("body_matches", "{fail_if_body_matches_regexp: ['well$']}", at("/ok"), false),
        case("body_matches_not", "{fail_if_body_not_matches_regexp: ['(?i)ALL', 'ill']}", at("/ok"), false),
        case("body_is_right", "{fail_if_body_not_matches_regexp: ['is w.ll']}", at("/ok"), true),
        case(
            "header_is_right",
            "{fail_if_header_not_matches: [{header: x-role, regexp: ^prim}]}",
            at("/ok"),
            true,
        ),
        case(
            "header_matches",
            "{fail_if_header_matches: [{header: X-Role, regexp: prim}]}",
            at("/ok"),
            false,
        ),
        case("header_missing", "{fail_if_header_matches: [{header: X-None, regexp: a}]}", at("/ok"), false),
        case(
            "header_may_be_missing",
            "{fail_if_header_not_matches: [{header: X-None, regexp: a, allow_missing: true}]}",
            at("/ok"),
            true,
        ),
        case("gzip", "{compression: gzip, headers: {Accept-Encoding: gzip}}", at("/gzip"), true),
        case("gzip_not_unpacked", "{}", at("/gzip"), true),
        case(
            "gzip_too_large",
            "{compression: gzip, body_size_limit: 1KiB, headers: {Accept-Encoding: gzip}}",
            at("/gzip"),
            false,
        ),
        case("deflate", "{compression: deflate, headers: {Accept-Encoding: deflate}}", at("/deflate"), true),
        case("not_compressed", "{compression: gzip, headers: {Accept-Encoding: gzip}}", at("/ok"), false),
        case("too_large", "{body_size_limit: 10KiB}", at("/large"), false),
        case("large", "{}", at("/large"), true),
        case("version", "{valid_http_versions: [HTTP/1.1]}", at("/until-end"), false),
        case("not_ssl", "{fail_if_not_ssl: true}", at("/ok"), false),
        case("slow", "{}", format!("http://{slow}/"), true),
        case("hanging", "{}", format!("http://{hanging}/"), false),
        case("resetting", "{}", format!("http://{resetting}/"), false),
        case("ending", "{}", format!("http://{ending}/"), false),
        case("half_closing", "{}", format!("http://{cut}/"), false),
        case("hanging_in_body", "{}", format!("http://{halfway}/"), false),
        case("garbage", "{}", format!("http://{garbage}/"), false),
        case("refused", "{}", format!("http://127.0.0.1:{refused}/"), false),
    ];
    compare(&cases, PLAIN_DIFFERENCES).await;
}

const READ: &str = "the body of a redirect that is not followed is read, so that it can be matched";
const PLAIN_DIFFERENCES: &[Difference] = &[
    ("redirect_not_followed", "probe_http_uncompressed_body_length", READ),
    ("redirect_is_valid", "probe_http_uncompressed_body_length", READ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_blackbox_does_not_take_or_takes_otherwise() {
    let zlib = answer("200 OK", &["Content-Encoding: deflate"], &zlib(b"with a frame"));
    let zlib = serve(Says::Bytes(zlib)).await;
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("agent.yaml");
    let yaml = format!(
        "host: {{enabled: false}}\ncontainers: {{enabled: false}}\nprobes:\n  checks:\n    - {{name: c, kind: http, \
         targets: [\"http://{zlib}/\"], http: {{compression: deflate, headers: {{Accept-Encoding: deflate}}}}}}\n"
    );
    std::fs::write(&config, yaml).expect("a configuration");
    let output = std::process::Command::new(pegel_tests::binary("pegel-agent"))
        .arg("once")
        .arg("--config")
        .arg(&config)
        .output()
        .expect("pegel-agent runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let success = text.lines().find(|line| line.starts_with("probe_success")).expect("a verdict");
    assert!(success.ends_with(" 1"), "deflate as HTTP defines it, with zlib's frame: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_every_quality() {
    let pki = Pki::new();
    let ok = || Says::Bytes(answer("200 OK", &[], b"secret"));
    let good = serve_tls(ok(), pki.server(&["localhost", "127.0.0.1", "a.example"], -1, 90)).await;
    let expired = serve_tls(ok(), pki.server(&["127.0.0.1"], -30, -1)).await;
    let early = serve_tls(ok(), pki.server(&["127.0.0.1"], 1, 90)).await;
    let wrong_name = serve_tls(ok(), pki.server(&["other.example"], -1, 90)).await;
    let alone = serve_tls(ok(), pki.self_signed(&["127.0.0.1"], "alone.pem")).await;
    let plain = serve(Says::Bytes(b"no TLS here\r\n\r\n".to_vec())).await;
    let redirecting =
        serve(Says::Bytes(answer("301 Moved", &[&format!("Location: https://{good}/")], b""))).await;
    let ca = format!("ca_file: {}", pki.ca_file().display());
    let own = format!("ca_file: {}", pki.dir().join("alone.pem").display());
    let with = |tls: &str| format!("{{tls_config: {{{tls}}}}}");
    let at = |address: std::net::SocketAddr| format!("https://{address}/");
    let cases = [
        case("good", &with(&ca), at(good), true),
        case("good_by_name", &with(&format!("{ca}, server_name: a.example")), at(good), true),
        case(
            "by_host_header",
            &format!("{{headers: {{Host: a.example}}, tls_config: {{{ca}}}}}"),
            at(good),
            true,
        ),
        case("ssl_forbidden", &format!("{{fail_if_ssl: true, tls_config: {{{ca}}}}}"), at(good), false),
        case(
            "wrong_status",
            &format!("{{valid_status_codes: [404], tls_config: {{{ca}}}}}"),
            at(good),
            false,
        ),
        case("insecure", &with("insecure_skip_verify: true"), at(wrong_name), true),
        case("redirected_to_tls", &with(&ca), format!("http://{redirecting}/"), true),
        case("own_certificate_trusted", &with(&own), at(alone), true),
        case("self_signed_insecure", &with("insecure_skip_verify: true"), at(alone), true),
        case("expired", &with(&ca), at(expired), false),
        case("early", &with(&ca), at(early), false),
        case("wrong_name", &with(&ca), at(wrong_name), false),
        case("self_signed", &with(&ca), at(alone), false),
        case("no_tls_there", &with(&ca), at(plain), false),
    ];
    let differences: Vec<Difference> = ["expired", "early", "wrong_name", "self_signed"]
        .iter()
        .flat_map(|case| {
            [(*case, "probe_ssl_earliest_cert_expiry", KEPT), (*case, "probe_ssl_last_chain_info", KEPT)]
        })
        .collect();
    compare(&cases, &differences).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ip_protocols_are_preferred_and_fallen_back_to() {
    let ok = || Says::Bytes(answer("200 OK", &[], b"hi"));
    let four = serve(ok()).await;
    let port = serve_on("[::1]:0", ok(), None).await.port();
    let cases = [
        case("six_literal", "{}", format!("http://[::1]:{port}/"), true),
        case("four_literal", "{preferred_ip_protocol: ip4}", format!("http://{four}/"), true),
        case("falls_back_to_four", "{preferred_ip_protocol: ip6}", format!("http://{four}/"), true),
        case(
            "no_fallback",
            "{preferred_ip_protocol: ip6, ip_protocol_fallback: false}",
            format!("http://{four}/"),
            false,
        ),
        case("by_name", "{preferred_ip_protocol: ip4}", format!("http://localhost:{}/", four.port()), true),
        case(
            "by_name_without_six",
            "{preferred_ip_protocol: ip6, ip_protocol_fallback: false}",
            format!("http://localhost:{port}/"),
            false,
        ),
    ];
    let differences =
        ["no_fallback", "by_name_without_six"].map(|case| (case, "probe_http_duration_seconds", STEADY));
    compare(&cases, &differences).await;
}
