//! The verdict on the last answer: what it must be, and what is reported of it.

use super::body::{self, Reading, Taken};
use super::exchange::Answer;
use super::{
    BODY_LENGTH, FAILED_REGEX, HeaderMatch, JSON, LAST_MODIFIED, LENGTH, SSL, STATUS, Settings, VERSION,
    is_https,
};
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::run::{Run, Stopwatch};
use http::header::{self, HeaderMap};
use http::{Uri, Version};
use std::sync::Arc;
use std::time::SystemTime;

/// Holds the last answer against what must come. All of it is read and reported, whatever fails first.
pub(super) async fn judge(
    run: &mut Run,
    watch: &mut Stopwatch,
    settings: &Arc<Settings>,
    url: &Uri,
    answer: Answer,
    trouble: Option<Failure>,
) -> Result<(), Failure> {
    let tls = is_https(url);
    let status = answer.status().as_u16();
    run.record.set(&STATUS, f64::from(status));
    run.record.set(&SSL, f64::from(u8::from(tls)));
    run.record.set(&VERSION, version_number(answer.version()));
    run.record.set(&LENGTH, answer.content_length());
    if let Some(at) = last_modified(answer.headers()) {
        run.record.set(&LAST_MODIFIED, at);
    }
    let mut failure = trouble;
    let mut fail = |new: Option<Failure>| {
        if failure.is_none() {
            failure = new;
        }
        failure.is_some()
    };
    let fine = match settings.valid_status_codes.as_slice() {
        [] => (200..300).contains(&status),
        valid => valid.contains(&status),
    };
    let wrong_status = (!fine).then(|| {
        let wanted = match settings.valid_status_codes.as_slice() {
            [] => "2xx".to_owned(),
            valid => valid.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        Failure::assertion(Reason::Status, format!("the status is {status}, wanted is {wanted}"))
    });
    if !fail(wrong_status) && fail(wrong_header(settings, answer.headers())) {
        run.record.set(&FAILED_REGEX, 1.0);
    }
    let version = answer.version();
    run.enter(Phase::Transfer);
    watch.skip();
    let keep = settings.looks_at_body();
    let reading = Reading {
        compression: settings.compression,
        limit: settings.body_size_limit,
        keep,
        deadline: run.deadline,
    };
    let taken = Box::pin(body::take(answer, reading)).await;
    watch.lap(&mut run.record, "transfer");
    let Taken { length, kept, failure: broken } = taken;
    run.record.set(&BODY_LENGTH, length as f64);
    if !fail(broken) && keep {
        run.enter(Phase::Assertion);
        let (regex, json) = wrong_body(settings.clone(), kept).await;
        run.record.set(&FAILED_REGEX, f64::from(u8::from(regex.is_some())));
        if json.is_some() && regex.is_none() {
            run.record.set(&JSON, 1.0);
        }
        fail(regex.or(json));
    }
    let valid = &settings.valid_versions;
    fail((!valid.is_empty() && !valid.contains(&version)).then(|| {
        Failure::assertion(Reason::Version, format!("the version is {version:?}, wanted is {valid:?}"))
    }));
    fail(
        (settings.fail_if_ssl && tls).then(|| {
            Failure::assertion(Reason::TlsUse, "the answer came over TLS, which fail_if_ssl forbids")
        }),
    );
    fail((settings.fail_if_not_ssl && !tls).then(|| {
        Failure::assertion(Reason::TlsUse, "the answer came without TLS, which fail_if_not_ssl forbids")
    }));
    failure.map_or(Ok(()), Err)
}

fn version_number(version: Version) -> f64 {
    match version {
        Version::HTTP_09 => 0.9,
        Version::HTTP_10 => 1.0,
        Version::HTTP_2 => 2.0,
        Version::HTTP_3 => 3.0,
        _ => 1.1,
    }
}

fn last_modified(headers: &HeaderMap) -> Option<f64> {
    let text = headers.get(header::LAST_MODIFIED)?.to_str().ok()?;
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs() as f64)
}

fn wrong_header(settings: &Settings, headers: &HeaderMap) -> Option<Failure> {
    let must_not = settings.fail_if_header_matches.iter().map(|m| (m, true));
    let must = settings.fail_if_header_not_matches.iter().map(|m| (m, false));
    must_not.chain(must).find_map(|(wanted, forbidden)| {
        let HeaderMatch { header, pattern, allow_missing } = wanted;
        let mut values = headers.get_all(header).iter().peekable();
        if values.peek().is_none() {
            let words = format!("there is no header {header}");
            return (!allow_missing).then(|| Failure::assertion(Reason::Header, words));
        }
        let matches = values.any(|value| pattern.matches(&String::from_utf8_lossy(value.as_bytes())));
        (matches == forbidden).then(|| {
            let does = if forbidden { "matches" } else { "does not match" };
            Failure::assertion(Reason::Header, format!("header {header} {does} `{}`", pattern.text()))
        })
    })
}

/// A body of this size or more is matched beside the runtime's thread, in bytes: below it, that takes about a
/// millisecond.
const MATCH_ASIDE_BYTES: usize = 32 << 10;

/// Why a body is not what it should be: by its expressions, or by its values.
async fn wrong_body(settings: Arc<Settings>, kept: Vec<u8>) -> (Option<Failure>, Option<Failure>) {
    let small = kept.len() < MATCH_ASIDE_BYTES;
    let work = move || {
        let text = String::from_utf8_lossy(&kept);
        let must_not = settings.fail_if_body_matches.iter().map(|p| (p, true));
        let must = settings.fail_if_body_not_matches.iter().map(|p| (p, false));
        let regex = must_not.chain(must).find(|(p, forbidden)| p.matches(&text) == *forbidden).map(
            |(pattern, forbidden)| {
                let does = if forbidden { "matches" } else { "does not match" };
                Failure::assertion(Reason::Body, format!("the body {does} `{}`", pattern.text()))
            },
        );
        if settings.body_json.is_empty() {
            return (regex, None);
        }
        let json = match serde_json::from_slice(&kept) {
            Err(error) => Err(format!("the body is no JSON: {error}")),
            Ok(value) => settings.body_json.iter().try_for_each(|assertion| assertion.check(&value)),
        };
        (regex, json.err().map(|words| Failure::assertion(Reason::Body, words)))
    };
    if small {
        return work();
    }
    tokio::task::spawn_blocking(work).await.expect("matching does not panic and is not aborted")
}
