//! The wiring of the agent: the one place that makes the parts and knows in what order they begin and end.

use crate::call_in;
use crate::cli::Launch;
use crate::config::{Purpose, Settings, load_settings};
use crate::delivery::Delivery;
use crate::intake::{DEFAULT_INTAKE_BYTES, Intake, intake};
use crate::kept::Replay;
use crate::logs_line;
use crate::program_text;
use crate::source::SourceContext;
use crate::source::clock::SampleClock;
use crate::source::container::runtime::Discovery;
use crate::source::container::{Catalogue, ContainerSource};
use crate::source::host::{HostSource, KernelSystem, System};
use crate::source::probe::{ProbeSource, probe_once};
use crate::source::render;
use crate::source::scrape::{ScrapeSource, scrape_once};
use crate::status::{DeliveryWatch, StatusSource};
use anyhow::Context as _;
use axum::routing::get;
use pegel_runtime::admin::Admin;
use pegel_runtime::exit::{Reloader, cancel_on_signals};
use pegel_runtime::metrics::Registry;
use pegel_runtime::telemetry::Telemetry;
use pegel_runtime::tls::{Reload as _, UplinkTls};
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
    let (logs, line) = match logs_line::prepare(&settings) {
        Ok(prepared) => prepared.unzip(),
        Err(error) => {
            tracing::error!(error, "logs are not collected: their checkpoints can't be used");
            (None, None)
        }
    };
    let mut delivery = Delivery::start(&settings, &tls, &registry, line).await?;

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
    tokio::spawn(program_text::give_back_forever(sources_shutdown.clone()));
    let log_intake = logs.as_ref().map(|logs| logs.intake.clone());
    let logs = logs.map(|logs| logs.start(&settings, &catalogue, &context, &sources_shutdown));
    if let (Some(logs), Some(state)) = (&logs, &delivery.logs) {
        let told = logs.clone().tell_behind(delivery.uplink.clone(), state.clone(), sources_shutdown.clone());
        tokio::spawn(told);
    }
    let probes = Arc::new(ProbeSource::start(settings.probes.clone(), Some(catalogue), context.clone()));
    let scrape = Arc::new(ScrapeSource::start(settings.scrape.clone(), context));

    let status = StatusSource {
        epoch: delivery.epoch,
        delivery: DeliveryWatch { metrics: delivery.metrics.clone(), logs: delivery.logs.clone() },
        uplink: delivery.uplink.clone(),
        host: host_status,
        scrape: scrape.clone(),
        containers: container_status,
        runtimes: discovery.clone(),
        probes: probes.clone(),
        logs: logs.clone(),
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
        let ready = status.delivery.clone();
        let replay = Replay {
            rejects: delivery.rejects.clone(),
            samples: delivery.intake.clone(),
            entries: log_intake,
        };
        let routes = routes(status).merge(replay.route()).merge(jobs);
        let admin = Admin::new(settings.admin.clone(), registry.clone())
            .reload(reloader.as_fn())
            .check("spool", move || {
                let trouble = ready.spool_trouble();
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
        ended = delivery.broken() => anyhow::bail!("{ended}; please report the log above"),
    }
    tracing::info!("ending: sources stop, what is collected is sent or stored");
    sources_shutdown.cancel();
    let sources_end = async {
        scrape.stopped().await;
        probes.stopped().await;
        if let Some(logs) = &logs {
            logs.stopped().await;
        }
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

fn routes(status: StatusSource) -> axum::Router {
    axum::Router::new().route("/api/v1/status", get(move || async move { axum::Json(status.json()) }))
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
