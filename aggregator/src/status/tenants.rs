//! The status API for tenants: HTTPS, where the caller's certificate says whose state it may see.
//!
//! A caller shows the same kind of certificate as an agent, and sees what belongs to the tenant that it names. One
//! request a connection: so a certificate that was revoked or has expired is refused at the next request. Who follows
//! logs has an answer without an end: its certificate is looked at again while it lasts.

use super::tail::{self, Endless};
use super::{Caller, Refusal, Status, overview};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use pegel_runtime::metrics::{Counter, Registry};
use pegel_runtime::tls::ReceiverTls;
use rustls_pki_types::UnixTime;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How many connections may be open: each costs some 50 KB while it lasts.
const MAX_CONNECTIONS: usize = 128;
/// How long one may take in all, handshake and answer: an answer of 20 MB over 10 Mbit/s. While logs are followed, how
/// often the certificate is looked at.
const CONNECTION_LIMIT: Duration = Duration::from_secs(30);
/// How long a handshake and a request's head may take.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// The pause after the kernel had no descriptor for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener for tenants.
pub struct Tenants {
    status: Arc<Status>,
    tls: Arc<ReceiverTls>,
    refused: Counter,
    requests: Counter,
}

impl Tenants {
    /// Puts it together. `tls` is that of the aggregator, for HTTP.
    pub fn new(status: Arc<Status>, tls: Arc<ReceiverTls>, registry: &Registry) -> Arc<Self> {
        let connections = |result| {
            registry.counter(
                "pegel_status_tenant_connections_total",
                "Connections to the status API for tenants, by whether the certificate was accepted.",
                &[("result", result)],
            )
        };
        Arc::new(Self { status, tls, refused: connections("refused"), requests: connections("accepted") })
    }

    /// Serves until `shutdown`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((socket, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (tenants, end) = (self.clone(), shutdown.clone());
            tokio::spawn(async move {
                let answered = tenants.answer(socket);
                tokio::select! {
                    () = end.cancelled() => {}
                    result = answered => {
                        if let Err(reason) = result {
                            tenants.refused.inc();
                            tracing::debug!(%peer, reason, "a caller of the status API is refused");
                        }
                    }
                }
                drop(place);
            });
        }
    }

    async fn answer(&self, socket: TcpStream) -> Result<(), String> {
        let handshake = TlsAcceptor::from(self.tls.config()).accept(socket);
        let stream = tokio::time::timeout(HEAD_LIMIT, handshake)
            .await
            .map_err(|_| "no handshake in time".to_owned())?
            .map_err(|error| error.to_string())?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let peer = self.tls.verify_peer(&chain, UnixTime::now()).map_err(|error| error.to_string())?;
        self.requests.inc();
        let endless = Endless::default();
        let caller = Caller::Tenant(peer.identity.tenant);
        let routes = TowerToHyperService::new(self.routes(caller, endless.clone()));
        let served = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), routes);
        let mut served = std::pin::pin!(served);
        loop {
            match tokio::time::timeout(CONNECTION_LIMIT, &mut served).await {
                // The caller went away: nobody to tell.
                Ok(result) => return result.or(Ok(())),
                Err(_) if endless.0.load(Ordering::Relaxed) => {
                    self.tls.verify_peer(&chain, UnixTime::now()).map_err(|error| error.to_string())?;
                }
                Err(_) => return Ok(()),
            }
        }
    }

    fn routes(&self, caller: Caller, endless: Endless) -> Router {
        let elsewhere = || async {
            let told = "tenants are answered at /api/v1/status and /api/v1/tail only";
            Refusal(StatusCode::NOT_FOUND, told.into())
        };
        Router::new()
            .route("/api/v1/status", get(overview::overview))
            .route("/api/v1/tail", get(tail::tail))
            .fallback(elsewhere)
            .layer(Extension(caller))
            .layer(Extension(endless))
            .with_state(self.status.clone())
    }
}
