//! What a syslog message says, whatever form it has.

use std::borrow::Cow;

/// The names of facilities by number (RFC 5424, table 1; the words are those of syslog.conf).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

/// The names of severities by number, as RFC 5424's table 2 orders them. The words are those that dashboards for
/// Loki know.
const LEVELS: [&str; 8] = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];

/// Facility and severity in one number, 0 to 191.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Priority(u8);

impl Priority {
    /// `user.notice`, which RFC 3164 (4.3.3) gives to messages without one.
    pub const DEFAULT: Self = Self(13);

    /// A priority, if there is such a one.
    pub fn new(number: u32) -> Option<Self> {
        (number <= 191).then_some(Self(number as u8))
    }

    /// The facility's name.
    pub fn facility(self) -> &'static str {
        FACILITIES[usize::from(self.0 >> 3)]
    }

    /// The severity as a level.
    pub fn level(self) -> &'static str {
        level(self.0 & 7)
    }

    /// The number as it is written between angle brackets.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// The level of a severity from 0 to 7, which the journal's priorities are as well.
pub fn level(severity: u8) -> &'static str {
    LEVELS[usize::from(severity & 7)]
}

/// What is wrong with a message. It is kept all the same, as a whole where its parts can't be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It begins with no priority.
    NoPriority,
    /// Its time is none.
    BadTime,
    /// A part of its header is missing.
    BadHeader,
    /// Its structured data is not well formed.
    BadStructuredData,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::NoPriority, Self::BadTime, Self::BadHeader, Self::BadStructuredData];

    /// As metrics and metadata name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoPriority => "no_priority",
            Self::BadTime => "bad_time",
            Self::BadHeader => "bad_header",
            Self::BadStructuredData => "bad_structured_data",
        }
    }
}

/// The form of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 5424.
    Rfc5424,
    /// What RFC 3164 describes, and all that is neither.
    Rfc3164,
}

/// A message with its parts. What it does not say is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<'a> {
    /// Its form.
    pub format: Format,
    /// Facility and severity.
    pub priority: Priority,
    /// Its time, nanoseconds since the Unix epoch.
    pub at_ns: Option<i64>,
    /// Who it says that it comes from.
    pub host: Option<&'a str>,
    /// The program.
    pub app: Option<&'a str>,
    /// The process.
    pub procid: Option<&'a str>,
    /// The kind of message.
    pub msgid: Option<&'a str>,
    /// Structured data: `ID.NAME` and value of each parameter, in their order; of an element without parameters its
    /// id and nothing.
    pub data: Vec<(String, Cow<'a, str>)>,
    /// The text.
    pub text: &'a str,
    /// What is wrong with it.
    pub flaw: Option<Flaw>,
}

impl<'a> Message<'a> {
    /// A message that is nothing but a text.
    pub fn of_text(priority: Priority, text: &'a str, flaw: Option<Flaw>) -> Self {
        Self {
            format: Format::Rfc3164,
            priority,
            at_ns: None,
            host: None,
            app: None,
            procid: None,
            msgid: None,
            data: Vec::new(),
            text,
            flaw,
        }
    }
}
