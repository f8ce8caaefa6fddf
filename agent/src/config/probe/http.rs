//! Checks over HTTP: blackbox_exporter's keys.

use super::{RawIpProtocol, RawProbeTls, pattern, patterns};
use crate::source::probe::kinds::assertion::{JsonAssertion, JsonPath, JsonWanted};
use crate::source::probe::kinds::http::{
    Body, Compression, HeaderMatch, MAX_MATCHED_BYTES, Offered, Settings,
};
use crate::source::scrape::settings::{Auth, Secret};
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Version};
use pegel_runtime::config::form::{ByteSize, FilePath};
use pegel_runtime::config::section::{self, RawBasicAuth, resolve_auth};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawCompression {
    /// gzip.
    Gzip,
    /// deflate.
    Deflate,
    /// brotli.
    Br,
    /// Not at all.
    Identity,
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RawHttpVersion {
    /// As `enable_http2` and `enable_http3` say.
    #[serde(rename = "auto")]
    Auto,
    /// HTTP/1.1.
    #[serde(rename = "1.1")]
    Http1,
    /// HTTP/2.
    #[serde(rename = "2")]
    Http2,
    /// HTTP/3.
    #[serde(rename = "3")]
    Http3,
}

/// A header held against a regular expression.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["header", "regexp"]))]
pub struct RawHeaderMatch {
    /// The header's name.
    pub header: String,
    /// The expression.
    pub regexp: String,
    /// Whether an answer without the header is fine.
    pub allow_missing: bool,
}

/// A value that a JSON body must have. Without `equals` and `matches`, it has to be there.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path"]))]
pub struct RawJsonAssertion {
    /// Where it is: `status`, `nodes[0].up`.
    pub path: String,
    /// What it is.
    pub equals: Option<String>,
    /// A regular expression that it matches.
    pub matches: Option<String>,
}

/// What a check over HTTP requests and what must come.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "x-renamed" = {"tls": "tls_config"},
    "x-refused" = {
        "fail_if_body_json_matches_cel": "there is no CEL here: write what must be under body_json",
        "fail_if_body_json_not_matches_cel": "there is no CEL here: write what must be under body_json",
        "no_follow_redirects": "set follow_redirects: false",
        "bearer_token": "tokens are read from files: use bearer_token_file",
        "proxy_url": "checks do not go through proxies"
    }
))]
#[expect(clippy::struct_excessive_bools, reason = "each is a key that blackbox_exporter has as well")]
pub struct RawHttpProbe {
    /// The method.
    pub method: String,
    /// Headers of the request. `Host` overrides the URL's host.
    pub headers: BTreeMap<String, String>,
    /// The body of the request.
    pub body: Option<String>,
    /// A file with the body of the request; it is read for each run.
    pub body_file: Option<FilePath>,
    /// Whether redirects are followed, up to ten.
    pub follow_redirects: bool,
    /// The version that is spoken: `auto`, `1.1`, `2` or `3`. `auto` is what `enable_http2` and `enable_http3` say: 2 or
    /// 1.1 over TLS, as the server chooses, and 1.1 in the clear. `2` is spoken in the clear without asking, `3` over TLS
    /// only, so that an `http` URL is taken for an `https` one.
    pub http_version: RawHttpVersion,
    /// Whether HTTP/2 is offered, over TLS.
    pub enable_http2: bool,
    /// As `http_version: 3`.
    pub enable_http3: bool,
    /// Statuses that are fine; without any, 200 to 299.
    pub valid_status_codes: Vec<u16>,
    /// Versions that are fine: `HTTP/1.0`, `HTTP/1.1`, `HTTP/2.0`, `HTTP/3.0`; without any, all.
    pub valid_http_versions: Vec<String>,
    /// The IP protocol that is used where there is a choice.
    pub preferred_ip_protocol: RawIpProtocol,
    /// Whether the other one is used where there is no address of the preferred.
    pub ip_protocol_fallback: bool,
    /// An answer over TLS is a failure.
    pub fail_if_ssl: bool,
    /// An answer without TLS is a failure.
    pub fail_if_not_ssl: bool,
    /// Regular expressions; a body that one of them matches is a failure.
    pub fail_if_body_matches_regexp: Vec<String>,
    /// Regular expressions; a body that one of them does not match is a failure.
    pub fail_if_body_not_matches_regexp: Vec<String>,
    /// A header that its expression matches is a failure.
    pub fail_if_header_matches: Vec<RawHeaderMatch>,
    /// A header that its expression does not match is a failure.
    pub fail_if_header_not_matches: Vec<RawHeaderMatch>,
    /// Values that a JSON body must have.
    pub body_json: Vec<RawJsonAssertion>,
    /// How the body must be compressed. Without it, its bytes are taken as they come. Ask for it by a header
    /// `Accept-Encoding`.
    pub compression: Option<RawCompression>,
    /// A body that is larger after decompression is a failure; 0 is no limit. A body that is matched is in memory, so
    /// it has 8MiB at most.
    pub body_size_limit: ByteSize,
    /// User and password.
    pub basic_auth: Option<RawBasicAuth>,
    /// A file that holds a bearer token; it is read for each run.
    pub bearer_token_file: Option<FilePath>,
    /// TLS.
    pub tls_config: RawProbeTls,
}

impl Default for RawHttpProbe {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            headers: BTreeMap::new(),
            body: None,
            body_file: None,
            follow_redirects: true,
            http_version: RawHttpVersion::Auto,
            enable_http2: true,
            enable_http3: false,
            valid_status_codes: Vec::new(),
            valid_http_versions: Vec::new(),
            preferred_ip_protocol: RawIpProtocol::Ip6,
            ip_protocol_fallback: true,
            fail_if_ssl: false,
            fail_if_not_ssl: false,
            fail_if_body_matches_regexp: Vec::new(),
            fail_if_body_not_matches_regexp: Vec::new(),
            fail_if_header_matches: Vec::new(),
            fail_if_header_not_matches: Vec::new(),
            body_json: Vec::new(),
            compression: None,
            body_size_limit: ByteSize(0),
            basic_auth: None,
            bearer_token_file: None,
            tls_config: RawProbeTls::default(),
        }
    }
}

impl RawHttpProbe {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> Settings {
        if self.fail_if_ssl && self.fail_if_not_ssl {
            mistakes.at(
                &path.key("fail_if_ssl"),
                "leaves nothing beside fail_if_not_ssl",
                "take one of them out",
            );
        }
        let looks_at_body = !(self.fail_if_body_matches_regexp.is_empty()
            && self.fail_if_body_not_matches_regexp.is_empty()
            && self.body_json.is_empty());
        if looks_at_body && self.body_size_limit.0 > MAX_MATCHED_BYTES {
            let reason =
                format!("`{}` is more than what is kept of a body that is matched", self.body_size_limit);
            mistakes.at(&path.key("body_size_limit"), reason, "use 8MiB or less");
        }
        let headers = self.resolve_headers(path, mistakes);
        if self.compression.is_some_and(|c| c != RawCompression::Identity)
            && !headers.iter().any(|(name, _)| name == header::ACCEPT_ENCODING)
        {
            let reason = "is not asked for by the request";
            mistakes.warn(&path.key("compression"), reason, "add Accept-Encoding to headers");
        }
        Settings {
            method: self.resolve_method(path, mistakes),
            headers,
            body: self.resolve_body(path, mistakes),
            auth: self.resolve_auth(path, mistakes),
            families: self.preferred_ip_protocol.families(self.ip_protocol_fallback),
            follow_redirects: self.follow_redirects,
            offered: self.resolve_offered(path, mistakes),
            valid_status_codes: self.resolve_statuses(path, mistakes),
            valid_versions: self.resolve_versions(path, mistakes),
            fail_if_ssl: self.fail_if_ssl,
            fail_if_not_ssl: self.fail_if_not_ssl,
            fail_if_body_matches: patterns(
                &self.fail_if_body_matches_regexp,
                &path.key("fail_if_body_matches_regexp"),
                mistakes,
            ),
            fail_if_body_not_matches: patterns(
                &self.fail_if_body_not_matches_regexp,
                &path.key("fail_if_body_not_matches_regexp"),
                mistakes,
            ),
            fail_if_header_matches: header_matches(
                &self.fail_if_header_matches,
                &path.key("fail_if_header_matches"),
                mistakes,
            ),
            fail_if_header_not_matches: header_matches(
                &self.fail_if_header_not_matches,
                &path.key("fail_if_header_not_matches"),
                mistakes,
            ),
            body_json: self.resolve_json(path, mistakes),
            compression: self.compression.map(|compression| match compression {
                RawCompression::Gzip => Compression::Gzip,
                RawCompression::Deflate => Compression::Deflate,
                RawCompression::Br => Compression::Brotli,
                RawCompression::Identity => Compression::Identity,
            }),
            body_size_limit: self.body_size_limit.0,
            tls: self.tls_config.resolve(&path.key("tls_config"), mistakes),
        }
    }

    fn resolve_offered(&self, path: &Path, mistakes: &mut Mistakes) -> Offered {
        let offered = match (self.http_version, self.enable_http3, self.enable_http2) {
            (RawHttpVersion::Http1 | RawHttpVersion::Http2, true, _) => {
                let reason = "leaves no other version than HTTP/3";
                mistakes.at(&path.key("enable_http3"), reason, "take it or http_version out");
                Offered::Http3
            }
            (RawHttpVersion::Http3, _, _) | (RawHttpVersion::Auto, true, _) => Offered::Http3,
            (RawHttpVersion::Http2, false, _) => Offered::Http2,
            (RawHttpVersion::Http1, false, _) | (RawHttpVersion::Auto, false, false) => Offered::Http1,
            (RawHttpVersion::Auto, false, true) => Offered::Any,
        };
        if self.fail_if_ssl && offered == Offered::Http3 {
            let reason = "fails always: HTTP/3 is spoken over TLS only";
            mistakes.at(&path.key("fail_if_ssl"), reason, "take it out");
        }
        offered
    }

    fn resolve_method(&self, path: &Path, mistakes: &mut Mistakes) -> Method {
        self.method.parse().unwrap_or_else(|_| {
            let reason = format!("`{}` is no HTTP method", self.method.escape_debug());
            mistakes.at(&path.key("method"), reason, "write one such as GET or POST");
            Method::GET
        })
    }

    fn resolve_body(&self, path: &Path, mistakes: &mut Mistakes) -> Option<Body> {
        match (&self.body, &self.body_file) {
            (Some(_), Some(_)) => {
                mistakes.at(&path.key("body_file"), "is there beside body", "take one of them out");
                None
            }
            (Some(text), None) => Some(Body::Text(text.clone())),
            (None, Some(file)) => Some(Body::File(mistakes.readable_file(&path.key("body_file"), file))),
            (None, None) => None,
        }
    }

    fn resolve_auth(&self, path: &Path, mistakes: &mut Mistakes) -> Option<Auth> {
        match resolve_auth(self.basic_auth.as_ref(), self.bearer_token_file.as_ref(), path, mistakes)? {
            section::Auth::Basic { username, password_file } => {
                Some(Auth::Basic { username, password: Secret::File(password_file) })
            }
            section::Auth::Bearer(file) => Some(Auth::Bearer(Secret::File(file))),
        }
    }

    fn resolve_headers(&self, path: &Path, mistakes: &mut Mistakes) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            let here = path.key("headers").key(name);
            match name.parse::<HeaderName>() {
                // What a credential is must not stand in a file that is shown around.
                Ok(header::AUTHORIZATION) => {
                    mistakes.at(&here, "would be a credential", "use basic_auth or bearer_token_file");
                }
                Ok(header) => match HeaderValue::from_str(value) {
                    Ok(value) => headers.push((header, value)),
                    Err(_) => mistakes.at(
                        &here,
                        "has a value that no header may have",
                        "take control characters out",
                    ),
                },
                Err(_) => mistakes.at(&here, "is no header name", "use letters, digits and hyphens"),
            }
        }
        headers
    }

    fn resolve_statuses(&self, path: &Path, mistakes: &mut Mistakes) -> Vec<u16> {
        for (i, status) in self.valid_status_codes.iter().enumerate() {
            if !(100..=999).contains(status) {
                let path = path.key("valid_status_codes").index(i);
                mistakes.at(&path, format!("`{status}` is no status"), "use numbers from 100 to 599");
            }
        }
        self.valid_status_codes.clone()
    }

    fn resolve_versions(&self, path: &Path, mistakes: &mut Mistakes) -> Vec<Version> {
        let mut versions = Vec::new();
        for (i, version) in self.valid_http_versions.iter().enumerate() {
            match version.as_str() {
                "HTTP/1.0" => versions.push(Version::HTTP_10),
                "HTTP/1.1" => versions.push(Version::HTTP_11),
                "HTTP/2.0" | "HTTP/2" => versions.push(Version::HTTP_2),
                "HTTP/3.0" | "HTTP/3" => versions.push(Version::HTTP_3),
                other => {
                    let path = path.key("valid_http_versions").index(i);
                    let reason = format!("`{}` is no version that is spoken", other.escape_debug());
                    mistakes.at(&path, reason, "use HTTP/1.0, HTTP/1.1, HTTP/2.0 or HTTP/3.0");
                }
            }
        }
        versions
    }

    fn resolve_json(&self, path: &Path, mistakes: &mut Mistakes) -> Vec<JsonAssertion> {
        let mut assertions = Vec::new();
        for (i, raw) in self.body_json.iter().enumerate() {
            let path = path.key("body_json").index(i);
            let at = JsonPath::parse(&raw.path)
                .map_err(|reason| {
                    mistakes.at(&path.key("path"), reason, "write keys and indexes as in nodes[0].up");
                })
                .ok();
            let wanted = match (&raw.equals, &raw.matches) {
                (Some(_), Some(_)) => {
                    mistakes.at(&path.key("matches"), "is there beside equals", "take one of them out");
                    None
                }
                (Some(text), None) => Some(JsonWanted::Equals(text.clone())),
                (None, Some(text)) => pattern(text, &path.key("matches"), mistakes).map(JsonWanted::Matches),
                (None, None) => Some(JsonWanted::Present),
            };
            assertions.extend(at.zip(wanted).map(|(path, wanted)| JsonAssertion { path, wanted }));
        }
        assertions
    }
}

fn header_matches(raw: &[RawHeaderMatch], path: &Path, mistakes: &mut Mistakes) -> Vec<HeaderMatch> {
    let mut matches = Vec::new();
    for (i, raw) in raw.iter().enumerate() {
        let path = path.index(i);
        let header = raw
            .header
            .parse::<HeaderName>()
            .map_err(|_| {
                mistakes.at(&path.key("header"), "is no header name", "use letters, digits and hyphens");
            })
            .ok();
        let pattern = pattern(&raw.regexp, &path.key("regexp"), mistakes);
        let allow_missing = raw.allow_missing;
        matches.extend(header.zip(pattern).map(|(header, pattern)| HeaderMatch {
            header,
            pattern,
            allow_missing,
        }));
    }
    matches
}
