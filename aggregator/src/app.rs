//! The wiring of the aggregator: the one place that makes the parts and knows in what order they begin and end.

use crate::cli::Launch;
use crate::config::{OutputSettings, Settings, StatusSettings, load_settings};
use crate::fanout::{Output, Tap, Taps};
use crate::fleet::follow_sessions;
use crate::node_up::NodeUp;
use crate::output::loki::Loki;
use crate::output::recent::Recent;
use crate::output::recent_logs::RecentLogs;
use crate::output::remote_write::RemoteWrite;
use crate::receiver::{Context as ReceiverContext, Outputs, Receiver, SessionTable};
use crate::status::tenants::Tenants;
use crate::status::{ReceiverFleet, RejectLog, Status};
use crate::symbols::Symbols;
use anyhow::Context as _;
use pegel_proto::batch::Signal;
use pegel_proto::wire::ALPN;
use pegel_runtime::admin::{Admin, write_address};
use pegel_runtime::exit::{Reloader, cancel_on_signals};
use pegel_runtime::metrics::Registry;
use pegel_runtime::telemetry::Telemetry;
use pegel_runtime::tls::{ReceiverTls, Reload, watch_files};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often certificate files are looked at for changes.
const CERTIFICATE_POLL: Duration = Duration::from_secs(30);

/// How long agents without a session are remembered where `pegel_node_up` does not say.
const FORGET_AFTER: Duration = Duration::from_hours(24);

/// Runs the aggregator to its end.
pub fn run(launch: Launch) -> anyhow::Result<()> {
    let telemetry = Telemetry::start(&launch.loaded.settings.log);
    for warning in &launch.loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(launch, telemetry));
    runtime.shutdown_background();
    result
}

fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

async fn serve(launch: Launch, telemetry: Telemetry) -> anyhow::Result<()> {
    let Launch { loaded, input } = launch;
    let settings = loaded.settings;
    let registry = Registry::new();
    let shutdown = CancellationToken::new();
    cancel_on_signals(shutdown.clone()).context("cannot listen for signals")?;
    let wall_clock_ms: Arc<dyn Fn() -> i64 + Send + Sync> = Arc::new(wall_ms);

    let tls = ReceiverTls::load(settings.tls.files.clone(), ALPN, settings.tls.trust_domain.clone())
        .context("cannot use the aggregator's certificates")?;
    let symbols = Arc::new(Symbols::new());
    let recent = Recent::new(settings.recent.clone(), symbols.clone(), &registry);
    let recent_logs = RecentLogs::new(settings.recent_logs.clone(), &registry);
    let outputs = make_outputs(&settings, &symbols, &recent, &recent_logs, &registry)?;
    let (_keep_outputs, outputs_watch) = watch::channel::<Outputs>(Arc::new(outputs.clone()));

    let sessions = Arc::new(SessionTable::new());
    let rejects = Arc::new(RejectLog::default());
    let mut taps: Vec<Arc<dyn Tap>> = vec![recent.clone()];
    if settings.status.enabled {
        taps.push(recent_logs.clone());
    }
    let receiver = Receiver::bind(ReceiverContext {
        settings: settings.receiver.clone(),
        tls: tls.clone(),
        outputs: outputs_watch.clone(),
        tap: Some(Arc::new(Taps(taps))),
        symbols: symbols.clone(),
        sessions: sessions.clone(),
        rejects: rejects.clone(),
        registry: registry.clone(),
        wall_clock_ms: wall_clock_ms.clone(),
    })?;
    let addresses = receiver.local_addresses();
    if let (Some(path), Some(address)) = (&settings.listen_address_file, addresses.first()) {
        write_address(path, *address).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    tracing::info!(?addresses, "listening for agents");

    let node_up = start_node_up(&settings, &outputs, &symbols);
    tokio::spawn(follow_sessions(
        sessions.clone(),
        node_up,
        settings.node_up.as_ref().map_or(FORGET_AFTER, |n| n.forget_after),
        wall_clock_ms,
        shutdown.clone(),
    ));
    tokio::spawn(watch_files(tls.clone(), CERTIFICATE_POLL, shutdown.clone()));

    let (levels, certificates) = (telemetry.clone(), tls);
    let reloader = Reloader::new(
        move || load_settings(&input),
        move |settings: Settings| {
            certificates.reload().map_err(|e| e.to_string())?;
            levels.set_level(&settings.log.level);
            Ok("certificates and log level are in force; other keys need a restart".to_owned())
        },
        &registry,
    );
    reloader.on_hangup(shutdown.clone()).context("cannot listen for SIGHUP")?;
    tokio::spawn(async move { telemetry.tell_of_repeats_forever().await });

    // Admin and page go on while agents are handed over.
    let last = CancellationToken::new();
    let mut servers = tokio::task::JoinSet::new();
    if settings.admin.enabled {
        let mut admin = Admin::new(settings.admin.clone(), registry.clone()).reload(reloader.as_fn());
        let watched = outputs_watch.clone();
        admin = admin.check("outputs", move || {
            let outputs = watched.borrow().clone();
            async move { outputs_health(&outputs) }
        });
        let admin = admin.bind().await?;
        servers.spawn(admin.serve(last.clone()));
    }
    if settings.status.enabled {
        let fleet = Arc::new(ReceiverFleet { sessions, rejects, outputs: outputs_watch });
        let mut page = settings.status.clone();
        page.status.agent_address = addresses.first().map(ToString::to_string).unwrap_or_default();
        let status = Status::new(page.status.clone(), fleet, recent, Some(recent_logs), &registry);
        tokio::spawn(status.clone().run(last.clone()));
        if let Some(address) = page.tenants_listen {
            let tls =
                ReceiverTls::load(settings.tls.files.clone(), b"http/1.1", settings.tls.trust_domain.clone())
                    .context("cannot use the aggregator's certificates")?;
            tokio::spawn(watch_files(tls.clone(), CERTIFICATE_POLL, shutdown.clone()));
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot answer tenants on {address} (status.tenants_listen)"))?;
            tracing::info!(address = %listener.local_addr()?, "tenants are answered at /api/v1/status and /api/v1/tail");
            servers.spawn(Tenants::new(status.clone(), tls, &registry).serve(listener, last.clone()));
        }
        let listener = bind_page(&page).await?;
        let stop = last.clone();
        servers.spawn(async move {
            let served = axum::serve(listener, status.router())
                .with_graceful_shutdown(async move { stop.cancelled().await })
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "the page is no longer served");
            }
        });
    }

    receiver.run(shutdown).await;
    last.cancel();
    let all = async { while servers.join_next().await.is_some() {} };
    // A page that stays open does not hold up the end.
    let _ = tokio::time::timeout(Duration::from_secs(1), all).await;
    Ok(())
}

fn make_outputs(
    settings: &Settings,
    symbols: &Arc<Symbols>,
    recent: &Arc<Recent>,
    recent_logs: &Arc<RecentLogs>,
    registry: &Registry,
) -> anyhow::Result<Vec<Arc<dyn Output>>> {
    let mut outputs: Vec<Arc<dyn Output>> = Vec::new();
    for output in &settings.outputs {
        match output {
            OutputSettings::RemoteWrite(write) => {
                let made = RemoteWrite::new((**write).clone(), symbols.clone(), registry)
                    .with_context(|| format!("cannot set up the output `{}`", write.name))?;
                outputs.push(Arc::new(made));
            }
            OutputSettings::Loki(loki) => {
                let made = Loki::new((**loki).clone(), registry)
                    .with_context(|| format!("cannot set up the output `{}`", loki.name))?;
                outputs.push(Arc::new(made));
            }
        }
    }
    if outputs.is_empty() {
        // Somebody has to acknowledge: without a backend the recent past in memory is where data goes.
        outputs.push(recent.clone());
        outputs.push(recent_logs.clone());
    }
    Ok(outputs)
}

fn start_node_up(
    settings: &Settings,
    outputs: &[Arc<dyn Output>],
    symbols: &Arc<Symbols>,
) -> Option<Arc<NodeUp>> {
    let mut wanted = settings.node_up.clone().filter(|_| !settings.outputs.is_empty())?;
    // Two aggregators that both know a node must not write one series: theirs differ in this label.
    wanted.aggregator.get_or_insert_with(|| settings.name.clone());
    let of_metrics = |output: &&Arc<dyn Output>| output.announcement().signal == Signal::Metrics;
    let outputs = outputs.iter().filter(of_metrics).cloned().collect();
    let node_up = NodeUp::new(wanted, outputs, symbols.clone());
    tokio::spawn(node_up.clone().run());
    Some(node_up)
}

fn outputs_health(outputs: &Outputs) -> Result<String, String> {
    let sick: Vec<String> = outputs
        .iter()
        .filter(|output| !output.health().ok)
        .map(|output| format!("{}: {}", output.announcement().name, output.health().detail))
        .collect();
    if sick.is_empty() { Ok(format!("{} answer", outputs.len())) } else { Err(sick.join("; ")) }
}

async fn bind_page(settings: &StatusSettings) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot serve the page on {}", settings.listen))?;
    let address = listener.local_addr()?;
    if let Some(path) = &settings.address_file {
        let write = |path: &Path| write_address(path, address);
        write(path).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    tracing::info!(%address, "the page is at http://{address}/");
    Ok(listener)
}
