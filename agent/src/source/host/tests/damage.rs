//! Damage in files that few machines have, and what collectors make of files that are not there.

use super::*;

/// One collector on a tree.
fn alone(tree: &Tree, kind: CollectorKind) -> BTreeMap<String, f64> {
    let settings = Settings { collectors: vec![kind], ..tree.settings() };
    samples(source(settings, FixedSystem::new()).collect_blocking(0).last().unwrap())
}

#[test]
fn damage_is_named_and_costs_the_collector_its_samples() {
    let damages: &[(&str, CollectorKind, &str, &[u8])] = &[
        ("nfs", CollectorKind::Nfs, "proc/net/rpc/nfs", b"net 1 2 3\n"),
        ("nfs", CollectorKind::Nfs, "proc/net/rpc/nfs", b"proc3 23 1 2\n"),
        ("nfs", CollectorKind::Nfsd, "proc/net/rpc/nfsd", b"th 8\n"),
        ("nfs", CollectorKind::Nfsd, "proc/net/rpc/nfsd", b"rpc 1 2 3 4 -5\n"),
        ("nfs", CollectorKind::Nfsd, "proc/net/rpc/nfsd", b"proc4ops 3 1 2 3\n"),
        ("router", CollectorKind::Conntrack, "proc/net/stat/nf_conntrack", b"entries\n1 2 3\n"),
        ("router", CollectorKind::Conntrack, "proc/sys/net/netfilter/nf_conntrack_max", b"\n"),
        ("router", CollectorKind::Ipvs, "proc/net/ip_vs_stats", b"a\nb\n1 2 3 4\n"),
        ("router", CollectorKind::Ipvs, "proc/net/ip_vs", b"  -> 0A00010B:01BB Masq 1 2 3\n"),
        (
            "router",
            CollectorKind::Ipvs,
            "proc/net/ip_vs",
            b"TCP 0A000001:01BB rr\n -> 0A00010B:01BB Masq 1 2\n",
        ),
        ("router", CollectorKind::Ipvs, "proc/net/ip_vs", b"TCP 0A000001 rr\n -> 0A00010B:01BB Masq 1 2 3\n"),
        ("router", CollectorKind::Interrupts, "proc/interrupts", b" CPU0\n 1: x IO-APIC timer\n"),
        ("router", CollectorKind::Interrupts, "proc/interrupts", b""),
        ("router", CollectorKind::Softirqs, "proc/softirqs", b" CPU0\nHI: -1\n"),
        ("router", CollectorKind::Softirqs, "proc/softirqs", b""),
        ("router", CollectorKind::Buddyinfo, "proc/buddyinfo", b"Node 0, zone DMA 1 x\n"),
        ("router", CollectorKind::Buddyinfo, "proc/buddyinfo", b"Node 0\n"),
        ("router", CollectorKind::Cgroups, "proc/cgroups", b"cpu 1 2\n"),
        ("router", CollectorKind::Swap, "proc/swaps", b"heading\n/dev/sda2 partition 1 2\n"),
        ("router", CollectorKind::Ksmd, "sys/kernel/mm/ksm/run", b"on\n"),
        ("router", CollectorKind::Xfrm, "proc/net/xfrm_stat", b"XfrmInError 1 2\n"),
        ("router", CollectorKind::Lnstat, "proc/net/stat/arp_cache", b"one\n1 2\n"),
        ("router", CollectorKind::Lnstat, "proc/net/stat/arp_cache", b"one\nxyz\n"),
        ("weird", CollectorKind::Os, "root/etc/os-release", b"ID=\"x\n"),
        ("weird", CollectorKind::Os, "root/etc/os-release", b"SUPPORT_END=soon\n"),
    ];
    for &(name, kind, file, content) in damages {
        let tree = Tree::recorded(name);
        let before = alone(&tree, kind);
        assert_eq!(success(&before, kind.name()), 1.0, "{file}");
        tree.write(file, content);
        let after = alone(&tree, kind);
        assert_eq!(success(&after, kind.name()), 0.0, "{file}");
        assert!(after.len() < before.len(), "{file}: the collector's samples are gone");
        let words = first_error(&tree, kind.name());
        assert!(words.contains(file) && words.starts_with("cannot understand"), "{words}");
    }
}

#[test]
fn what_a_kernel_does_not_have_is_no_error() {
    let tree = Tree { dir: tempfile::tempdir().unwrap() };
    for kind in [
        CollectorKind::Conntrack,
        CollectorKind::Entropy,
        CollectorKind::Ipvs,
        CollectorKind::KernelHung,
        CollectorKind::Nfs,
        CollectorKind::Nfsd,
        CollectorKind::Os,
        CollectorKind::Schedstat,
        CollectorKind::UdpQueues,
        CollectorKind::Xfrm,
    ] {
        assert!(first_error(&tree, kind.name()).starts_with("this kernel has no"), "{}", kind.name());
    }
    for kind in [
        CollectorKind::Sockstat,
        CollectorKind::Ksmd,
        CollectorKind::Lnstat,
        CollectorKind::CpuVulnerabilities,
    ] {
        assert_eq!(success(&alone(&tree, kind), kind.name()), 1.0, "{}", kind.name());
    }
}

#[test]
fn a_clock_that_must_not_be_asked_is_no_error() {
    let tree = Tree { dir: tempfile::tempdir().unwrap() };
    let system = FixedSystem { clock: Err(1), ..FixedSystem::new() };
    let settings = Settings { collectors: vec![CollectorKind::Timex], ..tree.settings() };
    let all = samples(&source(settings, system).collect_blocking(0)[0]);
    assert_eq!(success(&all, "timex"), 0.0);
    assert!(!all.keys().any(|key| key.starts_with("node_timex_")));
}

#[test]
fn a_machine_with_selinux_tells_its_modes() {
    let tree = Tree { dir: tempfile::tempdir().unwrap() };
    let of = |tree: &Tree| {
        let all = alone(tree, CollectorKind::Selinux);
        let value = |name: &str| all.get(&format!("node_selinux_{name}")).copied();
        [value("enabled"), value("config_mode"), value("current_mode")]
    };
    assert_eq!(of(&tree), [Some(0.0), None, None]);
    tree.write("sys/fs/selinux/enforce", b"0");
    tree.write("proc/self/attr/current", b"kernel\0");
    assert_eq!(of(&tree), [Some(0.0), None, None], "no policy is loaded");
    tree.write("proc/self/attr/current", b"system_u:system_r:init_t:s0\0");
    assert_eq!(of(&tree), [Some(1.0), Some(-1.0), Some(0.0)]);
    tree.write("root/etc/selinux/config", b"# mode\nSELINUX=enforcing\n");
    assert_eq!(of(&tree), [Some(1.0), Some(1.0), Some(0.0)]);
}

#[test]
fn labels_of_ipvs_that_are_not_wanted_are_summed_over() {
    let tree = Tree::recorded("router");
    let settings = Settings {
        collectors: vec![CollectorKind::Ipvs],
        ipvs_backend_labels: vec![BackendLabel::Proto],
        ..tree.settings()
    };
    let mut source = source(settings, FixedSystem::new());
    let first = source.collect_blocking(0);
    let all = samples(&first[0]);
    assert_eq!(all[r#"node_ipvs_backend_connections_active{proto="TCP"}"#], 134.0);
    assert_eq!(all[r#"node_ipvs_backend_weight{proto="FWM"}"#], 20.0);
    assert_eq!(all.keys().filter(|key| key.starts_with("node_ipvs_backend_weight")).count(), 3);
    // A backend more is no new series here.
    tree.write(
        "proc/net/ip_vs",
        b"UDP 0A000001:0035 wlc\n -> 0A00010B:0035 Route 1 2 3\n -> 0A00010C:0035 Route 1 2 3\n",
    );
    let second = samples(source.collect_blocking(1).last().unwrap());
    assert_eq!(second[r#"node_ipvs_backend_connections_inactive{proto="UDP"}"#], 6.0);
    assert!(!second.contains_key(r#"node_ipvs_backend_weight{proto="TCP"}"#));
}

#[test]
fn interrupts_are_filtered_by_name_information_and_devices() {
    let tree = Tree::recorded("router");
    let settings = Settings {
        collectors: vec![CollectorKind::Interrupts],
        interrupts: Filter::excluding(Pattern::parse("^(NMI|LOC|IPI0);|timer$").unwrap()),
        interrupts_zeros: false,
        ..tree.settings()
    };
    let all = samples(&source(settings, FixedSystem::new()).collect_blocking(0)[0]);
    let found: Vec<_> = all.keys().filter(|key| key.starts_with("node_interrupts")).cloned().collect();
    assert_eq!(
        found,
        [
            r#"node_interrupts_total{cpu="0",devices="1-edge virtio1-input.0, eth0",info="PCI-MSIX-0000:00:04.0",type="25"}"#,
            r#"node_interrupts_total{cpu="1",devices="0-edge virtio1-config",info="PCI-MSIX-0000:00:04.0",type="24"}"#,
            r#"node_interrupts_total{cpu="1",devices="1-edge virtio1-input.0, eth0",info="PCI-MSIX-0000:00:04.0",type="25"}"#,
        ]
    );
}

#[test]
fn a_kernel_parameter_that_is_not_as_configured_is_named() {
    let tree = Tree::recorded("router");
    let of = |name: &str, fields: &[&str]| {
        let sysctl = Sysctl {
            name: name.into(),
            fields: fields.iter().map(ToString::to_string).collect(),
            info: false,
        };
        let mut settings = Settings { sysctls: vec![sysctl], ..tree.settings() };
        settings.collectors = vec![CollectorKind::Sysctl];
        success(&samples(&source(settings, FixedSystem::new()).collect_blocking(0)[0]), "sysctl")
    };
    assert_eq!(of("net.ipv4.tcp_rmem", &["min", "default", "max"]), 1.0);
    assert_eq!(of("net.ipv4.tcp_rmem", &["min", "max"]), 0.0);
    assert_eq!(of("kernel.seccomp.actions_avail", &[]), 0.0, "it is text");
    assert_eq!(of("vm.there_is_none", &[]), 0.0);
}
