//! Fields by regular expression: named groups, and the formats of web servers.

use super::event::Event;
use regex::{CaptureLocations, Regex, RegexBuilder};

/// The most memory that an expression may take, in bytes: what grok makes of a long line of patterns fits.
const REGEX_BYTES: usize = 4 << 20;

/// An expression and the names of its groups.
#[derive(Debug, Clone)]
pub struct Capture {
    regex: Regex,
    /// The group's number and the field's name.
    names: Vec<(usize, String)>,
}

/// Why a text is no expression for fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCapture {
    /// It does not compile.
    #[error("is no regular expression: {0}")]
    Syntax(String),
    /// It has groups, but no names for them.
    #[error("names no group")]
    NoNames,
}

/// Compiles an expression within bounds. The error is one line.
pub fn compile(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build().map_err(|error| {
        let text = error.to_string();
        text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

impl Capture {
    /// Compiles an expression with named groups: `(?<status>\d+)`.
    pub fn new(text: &str) -> Result<Self, BadCapture> {
        let regex = compile(text).map_err(BadCapture::Syntax)?;
        let names: Vec<_> = regex
            .capture_names()
            .enumerate()
            .filter_map(|(nth, name)| name.map(|name| (nth, name.to_owned())))
            .collect();
        if names.is_empty() {
            return Err(BadCapture::NoNames);
        }
        Ok(Self { regex, names })
    }

    /// An expression whose groups have other names than fields: grok's.
    pub(super) fn with_names(text: &str, fields: &[String]) -> Result<Self, BadCapture> {
        let mut capture = Self::new(text)?;
        for (_, name) in &mut capture.names {
            let number = name.strip_prefix('g').and_then(|digits| digits.parse::<usize>().ok());
            if let Some(field) = number.and_then(|number| fields.get(number)) {
                name.clone_from(field);
            }
        }
        Ok(capture)
    }

    /// The names of its groups.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(_, name)| name.as_str())
    }

    /// The groups that took part, and what they hold; none if the text does not match.
    pub fn pairs<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let found = self.regex.captures(text);
        self.names.iter().filter_map(move |(group, name)| {
            let found = found.as_ref()?.get(*group)?;
            Some((name.as_str(), &text[found.range()]))
        })
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        self.regex.as_str()
    }

    /// Room for where groups are, to be kept.
    pub(super) fn locations(&self) -> CaptureLocations {
        self.regex.capture_locations()
    }

    /// Adds a field for each group that took part. Whether the text matched. Values `-` of web servers are nothing.
    pub(super) fn parse(
        &self,
        text: &str,
        prefix: &str,
        at: &mut CaptureLocations,
        event: &mut Event,
    ) -> bool {
        if self.regex.captures_read(at, text).is_none() {
            return false;
        }
        for (group, name) in &self.names {
            if let Some((from, to)) = at.get(*group) {
                if prefix.is_empty() {
                    event.field(name, &text[from..to]);
                } else {
                    event.field(&format!("{prefix}{name}"), &text[from..to]);
                }
            }
        }
        true
    }
}

/// A format of a web server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// nginx' `combined`, with or without what was appended to it.
    NginxCombined,
    /// nginx' error log.
    NginxError,
    /// Apache's `common`.
    ApacheCommon,
    /// Apache's `combined`.
    ApacheCombined,
    /// Apache's error log.
    ApacheError,
}

const ACCESS: &str = r#"^(?<remote_addr>\S+) (?<ident>\S+) (?<remote_user>.*?) \[(?<time>[^\]]+)\] "(?:(?<method>[A-Z]+) (?<path>\S+)(?: (?<protocol>[^"\s]+))?|(?<request>(?:[^"\\]|\\.)*))" (?<status>\d{3}) (?<bytes>\d+|-)"#;
const REFERER: &str = r#" "(?<referer>(?:[^"\\]|\\.)*)" "(?<user_agent>(?:[^"\\]|\\.)*)""#;
const NGINX_ERROR: &str = r#"^(?<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?<level>\w+)\] (?<pid>\d+)#(?<tid>\d+): (?:\*(?<connection>\d+) )?(?<message>.*?)(?:, client: (?<client>[^,\s]+))?(?:, server: (?<server>[^,]*))?(?:, request: "(?<request>(?:[^"\\]|\\.)*)")?(?:, upstream: "(?<upstream>[^"]*)")?(?:, host: "(?<host>[^"]*)")?(?:, referrer: "(?<referer>[^"]*)")?$"#;
const APACHE_ERROR: &str = r"^\[(?<time>[^\]]+)\] \[(?:(?<module>[^:\]]*):)?(?<level>\w+)\](?: \[pid (?<pid>\d+)(?::tid (?<tid>\d+))?\])?(?: \[(?:client|remote) (?<client>[^\]]+)\])?(?: (?<code>AH\d+):)? (?<message>.*)$";

impl Preset {
    /// Its expression.
    pub fn capture(self) -> Capture {
        let text = match self {
            Self::NginxCombined | Self::ApacheCombined => format!("{ACCESS}{REFERER}"),
            Self::ApacheCommon => ACCESS.to_owned(),
            Self::NginxError => NGINX_ERROR.to_owned(),
            Self::ApacheError => APACHE_ERROR.to_owned(),
        };
        Capture::new(&text).expect("the presets' expressions are tested")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(capture: &Capture, text: &str) -> Option<String> {
        let mut event = Event::default();
        if !capture.parse(text, "", &mut capture.locations(), &mut event) {
            return None;
        }
        let said = event.fields.iter().map(|p| format!("{}={}", event.text(p.name), event.text(p.value)));
        Some(said.collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn formats_of_web_servers() {
        let combined = r#"10.0.0.1 - bob smith [10/Oct/2000:13:55:36 -0700] "GET /a?b=c HTTP/1.1" 200 2326 "http://x/\"q" "Mozilla (5.0)" rt=1"#;
        let bad = r#"10.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "\x16\x03" 400 - "-" "-""#;
        let nginx = r#"2024/01/02 03:04:05 [error] 29#31: *2 open() "/x" failed (2: No such file), client: ::1, server: a.b, request: "GET /x HTTP/1.1", host: "a.b""#;
        let apache = "[Tue Jan 02 03:04:05.123456 2024] [core:error] [pid 35:tid 4328] [client 72.15.99.187:80] AH00128: File does not exist: /x";
        for (preset, line, expected) in [
            (
                Preset::NginxCombined,
                combined,
                Some(
                    r#"remote_addr=10.0.0.1|ident=-|remote_user=bob smith|time=10/Oct/2000:13:55:36 -0700|method=GET|path=/a?b=c|protocol=HTTP/1.1|status=200|bytes=2326|referer=http://x/\"q|user_agent=Mozilla (5.0)"#,
                ),
            ),
            (
                Preset::ApacheCombined,
                bad,
                Some(
                    r"remote_addr=10.0.0.1|ident=-|remote_user=-|time=10/Oct/2000:13:55:36 -0700|request=\x16\x03|status=400|bytes=-|referer=-|user_agent=-",
                ),
            ),
            (
                Preset::ApacheCommon,
                r#"::1 - - [x] "GET / HTTP/1.0" 200 5"#,
                Some(
                    "remote_addr=::1|ident=-|remote_user=-|time=x|method=GET|path=/|protocol=HTTP/1.0|status=200|bytes=5",
                ),
            ),
            (
                Preset::NginxError,
                nginx,
                Some(
                    r#"time=2024/01/02 03:04:05|level=error|pid=29|tid=31|connection=2|message=open() "/x" failed (2: No such file)|client=::1|server=a.b|request=GET /x HTTP/1.1|host=a.b"#,
                ),
            ),
            (
                Preset::ApacheError,
                apache,
                Some(
                    "time=Tue Jan 02 03:04:05.123456 2024|module=core|level=error|pid=35|tid=4328|client=72.15.99.187:80|code=AH00128|message=File does not exist: /x",
                ),
            ),
            (Preset::NginxCombined, "something else", None),
        ] {
            assert_eq!(fields(&preset.capture(), line).as_deref(), expected, "{preset:?}");
        }
    }

    #[test]
    fn expressions_need_names_and_bounds() {
        assert_eq!(Capture::new("(a)").unwrap_err(), BadCapture::NoNames);
        assert!(
            matches!(Capture::new("(?<a>x").unwrap_err(), BadCapture::Syntax(why) if !why.contains('\n'))
        );
        assert!(matches!(Capture::new("(?<a>(x{1000}){1000})").unwrap_err(), BadCapture::Syntax(_)));
        let look = Capture::new("(?<a>x)(?=y)").unwrap_err().to_string();
        assert!(look.contains("look-around"), "{look}");
    }
}
