//! Expressions of dashboards, alerts and recording rules, read from a list, with a dashboard's variables replaced.

use std::fmt::Write as _;

/// What an expression is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An alert: mostly empty, as it has a threshold.
    Alert,
    /// A graph or a table of a dashboard.
    Panel,
    /// A recording rule, under whose name others ask for its result.
    Record,
    /// The choices of a dashboard's variable, as `label_values(selector, label)`.
    Template,
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// Where it is from: a mixin, a dashboard.
    pub source: String,
    /// What it is for.
    pub kind: Kind,
    /// The panel, the alert, or the name of the recording rule.
    pub name: String,
    /// PromQL, with variables.
    pub text: String,
}

/// Reads a list: tab-separated, its first line naming the columns, of which `source`, `kind`, `panel_or_alert` and
/// `expression` are taken. Empty lines and lines that begin with `#` are passed over.
pub fn read(text: &str) -> Result<Vec<Expression>, String> {
    let mut lines =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let (_, header) = lines.next().ok_or("the list has no line that names its columns")?;
    let names: Vec<&str> = header.split('\t').collect();
    let column = |name: &str| {
        let at = names.iter().position(|column| *column == name);
        at.ok_or_else(|| format!("the list has no column `{name}`: its first line is {names:?}"))
    };
    let columns = [column("source")?, column("kind")?, column("panel_or_alert")?, column("expression")?];
    lines
        .map(|(number, line)| {
            let fields: Vec<&str> = line.split('\t').collect();
            let field = |column: usize| {
                let field = fields.get(columns[column]).map(|field| (*field).to_owned());
                field.ok_or_else(|| format!("line {}: {} columns are too few", number + 1, fields.len()))
            };
            let kind = match field(1)?.as_str() {
                "alert" => Kind::Alert,
                "panel" => Kind::Panel,
                "record" => Kind::Record,
                "template" => Kind::Template,
                other => return Err(format!("line {}: `{other}` is no kind", number + 1)),
            };
            Ok(Expression { source: field(0)?, kind, name: field(2)?, text: field(3)? })
        })
        .collect()
}

impl Expression {
    /// The PromQL to evaluate: variables replaced, and `label_values(selector, label)` as the grouping that gives the
    /// same values.
    pub fn query(&self, variables: &[(&str, &str)]) -> Result<String, String> {
        let text = replace(self.text.trim(), variables)?;
        let Some(inside) = text.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')) else {
            return Ok(text);
        };
        let (selector, label) =
            inside.rsplit_once(',').ok_or_else(|| format!("`{text}` does not say which label's values"))?;
        Ok(format!("group by ({}) ({})", label.trim(), selector.trim()))
    }
}

/// Replaces `$name` and `${name}`; a variable that is not among them is a mistake.
fn replace(text: &str, variables: &[(&str, &str)]) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let braced = rest.starts_with('{');
        let from = usize::from(braced);
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = rest[from..].find(|c| !word(c)).unwrap_or(rest.len() - from);
        let name = &rest[from..from + length];
        if name.is_empty() {
            // The end of a line in a regular expression.
            out.push('$');
            continue;
        }
        let (_, value) = variables
            .iter()
            .find(|(variable, _)| *variable == name)
            .ok_or_else(|| format!("no value is known for ${name} of `{text}`"))?;
        out.push_str(value);
        rest = &rest[from + length..];
        if braced {
            let behind = rest.find('}').ok_or_else(|| format!("a brace is not closed in `{text}`"))?;
            rest = &rest[behind + 1..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The selectors of an expression, from the tree that [`Prometheus::parse`](crate::prometheus::Prometheus::parse)
/// gives, each as PromQL, without range and offset, in order and once.
pub fn selectors(tree: &serde_json::Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(tree, &mut found);
    found.sort();
    found.dedup();
    found
}

fn walk(node: &serde_json::Value, found: &mut Vec<String>) {
    match node {
        serde_json::Value::Object(fields) => {
            if let ("vectorSelector" | "matrixSelector", Some(matchers)) =
                (node["type"].as_str().unwrap_or_default(), node["matchers"].as_array())
            {
                let mut selector = String::from("{");
                for (i, matcher) in matchers.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    let text = |key: &str| matcher[key].as_str().unwrap_or_default();
                    let _ = write!(selector, "{comma}{}{}{:?}", text("name"), text("type"), text("value"));
                }
                selector.push('}');
                found.push(selector);
            }
            fields.values().for_each(|value| walk(value, found));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_by_the_names_of_its_columns() {
        let list =
            "# ours\nkind\tsource\tpanel_or_alert\tmore\texpression\n\nrecord\tx\tjob:a:sum\t\tsum(a)\n";
        let read = read(list).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].kind, &*read[0].name, &*read[0].text), (Kind::Record, "job:a:sum", "sum(a)"));
        assert!(super::read("kind\texpression\n").unwrap_err().contains("`source`"));
        assert!(super::read(&list.replace("record", "graph")).unwrap_err().contains("line 4: `graph`"));
    }

    #[test]
    fn variables_are_replaced_and_an_unknown_one_is_named() {
        let expression = |text: &str| Expression {
            source: String::new(),
            kind: Kind::Panel,
            name: String::new(),
            text: text.to_owned(),
        };
        let known = [("a", "1m"), ("a_b", "x")];
        assert_eq!(expression("f{b=~\"${a_b:regex}|y$\"}[$a]").query(&known).unwrap(), "f{b=~\"x|y$\"}[1m]");
        assert!(expression("f[$c]").query(&known).unwrap_err().contains("$c"));
        let labels = expression("label_values(up{x=\"$a\", y=\"z\"}, job)");
        assert_eq!(labels.query(&known).unwrap(), "group by (job) (up{x=\"1m\", y=\"z\"})");
    }

    #[test]
    fn selectors_are_found_wherever_they_are_in_the_tree() {
        let matcher =
            |name: &str, value: &str| serde_json::json!({"name": name, "type": "=", "value": value});
        let tree = serde_json::json!({"type": "binaryExpr",
            "lhs": {"type": "call", "args": [{"type": "matrixSelector", "matchers": [matcher("b", "c"), matcher("__name__", "x")]}]},
            "rhs": {"type": "vectorSelector", "matchers": [matcher("__name__", "y")]}});
        assert_eq!(selectors(&tree), [r#"{__name__="y"}"#, r#"{b="c",__name__="x"}"#]);
    }
}
