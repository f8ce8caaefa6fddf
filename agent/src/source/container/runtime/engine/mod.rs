//! A session with a Docker or Podman engine: version, events, list, and a question about each container that changed.
//!
//! Events are asked for from a moment before the list (`since`), so that nothing falls between the two; an event
//! that the list already reflects changes nothing. The session never waits for one answer: while a list or an
//! inspection is on its way, events are read, or the engine would drop them (dockerd waits 100 ms for a slow reader).

mod convert;
mod event;
mod transport;

use super::allowance::Allowance;
use super::inquiries::Inquiries;
use super::trouble::{Trouble, shortened};
use super::watch::Watch;
use super::{Pace, wall_ms};
use crate::source::container::{Container, ContainerId, RuntimeKind};
use bollard::errors::Error;
use bollard::models::{ContainerInspectResponse, ContainerSummary, EventMessage, SystemVersion};
use bollard::query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder};
use bollard::{API_DEFAULT_VERSION, Docker};
use convert::Listed;
use event::{Notice, What};
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::{Duration, Instant};
use transport::{TOO_LONG, Transport};

/// How long before the list events are asked for, in seconds: the engine's clock is ours, cut to seconds.
const EVENTS_BEFORE: i64 = 2;

/// Runs one session to its end and says why it ended.
pub(super) async fn session(watch: &Watch) -> Trouble {
    match Session::begin(watch).await {
        Ok(session) => session.run().await,
        Err(trouble) => trouble,
    }
}

/// What came back.
enum Answer {
    Inspected(ContainerId, Box<Result<ContainerInspectResponse, Failure>>),
    Listed { all_anew: bool, result: Result<Vec<ContainerSummary>, Failure> },
    Sized(Result<Vec<ContainerSummary>, Failure>),
    Ponged(Result<String, Failure>),
}

/// Why a request failed.
enum Failure {
    NotFound,
    Other(Trouble),
}

type Pending = Pin<Box<dyn Future<Output = Answer> + Send>>;
type Events = Pin<Box<dyn Stream<Item = Result<EventMessage, Error>> + Send>>;

struct Session<'a> {
    watch: &'a Watch,
    kind: RuntimeKind,
    client: Docker,
    transport: Transport,
    events: Events,
    allowance: Allowance,
    inquiries: Inquiries<ContainerId>,
    pending: FuturesUnordered<Pending>,
    /// Exit codes from events, until the container's inspection is back; it may be removed by then.
    exits: HashMap<ContainerId, Option<i64>>,
    /// What the last list said of those that are being asked about.
    listed: HashMap<ContainerId, Container>,
    /// Containers that an event was about and that have not been inspected since.
    news: HashSet<ContainerId>,
    listing: bool,
    listed_once: bool,
    next_list: Instant,
    next_ping: Instant,
    next_sizes: Option<Instant>,
}

impl<'a> Session<'a> {
    async fn begin(watch: &'a Watch) -> Result<Self, Trouble> {
        let pace = watch.settings().pace;
        let transport = Transport::new(watch.socket());
        let seconds = pace.call.as_secs().max(1);
        let own =
            transport.client(seconds, API_DEFAULT_VERSION).map_err(|e| trouble("the version", &pace, e))?;
        // Both ask for /version; the first to know who answers, the second lowers the API's version to what it can.
        let version = within(&pace, "the version", own.version()).await?;
        let client = within(&pace, "the version", own.negotiate_version()).await?;
        transport.speak(&client.client_version());
        let kind = engine_kind(&version);
        watch.identified(kind, version.version.as_deref().map(shortened));
        let now = Instant::now();
        let since = (wall_ms() / 1_000 - EVENTS_BEFORE).to_string();
        let mut filters = HashMap::from([("type", vec!["container"])]);
        if kind == RuntimeKind::Docker {
            filters.insert("event", event::ACTIONS.to_vec());
        }
        let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
        let events: Events = Box::pin(client.events(Some(options)));
        watch.roster().attend(watch.owner());
        Ok(Self {
            watch,
            kind,
            client,
            transport,
            events,
            allowance: Allowance::new(now),
            inquiries: Inquiries::new(),
            pending: FuturesUnordered::new(),
            exits: HashMap::new(),
            listed: HashMap::new(),
            news: HashSet::new(),
            listing: false,
            listed_once: false,
            next_list: now,
            next_ping: now + pace.ping_every,
            next_sizes: watch.settings().writable_size_interval.map(|_| now),
        })
    }

    async fn run(mut self) -> Trouble {
        let pace = self.watch.settings().pace;
        let mut ticks = tokio::time::interval(pace.ping_every.min(Duration::from_secs(1)));
        loop {
            let step = tokio::select! {
                biased;
                event = self.events.next(), if self.allowance.open() => self.take_event(event),
                Some(answer) = self.pending.next(), if !self.pending.is_empty() => self.take_answer(answer),
                _ = ticks.tick() => {
                    self.tick(&pace, Instant::now());
                    Ok(())
                }
            };
            if let Err(trouble) = step {
                return trouble;
            }
            self.ask();
        }
    }

    fn take_event(&mut self, event: Option<Result<EventMessage, Error>>) -> Result<(), Trouble> {
        let pace = &self.watch.settings().pace;
        let event = match event {
            Some(Ok(event)) => event,
            Some(Err(error)) => return Err(trouble("the stream of events", pace, error)),
            None => return Err(Trouble::Ended("the engine ended its stream of events".into())),
        };
        self.transport.event_was_read();
        self.allowance.take(Instant::now());
        self.watch.counted_event();
        if let Some(notice) = event::read(event) {
            self.notice(notice);
        }
        Ok(())
    }

    fn notice(&mut self, Notice { id, at_nanos, what }: Notice) {
        let (owner, now) = (self.watch.owner(), Instant::now());
        if matches!(what, What::OutOfMemory) {
            self.watch.roster().out_of_memory(owner, &id, Some(at_nanos));
            return;
        }
        let known = self.watch.roster().running(owner, &id).cloned();
        // An event from before the last start, which `since` brings up again, says nothing of now.
        let started_ms = known.as_ref().and_then(|c| c.started_ms).unwrap_or(i64::MIN);
        let of_now = at_nanos / 1_000_000 >= started_ms;
        let mut exit = None;
        match what {
            What::Ended(code) => {
                if of_now && known.is_some() {
                    self.watch.roster().end(owner, &id, code, now);
                }
                exit = Some(code);
            }
            // Its end was told by an earlier event.
            What::Removed if known.is_none() => return,
            What::Health(health) if of_now && known.is_some() => {
                self.watch.roster().health(owner, &id, health);
            }
            What::Health(_) | What::Changed | What::Removed | What::OutOfMemory => {}
        }
        if self.inquiries.want(id.clone()) {
            if let Some(code) = exit {
                self.exits.insert(id.clone(), code);
            }
            self.news.insert(id);
        }
    }

    fn take_answer(&mut self, answer: Answer) -> Result<(), Trouble> {
        match answer {
            Answer::Inspected(id, result) => self.take_inspected(id, *result)?,
            Answer::Listed { all_anew, result } => {
                self.listing = false;
                self.take_list(all_anew, result.map_err(Failure::into_trouble)?);
            }
            Answer::Sized(result) => {
                for summary in result.map_err(Failure::into_trouble)? {
                    if let Some(Listed { container, writable_bytes: Some(bytes) }) =
                        convert::listed(summary, self.kind)
                    {
                        self.watch.roster().writable(&container.id, bytes);
                    }
                }
            }
            Answer::Ponged(result) => drop(result.map_err(Failure::into_trouble)?),
        }
        if self.listed_once && self.listed.is_empty() {
            self.watch.watching();
        }
        Ok(())
    }

    fn take_inspected(
        &mut self,
        id: ContainerId,
        result: Result<ContainerInspectResponse, Failure>,
    ) -> Result<(), Trouble> {
        if !self.inquiries.answered(&id) {
            return Ok(());
        }
        let exit = self.exits.remove(&id);
        let news = self.news.remove(&id);
        let listed = self.listed.remove(&id);
        let (owner, now) = (self.watch.owner(), Instant::now());
        match result {
            Ok(answer) => {
                if let Some(sighting) =
                    convert::inspected(answer, self.kind, &self.watch.settings().env, news || exit.is_some())
                {
                    self.watch.see(sighting);
                }
            }
            Err(Failure::NotFound) => self.watch.roster().end(owner, &id, exit.flatten(), now),
            Err(Failure::Other(trouble @ (Trouble::Nonsense { .. } | Trouble::Refused { .. }))) => {
                self.watch.not_understood(&id, &trouble);
                if let Some(container) = listed {
                    self.watch.see(super::roster::Sighting::of_running(container));
                }
            }
            Err(Failure::Other(trouble)) => return Err(trouble),
        }
        Ok(())
    }

    /// Compares a list of what runs with what is known and asks about the differences, or about all.
    fn take_list(&mut self, all_anew: bool, list: Vec<ContainerSummary>) {
        let owner = self.watch.owner();
        let mut missing: HashSet<ContainerId> =
            self.watch.roster().all_running(owner).into_iter().map(|c| c.id.clone()).collect();
        for summary in list {
            let Some(Listed { container, .. }) = convert::listed(summary, self.kind) else { continue };
            missing.remove(&container.id);
            let same = {
                let roster = self.watch.roster();
                roster.is_anothers(owner, &container.id)
                    || roster
                        .running(owner, &container.id)
                        .is_some_and(|known| known.state == container.state && known.name == container.name)
            };
            if (all_anew || !same) && self.inquiries.want(container.id.clone()) {
                self.listed.insert(container.id.clone(), container);
            }
        }
        for id in missing {
            self.inquiries.want(id);
        }
        self.listed_once = true;
    }

    fn tick(&mut self, pace: &Pace, now: Instant) {
        let look = self.allowance.fill(now);
        if (look || now >= self.next_list) && !self.listing {
            // Restarts leave no trace in a list: after a flood, and at the beginning, each is asked about.
            self.list(look || !self.listed_once);
            self.next_list = now + pace.relist_every;
        }
        if now >= self.next_ping {
            self.next_ping = now + pace.ping_every;
            let (client, pace) = (self.client.clone(), *pace);
            self.pending.push(Box::pin(async move {
                Answer::Ponged(within(&pace, "a ping", client.ping()).await.map_err(Failure::Other))
            }));
        }
        if let (Some(at), Some(interval)) = (self.next_sizes, self.watch.settings().writable_size_interval)
            && now >= at
        {
            self.next_sizes = Some(now + interval);
            let client = self.client.clone();
            // An engine walks every file of every layer to answer: it may take as long as until the next time.
            let pace = Pace { call: interval, ..*pace };
            let options = ListContainersOptionsBuilder::default().size(true).build();
            self.pending.push(Box::pin(async move {
                let list = within(&pace, "the list with sizes", client.list_containers(Some(options)));
                Answer::Sized(list.await.map_err(Failure::Other))
            }));
        }
    }

    fn list(&mut self, all_anew: bool) {
        self.listing = true;
        self.watch.counted_list();
        let (client, pace) = (self.client.clone(), self.watch.settings().pace);
        // The states that it may be in are named, so that no other, which bollard may not know, is in the answer.
        let filters = HashMap::from([("status", vec!["running", "paused"])]);
        let options = ListContainersOptionsBuilder::default().filters(&filters).build();
        self.pending.push(Box::pin(async move {
            let list = within(&pace, "the list of containers", client.list_containers(Some(options)));
            Answer::Listed { all_anew, result: list.await.map_err(Failure::Other) }
        }));
    }

    /// Puts the questions that may be put.
    fn ask(&mut self) {
        while let Some(id) = self.inquiries.next() {
            let (client, pace) = (self.client.clone(), self.watch.settings().pace);
            self.pending.push(Box::pin(async move {
                let answer =
                    tokio::time::timeout(pace.call, client.inspect_container(id.as_str(), None)).await;
                let result = match answer {
                    Ok(Ok(answer)) => Ok(answer),
                    Ok(Err(Error::DockerResponseServerError { status_code: 404, .. })) => {
                        Err(Failure::NotFound)
                    }
                    Ok(Err(error)) => Err(Failure::Other(trouble(INSPECTION, &pace, error))),
                    Err(_) => Err(Failure::Other(Trouble::Silent { what: INSPECTION, limit: pace.call })),
                };
                Answer::Inspected(id, Box::new(result))
            }));
        }
    }
}

const INSPECTION: &str = "the question about a container";

impl Failure {
    fn into_trouble(self) -> Trouble {
        match self {
            Self::NotFound => Trouble::Refused { what: "a request", reason: "not found".into() },
            Self::Other(trouble) => trouble,
        }
    }
}

/// Podman serves Docker's API and says who it is in its components.
fn engine_kind(version: &SystemVersion) -> RuntimeKind {
    let components = version.components.as_deref().unwrap_or_default();
    if components.iter().any(|component| component.name.contains("Podman")) {
        RuntimeKind::Podman
    } else {
        RuntimeKind::Docker
    }
}

async fn within<T>(
    pace: &Pace,
    what: &'static str,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(pace.call, request).await {
        Ok(answer) => answer.map_err(|error| trouble(what, pace, error)),
        Err(_) => Err(Trouble::Silent { what, limit: pace.call }),
    }
}

/// What an error of bollard's means. Pieces of answers that it quotes are left out: they may hold secrets.
fn trouble(what: &'static str, pace: &Pace, error: Error) -> Trouble {
    let nonsense = |reason: String| Trouble::Nonsense { what, reason };
    match error {
        Error::RequestTimeoutError => Trouble::Silent { what, limit: pace.call },
        Error::DockerResponseServerError { status_code, message } => {
            Trouble::Refused { what, reason: format!("status {status_code}: {}", shortened(&message)) }
        }
        Error::JsonDataError { column, .. } => {
            nonsense(format!("byte {column} of it is not as the API has it"))
        }
        Error::JsonSerdeError { err } => nonsense(format!("no JSON at byte {}", err.column())),
        Error::APIVersionParseError {} => nonsense("it names no API version".into()),
        Error::IOError { err } => match err.kind() {
            io::ErrorKind::FileTooLarge => nonsense(TOO_LONG.into()),
            io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Trouble::connecting(&err)
            }
            _ => Trouble::Ended(err.to_string()),
        },
        Error::HyperResponseError { err } if err.is_parse() => nonsense("it is no HTTP".into()),
        Error::HyperResponseError { err } => match source_words(&err) {
            words if words.contains(TOO_LONG) => nonsense(TOO_LONG.into()),
            words => Trouble::Ended(words),
        },
        other => Trouble::Ended(shortened(&other.to_string())),
    }
}

fn source_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        words = format!("{words}: {inner}");
        source = inner.source();
    }
    words
}
