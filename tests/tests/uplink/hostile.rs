//! A client with a good certificate and bad intentions.

use crate::site::{Agent, Aggregator, HOUR, SOON, Site};
use pegel_proto::framing::write_frame;
use pegel_proto::wire::{self, agent_control, close};
use pegel_runtime::tls::UplinkTls;
use pegel_tests::{eventually, seed};
use quinn::crypto::rustls::QuicClientConfig;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;

async fn connect(site: &Site, aggregator: &Aggregator, node: &str) -> (quinn::Endpoint, quinn::Connection) {
    let tls = UplinkTls::load(site.agent_files(node, HOUR), wire::ALPN).unwrap();
    let crypto = QuicClientConfig::try_from(tls.config()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connection = endpoint.connect_with(config, aggregator.address, "127.0.0.1").unwrap().await.unwrap();
    (endpoint, connection)
}

fn hello(wire_min: u32, wire_max: u32) -> Vec<u8> {
    let hello = wire::Hello { wire_min, wire_max, epoch: 1, ..wire::Hello::default() };
    let mut bytes = Vec::new();
    write_frame(&wire::AgentControl { kind: Some(agent_control::Kind::Hello(hello)) }, &mut bytes);
    bytes
}

async fn close_code(connection: &quinn::Connection) -> u32 {
    match tokio::time::timeout(SOON, connection.closed()).await.expect("the aggregator closes") {
        quinn::ConnectionError::ApplicationClosed(closed) => closed.error_code.into_inner() as u32,
        other => panic!("closed otherwise: {other}"),
    }
}

#[tokio::test]
async fn garbage_on_the_control_stream_closes_the_session() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    for garbage in [&[0xff; 64][..], &[0x80, 0x80, 0x80, 0x7f, 1], &[3, 0xff, 0xff, 0xff], &[0]] {
        let (_endpoint, connection) = connect(&site, &aggregator, "n1").await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(garbage).await.unwrap();
        let _ = send.finish();
        assert_eq!(close_code(&connection).await, close::PROTOCOL, "{garbage:?}");
    }
}

#[tokio::test]
async fn versions_without_one_in_common_are_refused_in_words() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let (_endpoint, connection) = connect(&site, &aggregator, "n1").await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello(90, 91)).await.unwrap();
    match tokio::time::timeout(SOON, connection.closed()).await.unwrap() {
        quinn::ConnectionError::ApplicationClosed(closed) => {
            assert_eq!(closed.error_code.into_inner() as u32, close::REFUSED);
            assert!(String::from_utf8_lossy(&closed.reason).contains("wire versions 90 to 91"));
        }
        other => panic!("closed otherwise: {other}"),
    }
}

#[tokio::test]
async fn a_frame_above_the_cap_and_numbers_that_do_not_rise_close_the_session() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let mut too_large = Vec::new();
    write_frame(&open("main"), &mut too_large);
    too_large.extend([0x80, 0x80, 0x80, 0x40]);
    let mut not_rising = Vec::new();
    write_frame(&open("main"), &mut not_rising);
    write_frame(&wire::BatchFrame { sent_before: true, ..wire::BatchFrame::default() }, &mut not_rising);
    for bytes in [too_large, not_rising] {
        let (_endpoint, connection) = connect(&site, &aggregator, "n1").await;
        let _control = say_hello(&connection).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        assert_eq!(close_code(&connection).await, close::PROTOCOL);
    }
}

#[tokio::test]
async fn damaged_blocks_and_unknown_outputs_reset_their_stream_only() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let (_endpoint, connection) = connect(&site, &aggregator, "n1").await;
    let _control = say_hello(&connection).await;
    let mut damaged = Vec::new();
    write_frame(&open("main"), &mut damaged);
    let blocks = vec![0xff; 100].into();
    write_frame(&wire::BatchFrame { seq_delta: 1, blocks, ..wire::BatchFrame::default() }, &mut damaged);
    let mut unknown = Vec::new();
    write_frame(&open("nowhere"), &mut unknown);
    for (bytes, code) in [(damaged, close::DECODE), (unknown, close::UNKNOWN_OUTPUT)] {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        match recv.read_chunk(100, true).await {
            Err(quinn::ReadError::Reset(got)) => assert_eq!(got.into_inner() as u32, code),
            other => panic!("not reset: {other:?}"),
        }
    }
    assert!(connection.close_reason().is_none());
}

#[tokio::test]
async fn random_streams_harm_nobody_else() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let mut honest = Agent::start(site.agent_files("honest", HOUR), &[aggregator.address]);
    let mut rng = StdRng::seed_from_u64(seed());
    for _ in 0..20 {
        let (_endpoint, connection) = connect(&site, &aggregator, "hostile").await;
        let _control = say_hello(&connection).await;
        for _ in 0..5 {
            let Ok((mut send, _recv)) = connection.open_bi().await else { break };
            let mut bytes = Vec::new();
            write_frame(&open("main"), &mut bytes);
            bytes.extend(
                (0..rng.random_range(1..2_000)).map(|_| rng.random::<u8>() >> rng.random_range(0..8)),
            );
            let _ = send.write_all(&bytes).await;
        }
        honest.collect();
        honest.all_acknowledged().await;
    }
    assert!(honest.ledger.lock().downs.is_empty());
}

#[tokio::test]
async fn a_flood_of_handshakes_is_held_to_the_rate_and_agents_get_through() {
    let site = Site::new();
    let aggregator = Aggregator::start_with(&site, Arc::default(), |s| s.handshakes_per_second = 5);
    let mut agents: Vec<_> = (0..12)
        .map(|i| Agent::start(site.agent_files(&format!("n{i}"), HOUR), &[aggregator.address]))
        .collect();
    for agent in &mut agents {
        agent.collect();
        agent.all_acknowledged().await;
    }
    let text = aggregator.registry.render();
    assert!(text.contains("result=\"retry\"") || text.contains("result=\"ignored\""), "{text}");
    eventually("all are there", SOON, || async { (aggregator.sessions.live_count() == 12).then_some(()) })
        .await;
}

fn open(output: &str) -> wire::StreamOpen {
    wire::StreamOpen { signal: wire::WireSignal::Metrics.into(), output: output.into(), fresh: false }
}

async fn say_hello(connection: &quinn::Connection) -> (quinn::SendStream, quinn::RecvStream) {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello(1, 1)).await.unwrap();
    recv.read_chunk(10_000, true).await.unwrap().expect("a welcome");
    (send, recv)
}
