//! One agent's session: who it is, and its streams' decoders with the series that they describe.
//! (Skeleton; the outputs' branch writes the decoding, the receiver's branch uses it.)

use crate::symbols::Symbol;
use pegel_proto::batch::AgentEpoch;
use pegel_proto::identity::AgentIdentity;
use pegel_proto::metrics::Family;
use std::sync::Arc;

/// Who an agent is, proven by its certificate, and what it said of itself in hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentInfo {
    /// Tenant and node from the certificate.
    pub identity: AgentIdentity,
    /// The agent's epoch.
    pub epoch: AgentEpoch,
    /// A number that no other session of this aggregator's life has.
    pub session: u64,
    /// Version, as the agent says.
    pub version: String,
    /// Host name, as the agent says.
    pub hostname: String,
    /// The address that the session came from.
    pub peer: std::net::SocketAddr,
}

/// A series with its full labels: its own, its target's, and tenant and node from the certificate, sorted by name.
#[derive(Debug, PartialEq, Eq)]
pub struct ResolvedSeries {
    /// Label names and values.
    pub labels: Box<[(Symbol, Symbol)]>,
    /// Name, type, help and unit.
    pub family: Arc<Family>,
}

/// The series of a block.
#[derive(Debug, PartialEq, Eq)]
pub struct ResolvedSet {
    /// In the order of a block's values.
    pub series: Box<[Arc<ResolvedSeries>]>,
}

/// The values of one set at one instant.
#[derive(Debug, Clone)]
pub struct ResolvedBlock {
    /// The instant, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The series.
    pub set: Arc<ResolvedSet>,
    /// One value a series.
    pub values: Box<[f64]>,
    /// Where samples carry instants of their own.
    pub stamps_ms: Option<Box<[i64]>>,
}
