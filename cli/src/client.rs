//! Asks an aggregator's status API.

use anyhow::{Context as _, Result, bail};
use http_body_util::BodyExt as _;
use hyper::Uri;
use hyper::body::Incoming;
use pegel_aggregator::status::{ErrorAnswer, FleetAnswer};
use pegel_runtime::http_client::{ClientTls, HttpClient, http_client};
use std::time::Duration;

/// A person waits: an aggregator that is there answers within milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A client of one aggregator.
pub struct StatusClient {
    client: HttpClient,
    base: String,
}

impl StatusClient {
    /// A client for the page at a URL.
    pub fn new(url: &str) -> Result<Self> {
        Self::with_tls(url, &ClientTls::default())
    }

    /// A client that proves itself.
    pub fn with_tls(url: &str, tls: &ClientTls) -> Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().with_context(|| format!("`{url}` is not a URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            bail!("`{url}` is not a URL of an aggregator's page: it begins with http:// or https://");
        }
        Ok(Self { client: http_client(tls, TIMEOUT)?, base })
    }

    /// The body of an answer.
    pub async fn body(&self, path: &str) -> Result<Vec<u8>> {
        let asked = async { anyhow::Ok(self.open(path).await?.collect().await?.to_bytes()) };
        match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(body) => Ok(body?.into()),
            Err(_) => bail!("no answer from {}{path} within {} s", self.base, TIMEOUT.as_secs()),
        }
    }

    /// An answer that is read as it comes.
    pub async fn open(&self, path: &str) -> Result<Incoming> {
        let url = format!("{}{path}", self.base);
        let asked = tokio::time::timeout(TIMEOUT, self.client.get(url.parse()?)).await;
        let response = match asked {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                return Err(error).with_context(|| {
                    format!("cannot ask {url}; is the aggregator running, and is that its page (--aggregator-url)?")
                });
            }
            Err(_) => bail!("no answer from {url} within {} s", TIMEOUT.as_secs()),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let body = tokio::time::timeout(TIMEOUT, response.into_body().collect()).await??.to_bytes();
        let told = serde_json::from_slice::<ErrorAnswer>(&body).map(|answer| answer.error);
        bail!("{url} answered {status}: {}", told.unwrap_or_else(|_| "is it an aggregator's page?".into()))
    }

    /// The fleet.
    pub async fn fleet(&self) -> Result<FleetAnswer> {
        let body = self.body("/api/v1/fleet").await?;
        serde_json::from_slice(&body)
            .with_context(|| format!("the answer of {} is not one of this version's API", self.base))
    }
}
