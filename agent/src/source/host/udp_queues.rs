//! Bytes that wait in the queues of UDP sockets, from `/proc/net/udp` and `/proc/net/udp6` (net/ipv4/udp.c).

use super::emit::{Emitter, Metric};
use super::file::{Content, PolledFile};
use super::text::{fields, hex, lines};
use super::{CollectError, Collector, Setup};

/// The column `tx_queue:rx_queue`.
const QUEUES: usize = 4;

struct UdpQueues {
    files: [(&'static str, PolledFile); 2],
    queues: Metric,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let file = |name: &str| PolledFile::new(setup.paths.procfs.join("net").join(name));
    Box::new(UdpQueues {
        files: [("v4", file("udp")), ("v6", file("udp6"))],
        queues: Metric::gauge("node_udp_queues", "Bytes in the queues of all UDP sockets.", &["ip", "queue"]),
    })
}

impl Collector for UdpQueues {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let mut found = false;
        for (version, file) in &mut self.files {
            // A kernel without this version of IP has no such file.
            let Some(text) = file.read_if_there()? else { continue };
            let [sent, received] = sums(text)?;
            out.emit(&self.queues, &[version, "tx"], sent as f64);
            out.emit(&self.queues, &[version, "rx"], received as f64);
            found = true;
        }
        if found { Ok(()) } else { Err(CollectError::NoData("UDP sockets under /proc/net")) }
    }
}

/// The bytes to send and those received, of all sockets.
fn sums(text: Content<'_>) -> Result<[u64; 2], CollectError> {
    let mut sums = [0u64; 2];
    for line in lines(text.bytes).skip(1) {
        let queues = fields(line).nth(QUEUES).and_then(|queues| {
            let colon = memchr::memchr(b':', queues)?;
            Some([hex(&queues[..colon])?, hex(&queues[colon + 1..])?])
        });
        let queues = queues.ok_or_else(|| text.bad("the fifth column is not TX:RX", line))?;
        for (sum, bytes) in sums.iter_mut().zip(queues) {
            *sum = sum.wrapping_add(bytes);
        }
    }
    Ok(sums)
}
