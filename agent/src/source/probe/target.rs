//! One thing to check: an address with its check's settings and its labels, resolved and valid.

use super::settings::Check;
use crate::source::labels::TargetLabels;
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
    /// Its labels: `job`, `instance`, `check` and what its group adds.
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
    base: &TargetLabels,
    external: &Labels,
) -> (Vec<Target>, Vec<BadTarget>) {
    let mut targets = Vec::with_capacity(group.targets.len());
    let mut bad = Vec::new();
    for address in &group.targets {
        match resolve(check, address, &group.labels, base, external) {
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
    base: &TargetLabels,
    external: &Labels,
) -> Result<Target, String> {
    check.kind.check_address(address)?;
    if group.iter().any(|(name, _)| name == NAME_LABEL) {
        return Err("a target cannot set __name__".into());
    }
    let own = [("instance", address), ("check", check.name.as_str())];
    let with_group = |external: &Labels| {
        let base = base.target(&own, external);
        let mut all: BTreeMap<&str, &str> = base.iter().collect();
        all.extend(group.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        // As in Prometheus: `__…` are for the way here, and an empty value is no label.
        all.retain(|name, value| !name.starts_with("__") && !value.is_empty());
        Labels::new(all).map_err(|e| e.to_string())
    };
    let labels = with_group(&Labels::default())?;
    let shared = Arc::new(with_group(external)?);
    Ok(Target { check: check.clone(), address: address.to_owned(), labels, shared })
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
    use crate::source::labels::Preset;
    use crate::source::probe::kinds::Kind;

    fn check() -> Arc<Check> {
        Arc::new(Check::new("shop", Kind::Http(Box::default())))
    }

    fn base() -> TargetLabels {
        TargetLabels::new(Preset::BLACKBOX_MIXIN, BTreeMap::from([("team".into(), "all".into())]))
    }

    #[test]
    fn a_groups_labels_win_over_the_sections_and_all_over_external_ones() {
        let labels = vec![("team".into(), "web".into()), ("__meta".into(), "x".into())];
        let group = TargetGroup { targets: vec!["https://shop.example/".into()], labels };
        let external = Labels::new([("team", "ops"), ("site", "north"), ("job", "x")]).unwrap();
        let (targets, bad) = resolve_group(&check(), &group, &base(), &external);
        assert_eq!(bad, []);
        let expected = [
            ("check", "shop"),
            ("instance", "https://shop.example/"),
            ("job", "blackbox-exporter"),
            ("site", "north"),
            ("team", "web"),
        ];
        assert_eq!(*targets[0].shared, Labels::new(expected).unwrap());
        assert_eq!(targets[0].labels.len(), 4);
    }

    #[test]
    fn credentials_in_an_address_are_refused_and_not_repeated() {
        let group = TargetGroup { targets: vec!["http://me:secret@shop.example/".into()], labels: vec![] };
        let (targets, bad) = resolve_group(&check(), &group, &base(), &Labels::default());
        assert!(targets.is_empty());
        let words = bad[0].to_string();
        assert!(words.contains("basic_auth") && !words.contains("secret"), "{words}");
    }
}
