//! Who the agent is: client certificates, users and tokens from files, and targets that files add and take away.

use crate::once::once;
use crate::servers::{Pki, Says, answer, private_key, serve, serve_tls};
use http::Response;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pegel_runtime::http_client::crypto_provider;
use pegel_tests::pegel::{Agent, AgentSetup, Site};
use pegel_tests::{eventually, free_port};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const SOON: Duration = Duration::from_secs(60);

/// A server that wants a certificate of the CA's from its clients.
fn wants_certificate(pki: &Pki, versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    roots.add(pki.ca_der().clone()).expect("a certificate");
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), crypto_provider());
    let (leaf, key) = pki.issue("server", &["127.0.0.1"], -1, 90, |_| {});
    let config = rustls::ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(versions)
        .expect("versions")
        .with_client_cert_verifier(clients.build().expect("a verifier"))
        .with_single_cert(vec![leaf.der().clone()], private_key(&key))
        .expect("a configuration");
    TlsAcceptor::from(Arc::new(config))
}

fn client(of: &Pki, dir: &Path, name: &str, until_days: i64) {
    let (certificate, key) = of.issue(name, &[], -2, until_days, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).expect("a file");
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("a file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_may_want_a_certificate() {
    let (pki, other) = (Pki::new(), Pki::new());
    let dir = pki.dir();
    client(&pki, dir, "known", 30);
    client(&pki, dir, "expired", -1);
    client(&other, dir, "stranger", 30);
    let ok = || Says::Bytes(answer("200 OK", &[], b"hi"));
    let ca = pki.ca_file().display().to_string();
    let mut checks = Vec::new();
    for (version, versions) in [("12", &[&rustls::version::TLS12][..]), ("13", &[&rustls::version::TLS13])] {
        let at = serve_tls(ok(), wants_certificate(&pki, versions)).await;
        for name in ["known", "expired", "stranger", "none"] {
            let own = match name {
                "none" => String::new(),
                name => format!(", cert_file: {0}/{name}.pem, key_file: {0}/{name}.key", dir.display()),
            };
            checks.push(format!(
                "{{name: {name}{version}, kind: http, targets: ['https://{at}/'], http: {{tls_config: {{ca_file: {ca}{own}}}}}}}"
            ));
        }
    }
    let (seen, said) = once(dir, &format!("{{checks: [{}]}}", checks.join(", ")));
    for (name, one) in &seen {
        if name.starts_with("known") {
            assert!(one.success(), "{name}: {one:?}");
            continue;
        }
        assert_eq!(one.reason, "handshake", "{name}: {one:?} {said}");
        // The server's own certificate was seen before it refused the client's.
        assert!(one.value("probe_ssl_earliest_cert_expiry").is_some(), "{name}: {one:?}");
    }
    assert_eq!(seen.len(), 8);
    assert!(!said.contains("PRIVATE KEY"));
}

/// A server that lets in who has these credentials, which may change.
async fn guarded(credentials: Arc<Mutex<String>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let credentials = credentials.clone();
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let given = request.headers().get("authorization").map(|v| v.as_bytes().to_vec());
                let status = if given.as_deref() == Some(credentials.lock().as_bytes()) { 200 } else { 401 };
                let answer = Response::builder().status(status).body(Full::new(Bytes::from_static(b"hi")));
                async move { answer }
            });
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// An agent with nothing but checks, whose aggregator is away.
async fn agent(site: &Site, probes: &str) -> Agent {
    let nobody = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let setup = AgentSetup { probes: Some(probes.to_owned()), ..AgentSetup::default() };
    let mut agent = site.agent("web-1", &[nobody], setup);
    agent.start().await;
    agent
}

/// Waits until a check is in a state, with a reason if it failed.
async fn is(agent: &Agent, name: &str, state: &str, reason: Option<&str>) {
    eventually(&format!("{name} is {state} {reason:?}"), SOON, || async {
        let status = agent.status().await?;
        let check = status["checks"].as_array()?.iter().find(|check| check["name"] == name)?.clone();
        (check["state"] == state && check["reason"].as_str() == reason).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_read_from_their_files_for_every_run() {
    let site = Site::new();
    let (password, token) = (site.dir().join("password"), site.dir().join("token"));
    // The words are the RFC's own (RFC 7617, section 2).
    std::fs::write(&password, "open sesame\n").expect("a file");
    std::fs::write(&token, "first-token").expect("a file");
    let basic = Arc::new(Mutex::new("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==".to_owned()));
    let bearer = Arc::new(Mutex::new("Bearer first-token".to_owned()));
    let (of_basic, of_bearer) = (guarded(basic.clone()).await, guarded(bearer.clone()).await);
    let probes = format!(
        "{{checks: [{{name: basic, kind: http, interval: 250ms, targets: ['http://{of_basic}/'], http: {{basic_auth: {{username: \
         Aladdin, password_file: {}}}}}}}, {{name: bearer, kind: http, interval: 250ms, targets: ['http://{of_bearer}/'], http: \
         {{bearer_token_file: {}}}}}]}}",
        password.display(),
        token.display()
    );
    let mut agent = agent(&site, &probes).await;
    is(&agent, "basic", "up", None).await;
    is(&agent, "bearer", "up", None).await;
    // The server's credentials change, then the files do.
    *basic.lock() = "Basic QWxhZGRpbjpzZWNvbmQ=".to_owned();
    *bearer.lock() = "Bearer second-token".to_owned();
    is(&agent, "basic", "down", Some("status")).await;
    is(&agent, "bearer", "down", Some("status")).await;
    std::fs::write(&password, "second").expect("a file");
    std::fs::write(&token, "second-token\n").expect("a file");
    is(&agent, "basic", "up", None).await;
    is(&agent, "bearer", "up", None).await;
    // A file that is away is told as such, by its name.
    std::fs::remove_file(&token).expect("the file");
    is(&agent, "bearer", "down", Some("configuration")).await;
    let status = agent.status().await.expect("a status").to_string();
    assert!(status.contains(&token.display().to_string()), "{status}");
    let all = [status, agent.metrics().await.expect("metrics"), agent.process().log()].concat();
    for secret in ["sesame", "second-token", "first-token", "QWxhZGRpbjp"] {
        assert!(!all.contains(secret), "{secret} is shown");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_add_targets_and_take_them_away() {
    let site = Site::new();
    let base = serve(Says::Bytes(answer("200 OK", &[], b"hi"))).await;
    let files = site.dir().join("targets");
    std::fs::create_dir(&files).expect("a directory");
    let write = |name: &str, text: &str| {
        // Renamed into place, as everybody should.
        let new = files.join("new");
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, files.join(name))).expect("a file");
    };
    let list = |paths: &[&str]| {
        let urls: Vec<String> = paths.iter().map(|path| format!("\"http://{base}/{path}\"")).collect();
        format!("[{{\"targets\": [{}], \"labels\": {{\"team\": \"web\"}}}}]", urls.join(", "))
    };
    write("a.json", &list(&["1", "2"]));
    let probes = format!(
        "{{file_sd_refresh: 1s, checks: [{{name: found, kind: http, interval: 250ms, file_sd: ['{}/*.json', '{}/*.yaml']}}]}}",
        files.display(),
        files.display()
    );
    let mut agent = agent(&site, &probes).await;
    let checked = |expected: &'static [&'static str]| {
        let agent = &agent;
        async move {
            eventually(&format!("{expected:?} are checked"), SOON, || async {
                let status = agent.status().await?;
                let checks = status["checks"].as_array()?;
                let mut up: Vec<String> = checks
                    .iter()
                    .filter(|check| check["state"] == "up")
                    .filter_map(|check| Some(check["target"].as_str()?.rsplit('/').next()?.to_owned()))
                    .collect();
                up.sort();
                (up == expected && checks.len() == expected.len()).then_some(())
            })
            .await;
        }
    };
    checked(&["1", "2"]).await;
    // One goes, one comes, another file comes.
    write("a.json", &list(&["2", "3"]));
    write("b.yaml", &format!("- targets: [\"http://{base}/4\"]\n"));
    checked(&["2", "3", "4"]).await;
    // A file that is broken leaves its targets as they were.
    write("a.json", "[{\"targets\": [\"http://");
    eventually("the broken file is named", SOON, || {
        let named = agent.process().log().contains("target file is left as it was");
        async move { named.then_some(()) }
    })
    .await;
    let checked = |expected: usize| {
        let agent = &agent;
        async move {
            eventually(&format!("{expected} targets are checked"), SOON, || async {
                let status = agent.status().await?;
                (status["checks"].as_array()?.len() == expected).then_some(())
            })
            .await;
        }
    };
    checked(3).await;
    std::fs::remove_file(files.join("b.yaml")).expect("the file");
    checked(2).await;
    write("a.json", "[]");
    checked(0).await;
}
