//! The admin HTTP of both processes: own metrics, health, reload, and what the program adds to it.
//!
//! It speaks plain HTTP without authentication and so listens on loopback only, unless somebody says `allow_remote`.
//! A browser on the machine is the way in that remains: a page from anywhere may send requests to 127.0.0.1, and by
//! DNS rebinding read the answers. So requests whose `Host` is neither an address, nor `localhost`, nor one of the
//! names that are configured, are refused, and so are those that carry the `Origin` of another site.

mod guard;
mod health;

pub use health::{Check, CheckFuture, Health};

use crate::config::form::{FilePath, Listen, Period};
use crate::config::{Mistakes, Path};
use crate::metrics::Registry;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long one dependency may take to say how it is. Kubernetes gives a probe one second by default.
pub const CHECK_TIMEOUT: Duration = Duration::from_millis(800);
/// How long requests may run on after the shutdown began.
pub const DRAIN: Duration = Duration::from_secs(2);

/// Metrics, health and reload of the process itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawAdmin {
    /// Whether admin HTTP is served at all.
    pub enabled: bool,
    /// The address to listen on. Port 0 takes a free one; see `address_file`.
    pub listen: Listen,
    /// Allows an address that other machines reach. There is no authentication: whoever reaches it reads all metrics
    /// and can ask for a reload.
    pub allow_remote: bool,
    /// Host names by which requests may come, beside addresses, `localhost` and the machine's own name.
    pub hosts: Vec<String>,
    /// A file to which the bound address is written, for scripts that choose port 0.
    pub address_file: Option<FilePath>,
    /// How long one dependency may take to answer a readiness check.
    pub check_timeout: Period,
}

impl RawAdmin {
    /// The defaults with a port.
    pub fn on_port(port: u16) -> Self {
        Self {
            enabled: true,
            listen: Listen((IpAddr::from([127, 0, 0, 1]), port).into()),
            allow_remote: false,
            hosts: Vec::new(),
            address_file: None,
            check_timeout: Period(CHECK_TIMEOUT),
        }
    }

    /// Resolves the section at a path.
    pub fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> AdminSettings {
        if self.enabled {
            refuse_remote(&self.listen, self.allow_remote, path, mistakes);
        }
        AdminSettings {
            enabled: self.enabled,
            listen: self.listen.0,
            hosts: self.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            address_file: self
                .address_file
                .as_ref()
                .map(|file| mistakes.path_of(&path.key("address_file"), file)),
            check_timeout: self.check_timeout.0,
        }
    }
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self::on_port(0)
    }
}

/// Refuses an address that other machines reach unless `allow_remote` is said beside it.
pub fn refuse_remote(listen: &Listen, allow_remote: bool, path: &Path, mistakes: &mut Mistakes) {
    if !allow_remote && !listen.0.ip().is_loopback() {
        let reason =
            format!("{listen} is reached from other machines, and nobody is asked who they are there");
        mistakes.at(
            &path.key("listen"),
            reason,
            "listen on 127.0.0.1 or [::1], or set allow_remote: true beside it",
        );
    }
}

/// Settings of admin HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Whether it is served.
    pub enabled: bool,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Host names by which requests may come, in lower case.
    pub hosts: Vec<String>,
    /// Where the bound address is written.
    pub address_file: Option<PathBuf>,
    /// The time limit of one check.
    pub check_timeout: Duration,
}

/// Why admin HTTP cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken, or not the machine's.
    #[error("admin HTTP cannot listen on {address}: {reason}; choose another address with admin.listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        reason: std::io::Error,
    },
    /// The bound address cannot be written.
    #[error("the address of admin HTTP cannot be written to `{}`: {reason}", path.display())]
    AddressFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: std::io::Error,
    },
}

/// Why a reload was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadRefused {
    /// Whether the configuration is at fault (422), or applying it failed (500).
    pub bad_configuration: bool,
    /// What is wrong, for a person.
    pub message: String,
}

/// Reloads the configuration and says what it did.
pub type ReloadFn = Arc<dyn Fn() -> Result<String, ReloadRefused> + Send + Sync>;

struct Shared {
    registry: Registry,
    health: Health,
    reload: Option<ReloadFn>,
}

/// Admin HTTP that is being put together.
pub struct Admin {
    settings: AdminSettings,
    shared: Shared,
    routes: Router,
}

impl Admin {
    /// Begins with metrics and health.
    pub fn new(settings: AdminSettings, registry: Registry) -> Self {
        let health = Health::new(settings.check_timeout);
        Self { settings, shared: Shared { registry, health, reload: None }, routes: Router::new() }
    }

    /// Adds a dependency that has to be well for the process to be ready.
    #[must_use]
    pub fn check<F>(mut self, name: &'static str, check: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, String>> + Send + 'static,
    {
        self.shared.health.add(name, check);
        self
    }

    /// Says what `POST /-/reload` does.
    #[must_use]
    pub fn reload(mut self, reload: ReloadFn) -> Self {
        self.shared.reload = Some(reload);
        self
    }

    /// Adds routes of the program's own, under the same checks of `Host` and `Origin`.
    #[must_use]
    pub fn route(mut self, routes: Router) -> Self {
        self.routes = self.routes.merge(routes);
        self
    }

    /// The routes without a listener, for tests and for a server of another kind.
    pub fn into_router(self) -> Router {
        let hosts: Arc<[String]> = self.settings.hosts.into();
        Router::new()
            .route("/metrics", get(metrics))
            .route("/-/healthy", get(|| async { "pegel is running\n" }))
            .route("/-/ready", get(ready_words))
            .route("/-/reload", post(reload))
            .route("/health", get(ready))
            .route("/health/live", get(live))
            .route("/health/ready", get(ready))
            .with_state(Arc::new(self.shared))
            .merge(self.routes)
            .layer(axum::middleware::from_fn_with_state(hosts, guard::refuse_strangers))
    }

    /// Binds the listener and writes its address down. Nothing is answered before [`BoundAdmin::serve`].
    pub async fn bind(self) -> Result<BoundAdmin, AdminError> {
        let address = self.settings.listen;
        let bind = |reason| AdminError::Bind { address, reason };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        if let Some(path) = &self.settings.address_file {
            write_address(path, address)
                .map_err(|reason| AdminError::AddressFile { path: path.clone(), reason })?;
        }
        Ok(BoundAdmin { listener, address, router: self.into_router() })
    }
}

/// Writes an address to a file so that a reader never sees half of it.
pub fn write_address(path: &std::path::Path, address: SocketAddr) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    std::fs::write(&new, format!("{address}\n"))?;
    std::fs::rename(&new, path)
}

/// Admin HTTP with its listener bound.
pub struct BoundAdmin {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
}

impl BoundAdmin {
    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the token is cancelled, then lets running requests end within [`DRAIN`].
    pub async fn serve(self, shutdown: CancellationToken) {
        tracing::info!(address = %self.address, "admin HTTP is listening");
        let begun = shutdown.clone();
        let server = axum::serve(self.listener, self.router)
            .with_graceful_shutdown(async move { begun.cancelled().await })
            .into_future();
        tokio::select! {
            result = server => {
                if let Err(error) = result {
                    tracing::error!(%error, "admin HTTP ended; metrics and health are not served any more");
                }
            }
            () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => {}
        }
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.registry.render())
}

async fn live() -> impl IntoResponse {
    axum::Json(serde_json::json!({ "status": "ok" }))
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let (ok, report) = shared.health.report().await;
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(report)).into_response()
}

async fn ready_words(State(shared): State<Arc<Shared>>) -> Response {
    let (ok, report) = shared.health.report().await;
    if ok {
        return "pegel is ready\n".into_response();
    }
    let mut words = String::from("pegel is not ready\n");
    for (name, check) in report["checks"].as_object().into_iter().flatten() {
        if check["status"] != "ok" {
            let _ = writeln!(words, "{name}: {}", check["detail"].as_str().unwrap_or_default());
        }
    }
    (StatusCode::SERVICE_UNAVAILABLE, words).into_response()
}

async fn reload(State(shared): State<Arc<Shared>>) -> Response {
    let Some(reload) = shared.reload.clone() else {
        return (StatusCode::NOT_IMPLEMENTED, "this process has no configuration to reload\n")
            .into_response();
    };
    // Files are read: not on a thread that serves others.
    match tokio::task::spawn_blocking(move || reload()).await {
        Ok(Ok(words)) => format!("{words}\n").into_response(),
        Ok(Err(refused)) => {
            let status = if refused.bad_configuration {
                StatusCode::UNPROCESSABLE_ENTITY
            } else {
                StatusCode::INTERNAL_SERVER_ERROR
            };
            (status, format!("{}\n", refused.message)).into_response()
        }
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the reload panicked; see the log\n").into_response(),
    }
}

#[cfg(test)]
mod tests;
