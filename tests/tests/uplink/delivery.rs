//! Batches arrive, whole and acknowledged.

use crate::site::{Agent, Aggregator, HOUR, Memory, Mode, SECOND, SOON, Site, expected};
use pegel_agent::uplink::{HeartbeatReport, UplinkState};
use pegel_proto::batch::{AgentEpoch, Signal};
use pegel_proto::wire;
use pegel_tests::udp_proxy::{Conditions, UdpProxy};
use pegel_tests::{eventually, seed};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn what_was_collected_is_taken_once_and_acknowledged() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[aggregator.address]);
    for _ in 0..20 {
        agent.collect();
        agent.all_acknowledged().await;
    }
    let taken = aggregator.output.taken.lock().clone();
    assert_eq!(taken.len(), 20);
    for (seq, values) in taken {
        assert_eq!(values, expected(seq), "batch {seq}");
    }
    let sends = aggregator.output.sends.lock().clone();
    assert_eq!(sends, (1..=20).map(|seq| (seq, false)).collect::<Vec<_>>());
    let fleet = aggregator.sessions.fleet();
    assert_eq!((fleet.len(), fleet[0].connected, fleet[0].samples), (1, true, 12_000));
    assert_eq!(fleet[0].info.identity.to_string_parts(), ("acme".into(), "n1".into()));
    let status = agent.handle.status();
    assert_eq!(status.state, UplinkState::Connected);
    assert!(status.clock_skew_ms.is_some_and(|ms| ms.abs() < 1_000), "{status:?}");
    assert!(aggregator.registry.render().contains("pegel_receiver_sessions 1"));
}

#[tokio::test]
async fn books_and_spool_reach_the_fleet() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let agent = Agent::start(site.agent_files("n1", HOUR), &[aggregator.address]);
    agent.until("it is up", |l| !l.ups.is_empty()).await;
    let books = wire::Books { output: "main".into(), signal: 1, collected: 77, ..wire::Books::default() };
    agent.handle.heartbeat(
        Signal::Metrics,
        HeartbeatReport { books: vec![books.clone()], spool_bytes: 5, ..HeartbeatReport::default() },
    );
    let entry = eventually("the books arrive", SOON, || async {
        aggregator.sessions.fleet().into_iter().find(|e| e.spool_bytes == 5)
    })
    .await;
    assert_eq!(entry.books.values().collect::<Vec<_>>(), [&books]);
    assert!(entry.skew_ms.is_some_and(|ms| ms.abs() < 1_000));
}

#[tokio::test]
async fn files_that_are_behind_reach_the_fleet_within_bounds_and_are_gone_when_they_are_not() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let agent = Agent::start(site.agent_files("n1", HOUR), &[aggregator.address]);
    agent.until("it is up", |l| !l.ups.is_empty()).await;
    // More, and longer, than an agent of this version tells.
    let file = wire::FileBehind { path: "ü".repeat(600), bytes: 7, waits_ms: 8 };
    let behind =
        wire::FilesBehind { files: 20, bytes: 140, waits_ms: 9, worst: vec![file; 20], ..Default::default() };
    agent.handle.files_behind(Some(behind.clone()));
    let told = eventually("it is told", SOON, || async {
        aggregator.sessions.fleet().into_iter().find_map(|entry| entry.files_behind)
    })
    .await;
    assert_eq!((told.files, told.bytes, told.waits_ms, told.worst.len()), (20, 140, 9, 10));
    assert!(told.worst.iter().all(|file| file.path == "ü".repeat(256)), "{told:?}");
    agent.handle.files_behind(None);
    eventually("it is over", SOON, || async {
        aggregator.sessions.fleet().iter().all(|entry| entry.files_behind.is_none()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn rejections_and_parking_reach_the_agent() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[aggregator.address]);
    aggregator.output.set(Mode::Hold);
    agent.collect();
    agent.collect();
    eventually("both are held", SOON, || async { (aggregator.output.held() == 2).then_some(()) }).await;
    aggregator.output.park(Some("401 Unauthorized"));
    agent.until("it is parked", |l| l.parked.as_deref() == Some("401 Unauthorized")).await;
    assert_eq!(agent.handle.status().parked, [("main".to_owned(), "401 Unauthorized".to_owned())]);
    aggregator.output.park(None);
    agent.until("it goes on", |l| l.parked.is_none()).await;
    aggregator.output.set(Mode::Reject);
    agent.all_acknowledged().await;
    assert_eq!(agent.ledger.lock().rejected, 2);
}

#[tokio::test]
async fn a_bad_path_loses_nothing() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let proxy = UdpProxy::start(aggregator.address, seed()).await.unwrap();
    proxy.set(Conditions {
        loss: 0.1,
        duplicate: 0.1,
        reorder: 0.2,
        reorder_by: Duration::from_millis(20),
        delay: Duration::from_millis(3),
        mtu: Some(1_200),
        blocked: false,
    });
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[proxy.address()]);
    for round in 0..100 {
        agent.collect();
        if round == 50 {
            proxy.rebind();
        }
        if round % 10 == 0 {
            agent.all_acknowledged().await;
        }
    }
    agent.all_acknowledged().await;
    let taken = aggregator.output.taken.lock().clone();
    assert_eq!(taken.len(), 100);
    assert!(taken.iter().all(|(seq, values)| *values == expected(*seq)));
    assert!(proxy.passed().lost > 0);
}

#[tokio::test]
async fn a_backlog_keeps_to_the_window_and_drains() {
    let site = Site::new();
    let aggregator = Aggregator::start_with(&site, Arc::default(), |s| s.max_in_flight_bytes = 16 << 10);
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[aggregator.address]);
    aggregator.output.set(Mode::Hold);
    for _ in 0..2_000 {
        agent.collect();
    }
    eventually("some are held", SOON, || async { (aggregator.output.held() > 5).then_some(()) }).await;
    let held = aggregator.output.held();
    assert!(held < 200, "{held} of 2,000 batches passed a window of 16 KiB");
    aggregator.output.set(Mode::Accept);
    agent.all_acknowledged().await;
    assert_eq!(aggregator.output.taken.lock().len(), 2_000);
}

#[tokio::test]
async fn an_aggregator_that_dies_is_left_for_the_second_and_nothing_is_lost() {
    let site = Site::new();
    let taken: Arc<_> = Arc::default();
    let aggregators = [0, 1].map(|_| Aggregator::start_with(&site, Arc::clone(&taken), |_| {}));
    let mut proxies = Vec::new();
    for (i, aggregator) in aggregators.iter().enumerate() {
        proxies.push(UdpProxy::start(aggregator.address, i as u64).await.unwrap());
    }
    let addresses: Vec<_> = proxies.iter().map(UdpProxy::address).collect();
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &addresses);
    agent.collect();
    agent.all_acknowledged().await;
    let first = agent.handle.status().address.unwrap();
    let at = addresses.iter().position(|a| *a == first).unwrap();

    aggregators[at].output.set(Mode::Hold);
    agent.collect();
    agent.collect();
    let held = || async { (aggregators[at].output.held() == 2).then_some(()) };
    eventually("two are in flight", SOON, held).await;
    let died = std::time::Instant::now();
    proxies[at].set(Conditions { blocked: true, ..Conditions::default() });
    agent.collect();
    agent.all_acknowledged().await;
    assert!(died.elapsed() < 15 * SECOND, "left after {:?}", died.elapsed());
    assert_eq!(agent.handle.status().address, Some(addresses[1 - at]));
    assert_eq!(taken.lock().len(), 4);
    let sends = aggregators[1 - at].output.sends.lock().clone();
    assert_eq!(sends[..2], [(2, true), (3, true)], "what the first may have got is marked");
    assert!(agent.ledger.lock().downs[0].contains("silent"), "{:?}", agent.ledger.lock().downs);
}

/// Killed and started again: the new process knows nothing of the session, and says so.
#[tokio::test]
async fn a_restarted_aggregator_tells_its_agents_at_once() {
    let site = Site::new();
    let taken: Arc<_> = Arc::default();
    let tls = site.receiver_tls();
    let [killed, next] = [0, 1].map(|_| Aggregator::start_as(tls.clone(), Arc::clone(&taken), |_| {}));
    let proxy = UdpProxy::start(killed.address, 1).await.unwrap();
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[proxy.address()]);
    agent.collect();
    agent.all_acknowledged().await;

    proxy.set_target(next.address);
    proxy.rebind();
    agent.collect();
    agent.all_acknowledged().await;
    assert_eq!(next.output.taken.lock().len(), 2);
    let downs = agent.ledger.lock().downs.clone();
    assert!(downs[0].contains("restarted"), "not by silence: {downs:?}");
}

#[tokio::test]
async fn an_aggregator_that_goes_away_hands_its_agents_over() {
    let site = Site::new();
    let taken: Arc<_> = Arc::default();
    let aggregators = [0, 1].map(|_| Aggregator::start_with(&site, Arc::clone(&taken), |_| {}));
    let addresses = [aggregators[0].address, aggregators[1].address];
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &addresses);
    agent.collect();
    agent.all_acknowledged().await;
    let first = agent.handle.status().address.unwrap();
    let at = addresses.iter().position(|a| *a == first).unwrap();
    aggregators[at].shutdown.cancel();
    agent.until("it is up again", |l| l.ups.len() == 2).await;
    assert_eq!(agent.handle.status().address, Some(addresses[1 - at]));
    assert_eq!(agent.handle.status().last_error, None, "this is no error");
    agent.collect();
    agent.all_acknowledged().await;
    let ended = || async { aggregators[at].task.is_finished().then_some(()) };
    eventually("the first has ended", SOON, ended).await;
}

#[tokio::test]
async fn a_lone_aggregator_is_not_held_up_by_its_agents_when_it_stops() {
    let site = Site::new();
    let aggregator = Aggregator::start_with(&site, Arc::default(), |s| s.drain = 30 * SECOND);
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[aggregator.address]);
    agent.collect();
    agent.all_acknowledged().await;
    let stopped = std::time::Instant::now();
    aggregator.shutdown.cancel();
    aggregator.task.await.unwrap();
    assert!(stopped.elapsed() < 10 * SECOND, "took {:?}", stopped.elapsed());
}

#[tokio::test]
async fn outputs_that_change_are_announced_to_live_sessions() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[aggregator.address]);
    agent.collect();
    agent.all_acknowledged().await;
    aggregator.outputs.send_replace(Arc::new(Vec::new()));
    agent.until("no output is announced", |l| l.outputs == 0).await;
}

#[tokio::test]
async fn an_output_that_is_configured_anew_gets_what_the_old_one_held() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[aggregator.address]);
    aggregator.output.set(Mode::Hold);
    agent.collect();
    eventually("it is held", SOON, || async { (aggregator.output.held() == 1).then_some(()) }).await;
    let anew = Memory::new(Arc::default());
    aggregator.outputs.send_replace(Arc::new(vec![anew.clone()]));
    agent.all_acknowledged().await;
    assert_eq!(*anew.sends.lock(), [(1, true)]);
    assert!(agent.ledger.lock().downs.is_empty());
}

#[tokio::test]
async fn an_unsettled_batch_holds_back_the_acknowledgement_of_those_behind_it() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[aggregator.address]);
    aggregator.output.set(Mode::Hold);
    for _ in 0..3 {
        agent.collect();
    }
    eventually("all are held", SOON, || async { (aggregator.output.held() == 3).then_some(()) }).await;
    aggregator.output.settle_backwards();
    agent.all_acknowledged().await;
    assert_eq!(aggregator.output.taken.lock().len(), 3);
}

#[tokio::test]
async fn a_stream_that_the_aggregator_cannot_take_is_tried_ever_more_slowly_and_alone() {
    let site = Site::new();
    let aggregator = Aggregator::start_with(&site, Arc::default(), |s| s.max_series = 10);
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[aggregator.address]);
    agent.collect();
    agent.until("it was reset twice", |l| l.resets.len() == 2).await;
    let ledger = agent.ledger.lock();
    assert!(ledger.downs.is_empty() && ledger.resets[0].contains("could not decode"), "{ledger:?}");
}

#[tokio::test]
async fn a_batch_that_fits_no_frame_is_handed_back() {
    let site = Site::new();
    let aggregator = Aggregator::start_with(&site, Arc::default(), |s| s.max_frame_bytes = 1_000);
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[aggregator.address]);
    agent.collect();
    agent.until("it is handed back", |l| l.unsendable == [1]).await;
    assert!(agent.ledger.lock().downs.is_empty());
}

#[tokio::test]
async fn dead_addresses_cost_a_moment_each() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let dead = UdpProxy::start(aggregator.address, 1).await.unwrap();
    dead.set(Conditions { blocked: true, ..Conditions::default() });
    let began = std::time::Instant::now();
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[dead.address(), aggregator.address]);
    agent.collect();
    agent.all_acknowledged().await;
    assert!(began.elapsed() < 4 * SECOND, "took {:?}", began.elapsed());
}

#[tokio::test]
async fn a_newer_session_takes_the_older_ones_place_and_two_epochs_are_a_conflict() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let files = site.agent_files("n1", HOUR);
    let mut first = Agent::start_as(files.clone(), &[aggregator.address], AgentEpoch(1));
    first.collect();
    first.all_acknowledged().await;
    let _second = Agent::start_as(files, &[aggregator.address], AgentEpoch(2));
    first.until("it was superseded", |l| l.downs.iter().any(|d| d.contains("one certificate"))).await;
    let fleet = aggregator.sessions.fleet();
    assert_eq!(fleet.len(), 1);
    assert!(fleet[0].conflicts >= 1);
    assert!(!aggregator.output.forgotten.lock().is_empty());
}

#[tokio::test]
async fn a_path_that_lets_no_udp_through_is_named() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let proxy = UdpProxy::start(aggregator.address, 1).await.unwrap();
    proxy.set(Conditions { blocked: true, ..Conditions::default() });
    let agent = Agent::start(site.agent_files("n1", HOUR), &[proxy.address()]);
    let error = eventually("an error shows", SOON, || async { agent.handle.status().last_error }).await;
    assert!(error.contains("UDP seems blocked"), "{error}");
}

/// The goal is 1.1 bytes a sample with real data; the values here are simpler, so that what is measured is mostly
/// what QUIC, frames and acknowledgements add.
#[tokio::test]
async fn a_scrape_costs_one_small_packet_each_way() {
    const SCRAPES: u64 = 60;
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let proxy = UdpProxy::start(aggregator.address, 1).await.unwrap();
    proxy.set(Conditions { delay: Duration::from_millis(2), ..Conditions::default() });
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[proxy.address()]);
    for _ in 0..5 {
        agent.collect();
        agent.all_acknowledged().await;
    }
    // QUIC's own settling down (handshake's end, path discovery) is over when nothing moves any more.
    let mut still = proxy.passed();
    eventually("the path is quiet", SOON, || {
        let now = proxy.passed();
        let quiet = now == still;
        still = now;
        async move { quiet.then_some(()) }
    })
    .await;
    let before = proxy.passed();
    let frames_before = frame_bytes(&aggregator);
    for _ in 0..SCRAPES {
        agent.collect();
        agent.all_acknowledged().await;
        pegel_tests::let_run(Duration::from_millis(100)).await;
    }
    let after = proxy.passed();
    let per_scrape = |now: u64, then: u64| (now - then) as f64 / SCRAPES as f64;
    let out = per_scrape(after.from_clients_bytes, before.from_clients_bytes);
    let back = per_scrape(after.to_clients_bytes, before.to_clients_bytes);
    let packets_out = per_scrape(after.from_clients, before.from_clients);
    let packets_back = per_scrape(after.to_clients, before.to_clients);
    let codec = per_scrape(frame_bytes(&aggregator), frames_before);
    eprintln!(
        "a scrape of 600: {out:.0} bytes in {packets_out:.2} packets out, {back:.0} in {packets_back:.2} back, \
         {codec:.0} of them blocks: {:.0} bytes of overhead",
        out + back - codec
    );
    assert!(packets_out < 2.6 && packets_back < 1.6);
    assert!(out + back - codec < 150.0);
}

fn frame_bytes(aggregator: &Aggregator) -> u64 {
    let text = aggregator.registry.render();
    let line = text.lines().find(|l| l.starts_with("pegel_receiver_frame_bytes_total")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Tenant and node as text.
trait Parts {
    fn to_string_parts(&self) -> (String, String);
}

impl Parts for pegel_proto::identity::AgentIdentity {
    fn to_string_parts(&self) -> (String, String) {
        (self.tenant.to_string(), self.node.to_string())
    }
}
