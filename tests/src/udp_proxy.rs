//! A UDP proxy between agent and aggregator: loss, delay, reordering, duplication, small paths, blocked paths, NAT
//! rebinding. The kernels that the tests run on have no netem.
//!
//! Each client address gets a socket of its own towards the target, as behind a NAT. All draws come from one seed.

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// The largest datagram.
const DATAGRAM_BYTES: usize = 65_535;

/// What happens to datagrams, both ways.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Conditions {
    /// The share that is lost, 0 to 1.
    pub loss: f64,
    /// The share that arrives twice.
    pub duplicate: f64,
    /// The share that is held back by [`Conditions::reorder_by`], so that later ones overtake it.
    pub reorder: f64,
    /// How long those are held back.
    pub reorder_by: Duration,
    /// How long all are on their way.
    pub delay: Duration,
    /// The largest datagram that passes, in bytes of UDP payload.
    pub mtu: Option<usize>,
    /// Nothing passes.
    pub blocked: bool,
}

/// What passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Datagrams from clients.
    pub from_clients: u64,
    /// Their payload in bytes.
    pub from_clients_bytes: u64,
    /// Datagrams to clients.
    pub to_clients: u64,
    /// Their payload in bytes.
    pub to_clients_bytes: u64,
    /// Datagrams lost, either way.
    pub lost: u64,
}

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct UdpProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    accept: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    clients: UdpSocket,
    target: Mutex<SocketAddr>,
    conditions: Mutex<Conditions>,
    rng: Mutex<StdRng>,
    paths: Mutex<HashMap<SocketAddr, Path>>,
    counts: [AtomicU64; 5],
}

#[derive(Debug)]
struct Path {
    socket: Arc<UdpSocket>,
    back: AbortHandle,
}

impl Drop for Path {
    fn drop(&mut self) {
        self.back.abort();
    }
}

impl UdpProxy {
    /// Starts a proxy on a free port of the loopback.
    pub async fn start(target: SocketAddr, seed: u64) -> io::Result<Self> {
        let clients = UdpSocket::bind("127.0.0.1:0").await?;
        let address = clients.local_addr()?;
        let shared = Arc::new(Shared {
            clients,
            target: Mutex::new(target),
            conditions: Mutex::default(),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            paths: Mutex::default(),
            counts: Default::default(),
        });
        let accept = tokio::spawn(forward(shared.clone())).abort_handle();
        Ok(Self { shared, address, accept })
    }

    /// Where clients send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what happens to datagrams from now on.
    pub fn set(&self, conditions: Conditions) {
        *self.shared.conditions.lock() = conditions;
    }

    /// Sends to another target from now on.
    pub fn set_target(&self, target: SocketAddr) {
        *self.shared.target.lock() = target;
    }

    /// Gives every client a new port towards the target, as a NAT does that forgot its mappings.
    pub fn rebind(&self) {
        self.shared.paths.lock().clear();
    }

    /// What passed so far.
    pub fn passed(&self) -> Passed {
        let [from_clients, from_clients_bytes, to_clients, to_clients_bytes, lost] =
            std::array::from_fn(|i| self.shared.counts[i].load(Ordering::Relaxed));
        Passed { from_clients, from_clients_bytes, to_clients, to_clients_bytes, lost }
    }
}

impl Drop for UdpProxy {
    fn drop(&mut self) {
        self.accept.abort();
        self.shared.paths.lock().clear();
    }
}

async fn forward(shared: Arc<Shared>) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        // An ICMP error of an earlier datagram shows here: it is no reason to end.
        let Ok((length, client)) = shared.clients.recv_from(&mut buffer).await else { continue };
        let datagram = &buffer[..length];
        shared.count(0, length);
        let Ok(path) = shared.path(client).await else { continue };
        let target = *shared.target.lock();
        for wait in shared.fate(length) {
            let (path, datagram) = (path.clone(), datagram.to_vec());
            deliver(wait, async move { path.send_to(&datagram, target).await }).await;
        }
    }
}

async fn backward(shared: Arc<Shared>, socket: Arc<UdpSocket>, client: SocketAddr) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let Ok((length, _)) = socket.recv_from(&mut buffer).await else { continue };
        shared.count(2, length);
        for wait in shared.fate(length) {
            let (shared, datagram) = (shared.clone(), buffer[..length].to_vec());
            deliver(wait, async move { shared.clients.send_to(&datagram, client).await }).await;
        }
    }
}

async fn deliver(wait: Duration, send: impl Future<Output = io::Result<usize>> + Send + 'static) {
    if wait.is_zero() {
        let _ = send.await;
        return;
    }
    tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        let _ = send.await;
    });
}

impl Shared {
    async fn path(self: &Arc<Self>, client: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        if let Some(path) = self.paths.lock().get(&client) {
            return Ok(path.socket.clone());
        }
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await?);
        let back = tokio::spawn(backward(self.clone(), socket.clone(), client)).abort_handle();
        self.paths.lock().insert(client, Path { socket: socket.clone(), back });
        Ok(socket)
    }

    /// How long each copy of a datagram takes; none if it is lost.
    fn fate(&self, length: usize) -> Vec<Duration> {
        let conditions = *self.conditions.lock();
        let mut rng = self.rng.lock();
        let lost = conditions.blocked
            || conditions.mtu.is_some_and(|mtu| length > mtu)
            || rng.random_bool(conditions.loss);
        if lost {
            self.counts[4].fetch_add(1, Ordering::Relaxed);
            return Vec::new();
        }
        let copies = if rng.random_bool(conditions.duplicate) { 2 } else { 1 };
        (0..copies)
            .map(|_| {
                let held = rng.random_bool(conditions.reorder);
                conditions.delay + if held { conditions.reorder_by } else { Duration::ZERO }
            })
            .collect()
    }

    fn count(&self, first: usize, length: usize) {
        self.counts[first].fetch_add(1, Ordering::Relaxed);
        self.counts[first + 1].fetch_add(length as u64, Ordering::Relaxed);
    }
}
