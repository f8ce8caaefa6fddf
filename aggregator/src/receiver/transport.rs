//! QUIC's settings on the aggregator's side.

use super::Settings;
use pegel_runtime::quic::{self, ShortIds};
use quinn::{EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of one stream that may arrive unread. A stream is read as fast as it is decoded; 256 KiB cover 20 Mbit/s over
/// 100 ms, more than an agent's uplink has use for.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// Bytes of one session that may arrive unread: two streams at full speed. A thousand sessions that send and are not
/// read would take 512 MiB; those whose streams are held back stop at what is in flight.
const SESSION_WINDOW_BYTES: u32 = 512 << 10;
/// Bytes sent and not acknowledged: acknowledgements and control. A long list of refused records is the largest.
const SEND_WINDOW_BYTES: u64 = 256 << 10;
/// A session whose agent says nothing for this long has ended. Agents keep alive every 10 s: three may be lost.
const IDLE_LIMIT_MS: u32 = 30_000;
/// Four bytes of connection id tell 20,000 sessions with 8 ids each apart (collisions are drawn again) and save four a
/// packet against the default.
const CONNECTION_ID_BYTES: usize = 4;
/// Datagrams kept for a handshake that was not decided on yet: a client hello and its retransmission.
const INCOMING_BUFFER_BYTES: u64 = 8 << 10;
/// The same, for all of them.
const INCOMING_BUFFER_TOTAL_BYTES: u64 = 8 << 20;
/// Socket buffers. At 1,000 agents that scrape in the same second 1,000 packets arrive within some ms: 1.5 MB.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Time between two stateless resets. A restarted aggregator tells 1,000 agents a second that their sessions are gone,
/// five times what it lets in; a reset is smaller than the packet that it answers, so nobody is amplified.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

pub(super) fn server_config(
    crypto: Arc<dyn quinn::crypto::ServerConfig>,
    settings: &Settings,
) -> quinn::ServerConfig {
    let mut transport = TransportConfig::default();
    transport
        // One more for control.
        .max_concurrent_bidi_streams(VarInt::from_u32(settings.max_streams + 1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_LIMIT_MS))))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(SESSION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .initial_mtu(1_200)
        // What the aggregator sends fits small packets: probing for larger ones would only cost bytes.
        .mtu_discovery_config(None);
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    config
        .transport_config(Arc::new(transport))
        // Agents behind NAT change their address without knowing.
        .migration(true)
        .max_incoming(settings.max_pending_handshakes)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL_BYTES)
        .retry_token_lifetime(Duration::from_secs(15));
    config
}

/// Binds a socket. `reset_key` is the same in the aggregator's next life: that is how its agents hear that their
/// sessions ended with the last one, instead of waiting for an answer.
pub(super) fn endpoint(
    address: SocketAddr,
    config: quinn::ServerConfig,
    reset_key: &[u8; 32],
) -> io::Result<quinn::Endpoint> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // The kernel gives what its limits allow; less is no error.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    let mut endpoint = EndpointConfig::new(quic::reset_key(reset_key));
    endpoint.cid_generator(|| Box::new(ShortIds::<CONNECTION_ID_BYTES>)).min_reset_interval(RESET_INTERVAL);
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new(endpoint, Some(config), UdpSocket::from(socket), runtime)
}
