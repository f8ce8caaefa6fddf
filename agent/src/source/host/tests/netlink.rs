//! What netlink tells, recorded.

use super::*;

const RTM_GETLINK: u16 = 18;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;

fn neighbour(index: u32, state: u16) -> (u16, Vec<u8>) {
    let header = [&[2, 0, 0, 0], index.to_ne_bytes().as_slice(), &state.to_ne_bytes(), &[0, 1]].concat();
    (RTM_NEWNEIGH, header)
}

fn collected(settings: Settings, answers: Recorded) -> BTreeMap<String, f64> {
    let system = FixedSystem { answers: Arc::new(answers), ..FixedSystem::new() };
    samples(&source(settings, system).collect_blocking(0)[0])
}

#[test]
fn links_and_their_arp_entries_come_from_one_dump_of_links() {
    let links =
        vec![links::written::link(1, "lo"), links::written::link(7, "eth0"), links::written::link(9, "br0")];
    let (reachable, failed, no_arp) = (0x02, 0x20, 0x40);
    let mut other_family = neighbour(9, reachable);
    other_family.1[0] = 10;
    let neighbours = vec![
        neighbour(7, reachable),
        neighbour(9, reachable),
        neighbour(7, failed),
        neighbour(1, no_arp),
        neighbour(99, reachable),
        other_family,
    ];
    let answers = BTreeMap::from([(RTM_GETLINK, links), (RTM_GETNEIGH, neighbours)]);
    let settings = Settings {
        collectors: vec![CollectorKind::Arp, CollectorKind::Netdev],
        arp_devices: Filter::excluding(Pattern::parse("^br").unwrap()),
        ..Settings::default()
    };
    let all = collected(settings, answers);
    let arp: Vec<_> = all.iter().filter(|(name, _)| name.starts_with("node_arp")).collect();
    assert_eq!(arp, [(&r#"node_arp_entries{device="eth0"}"#.to_owned(), &2.0)]);
    assert_eq!(all[r#"node_network_receive_bytes_total{device="br0"}"#], 2.0);
    assert_eq!(all[r#"node_network_receive_nohandler_total{device="lo"}"#], 23.0);
}
