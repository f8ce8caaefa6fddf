use super::*;
use tokio::net::TcpListener;

/// What a server of the test's does with a question.
#[derive(Debug, Clone, Copy)]
enum Says {
    Addresses(&'static [[u8; 4]]),
    Code(u8),
    Truncated(&'static [[u8; 4]]),
}

fn reply(query: &[u8], says: Says, tcp: bool) -> Vec<u8> {
    let mut out = query.to_vec();
    out[2] |= 0x80;
    let qtype = u16::from_be_bytes([out[out.len() - 4], out[out.len() - 3]]);
    let addresses = match says {
        Says::Code(code) => {
            out[3] |= code;
            return out;
        }
        Says::Truncated(_) if !tcp => {
            out[2] |= 0x02;
            return out;
        }
        Says::Addresses(addresses) | Says::Truncated(addresses) => addresses,
    };
    for address in addresses.iter().filter(|_| qtype == dns::A) {
        out[7] += 1;
        out.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x09\x00\x04");
        out.extend_from_slice(address);
    }
    out
}

/// A name server on UDP and TCP that answers by the name's first label.
async fn server(by_label: &'static [(&'static str, Says)]) -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    let find = move |query: &[u8]| {
        let label = String::from_utf8_lossy(&query[13..13 + usize::from(query[12])]).into_owned();
        by_label.iter().find(|(l, _)| *l == label).map_or(Says::Code(3), |(_, says)| *says)
    };
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            let query = &buffer[..length];
            // An answer to something else first: it is to be passed over.
            let mut other = reply(query, Says::Addresses(&[[6, 6, 6, 6]]), false);
            other[0] ^= 0x55;
            let _ = udp.send_to(&other, from).await;
            let _ = udp.send_to(&reply(query, find(query), false), from).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let mut length = [0; 2];
            stream.read_exact(&mut length).await.unwrap();
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut query).await.unwrap();
            let answer = reply(&query, find(&query), true);
            stream.write_all(&(answer.len() as u16).to_be_bytes()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    address
}

fn resolver(hosts: &str, conf: &str, servers: &[SocketAddr]) -> Resolver {
    let dir = tempfile::tempdir().unwrap();
    let (conf_path, hosts_path) = (dir.path().join("resolv.conf"), dir.path().join("hosts"));
    std::fs::write(&conf_path, conf).unwrap();
    std::fs::write(&hosts_path, hosts).unwrap();
    let resolver = Resolver::with_files(&conf_path, &hosts_path);
    resolver.hosts.value();
    resolver.with_servers(servers)
}

const ANY: Families = Families { prefer_v6: true, fallback: true };
const ONLY_V6: Families = Families { prefer_v6: true, fallback: false };
const ONLY_V4: Families = Families { prefer_v6: false, fallback: false };

#[tokio::test]
async fn addresses_and_hosts_need_no_server() {
    let resolver = resolver("192.0.2.7 Web web.example # no\n2001:db8::7 web\n", "", &[]);
    for (host, families, address) in [
        ("10.1.2.3", ONLY_V4, "10.1.2.3"),
        ("WEB", ANY, "2001:db8::7"),
        ("web", ONLY_V4, "192.0.2.7"),
        ("web.example.", ANY, "192.0.2.7"),
        ("localhost", ANY, "::1"),
    ] {
        assert_eq!(resolver.address(host, families).await, Ok(address.parse().unwrap()), "{host}");
    }
    assert_eq!(resolver.address("10.1.2.3", ONLY_V6).await, Err(LookupError::NoAddress(ONLY_V6)));
    assert_eq!(resolver.address("web.example", ONLY_V6).await, Err(LookupError::NoAddress(ONLY_V6)));
}

#[tokio::test]
async fn servers_are_asked_and_their_answers_understood() {
    let servers = [server(&[
        ("good", Says::Addresses(&[[192, 0, 2, 1], [192, 0, 2, 2]])),
        ("long", Says::Truncated(&[[192, 0, 2, 3]])),
        ("empty", Says::Addresses(&[])),
        ("broken", Says::Code(2)),
    ])
    .await];
    let resolver = resolver("", "search in.example\n", &servers);
    assert_eq!(resolver.address("good.example", ANY).await, Ok([192, 0, 2, 1].into()));
    assert_eq!(resolver.address("long", ANY).await, Ok([192, 0, 2, 3].into()));
    assert_eq!(resolver.address("empty", ANY).await, Err(LookupError::NoAddress(ANY)));
    assert_eq!(resolver.address("nothing", ANY).await, Err(LookupError::NotFound));
    let broken = resolver.address("broken", ANY).await.unwrap_err();
    assert!(broken.to_string().contains("SERVFAIL"), "{broken}");
    assert_eq!(broken.failure("broken").reason, Reason::NameServer);
    assert_eq!(resolver.address(&"x".repeat(70), ANY).await, Err(LookupError::BadName));
}

#[tokio::test]
async fn a_silent_server_is_passed_over_for_the_next() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let good = server(&[("good", Says::Addresses(&[[192, 0, 2, 1]]))]).await;
    let both = resolver("", "", &[silent.local_addr().unwrap(), good]);
    assert_eq!(both.address("good.example", ANY).await, Ok([192, 0, 2, 1].into()));
    let alone = resolver("", "", &[silent.local_addr().unwrap()]);
    let error = alone.address("good.example", ANY).await.unwrap_err();
    assert!(error.to_string().contains("does not answer within 200ms"), "{error}");
}

#[test]
fn resolv_conf_is_that_of_the_man_page() {
    let conf = Conf::parse(
        "# c\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver x\nnameserver 192.0.2.54\nnameserver 192.0.2.55\n\
         search a.example b.example.\noptions ndots:2 timeout:1 attempts:3 edns0\n",
    );
    let servers = ["192.0.2.53:53", "[fe80::1]:53", "192.0.2.54:53"];
    assert_eq!(conf.servers, servers.map(|s| s.parse().unwrap()));
    assert_eq!((conf.ndots, conf.attempts, conf.timeout), (2, 3, Duration::from_secs(1)));
    assert_eq!(conf.names("x.y"), ["x.y.a.example", "x.y.b.example", "x.y"]);
    assert_eq!(conf.names("x.y.z"), ["x.y.z", "x.y.z.a.example", "x.y.z.b.example"]);
    assert_eq!(conf.names("x."), ["x"]);
    assert_eq!(Conf::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
}

#[tokio::test]
async fn files_are_read_again_when_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    let mut followed = Followed::new(&path, str::to_owned);
    assert_eq!(*followed.value(), "");
    std::fs::write(&path, "one").unwrap();
    assert_eq!(*followed.value(), "", "not looked at again so soon");
    followed.look_every = Duration::ZERO;
    assert_eq!(*followed.value(), "one");
}
