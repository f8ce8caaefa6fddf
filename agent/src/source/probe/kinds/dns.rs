//! Checks of name servers: one question, over UDP, TCP or TLS, and what must be answered.

use super::assertion::Pattern;
use crate::source::probe::net::dns::{self, Message, Question, Record};
use crate::source::probe::net::resolve::{Families, exchange_framed};
use crate::source::probe::net::{self, host, tls};
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::record::Gauge;
use crate::source::probe::run::{Probe, Run, Running, Stopwatch};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

static DURATION: Gauge =
    Gauge::new("probe_dns_duration_seconds", "How long the phases of the query took.", &["phase"]);
static ANSWERS: Gauge = Gauge::new("probe_dns_answer_rrs", "Records in the answer section.", &[]);
static AUTHORITIES: Gauge = Gauge::new("probe_dns_authority_rrs", "Records in the authority section.", &[]);
static ADDITIONALS: Gauge = Gauge::new("probe_dns_additional_rrs", "Records in the additional section.", &[]);
static SUCCEEDED: Gauge =
    Gauge::new("probe_dns_query_succeeded", "Whether the query was answered, with whatever code.", &[]);
static SERIAL: Gauge = Gauge::new("probe_dns_serial", "The serial number of the zone.", &[]);
static RCODE: Gauge = Gauge::new("pegel_probe_dns_rcode", "The code of the answer.", &[]);
static TRUNCATED: Gauge =
    Gauge::new("pegel_probe_dns_truncated", "Whether records were left out for want of space.", &[]);

/// The largest datagram, in bytes.
const UDP_BUFFER_BYTES: usize = 65_535;

/// How the question is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// UDP.
    #[default]
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP (RFC 7858).
    Tls,
}

impl Transport {
    fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 53,
            Self::Tls => 853,
        }
    }
}

/// What records of a section must be, each as the line that a zone file would have of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Validation {
    /// A record that one of these matches is a failure.
    pub fail_if_matches: Vec<Pattern>,
    /// A record that does not match all of these is a failure: the name says the opposite, but this is what
    /// blackbox_exporter does, and checks that were written for it are to have the same verdicts.
    pub fail_if_all_match: Vec<Pattern>,
    /// A record that one of these does not match is a failure, and so is none at all.
    pub fail_if_not_matches: Vec<Pattern>,
    /// Records of which none matches any of these are a failure.
    pub fail_if_none_matches: Vec<Pattern>,
}

impl Validation {
    /// Says why records are not what they must be.
    pub fn check(&self, records: &[String]) -> Result<(), String> {
        let Self { fail_if_matches, fail_if_all_match, fail_if_not_matches, fail_if_none_matches } = self;
        if records.is_empty() && !(fail_if_not_matches.is_empty() && fail_if_none_matches.is_empty()) {
            return Err("there is no record that could match".to_owned());
        }
        for record in records {
            if let Some(pattern) = fail_if_matches.iter().find(|p| p.matches(record)) {
                return Err(format!("`{record}` matches `{}`", pattern.text()));
            }
            if let Some(pattern) = fail_if_not_matches.iter().find(|p| !p.matches(record)) {
                return Err(format!("`{record}` does not match `{}`", pattern.text()));
            }
        }
        let every = |record: &String| fail_if_all_match.iter().all(|p| p.matches(record));
        if !records.iter().all(every) {
            return Err("not all records match".to_owned());
        }
        let any = |record: &String| fail_if_none_matches.iter().any(|p| p.matches(record));
        if !fail_if_none_matches.is_empty() && !records.iter().any(any) {
            return Err("none of the records matches".to_owned());
        }
        Ok(())
    }
}

/// What is asked and what must be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The question.
    pub question: Question,
    /// How it is carried.
    pub transport: Transport,
    /// Whether the server is asked to ask others.
    pub recursion_desired: bool,
    /// Which addresses are used.
    pub families: Families,
    /// The address of this machine that is asked from.
    pub source_address: Option<IpAddr>,
    /// Codes that are fine; empty means `NOERROR`.
    pub valid_rcodes: Vec<u16>,
    /// What the answer section must be.
    pub answers: Validation,
    /// What the authority section must be.
    pub authorities: Validation,
    /// What the additional section must be.
    pub additionals: Validation,
    /// How TLS is done.
    pub tls: tls::Settings,
}

/// Says why an address is no target.
pub fn check_address(address: &str) -> Result<(), String> {
    host::split(address, Some(53)).map(|_| ())
}

/// The probe.
#[derive(Debug)]
pub struct DnsProbe {
    settings: Settings,
    tls: tls::Client,
}

impl DnsProbe {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        Self { tls: tls::Client::new(settings.tls.clone(), &[]), settings }
    }

    async fn probe(&self, run: &mut Run) -> Result<(), Failure> {
        let settings = &self.settings;
        net::declare_address(run);
        for gauge in [&ANSWERS, &AUTHORITIES, &ADDITIONALS, &SUCCEEDED, &TRUNCATED] {
            run.record.set(gauge, 0.0);
        }
        let mut watch = Stopwatch::start(&mut run.record, &DURATION, &["resolve", "connect", "request"]);
        let bad = |e: String| Failure::new(Phase::Setup, Reason::Configuration, e);
        let address = run.target.address.clone();
        let (host, port) = host::split(&address, Some(settings.transport.default_port())).map_err(bad)?;
        let id = rand::random();
        let query =
            dns::query(id, &settings.question, settings.recursion_desired).map_err(|e| bad(e.to_string()))?;
        watch.skip();
        let ip = net::resolve(run, host, settings.families).await?;
        watch.lap(&mut run.record, "resolve");
        let server = SocketAddr::new(ip, port);
        // Within, so that the time that a silent server took is reported as well.
        let asked = timeout_at(run.deadline, self.ask(run, &mut watch, server, host, &query)).await;
        watch.lap(&mut run.record, "request");
        let message = asked.map_err(|_| Failure::timeout(run.phase(), run.target.check.timeout))??;
        if !message.answers_to(id, &settings.question) {
            return Err(Failure::new(
                Phase::Processing,
                Reason::Protocol,
                "the answer is to another question",
            ));
        }
        report(run, &message, settings.question.qtype == dns::SOA);
        self.judge(run, &message)
    }

    /// Sends the query and waits for its answer.
    async fn ask(
        &self,
        run: &mut Run,
        watch: &mut Stopwatch,
        server: SocketAddr,
        host: &str,
        query: &[u8],
    ) -> Result<Message, Failure> {
        if self.settings.transport == Transport::Udp {
            return self.over_udp(run, watch, server, query).await;
        }
        let mut stream = net::connect(run, server, self.settings.source_address).await?;
        if self.settings.transport == Transport::Tcp {
            watch.lap(&mut run.record, "connect");
            return framed(run, &mut stream, query).await;
        }
        let mut stream = self.tls.connect(run, stream, host).await?;
        watch.lap(&mut run.record, "connect");
        framed(run, &mut stream, query).await
    }

    async fn over_udp(
        &self,
        run: &mut Run,
        watch: &mut Stopwatch,
        server: SocketAddr,
        query: &[u8],
    ) -> Result<Message, Failure> {
        run.enter(Phase::Connect);
        let any: IpAddr =
            if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let from = SocketAddr::new(self.settings.source_address.unwrap_or(any), 0);
        let open = async {
            let socket = UdpSocket::bind(from).await?;
            socket.connect(server).await?;
            Ok(socket)
        };
        let socket = open
            .await
            .map_err(|e: std::io::Error| run.io_failure(format_args!("cannot ask {server}"), &e))?;
        watch.lap(&mut run.record, "connect");
        run.enter(Phase::Processing);
        let mut buffer = vec![0; UDP_BUFFER_BYTES];
        socket.send(query).await.map_err(|e| run.io_failure("cannot send the query", &e))?;
        loop {
            let length = socket.recv(&mut buffer).await.map_err(|e| run.io_failure("no answer", &e))?;
            // What does not have the query's number may come from anybody: it is passed over.
            if length < 2 || buffer[..2] != query[..2] {
                continue;
            }
            buffer.truncate(length);
            return Message::parse(buffer).map_err(malformed);
        }
    }

    fn judge(&self, run: &mut Run, message: &Message) -> Result<(), Failure> {
        run.enter(Phase::Assertion);
        let rcode = message.rcode();
        let valid = &self.settings.valid_rcodes;
        if !(valid.contains(&rcode) || (valid.is_empty() && rcode == 0)) {
            let name = dns::name_of(dns::RCODES, rcode).map_or_else(|| rcode.to_string(), str::to_owned);
            return Err(Failure::assertion(Reason::Rcode, format!("the answer's code is {name}")));
        }
        let Settings { answers, authorities, additionals, .. } = &self.settings;
        for (section, records, validation) in [
            ("answer", &message.answers, answers),
            ("authority", &message.authorities, authorities),
            ("additional", &message.additionals, additionals),
        ] {
            if *validation == Validation::default() {
                continue;
            }
            let texts: Vec<String> = records.iter().map(|record: &Record| message.text(record)).collect();
            if let Err(words) = validation.check(&texts) {
                let cut = if message.truncated() { " (the answer was truncated)" } else { "" };
                let reason = if message.truncated() { Reason::Truncated } else { Reason::Records };
                return Err(Failure::assertion(reason, format!("{section} section: {words}{cut}")));
            }
        }
        Ok(())
    }
}

fn malformed(error: dns::BadMessage) -> Failure {
    Failure::new(Phase::Processing, Reason::Protocol, error.to_string())
}

async fn framed<S>(run: &mut Run, stream: &mut S, query: &[u8]) -> Result<Message, Failure>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    run.enter(Phase::Processing);
    let answer = exchange_framed(stream, query).await.map_err(|e| run.io_failure("no answer", &e))?;
    Message::parse(answer).map_err(malformed)
}

fn report(run: &mut Run, message: &Message, is_soa: bool) {
    let record = &mut run.record;
    record.set(&ANSWERS, message.answers.len() as f64);
    record.set(&AUTHORITIES, message.authorities.len() as f64);
    record.set(&ADDITIONALS, message.additionals.len() as f64);
    record.set(&SUCCEEDED, 1.0);
    record.set(&TRUNCATED, f64::from(u8::from(message.truncated())));
    record.set(&RCODE, f64::from(message.rcode()));
    if is_soa {
        let serial = message.answers.iter().rev().find_map(|answer| message.serial(answer));
        record.set(&SERIAL, f64::from(serial.unwrap_or_default()));
    }
}

impl Probe for DnsProbe {
    fn attempt<'a>(&'a self, run: &'a mut Run) -> Running<'a> {
        Box::pin(self.probe(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(records: &[&str], change: impl FnOnce(&mut Validation)) -> Result<(), String> {
        let mut validation = Validation::default();
        change(&mut validation);
        validation.check(&records.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>())
    }

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::new(text).unwrap()).collect()
    }

    // The rules of blackbox_exporter's `DNSRRValidator`.
    #[test]
    fn sections_are_held_against_their_rules() {
        let two = ["a.\t1\tIN\tA\t192.0.2.1", "a.\t1\tIN\tA\t192.0.2.2"];
        assert!(says(&two, |v| v.fail_if_matches = patterns(&["\\.3$"])).is_ok());
        assert!(says(&two, |v| v.fail_if_matches = patterns(&["\\.3$", "\\.2$"])).is_err());
        assert!(says(&two, |v| v.fail_if_not_matches = patterns(&["IN\tA"])).is_ok());
        assert!(says(&two, |v| v.fail_if_not_matches = patterns(&["\\.1$"])).is_err());
        assert!(says(&two, |v| v.fail_if_none_matches = patterns(&["\\.1$", "x"])).is_ok());
        assert!(says(&two, |v| v.fail_if_none_matches = patterns(&["x"])).is_err());
        assert!(says(&two, |v| v.fail_if_all_match = patterns(&["192"])).is_ok());
        assert!(says(&two, |v| v.fail_if_all_match = patterns(&["\\.1$"])).is_err());
        assert!(says(&[], |v| v.fail_if_not_matches = patterns(&["x"])).is_err());
        assert!(says(&[], |v| v.fail_if_none_matches = patterns(&["x"])).is_err());
        assert!(says(&[], |v| v.fail_if_matches = patterns(&["x"])).is_ok());
    }
}
