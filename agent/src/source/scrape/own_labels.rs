//! From the labels that a target wrote to those that its series carry in a [`SeriesSet`].
//!
//! With `honor_labels` a target's own labels win over those of the target: that is how a set's series relate to its
//! target labels anyway, an own label without a value included, which takes the target's away. Without it, own
//! labels that clash are renamed to `exported_…`, and again until the name is free, shorter names first; clashing
//! labels without a value are dropped. External labels always give way to own ones, as in Prometheus' remote write.
//!
//! [`SeriesSet`]: pegel_proto::metrics::SeriesSet

use super::exposition::labels::Pair;
use super::settings::LabelLimits;
use pegel_proto::caps;
use pegel_proto::metrics::{Labels, NAME_LABEL};
use std::borrow::Cow;

/// What decides about labels.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The labels of the target, external ones not among them.
    pub target: &'a Labels,
    /// Whether own labels win.
    pub honor_labels: bool,
    /// Limits of the job.
    pub limits: LabelLimits,
}

/// Why a series cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSeries {
    /// There is no metric name, or an empty one.
    #[error("it has no metric name")]
    NoName,
    /// A label's name is empty.
    #[error("a label has an empty name")]
    EmptyLabelName,
    /// A label's name occurs twice.
    #[error("label `{0}` occurs twice")]
    DuplicateLabel(String),
    /// It has more labels than pegel moves.
    #[error("it has {0} labels; at most {max} are moved", max = caps::MAX_LABELS)]
    TooManyLabels(usize),
    /// A name or value is longer than pegel moves.
    #[error("label `{0}` is longer than the {name} bytes of name or {value} bytes of value that are moved",
        name = caps::MAX_LABEL_NAME_BYTES, value = caps::MAX_LABEL_VALUE_BYTES)]
    TooLong(String),
    /// A limit of the job is exceeded: the scrape fails.
    #[error("{0}")]
    Limit(String),
}

/// The own labels of a series, from those that its text has.
pub fn own_labels(mut written: Vec<Pair<'_>>, rules: Rules<'_>) -> Result<Labels, BadSeries> {
    if let Some((name, _)) = duplicate(&mut written) {
        return Err(BadSeries::DuplicateLabel(cut(name)));
    }
    if written.iter().any(|(name, _)| name.is_empty()) {
        return Err(BadSeries::EmptyLabelName);
    }
    let removes_target_label =
        |name: &str| rules.honor_labels && name != NAME_LABEL && rules.target.value(name).is_some();
    written.retain(|(name, value)| !value.is_empty() || removes_target_label(name));
    if !written.iter().any(|(name, _)| name == NAME_LABEL) {
        return Err(BadSeries::NoName);
    }
    if !rules.honor_labels {
        rename_clashes(&mut written, rules.target);
    }
    check_limits(&written, rules)?;
    if written.len() > caps::MAX_LABELS {
        return Err(BadSeries::TooManyLabels(written.len()));
    }
    let too_long = |(name, value): &&Pair<'_>| {
        name.len() > caps::MAX_LABEL_NAME_BYTES || value.len() > caps::MAX_LABEL_VALUE_BYTES
    };
    if let Some((name, _)) = written.iter().find(too_long) {
        return Err(BadSeries::TooLong(cut(name)));
    }
    Labels::new(written.iter().map(|(n, v)| (n.as_ref(), v.as_ref())))
        .map_err(|duplicate| BadSeries::DuplicateLabel(cut(&duplicate.0)))
}

fn duplicate<'a, 'b>(written: &'b mut [Pair<'a>]) -> Option<&'b Pair<'a>> {
    written.sort_unstable();
    written.windows(2).find(|w| w[0].0 == w[1].0).map(|w| &w[0])
}

fn rename_clashes(written: &mut [Pair<'_>], target: &Labels) {
    let mut clashing: Vec<usize> =
        (0..written.len()).filter(|i| target.value(&written[*i].0).is_some()).collect();
    // `written` is in the order of names, and the sort is stable: shorter names first, then by name.
    clashing.sort_by_key(|i| written[*i].0.len());
    for index in clashing {
        let mut name = written[index].0.to_string();
        loop {
            name.insert_str(0, "exported_");
            let taken = target.value(&name).is_some() || written.iter().any(|(other, _)| *other == name);
            if !taken {
                break;
            }
        }
        written[index].0 = Cow::Owned(name);
    }
}

fn check_limits(written: &[Pair<'_>], rules: Rules<'_>) -> Result<(), BadSeries> {
    let limits = rules.limits;
    if limits == LabelLimits::default() {
        return Ok(());
    }
    let all = || {
        let own = written.iter().map(|(n, v)| (n.as_ref(), v.as_ref()));
        let target = rules.target.iter().filter(|(n, _)| !written.iter().any(|(own, _)| own == n));
        own.chain(target).filter(|(_, value)| !value.is_empty())
    };
    let exceeded = |what: String| Err(BadSeries::Limit(what));
    let count = all().count();
    if limits.labels > 0 && count > limits.labels {
        return exceeded(format!("it has {count} labels, more than label_limit ({})", limits.labels));
    }
    for (name, value) in all() {
        if limits.name_bytes > 0 && name.len() > limits.name_bytes {
            let (name, most) = (cut(name), limits.name_bytes);
            return exceeded(format!(
                "the name of label `{name}` is longer than label_name_length_limit ({most})"
            ));
        }
        if limits.value_bytes > 0 && value.len() > limits.value_bytes {
            let (name, most) = (cut(name), limits.value_bytes);
            return exceeded(format!(
                "the value of label `{name}` is longer than label_value_length_limit ({most})"
            ));
        }
    }
    Ok(())
}

/// A name as a message shows it.
fn cut(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegel_proto::metrics::full_labels;

    fn pairs<'a>(all: &[(&'a str, &'a str)]) -> Vec<Pair<'a>> {
        all.iter().map(|(n, v)| (Cow::Borrowed(*n), Cow::Borrowed(*v))).collect()
    }

    fn full(own: &[(&str, &str)], target: &[(&str, &str)], honor_labels: bool) -> Vec<(String, String)> {
        let target = Labels::new(target.iter().copied()).unwrap();
        let rules = Rules { target: &target, honor_labels, limits: LabelLimits::default() };
        let own = own_labels(pairs(own), rules).unwrap();
        full_labels(&target, &own).into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    }

    fn owned(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    // The cases of Prometheus' `TestScrapeLoop…HonorLabels` in shape.
    #[test]
    fn clashing_labels_are_exported_unless_they_are_honoured() {
        let own = [("__name__", "m"), ("n", "1")];
        assert_eq!(
            full(&own, &[("n", "2")], false),
            owned(&[("__name__", "m"), ("exported_n", "1"), ("n", "2")])
        );
        assert_eq!(full(&own, &[("n", "2")], true), owned(&[("__name__", "m"), ("n", "1")]));
    }

    #[test]
    fn an_empty_label_takes_the_targets_away_only_when_honoured() {
        let own = [("__name__", "m"), ("n", ""), ("free", "")];
        assert_eq!(full(&own, &[("n", "2")], true), owned(&[("__name__", "m")]));
        assert_eq!(full(&own, &[("n", "2")], false), owned(&[("__name__", "m"), ("n", "2")]));
    }

    #[test]
    fn exported_is_put_before_until_the_name_is_free() {
        let own = [("__name__", "m"), ("foo", "1"), ("exported_foo", "2")];
        let target = [("foo", "3"), ("exported_foo", "4")];
        assert_eq!(
            full(&own, &target, false),
            owned(&[
                ("__name__", "m"),
                ("exported_exported_exported_foo", "2"),
                ("exported_exported_foo", "1"),
                ("exported_foo", "4"),
                ("foo", "3"),
            ])
        );
        assert_eq!(
            full(&[("__name__", "m"), ("foo", "1"), ("exported_foo", "2")], &[("foo", "3")], false),
            owned(&[("__name__", "m"), ("exported_exported_foo", "1"), ("exported_foo", "2"), ("foo", "3")])
        );
    }

    #[test]
    fn series_that_cannot_be_stored_are_refused_with_the_reason() {
        let target = Labels::new([("job", "j")]).unwrap();
        let limits = LabelLimits { labels: 3, name_bytes: 10, value_bytes: 5 };
        let refused = |own: &[(&str, &str)]| {
            own_labels(pairs(own), Rules { target: &target, honor_labels: false, limits }).unwrap_err()
        };
        assert_eq!(
            refused(&[("__name__", "m"), ("a", "1"), ("a", "2")]),
            BadSeries::DuplicateLabel("a".into())
        );
        assert_eq!(refused(&[("__name__", "")]), BadSeries::NoName);
        assert_eq!(refused(&[("__name__", "m"), ("", "1")]), BadSeries::EmptyLabelName);
        for (own, reason) in [
            (("b", "123456"), "label_value_length_limit (5)"),
            (("long_name_indeed", "1"), "label_name_length_limit (10)"),
        ] {
            let error = refused(&[("__name__", "m"), own]).to_string();
            assert!(error.contains(reason), "{error}");
        }
        let error = refused(&[("__name__", "m"), ("a", "1"), ("b", "2")]).to_string();
        assert!(error.contains("4 labels"), "{error}");
    }
}
