//! The HTTP side that outputs have in common: who signs requests, and what came back of one.

use bytes::Bytes;
use http::header::{AUTHORIZATION, DATE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use parking_lot::Mutex;
use pegel_runtime::http_client::{ClientTls, ClientTlsError, HttpClient, http_client};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// How long a credential that was read from its file serves: rotated ones work within half a minute.
const CREDENTIAL_AGE: Duration = Duration::from_secs(30);

/// How requests are signed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Authorization {
    /// Not at all.
    #[default]
    None,
    /// With a bearer token.
    Bearer {
        /// The file that holds it; read again when it changes.
        token_file: PathBuf,
    },
    /// With a user name and password.
    Basic {
        /// The user.
        user: String,
        /// The file that holds the password; read again when it changes.
        password_file: PathBuf,
    },
}

/// Why an output can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL can't be used. It is not repeated: it may hold a secret.
    #[error("the output's url can't be used: {0}")]
    Url(&'static str),
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] ClientTlsError),
}

/// How a backend is spoken to.
pub(super) struct BackendSettings<'a> {
    /// Headers of every request. They may hold secrets and are never shown.
    pub headers: &'a [(HeaderName, HeaderValue)],
    pub authorization: &'a Authorization,
    pub tls: &'a ClientTls,
    pub connect_timeout: Duration,
    /// How long an answer may take. After it the request may have been carried out all the same.
    pub request_timeout: Duration,
}

/// A backend's client: one connection pool, with the credentials.
pub(super) struct Backend {
    client: HttpClient,
    headers: HeaderMap,
    authorization: Authorization,
    credential: Mutex<Option<(Instant, HeaderValue)>>,
    timeout: Duration,
}

/// What came of one request.
pub(super) enum Exchanged {
    /// The backend, or something before it, answered.
    Answered {
        status: u16,
        headers: HeaderMap,
        /// None if it broke off or was longer than wanted: status and headers count nevertheless.
        body: Option<Bytes>,
    },
    /// Nothing was answered.
    Failed {
        reason: String,
        /// Whether the request may have arrived.
        ambiguous: bool,
    },
}

/// Refuses what is no URL of a backend.
pub(super) fn check_url(url: &Uri) -> Result<(), SetupError> {
    if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
        return Err(SetupError::Url("it is not an http:// or https:// URL with a host"));
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(SetupError::Url(
            "it holds credentials: give them as basic authorization with a password file",
        ));
    }
    Ok(())
}

impl Backend {
    pub fn new(settings: &BackendSettings<'_>) -> Result<Self, SetupError> {
        let mut headers = HeaderMap::new();
        for (name, value) in settings.headers {
            let mut value = value.clone();
            value.set_sensitive(true);
            headers.append(name.clone(), value);
        }
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!("pegel-aggregator/", env!("CARGO_PKG_VERSION"))));
        Ok(Self {
            client: http_client(settings.tls, settings.connect_timeout)?,
            headers,
            authorization: settings.authorization.clone(),
            credential: Mutex::new(None),
            timeout: settings.request_timeout,
        })
    }

    /// Sends a request and waits for the answer. Its own headers go before those of the settings. `most` bounds the
    /// body that is read.
    pub async fn exchange(&self, mut request: Request<Full<Bytes>>, most: usize) -> Exchanged {
        let own = std::mem::replace(request.headers_mut(), self.headers.clone());
        request.headers_mut().extend(own);
        match self.credential() {
            Ok(Some(credential)) => drop(request.headers_mut().insert(AUTHORIZATION, credential)),
            Ok(None) => {}
            Err(reason) => return Exchanged::Failed { reason, ambiguous: false },
        }
        match tokio::time::timeout(self.timeout, self.answer(request, most)).await {
            Ok(exchanged) => exchanged,
            Err(_) => Exchanged::Failed {
                reason: format!("the backend did not answer within {:?}", self.timeout),
                ambiguous: true,
            },
        }
    }

    async fn answer(&self, request: Request<Full<Bytes>>, most: usize) -> Exchanged {
        let response = match self.client.request(request).await {
            Ok(response) => response,
            // A connection that was not made carried nothing.
            Err(e) => return Exchanged::Failed { reason: chain(&e), ambiguous: !e.is_connect() },
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, most).collect().await.ok().map(http_body_util::Collected::to_bytes);
        Exchanged::Answered { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// The value of the Authorization header. Errors name the file, never what is in it.
    fn credential(&self) -> Result<Option<HeaderValue>, String> {
        let mut cached = self.credential.lock();
        if let Some((read, value)) = &*cached
            && read.elapsed() < CREDENTIAL_AGE
        {
            return Ok(Some(value.clone()));
        }
        let text = match &self.authorization {
            Authorization::None => return Ok(None),
            Authorization::Bearer { token_file } => format!("Bearer {}", read_secret(token_file)?),
            Authorization::Basic { user, password_file } => {
                format!("Basic {}", base64(format!("{user}:{}", read_secret(password_file)?).as_bytes()))
            }
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| "the credential has characters that an HTTP header can't carry".to_owned())?;
        value.set_sensitive(true);
        *cached = Some((Instant::now(), value.clone()));
        Ok(Some(value))
    }
}

fn read_secret(path: &Path) -> Result<String, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end_matches(['\n', '\r']).to_owned()),
        Err(e) => Err(format!("cannot read the credential file `{}`: {e}", path.display())),
    }
}

/// Retry-After as seconds or as a date, which is taken against the answer's own date where it has one, so that
/// clocks that differ do no harm.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| OffsetDateTime::parse(text, &Rfc2822).ok();
    let until = date(text)?;
    let from = headers.get(DATE).and_then(|d| date(d.to_str().ok()?)).unwrap_or_else(|| now.into());
    Some((until - from).try_into().unwrap_or(Duration::ZERO))
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let sextet = group >> (18 - 6 * i) & 0x3f;
            out.push(if i <= chunk.len() { ALPHABET[sextet as usize] as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect()
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let after = |pairs: &[(&'static str, &str)]| retry_after(&headers(pairs), now);
        assert_eq!(after(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        let date = ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(after(&[date]), Some(Duration::from_secs(7)));
        assert_eq!(after(&[date, ("date", "Sun, 06 Nov 1994 08:49:34 GMT")]), Some(Duration::from_secs(3)));
        assert_eq!(after(&[date, ("date", "Sun, 06 Nov 1994 08:50:34 GMT")]), Some(Duration::ZERO));
        assert_eq!(after(&[("retry-after", "soon")]), None);
        assert_eq!(after(&[]), None);
    }
}
