//! How serious a line is: from a field where one says it, else from the line's words.

/// A level, from the least serious on. The names are those that Loki and Grafana know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The finest detail.
    Trace,
    /// For those who look for faults.
    Debug,
    /// What goes on as it should.
    Info,
    /// What may become a fault.
    Warn,
    /// A fault.
    Error,
    /// A fault after which something does not go on.
    Critical,
    /// The end of a process.
    Fatal,
}

/// Fields that say a level, in the order in which they are asked.
pub(super) const FIELDS: [&str; 11] = [
    "level",
    "lvl",
    "severity",
    "loglevel",
    "log_level",
    "levelname",
    "severity_text",
    "Level",
    "LEVEL",
    "log.level",
    "PRIORITY",
];

/// How much of a line is looked through for a word.
const LOOKED_AT_BYTES: usize = 256;

impl Level {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Fatal => "fatal",
        }
    }

    /// The level that a field's value means: a word in any case, syslog's priorities 0 to 7, or the numbers of bunyan
    /// and pino from 10 on.
    pub fn of_value(value: &str) -> Option<Self> {
        let value = value.trim().trim_matches(['[', ']', '<', '>']);
        if let Ok(number) = value.parse::<u16>() {
            return match number {
                0 => Some(Self::Fatal),
                1 | 2 => Some(Self::Critical),
                3 => Some(Self::Error),
                4 => Some(Self::Warn),
                5 | 6 => Some(Self::Info),
                7 => Some(Self::Debug),
                10..20 => Some(Self::Trace),
                20..30 => Some(Self::Debug),
                30..40 => Some(Self::Info),
                40..50 => Some(Self::Warn),
                50..60 => Some(Self::Error),
                60..100 => Some(Self::Fatal),
                _ => None,
            };
        }
        Self::of_word(value.as_bytes())
    }

    fn of_word(word: &[u8]) -> Option<Self> {
        let is = |other: &str| word.eq_ignore_ascii_case(other.as_bytes());
        let table: [(Self, &[&str]); 7] = [
            (Self::Info, &["info", "information", "informational", "notice", "inf", "success"]),
            (Self::Error, &["error", "err", "eror", "severe", "failure", "failed"]),
            (Self::Warn, &["warn", "warning", "wrn"]),
            (Self::Debug, &["debug", "dbg", "fine", "config"]),
            (Self::Trace, &["trace", "trc", "finer", "finest", "verbose"]),
            (Self::Critical, &["critical", "crit", "alert"]),
            (Self::Fatal, &["fatal", "panic", "emerg", "emergency", "ftl", "dpanic"]),
        ];
        table.iter().find(|(_, words)| words.iter().any(|other| is(other))).map(|(level, _)| *level)
    }

    /// The level that a line's words mean: one in brackets or in capitals, one before a colon or as the value of
    /// `level=`, within its first 256 bytes; or klog's letter at its beginning.
    pub fn of_line(line: &str) -> Option<Self> {
        let bytes = &line.as_bytes()[..line.len().min(LOOKED_AT_BYTES)];
        if let [letter @ (b'I' | b'W' | b'E' | b'F' | b'D'), digits @ ..] = bytes {
            if digits.len() > 5 && digits[..4].iter().all(u8::is_ascii_digit) && digits[4] == b' ' {
                return Some(match letter {
                    b'I' => Self::Info,
                    b'W' => Self::Warn,
                    b'E' => Self::Error,
                    b'F' => Self::Fatal,
                    _ => Self::Debug,
                });
            }
        }
        let (mut at, mut found) = (0, None::<Self>);
        while at < bytes.len() {
            if !bytes[at].is_ascii_alphabetic() {
                at += 1;
                continue;
            }
            let from = at;
            while at < bytes.len() && (bytes[at].is_ascii_alphanumeric() || bytes[at] == b'_') {
                at += 1;
            }
            let word = &bytes[from..at];
            if !(3..=13).contains(&word.len()) || word.contains(&b'_') {
                continue;
            }
            let before = from.checked_sub(1).map(|at| bytes[at]);
            let after = bytes.get(at).copied();
            let marked = matches!(
                (before, after),
                (Some(b'['), Some(b']'))
                    | (Some(b'<'), Some(b'>'))
                    | (Some(b'('), Some(b')'))
                    | (Some(b'|'), _)
            );
            let keyed = from >= 2 && matches!(before, Some(b'=' | b'"' | b':' | b' ')) && {
                let head = bytes[..from].trim_ascii_end();
                let head = head.strip_suffix(b"\"").unwrap_or(head);
                let head = head.trim_ascii_end();
                head.strip_suffix(b"=").or_else(|| head.strip_suffix(b":")).is_some_and(|head| {
                    let head = head.strip_suffix(b"\"").unwrap_or(head);
                    [&b"level"[..], b"lvl", b"severity"].iter().any(|key| {
                        head.len() >= key.len() && head[head.len() - key.len()..].eq_ignore_ascii_case(key)
                    })
                })
            };
            let shouted = word.iter().all(u8::is_ascii_uppercase);
            let begins = after == Some(b':') && before.is_none_or(|byte| byte == b' ' || byte == b']');
            if !(marked || keyed || shouted || begins) {
                continue;
            }
            // Words that mean a level only where they stand as one.
            let weak = [&b"FINE"[..], b"CONFIG", b"SUCCESS", b"FAILED", b"FAILURE", b"VERBOSE"];
            if !keyed && !marked && weak.contains(&word) {
                continue;
            }
            if let Some(level) = Self::of_word(word) {
                if keyed {
                    return Some(level);
                }
                found = found.or(Some(level));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_fields() {
        for (value, expected) in [
            ("INFO", Some(Level::Info)),
            ("Warning", Some(Level::Warn)),
            ("[error]", Some(Level::Error)),
            ("30", Some(Level::Info)),
            ("3", Some(Level::Error)),
            ("SEVERE", Some(Level::Error)),
            ("emerg", Some(Level::Fatal)),
            ("whatever", None),
            ("", None),
        ] {
            assert_eq!(Level::of_value(value), expected, "{value}");
            assert!(expected.is_none_or(|level| Level::of_value(level.name()) == Some(level)));
        }
    }

    #[test]
    fn words_of_lines() {
        for (line, expected) in [
            ("2024-01-01 12:00:00,123 ERROR [main] c.e.App - failed", Some(Level::Error)),
            ("[warn] something", Some(Level::Warn)),
            ("ts=1 level=debug msg=\"ERROR in text\"", Some(Level::Debug)),
            ("{\"severity\": \"warning\", \"m\": 1}", Some(Level::Warn)),
            ("warning: unused variable", Some(Level::Warn)),
            ("E0102 03:04:05.678 1 file.go:1] x", Some(Level::Error)),
            ("2024/01/02 03:04:05 [crit] 12#0: *1 x", Some(Level::Critical)),
            ("an error occurred in information processing", None),
            ("GET /info HTTP/1.1", None),
            ("ERRORS were found", None),
            ("", None),
        ] {
            assert_eq!(Level::of_line(line), expected, "{line}");
        }
    }

    #[test]
    fn levels_have_an_order() {
        assert!(Level::Debug < Level::Info && Level::Warn < Level::Error && Level::Critical < Level::Fatal);
    }
}
