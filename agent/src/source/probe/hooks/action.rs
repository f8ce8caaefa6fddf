//! Doing what a hook is for: running its program, sending its request.

use super::audit::{Done, Outcome};
use super::settings::{Action, Event, Hook, Url, Webhook};
use crate::source::probe::program::{self, How, NotRun, Program};
use crate::source::probe::status::{StateChange, written};
use crate::source::scrape::fetch::authorization;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http_body_util::Full;
use pegel_runtime::config::form::HttpUrl;
use pegel_runtime::http_client::{HttpClient, http_client};
use serde_json::json;
use std::error::Error;
use std::sync::Arc;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// The version of a request's body.
const BODY_VERSION: u32 = 1;

/// A hook's client, made when it is first used: certificates are read then.
pub(super) type Client = OnceCell<HttpClient>;

/// What kept an action from being done, in words that hold no secret.
type NotDone = String;

/// Does it, within its time. `hold` is kept until what was begun has really ended.
pub(super) async fn act(
    hook: &Arc<Hook>,
    client: &Client,
    event: Event,
    change: &StateChange,
    hold: impl Send + 'static,
) -> Done {
    let began = Instant::now();
    let action = async {
        match &hook.action {
            Action::Command(program) => run(program, hook, event, change, hold).await,
            Action::Webhook(webhook) => send(webhook, hook, client, event, change).await,
        }
    };
    let (outcome, code, detail) = match tokio::time::timeout(hook.timeout, action).await {
        Ok(Ok((true, code, detail))) => (Outcome::Ok, code, detail),
        Ok(Ok((false, code, detail))) => (Outcome::Failed, code, detail),
        Ok(Err(words)) => (Outcome::NotDone, None, Some(words)),
        Err(_) => (Outcome::Timeout, None, Some(format!("no end within {:?}", hook.timeout))),
    };
    Done { outcome, code, detail, took: began.elapsed() }
}

/// Whether it succeeded, its code, and what is to be said of it.
type Result3 = Result<(bool, Option<i32>, Option<String>), NotDone>;

async fn run(
    program: &Program,
    hook: &Hook,
    event: Event,
    change: &StateChange,
    hold: impl Send + 'static,
) -> Result3 {
    let failure = change.failure.as_ref();
    let since = written(change.at_ms);
    let call = program.call(&[
        ("hook", "PEGEL_HOOK", &hook.name),
        ("event", "PEGEL_EVENT", event.name()),
        ("check", "PEGEL_CHECK", &change.target.check.name),
        ("kind", "PEGEL_KIND", change.target.check.kind.name()),
        ("target", "PEGEL_TARGET", &change.target.address),
        ("state", "PEGEL_STATE", change.to.name()),
        ("from", "PEGEL_FROM", change.from.name()),
        ("since", "PEGEL_SINCE", &since),
        ("phase", "PEGEL_PHASE", failure.map_or("", |f| f.phase.name())),
        ("reason", "PEGEL_REASON", failure.map_or("", |f| f.reason.name())),
        // What a server said is no argument: a program could take it for an option.
        ("", "PEGEL_MESSAGE", failure.map_or("", |f| &f.words)),
    ]);
    let ended = program::run(call, hold).await.map_err(|error: NotRun| error.to_string())?;
    Ok(match ended.how {
        How::Code(0) => (true, Some(0), None),
        How::Code(code) => (false, Some(code), None),
        How::Signal(number) => (false, None, Some(format!("ended by signal {number}"))),
    })
}

async fn send(
    webhook: &Webhook,
    hook: &Hook,
    client: &Client,
    event: Event,
    change: &StateChange,
) -> Result3 {
    let mut request = http::Request::post(destination(webhook).await?);
    let headers = request.headers_mut().ok_or("the URL is not one that can be asked")?;
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("pegel-agent/", env!("CARGO_PKG_VERSION"))));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in &webhook.headers {
        headers.insert(name, value.clone());
    }
    if let Some(auth) = webhook.auth.clone() {
        let read = tokio::task::spawn_blocking(move || authorization(&auth)).await;
        let value = read.map_err(|_| "the agent ends")?.map_err(|error| error.to_string())?;
        headers.insert(AUTHORIZATION, value);
    }
    let body = body(hook, event, change).to_string();
    let request = request.body(Full::new(Bytes::from(body))).map_err(|_| "the request cannot be made")?;
    let client = client
        .get_or_try_init(async || {
            let (tls, timeout) = (webhook.tls.clone(), hook.timeout);
            let made = tokio::task::spawn_blocking(move || http_client(&tls, timeout)).await;
            made.map_err(|_| "the agent ends".to_owned())?.map_err(|error| error.to_string())
        })
        .await?;
    // What the answer says is not looked at: a server could give back what it was sent.
    let answer = client.request(request).await.map_err(|error| with_causes(&error))?;
    let status = answer.status();
    Ok((status.is_success(), Some(i32::from(status.as_u16())), None))
}

async fn destination(webhook: &Webhook) -> Result<String, NotDone> {
    match &webhook.url {
        Url::Text(url) => Ok(url.clone()),
        Url::File(path) => {
            let file = path.clone();
            let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(file)).await;
            let text = read.map_err(|_| "the agent ends")?;
            let text = text.map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
            HttpUrl::parse(text.trim())
                .map(|url| url.0)
                .map_err(|reason| format!("what `{}` holds {reason}", path.display()))
        }
    }
}

/// An error with what it comes from. The client's errors do not repeat the URL.
fn with_causes(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}

/// What a webhook is sent.
fn body(hook: &Hook, event: Event, change: &StateChange) -> serde_json::Value {
    let failure = change.failure.as_ref();
    let labels: serde_json::Map<_, _> =
        change.labels().iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    json!({
        "version": BODY_VERSION,
        "hook": hook.name,
        "event": event.name(),
        "check": change.target.check.name,
        "kind": change.target.check.kind.name(),
        "target": change.target.address,
        "labels": labels,
        "state": change.to.name(),
        "from": change.from.name(),
        "since": written(change.at_ms),
        "from_since": written(change.was_since_ms),
        "phase": failure.map(|f| f.phase.name()),
        "reason": failure.map(|f| f.reason.name()),
        "message": failure.map(|f| &f.words),
    })
}
