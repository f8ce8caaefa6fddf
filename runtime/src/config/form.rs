//! Values that are written as text: durations, sizes, addresses. Each is one table row and one type.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// One form of text.
#[derive(Debug)]
pub struct Form {
    /// Its name in the schema's `format`.
    pub name: &'static str,
    /// What to write, in words.
    pub words: &'static str,
    /// Says why a text is not of this form.
    pub check: fn(&str) -> Result<(), String>,
}

/// The form of a name.
pub fn by_name(name: &str) -> Option<&'static Form> {
    FORMS.iter().find(|form| form.name == name)
}

/// All forms.
pub static FORMS: [Form; 8] = [
    Period::FORM,
    ByteSize::FORM,
    Listen::FORM,
    HostPort::FORM,
    AggregatorAddress::FORM,
    HttpUrl::FORM,
    FilePath::FORM,
    Level::FORM,
];

macro_rules! form {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal, $words:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(pub $inner);

        impl $name {
            const FORM: Form = Form {
                name: $format,
                words: $words,
                check: |text| Self::parse(text).map(|_| ()),
            };
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "format": $format })
            }
        }
    };
}

form! {
    /// A length of time: `250ms`, `15s`, `1h30m`, `7d`.
    Period(Duration), "duration", "a duration such as `15s`, `500ms` or `1h30m`"
}
form! {
    /// A number of bytes: `64KiB`, `8MiB`, `1GB`.
    ByteSize(u64), "size", "a size such as `64KiB`, `8MiB` or `2GiB`"
}
form! {
    /// An address to listen on.
    Listen(SocketAddr), "listen-address", "an IP address and a port such as `127.0.0.1:9464` or `[::]:4433`"
}
form! {
    /// A host, by name or address, and a port.
    HostPort(String), "host-port", "a host and a port such as `web-1.example:9100` or `[2001:db8::1]:9100`"
}
form! {
    /// An aggregator: a host, by name or address, and a port unless it is the usual one.
    AggregatorAddress(String), "aggregator-address", "a host such as `aggregator.example`, `aggregator.example:4433` or `[2001:db8::1]:4433`"
}
form! {
    /// A URL of http or https.
    HttpUrl(String), "http-url", "a URL such as `https://prometheus.example/api/v1/write`"
}
form! {
    /// A file or directory.
    FilePath(PathBuf), "path", "a path"
}
form! {
    /// What is logged: a level, or levels by module.
    Level(String), "log-level", "`error`, `warn`, `info`, `debug` or `trace`, or for parts `info,pegel_agent::uplink=debug`"
}

const UNITS_MS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Period {
    /// Seconds, for defaults.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Milliseconds, for defaults.
    pub const fn milliseconds(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    /// Reads a duration; units in descending order, as Prometheus writes them.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let mut total: u64 = 0;
        let mut smallest = u64::MAX;
        let mut rest = text;
        if rest.is_empty() {
            return Err("is empty".to_owned());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
            let (number, unit) = (&rest[..digits], &rest[digits..digits + letters]);
            if digits == 0 {
                return Err("is not a duration".to_owned());
            }
            if letters == 0 && digits == rest.len() {
                return Err("has no unit".to_owned());
            }
            let (_, ms) = UNITS_MS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(|| "is not a duration (units are ms, s, m, h and d)".to_owned())?;
            if *ms >= smallest {
                return Err("does not have its units in descending order".to_owned());
            }
            smallest = *ms;
            total = number
                .parse::<u64>()
                .ok()
                .and_then(|n| n.checked_mul(*ms))
                .and_then(|n| n.checked_add(total))
                .filter(|total| *total <= 100 * 366 * 86_400_000)
                .ok_or_else(|| "is longer than a hundred years".to_owned())?;
            rest = &rest[digits + letters..];
        }
        Ok(Self(Duration::from_millis(total)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis() as u64;
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, ms) in UNITS_MS.iter().rev() {
            if rest >= *ms {
                write!(f, "{}{unit}", rest / ms)?;
                rest %= ms;
            }
        }
        Ok(())
    }
}

const UNITS_BYTES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// Reads a size.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let (number, unit) = (&text[..digits], text[digits..].trim_start());
        if digits == 0 {
            return Err("is not a size".to_owned());
        }
        if unit.is_empty() && number == "0" {
            return Ok(Self(0));
        }
        if unit.is_empty() {
            return Err("has no unit".to_owned());
        }
        let (_, factor) = UNITS_BYTES
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| "is not a size (units are B, KiB, MiB, GiB, TiB, kB, MB, GB and TB)".to_owned())?;
        let too_large = || "is too large".to_owned();
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(*factor).filter(|n| *n <= 1 << 60).map(Self).ok_or_else(too_large);
        }
        let parts: f64 = number.parse().map_err(|_| "is not a size".to_owned())?;
        let bytes = (parts * *factor as f64).round();
        if bytes > (1_u64 << 60) as f64 { Err(too_large()) } else { Ok(Self(bytes as u64)) }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS_BYTES
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl Listen {
    /// Reads an address with a port.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| "is not an IP address and a port".to_owned())
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl HostPort {
    /// Checks a host and a port.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err("is a URL".to_owned());
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| "has no port".to_owned())?;
        if port.parse::<u16>().is_ok_and(|port| port > 0) {
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
            let ok = match bare {
                Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
                None => {
                    !host.is_empty()
                        && host.len() <= 253
                        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
                }
            };
            if ok { Ok(Self(text.to_owned())) } else { Err("does not have a valid host".to_owned()) }
        } else {
            Err("does not have a port between 1 and 65535".to_owned())
        }
    }

    /// The host, without brackets.
    pub fn host(&self) -> &str {
        let host = self.0.rsplit_once(':').map_or("", |(host, _)| host);
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AggregatorAddress {
    /// Checks a host, with or without a port.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = text.parse::<std::net::Ipv6Addr>().is_ok();
        let without_port = bare || !text.contains(':') || text.ends_with(']');
        match HostPort::parse(&match (bare, without_port) {
            (true, _) => format!("[{text}]:1"),
            (false, true) => format!("{text}:1"),
            (false, false) => text.to_owned(),
        }) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(reason) => Err(reason),
        }
    }
}

impl fmt::Display for AggregatorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HttpUrl {
    /// Checks a URL. User and password in it are refused: they would show wherever the URL is shown.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: http::Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err("does not begin with http:// or https://".to_owned());
        }
        match uri.authority() {
            Some(authority) if authority.as_str().contains('@') => {
                Err("holds a user name; use the keys for authentication".to_owned())
            }
            Some(authority) if !authority.host().is_empty() => Ok(Self(text.to_owned())),
            _ => Err("has no host".to_owned()),
        }
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FilePath {
    /// Checks a path.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("is empty".to_owned()),
            text if text.contains('\0') => Err("holds a zero byte".to_owned()),
            text => Ok(Self(text.into())),
        }
    }
}

impl From<&str> for FilePath {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Level {
    /// Checks a level or a list of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        for part in text.split(',') {
            let (target, level) = part.rsplit_once('=').unwrap_or(("every", part));
            let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&level.trim());
            let is_path = !target.is_empty()
                && target.trim().bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'));
            if !known || !is_path {
                return Err("is not a log level".to_owned());
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl Default for Level {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in
            [("15s", 15_000), ("500ms", 500), ("1h30m", 5_400_000), ("7d", 604_800_000), ("0", 0), ("0s", 0)]
        {
            let period = Period::parse(text).unwrap();
            assert_eq!(period.0.as_millis(), ms, "{text}");
            assert_eq!(Period::parse(&period.to_string()), Ok(period), "{text}");
        }
        for (text, reason) in [
            ("15", "no unit"),
            ("", "empty"),
            ("s", "not a duration"),
            ("15 s", "not a duration"),
            ("1s1h", "descending"),
            ("-5s", "not a duration"),
            ("99999999999999999999d", "hundred years"),
            ("15sec", "units are"),
        ] {
            let error = Period::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("8MiB", 8 << 20), ("1.5 GiB", 3 << 29), ("64kB", 64_000), ("0", 0), ("7B", 7)]
        {
            let size = ByteSize::parse(text).unwrap();
            assert_eq!(size.0, bytes, "{text}");
            assert_eq!(ByteSize::parse(&size.to_string()), Ok(size), "{text}");
        }
        for (text, reason) in [
            ("8", "no unit"),
            ("8M", "units are"),
            ("MiB", "not a size"),
            ("9999999TiB", "too large"),
            ("1.2.3MiB", "not a size"),
        ] {
            let error = ByteSize::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn levels() {
        for good in ["info", "off", "warn,pegel_agent::uplink=debug", "a=trace, info"] {
            assert!(Level::parse(good).is_ok(), "{good}");
            assert!(good.parse::<tracing_subscriber::filter::Targets>().is_ok(), "{good}");
        }
        for bad in ["", "loud", "info,", "a=loud", "=info", "a b=info", "[span]=info"] {
            assert!(Level::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_and_urls() {
        for good in ["a:1", "[::1]:4433", "10.0.0.1:4433"] {
            assert!(HostPort::parse(good).is_ok(), "{good}");
        }
        for bad in ["a", "a:0", "a:x", ":4433", "::1:4433", "a b:1"] {
            assert!(HostPort::parse(bad).is_err(), "{bad}");
        }
        for good in ["a", "a:1", "::1", "[::1]", "[::1]:4433", "10.0.0.1"] {
            assert!(AggregatorAddress::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a:", "a:0", "a b", "https://a", "[::g]", ":4433"] {
            assert!(AggregatorAddress::parse(bad).is_err(), "{bad}");
        }
        assert!(HttpUrl::parse("http://[::1]:9090/x?y=z").is_ok());
        for bad in ["ftp://a", "a/b", "http://", "http://u:p@h/"] {
            assert!(HttpUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
