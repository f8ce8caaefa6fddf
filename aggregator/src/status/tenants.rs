//! The status API for tenants: HTTPS, where the caller's certificate says whose state it may see.
//!
//! A caller shows the same kind of certificate as an agent, and sees what belongs to the tenant that it names. One
//! request a connection: so a certificate that was revoked or has expired is refused at the next request.

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
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How many connections may be open: each costs some 50 KB while it lasts.
const MAX_CONNECTIONS: usize = 128;
/// How long one may take in all, handshake and answer: an answer of 20 MB over 10 Mbit/s.
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
                let answered = tokio::time::timeout(CONNECTION_LIMIT, tenants.answer(socket));
                tokio::select! {
                    () = end.cancelled() => {}
                    result = answered => {
                        if let Ok(Err(reason)) = result {
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
        let routes = TowerToHyperService::new(self.routes(Caller::Tenant(peer.identity.tenant)));
        let served = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), routes)
            .await;
        // The caller went away: nobody to tell.
        served.or(Ok(()))
    }

    fn routes(&self, caller: Caller) -> Router {
        let elsewhere =
            || async { Refusal(StatusCode::NOT_FOUND, "tenants are answered at /api/v1/status only".into()) };
        Router::new()
            .route("/api/v1/status", get(overview::overview))
            .fallback(elsewhere)
            .layer(Extension(caller))
            .with_state(self.status.clone())
    }
}
