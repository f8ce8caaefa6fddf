//! `${VAR}` and `${VAR:-default}` in values; `$$` is a dollar sign.
//!
//! A dollar sign before anything but `{` and `$` stands for itself, so that most regular expressions can be written
//! as they are.

use super::path::Path;
use super::tree::Node;

/// What is wrong with a value's variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadVariable {
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// Replaces variables in every scalar; gives back the paths of those that could not be.
pub fn interpolate(tree: &mut Node, lookup: fn(&str) -> Option<String>) -> Vec<(Path, BadVariable)> {
    let mut bad = Vec::new();
    tree.each_text(&Path::root(), &mut |path, text| {
        if !text.value.contains('$') {
            return;
        }
        match expand(&text.value, lookup) {
            Ok(value) if value != text.value => {
                text.written = Some(std::mem::replace(&mut text.value, value));
            }
            Ok(_) => {}
            Err(error) => bad.push((path.clone(), error)),
        }
    });
    bad
}

/// Replaces the variables of one value.
pub fn expand(text: &str, lookup: fn(&str) -> Option<String>) -> Result<String, BadVariable> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some(end) = after.find('}') else {
                return Err(BadVariable {
                    reason: "`${` has no `}`".to_owned(),
                    remedy: "write ${VARIABLE}, or $$ for a dollar sign".to_owned(),
                });
            };
            out.push_str(&variable(&after[..end], lookup)?);
            rest = &after[end + 1..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn variable(inside: &str, lookup: fn(&str) -> Option<String>) -> Result<String, BadVariable> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let valid = name.bytes().enumerate().all(|(i, b)| match b {
        b'0'..=b'9' => i > 0,
        b => b.is_ascii_alphabetic() || b == b'_',
    });
    if name.is_empty() || !valid {
        return Err(BadVariable {
            reason: format!("`${{{}}}` names no variable", inside.chars().take(40).collect::<String>()),
            remedy: "use letters, digits and _, or $$ for a dollar sign".to_owned(),
        });
    }
    // As in the shell, `:-` also stands in for a variable that is set and empty.
    match (lookup(name).filter(|value| !value.is_empty() || default.is_none()), default) {
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(BadVariable {
            reason: format!("the environment variable {name} is not set"),
            remedy: format!("set it, or give a default: ${{{name}:-default}}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db-1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_defaults_and_dollar_signs() {
        for (text, expected) in [
            ("plain", "plain"),
            ("${HOST}:9100", "db-1:9100"),
            ("${HOST}${HOST}", "db-1db-1"),
            ("${NONE:-x:-y}", "x:-y"),
            ("${EMPTY:-full}", "full"),
            ("${EMPTY}", ""),
            ("$${HOST}", "${HOST}"),
            ("^(a|b)$", "^(a|b)$"),
            ("$HOST", "$HOST"),
        ] {
            assert_eq!(expand(text, environment).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        for (text, reason) in [
            ("${NONE}", "NONE is not set"),
            ("${HOST", "no `}`"),
            ("${}", "no variable"),
            ("${1A}", "no variable"),
        ] {
            let error = expand(text, environment).unwrap_err();
            assert!(error.reason.contains(reason), "{text}: {error:?}");
        }
    }
}
