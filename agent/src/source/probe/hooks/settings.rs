//! What is done when a target's state changes: valid, typed values. The configuration layer fills them in.

use super::limit::Bounds;
use crate::source::probe::program::Program;
use crate::source::probe::state::State;
use crate::source::probe::status::StateChange;
use crate::source::scrape::settings::Auth;
use http::header::{HeaderName, HeaderValue};
use pegel_runtime::http_client::ClientTls;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How long a hook may take unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a hook waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A target is down that was not.
    Down,
    /// A target is up that was down.
    Up,
}

impl Event {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
        }
    }

    /// What a change is to hooks. Maintenance is nothing to them: neither its begin nor its end, unless the target is
    /// then something else than before. The first success of a target is nothing either.
    pub fn of(change: &StateChange) -> Option<Self> {
        match change.to {
            State::Down if change.was_up != Some(false) => Some(Self::Down),
            State::Up if change.was_up == Some(false) => Some(Self::Up),
            _ => None,
        }
    }
}

/// A text in which `*` stands for anything and `?` for one character.
#[derive(Clone)]
pub struct Wildcard {
    text: String,
    matcher: globset::GlobMatcher,
}

impl Wildcard {
    /// Reads one; the error says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let matcher = globset::Glob::new(text).map_err(|error| error.kind().to_string())?.compile_matcher();
        Ok(Self { text: text.to_owned(), matcher })
    }

    /// Whether it stands for a text.
    pub fn matches(&self, text: &str) -> bool {
        self.text == text || self.matcher.is_match(text)
    }
}

impl fmt::Debug for Wildcard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl PartialEq for Wildcard {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// A hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// Its name, unique: the label `hook` of its metrics.
    pub name: String,
    /// The checks by their names; none for all.
    pub checks: Vec<Wildcard>,
    /// The targets by their addresses; none for all.
    pub targets: Vec<Wildcard>,
    /// Whether checks that containers ask for by their labels are among them.
    pub container_checks: bool,
    /// What it waits for.
    pub on: Vec<Event>,
    /// What it does.
    pub action: Action,
    /// How long that may take.
    pub timeout: Duration,
    /// How often it may be done.
    pub bounds: Bounds,
    /// Whether it is only told what would be done.
    pub dry_run: bool,
}

impl Hook {
    /// Whether it has to do with an event of a target.
    pub fn is_for(&self, event: Event, change: &StateChange) -> bool {
        let check = &change.target.check;
        let among = |all: &[Wildcard], text: &str| all.is_empty() || all.iter().any(|one| one.matches(text));
        self.on.contains(&event)
            && (self.container_checks || !check.from_container)
            && among(&self.checks, &check.name)
            && among(&self.targets, &change.target.address)
    }
}

/// What a hook does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Runs a program.
    Command(Program),
    /// Sends a request.
    Webhook(Box<Webhook>),
}

/// Where a request goes. It never shows but for its host: who knows the path of a webhook can call it.
#[derive(Clone, PartialEq, Eq)]
pub enum Url {
    /// Written in the configuration.
    Text(String),
    /// In a file that is read for each run.
    File(PathBuf),
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// A request to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// Where it goes.
    pub url: Url,
    /// Its headers, beside those of its body.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How the agent proves itself.
    pub auth: Option<Auth>,
    /// TLS, for https.
    pub tls: ClientTls,
}

impl Action {
    /// What it is, as the audit shows it: without arguments, paths of URLs, or anything else that may be secret.
    pub fn shown(&self) -> String {
        match self {
            Self::Command(program) => program.path.display().to_string(),
            Self::Webhook(webhook) => match &webhook.url {
                Url::Text(url) => format!("POST {}", origin(url)),
                Url::File(path) => format!("POST to what `{}` holds", path.display()),
            },
        }
    }
}

/// Scheme and host of a URL.
fn origin(url: &str) -> String {
    let begin = url.find("://").map_or(0, |at| at + 3);
    let end = url[begin..].find(['/', '?', '#']).map_or(url.len(), |at| begin + at);
    url[..end].to_owned()
}
