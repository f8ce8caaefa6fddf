//! QUIC's settings on the agent's side: small windows, few packets.

use pegel_runtime::quic::ShortIds;
use quinn::{AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// NATs forget a UDP mapping after 30 s of silence at the least (RFC 4787 asks for two minutes, many keep less).
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Three keep-alives may be lost.
const IDLE_LIMIT_MS: u32 = 30_000;
/// Acknowledgements of one stream that may arrive unread: they are read at once, and 16 KiB hold some 5,000.
const STREAM_WINDOW_BYTES: u32 = 16 << 10;
/// All streams together: three outputs and control.
const RECEIVE_WINDOW_BYTES: u32 = 64 << 10;
/// Bytes written and not acknowledged by QUIC. 256 KiB on a path of 50 ms make 5 MB/s, seven million samples a second:
/// more than any backlog needs, and little against the agent's 16 MB.
const SEND_WINDOW_BYTES: u64 = 256 << 10;
/// Every path takes 1,200 bytes (RFC 9000 section 14).
const INITIAL_MTU: u16 = 1_200;
/// Discovery ends when the range is this small: three probes instead of five, 3 KB less with each connection.
const MTU_STEP: u16 = 64;
/// Discovery is repeated this often (a path grows seldom).
const MTU_INTERVAL: Duration = Duration::from_hours(1);
/// The aggregator is asked to acknowledge every tenth packet while a backlog drains (instead of every second): a fifth
/// of the packets back. A single packet is acknowledged within the 25 ms of `max_ack_delay` as ever, so that the
/// answer to a batch carries it.
const ACK_EVERY_PACKETS: u32 = 10;
/// Two bytes tell the sessions of one agent apart.
const CONNECTION_ID_BYTES: usize = 2;

pub(super) fn client_config(crypto: Arc<dyn quinn::crypto::ClientConfig>) -> quinn::ClientConfig {
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY_PACKETS));
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.minimum_change(MTU_STEP).interval(MTU_INTERVAL);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_LIMIT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .initial_mtu(INITIAL_MTU)
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks));
    let mut config = quinn::ClientConfig::new(crypto);
    config.transport_config(Arc::new(transport)).token_store(Arc::new(quinn::NoneTokenStore));
    config
}

/// The sockets, one a family, made when first needed.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    v4: Option<quinn::Endpoint>,
    v6: Option<quinn::Endpoint>,
}

impl Endpoints {
    /// The endpoint for an address's family; an error where the machine has no such family.
    pub(super) fn for_address(&mut self, address: SocketAddr) -> io::Result<quinn::Endpoint> {
        let (slot, local) = if address.is_ipv6() {
            (&mut self.v6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
        } else {
            (&mut self.v4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
        };
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let mut config = EndpointConfig::default();
        config.cid_generator(|| Box::new(ShortIds::<CONNECTION_ID_BYTES>));
        let socket = UdpSocket::bind(local)?;
        let endpoint = quinn::Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime))?;
        *slot = Some(endpoint.clone());
        Ok(endpoint)
    }

    /// Waits until closed sessions have said so.
    pub(super) async fn wait_idle(&self) {
        for endpoint in [&self.v4, &self.v6].into_iter().flatten() {
            endpoint.wait_idle().await;
        }
    }
}
