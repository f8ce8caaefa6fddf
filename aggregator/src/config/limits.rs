//! `limits`: what agents and tenants may take.

use crate::receiver;
use pegel_proto::caps;
use pegel_runtime::config::form::{ByteSize, Period};
use pegel_runtime::config::{Mistakes, Path};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What agents and tenants may take.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RawLimits {
    /// New sessions a second; more have to prove their address first, and wait.
    #[schemars(range(min = 1))]
    pub handshakes_per_second: u32,
    /// Handshakes under way at a time.
    #[schemars(range(min = 1))]
    pub pending_handshakes: u32,
    /// How long a connection may take to say who it is.
    pub hello_timeout: Period,
    /// Sessions at a time.
    #[schemars(range(min = 1))]
    pub sessions: u32,
    /// Streams of one session: one for each signal and output.
    #[schemars(range(min = 1, max = 1024))]
    pub streams_per_session: u32,
    /// Encoded bytes of one stream that may wait for the backend.
    pub in_flight_per_stream: ByteSize,
    /// Series that one stream may describe.
    #[schemars(range(min = 1, max = caps::MAX_STREAM_SERIES))]
    pub series_per_stream: u32,
    /// Decoded bytes that one tenant's batches may take on their way to one output.
    pub in_flight_per_tenant: ByteSize,
}

impl Default for RawLimits {
    fn default() -> Self {
        let settings = receiver::Settings::default();
        Self {
            handshakes_per_second: settings.handshakes_per_second,
            pending_handshakes: settings.max_pending_handshakes as u32,
            hello_timeout: Period(settings.hello_timeout),
            sessions: settings.max_sessions as u32,
            streams_per_session: settings.max_streams,
            in_flight_per_stream: ByteSize(settings.max_in_flight_bytes),
            series_per_stream: settings.max_series as u32,
            in_flight_per_tenant: ByteSize(settings.tenant_budget_bytes as u64),
        }
    }
}

impl RawLimits {
    /// The receiver's settings with these limits.
    pub(super) fn resolve(&self, path: &Path, mistakes: &mut Mistakes) -> receiver::Settings {
        for (key, size, min) in [
            ("in_flight_per_stream", &self.in_flight_per_stream, 16 << 10),
            ("in_flight_per_tenant", &self.in_flight_per_tenant, 1 << 20),
        ] {
            if size.0 < min || size.0 > 1 << 32 {
                let remedy = format!("use something between {} and 4GiB", ByteSize(min));
                mistakes.at(&path.key(key), format!("`{size}` stops the flow, or does not bound it"), remedy);
            }
        }
        if self.hello_timeout.0 < Duration::from_millis(500) || self.hello_timeout.0 > Duration::from_mins(1)
        {
            let reason = format!("`{}` does not suit a network", self.hello_timeout);
            mistakes.at(&path.key("hello_timeout"), reason, "use 5s");
        }
        receiver::Settings {
            handshakes_per_second: self.handshakes_per_second,
            max_pending_handshakes: self.pending_handshakes as usize,
            hello_timeout: self.hello_timeout.0,
            max_sessions: self.sessions as usize,
            max_streams: self.streams_per_session,
            max_in_flight_bytes: self.in_flight_per_stream.0,
            max_series: self.series_per_stream as usize,
            tenant_budget_bytes: self.in_flight_per_tenant.0 as usize,
            ..receiver::Settings::default()
        }
    }
}
