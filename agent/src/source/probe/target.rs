//! One thing to check: an address with its check's settings and its labels, resolved and valid.

use super::settings::Check;
use crate::source::scrape::settings::TargetGroup;
use pegel_proto::metrics::{Labels, NAME_LABEL};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// A resolved target.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// The settings of its check.
    pub check: Arc<Check>,
    /// What is checked: a URL, a host and a port, a name, by the check's kind.
    pub address: String,
    /// Its labels: `job`, `instance` and what its group adds.
    pub labels: Labels,
    /// The same with the agent's external labels, which give way to them.
    pub shared: Arc<Labels>,
}

/// What makes two targets the same one: check, labels and address. Settings may change while its series go on.
pub type TargetKey = (String, Labels, String);

/// Why an address is no target. Does not repeat credentials that were written into it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("target `{address}` of check `{check}` cannot be checked: {reason}")]
pub struct BadTarget {
    /// The check's name.
    pub check: String,
    /// The address as given.
    pub address: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Target {
    /// What makes it the same target as another.
    pub fn key(&self) -> TargetKey {
        (self.check.name.clone(), self.labels.clone(), self.address.clone())
    }

    /// A hash of what identifies it, external labels included, so that equal targets of many nodes have phases of
    /// their own.
    pub fn identity_hash(&self) -> u64 {
        let mut text = format!("{}\0{}", self.check.name, self.address);
        for (name, value) in self.shared.iter() {
            let _ = write!(text, "\0{name}\0{value}");
        }
        xxh3_64(text.as_bytes())
    }
}

/// The targets of a group: those that are valid, and why others are not.
pub fn resolve_group(
    check: &Arc<Check>,
    group: &TargetGroup,
    external: &Labels,
) -> (Vec<Target>, Vec<BadTarget>) {
    let mut targets = Vec::with_capacity(group.targets.len());
    let mut bad = Vec::new();
    for address in &group.targets {
        match resolve(check, address, &group.labels, external) {
            Ok(target) => targets.push(target),
            Err(reason) => {
                let address = without_credentials(address);
                bad.push(BadTarget { check: check.name.clone(), address, reason });
            }
        }
    }
    (targets, bad)
}

fn resolve(
    check: &Arc<Check>,
    address: &str,
    group: &[(String, String)],
    external: &Labels,
) -> Result<Target, String> {
    check.kind.check_address(address)?;
    let mut labels = BTreeMap::from([("job", check.name.as_str()), ("instance", address)]);
    for (name, value) in group {
        if name == NAME_LABEL {
            return Err("a target cannot set __name__".into());
        }
        if !name.starts_with("__") && !value.is_empty() {
            labels.insert(name, value);
        }
    }
    let all = |pairs: &BTreeMap<&str, &str>| {
        Labels::new(pairs.iter().map(|(n, v)| (*n, *v))).map_err(|e| e.to_string())
    };
    let own = all(&labels)?;
    for (name, value) in external.iter() {
        labels.entry(name).or_insert(value);
    }
    let shared = Arc::new(all(&labels)?);
    Ok(Target { check: check.clone(), address: address.to_owned(), labels: own, shared })
}

/// An address as a message may show it: what stands before an `@` in its authority is taken out.
pub fn without_credentials(address: &str) -> String {
    let begin = address.find("://").map_or(0, |at| at + 3);
    let end = address[begin..].find(['/', '?', '#']).map_or(address.len(), |at| begin + at);
    match address[begin..end].rfind('@') {
        Some(at) => format!("{}…{}", &address[..begin], &address[begin + at..]),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::probe::kinds::{Kind, http};

    fn check() -> Arc<Check> {
        Arc::new(Check::new("shop", Kind::Http(Box::new(http::Settings::default()))))
    }

    #[test]
    fn job_and_instance_are_set_and_external_labels_give_way() {
        let labels =
            vec![("team".into(), "web".into()), ("__meta".into(), "x".into()), ("job".into(), "b".into())];
        let group = TargetGroup { targets: vec!["https://shop.example/".into()], labels };
        let external = Labels::new([("team", "ops"), ("site", "north")]).unwrap();
        let (targets, bad) = resolve_group(&check(), &group, &external);
        assert_eq!(bad, []);
        let expected =
            [("instance", "https://shop.example/"), ("job", "b"), ("site", "north"), ("team", "web")];
        assert_eq!(*targets[0].shared, Labels::new(expected).unwrap());
        assert_eq!(targets[0].labels.len(), 3);
    }

    #[test]
    fn credentials_in_an_address_are_refused_and_not_repeated() {
        let group = TargetGroup { targets: vec!["http://me:secret@shop.example/".into()], labels: vec![] };
        let (targets, bad) = resolve_group(&check(), &group, &Labels::default());
        assert!(targets.is_empty());
        let words = bad[0].to_string();
        assert!(words.contains("basic_auth") && !words.contains("secret"), "{words}");
    }
}
