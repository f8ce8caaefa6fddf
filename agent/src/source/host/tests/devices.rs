//! Collectors that read sysfs: devices that come, go and change, and attributes that are not what they should be.

use super::*;

/// The samples of these collectors.
fn of(tree: &Tree, kinds: &[CollectorKind]) -> HostSource {
    source(Settings { collectors: kinds.to_vec(), ..tree.settings() }, FixedSystem::new())
}

#[test]
fn an_attribute_that_is_none_is_named_and_costs_one_collector() {
    let sys = "sys/devices";
    let damages: &[(&str, &[u8], &str)] = &[
        ("proc/mdstat", b"md0 : active\n", "mdadm"),
        ("proc/spl/kstat/zfs/arcstats", b"name type data\nhits 4 many\n", "zfs"),
        ("sys/block/md126/md/degraded", b"one\n", "mdadm"),
        ("sys/class/infiniband/mlx5_0/ports/1/rate", b"fast\n", "infiniband"),
        ("sys/class/infiniband/mlx5_0/ports/1/counters/link_downed", b"x\n", "infiniband"),
        ("sys/class/fc_host/host0/statistics/rx_frames", b"0xyz\n", "fibrechannel"),
        ("sys/class/scsi_tape/st0/stats/read_cnt", b"-1\n", "tapestats"),
        ("sys/class/thermal/cooling_device0/cur_state", b"cold\n", "thermal_zone"),
        ("sys/class/watchdog/watchdog0/timeout", b"soon\n", "watchdog"),
        ("sys/class/powercap/intel-rapl:0/energy_uj", b"\n", "rapl"),
        ("sys/fs/btrfs/0abb23a9-579b-43e6-ad30-227ef47fcb9d/commit_stats", b"commits\n", "btrfs"),
        ("sys/fs/bcache/deaddd54-c735-46d5-868e-f331c5fd7c74/bdev0/dirty_data", b"k\n", "bcache"),
        ("sys/fs/xfs/sda1/stats/stats", b"rw 1\n", "xfs"),
        ("sys/fs/xfs/sda1/stats/stats", b"rw 1 4294967296\n", "xfs"),
        ("sys/block/dm-0/size", b"big\n", "dmmultipath"),
        (&format!("{sys}/system/edac/mc/mc0/ce_count"), b"none\n", "edac"),
        (&format!("{sys}/system/cpu/cpufreq/policy0/scaling_cur_freq"), b"<unknown>\n", "cpufreq"),
    ];
    let tree = Tree::recorded("server");
    let healthy = healthy(&tree);
    for &(file, content, collector) in damages {
        assert_eq!(healthy[collector], 1.0, "{collector}");
        let path = tree.dir.path().join(file);
        let sound = std::fs::read(&path).unwrap();
        tree.write(file, content);
        let all = samples(tree.source().collect_blocking(0).last().unwrap());
        for (kind, before) in &healthy {
            let expected = if *kind == collector { 0.0 } else { *before };
            assert_eq!(success(&all, kind), expected, "{kind} with damaged {file}");
        }
        let words = first_error(&tree, collector);
        assert!(words.contains(file.rsplit('/').next().unwrap()), "{words}");
        tree.write(file, &sound);
    }
}

#[test]
fn an_interfaces_odd_attribute_leaves_the_other_ones() {
    let tree = Tree::recorded("server");
    let mut source = of(&tree, &[CollectorKind::Netclass]);
    let before = samples(source.collect_blocking(0).last().unwrap());
    tree.write("sys/class/net/eth0/mtu", b"large\n");
    let after = samples(source.collect_blocking(1).last().unwrap());
    let missing: Vec<_> = before.keys().filter(|key| !after.contains_key(*key)).collect();
    assert_eq!(missing, [r#"node_network_mtu_bytes{device="eth0"}"#]);
    assert_eq!(success(&after, "netclass"), 0.0);
    let words = first_error(&tree, "netclass");
    assert!(words.contains("eth0/mtu: a number is expected, not `large`"), "{words}");
}

#[test]
fn interfaces_that_come_and_go_are_followed() {
    let tree = Tree::recorded("server");
    let mut source = of(&tree, &[CollectorKind::Netclass]);
    let up = |device: &str| format!("node_network_up{{device=\"{device}\"}}");
    let all = samples(source.collect_blocking(0).last().unwrap());
    assert_eq!((all[&up("eth0")], all[&up("eth1")]), (1.0, 0.0));

    tree.write("sys/class/net/eth1/operstate", b"up\n");
    tree.remove("sys/class/net/eth0");
    tree.write("sys/class/net/new0/operstate", b"up\n");
    let all = samples(source.collect_blocking(1).last().unwrap());
    assert_eq!((all[&up("eth1")], all[&up("new0")]), (1.0, 1.0));
    assert!(!all.contains_key(&up("eth0")));
}

#[test]
fn a_sensors_value_is_read_each_time_and_its_chip_listed_now_and_then() {
    let tree = Tree::recorded("server");
    let mut source = of(&tree, &[CollectorKind::Hwmon]);
    let sensor =
        |name: &str| format!("node_hwmon_temp_celsius{{chip=\"platform_coretemp_0\",sensor=\"{name}\"}}");
    let all = samples(source.collect_blocking(0).last().unwrap());
    assert_eq!(all[&sensor("temp1")], 43.0);
    tree.write("sys/class/hwmon/hwmon0/temp1_input", b"50000\n");
    tree.write("sys/class/hwmon/hwmon0/temp77_input", b"60000\n");
    let mut seen_at = None;
    for scrape in 1..30 {
        let all = samples(source.collect_blocking(scrape).last().unwrap());
        assert_eq!(all[&sensor("temp1")], 50.0);
        if all.get(&sensor("temp77")) == Some(&60.0) {
            seen_at.get_or_insert(scrape);
        }
    }
    assert_eq!(seen_at, Some(20), "the first listing was at the first scrape");
}
