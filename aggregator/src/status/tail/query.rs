//! What a request asks for.

use crate::output::recent_logs::{Query, Scope};
use crate::status::Refusal;
use crate::status::board::Snapshot;
use axum::http::StatusCode;
use pegel_proto::identity::{NodeId, TenantId};
use pegel_runtime::config::form::Period;

/// How many entries of the past are shown where nobody says.
const DEFAULT_LIMIT: usize = 100;
/// The most entries of the past in one answer: what is kept of a node.
const MAX_LIMIT: usize = 5_000;

/// A request for entries.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) scope: Scope,
    pub(super) query: Query,
    /// Only entries after this instant are shown of the past, in nanoseconds since the Unix epoch.
    pub(super) after_ns: i64,
    /// How many entries of the past, at most.
    pub(super) limit: usize,
    /// Whether to go on with what arrives.
    pub(super) follow: bool,
}

fn bad(words: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, words.into())
}

impl Asked {
    /// Reads the query of a URL.
    pub(super) fn parse(text: &str, now_ms: i64) -> Result<Self, Refusal> {
        let mut asked = Self {
            scope: Scope::default(),
            query: Query::default(),
            after_ns: i64::MIN,
            limit: DEFAULT_LIMIT,
            follow: true,
        };
        let mut contains = String::new();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                _ if value.is_empty() => {}
                "tenant" => {
                    asked.scope.tenant = Some(TenantId::parse(&value).map_err(|e| bad(e.to_string()))?);
                }
                "node" => asked.scope.node = Some(NodeId::parse(&value).map_err(|e| bad(e.to_string()))?),
                "match" => asked.query = Query::parse(&value).map_err(|e| bad(e.to_string()))?,
                "contains" => contains = value.into_owned(),
                "since" => {
                    let since = Period::parse(&value).map_err(|reason| bad(format!("since: {reason}")))?;
                    let since_ms = i64::try_from(since.0.as_millis()).unwrap_or(i64::MAX);
                    asked.after_ns = now_ms.saturating_sub(since_ms).saturating_mul(1_000_000);
                    // All of it, unless `limit` says otherwise.
                    asked.limit = MAX_LIMIT;
                }
                "after" => {
                    let told =
                        || bad(format!("after: `{}` is no instant in nanoseconds", value.escape_debug()));
                    asked.after_ns = value.parse().map_err(|_| told())?;
                    asked.limit = MAX_LIMIT;
                }
                "limit" => {}
                "follow" => asked.follow = &*value != "false",
                other => {
                    let other: String = other.chars().take(64).collect();
                    return Err(bad(format!(
                        "`{}` is not known; use tenant, node, match, contains, since, after, limit, follow",
                        other.escape_debug()
                    )));
                }
            }
        }
        let limit = form_urlencoded::parse(text.as_bytes()).find(|(name, _)| name == "limit");
        if let Some((_, limit)) = limit.filter(|(_, limit)| !limit.is_empty()) {
            let told =
                || bad(format!("limit: `{}` is no number from 0 to {MAX_LIMIT}", limit.escape_debug()));
            asked.limit = limit.parse().ok().filter(|limit| *limit <= MAX_LIMIT).ok_or_else(told)?;
        }
        asked.query = asked.query.containing(&contains);
        Ok(asked)
    }

    /// Confines the request to the caller's own tenant.
    pub(super) fn confine_to(&mut self, own: TenantId) -> Result<TenantId, Refusal> {
        if self.scope.tenant.as_ref().is_some_and(|asked| *asked != own) {
            let told =
                format!("the certificate is one of tenant {own}, which sees nothing of another tenant");
            return Err(Refusal(StatusCode::FORBIDDEN, told));
        }
        self.scope.tenant = Some(own.clone());
        Ok(own)
    }

    /// A node that nobody has heard of is more likely a slip than one that comes later.
    pub(super) fn check_node(&self, snapshot: &Snapshot) -> Result<(), Refusal> {
        let Some(node) = &self.scope.node else { return Ok(()) };
        if snapshot.agents.iter().any(|known| self.scope.takes(&known.status.identity)) {
            return Ok(());
        }
        let told = format!(
            "this aggregator has not heard of node {node}{} since it started; another one may have",
            self.scope.tenant.as_ref().map(|tenant| format!(" of tenant {tenant}")).unwrap_or_default()
        );
        Err(Refusal(StatusCode::NOT_FOUND, told))
    }
}
