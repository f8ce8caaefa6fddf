//! The wiring of the agent: telemetry, admin, signals, reload. (The parts that collect and send are put in here.)

use crate::cli::{Launch, RejectsArgs};
use crate::config::{Purpose, Settings, load_settings};
use anyhow::Context as _;
use pegel_runtime::admin::Admin;
use pegel_runtime::exit::{Reloader, cancel_on_signals};
use pegel_runtime::metrics::Registry;
use pegel_runtime::telemetry::Telemetry;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// Runs the agent to its end.
pub fn run(launch: Launch) -> anyhow::Result<()> {
    let telemetry = Telemetry::start(&launch.loaded.settings.log);
    for warning in &launch.loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(launch, telemetry))
}

async fn serve(launch: Launch, telemetry: Telemetry) -> anyhow::Result<()> {
    let Launch { loaded, input } = launch;
    let settings = loaded.settings;
    let registry = Registry::new();
    let shutdown = CancellationToken::new();
    cancel_on_signals(shutdown.clone()).context("cannot listen for signals")?;
    let levels = telemetry.clone();
    let reloader = Reloader::new(
        move || load_settings(&input, Purpose::Run),
        move |settings: Settings| {
            levels.set_level(&settings.log.level);
            Ok("the log level is in force".to_owned())
        },
        &registry,
    );
    reloader.on_hangup(shutdown.clone()).context("cannot listen for SIGHUP")?;
    tokio::spawn(async move { telemetry.tell_of_repeats_forever().await });
    if settings.admin.enabled {
        let admin =
            Admin::new(settings.admin.clone(), registry.clone()).reload(reloader.as_fn()).bind().await?;
        admin.serve(shutdown).await;
    } else {
        shutdown.cancelled().await;
    }
    Ok(())
}

/// Collects once and gives the text format.
pub fn once(_settings: Settings) -> anyhow::Result<String> {
    anyhow::bail!("no source is wired in yet")
}

/// Describes the buffer in a state directory.
pub fn inspect_buffer(state_dir: &Path, _json: bool) -> anyhow::Result<String> {
    anyhow::bail!("cannot look into `{}`: no spool is wired in yet", state_dir.display())
}

/// Lists or replays rejects in a state directory.
pub fn rejects(state_dir: &Path, _args: &RejectsArgs) -> anyhow::Result<String> {
    anyhow::bail!("cannot look into `{}`: no spool is wired in yet", state_dir.display())
}
