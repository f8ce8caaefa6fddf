//! `${VAR}` and `${VAR:-default}` in values; `$$` is a dollar sign.
//!
//! A variable is one of the environment, or one of the few [`FACTS`] of the machine, which have lower-case names so
//! that they meet no variable by accident; `${env:NAME}` asks the environment whatever the name.
//!
//! A dollar sign before anything but `{` and `$` stands for itself, so that most regular expressions can be written
//! as they are.

use super::path::Path;
use super::tree::Node;

/// What can be said of the machine without asking the environment.
#[derive(Debug)]
pub struct Fact {
    /// Its name between the braces.
    pub name: &'static str,
    /// Where it is read.
    pub files: &'static [&'static str],
}

/// The facts. A container's own files are read, unless the host's are mounted in their place.
pub static FACTS: [Fact; 2] = [
    // proc(5): the name that gethostname(2) gives.
    Fact { name: "hostname", files: &["/proc/sys/kernel/hostname"] },
    // machine-id(5), and where D-Bus has it on machines without systemd.
    Fact { name: "machine_id", files: &["/etc/machine-id", "/var/lib/dbus/machine-id"] },
];

impl Fact {
    fn read(&self) -> Option<String> {
        let read = |file: &&str| std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned());
        self.files.iter().filter_map(read).find(|text| !text.is_empty())
    }
}

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
    let fact = FACTS.iter().find(|fact| fact.name == name);
    let name = name.strip_prefix("env:").unwrap_or(name);
    let valid = name.bytes().enumerate().all(|(i, b)| match b {
        b'0'..=b'9' => i > 0,
        b => b.is_ascii_alphabetic() || b == b'_',
    });
    if name.is_empty() || !valid {
        return Err(BadVariable {
            reason: format!("`${{{}}}` names no variable", inside.chars().take(40).collect::<String>()),
            remedy: format!(
                "write ${{NAME}} or ${{env:NAME}} with letters, digits and _, or {}, or $$ for a dollar sign",
                fact_words()
            ),
        });
    }
    let found = match fact {
        Some(fact) => fact.read(),
        // As in the shell, `:-` also stands in for a variable that is set and empty.
        None => lookup(name).filter(|value| !value.is_empty() || default.is_none()),
    };
    if let Some(value) = found.or_else(|| default.map(str::to_owned)) {
        return Ok(value);
    }
    Err(match fact {
        Some(fact) => BadVariable {
            reason: format!("the machine's {name} is not known: {} cannot be read", fact.files[0]),
            remedy: format!("make it readable, or give a default: ${{{name}:-default}}"),
        },
        None if name.bytes().any(|b| b.is_ascii_lowercase()) => BadVariable {
            reason: format!("the environment variable {name} is not set"),
            remedy: format!(
                "set it, or give a default: ${{{name}:-default}}; without the environment there are {}",
                fact_words()
            ),
        },
        None => BadVariable {
            reason: format!("the environment variable {name} is not set"),
            remedy: format!("set it, or give a default: ${{{name}:-default}}"),
        },
    })
}

fn fact_words() -> String {
    FACTS.iter().map(|fact| format!("${{{}}}", fact.name)).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db-1".to_owned()),
            "EMPTY" => Some(String::new()),
            "hostname" => Some("from the environment".to_owned()),
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
            ("${env:HOST}", "db-1"),
            ("${env:NONE:-x}", "x"),
            ("${env:hostname}", "from the environment"),
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
            ("${file:A}", "no variable"),
            ("${env:NONE}", "NONE is not set"),
        ] {
            let error = expand(text, environment).unwrap_err();
            assert!(error.reason.contains(reason), "{text}: {error:?}");
        }
    }
    #[test]
    fn the_machine_is_asked_for_what_it_knows() {
        let here = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(expand("${hostname}:9100", environment), Ok(format!("{}:9100", here.trim())));
        let error = expand("${host_name}", environment).unwrap_err();
        assert!(error.remedy.contains("${hostname} and ${machine_id}"), "{error:?}");
        assert_eq!(expand("${machine_id:-none}", environment).map(|id| id.is_empty()), Ok(false));
    }

    #[test]
    fn a_fact_that_cannot_be_read_names_its_file() {
        let fact = Fact { name: "x", files: &["/nowhere", "/dev/null"] };
        assert_eq!(fact.read(), None);
    }
}
