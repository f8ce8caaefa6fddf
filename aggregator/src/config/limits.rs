//! `limits`: what agents and tenants may take.

use pegel_proto::identity::TenantId;
use pegel_runtime::config::form::ByteSize;
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Handshakes a second. One costs about a millisecond of a core (two signatures), so that 200 leave four fifths of
/// it to those who are connected already; 1,000 agents are back within five seconds.
pub const DEFAULT_HANDSHAKES_PER_SECOND: u32 = 200;
/// Sessions at a time. At 96 KiB of decoder and some 40 KB of connection each, 5,000 take 700 MB.
pub const DEFAULT_MAX_SESSIONS: u32 = 5_000;
/// Streams of one session: metrics, logs and traces to ten outputs.
pub const DEFAULT_MAX_STREAMS: u32 = 32;
/// Bytes of one session that are not acknowledged: two of the largest frames, and far more than the product of the
/// bandwidth and delay of an agent's line.
pub const DEFAULT_SESSION_IN_FLIGHT_BYTES: u64 = 8 << 20;
/// Bytes of all sessions that are not acknowledged.
pub const DEFAULT_IN_FLIGHT_BYTES: u64 = 256 << 20;
/// Series that one session may describe: a node with a few very large exporters.
pub const DEFAULT_SERIES_PER_SESSION: u32 = 200_000;

/// The raw form of `limits`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLimits {
    /// New sessions a second; more have to prove their address first, then wait.
    #[schemars(range(min = 1))]
    pub handshakes_per_second: u32,
    /// Sessions at a time.
    #[schemars(range(min = 1))]
    pub sessions: u32,
    /// Streams of one session.
    #[schemars(range(min = 2, max = 1024))]
    pub streams_per_session: u32,
    /// Bytes of one session that are not acknowledged yet.
    pub in_flight_per_session: ByteSize,
    /// Bytes of all sessions together that are not acknowledged yet.
    pub in_flight: ByteSize,
    /// Series that one session may describe.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub series_per_session: u32,
    /// What each tenant may take.
    pub per_tenant: TenantLimits,
    /// The same for single tenants, by name, in place of `per_tenant`.
    pub tenants: BTreeMap<String, TenantLimits>,
}

/// What one tenant may take; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TenantLimits {
    /// Sessions at a time.
    pub sessions: u32,
    /// Series of all its nodes.
    pub series: u64,
    /// Samples a second.
    pub samples_per_second: u64,
    /// Bytes a second, as they come off the wire.
    pub bytes_per_second: u64,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            handshakes_per_second: DEFAULT_HANDSHAKES_PER_SECOND,
            sessions: DEFAULT_MAX_SESSIONS,
            streams_per_session: DEFAULT_MAX_STREAMS,
            in_flight_per_session: ByteSize(DEFAULT_SESSION_IN_FLIGHT_BYTES),
            in_flight: ByteSize(DEFAULT_IN_FLIGHT_BYTES),
            series_per_session: DEFAULT_SERIES_PER_SESSION,
            per_tenant: TenantLimits::default(),
            tenants: BTreeMap::new(),
        }
    }
}

/// Limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSettings {
    /// New sessions a second.
    pub handshakes_per_second: u32,
    /// Sessions at a time.
    pub sessions: usize,
    /// Streams of one session.
    pub streams_per_session: u32,
    /// Unacknowledged bytes of one session.
    pub in_flight_per_session_bytes: usize,
    /// Unacknowledged bytes of all.
    pub in_flight_bytes: usize,
    /// Series of one session.
    pub series_per_session: usize,
    /// What a tenant may take that is not listed.
    pub per_tenant: TenantLimits,
    /// What single tenants may take.
    pub tenants: Vec<(TenantId, TenantLimits)>,
}

impl RawLimits {
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> LimitSettings {
        let smallest = ByteSize(pegel_proto::caps::MAX_FRAME_BYTES as u64);
        if self.in_flight_per_session.0 < smallest.0 {
            let reason = format!("`{}` is less than one frame of {smallest}", self.in_flight_per_session);
            mistakes.at(&path.key("in_flight_per_session"), reason, format!("use {smallest} or more"));
        }
        if self.in_flight.0 < self.in_flight_per_session.0 {
            let reason = format!("`{}` is less than in_flight_per_session", self.in_flight);
            mistakes.at(
                &path.key("in_flight"),
                reason,
                format!("use {} or more", self.in_flight_per_session),
            );
        }
        let mut tenants = Vec::new();
        for (name, limits) in &self.tenants {
            match TenantId::parse(name) {
                Ok(tenant) => tenants.push((tenant, *limits)),
                Err(bad) => {
                    let path = path.key("tenants").key(name);
                    mistakes.at(&path, bad.to_string(), "write the name as certificates have it");
                }
            }
        }
        LimitSettings {
            handshakes_per_second: self.handshakes_per_second,
            sessions: self.sessions as usize,
            streams_per_session: self.streams_per_session,
            in_flight_per_session_bytes: self.in_flight_per_session.0 as usize,
            in_flight_bytes: self.in_flight.0 as usize,
            series_per_session: self.series_per_session as usize,
            per_tenant: self.per_tenant,
            tenants,
        }
    }
}
