//! From redirect to redirect: what is requested next, of whom, and with which headers.

use super::cookies::Jar;
use super::exchange::{self, Answer};
use super::{Body, MAX_REDIRECTS, REDIRECTS, Settings, host_of};
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::run::Run;
use crate::source::scrape::fetch::{FetchError, authorization};
use crate::source::scrape::url::resolve_redirect;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Uri, Version};
use std::net::IpAddr;

/// See the module.
pub(super) struct Journey {
    pub(super) url: Uri,
    /// Where the URL's host is, if that is known.
    pub(super) address: Option<IpAddr>,
    /// The target's own authority and scheme.
    origin: Uri,
    host_header: Option<HeaderValue>,
    method: Method,
    headers: HeaderMap,
    body: Option<Vec<u8>>,
    jar: Jar,
    redirects: usize,
}

/// What an answer leads to.
pub(super) enum Next {
    /// Another request.
    Go,
    /// No other; with the reason if there should have been one.
    Stay(Option<Failure>),
}

impl Journey {
    /// Begins at a URL.
    pub(super) fn begin(settings: &Settings, url: Uri) -> Result<Self, Failure> {
        let bad = |words: String| Failure::new(Phase::Setup, Reason::Configuration, words);
        let mut headers = HeaderMap::new();
        let agent = HeaderValue::from_static(concat!("pegel-agent/", env!("CARGO_PKG_VERSION")));
        headers.insert(header::USER_AGENT, agent);
        let mut host_header = None;
        for (name, value) in &settings.headers {
            if name == header::HOST {
                host_header = Some(value.clone());
            } else {
                headers.insert(name, value.clone());
            }
        }
        if let Some(auth) = &settings.auth {
            let value = authorization(auth).map_err(|e: FetchError| bad(e.to_string()))?;
            headers.insert(header::AUTHORIZATION, value);
        }
        let body = match &settings.body {
            None => None,
            Some(Body::Text(text)) => Some(text.clone().into_bytes()),
            Some(Body::File(path)) => Some(
                std::fs::read(path)
                    .map_err(|e| bad(format!("cannot read body_file {}: {e}", path.display())))?,
            ),
        };
        Ok(Self {
            origin: url.clone(),
            url,
            address: None,
            host_header,
            method: settings.method.clone(),
            headers,
            body,
            jar: Jar::default(),
            redirects: 0,
        })
    }

    fn at_origin(&self) -> bool {
        self.url.authority() == self.origin.authority() && self.url.scheme() == self.origin.scheme()
    }

    /// The name that the server's certificate should have: the `Host` header's if there is one, as servers choose
    /// their certificate by it.
    pub(super) fn tls_name(&self) -> String {
        let host = self.host_header.as_ref().filter(|_| self.at_origin()).and_then(|h| h.to_str().ok());
        match host {
            Some(host) => host.rsplit_once(':').map_or(host, |(name, _)| name).to_owned(),
            None => host_of(&self.url).to_owned(),
        }
    }

    /// The request that comes next, for a version.
    pub(super) fn request(&self, version: Version) -> Result<exchange::Request, Failure> {
        let mut headers = self.headers.clone();
        if let Some(cookies) = self.jar.header(&self.url) {
            headers.append(header::COOKIE, cookies);
        }
        exchange::request(
            version,
            &self.method,
            &self.url,
            self.host_header.as_ref().filter(|_| self.at_origin()),
            headers,
            self.body.clone(),
        )
    }

    /// Follows a redirect, if the answer is one, as browsers and Go do.
    pub(super) fn redirected(&mut self, settings: &Settings, answer: &Answer, run: &mut Run) -> Next {
        self.jar.take(&self.url, answer.headers());
        let status = answer.status().as_u16();
        let location = answer.headers().get(header::LOCATION);
        let Some(location) = location.filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308)) else {
            return Next::Stay(None);
        };
        let stay = |words: String| Next::Stay(Some(Failure::assertion(Reason::Redirect, words)));
        let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
        let Some(to) = resolve_redirect(&self.url, &location) else {
            return stay(format!("it redirects to `{location}`, which is no http URL"));
        };
        self.redirects += 1;
        run.record.set(&REDIRECTS, self.redirects as f64);
        if !settings.follow_redirects {
            return Next::Stay(None);
        }
        if self.redirects > MAX_REDIRECTS {
            return stay(format!("it redirects more than {MAX_REDIRECTS} times"));
        }
        if matches!(status, 301..=303) && !matches!(self.method, Method::GET | Method::HEAD) {
            self.method = Method::GET;
            self.body = None;
            for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
                self.headers.remove(name);
            }
        }
        // Within the same host the address stays, as the check is about one; others are looked up.
        let same_host = to.host() == self.url.host();
        self.url = to;
        if !same_host {
            self.address = None;
        }
        if !self.at_origin() {
            // Credentials are for the target only, wherever it sends its visitors.
            for name in [header::AUTHORIZATION, header::COOKIE, header::WWW_AUTHENTICATE] {
                self.headers.remove(name);
            }
        }
        Next::Go
    }
}
