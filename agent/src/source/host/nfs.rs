//! The client of NFS, from `/proc/net/rpc/nfs`.

use super::emit::{Emitter, Metric};
use super::file::PolledFile;
use super::rpc::{Line, RpcFile, Shape};
use super::{CollectError, Collector, Setup};

/// The procedures in the order of RFC 1094. The server's counters are the same.
pub(super) const V2: [&str; 18] = [
    "Null", "GetAttr", "SetAttr", "Root", "Lookup", "ReadLink", "Read", "WrCache", "Write", "Create",
    "Remove", "Rename", "Link", "SymLink", "MkDir", "RmDir", "ReadDir", "FsStat",
];

/// The procedures in the order of RFC 1813. The server's counters are the same.
pub(super) const V3: [&str; 22] = [
    "Null",
    "GetAttr",
    "SetAttr",
    "Lookup",
    "Access",
    "ReadLink",
    "Read",
    "Write",
    "Create",
    "MkDir",
    "SymLink",
    "MkNod",
    "Remove",
    "RmDir",
    "Rename",
    "Link",
    "ReadDir",
    "ReadDirPlus",
    "FsStat",
    "FsInfo",
    "PathConf",
    "Commit",
];

/// The client's procedures in the order of include/linux/nfs4.h (`NFSPROC4_CLNT_…`).
const V4: [&str; 59] = [
    "Null",
    "Read",
    "Write",
    "Commit",
    "Open",
    "OpenConfirm",
    "OpenNoattr",
    "OpenDowngrade",
    "Close",
    "Setattr",
    "FsInfo",
    "Renew",
    "SetClientID",
    "SetClientIDConfirm",
    "Lock",
    "Lockt",
    "Locku",
    "Access",
    "Getattr",
    "Lookup",
    "LookupRoot",
    "Remove",
    "Rename",
    "Link",
    "Symlink",
    "Create",
    "Pathconf",
    "StatFs",
    "ReadLink",
    "ReadDir",
    "ServerCaps",
    "DelegReturn",
    "GetACL",
    "SetACL",
    "FsLocations",
    "ReleaseLockowner",
    "Secinfo",
    "FsidPresent",
    "ExchangeID",
    "CreateSession",
    "DestroySession",
    "Sequence",
    "GetLeaseTime",
    "ReclaimComplete",
    "GetDeviceInfo",
    "LayoutGet",
    "LayoutCommit",
    "LayoutReturn",
    "SecinfoNoName",
    "TestStateID",
    "FreeStateID",
    "GetDeviceList",
    "BindConnToSession",
    "DestroyClientID",
    "Seek",
    "Allocate",
    "DeAllocate",
    "LayoutStats",
    "Clone",
];

struct Nfs {
    file: RpcFile,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let counter =
        |name: &str, help: &str, labels| Metric::counter(&format!("node_nfs_{name}_total"), help, labels);
    let packets = counter("packets", "Packets sent and received, by the protocol.", &["protocol"]);
    let requests = counter("requests", "Requests of NFS, by version and method.", &["method", "proto"]);
    let lines = vec![
        Line::new(
            "net",
            Shape::Exactly(4),
            vec![
                (1, packets.clone(), vec!["udp"]),
                (2, packets, vec!["tcp"]),
                (3, counter("connections", "TCP connections made.", &[]), Vec::new()),
            ],
        ),
        Line::new(
            "rpc",
            Shape::Exactly(3),
            vec![
                (0, counter("rpcs", "Remote procedure calls made.", &[]), Vec::new()),
                (1, counter("rpc_retransmissions", "Calls that were sent again.", &[]), Vec::new()),
                (2, counter("rpc_authentication_refreshes", "Credentials refreshed.", &[]), Vec::new()),
            ],
        ),
        Line::requests("proc2", &requests, "2", V2.len(), &V2),
        Line::requests("proc3", &requests, "3", V3.len(), &V3),
        Line::requests("proc4", &requests, "4", 0, &V4),
    ];
    let file = PolledFile::new(setup.paths.procfs.join("net/rpc/nfs"));
    Box::new(Nfs { file: RpcFile::new(file, lines) })
}

impl Collector for Nfs {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        if self.file.emit(out)? { Ok(()) } else { Err(CollectError::NoData("NFS client")) }
    }
}
