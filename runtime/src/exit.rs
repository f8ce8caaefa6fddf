//! How a process ends and what moves it while it runs: exit codes, signals, reloads.

use crate::admin::{ReloadFn, ReloadRefused};
use crate::config::{BadConfig, Loaded};
use crate::metrics::{Counter, Gauge, Registry};
use parking_lot::Mutex;
use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was to do.
    Success,
    /// It could not, for a reason outside the configuration.
    Runtime,
    /// It was called wrongly (clap exits with this code itself).
    Usage,
    /// Its configuration cannot be used (`EX_CONFIG` of sysexits.h). systemd need not try again.
    Configuration,
}

impl Exit {
    /// The number that the system sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Runtime => 1,
            Self::Usage => 2,
            Self::Configuration => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The exit that an error asks for: 78 if a configuration is at its root, else 1.
pub fn of_error(error: &anyhow::Error) -> Exit {
    if error.chain().any(<dyn std::error::Error>::is::<BadConfig>) {
        Exit::Configuration
    } else {
        Exit::Runtime
    }
}

/// Says an error on stderr and gives its exit code. What was going on comes first, the cause after it.
pub fn report(program: &str, result: &anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return Exit::Success.into() };
    match error.chain().find_map(|cause| cause.downcast_ref::<BadConfig>()) {
        Some(bad) => {
            eprintln!("{bad}");
            let count = bad.mistakes.len();
            eprintln!(
                "{program}: the configuration has {count} mistake{}",
                if count == 1 { "" } else { "s" }
            );
        }
        None => eprintln!("{program}: {error:#}"),
    }
    of_error(error).into()
}

/// Cancels the token on the first SIGTERM or SIGINT. A second one ends the process at once, unclean: the way out of
/// a drain that its operator does not want to wait for.
pub fn cancel_on_signals(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for again in [false, true] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if again {
                tracing::warn!(signal = name, "asked twice to end: ending without draining");
                std::process::exit(i32::from(Exit::Runtime.code()));
            }
            tracing::info!(signal = name, "asked to end: draining");
            shutdown.cancel();
        }
    });
    Ok(())
}

/// Runs the drain within a bound; false if it had to be cut off.
pub async fn drain(bound: Duration, work: impl Future<Output = ()>) -> bool {
    let ended = tokio::time::timeout(bound, work).await.is_ok();
    if !ended {
        tracing::warn!(
            bound_seconds = bound.as_secs_f64(),
            "the drain did not end in time; what is not sent stays in the spool"
        );
    }
    ended
}

/// Reloads a configuration as a whole or not at all.
pub struct Reloader {
    turn: Mutex<Box<dyn FnMut() -> Result<String, ReloadRefused> + Send>>,
    ok: Gauge,
    at: Gauge,
    reloads: Counter,
    refused: Counter,
}

impl Reloader {
    /// A reloader that reads settings by `load` and hands them to `apply`, which changes everything and says what it
    /// changed, or changes nothing and says why.
    pub fn new<S: 'static>(
        mut load: impl FnMut() -> Result<Loaded<S>, BadConfig> + Send + 'static,
        mut apply: impl FnMut(S) -> Result<String, String> + Send + 'static,
        registry: &Registry,
    ) -> Arc<Self> {
        let turn = move || {
            let loaded = load().map_err(|bad| ReloadRefused {
                bad_configuration: true,
                message: format!("{bad}\nnothing was changed"),
            })?;
            for warning in &loaded.warnings {
                tracing::warn!("{warning}");
            }
            apply(loaded.settings).map_err(|message| ReloadRefused { bad_configuration: false, message })
        };
        let help = "Reloads of the configuration by their result.";
        let reloads = |result| registry.counter("pegel_config_reloads_total", help, &[("result", result)]);
        let reloader = Self {
            turn: Mutex::new(Box::new(turn)),
            ok: registry.gauge(
                "pegel_config_last_reload_successful",
                "Whether the last reload of the configuration was taken over.",
                &[],
            ),
            at: registry.gauge(
                "pegel_config_last_reload_success_timestamp_seconds",
                "When the configuration in force was read.",
                &[],
            ),
            reloads: reloads("ok"),
            refused: reloads("refused"),
        };
        reloader.ok.set(1.0);
        reloader.at.set(unix_seconds());
        Arc::new(reloader)
    }

    /// Reloads once; one at a time.
    pub fn reload(&self) -> Result<String, ReloadRefused> {
        let result = (self.turn.lock())();
        match &result {
            Ok(words) => {
                tracing::info!(result = words, "the configuration was reloaded");
                self.reloads.inc();
                self.at.set(unix_seconds());
            }
            Err(refused) => {
                tracing::error!(
                    reason = refused.message,
                    "the reload is refused; the old configuration stays in force"
                );
                self.refused.inc();
            }
        }
        self.ok.set(if result.is_ok() { 1.0 } else { 0.0 });
        result
    }

    /// For `POST /-/reload`.
    pub fn as_fn(self: &Arc<Self>) -> ReloadFn {
        let this = self.clone();
        Arc::new(move || this.reload())
    }

    /// Reloads on each SIGHUP until the token is cancelled.
    pub fn on_hangup(self: &Arc<Self>, shutdown: CancellationToken) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let this = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    _ = hangup.recv() => {}
                }
                let this = this.clone();
                // The result is logged and counted where it arises.
                let _ = tokio::task::spawn_blocking(move || this.reload()).await;
            }
        });
        Ok(())
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Input;
    use anyhow::Context as _;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Raw {
        number: u32,
    }

    fn bad() -> BadConfig {
        let input = Input::new(Some("/nonexistent".into()), Vec::new());
        crate::config::load(&input, |_: &Raw, _| ()).unwrap_err()
    }

    #[test]
    fn a_configuration_at_the_root_of_an_error_is_78() {
        let error: anyhow::Result<()> = Err(bad()).context("cannot start");
        assert_eq!(of_error(&error.unwrap_err()), Exit::Configuration);
        assert_eq!(of_error(&anyhow::anyhow!("disk full")), Exit::Runtime);
    }

    #[test]
    fn a_reload_is_taken_over_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        std::fs::write(&file, "number: 1").unwrap();
        let applied = Arc::new(AtomicU32::new(0));
        let (input, seen) = (Input::new(Some(file.clone()), Vec::new()), applied.clone());
        let registry = Registry::new();
        let reloader = Reloader::new(
            move || crate::config::load(&input, |raw: &Raw, _| raw.number),
            move |number| {
                if number == 13 {
                    return Err("port 13 is taken; nothing was changed".to_owned());
                }
                seen.store(number, Ordering::Relaxed);
                Ok(format!("number {number}"))
            },
            &registry,
        );
        for (text, ok, number) in [
            ("number: 7", true, 7),
            ("number: x", false, 7),
            ("number: 13", false, 7),
            ("number: 8", true, 8),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(reloader.reload().is_ok(), ok, "{text}");
            assert_eq!(applied.load(Ordering::Relaxed), number, "{text}");
            let metrics = registry.render();
            let shown = format!("pegel_config_last_reload_successful {}", u8::from(ok));
            assert!(metrics.contains(&shown), "{metrics}");
        }
        assert!(registry.render().contains("pegel_config_reloads_total{result=\"refused\"} 2"));
    }

    #[test]
    fn a_drain_is_bounded() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            assert!(drain(Duration::from_secs(5), async {}).await);
            assert!(!drain(Duration::from_millis(5), std::future::pending()).await);
        });
    }
}
