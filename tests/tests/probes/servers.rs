//! Servers that behave as they are told: well, slowly, badly or not at all; certificates of every quality.

use pegel_runtime::http_client::crypto_provider;
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;

/// What a server does with a connection, once a request's head came.
#[derive(Clone)]
pub enum Says {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// These bytes by the request's path; what is not listed is a 404.
    Paths(Vec<(&'static str, Vec<u8>)>),
    /// Nothing, for ever.
    Nothing,
    /// Nothing but the end of the connection.
    End,
    /// A reset.
    Reset,
    /// These bytes, then nothing, for ever.
    ThenNothing(Vec<u8>),
    /// These bytes, one at a time with a while between.
    Slowly(Vec<u8>, Duration),
    /// Bytes at once, without waiting for a request; then a line read and an answer for each pair.
    Talk(Vec<u8>, Vec<(&'static str, Vec<u8>)>),
    /// The same, and TLS from there on, with nothing more to say.
    TalkThenTls(Vec<u8>, Vec<(&'static str, Vec<u8>)>, TlsAcceptor),
}

/// An HTTP answer with its length.
pub fn answer(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for header in headers {
        out.extend_from_slice(format!("{header}\r\n").as_bytes());
    }
    out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(body);
    out
}

/// Starts a server on an address.
pub async fn serve_on(address: &str, says: Says, tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind(address).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (says, tls) = (says.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => talk(stream, says).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            say(stream, says).await;
                        }
                    }
                }
            });
        }
    });
    address
}

/// Starts a server on the loopback.
pub async fn serve(says: Says) -> SocketAddr {
    serve_on("127.0.0.1:0", says, None).await
}

/// Starts a server with TLS.
pub async fn serve_tls(says: Says, tls: TlsAcceptor) -> SocketAddr {
    serve_on("127.0.0.1:0", says, Some(tls)).await
}

async fn talk(mut stream: TcpStream, says: Says) {
    match says {
        Says::Reset => {
            head(&mut stream).await;
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        Says::TalkThenTls(greeting, pairs, tls) => {
            converse(&mut stream, &greeting, &pairs).await;
            if let Ok(mut stream) = tls.accept(stream).await {
                let _ = stream.read(&mut [0; 1]).await;
            }
        }
        other => say(stream, other).await,
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, says: Says) {
    if let Says::Talk(greeting, pairs) = &says {
        converse(&mut stream, greeting, pairs).await;
        return;
    }
    let Some(path) = head(&mut stream).await else { return };
    match says {
        Says::Bytes(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Says::Paths(paths) => {
            let found = paths.iter().find(|(known, _)| *known == path).map(|(_, bytes)| bytes.clone());
            let _ = stream.write_all(&found.unwrap_or_else(|| answer("404 Not Found", &[], b"no"))).await;
            let _ = stream.shutdown().await;
        }
        Says::ThenNothing(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            std::future::pending::<()>().await;
        }
        Says::Slowly(bytes, pause) => {
            let mut ticks = tokio::time::interval(pause);
            for byte in bytes {
                ticks.tick().await;
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                let _ = stream.flush().await;
            }
        }
        Says::Nothing => std::future::pending().await,
        Says::End | Says::Reset | Says::Talk(..) | Says::TalkThenTls(..) => {}
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    greeting: &[u8],
    pairs: &[(&str, Vec<u8>)],
) {
    let _ = stream.write_all(greeting).await;
    let _ = stream.flush().await;
    for (wanted, reply) in pairs {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            match stream.read_u8().await {
                Ok(byte) => line.push(byte),
                Err(_) => return,
            }
        }
        if !String::from_utf8_lossy(&line).starts_with(wanted) {
            return;
        }
        let _ = stream.write_all(reply).await;
        let _ = stream.flush().await;
    }
}

/// Reads a request's head; its path.
async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8_lossy(&head).split(' ').nth(1).map(str::to_owned)
}

/// Certificates of a test: a CA and what it issued, as files.
pub struct Pki {
    dir: tempfile::TempDir,
    ca: CertificateParams,
    ca_key: KeyPair,
    ca_der: CertificateDer<'static>,
}

impl Pki {
    /// Makes a CA.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let ca_key = KeyPair::generate().expect("a key");
        let mut ca = params("Test CA", &[], -10, 1_000);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = ca.self_signed(&ca_key).expect("a certificate");
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("a file");
        Self { dir, ca, ca_key, ca_der: certificate.der().clone() }
    }

    /// The CA's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A server with a certificate for names, valid from and until days from now; the chain holds the CA too.
    pub fn server(&self, names: &[&str], from_days: i64, until_days: i64) -> TlsAcceptor {
        let (leaf, key) = self.issue("server", names, from_days, until_days, |_| {});
        acceptor(vec![leaf.der().clone(), self.ca_der.clone()], &key)
    }

    /// A certificate with its key.
    pub fn issue(
        &self,
        common_name: &str,
        names: &[&str],
        from_days: i64,
        until_days: i64,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&self.ca, &self.ca_key);
        let mut params = params(common_name, names, from_days, until_days);
        change(&mut params);
        (params.signed_by(&key, &issuer).expect("a certificate"), key)
    }

    /// The CA's certificate as DER.
    pub fn ca_der(&self) -> &CertificateDer<'static> {
        &self.ca_der
    }

    /// The CA's key.
    pub fn ca_key(&self) -> &KeyPair {
        &self.ca_key
    }

    /// A server with a certificate that it signed itself; the certificate is written to a file.
    pub fn self_signed(&self, names: &[&str], file: &str) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let mut own = params("alone, \"quoted\" + more", names, -1, 30);
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        own.distinguished_name.push(DnType::OrganizationName, "Example #1");
        own.distinguished_name.push(DnType::CountryName, "DE");
        let leaf = own.self_signed(&key).expect("a certificate");
        std::fs::write(self.dir.path().join(file), leaf.pem()).expect("a file");
        acceptor(vec![leaf.der().clone()], &key)
    }
}

fn params(common_name: &str, names: &[&str], from_days: i64, until_days: i64) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now + time::Duration::days(from_days);
    params.not_after = now + time::Duration::days(until_days);
    params
}

/// A key as rustls takes it.
pub fn private_key(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key")
}

fn acceptor(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> TlsAcceptor {
    let key = private_key(key);
    let config = rustls::ServerConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .expect("a configuration");
    TlsAcceptor::from(Arc::new(config))
}

/// What a name server does with a question for a name's first label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// So many A records.
    Addresses(u8),
    /// An SOA record with this serial number.
    Soa(u32),
    /// This code.
    Code(u8),
    /// Over UDP nothing but the mark that there is more; over TCP so many A records.
    Truncated(u8),
    /// An A record, after so many milliseconds.
    Late(u64),
    /// The A record of the loopback; over UDP only the mark that there is more.
    Loopback,
    /// Nothing at all.
    Silent,
    /// Something that is no message.
    Garbage,
}

/// Starts a name server on UDP and TCP.
pub async fn name_server(zones: &'static [(&'static str, Zone)], tls: Option<TlsAcceptor>) -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = tcp.local_addr().expect("an address");
    let udp = UdpSocket::bind(address).await.expect("the same port");
    let find = move |query: &[u8]| {
        let label = String::from_utf8_lossy(&query[13..13 + usize::from(query[12])]).into_owned();
        zones.iter().find(|(known, _)| *known == label).map_or(Zone::Code(3), |(_, zone)| *zone)
    };
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        let udp = Arc::new(udp);
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            let zone = find(&buffer[..length]);
            let Some(reply) = reply(&buffer[..length], zone, false) else { continue };
            let udp = udp.clone();
            tokio::spawn(async move {
                if let Zone::Late(by) = zone {
                    tokio::time::sleep(Duration::from_millis(by)).await;
                }
                let _ = udp.send_to(&reply, from).await;
            });
        }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = tcp.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => framed(stream, find).await,
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => framed(stream, find).await,
                        Err(_) => None,
                    },
                }
            });
        }
    });
    address
}

async fn framed<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    find: impl Fn(&[u8]) -> Zone,
) -> Option<()> {
    let mut query = vec![0; usize::from(stream.read_u16().await.ok()?)];
    stream.read_exact(&mut query).await.ok()?;
    let zone = find(&query);
    let Some(reply) = reply(&query, zone, true) else {
        return std::future::pending().await;
    };
    let mut framed = (reply.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(&reply);
    stream.write_all(&framed).await.ok()?;
    stream.flush().await.ok()
}

fn reply(query: &[u8], zone: Zone, tcp: bool) -> Option<Vec<u8>> {
    let mut out = query.to_vec();
    out[2] |= 0x80;
    let addresses = match zone {
        Zone::Silent => return None,
        Zone::Garbage => {
            out.truncate(10);
            return Some(out);
        }
        Zone::Code(code) => {
            out[3] |= code;
            return Some(out);
        }
        Zone::Truncated(_) | Zone::Loopback if !tcp => {
            out[2] |= 0x02;
            return Some(out);
        }
        Zone::Soa(serial) => {
            out[7] = 1;
            out.extend_from_slice(b"\xc0\x0c\x00\x06\x00\x01\x00\x00\x00\x3c\x00\x1a\x02ns\x00\x00");
            out.extend_from_slice(&serial.to_be_bytes());
            out.extend_from_slice(&[0; 16]);
            // The contents: the name `ns`, the root, and five numbers.
            let length = out.len() - query.len() - 12;
            out[query.len() + 10..query.len() + 12].copy_from_slice(&(length as u16).to_be_bytes());
            return Some(out);
        }
        Zone::Late(_) | Zone::Loopback => {
            // A question for another type than A has no answer.
            if query[query.len() - 3] == 1 {
                out[7] = 1;
                out.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01");
            }
            return Some(out);
        }
        Zone::Addresses(count) | Zone::Truncated(count) => count,
    };
    for last in 1..=addresses {
        out[7] += 1;
        out.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02");
        out.push(last);
    }
    Some(out)
}
