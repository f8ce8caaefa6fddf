//! Tests of `recent_logs` as a whole, and the fixture that the status' tests share.

use super::*;
use pegel_proto::batch::AgentEpoch;
use pegel_proto::identity::NodeId;
use pegel_proto::logs::BlockBuilder;
use std::sync::atomic::AtomicI64;

/// When the tests begin.
pub(crate) const START_MS: i64 = 1_700_000_000_000;

/// `recent_logs` on a clock of the test's.
pub(crate) struct Bed {
    pub(crate) logs: Arc<RecentLogs>,
    pub(crate) registry: Registry,
    pub(crate) now_ms: Arc<AtomicI64>,
}

impl Bed {
    pub(crate) fn new(settings: Settings) -> Self {
        let (registry, now_ms) = (Registry::new(), Arc::new(AtomicI64::new(START_MS)));
        let clock = now_ms.clone();
        let clock: WallClock = Box::new(move || clock.load(Ordering::Relaxed));
        Self { logs: RecentLogs::with_clock(settings, &registry, clock), registry, now_ms }
    }

    /// A block of these lines, 1 ms apart, up to now.
    pub(crate) fn observe(&self, tenant: &str, node: &str, seq: u64, lines: &[&str]) {
        let first_ms = self.now_ms.load(Ordering::Relaxed) - lines.len() as i64;
        self.logs.observe_logs(&agent(tenant, node, 1), BatchSeq(seq), &block(first_ms, lines));
    }

    fn bytes(&self) -> usize {
        let nodes = self.logs.nodes.read();
        let bytes = nodes.values().map(|node| node.lock().bytes).sum();
        assert_eq!(self.logs.bytes.load(Ordering::Relaxed), bytes, "the sum is that of the nodes");
        bytes
    }

    fn past(&self, node: &str) -> Vec<String> {
        let node = Some(NodeId::parse(node).unwrap());
        let mut following = self.logs.follow(Scope { tenant: None, node }, None).unwrap();
        following.past().iter().flat_map(|(_, blocks)| blocks.iter().flat_map(|block| lines(block))).collect()
    }
}

pub(crate) fn agent(tenant: &str, node: &str, epoch: u64) -> AgentInfo {
    AgentInfo {
        identity: identity(tenant, node),
        epoch: AgentEpoch(epoch),
        session: 1,
        version: "0.1.0".into(),
        hostname: node.into(),
        peer: "127.0.0.1:9".parse().unwrap(),
    }
}

fn identity(tenant: &str, node: &str) -> AgentIdentity {
    AgentIdentity { tenant: TenantId::parse(tenant).unwrap(), node: NodeId::parse(node).unwrap() }
}

/// Lines of one stream; a line's words before a `|` are labels, `a=b`.
pub(crate) fn block(first_ms: i64, lines: &[&str]) -> Arc<DecodedBlock> {
    let mut builder = BlockBuilder::new();
    let key = builder.key("trace_id").unwrap();
    for (nth, line) in lines.iter().enumerate() {
        let (labels, line) = line.split_once('|').unwrap_or(("job=app", line));
        let labels: Vec<_> = labels.split(' ').map(|pair| pair.split_once('=').unwrap()).collect();
        let stream = builder.stream(labels.into_iter()).unwrap();
        let metadata: &[_] = if line.contains("traced") { &[(key, "5f3a")] } else { &[] };
        builder.push(stream, (first_ms + nth as i64) * 1_000_000, line, metadata);
    }
    Arc::new(builder.finish().unwrap().decode().unwrap())
}

fn lines(block: &DecodedBlock) -> Vec<String> {
    block.entries().map(|entry| entry.line().to_owned()).collect()
}

fn shown(shown: Shown) -> Vec<String> {
    match shown {
        Shown::Block(_, block) => lines(&block),
        Shown::Gap(entries) => vec![format!("gap of {entries}")],
    }
}

/// What is there for a follower now.
async fn next(following: &mut Following) -> Vec<String> {
    let next = tokio::time::timeout(Duration::from_secs(10), following.next()).await;
    shown(next.expect("there is something to show"))
}

async fn nothing_more(following: &mut Following) -> bool {
    use std::task::Poll;
    let mut next = std::pin::pin!(following.next());
    std::future::poll_fn(|context| Poll::Ready(next.as_mut().poll(context).is_pending())).await
}

#[tokio::test]
async fn the_past_and_what_follows_have_each_batch_once() {
    let bed = Bed::new(Settings::default());
    bed.observe("acme", "n", 1, &["a", "b"]);
    let mut following = bed.logs.follow(Scope::default(), None).unwrap();
    // In the queue already when the past is read: shown with the past only.
    bed.observe("acme", "n", 2, &["c"]);
    let past: Vec<_> = following.past().iter().flat_map(|(_, blocks)| blocks.clone()).collect();
    assert_eq!(past.iter().flat_map(|block| lines(block)).collect::<Vec<_>>(), ["a", "b", "c"]);
    // Another output's stream, and a stream that was sent anew.
    bed.observe("acme", "n", 2, &["c"]);
    bed.observe("acme", "n", 1, &["a", "b"]);
    bed.observe("acme", "n", 3, &["d"]);
    bed.observe("acme", "m", 3, &["e"]);
    assert_eq!(next(&mut following).await, ["d"]);
    assert_eq!(next(&mut following).await, ["e"]);
    assert!(nothing_more(&mut following).await);
    // After a re-installation numbers begin anew.
    bed.logs.observe_logs(&agent("acme", "n", 2), BatchSeq(1), &block(START_MS, &["f"]));
    assert_eq!(next(&mut following).await, ["f"]);
    bed.observe("acme", "n", 200, &["g"]);
    assert_eq!(next(&mut following).await, ["g"]);
    bed.observe("acme", "n", 5, &["old"]);
    assert!(nothing_more(&mut following).await, "what comes after 195 newer ones is no news");
}

#[test]
fn the_past_of_a_node_is_its_newest_entries_without_a_hole() {
    let bed = Bed::new(Settings { max_entries_per_node: 4, ..Settings::default() });
    bed.observe("acme", "n", 1, &["a", "b"]);
    bed.observe("acme", "n", 2, &["c"]);
    bed.observe("acme", "n", 3, &["d"]);
    assert_eq!(bed.past("n"), ["a", "b", "c", "d"]);
    bed.observe("acme", "n", 4, &["e"]);
    assert_eq!(bed.past("n"), ["c", "d", "e"], "blocks go as a whole");
    bed.observe("acme", "n", 5, &["f", "g", "h", "i", "j", "k"]);
    assert_eq!(bed.past("n"), ["h", "i", "j", "k"], "only the end of a block that is too large");
}

#[test]
fn memory_is_bounded_by_node_and_in_all() {
    let settings = Settings { max_bytes_per_node: 4_000, max_bytes: 12_000, ..Settings::default() };
    let bed = Bed::new(settings);
    let line = "x".repeat(100);
    let many: Vec<&str> = std::iter::repeat_n(line.as_str(), 500).collect();
    for seq in 1..=20 {
        for node in 0..10 {
            bed.observe("acme", &format!("n{node}"), seq, &many[..10]);
            assert!(bed.bytes() <= 12_000, "{}", bed.bytes());
        }
    }
    assert!(bed.past("n3").len() >= 4, "everybody has a share");
    bed.observe("acme", "n3", 21, &many);
    assert!(bed.bytes() <= 12_000 && bed.past("n3").len() >= 4);
    let huge = "y".repeat(13_000);
    bed.observe("acme", "n3", 22, &[&huge]);
    assert_eq!(bed.past("n3").len(), 0, "one line that is larger than the share");
    let rendered = bed.registry.render();
    assert!(rendered.contains("pegel_tail_nodes 10"), "{rendered}");
}

#[test]
fn silent_nodes_are_forgotten_and_nodes_beyond_the_bound_counted() {
    let bed = Bed::new(Settings { max_nodes: 1, ..Settings::default() });
    bed.observe("acme", "n", 1, &["a"]);
    bed.observe("acme", "m", 1, &["b"]);
    assert!(bed.registry.render().contains("pegel_tail_unkept_batches_total 1"));
    assert!(bed.bytes() > 0);
    bed.now_ms.fetch_add(3_600_001, Ordering::Relaxed);
    bed.logs.sweep();
    assert_eq!(bed.bytes(), 0);
    bed.observe("acme", "m", 2, &["b"]);
    assert_eq!(bed.past("m"), ["b"]);
}

#[tokio::test]
async fn who_is_slow_is_told_how_much_was_left_out_and_where() {
    let bed = Bed::new(Settings { max_queue_bytes: 1, ..Settings::default() });
    let mut following = bed.logs.follow(Scope::default(), None).unwrap();
    bed.observe("acme", "n", 1, &["a"]);
    bed.observe("acme", "n", 2, &["b", "c"]);
    bed.observe("acme", "n", 3, &["d"]);
    assert_eq!(next(&mut following).await, ["a"], "one block always fits");
    bed.observe("acme", "n", 4, &["e"]);
    assert_eq!(next(&mut following).await, ["gap of 3"]);
    assert_eq!(next(&mut following).await, ["e"]);
    assert!(bed.registry.render().contains("pegel_tail_left_out_entries_total 3"));
}

#[tokio::test]
async fn followers_see_their_scope_and_are_bounded_in_number() {
    let bed = Bed::new(Settings { max_followers: 3, ..Settings::default() });
    let acme = TenantId::parse("acme").unwrap();
    let of = |tenant: &TenantId| Scope { tenant: Some(tenant.clone()), node: None };
    let mut guest = bed.logs.follow(of(&acme), Some(acme.clone())).unwrap();
    assert_eq!(
        bed.logs.follow(of(&acme), Some(acme.clone())).err(),
        Some(TooMany(1)),
        "a quarter of the places"
    );
    let all = bed.logs.follow(Scope::default(), None).unwrap();
    let last = bed.logs.follow(Scope::default(), None).unwrap();
    assert_eq!(bed.logs.follow(Scope::default(), None).err(), Some(TooMany(3)));
    bed.observe("globex", "n", 1, &["secret"]);
    bed.observe("acme", "n", 1, &["own"]);
    assert_eq!(next(&mut guest).await, ["own"]);
    assert!(nothing_more(&mut guest).await);
    assert_eq!(guest.past().len(), 1);
    drop((all, last));
    assert!(bed.logs.follow(Scope::default(), None).is_ok(), "places are given back");
    assert!(bed.registry.render().contains("pegel_tail_refused_followers_total 2"));
}

#[test]
fn as_an_output_it_takes_logs_and_acknowledges() {
    let bed = Bed::new(Settings::default());
    assert_eq!(bed.logs.announcement().signal, Signal::Logs);
    let (sender, mut verdicts) = tokio::sync::mpsc::unbounded_channel();
    bed.logs.submit(Delivery {
        agent: Arc::new(agent("acme", "n", 1)),
        seq: BatchSeq(7),
        sent_before: false,
        payload: Payload::Logs(block(START_MS, &["a", "b"])),
        reply: crate::fanout::Reply(sender),
    });
    let settled = Verdict::Settled(BatchSeq(7), Outcome { delivered: 2, ..Outcome::default() });
    assert_eq!(verdicts.try_recv(), Ok(settled));
    assert_eq!(bed.past("n"), ["a", "b"]);
}
