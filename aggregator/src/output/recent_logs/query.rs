//! What a follower wants to see: the part of LogQL that picks entries,
//! `{job="nginx", level=~"err.*"} |= "timeout" !~ "GET /health" | trace_id="5f3a"`.
//!
//! A stream is picked by its labels as Loki has them, `tenant` and `node` among them; after that each line filter has
//! to hold, and each filter of a label or of structured metadata. A label that is not there counts as empty.

use crate::output::matcher::{Scanner, Test, regex};
use regex::Regex;

/// The longest query, in bytes.
const MAX_QUERY_BYTES: usize = 8 << 10;
/// The most matchers and filters of one query.
const MAX_TESTS: usize = 64;

/// Why a query can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the query `{query}` at character {at}: {reason}")]
pub struct BadQuery {
    /// The query as given.
    pub query: String,
    /// Where, in bytes from its beginning.
    pub at: usize,
    /// What is wrong.
    pub reason: String,
}

/// A parsed query. The default one takes everything.
#[derive(Debug, Default)]
pub struct Query {
    streams: Vec<(String, Test)>,
    stages: Vec<Stage>,
}

#[derive(Debug)]
enum Stage {
    Line(LineTest),
    Field(String, Test),
}

#[derive(Debug)]
enum LineTest {
    Contains(String),
    ContainsNot(String),
    Matches(Regex),
    MatchesNot(Regex),
}

impl LineTest {
    fn holds(&self, line: &str) -> bool {
        match self {
            Self::Contains(text) => line.contains(text.as_str()),
            Self::ContainsNot(text) => !line.contains(text.as_str()),
            Self::Matches(regex) => regex.is_match(line),
            Self::MatchesNot(regex) => !regex.is_match(line),
        }
    }
}

impl Query {
    /// Reads a query. Both parts may be left out: `{}` and the empty text take everything.
    pub fn parse(text: &str) -> Result<Self, BadQuery> {
        let mut scanner = Scanner::new(text);
        query(&mut scanner).map_err(|reason| BadQuery {
            query: text.chars().take(200).collect(),
            at: scanner.at,
            reason,
        })
    }

    /// The same, of lines that have this text.
    #[must_use]
    pub fn containing(mut self, text: &str) -> Self {
        if !text.is_empty() {
            self.stages.push(Stage::Line(LineTest::Contains(text.to_owned())));
        }
        self
    }

    /// Whether it takes a stream with these labels.
    pub fn takes_stream(&self, labels: &[(&str, &str)]) -> bool {
        self.streams.iter().all(|(name, test)| test.holds(value_of(labels, name)))
    }

    /// Whether it takes an entry of a stream that it takes.
    pub fn takes<'a>(
        &self,
        labels: &[(&str, &str)],
        line: &str,
        metadata: impl Iterator<Item = (&'a str, &'a str)> + Clone,
    ) -> bool {
        self.stages.iter().all(|stage| match stage {
            Stage::Line(test) => test.holds(line),
            Stage::Field(name, test) => {
                let own = metadata.clone().find(|(key, _)| key == name).map(|(_, value)| value);
                test.holds(own.unwrap_or_else(|| value_of(labels, name)))
            }
        })
    }
}

fn value_of<'a>(labels: &[(&str, &'a str)], name: &str) -> &'a str {
    labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
}

fn query(scanner: &mut Scanner<'_>) -> Result<Query, String> {
    if scanner.text.len() > MAX_QUERY_BYTES {
        return Err(format!("it is longer than {MAX_QUERY_BYTES} bytes"));
    }
    let mut query = Query::default();
    scanner.skip_space();
    if scanner.eat("{") {
        matchers(scanner, &mut query.streams)?;
    }
    loop {
        scanner.skip_space();
        if scanner.rest().is_empty() {
            break;
        }
        query.stages.push(stage(scanner)?);
    }
    if query.streams.len() + query.stages.len() > MAX_TESTS {
        return Err(format!("it has more than {MAX_TESTS} matchers and filters"));
    }
    Ok(query)
}

fn matchers(scanner: &mut Scanner<'_>, tests: &mut Vec<(String, Test)>) -> Result<(), String> {
    loop {
        scanner.skip_space();
        if scanner.eat("}") {
            return Ok(());
        }
        tests.push(label(scanner)?);
        scanner.skip_space();
        if !scanner.eat(",") && !scanner.rest().starts_with('}') {
            return Err("expected `,` or `}`".into());
        }
    }
}

fn label(scanner: &mut Scanner<'_>) -> Result<(String, Test), String> {
    let name = scanner.word(|_| false);
    if name.is_empty() {
        return Err("expected the name of a label".into());
    }
    scanner.skip_space();
    let operator = scanner.operator().ok_or("expected one of = != =~ !~")?;
    scanner.skip_space();
    let value = scanner.string()?;
    Ok((name, Test::new(operator, value)?))
}

fn stage(scanner: &mut Scanner<'_>) -> Result<Stage, String> {
    let Some(operator) = ["|=", "!=", "|~", "!~"].into_iter().find(|operator| scanner.eat(operator)) else {
        if !scanner.eat("|") {
            return Err(
                "expected `{`, a line filter such as |= \"text\", or a filter such as | level=\"error\""
                    .into(),
            );
        }
        scanner.skip_space();
        let (name, test) = label(scanner)?;
        return Ok(Stage::Field(name, test));
    };
    scanner.skip_space();
    let text = scanner.string()?;
    Ok(Stage::Line(match operator {
        "|=" => LineTest::Contains(text),
        "!=" => LineTest::ContainsNot(text),
        "|~" => LineTest::Matches(regex(&text)?),
        _ => LineTest::MatchesNot(regex(&text)?),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [(&str, &str); 3] = [("job", "nginx"), ("level", "error"), ("node", "web-1")];

    fn takes(query: &str) -> bool {
        let query = Query::parse(query).unwrap();
        let metadata = [("trace_id", "5f3a"), ("level", "warn")];
        query.takes_stream(&LABELS) && query.takes(&LABELS, "GET /cart: timeout", metadata.into_iter())
    }

    #[test]
    fn streams_lines_and_fields_are_picked_as_in_logql() {
        for query in [
            "",
            "{}",
            r#"{job="nginx"}"#,
            r#" { job = "nginx" , level=~"err.*", } "#,
            r#"{absent="", node!="web-2", job!~"ngin"}"#,
            r#"|= "timeout""#,
            "{job=`nginx`} |= `time` != `health` |~ `/c[a-z]rt` !~ `^POST`",
            r#"{} | trace_id="5f3a" | level="warn" | job=~"n.*" | absent="""#,
        ] {
            assert!(takes(query), "{query}");
        }
        for query in [
            r#"{job="apache"}"#,
            r#"{level=~"err"}"#,
            r#"{absent!=""}"#,
            r#"|= "Timeout""#,
            r#"!= "timeout""#,
            r#"|~ "^timeout""#,
            r#"!~ "time""#,
            r#"| trace_id="other""#,
            r#"| level="error""#,
        ] {
            assert!(!takes(query), "{query}");
        }
        let text = Query::default().containing("cart");
        assert!(text.takes(&[], "/cart", [].into_iter()) && !text.takes(&[], "/", [].into_iter()));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        for (query, at, reason) in [
            (r#"{job="x""#, 8, "expected `,` or `}`"),
            (r#"{job "x"}"#, 5, "expected one of"),
            ("{job=x}", 5, "expected a quoted string"),
            ("{job=\"x\"} timeout", 10, "expected `{`, a line filter"),
            (r#"|~ "(""#, 6, "bad regular expression"),
            (r#"|= "open"#, 3, "not closed"),
            ("| = \"x\"", 2, "expected the name of a label"),
        ] {
            let error = Query::parse(query).unwrap_err();
            assert!(error.at == at && error.reason.contains(reason), "{query}: {error:?}");
        }
        let many = format!("{{}}{}", " |= \"x\"".repeat(65));
        assert!(Query::parse(&many).unwrap_err().reason.contains("more than 64"));
        assert!(Query::parse(&"x".repeat(9_000)).unwrap_err().reason.contains("longer"));
        assert!(Query::parse(&format!("|~ \"{}\"", "(a{1000}){1000}")).is_err(), "a bomb is refused");
    }
}
