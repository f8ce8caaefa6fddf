//! A session with containerd or CRI-O through the container runtime interface, `runtime.v1`.
//!
//! Changes are heard from containerd's own event service, from `GetContainerEvents` where that is all there is
//! (CRI-O, if its configuration turns it on), or found by listing every second as the kubelet's own relisting does.
//! Whatever brings the news, the runtime is asked for the status of each container that is new or changed; a pod's
//! sandbox is a container like any other, by the name `POD`.

mod channel;
mod convert;
mod events;

/// The messages, as `cri.proto` has them.
#[allow(missing_docs, clippy::pedantic, clippy::enum_variant_names)]
mod messages {
    include!(concat!(env!("OUT_DIR"), "/runtime.v1.rs"));
}

use super::allowance::Allowance;
use super::inquiries::Inquiries;
use super::trouble::{Trouble, shortened};
use super::watch::Watch;
use crate::source::container::{ContainerId, RuntimeKind};
use channel::{Channel, Failure};
use convert::Sandbox;
use events::{Events, News};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use messages::{
    ContainerFilter, ContainerState, ContainerStateValue, ContainerStatusRequest, ContainerStatusResponse,
    ListContainerStatsRequest, ListContainerStatsResponse, ListContainersRequest, ListContainersResponse,
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandboxFilter, PodSandboxState, PodSandboxStateValue,
    PodSandboxStatusRequest, PodSandboxStatusResponse, VersionRequest, VersionResponse,
};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

/// Runs one session to its end and says why it ended.
pub(super) async fn session(watch: &Watch) -> Trouble {
    match Session::begin(watch).await {
        Ok(session) => session.run().await,
        Err(trouble) => trouble,
    }
}

/// What the runtime is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asked {
    id: ContainerId,
    sandbox: bool,
}

/// What runs, by one list.
struct Running {
    /// Sandboxes.
    sandboxes: HashSet<ContainerId>,
    /// Containers, with their sandboxes.
    containers: HashMap<ContainerId, ContainerId>,
}

enum Answer {
    Container(Asked, Box<Result<ContainerStatusResponse, Failure>>),
    Sandbox(Asked, Box<Result<PodSandboxStatusResponse, Failure>>),
    Listed(Result<Running, Trouble>),
    Sized(Result<ListContainerStatsResponse, Failure>),
}

type Pending = Pin<Box<dyn Future<Output = Answer> + Send>>;

struct Session<'a> {
    watch: &'a Watch,
    kind: RuntimeKind,
    channel: Channel,
    events: Events,
    allowance: Allowance,
    inquiries: Inquiries<Asked>,
    pending: FuturesUnordered<Pending>,
    /// What the last list had.
    listed: Running,
    /// What is known of sandboxes that run.
    sandboxes: HashMap<ContainerId, Sandbox>,
    /// Those of the first list that have not been asked about yet; none before it.
    first: Option<HashSet<ContainerId>>,
    listing: bool,
    list_again: bool,
    next_list: Instant,
    next_sizes: Option<Instant>,
}

impl<'a> Session<'a> {
    async fn begin(watch: &'a Watch) -> Result<Self, Trouble> {
        let pace = watch.settings().pace;
        let channel = Channel::connect(watch.socket(), &pace).await?;
        let what = "the version";
        let request = VersionRequest { version: String::new() };
        let version: VersionResponse =
            match channel.call(what, "/runtime.v1.RuntimeService/Version", request, pace).await {
                Ok(version) => version,
                Err(Failure::Unimplemented) => return Err(Trouble::NoCri),
                Err(failure) => return Err(failure.into_trouble(what)),
            };
        let kind = match version.runtime_name.as_str() {
            "cri-o" => RuntimeKind::CriO,
            _ => RuntimeKind::Containerd,
        };
        watch.identified(kind, Some(shortened(&version.runtime_version)));
        watch.roster().attend(watch.owner());
        let now = Instant::now();
        Ok(Self {
            watch,
            kind,
            events: Events::of(&channel, kind),
            channel,
            allowance: Allowance::new(now),
            inquiries: Inquiries::new(),
            pending: FuturesUnordered::new(),
            listed: Running { sandboxes: HashSet::new(), containers: HashMap::new() },
            sandboxes: HashMap::new(),
            first: None,
            listing: false,
            list_again: false,
            next_list: now,
            next_sizes: watch.settings().writable_size_interval.map(|_| now),
        })
    }

    async fn run(mut self) -> Trouble {
        let pace = self.watch.settings().pace;
        let mut ticks = tokio::time::interval(pace.poll_every / 4);
        loop {
            tokio::select! {
                biased;
                news = self.events.next(&self.channel, &pace), if self.allowance.open() => {
                    match news {
                        Ok(news) => self.take_news(news),
                        Err(trouble) => return trouble,
                    }
                }
                Some(answer) = self.pending.next(), if !self.pending.is_empty() => {
                    if let Err(trouble) = self.take_answer(answer) {
                        return trouble;
                    }
                }
                _ = ticks.tick() => self.tick(Instant::now()),
            }
            self.ask();
        }
    }

    fn take_news(&mut self, news: News) {
        let now = Instant::now();
        self.allowance.take(now);
        self.watch.counted_event();
        // The CRI of containerd hears the same event when we do, and may answer before it took notice.
        self.next_list = self.next_list.min(now + self.watch.settings().pace.poll_every / 2);
        match news {
            News::OutOfMemory { id, at_nanos } => {
                self.watch.roster().out_of_memory(self.watch.owner(), &id, Some(at_nanos));
            }
            News::Changed(id) => {
                // Whether it is a container or a sandbox is what the last list says; of a new one, the next.
                let sandbox = self.listed.sandboxes.contains(&id);
                if sandbox || self.listed.containers.contains_key(&id) {
                    self.inquiries.want(Asked { id, sandbox });
                } else {
                    self.list();
                }
            }
        }
    }

    fn take_answer(&mut self, answer: Answer) -> Result<(), Trouble> {
        match answer {
            Answer::Listed(result) => {
                self.listing = false;
                self.take_list(result?);
                if std::mem::take(&mut self.list_again) {
                    self.list();
                }
            }
            Answer::Container(asked, result) => {
                if self.inquiries.answered(&asked) {
                    let sandbox = self.listed.containers.get(&asked.id).and_then(|id| self.sandboxes.get(id));
                    let (env, kind) = (&self.watch.settings().env, self.kind);
                    let sighting = result.map(|answer| {
                        convert::container(answer, kind, env, sandbox, true).into_iter().collect()
                    });
                    self.take_sighting(&asked, sighting)?;
                }
            }
            Answer::Sandbox(asked, result) => {
                if self.inquiries.answered(&asked) {
                    let found = result.map(|answer| convert::sandbox(answer, self.kind));
                    let sighting = match found {
                        Ok(Some((sighting, sandbox))) => {
                            self.sandboxes.insert(asked.id.clone(), sandbox);
                            Ok(vec![sighting])
                        }
                        Ok(None) => Ok(Vec::new()),
                        Err(failure) => Err(failure),
                    };
                    self.take_sighting(&asked, sighting)?;
                }
            }
            Answer::Sized(result) => {
                let answer =
                    result.map_err(|failure| failure.into_trouble("the sizes of writable layers"))?;
                for stats in answer.stats {
                    let bytes = stats.writable_layer.and_then(|layer| layer.used_bytes);
                    if let (Some(attributes), Some(bytes)) = (stats.attributes, bytes) {
                        self.watch.roster().writable(&ContainerId::new(&attributes.id), bytes.value);
                    }
                }
            }
        }
        if self.first.as_ref().is_some_and(HashSet::is_empty) {
            self.watch.watching();
        }
        Ok(())
    }

    fn take_sighting(
        &mut self,
        asked: &Asked,
        sightings: Result<Vec<super::roster::Sighting>, Failure>,
    ) -> Result<(), Trouble> {
        if let Some(first) = &mut self.first {
            first.remove(&asked.id);
        }
        match sightings {
            Ok(sightings) => sightings.into_iter().for_each(|sighting| self.watch.see(sighting)),
            Err(Failure::NotFound) => {
                self.watch.roster().end(self.watch.owner(), &asked.id, None, Instant::now());
            }
            Err(Failure::Trouble(trouble @ (Trouble::Nonsense { .. } | Trouble::Refused { .. }))) => {
                self.watch.not_understood(&asked.id, &trouble);
            }
            Err(failure) => return Err(failure.into_trouble("the status of a container")),
        }
        Ok(())
    }

    /// Asks about what a list has that is not known, and about what is known and not in it.
    fn take_list(&mut self, running: Running) {
        let owner = self.watch.owner();
        let mut missing: HashMap<ContainerId, bool> = HashMap::new();
        let mut wanted = Vec::new();
        {
            let roster = self.watch.roster();
            for container in roster.all_running(owner) {
                let sandbox = container.pod.as_ref().is_some_and(|pod| &*pod.container == convert::SANDBOX);
                missing.insert(container.id.clone(), sandbox);
            }
            // Sandboxes first: what they say of the network belongs to their containers.
            let sandboxes = running.sandboxes.iter().map(|id| (id, true));
            for (id, sandbox) in sandboxes.chain(running.containers.keys().map(|id| (id, false))) {
                let was_known = missing.remove(id).is_some();
                let known = was_known && (!sandbox || self.sandboxes.contains_key(id));
                if !known && !roster.is_anothers(owner, id) {
                    wanted.push(Asked { id: id.clone(), sandbox });
                }
            }
        }
        wanted.extend(missing.into_iter().map(|(id, sandbox)| Asked { id, sandbox }));
        let mut first = self.first.is_none().then(HashSet::new);
        for asked in wanted {
            if self.inquiries.want(asked.clone())
                && let Some(first) = &mut first
            {
                first.insert(asked.id);
            }
        }
        self.first = self.first.take().or(first);
        self.sandboxes.retain(|id, _| running.sandboxes.contains(id));
        self.listed = running;
    }

    fn tick(&mut self, now: Instant) {
        let pace = self.watch.settings().pace;
        if self.allowance.fill(now) || now >= self.next_list {
            let every = if self.events.are_heard() { pace.ping_every } else { pace.poll_every };
            self.next_list = now + every;
            self.list();
        }
        if let (Some(at), Some(interval)) = (self.next_sizes, self.watch.settings().writable_size_interval)
            && now >= at
        {
            self.next_sizes = Some(now + interval);
            let call = self.channel.call(
                "the sizes of writable layers",
                "/runtime.v1.RuntimeService/ListContainerStats",
                ListContainerStatsRequest { filter: None },
                super::Pace { call: interval, ..pace },
            );
            self.pending.push(Box::pin(async move { Answer::Sized(call.await) }));
        }
    }

    /// Asks for what runs. A list that is on its way may be older than what made us ask: then another follows.
    fn list(&mut self) {
        if self.listing {
            self.list_again = true;
            return;
        }
        self.listing = true;
        self.watch.counted_list();
        let pace = self.watch.settings().pace;
        let what = "the list of containers";
        let ready = PodSandboxStateValue { state: PodSandboxState::SandboxReady.into() };
        let sandboxes = self.channel.call(
            what,
            "/runtime.v1.RuntimeService/ListPodSandbox",
            ListPodSandboxRequest { filter: Some(PodSandboxFilter { state: Some(ready) }) },
            pace,
        );
        let running = ContainerStateValue { state: ContainerState::ContainerRunning.into() };
        let containers = self.channel.call(
            what,
            "/runtime.v1.RuntimeService/ListContainers",
            ListContainersRequest { filter: Some(ContainerFilter { state: Some(running) }) },
            pace,
        );
        self.pending.push(Box::pin(async move {
            let both = async {
                let sandboxes: ListPodSandboxResponse = sandboxes.await?;
                let containers: ListContainersResponse = containers.await?;
                Ok(Running::of(sandboxes, containers))
            };
            Answer::Listed(both.await.map_err(|failure: Failure| failure.into_trouble(what)))
        }));
    }

    /// Puts the questions that may be put.
    fn ask(&mut self) {
        let pace = self.watch.settings().pace;
        while let Some(asked) = self.inquiries.next() {
            let id = asked.id.to_string();
            self.pending.push(if asked.sandbox {
                let request = PodSandboxStatusRequest { pod_sandbox_id: id, verbose: true };
                let path = "/runtime.v1.RuntimeService/PodSandboxStatus";
                let call = self.channel.call("the status of a sandbox", path, request, pace);
                Box::pin(async move { Answer::Sandbox(asked, Box::new(call.await)) })
            } else {
                let request = ContainerStatusRequest { container_id: id, verbose: true };
                let path = "/runtime.v1.RuntimeService/ContainerStatus";
                let call = self.channel.call("the status of a container", path, request, pace);
                Box::pin(async move { Answer::Container(asked, Box::new(call.await)) })
            });
        }
    }
}

impl Running {
    fn of(sandboxes: ListPodSandboxResponse, containers: ListContainersResponse) -> Self {
        let id = |text: &str| super::facts::is_id(text).then(|| ContainerId::new(text));
        Self {
            sandboxes: sandboxes.items.iter().filter_map(|sandbox| id(&sandbox.id)).collect(),
            containers: containers
                .containers
                .iter()
                .filter_map(|c| Some((id(&c.id)?, ContainerId::new(&c.pod_sandbox_id))))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
