//! Which aggregators to try, in which order.

use super::DEFAULT_PORT;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// An aggregator as configured: a host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Aggregator {
    pub(super) host: String,
    pub(super) port: u16,
}

/// One address of an aggregator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The name that its certificate may be for.
    pub(super) host: String,
    pub(super) address: SocketAddr,
}

impl Aggregator {
    /// Reads `host`, `host:port`, `v4:port`, `v6` or `[v6]:port`.
    pub(super) fn parse(text: &str) -> Self {
        let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if bare(text).parse::<Ipv6Addr>().is_ok() {
            return Self { host: bare(text), port: DEFAULT_PORT };
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().unwrap_or(DEFAULT_PORT)),
            None => (text, DEFAULT_PORT),
        };
        Self { host: bare(host), port }
    }

    /// Its addresses in the node's order of preference, the families in turn, the one that the resolver prefers first.
    pub(super) async fn resolve(&self, node: &str) -> Result<Vec<Candidate>, std::io::Error> {
        let mut found: Vec<SocketAddr> = match self.host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, self.port)],
            Err(_) => tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect(),
        };
        let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
        prefer(&mut found, node, ToString::to_string);
        Ok(interleave(found, first_is_v6)
            .into_iter()
            .map(|address| Candidate { host: self.host.clone(), address })
            .collect())
    }
}

/// RFC 8305 section 4: families alternate, beginning with the one preferred.
fn interleave(addresses: Vec<SocketAddr>, first_is_v6: bool) -> Vec<SocketAddr> {
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|a| a.is_ipv6() == first_is_v6);
    let mut out = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        match (first.next(), second.next()) {
            (None, None) => return out,
            (a, b) => out.extend(a.into_iter().chain(b)),
        }
    }
}

/// Spreads agents over aggregators: each node has its own order of preference, the same every time (rendezvous
/// hashing), so that the loss of one aggregator moves only its own agents.
pub(super) fn prefer<T>(items: &mut [T], node: &str, key: impl Fn(&T) -> String) {
    items.sort_by_cached_key(|item| xxhash_rust::xxh3::xxh3_64(format!("{node}\0{}", key(item)).as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_every_form() {
        for (text, host, port) in [
            ("agg.example", "agg.example", DEFAULT_PORT),
            ("agg.example:9", "agg.example", 9),
            ("10.0.0.1:9", "10.0.0.1", 9),
            ("[::1]:9", "::1", 9),
            ("[::1]", "::1", DEFAULT_PORT),
            ("fe80::1", "fe80::1", DEFAULT_PORT),
        ] {
            assert_eq!(Aggregator::parse(text), Aggregator { host: host.into(), port }, "{text}");
        }
    }

    #[test]
    fn families_alternate() {
        let parse =
            |texts: &[&str]| -> Vec<SocketAddr> { texts.iter().map(|t| t.parse().unwrap()).collect() };
        assert_eq!(
            interleave(parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]), true),
            parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"])
        );
    }

    #[test]
    fn nodes_spread_and_keep_their_order_when_one_goes() {
        let first = |items: &[&str], node: &str| {
            let mut items = items.to_vec();
            prefer(&mut items, node, ToString::to_string);
            items[0].to_owned()
        };
        let nodes: Vec<String> = (0..300).map(|i| format!("node-{i}")).collect();
        let on_a = nodes.iter().filter(|n| first(&["a", "b", "c"], n) == "a").count();
        assert!((60..140).contains(&on_a), "{on_a}");
        for node in nodes.iter().filter(|n| first(&["a", "b", "c"], n) != "a") {
            assert_eq!(first(&["a", "b", "c"], node), first(&["b", "c"], node));
        }
    }
}
