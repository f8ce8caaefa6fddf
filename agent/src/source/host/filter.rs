//! Which devices, mounts and fields are collected.
//!
//! The default patterns are node_exporter's. They are matched by hand: compiled regular expressions would take
//! more memory than everything else here, for texts that hardly anybody changes. A test holds both against each
//! other.

use regex_lite::Regex;
use std::fmt;
use std::sync::Arc;

/// `collector.diskstats.device-exclude`.
const DISKS: &str = r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$";
/// `collector.filesystem.mount-points-exclude`.
const MOUNT_POINTS: &str =
    "^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)";
/// `collector.filesystem.fs-types-exclude`.
const FS_TYPES: &str = "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs)$";
/// `collector.netstat.fields`.
const NETSTAT: &str = "^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$";
/// `collector.vmstat.fields`.
const VMSTAT: &str = "^(oom_kill|pgpg|pswp|pg.*fault).*";
/// `collector.systemd.unit-exclude`, which has to match the whole name.
const SYSTEMD_UNITS: &str = r"^(?:.+\.(automount|device|mount|scope|slice))$";

/// A pattern matched by hand.
type ByHand = fn(&str) -> bool;

/// Those that are.
const BUILT_IN: [(&str, ByHand); 6] = [
    (DISKS, is_default_disk),
    (MOUNT_POINTS, is_default_mount_point),
    (FS_TYPES, is_default_fs_type),
    (NETSTAT, is_default_netstat),
    (SYSTEMD_UNITS, is_default_systemd_unit),
    (VMSTAT, is_default_vmstat),
];

/// A regular expression, searched for as node_exporter does: it matches anywhere unless it says `^` or `$`.
#[derive(Clone)]
pub struct Pattern(Kind);

#[derive(Clone)]
enum Kind {
    BuiltIn(&'static str, ByHand),
    Regex(Arc<Regex>),
}

/// A pattern is not a regular expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a regular expression: {reason}")]
pub struct BadPattern {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Pattern {
    /// Reads a regular expression (the syntax of Rust's `regex`, which for such patterns is Go's).
    pub fn parse(pattern: &str) -> Result<Self, BadPattern> {
        if let Some((text, matches)) = BUILT_IN.iter().find(|(text, _)| *text == pattern) {
            return Ok(Self(Kind::BuiltIn(text, *matches)));
        }
        match Regex::new(pattern) {
            Ok(regex) => Ok(Self(Kind::Regex(Arc::new(regex)))),
            Err(error) => Err(BadPattern { pattern: pattern.into(), reason: error.to_string() }),
        }
    }

    /// The same pattern, but it has to match a whole name.
    #[must_use]
    pub fn whole(&self) -> Self {
        let anchored = format!("^(?:{})$", self.as_str());
        // What is a regular expression by itself is one in a group, too.
        Self::parse(&anchored).unwrap_or_else(|_| self.clone())
    }

    /// Partitions, RAM disks, loop devices and floppies: excluded by default.
    pub fn default_disks() -> Self {
        Self(Kind::BuiltIn(DISKS, is_default_disk))
    }

    /// The mount points that are excluded by default.
    pub fn default_mount_points() -> Self {
        Self(Kind::BuiltIn(MOUNT_POINTS, is_default_mount_point))
    }

    /// The filesystem types that are excluded by default.
    pub fn default_fs_types() -> Self {
        Self(Kind::BuiltIn(FS_TYPES, is_default_fs_type))
    }

    /// The protocol counters that are included by default.
    pub fn default_netstat() -> Self {
        Self(Kind::BuiltIn(NETSTAT, is_default_netstat))
    }

    /// The kinds of systemd's units that are excluded by default.
    pub fn default_systemd_units() -> Self {
        Self(Kind::BuiltIn(SYSTEMD_UNITS, is_default_systemd_unit))
    }

    /// The fields of `/proc/vmstat` that are included by default.
    pub fn default_vmstat() -> Self {
        Self(Kind::BuiltIn(VMSTAT, is_default_vmstat))
    }

    /// The pattern's text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Kind::BuiltIn(text, _) => text,
            Kind::Regex(regex) => regex.as_str(),
        }
    }

    /// Whether the text matches.
    pub fn matches(&self, text: &str) -> bool {
        match &self.0 {
            Kind::BuiltIn(_, matches) => matches(text),
            Kind::Regex(regex) => regex.is_match(text),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

/// What is collected: everything that `include` matches, if there is one, and `exclude` does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these.
    pub include: Option<Pattern>,
    /// Not these.
    pub exclude: Option<Pattern>,
}

impl Filter {
    /// Everything but these.
    pub fn excluding(pattern: Pattern) -> Self {
        Self { include: None, exclude: Some(pattern) }
    }

    /// Only these. As in node_exporter, an include pattern takes the place of the default exclude pattern.
    pub fn including(pattern: Pattern) -> Self {
        Self { include: Some(pattern), exclude: None }
    }

    /// Whether the name is collected.
    pub fn passes(&self, name: &str) -> bool {
        !self.exclude.as_ref().is_some_and(|pattern| pattern.matches(name))
            && self.include.as_ref().is_none_or(|pattern| pattern.matches(name))
    }
}

fn is_default_disk(name: &str) -> bool {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == name.len() {
        return false;
    }
    let lettered = |prefix| {
        stem.strip_prefix(prefix)
            .is_some_and(|rest| rest.len() == 1 && rest.as_bytes()[0].is_ascii_lowercase())
    };
    let nvme_partition = || {
        let (controller, namespace) = stem.strip_prefix("nvme")?.strip_suffix('p')?.split_once('n')?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        Some(is_number(controller) && is_number(namespace))
    };
    matches!(stem, "ram" | "zram" | "loop" | "fd")
        || ["hd", "sd", "vd", "xvd"].into_iter().any(lettered)
        || nvme_partition() == Some(true)
}

fn is_default_mount_point(path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    let is_or_below =
        |dir| path.strip_prefix(dir).is_some_and(|rest: &str| rest.is_empty() || rest.starts_with('/'));
    // `.` in a regular expression is anything but the end of a line.
    let below = |dir| {
        path.strip_prefix(dir).is_some_and(|rest: &str| {
            let name = rest.split('\n').next().unwrap_or_default();
            // The part before the end, or before a slash further on, has at least one character.
            !name.is_empty() && (name.len() == rest.len() || name[first_char_len(name)..].contains('/'))
        })
    };
    ["dev", "proc", "sys"].into_iter().any(is_or_below)
        || ["run/credentials/", "var/lib/docker/", "var/lib/containers/storage/"].into_iter().any(below)
}

fn first_char_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

fn is_default_fs_type(name: &str) -> bool {
    let names = FS_TYPES.trim_start_matches("^(").trim_end_matches(")$");
    names.split('|').any(|known| known == name && known != "cgroup2?") || matches!(name, "cgroup" | "cgroup2")
}

fn is_default_netstat(key: &str) -> bool {
    let Some((protocol, _)) = key.split_once('_') else { return false };
    let field = &key[protocol.len() + 1..];
    let one_line = |rest: Option<&str>| rest.is_some_and(|rest| !rest.contains('\n'));
    (!key.contains('\n') && (key.ends_with("_InErrors") || key.ends_with("_InErrs")))
        || match protocol {
            "Ip" => field == "Forwarding",
            "Ip6" | "IpExt" => matches!(field, "InOctets" | "OutOctets"),
            "Icmp" | "Icmp6" => matches!(field, "InMsgs" | "OutMsgs"),
            "TcpExt" => {
                one_line(field.strip_prefix("Listen"))
                    || one_line(field.strip_prefix("Syncookies"))
                    || matches!(field, "TCPSynRetrans" | "TCPTimeouts" | "TCPOFOQueue" | "TCPRcvQDrop")
            }
            "Tcp" => matches!(
                field,
                "ActiveOpens"
                    | "InSegs"
                    | "OutSegs"
                    | "OutRsts"
                    | "PassiveOpens"
                    | "RetransSegs"
                    | "CurrEstab"
            ),
            "Udp" | "Udp6" => {
                matches!(field, "InDatagrams" | "OutDatagrams" | "NoPorts" | "RcvbufErrors" | "SndbufErrors")
            }
            _ => false,
        }
}

fn is_default_systemd_unit(name: &str) -> bool {
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    !stem.is_empty()
        && !stem.contains('\n')
        && matches!(kind, "automount" | "device" | "mount" | "scope" | "slice")
}

fn is_default_vmstat(key: &str) -> bool {
    ["oom_kill", "pgpg", "pswp"].into_iter().any(|prefix| key.starts_with(prefix))
        || key.strip_prefix("pg").is_some_and(|rest| rest.lines().next().is_some_and(|r| r.contains("fault")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pieces that the patterns are made of: random strings alone would never come near a match.
    fn pieces() -> impl Strategy<Value = String> {
        let atoms = "z ram loop fd h s v xv d a z p n nvme 0 12 / dev proc run credentials x . sys var lib docker \
             containers storage autofs cgroup cgroup2 cgroup2? overlay proc procfs erofs Ip Ip6 IpExt Icmp Icmp6 \
             TcpExt Tcp Udp Udp6 UdpLite _ InErrors InErrs Forwarding InOctets OutMsgs ListenDrops Listen Syncookies \
             TCPTimeouts InSegs NoPorts .mount .service .slice oom_kill pgpg pswp pg fault pgmaj in é";
        let atoms: Vec<String> =
            atoms.split_whitespace().map(str::to_owned).chain(["\n".to_owned()]).collect();
        let joined = |atoms: Vec<String>| atoms.concat();
        prop::collection::vec(prop::sample::select(atoms), 0..7).prop_map(joined)
    }

    /// Texts that match the shape of one alternative, more or less.
    fn near() -> impl Strategy<Value = String> {
        let paths = [
            "/dev",
            "/proc",
            "/run/credentials/",
            "/sys",
            "/var/lib/docker/",
            "/var/lib/containers/storage/",
        ];
        let shaped =
            (prop::sample::select(paths.to_vec()), "(/|x|\n|é){0,3}").prop_map(|(a, b)| format!("{a}{b}"));
        prop_oneof![
            shaped,
            "(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme[0-9]{0,2}n[0-9]{0,2}p)[0-9]{0,2}[a-z]?",
            "(Ip|IpExt|Tcp|TcpExt|Udp6)_(In|Out|Listen|Syncookies)(Octets|Errs|Segs|\n)?",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]
        #[test]
        fn patterns_matched_by_hand_match_what_their_text_matches(text in prop_oneof![pieces(), near()]) {
            for (pattern, by_hand) in BUILT_IN {
                let regex = Regex::new(pattern).unwrap();
                prop_assert_eq!(by_hand(&text), regex.is_match(&text), "{} on {:?}", pattern, text);
            }
        }
    }

    #[test]
    fn an_include_pattern_replaces_the_default_and_bad_ones_are_named() {
        let filter = Filter::including(Pattern::parse("^eth").unwrap());
        assert!(filter.passes("eth0") && !filter.passes("lo"));
        assert!(Filter::default().passes("anything"));
        assert!(matches!(Pattern::parse(VMSTAT).unwrap().0, Kind::BuiltIn(..)));
        let error = Pattern::parse("eth(").unwrap_err().to_string();
        assert!(error.contains("`eth(` is not a regular expression"), "{error}");
    }
}
