//! One file of the textfile collector: from its text to series.
//!
//! The format is Prometheus text 0.0.4 as node_exporter's parser reads it, which is stricter than a scraper's: the
//! last line has to end (a file that is still being written would pass for whole otherwise), `# HELP` and `# TYPE`
//! come once a family and `# TYPE` before its samples, names are plain, and no sample has a timestamp of its own.

use crate::source::scrape::exposition::{Entry, Exposition, Format, ParseError, Sample, labels};
use crate::source::scrape::own_labels::{BadSeries, Rules, own_labels};
use crate::source::scrape::settings::LabelLimits;
use pegel_proto::metrics::{Family, Labels, MetricType, Series};
use std::collections::HashMap;
use std::sync::Arc;

/// The samples of one family in a file.
#[derive(Debug)]
pub(super) struct ParsedFamily {
    pub(super) name: String,
    /// The help text; none if the file has none.
    pub(super) help: Option<String>,
    pub(super) kind: MetricType,
    pub(super) samples: Vec<(Arc<Series>, f64)>,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadText {
    /// It is not in the format.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It is, but not as files are written.
    #[error("line {line}: {reason}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A series cannot be moved.
    #[error("line {line}: {source}")]
    Series {
        /// The line, from 1.
        line: usize,
        /// Why.
        source: BadSeries,
    },
}

/// What is known of a family while its file is read.
#[derive(Default)]
struct Draft {
    name: String,
    help: Option<String>,
    kind: Option<MetricType>,
    samples: Vec<(Labels, f64)>,
}

/// Reads a file. `target` has the labels that the series get besides their own, which are renamed if they clash, as a
/// scraper would; `known` are series of before, which stay the same ones where they are equal.
pub(super) fn parse(
    text: &[u8],
    target: &Labels,
    known: &HashMap<u64, Arc<Series>>,
) -> Result<Vec<ParsedFamily>, BadText> {
    let mut families = Families::default();
    let mut body = Exposition::new(text, Format::Text);
    loop {
        let begins = body.position();
        let kind = body.kind();
        let Some(entry) = body.next_entry(None) else { break };
        let bad = |at, reason: String| BadText::Line { line: line_of(text, at), reason };
        match entry? {
            Entry::Help { family, text: help } => {
                let draft = families.named(&family);
                if draft.help.replace(help.into_owned()).is_some() {
                    let at = body.position().saturating_sub(1);
                    return Err(bad(at, format!("a second # HELP of `{family}`")));
                }
            }
            Entry::Type { family, kind } => {
                let draft = families.named(&family);
                if draft.kind.replace(kind).is_some() || !draft.samples.is_empty() {
                    let at = body.position().saturating_sub(1);
                    return Err(bad(at, format!("a second # TYPE of `{family}`, or one after its samples")));
                }
            }
            Entry::Unit { .. } => {}
            Entry::Sample(sample) => {
                let at = sample.at.max(begins);
                if sample.stamp_ms.is_some() {
                    let reason = "a timestamp, which textfiles cannot have: the file's is taken; remove it";
                    return Err(bad(at, reason.to_owned()));
                }
                let own = series_labels(&sample, kind, target)
                    .map_err(|source| BadText::Series { line: line_of(text, at), source })?;
                let plain = own.iter().all(|(name, _)| is_plain(name, false));
                let name = own.value("__name__").unwrap_or_default();
                if !plain || !is_plain(name, true) {
                    return Err(bad(
                        at,
                        format!("`{name}` or a label has a name of other than plain letters"),
                    ));
                }
                families.of_sample(name).samples.push((own, sample.value));
            }
        }
    }
    if text.last().is_some_and(|last| *last != b'\n') {
        let reason = "the last line does not end: the file is cut off or still being written; \
                      write it beside and rename it";
        return Err(BadText::Line { line: line_of(text, text.len() - 1), reason: reason.to_owned() });
    }
    Ok(families
        .all
        .into_iter()
        .filter(|draft| !draft.samples.is_empty())
        .map(|draft| draft.finish(known))
        .collect())
}

fn series_labels(sample: &Sample<'_>, kind: MetricType, target: &Labels) -> Result<Labels, BadSeries> {
    let written = labels::decode(sample.series, Format::Text, kind).ok_or(BadSeries::NoName)?;
    own_labels(written, Rules { target, honor_labels: false, limits: LabelLimits::default() })
}

/// Whether a name is one of those that need no quotes; only metrics' may hold colons.
fn is_plain(name: &str, colons: bool) -> bool {
    let fits = |(place, byte): (usize, u8)| {
        byte.is_ascii_alphabetic()
            || byte == b'_'
            || (colons && byte == b':')
            || (place > 0 && byte.is_ascii_digit())
    };
    !name.is_empty() && name.bytes().enumerate().all(fits)
}

fn line_of(text: &[u8], at: usize) -> usize {
    1 + memchr::memchr_iter(b'\n', &text[..at.min(text.len())]).count()
}

/// The families of a file in the order in which they are first named.
#[derive(Default)]
struct Families {
    all: Vec<Draft>,
    places: HashMap<String, usize>,
}

impl Families {
    fn named(&mut self, name: &str) -> &mut Draft {
        let known = self.places.get(name).copied();
        let place = known.unwrap_or_else(|| {
            self.places.insert(name.to_owned(), self.all.len());
            self.all.push(Draft { name: name.to_owned(), ..Draft::default() });
            self.all.len() - 1
        });
        &mut self.all[place]
    }

    /// The family of a sample: histograms and summaries have samples under longer names.
    fn of_sample(&mut self, name: &str) -> &mut Draft {
        let part_of = |suffix: &str, kinds: &[MetricType]| {
            let base = name.strip_suffix(suffix)?;
            let place = self.places.get(base)?;
            self.all[*place].kind.is_some_and(|kind| kinds.contains(&kind)).then(|| base.to_owned())
        };
        let both = [MetricType::Histogram, MetricType::Summary];
        let base = if self.places.contains_key(name) {
            None
        } else {
            part_of("_bucket", &[MetricType::Histogram])
                .or_else(|| part_of("_sum", &both))
                .or_else(|| part_of("_count", &both))
        };
        self.named(base.as_deref().unwrap_or(name))
    }
}

impl Draft {
    fn finish(self, known: &HashMap<u64, Arc<Series>>) -> ParsedFamily {
        let family = Arc::new(Family {
            name: self.name.as_str().into(),
            kind: self.kind.unwrap_or_default(),
            help: self.help.as_deref().unwrap_or_default().into(),
            unit: "".into(),
        });
        let series = |labels: Labels| {
            let new = Series::new(labels, family.clone());
            known
                .get(&new.fingerprint())
                .filter(|known| ***known == new)
                .cloned()
                .unwrap_or_else(|| Arc::new(new))
        };
        ParsedFamily {
            name: self.name,
            help: self.help,
            kind: self.kind.unwrap_or_default(),
            samples: self.samples.into_iter().map(|(labels, value)| (series(labels), value)).collect(),
        }
    }
}
