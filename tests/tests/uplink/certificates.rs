//! Identity is proven, and stays so while a session lives.

use crate::site::{Agent, Aggregator, HOUR, SECOND, SOON, Site};
use pegel_runtime::tls::{Reload as _, TlsFiles};
use pegel_tests::eventually;

async fn refusal(agent: &Agent) -> String {
    eventually("an error shows", SOON, || async { agent.handle.status().last_error }).await
}

#[tokio::test]
async fn another_ca_is_refused_on_both_sides() {
    let (site, other) = (Site::new(), Site::new());
    let aggregator = Aggregator::start(&site);
    let error = refusal(&Agent::start(other.agent_files("n1", HOUR), &[aggregator.address])).await;
    assert!(error.contains("aggregator's certificate is not accepted"), "{error}");

    let foreign = other.agent_files("n1", HOUR);
    let trusting = TlsFiles { ca: site.ca.certificate_path(), crl: None, ..foreign };
    let error = refusal(&Agent::start(trusting, &[aggregator.address])).await;
    assert!(error.contains("does not accept") || error.contains("does not trust"), "{error}");
    assert!(aggregator.sessions.fleet().is_empty());
}

#[tokio::test]
async fn another_trust_domain_is_refused_though_the_ca_is_trusted() {
    let (site, other) = (Site::new(), Site::of_domain("elsewhere"));
    let aggregator = Aggregator::start(&site);
    let both = tempfile::NamedTempFile::new().unwrap();
    let text = [&site, &other].map(|s| std::fs::read_to_string(s.ca.certificate_path()).unwrap()).concat();
    std::fs::write(both.path(), text).unwrap();
    // The agent trusts both CAs, but its own certificate is of the other domain.
    let files = TlsFiles { ca: both.path().into(), crl: None, ..other.agent_files("n1", HOUR) };
    let error = refusal(&Agent::start(files, &[aggregator.address])).await;
    assert!(error.contains("certificate is not accepted"), "{error}");
    assert!(aggregator.sessions.fleet().is_empty());
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_said_so() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let files = site.agent_files("n1", std::time::Duration::ZERO);
    let error = refusal(&Agent::start(files, &[aggregator.address])).await;
    assert!(error.contains("has expired"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_expires_ends_its_live_session() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let mut agent = Agent::start(site.agent_files("n1", 3 * SECOND), &[aggregator.address]);
    agent.collect();
    agent.all_acknowledged().await;
    agent.until("the session was closed", |l| l.downs.iter().any(|d| d.contains("has expired"))).await;
    let entry = aggregator.sessions.fleet().remove(0);
    assert!(!entry.connected);
}

#[tokio::test]
async fn an_agent_leaves_an_aggregator_whose_certificate_expires() {
    let site = Site::new();
    let tls = site.receiver_tls_for(4 * SECOND);
    let aggregator = Aggregator::start_as(tls, std::sync::Arc::default(), |_| {});
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[aggregator.address]);
    eventually("the session was left", SOON, || {
        agent.collect();
        let left = agent.ledger.lock().downs.iter().any(|d| d.contains("certificate has expired"));
        async move { left.then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn a_revoked_certificate_ends_its_live_session_and_no_other() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let files = site.agent_files("n1", HOUR);
    let mut revoked = Agent::start(files.clone(), &[aggregator.address]);
    let mut other = Agent::start(site.agent_files("n2", HOUR), &[aggregator.address]);
    for agent in [&mut revoked, &mut other] {
        agent.collect();
        agent.all_acknowledged().await;
    }
    site.ca.revoke(&files.cert).unwrap();
    assert!(aggregator.tls.reload().unwrap());
    revoked.until("the session was closed", |l| l.downs.iter().any(|d| d.contains("revoked"))).await;
    let error = eventually("it stays out", SOON, || async {
        revoked.handle.status().last_error.filter(|e| e.contains("was revoked"))
    })
    .await;
    assert!(error.contains("revoked"), "{error}");
    other.collect();
    other.all_acknowledged().await;
    assert!(other.ledger.lock().downs.is_empty());
}

#[tokio::test]
async fn certificates_of_both_sides_are_exchanged_live() {
    let site = Site::new();
    let aggregator = Aggregator::start(&site);
    let mut agent = Agent::start(site.agent_files("n1", HOUR), &[aggregator.address]);
    agent.collect();
    agent.all_acknowledged().await;
    let serial = agent.tls.own().serial;
    site.agent_files("n1", 2 * HOUR);
    assert!(agent.tls.reload().unwrap());
    assert_ne!(agent.tls.own().serial, serial);
    agent.until("there is a new session", |l| l.ups.len() == 2).await;
    let entry = aggregator.sessions.fleet().remove(0);
    assert_eq!(entry.certificate_not_after_seconds, agent.tls.own().not_after_seconds);

    site.receiver_tls();
    assert!(aggregator.tls.reload().unwrap());
    agent.collect();
    agent.all_acknowledged().await;
    assert_eq!(agent.ledger.lock().ups.len(), 2, "the aggregator's renewal leaves sessions alone");
    let mut late = Agent::start(site.agent_files("n2", HOUR), &[aggregator.address]);
    late.collect();
    late.all_acknowledged().await;
}
