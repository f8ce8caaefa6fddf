//! The wiring of the aggregator: telemetry, admin, signals, reload. (Receiver, outputs and page are put in here.)

use crate::cli::Launch;
use crate::config::{Settings, load_settings};
use anyhow::Context as _;
use pegel_runtime::admin::Admin;
use pegel_runtime::exit::{Reloader, cancel_on_signals};
use pegel_runtime::metrics::Registry;
use pegel_runtime::telemetry::Telemetry;
use tokio_util::sync::CancellationToken;

/// Runs the aggregator to its end.
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
        move || load_settings(&input),
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
