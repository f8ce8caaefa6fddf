//! The sockets of a syslog input. Each listener is a task, and so is each connection.

use super::framing::{Frame, Framer};
use super::settings::{Listener, Settings};
use super::status::{Counters, Statuses};
use super::tls;
use crate::source::clock::system_wall_ns;
use crate::source::log::pushed::Inlet;
use crate::source::log::tally::Tally;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::{TcpListener, UdpSocket, UnixDatagram, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// A socket that can't be had is asked for again this often.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long a client may take for TLS.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How much is read from a stream at a time.
const READ_BYTES: usize = 16 << 10;
/// The kernel's buffer for datagrams that is asked for: a burst while blocks are compressed. The kernel gives at most
/// net.core.rmem_max.
const UDP_BUFFER_BYTES: usize = 4 << 20;
/// The longest datagram.
const MAX_DATAGRAM_BYTES: usize = 64 << 10;
/// What a message costs in the queue beside its bytes.
const MESSAGE_BYTES: usize = 96;

/// A message as it was received.
#[derive(Debug)]
pub struct Received {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// It was longer.
    pub cut: bool,
    /// When, nanoseconds since the Unix epoch.
    pub at_ns: i64,
    /// From where; none for unix sockets.
    pub peer: Option<IpAddr>,
}

/// What listeners share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) settings: Arc<Settings>,
    pub(super) inlet: Inlet<Received>,
    pub(super) counters: Arc<Counters>,
    pub(super) statuses: Arc<Statuses>,
    pub(super) tally: Arc<Tally>,
    pub(super) shutdown: CancellationToken,
}

/// Runs a listener until the end of the agent. A socket that can't be had is tried again.
pub(super) async fn run(nth: usize, listener: Listener, shared: Shared) {
    loop {
        let ended = tokio::select! {
            () = shared.shutdown.cancelled() => break,
            ended = serve(nth, &listener, &shared) => ended,
        };
        let Err(error) = ended else { break };
        let trouble = error.to_string();
        if shared.statuses.trouble(nth, &trouble) {
            let listener = listener_name(&listener);
            tracing::warn!(listener, error = trouble, "syslog is not received; it is tried again every 5 s");
        }
        tokio::select! {
            () = shared.shutdown.cancelled() => break,
            () = tokio::time::sleep(AGAIN_AFTER) => {}
        }
    }
    if let Listener::UnixDatagram(path) | Listener::UnixStream(path) = &listener {
        let _ = std::fs::remove_file(path);
    }
}

/// A listener in words: `udp 0.0.0.0:514`.
pub(super) fn listener_name(listener: &Listener) -> String {
    match listener {
        Listener::Udp(address) => format!("udp {address}"),
        Listener::Tcp(address) => format!("tcp {address}"),
        Listener::Tls(address, _) => format!("tls {address}"),
        Listener::UnixDatagram(path) => format!("unixgram {}", path.display()),
        Listener::UnixStream(path) => format!("unix {}", path.display()),
    }
}

/// Receives; returns with an error, or when delivery has ended.
async fn serve(nth: usize, listener: &Listener, shared: &Shared) -> io::Result<()> {
    match listener {
        Listener::Udp(address) => {
            let socket = udp(*address)?;
            shared.statuses.bound(nth, socket.local_addr()?.to_string());
            datagrams(&socket, shared).await
        }
        Listener::Tcp(address) => {
            let listener = TcpListener::bind(address).await?;
            shared.statuses.bound(nth, listener.local_addr()?.to_string());
            accept_tcp(nth, &listener, None, shared).await
        }
        Listener::Tls(address, files) => {
            let server = tls::Server::load(files).map_err(io::Error::other)?;
            let listener = TcpListener::bind(address).await?;
            shared.statuses.bound(nth, listener.local_addr()?.to_string());
            accept_tcp(nth, &listener, Some(server), shared).await
        }
        Listener::UnixDatagram(path) => {
            clear(path)?;
            let socket = UnixDatagram::bind(path)?;
            // As /dev/log is: who may log is not who may read.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
            shared.statuses.bound(nth, path.display().to_string());
            unix_datagrams(&socket, shared).await
        }
        Listener::UnixStream(path) => {
            clear(path)?;
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
            shared.statuses.bound(nth, path.display().to_string());
            accept_unix(nth, &listener, shared).await
        }
    }
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // What the kernel gives is what there is.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Removes a socket that nobody listens to any more; anything else at its path is an error.
fn clear(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::other(format!(
            "{} is there and is no socket: move it away or name another path",
            path.display()
        ))),
        Ok(_) => {
            let alive = std::os::unix::net::UnixStream::connect(path).is_ok()
                || std::os::unix::net::UnixDatagram::unbound()?.connect(path).is_ok();
            if alive {
                let reason = format!("another program listens on {}", path.display());
                return Err(io::Error::new(io::ErrorKind::AddrInUse, reason));
            }
            std::fs::remove_file(path)
        }
    }
}

/// Datagrams: nobody waits, so that what finds no room is dropped.
async fn datagrams(socket: &UdpSocket, shared: &Shared) -> io::Result<()> {
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // What an earlier answer of ours would have met; we never answer.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        let kept = length.min(shared.settings.message_bytes);
        let received = Received {
            bytes: buffer[..kept].to_vec(),
            cut: kept < length,
            at_ns: system_wall_ns(),
            peer: Some(peer.ip().to_canonical()),
        };
        shared.counters.received.inc();
        if shared.inlet.try_push(received, kept + MESSAGE_BYTES) {
            shared.tally.take(1);
        } else {
            shared.counters.dropped.inc();
        }
    }
}

async fn unix_datagrams(socket: &UnixDatagram, shared: &Shared) -> io::Result<()> {
    let mut buffer = vec![0; MAX_DATAGRAM_BYTES.max(shared.settings.message_bytes + 1)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let kept = length.min(shared.settings.message_bytes);
        let frame = Frame { bytes: buffer[..kept].to_vec(), cut: kept < length };
        if push(frame, None, shared).await.is_err() {
            return Ok(());
        }
    }
}

async fn accept_tcp(
    nth: usize,
    listener: &TcpListener,
    mut server: Option<tls::Server>,
    shared: &Shared,
) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(shared.settings.connections));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a client that is gone already.
                tracing::debug!(%error, "a syslog connection can't be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            shared.counters.refused.inc();
            continue;
        };
        let _ = socket2::SockRef::from(&stream).set_keepalive(true);
        let config = server.as_mut().map(tls::Server::config);
        let (shared, peer) = (shared.clone(), peer.ip().to_canonical());
        tokio::spawn(async move {
            let _slot = slot;
            let _open = shared.statuses.connection(nth);
            match config {
                None => connection(stream, Some(peer), &shared).await,
                Some(config) => {
                    let handshake = tokio_rustls::TlsAcceptor::from(config).accept(stream);
                    match tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await {
                        Ok(Ok(stream)) => connection(stream, Some(peer), &shared).await,
                        failed => {
                            let reason = match failed {
                                Ok(Err(error)) => error.to_string(),
                                _ => "it took too long".to_owned(),
                            };
                            tracing::debug!(%peer, reason, "a syslog client's TLS handshake failed");
                            shared.counters.handshakes_failed.inc();
                        }
                    }
                }
            }
        });
    }
}

async fn accept_unix(nth: usize, listener: &UnixListener, shared: &Shared) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(shared.settings.connections));
    loop {
        let (stream, _): (UnixStream, _) = listener.accept().await?;
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            shared.counters.refused.inc();
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let _open = shared.statuses.connection(nth);
            connection(stream, None, &shared).await;
        });
    }
}

/// Reads a stream to its end. While there is no room, nothing is read, and the client waits.
async fn connection<S: AsyncRead + Unpin>(mut stream: S, peer: Option<IpAddr>, shared: &Shared) {
    let mut framer = Framer::new(shared.settings.message_bytes);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = tokio::select! {
            () = shared.shutdown.cancelled() => return,
            read = stream.read(&mut buffer) => read,
        };
        let length = match read {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) => {
                tracing::debug!(?peer, %error, "a syslog connection broke");
                break;
            }
        };
        framer.push(&buffer[..length]);
        while let Some(frame) = framer.next_frame() {
            if push(frame, peer, shared).await.is_err() {
                return;
            }
        }
    }
    if let Some(frame) = framer.end() {
        let _ = push(frame, peer, shared).await;
    }
}

async fn push(
    frame: Frame,
    peer: Option<IpAddr>,
    shared: &Shared,
) -> Result<(), crate::source::log::pushed::Ended> {
    shared.counters.received.inc();
    shared.tally.take(1);
    let bytes = frame.bytes.len() + MESSAGE_BYTES;
    let received = Received { bytes: frame.bytes, cut: frame.cut, at_ns: system_wall_ns(), peer };
    shared.inlet.push(received, bytes).await
}
