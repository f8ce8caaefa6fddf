//! One run over HTTP each: what is measured and why it fails.

use super::*;
use crate::source::probe::kinds::assertion::{JsonAssertion, JsonPath, JsonWanted, Pattern};

async fn run(answer: &'static str, change: impl FnOnce(&mut http::Settings)) -> (CheckStatus, Vec<Block>) {
    let url = format!("http://{}/path?q=1", server(answer).await);
    run_on(url, change).await
}

async fn run_on(url: String, change: impl FnOnce(&mut http::Settings)) -> (CheckStatus, Vec<Block>) {
    let (context, _receiver) = context();
    let mut of_http = http::Settings::default();
    change(&mut of_http);
    let mut check = check("c", &[url], Duration::from_secs(2));
    check.kind = Kind::Http(Box::new(of_http));
    let (mut results, problems) = probe_once(&settings(vec![check]), &context).await;
    assert_eq!(problems, Vec::<String>::new());
    results.remove(0)
}

/// Phase and reason of the failure; empty if there is none.
fn failure(status: &CheckStatus) -> (&'static str, &'static str) {
    (status.phase.unwrap_or_default(), status.reason.unwrap_or_default())
}

#[tokio::test]
async fn a_good_answer_has_all_series() {
    let answer = "HTTP/1.0 204 No\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
    let (status, blocks) = run(answer, |_| {}).await;
    assert_eq!(failure(&status), ("", ""), "{:?}", status.last_error);
    for (name, is) in [
        ("probe_success", 1.0),
        ("probe_http_status_code", 204.0),
        ("probe_http_version", 1.0),
        ("probe_http_content_length", 0.0),
        ("probe_http_uncompressed_body_length", 0.0),
        ("probe_http_redirects", 0.0),
        ("probe_http_ssl", 0.0),
        ("probe_ip_protocol", 4.0),
        // FNV-1a of 127.0.0.1.
        ("probe_ip_addr_hash", 3_668_918_509.0),
        ("probe_failed_due_to_regex", 0.0),
        ("probe_http_last_modified_timestamp_seconds", 784_111_777.0),
        ("probe_timeout_seconds", 2.0),
    ] {
        assert_eq!(value(&blocks, name, None), Some(is), "{name}");
    }
    for phase in ["resolve", "connect", "tls", "processing", "transfer"] {
        let took = value(&blocks, "probe_http_duration_seconds", Some(("phase", phase)));
        assert!(took.is_some_and(|t| (0.0..1.0).contains(&t)), "{phase}: {took:?}");
    }
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).unwrap()
}

fn header(text: &str) -> http::HeaderMatch {
    http::HeaderMatch { header: "x-role".parse().unwrap(), pattern: pattern(text), allow_missing: false }
}

fn json(wanted: &str) -> JsonAssertion {
    JsonAssertion { path: JsonPath::parse("state").unwrap(), wanted: JsonWanted::Equals(wanted.to_owned()) }
}

#[tokio::test]
async fn assertions_fail_with_their_reason_and_keep_the_measurements() {
    const ANSWER: &str =
        "HTTP/1.1 200 OK\r\nX-Role: standby\r\nContent-Length: 17\r\n\r\n{\"state\":\"green\"}";
    type Change = Box<dyn FnOnce(&mut http::Settings)>;
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|s| s.valid_status_codes = vec![201, 202]), "status"),
        (Box::new(|s| s.fail_if_header_matches = vec![header("^stand")]), "header"),
        (Box::new(|s| s.fail_if_header_not_matches = vec![header("^prim")]), "header"),
        (Box::new(|s| s.fail_if_body_matches = vec![pattern("green")]), "body"),
        (Box::new(|s| s.fail_if_body_not_matches = vec![pattern("red")]), "body"),
        (Box::new(|s| s.body_json = vec![json("red")]), "body"),
        (Box::new(|s| s.valid_versions = vec![::http::Version::HTTP_2]), "version"),
        (Box::new(|s| s.fail_if_not_ssl = true), "tls_use"),
        (Box::new(|s| s.body_size_limit = 5), "too_large"),
        (Box::new(|s| s.compression = Some(http::Compression::Gzip)), "compression"),
        (Box::new(|s| s.body_json = vec![json("green")]), ""),
    ];
    for (change, reason) in cases {
        let (status, blocks) = run(ANSWER, change).await;
        assert_eq!(failure(&status).1, reason, "{:?}", status.last_error);
        assert_eq!(value(&blocks, "probe_http_status_code", None), Some(200.0), "{reason}");
        let failed = ["probe_failed_due_to_regex", "pegel_probe_failed_due_to_json"];
        let failed = failed.iter().any(|name| value(&blocks, name, None) == Some(1.0));
        assert_eq!(failed, matches!(reason, "header" | "body"), "{reason}");
    }
}

#[tokio::test]
async fn broken_answers_have_their_phase_and_reason() {
    for (answer, expected) in [
        ("", ("processing", "closed")),
        ("garbage\r\n\r\n", ("processing", "protocol")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", ("transfer", "closed")),
        ("HTTP/1.1 302 Found\r\nLocation: ftp://x/\r\n\r\n", ("assertion", "redirect")),
        ("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", ("assertion", "status")),
    ] {
        let (status, _) = run(answer, |_| {}).await;
        assert_eq!(failure(&status), expected, "{answer:?}: {:?}", status.last_error);
    }
    let (status, blocks) = run_on("http://no-such-host.invalid/".to_owned(), |_| {}).await;
    assert_eq!(failure(&status).0, "resolve");
    assert_eq!(value(&blocks, "probe_http_status_code", None), Some(0.0));
}

#[tokio::test]
async fn redirects_are_followed_counted_and_ended() {
    let good = server(OK).await;
    let once: &'static str =
        format!("HTTP/1.1 302 Found\r\nLocation: http://{good}/x\r\nContent-Length: 0\r\n\r\n").leak();
    let (status, blocks) = run(once, |_| {}).await;
    assert_eq!(failure(&status), ("", ""), "{:?}", status.last_error);
    assert_eq!(value(&blocks, "probe_http_redirects", None), Some(1.0));
    let (status, blocks) = run(once, |s| s.follow_redirects = false).await;
    assert_eq!(failure(&status), ("assertion", "status"));
    assert_eq!(value(&blocks, "probe_http_status_code", None), Some(302.0));
    assert_eq!(value(&blocks, "probe_http_redirects", None), Some(1.0));
    let forever = "HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n";
    let (status, blocks) = run(forever, |_| {}).await;
    assert_eq!(failure(&status), ("assertion", "redirect"));
    assert_eq!(value(&blocks, "probe_http_redirects", None), Some(11.0));
}
