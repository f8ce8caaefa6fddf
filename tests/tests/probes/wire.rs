//! Checks over TCP, DNS and ICMP beside blackbox_exporter.

use crate::beside::{Case, Difference, compare};
use crate::servers::{Pki, Says, Zone, name_server, serve, serve_tls};
use pegel_tests::free_port;

const KEPT: &str =
    "a certificate that is refused is shown all the same: alerts on its expiry must not fall silent";

const CIPHER: &str = "blackbox_exporter shows the cipher of http checks only";

const STEADY: &str = "they are there in every run, so that series do not come and go with the server";

const SHOWN: &str = "blackbox_exporter shows no certificate of a name server";

const NAMES: [&str; 5] = [
    "probe_ssl_earliest_cert_expiry",
    "probe_ssl_last_chain_info",
    "probe_ssl_last_chain_expiry_timestamp_seconds",
    "probe_tls_cipher_info",
    "probe_tls_version_info",
];

const TTL: &str = "the hop limit is shown where a raw IPv4 socket is used: other sockets show it by calls that are unsafe in Rust";

fn case(
    kind: &'static str,
    name: &'static str,
    settings: &str,
    target: impl ToString,
    success: bool,
) -> Case {
    Case { name, kind, settings: settings.to_owned(), target: target.to_string(), success }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversations_over_tcp() {
    let pki = Pki::new();
    let banner = serve(Says::Talk(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec(), vec![])).await;
    let irc = serve(Says::Talk(
        b":server NOTICE\nPING :xyzzy\n".to_vec(),
        vec![("PONG xyzzy", b":server 001 welcome\n".to_vec())],
    ))
    .await;
    let smtp = Says::TalkThenTls(
        b"220 mail ESMTP\r\n".to_vec(),
        vec![
            ("EHLO prober", b"250-mail\r\n250 STARTTLS\r\n".to_vec()),
            ("STARTTLS", b"220 go ahead\r\n".to_vec()),
        ],
        pki.server(&["127.0.0.1"], -1, 90),
    );
    let smtp = serve(smtp).await;
    let tls = serve_tls(Says::Talk(b"+OK\r\n".to_vec(), vec![]), pki.server(&["127.0.0.1"], -1, 90)).await;
    let silent = serve(Says::Nothing).await;
    let ca = format!("tls_config: {{ca_file: {}}}", pki.ca_file().display());
    let refused = free_port();
    let tcp = |name, settings: &str, target: String, success| case("tcp", name, settings, target, success);
    let starttls = format!(
        "{{{ca}, query_response: [{{expect: '^220'}}, {{send: 'EHLO prober'}}, {{expect: '^250[ -]STARTTLS'}}, \
         {{send: STARTTLS}}, {{expect: '^220'}}, {{starttls: true}}]}}"
    );
    let cases = [
        tcp("open", "{}", banner.to_string(), true),
        tcp("refused", "{}", format!("127.0.0.1:{refused}"), false),
        tcp(
            "banner",
            "{query_response: [{expect: '^SSH-2.0-([^ -]+)', labels: [{name: version, value: '${1}'}]}]}",
            banner.to_string(),
            true,
        ),
        tcp("wrong_banner", "{query_response: [{expect: '^HTTP'}]}", banner.to_string(), false),
        tcp(
            "ping_pong",
            "{query_response: [{expect: 'PING :([^ ]+)', send: 'PONG ${1}'}, {expect: ' 001'}]}",
            irc.to_string(),
            true,
        ),
        tcp("bytes", "{query_response: [{expect_bytes: 'SSH-'}]}", banner.to_string(), true),
        tcp("wrong_bytes", "{query_response: [{expect_bytes: 'FTP-'}]}", banner.to_string(), false),
        tcp("silent", "{query_response: [{expect: x}]}", silent.to_string(), false),
        tcp(
            "over_tls",
            &format!("{{tls: true, {ca}, query_response: [{{expect: OK}}]}}"),
            tls.to_string(),
            true,
        ),
        tcp("untrusted", "{tls: true}", tls.to_string(), false),
        tcp("starttls", &starttls, smtp.to_string(), true),
    ];
    let differences: &[Difference] = &[
        ("refused", "probe_failed_due_to_bytes", STEADY),
        ("refused", "probe_failed_due_to_regex", STEADY),
        ("untrusted", "probe_failed_due_to_bytes", STEADY),
        ("untrusted", "probe_failed_due_to_regex", STEADY),
        ("untrusted", "probe_ssl_earliest_cert_expiry", KEPT),
        ("untrusted", "probe_ssl_last_chain_info", KEPT),
        ("over_tls", "probe_tls_cipher_info", CIPHER),
        ("starttls", "probe_tls_cipher_info", CIPHER),
    ];
    compare(&cases, differences).await;
}

const ZONES: &[(&str, Zone)] = &[
    ("good", Zone::Addresses(2)),
    ("zone", Zone::Soa(2_026_112_101)),
    ("fails", Zone::Code(2)),
    ("refuses", Zone::Code(5)),
    ("long", Zone::Truncated(3)),
    ("silent", Zone::Silent),
    ("garbage", Zone::Garbage),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_to_name_servers() {
    let pki = Pki::new();
    let server = name_server(ZONES, None).await;
    let over_tls = name_server(ZONES, Some(pki.server(&["127.0.0.1"], -1, 90))).await;
    let dns = |name, settings: &str, success| {
        case("dns", name, &format!("{{query_type: A, {settings}}}"), server, success)
    };
    let tls = |name, settings: &str, success| {
        let settings = format!(
            "{{query_type: A, query_name: good.example, transport_protocol: tcp, dns_over_tls: true, {settings}}}"
        );
        case("dns", name, &settings, over_tls, success)
    };
    let ca = format!("tls_config: {{ca_file: {}}}", pki.ca_file().display());
    let cases = [
        dns("answered", "query_name: good.example", true),
        dns("over_tcp", "query_name: good.example, transport_protocol: tcp", true),
        dns("nxdomain", "query_name: missing.example", false),
        dns("nxdomain_is_valid", "query_name: missing.example, valid_rcodes: [NXDOMAIN]", true),
        dns("servfail", "query_name: fails.example", false),
        dns("refused_is_valid", "query_name: refuses.example, valid_rcodes: [NOERROR, REFUSED]", true),
        dns("truncated", "query_name: long.example", true),
        dns(
            "truncated_without_record",
            "query_name: long.example, validate_answer_rrs: {fail_if_not_matches_regexp: ['192']}",
            false,
        ),
        dns("not_truncated_over_tcp", "query_name: long.example, transport_protocol: tcp", true),
        dns("silent_server", "query_name: silent.example", false),
        dns("garbled", "query_name: garbage.example", false),
        dns(
            "records_match",
            r"query_name: good.example, validate_answer_rrs: {fail_if_not_matches_regexp: ['good\.example\.\t60\tIN\tA\t192\.0\.2\.[12]$']}",
            true,
        ),
        dns(
            "record_forbidden",
            r"query_name: good.example, validate_answer_rrs: {fail_if_matches_regexp: ['\.2$']}",
            false,
        ),
        dns(
            "not_all_match",
            r"query_name: good.example, validate_answer_rrs: {fail_if_all_match_regexp: ['\.2$']}",
            false,
        ),
        dns(
            "none_matches",
            "query_name: good.example, validate_answer_rrs: {fail_if_none_matches_regexp: ['10.0']}",
            false,
        ),
        dns(
            "authority_is_empty",
            "query_name: good.example, validate_authority_rrs: {fail_if_not_matches_regexp: [x]}",
            false,
        ),
        case("dns", "soa", "{query_type: SOA, query_name: zone.example}", server, true),
        tls("over_tls", &ca, true),
        tls("over_untrusted_tls", "recursion_desired: false", false),
    ];
    let mut differences: Vec<Difference> = NAMES.iter().map(|name| ("over_tls", *name, SHOWN)).collect();
    differences.extend(NAMES[..2].iter().map(|name| ("over_untrusted_tls", *name, SHOWN)));
    compare(&cases, &differences).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echoes() {
    let icmp = |name, settings: &str, target: &str, success| case("icmp", name, settings, target, success);
    let cases = [
        icmp("loopback", "{preferred_ip_protocol: ip4}", "127.0.0.1", true),
        icmp("by_name", "{preferred_ip_protocol: ip4}", "localhost", true),
        icmp("six", "{}", "::1", true),
        icmp("large", "{payload_size: 1400, ttl: 5}", "127.0.0.1", true),
        icmp("whole", "{dont_fragment: true}", "127.0.0.1", true),
        icmp("no_name", "{}", "no-such-host.invalid", false),
    ];
    compare(&cases, &[("six", "probe_icmp_reply_hop_limit", TTL)]).await;
}
