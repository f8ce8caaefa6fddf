//! grok: named patterns that are put together to one regular expression.
//!
//! The patterns are written for an engine without look-around and back-references, so that a line can't make matching
//! slow; where the well-known ones use either, these match the same texts by other means or a few more.

use super::capture::{BadCapture, Capture};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How deep patterns may name patterns.
const MAX_DEPTH: usize = 32;
/// The longest expression that may come out.
const MAX_BYTES: usize = 64 << 10;

/// Why a text is no grok pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadGrok {
    /// A pattern of that name is neither known nor given.
    #[error("there is no pattern `{0}`")]
    Unknown(String),
    /// Patterns name each other in a circle, or too deeply.
    #[error("the pattern `{0}` names itself, or patterns are nested too deeply")]
    Circle(String),
    /// What comes out is too long.
    #[error("becomes an expression of more than 64 KiB")]
    TooLong,
    /// `%{` without its end, or without a name.
    #[error("has `%{{` without a name and `}}`")]
    Open,
    /// It matches, but would give no field.
    #[error("gives no field: write %{{PATTERN:field}}")]
    NoFields,
    /// The expression does not compile.
    #[error("becomes no regular expression: {0}")]
    Syntax(String),
}

/// Compiles a pattern such as `%{IP:client} %{WORD:method}`, with patterns of one's own.
pub fn compile(pattern: &str, own: &BTreeMap<String, String>) -> Result<Capture, BadGrok> {
    let (mut regex, mut fields) = (String::new(), Vec::new());
    expand(pattern, own, 0, &mut regex, &mut fields)?;
    match Capture::with_names(&regex, &fields) {
        Ok(capture) => Ok(capture),
        Err(BadCapture::NoNames) => Err(BadGrok::NoFields),
        Err(BadCapture::Syntax(why)) => Err(BadGrok::Syntax(why)),
    }
}

fn expand(
    pattern: &str,
    own: &BTreeMap<String, String>,
    depth: usize,
    out: &mut String,
    fields: &mut Vec<String>,
) -> Result<(), BadGrok> {
    let mut rest = pattern;
    while let Some(at) = rest.find("%{") {
        push(out, &rest[..at])?;
        let inner = &rest[at + 2..];
        let end = inner.find('}').ok_or(BadGrok::Open)?;
        // PATTERN:field:type; the type is passed over, for all fields are texts.
        let mut parts = inner[..end].split(':');
        let name = parts.next().unwrap_or_default();
        let field = parts.next().filter(|field| !field.is_empty());
        if name.is_empty() {
            return Err(BadGrok::Open);
        }
        let text = own
            .get(name)
            .map(String::as_str)
            .or_else(|| PATTERNS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text))
            .ok_or_else(|| BadGrok::Unknown(name.to_owned()))?;
        if depth == MAX_DEPTH {
            return Err(BadGrok::Circle(name.to_owned()));
        }
        match field {
            Some(field) => {
                let _ = write!(out, "(?<g{}>", fields.len());
                fields.push(plain_name(field));
            }
            None => push(out, "(?:")?,
        }
        expand(text, own, depth + 1, out, fields)?;
        out.push(')');
        rest = &inner[end + 1..];
    }
    push(out, rest)
}

/// `[http][status]`, as Logstash names nested fields, is `http_status`.
fn plain_name(field: &str) -> String {
    match field.strip_prefix('[').and_then(|field| field.strip_suffix(']')) {
        Some(inner) => inner.replace("][", "_"),
        None => field.to_owned(),
    }
}

fn push(out: &mut String, text: &str) -> Result<(), BadGrok> {
    if out.len() + text.len() > MAX_BYTES {
        return Err(BadGrok::TooLong);
    }
    // Logstash's `(?<name>` stays as it is: the same is written here.
    out.push_str(text);
    Ok(())
}

/// The names of the known patterns.
pub fn names() -> impl Iterator<Item = &'static str> {
    PATTERNS.iter().map(|(name, _)| *name)
}

/// The known patterns.
const PATTERNS: [(&str, &str); 78] = [
    ("USERNAME", r"[a-zA-Z0-9._-]+"),
    ("USER", r"%{USERNAME}"),
    ("EMAILLOCALPART", r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+)*"),
    ("EMAILADDRESS", r"%{EMAILLOCALPART}@%{HOSTNAME}"),
    ("INT", r"[+-]?[0-9]+"),
    ("BASE10NUM", r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"),
    ("NUMBER", r"%{BASE10NUM}"),
    ("BASE16NUM", r"[+-]?(?:0x)?[0-9A-Fa-f]+"),
    ("BASE16FLOAT", r"\b[+-]?(?:0x)?(?:[0-9A-Fa-f]+(?:\.[0-9A-Fa-f]*)?|\.[0-9A-Fa-f]+)\b"),
    ("POSINT", r"\b[1-9][0-9]*\b"),
    ("NONNEGINT", r"\b[0-9]+\b"),
    ("WORD", r"\b\w+\b"),
    ("NOTSPACE", r"\S+"),
    ("SPACE", r"\s*"),
    ("DATA", r".*?"),
    ("GREEDYDATA", r".*"),
    ("QUOTEDSTRING", r#""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`"#),
    ("QS", r"%{QUOTEDSTRING}"),
    ("UUID", r"[A-Fa-f0-9]{8}-(?:[A-Fa-f0-9]{4}-){3}[A-Fa-f0-9]{12}"),
    ("URN", r"urn:[0-9A-Za-z][0-9A-Za-z-]{0,31}:[0-9A-Za-z()+,.:=@;$_!*'/?#%-]+"),
    ("CISCOMAC", r"(?:[A-Fa-f0-9]{4}\.){2}[A-Fa-f0-9]{4}"),
    ("WINDOWSMAC", r"(?:[A-Fa-f0-9]{2}-){5}[A-Fa-f0-9]{2}"),
    ("COMMONMAC", r"(?:[A-Fa-f0-9]{2}:){5}[A-Fa-f0-9]{2}"),
    ("MAC", r"%{CISCOMAC}|%{WINDOWSMAC}|%{COMMONMAC}"),
    ("IPV6", r"(?:[0-9A-Fa-f]{0,4}:){2,7}(?:%{IPV4}|[0-9A-Fa-f]{0,4})(?:%[0-9A-Za-z]+)?"),
    (
        "IPV4",
        r"(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])",
    ),
    ("IP", r"%{IPV6}|%{IPV4}"),
    ("HOSTNAME", r"\b[0-9A-Za-z_][0-9A-Za-z_-]{0,62}(?:\.[0-9A-Za-z_][0-9A-Za-z_-]{0,62})*\.?"),
    ("HOST", r"%{HOSTNAME}"),
    ("IPORHOST", r"%{IP}|%{HOSTNAME}"),
    ("HOSTPORT", r"%{IPORHOST}:%{POSINT}"),
    ("PATH", r"%{UNIXPATH}|%{WINPATH}"),
    ("UNIXPATH", r"(?:/[\w_%!$@:.,+~-]*)+"),
    ("TTY", r"/dev/(?:pts|tty(?:[pq])?)(?:\w+)?/?(?:[0-9]+)"),
    ("WINPATH", r"(?:[A-Za-z]+:|\\)(?:\\[^\\?*]*)+"),
    ("URIPROTO", r"[A-Za-z][A-Za-z0-9+.-]+"),
    ("URIHOST", r"%{IPORHOST}(?::%{POSINT})?"),
    ("URIPATH", r"(?:/[A-Za-z0-9$.+!*'(){},~:;=@#%&_\-]*)+"),
    ("URIQUERY", r"[A-Za-z0-9$.+!*'|(){},~@#%&/=:;_?\-\[\]<>]*"),
    ("URIPARAM", r"\?%{URIQUERY}"),
    ("URIPATHPARAM", r"%{URIPATH}(?:%{URIPARAM})?"),
    ("URI", r"%{URIPROTO}://(?:%{USER}(?::[^@]*)?@)?(?:%{URIHOST})?(?:%{URIPATH}(?:%{URIPARAM})?)?"),
    (
        "MONTH",
        r"\b(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:tember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b",
    ),
    ("MONTHNUM", r"0?[1-9]|1[0-2]"),
    ("MONTHNUM2", r"0[1-9]|1[0-2]"),
    ("MONTHDAY", r"(?:0[1-9])|(?:[12][0-9])|(?:3[01])|[1-9]"),
    (
        "DAY",
        r"\b(?i:mon(?:day)?|tue(?:sday)?|wed(?:nesday)?|thu(?:rsday)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?)\b",
    ),
    ("YEAR", r"(?:\d\d){1,2}"),
    ("HOUR", r"2[0123]|[01]?[0-9]"),
    ("MINUTE", r"[0-5][0-9]"),
    ("SECOND", r"(?:[0-5]?[0-9]|60)(?:[:.,][0-9]+)?"),
    ("TIME", r"%{HOUR}:%{MINUTE}(?::%{SECOND})?"),
    ("DATE_US", r"%{MONTHNUM}[/-]%{MONTHDAY}[/-]%{YEAR}"),
    ("DATE_EU", r"%{MONTHDAY}[./-]%{MONTHNUM}[./-]%{YEAR}"),
    ("ISO8601_TIMEZONE", r"Z|[+-]%{HOUR}(?::?%{MINUTE})"),
    (
        "TIMESTAMP_ISO8601",
        r"%{YEAR}-%{MONTHNUM}-%{MONTHDAY}[T ]%{HOUR}:?%{MINUTE}(?::?%{SECOND})?(?:%{ISO8601_TIMEZONE})?",
    ),
    ("DATE", r"%{DATE_US}|%{DATE_EU}"),
    ("DATESTAMP", r"%{DATE}[- ]%{TIME}"),
    ("TZ", r"[APMCE][SD]T|UTC|CES?T|GMT"),
    ("DATESTAMP_RFC822", r"%{DAY} %{MONTH} %{MONTHDAY} %{YEAR} %{TIME} (?:%{TZ})"),
    ("DATESTAMP_RFC2822", r"%{DAY}, %{MONTHDAY} %{MONTH} %{YEAR} %{TIME} (?:%{ISO8601_TIMEZONE})"),
    ("HTTPDATE", r"%{MONTHDAY}/%{MONTH}/%{YEAR}:%{TIME} %{INT}"),
    ("SYSLOGTIMESTAMP", r"%{MONTH} +%{MONTHDAY} %{TIME}"),
    ("PROG", r"[\x21-\x5a\x5c\x5e-\x7e]+"),
    ("SYSLOGPROG", r"%{PROG:program}(?:\[%{POSINT:pid}\])?"),
    ("SYSLOGHOST", r"%{IPORHOST}"),
    ("SYSLOGFACILITY", r"<%{NONNEGINT:facility}\.%{NONNEGINT:priority}>"),
    (
        "SYSLOGBASE",
        r"%{SYSLOGTIMESTAMP:timestamp} (?:%{SYSLOGFACILITY} )?%{SYSLOGHOST:logsource} %{SYSLOGPROG}:",
    ),
    ("SYSLOGLINE", r"%{SYSLOGBASE} %{GREEDYDATA:message}"),
    ("HTTPDUSER", r"%{EMAILADDRESS}|%{USER}"),
    (
        "COMMONAPACHELOG",
        r#"%{IPORHOST:clientip} %{HTTPDUSER:ident} %{HTTPDUSER:auth} \[%{HTTPDATE:timestamp}\] "(?:%{WORD:verb} %{NOTSPACE:request}(?: HTTP/%{NUMBER:httpversion})?|%{DATA:rawrequest})" %{NUMBER:response} (?:%{NUMBER:bytes}|-)"#,
    ),
    ("COMBINEDAPACHELOG", r"%{COMMONAPACHELOG} %{QS:referrer} %{QS:agent}"),
    (
        "LOGLEVEL",
        r"(?i:alert|trace|debug|notice|info(?:rmation)?|warn(?:ing)?|err(?:or)?|crit(?:ical)?|fatal|severe|emerg(?:ency)?)",
    ),
    ("JAVACLASS", r"(?:[a-zA-Z$_][a-zA-Z$_0-9]*\.)*[a-zA-Z$_][a-zA-Z$_0-9]*"),
    ("JAVAFILE", r"[A-Za-z0-9_. -]+"),
    ("JAVAMETHOD", r"<init>|<clinit>|[a-zA-Z$_][a-zA-Z$_0-9]*"),
    (
        "JAVASTACKTRACEPART",
        r"\s+at %{JAVACLASS:class}\.%{JAVAMETHOD:method}\(%{JAVAFILE:file}(?::%{INT:line})?\)",
    ),
    ("JAVALOGMESSAGE", r".*"),
];

#[cfg(test)]
mod tests {
    use super::super::event::Event;
    use super::*;

    fn fields(pattern: &str, text: &str) -> Option<String> {
        let capture = compile(pattern, &BTreeMap::new()).unwrap_or_else(|bad| panic!("{pattern}: {bad}"));
        let mut event = Event::default();
        if !capture.parse(text, "", &mut capture.locations(), &mut event) {
            return None;
        }
        let said = event.fields.iter().map(|p| format!("{}={}", event.text(p.name), event.text(p.value)));
        Some(said.collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn every_known_pattern_compiles_and_none_is_there_twice() {
        let mut seen = std::collections::HashSet::new();
        for name in names() {
            compile(&format!("%{{{name}:x}}"), &BTreeMap::new())
                .unwrap_or_else(|bad| panic!("{name}: {bad}"));
            assert!(seen.insert(name), "{name}");
        }
    }

    #[test]
    fn lines_and_their_fields() {
        for (pattern, line, expected) in [
            (
                "%{IP:client} %{WORD:method} %{URIPATHPARAM:path} %{NUMBER:bytes:int}",
                "55.3.244.1 GET /i.html?a=1 15824",
                Some("client=55.3.244.1|method=GET|path=/i.html?a=1|bytes=15824"),
            ),
            (
                "%{SYSLOGLINE}",
                "Mar  7 00:00:01 host.a cron[123]: (root) CMD",
                Some("timestamp=Mar  7 00:00:01|logsource=host.a|program=cron|pid=123|message=(root) CMD"),
            ),
            (
                "%{COMBINEDAPACHELOG}",
                r#"::1 - bob [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.0" 200 - "-" "x y""#,
                Some(
                    r#"clientip=::1|ident=-|auth=bob|timestamp=10/Oct/2000:13:55:36 -0700|verb=GET|request=/a|httpversion=1.0|response=200|referrer="-"|agent="x y""#,
                ),
            ),
            (
                "^%{TIMESTAMP_ISO8601:[event][time]} %{LOGLEVEL:level}",
                "2024-01-02T03:04:05.6Z WARN x",
                Some("event_time=2024-01-02T03:04:05.6Z|level=WARN"),
            ),
            ("(?<own>x+) %{INT:n}", "xx -4", Some("own=xx|n=-4")),
            ("^%{INT:n}$", "four", None),
        ] {
            assert_eq!(fields(pattern, line).as_deref(), expected, "{pattern}");
        }
    }

    #[test]
    fn patterns_that_can_not_be_used_say_why() {
        let own = BTreeMap::from([
            ("A".to_owned(), "%{B}".to_owned()),
            ("B".to_owned(), "%{A}".to_owned()),
            ("LOOK".to_owned(), "(?!x)y".to_owned()),
        ]);
        let why = |pattern: &str| compile(pattern, &own).unwrap_err();
        assert_eq!(why("%{NOPE:x}"), BadGrok::Unknown("NOPE".into()));
        assert!(matches!(why("%{A:x}"), BadGrok::Circle(_)));
        assert_eq!(why("%{INT"), BadGrok::Open);
        assert_eq!(why("%{}"), BadGrok::Open);
        assert_eq!(why("%{INT}"), BadGrok::NoFields);
        assert!(matches!(why("%{LOOK:x}"), BadGrok::Syntax(text) if text.contains("look-around")));
    }
}
