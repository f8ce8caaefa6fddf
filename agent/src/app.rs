//! The wiring of the agent: the one place that makes the parts and knows in what order they begin and end.

use crate::call_in;
use crate::cli::{ConfigArgs, Launch, RejectsArgs};
use crate::config::{Purpose, Settings, load_settings};
use crate::intake::{DEFAULT_INTAKE_BYTES, Inbox, Intake, intake};
use crate::pipeline::driver::{Driver, Parts, restore};
use crate::pipeline::effect::Memory;
use crate::positions::Positions;
use crate::rejects::{self, Rejects, replay_blocks};
use crate::source::SourceContext;
use crate::source::clock::{SampleClock, system_wall_ms};
use crate::source::container::runtime::Discovery;
use crate::source::container::{Catalogue, ContainerSource};
use crate::source::host::{HostSource, KernelSystem, Paths, System, machine_summary};
use crate::source::probe::{ProbeSource, probe_once};
use crate::source::render;
use crate::source::scrape::{ScrapeSource, scrape_once};
use crate::spool::thread::{Settings as SpoolThreadSettings, SpoolThread};
use crate::spool::{codec::RecordCodec, inspect};
use crate::status::StatusSource;
use crate::uplink;
use anyhow::Context as _;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::routing::{get, post};
use parking_lot::Mutex;
use pegel_proto::batch::{AgentEpoch, Signal};
use pegel_proto::caps::{MAX_BATCH_SAMPLES, MAX_STREAM_SERIES};
use pegel_proto::codec::DecoderLimits;
use pegel_runtime::admin::Admin;
use pegel_runtime::exit::{Reloader, cancel_on_signals};
use pegel_runtime::http_client::{ClientTls, http_client};
use pegel_runtime::metrics::Registry;
use pegel_runtime::telemetry::Telemetry;
use pegel_runtime::tls::{Reload as _, UplinkTls};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A file that holds milliseconds by which the wall clock seems shifted: for the end-to-end tests of clock steps.
const CLOCK_SHIFT_VARIABLE: &str = "PEGEL_TEST_CLOCK_SHIFT_FILE";
/// How long collecting once waits for the names of containers.
const ONCE_DISCOVERY: Duration = Duration::from_secs(3);
/// How long sources may take to end.
const SOURCES_END: Duration = Duration::from_secs(2);

/// Runs the agent to its end.
pub fn run(launch: Launch) -> anyhow::Result<()> {
    let telemetry = Telemetry::start(&launch.loaded.settings.log);
    for warning in &launch.loaded.warnings {
        tracing::warn!("{warning}");
    }
    // One thread: the agent's work is small, and a second worker's stack and allocator arena are not.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(launch, telemetry));
    // A collector that hangs in the kernel must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve(launch: Launch, telemetry: Telemetry) -> anyhow::Result<()> {
    let Launch { loaded, input } = launch;
    let settings = loaded.settings;
    let registry = Registry::new();
    let shutdown = CancellationToken::new();
    cancel_on_signals(shutdown.clone()).context("cannot listen for signals")?;

    let tls = UplinkTls::load(settings.uplink.tls.clone(), pegel_proto::wire::ALPN)
        .context("cannot use the agent's certificates")?;
    let mut delivery = Delivery::start(&settings, &tls, &registry).await?;

    let sources_shutdown = CancellationToken::new();
    let context = source_context(&settings, delivery.intake.clone(), &registry, sources_shutdown.clone());
    let clock = context.clock.clone();
    let catalogue = Arc::new(Catalogue::default());
    let discovery = discovery(&settings, &catalogue, &registry, &sources_shutdown);
    let (containers, container_status) = match &settings.containers {
        Some(settings) => {
            let system: Arc<dyn System> = Arc::new(KernelSystem::new());
            let source =
                ContainerSource::new(settings.clone(), &context.external_labels, &catalogue, &system);
            let status = source.status();
            (Some(tokio::spawn(source.run(context.clone()))), Some(status))
        }
        None => (None, None),
    };
    let host = settings.host.clone().map(|host| {
        let system: Arc<dyn System> = Arc::new(KernelSystem::new());
        HostSource::new(host, &context.external_labels, &system)
    });
    let host_status = host.as_ref().map(HostSource::status);
    let host = host.map(|source| tokio::spawn(source.run(context.clone())));
    let probes = Arc::new(ProbeSource::start(settings.probes.clone(), Some(catalogue), context.clone()));
    let scrape = Arc::new(ScrapeSource::start(settings.scrape.clone(), context));

    let status = StatusSource {
        epoch: delivery.epoch,
        delivery: delivery.snapshot.clone(),
        uplink: delivery.uplink.clone(),
        host: host_status,
        scrape: scrape.clone(),
        containers: container_status,
        runtimes: discovery.clone(),
        probes: probes.clone(),
        clock,
    };
    status.export(&registry);
    status.clock.expose(&registry);

    let (levels, targets, certificates) = (telemetry.clone(), scrape.clone(), tls.clone());
    let checks = probes.clone();
    let reloader = Reloader::new(
        move || load_settings(&input, Purpose::Run),
        move |settings: Settings| {
            certificates.reload().map_err(|e| e.to_string())?;
            levels.set_level(&settings.log.level);
            targets.apply(settings.scrape);
            checks.apply(settings.probes);
            Ok("certificates, scrape targets, checks and log level are in force; other keys need a restart"
                .to_owned())
        },
        &registry,
    );
    reloader.on_hangup(shutdown.clone()).context("cannot listen for SIGHUP")?;
    let repeats = telemetry.clone();
    tokio::spawn(async move { repeats.tell_of_repeats_forever().await });

    let admin_shutdown = CancellationToken::new();
    let admin_task = if settings.admin.enabled {
        let jobs = call_in::routes(probes.heartbeats().clone(), status.clock.clone());
        let routes = routes(status, delivery.rejects.clone(), delivery.intake.clone()).merge(jobs);
        let ready = delivery.snapshot.clone();
        let admin = Admin::new(settings.admin.clone(), registry.clone())
            .reload(reloader.as_fn())
            .check("spool", move || {
                let trouble = ready.borrow().spool_trouble.clone();
                async move { trouble.map_or(Ok("answers".to_owned()), Err) }
            })
            .route(routes)
            .bind()
            .await?;
        Some(tokio::spawn(admin.serve(admin_shutdown.clone())))
    } else {
        None
    };

    tokio::select! {
        () = shutdown.cancelled() => {}
        // Neither ends by itself: an agent that delivers nothing must not look as if it ran.
        ended = &mut delivery.driver => anyhow::bail!("delivery ended unexpectedly ({ended:?}); please report the log above"),
        ended = &mut delivery.uplink_task => anyhow::bail!("the uplink ended unexpectedly ({ended:?}); please report the log above"),
    }
    tracing::info!("ending: sources stop, what is collected is sent or stored");
    sources_shutdown.cancel();
    let sources_end = async {
        scrape.stopped().await;
        probes.stopped().await;
        for source in [host, containers].into_iter().flatten() {
            let _ = source.await;
        }
        if let Some(discovery) = discovery {
            discovery.stopped().await;
        }
    };
    if tokio::time::timeout(SOURCES_END, sources_end).await.is_err() {
        tracing::warn!("a source did not end in time; it is left behind");
    }
    delivery.end().await;
    admin_shutdown.cancel();
    if let Some(task) = admin_task {
        let _ = task.await;
    }
    Ok(())
}

/// The running parts of delivery.
struct Delivery {
    epoch: AgentEpoch,
    intake: Intake,
    snapshot: tokio::sync::watch::Receiver<crate::pipeline::driver::Snapshot>,
    uplink: uplink::UplinkHandle,
    rejects: Arc<Mutex<Rejects>>,
    driver: tokio::task::JoinHandle<()>,
    driver_shutdown: CancellationToken,
    uplink_task: tokio::task::JoinHandle<()>,
    uplink_shutdown: CancellationToken,
}

impl Delivery {
    async fn start(settings: &Settings, tls: &Arc<UplinkTls>, registry: &Registry) -> anyhow::Result<Self> {
        let (positions, memory, epoch) = open_positions(&settings.state_dir);
        let limits = DecoderLimits { max_series: MAX_STREAM_SERIES, max_samples: MAX_BATCH_SAMPLES };
        let spool_settings = SpoolThreadSettings::new(settings.buffer.spool.clone());
        let spool = SpoolThread::start(&spool_settings, RecordCodec::metrics(limits), registry)
            .context("cannot start the spool's thread")?;
        let spool = Arc::new(spool);
        let core = restore(settings.buffer.delivery.clone(), memory, &spool).await;
        let (intake, intake_receiver) = intake(DEFAULT_INTAKE_BYTES, registry);
        let summary = machine_summary(
            &settings.host.as_ref().map_or_else(Paths::default, |host| host.paths.clone()),
            &KernelSystem::new(),
        );
        let wall_clock_ms: Arc<dyn Fn() -> i64 + Send + Sync> = Arc::new(system_wall_ms);
        let (uplink, events, uplink_run) = uplink::uplink(uplink::Context {
            settings: settings.uplink.uplink.clone(),
            tls: tls.clone(),
            epoch,
            hostname: summary.hostname,
            registry: registry.clone(),
            wall_clock_ms: wall_clock_ms.clone(),
        });
        let rejects_dir = settings.state_dir.join("rejects");
        let rejects =
            Arc::new(Mutex::new(Rejects::new(rejects_dir, settings.buffer.rejects_bytes, registry)));
        let (driver, snapshot) = Driver::new(
            core,
            Parts {
                signal: Signal::Metrics,
                intake: Inbox::Metrics(intake_receiver),
                safe: None,
                uplink: uplink.clone(),
                events,
                spool,
                positions,
                rejects: rejects.clone(),
                wall_clock_ms,
                shutdown_timeout: settings.shutdown_timeout,
            },
        );
        let (driver_shutdown, uplink_shutdown) = (CancellationToken::new(), CancellationToken::new());
        Ok(Self {
            epoch,
            intake,
            snapshot,
            uplink,
            rejects,
            driver: tokio::spawn(driver.run(driver_shutdown.clone())),
            driver_shutdown,
            uplink_task: tokio::spawn(uplink_run.run(uplink_shutdown.clone())),
            uplink_shutdown,
        })
    }

    async fn end(self) {
        self.driver_shutdown.cancel();
        let _ = self.driver.await;
        self.uplink_shutdown.cancel();
        let _ = self.uplink_task.await;
    }
}

/// Opens the positions. Where that fails the agent runs all the same, as a new epoch: its numbers begin beyond any
/// that an earlier life used, so that nothing on a disk that comes back is taken for its own.
fn open_positions(state_dir: &Path) -> (Option<Positions>, Memory, AgentEpoch) {
    let fresh = AgentEpoch(rand::random());
    match Positions::open(state_dir, fresh) {
        Ok(opened) => {
            if let Some(warning) = opened.warning {
                tracing::error!("{warning}");
            }
            let epoch = opened.positions.epoch();
            let mut memory = opened.memory;
            if let Some(error) = opened.unwritable {
                tracing::error!(
                    %error,
                    "positions can't be written: the agent goes on from the last that could; make room or make the \
                     state directory writable"
                );
                memory.next_seq = memory.next_seq.max(unreserved_seq());
            }
            (Some(opened.positions), memory, epoch)
        }
        Err(error) => {
            tracing::error!(
                %error,
                "positions can't be used: the agent runs, but a restart forgets what was not delivered; \
                 make the state directory writable and restart"
            );
            let memory = Memory { next_seq: unreserved_seq(), ..Memory::default() };
            (None, memory, fresh)
        }
    }
}

/// A number beyond any that an earlier life used, where none can be reserved: no agent cuts 16 batches a millisecond.
fn unreserved_seq() -> u64 {
    system_wall_ms().max(1) as u64 * 16
}

fn source_context(
    settings: &Settings,
    intake: Intake,
    registry: &Registry,
    shutdown: CancellationToken,
) -> SourceContext {
    let clock = match std::env::var_os(CLOCK_SHIFT_VARIABLE) {
        Some(file) => SampleClock::shifted_by_file(file.into()),
        None => SampleClock::default(),
    };
    SourceContext {
        intake,
        clock,
        registry: registry.clone(),
        external_labels: settings.external_labels.clone(),
        shutdown,
    }
}

/// Which rejects are replayed.
#[derive(serde::Deserialize)]
struct ReplayQuery {
    output: Option<String>,
}

fn routes(status: StatusSource, rejects: Arc<Mutex<Rejects>>, intake: Intake) -> axum::Router {
    axum::Router::new().route("/api/v1/status", get(move || async move { axum::Json(status.json()) })).route(
        "/api/v1/rejects/replay",
        post(move |Query(which): Query<ReplayQuery>| async move {
            let mut rejects = rejects.lock();
            let output = which.output.as_deref();
            match rejects.list(output) {
                Ok(kept) => {
                    let blocks = replay_blocks(&kept);
                    let samples: usize = blocks.iter().map(|b| b.values.len()).sum();
                    if !intake.offer(blocks) {
                        let words = "the agent is busy: nothing was sent again, nothing was removed; try later\n";
                        return Err((StatusCode::SERVICE_UNAVAILABLE, words.to_owned()));
                    }
                    if let Err(error) = rejects.take(output) {
                        tracing::warn!(%error, "replayed rejects could not be removed; they are listed still");
                    }
                    Ok(axum::Json(serde_json::json!({ "samples": samples })))
                }
                Err(error) => {
                    let words = format!("cannot take the kept rejects: {error}\n");
                    Err((StatusCode::INTERNAL_SERVER_ERROR, words))
                }
            }
        }),
    )
}

/// Begins to ask container runtimes for the names of containers, unless that is turned off.
fn discovery(
    settings: &Settings,
    catalogue: &Arc<Catalogue>,
    registry: &Registry,
    shutdown: &CancellationToken,
) -> Option<Arc<Discovery>> {
    let runtimes = settings.containers.as_ref()?.runtimes.clone()?;
    Some(Arc::new(Discovery::start(runtimes, catalogue.clone(), registry, shutdown)))
}

/// Collects once and gives the text format.
pub fn once(settings: Settings) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let registry = Registry::new();
        let (intake, _receiver) = intake(DEFAULT_INTAKE_BYTES, &registry);
        let context = source_context(&settings, intake, &registry, CancellationToken::new());
        let mut blocks = Vec::new();
        let catalogue = Arc::new(Catalogue::default());
        let discovery = discovery(&settings, &catalogue, &registry, &context.shutdown);
        if let Some(host) = settings.host {
            let system: Arc<dyn System> = Arc::new(KernelSystem::new());
            let at_ms = context.clock.now_ms();
            blocks = HostSource::new(host, &context.external_labels, &system).collect(at_ms).await;
        }
        if let Some(containers) = settings.containers {
            let system: Arc<dyn System> = Arc::new(KernelSystem::new());
            if let Some(discovery) = discovery {
                discovery.settled(ONCE_DISCOVERY).await;
            }
            let mut source = ContainerSource::new(containers, &context.external_labels, &catalogue, &system);
            blocks.extend(source.once(context.clock.now_ms()).await);
        }
        let (scrapes, problems) = scrape_once(&settings.scrape, &context).await;
        for problem in problems {
            eprintln!("{problem}");
        }
        blocks.extend(scrapes.into_iter().flat_map(|scrape| scrape.blocks));
        let (checks, problems) = probe_once(&settings.probes, &context).await;
        for problem in problems {
            eprintln!("{problem}");
        }
        for (status, _) in &checks {
            if let Some(error) = &status.last_error {
                eprintln!("check {} of {} failed: {error}", status.name, status.target);
            }
        }
        blocks.extend(checks.into_iter().flat_map(|(_, blocks)| blocks));
        Ok(render::text(&blocks, render::WhichLabels::Full))
    })
}

/// Describes the buffer in a state directory.
pub fn inspect_buffer(state_dir: &Path, json: bool) -> anyhow::Result<String> {
    let dir = state_dir.join("spool");
    let listing = inspect::list(&dir).with_context(|| format!("cannot look into `{}`", dir.display()))?;
    if json {
        return Ok(format!("{:#}\n", crate::status::listing_json(&listing)));
    }
    Ok(crate::status::listing_table(&listing))
}

/// Lists or replays rejects in a state directory.
pub fn rejects(state_dir: &Path, args: &RejectsArgs) -> anyhow::Result<String> {
    if args.replay {
        return replay(args);
    }
    let dir = state_dir.join("rejects");
    let kept = rejects::read(&dir).with_context(|| format!("cannot read `{}`", dir.display()))?;
    let wanted = |output: &str| args.output.as_ref().is_none_or(|name| name == output);
    let kept: Vec<_> = kept.into_iter().filter(|k| wanted(&k.output)).collect();
    if args.state.json {
        return Ok(format!("{}\n", serde_json::to_string_pretty(&kept)?));
    }
    let mut text = String::new();
    for rejection in &kept {
        let example = rejection.samples.first();
        let name = example.and_then(|s| s.labels.get("__name__")).map_or("", String::as_str);
        let _ = writeln!(
            text,
            "{} {} batch {}: {} samples refused as {} (first {name}): {}",
            rejection.at_ms,
            rejection.output,
            rejection.seq,
            rejection.samples.len(),
            rejection.reason,
            rejection.message
        );
    }
    if kept.is_empty() {
        text.push_str("nothing was refused, or it was replayed\n");
    }
    Ok(text)
}

/// Has the running agent send kept rejects again, through its admin HTTP.
fn replay(args: &RejectsArgs) -> anyhow::Result<String> {
    let config = ConfigArgs {
        config: args.state.config.clone(),
        state_dir: args.state.state_dir.clone(),
        ..ConfigArgs::default()
    };
    let admin = load_settings(&config.input(), Purpose::Collect)?.settings.admin;
    let written = admin.address_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    let address = written.map_or_else(|| admin.listen.to_string(), |text| text.trim().to_owned());
    let query = args.output.as_ref().map(|name| format!("?output={name}")).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = http_client(&ClientTls::default(), Duration::from_secs(5))?;
        let request = http::Request::post(format!("http://{address}/api/v1/rejects/replay{query}"))
            .body(http_body_util::Full::default())?;
        let answer = client.request(request).await.with_context(|| {
            format!(
                "cannot reach the agent's admin HTTP on {address}: rejects are replayed by the running agent"
            )
        })?;
        let ok = answer.status().is_success();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        anyhow::ensure!(ok, "the agent on {address} refused: {text}");
        Ok(format!("sent again: {text}\n"))
    })
}
