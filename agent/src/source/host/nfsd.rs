//! The server of NFS, from `/proc/net/rpc/nfsd` (fs/nfsd/stats.c).

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::nfs::{V2, V3};
use super::rpc::{Line, RpcFile, Shape};
use super::{CollectError, Collector, Setup};

/// The operations of RFC 7530 in the order of their numbers; those without a name have no series.
const V4: [&str; 40] = [
    "",
    "",
    "",
    "Access",
    "Close",
    "Commit",
    "Create",
    "DelegPurge",
    "DelegReturn",
    "GetAttr",
    "GetFH",
    "Link",
    "Lock",
    "Lockt",
    "Locku",
    "Lookup",
    "LookupRoot",
    "Nverify",
    "Open",
    "OpenAttr",
    "OpenConfirm",
    "OpenDgrd",
    "PutFH",
    "",
    "",
    "Read",
    "ReadDir",
    "ReadLink",
    "Remove",
    "Rename",
    "Renew",
    "RestoreFH",
    "SaveFH",
    "SecInfo",
    "SetAttr",
    "SetClientID",
    "SetClientIDConfirm",
    "Verify",
    "Write",
    "RelLockOwner",
];

/// The operations that every kernel counts: `RelLockOwner` came later.
const LEAST_V4: usize = 39;

struct Nfsd {
    file: RpcFile,
}

/// The names but `Null`, which node_exporter does not show of a server.
fn without_null<const N: usize>(mut methods: [&'static str; N]) -> [&'static str; N] {
    methods[0] = "";
    methods
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let file = PolledFile::new(setup.paths.procfs.join("net/rpc/nfsd"));
    Box::new(Nfsd { file: RpcFile::new(file, lines()) })
}

fn lines() -> Vec<Line> {
    let counter =
        |name: &str, help: &str, labels| Metric::counter(&format!("node_nfsd_{name}_total"), help, labels);
    let plain = |at, name: &str, help: &str| (at, counter(name, help, &[]), Vec::new());
    let gauge =
        |at, name: &str, help: &str| (at, Metric::gauge(&format!("node_nfsd_{name}"), help, &[]), Vec::new());
    let packets = counter("packets", "Packets sent and received, by the protocol.", &["proto"]);
    let errors = counter("rpc_errors", "Calls refused, by the kind of their error.", &["error"]);
    let requests = counter("requests", "Requests of NFS, by version and method.", &["method", "proto"]);
    let exactly = |key, count, wanted| Line::new(key, Shape::Exactly(count), wanted);
    vec![
        exactly(
            "rc",
            3,
            vec![
                plain(0, "reply_cache_hits", "Calls whose answer was in the reply cache."),
                plain(1, "reply_cache_misses", "Calls whose answer was not in the reply cache."),
                plain(2, "reply_cache_nocache", "Calls whose answer is not cached."),
            ],
        ),
        exactly("fh", 5, vec![plain(0, "file_handles_stale", "Stale file handles.")]),
        exactly(
            "io",
            2,
            vec![
                plain(0, "disk_bytes_read", "Bytes read for clients."),
                plain(1, "disk_bytes_written", "Bytes written for clients."),
            ],
        ),
        Line::new("th", Shape::Leading(2), vec![gauge(0, "server_threads", "Threads of the server.")]),
        exactly(
            "ra",
            12,
            vec![
                gauge(0, "read_ahead_cache_size_blocks", "Size of the read-ahead cache, in entries."),
                plain(11, "read_ahead_cache_not_found", "Reads that were not in the read-ahead cache."),
            ],
        ),
        exactly(
            "net",
            4,
            vec![
                (1, packets.clone(), vec!["udp"]),
                (2, packets, vec!["tcp"]),
                plain(3, "connections", "TCP connections taken."),
            ],
        ),
        exactly(
            "rpc",
            5,
            vec![
                (2, errors.clone(), vec!["fmt"]),
                (3, errors.clone(), vec!["auth"]),
                (4, errors, vec!["cInt"]),
                plain(0, "server_rpcs", "Remote procedure calls taken."),
            ],
        ),
        Line::requests("proc2", &requests, "2", V2.len(), &without_null(V2)),
        Line::requests("proc3", &requests, "3", V3.len(), &without_null(V3)),
        Line::requests("proc4ops", &requests, "4", LEAST_V4, &V4),
        Line::new("wdeleg_getattr", Shape::Leading(1), vec![(0, requests, vec!["WdelegGetattr", "4"])]),
    ]
}

impl Collector for Nfsd {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        if self.file.emit(out)? { Ok(()) } else { Err(CollectError::NoData("NFS server")) }
    }
}
