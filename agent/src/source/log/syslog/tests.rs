mod received;

use super::fuzzing;
use super::message::{Flaw, Format, Message};
use super::parse::{Context, parse};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

fn ns(text: &str) -> i64 {
    i64::try_from(text.parse::<Timestamp>().unwrap().as_nanosecond()).unwrap()
}

fn context(received: &str) -> Context {
    Context { received_ns: ns(received), zone: TimeZone::UTC, local: false }
}

fn parsed(text: &str) -> Message<'_> {
    parse(text, &context("2026-11-21T15:00:00Z"))
}

#[test]
fn the_examples_of_rfc_5424_are_read() {
    let m = parsed(
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for lonvick",
    );
    assert_eq!((m.format, m.priority.facility(), m.priority.level()), (Format::Rfc5424, "auth", "critical"));
    assert_eq!(m.at_ns, Some(ns("2003-10-11T22:14:15.003Z")));
    assert_eq!((m.host, m.app, m.procid), (Some("mymachine.example.com"), Some("su"), None));
    assert_eq!((m.msgid, m.text, m.flaw), (Some("ID47"), "'su root' failed for lonvick", None));

    let m = parsed("<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time");
    assert_eq!(m.at_ns, Some(ns("2003-08-24T12:14:15.000003Z")));
    assert_eq!((m.procid, m.text), (Some("8710"), "%% It's time"));

    let m = parsed(
        "<165>1 2003-10-11T22:14:15.003Z h evntslog - ID47 [exampleSDID@32473 iut=\"3\" eventSource=\"A \\\"b\\\" \\] \\\\ \\n\"][examplePriority@32473 class=\"high\"][empty] text",
    );
    let data: Vec<(&str, &str)> = m.data.iter().map(|(n, v)| (n.as_str(), &**v)).collect();
    assert_eq!(
        data,
        [
            ("exampleSDID@32473.iut", "3"),
            ("exampleSDID@32473.eventSource", "A \"b\" ] \\ \\n"),
            ("examplePriority@32473.class", "high"),
            ("empty", ""),
        ]
    );
    assert_eq!((m.text, m.flaw), ("text", None));
    assert_eq!(parsed("<13>1 - - - - - -").text, "");
}

#[test]
fn the_examples_of_rfc_3164_are_read() {
    let m = parsed("<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8");
    assert_eq!((m.host, m.app, m.procid), (Some("mymachine"), Some("su"), None));
    assert_eq!(m.at_ns, Some(ns("2026-10-11T22:14:15Z")));
    assert_eq!((m.text, m.flaw), ("'su root' failed for lonvick on /dev/pts/8", None));

    let m = parsed("Use the BFG!");
    assert_eq!((m.priority.number(), m.text, m.flaw), (13, "Use the BFG!", Some(Flaw::NoPriority)));

    let m = parsed("<13>Feb  5 17:32:18 10.0.0.99 sshd[4711]: Accepted: yes\n");
    assert_eq!((m.host, m.app, m.procid), (Some("10.0.0.99"), Some("sshd"), Some("4711")));
    assert_eq!(m.text, "Accepted: yes");

    let m = parsed("<189>2026-11-21T14:59:00.5+01:00 router %LINK-3-UPDOWN: down");
    assert_eq!((m.host, m.app, m.text), (Some("router"), None, "%LINK-3-UPDOWN: down"));
    assert_eq!(m.at_ns, Some(ns("2026-11-21T13:59:00.5Z")));

    let local = Context { local: true, ..context("2026-11-21T15:00:00Z") };
    let m = parse("<30>Nov 21 14:59:59 cron[7]: (root) CMD (x)\0", &local);
    assert_eq!((m.host, m.app, m.procid, m.text), (None, Some("cron"), Some("7"), "(root) CMD (x)"));
}

#[test]
fn a_time_without_a_year_is_of_the_year_that_brings_it_closest() {
    let at = |text, received| parse(text, &context(received)).at_ns;
    assert_eq!(at("<13>Dec 31 23:59:59 h a: x", "2027-01-01T00:00:05Z"), Some(ns("2026-12-31T23:59:59Z")));
    assert_eq!(at("<13>Jan  1 00:00:03 h a: x", "2026-12-31T23:59:58Z"), Some(ns("2027-01-01T00:00:03Z")));
    assert_eq!(at("<13>Feb 29 00:00:03 h a: x", "2027-03-01T00:00:00Z"), None);
    assert_eq!(
        at("<13>Mar  2 2025 01:02:03.25: x", "2026-12-31T23:59:58Z"),
        Some(ns("2025-03-02T01:02:03.25Z"))
    );
    let berlin = TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::fixed(jiff::tz::offset(1)));
    let context = Context { zone: berlin, ..context("2026-11-21T15:00:00Z") };
    assert_eq!(parse("<13>Nov 21 15:59:59 h a: x", &context).at_ns, Some(ns("2026-11-21T14:59:59Z")));
}

#[test]
fn what_is_not_well_formed_is_kept_and_says_so() {
    for (text, flaw, kept) in [
        ("<192>x", Flaw::NoPriority, "<192>x"),
        ("<>x", Flaw::NoPriority, "<>x"),
        ("<13>1 2026-11-21T15:00:00Z h a", Flaw::BadHeader, "2026-11-21T15:00:00Z h a"),
        ("<13>1 yesterday h a p m - text", Flaw::BadTime, "text"),
        ("<13>1 - h a p m [x y=\"1\" text", Flaw::BadStructuredData, "[x y=\"1\" text"),
        ("<13>1 - h a p m [x y=\"1\"]text", Flaw::BadStructuredData, "[x y=\"1\"]text"),
        ("<13>Foo 12 text", Flaw::BadTime, "Foo 12 text"),
    ] {
        let m = parsed(text);
        assert_eq!((m.flaw, m.text), (Some(flaw), kept), "{text}");
    }
}

#[test]
fn streams_are_cut_by_counts_and_by_lines() {
    use super::framing::{Frame, Framer};
    let mut framer = Framer::new(10);
    framer.push(b"5 <1>ab<2>line\r\n\n19 <1>4567890123456789<3>\n2026 is a year\n12345678 <1>\n");
    let all: Vec<Frame> = std::iter::from_fn(|| framer.next_frame()).collect();
    let said: Vec<(&str, bool)> =
        all.iter().map(|f| (std::str::from_utf8(&f.bytes).unwrap(), f.cut)).collect();
    assert_eq!(
        said,
        [
            ("<1>ab", false),
            ("<2>line", false),
            ("<1>4567890", true),
            ("<3>", false),
            ("2026 is a ", true),
            ("12345678 <", true)
        ]
    );
    framer.push(b"30 <1>half");
    assert_eq!(framer.next_frame(), None);
    assert_eq!(framer.end(), Some(Frame { bytes: b"<1>half".to_vec(), cut: true }));
}

proptest! {
    #[test]
    fn no_message_panics(text in "(<[0-9]{0,4}>)?(1 )?[-0-9TZ:. a-zA-Z\\[\\]\"=\\\\@é]{0,80}") {
        fuzzing::syslog_message(text.as_bytes());
    }

    #[test]
    fn pieces_do_not_matter(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'<'), Just(b' '), b'0'..=b'9', any::<u8>()], 0..200)) {
        fuzzing::syslog_stream(&bytes);
    }
}
