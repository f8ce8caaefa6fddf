//! Regions of an exposition: the metadata lines between samples, and the family that they describe.
//!
//! The series that follow a region belong to the family that it names last, if their names fit its type; that is
//! how Prometheus relates the two. Whether a region is the one of the scrape before is seen by a hash of its text;
//! while it stays the same, hashing is all that metadata costs ([`RegionScan::skip`]).

use super::exposition::{Entry, Exposition, Format};
use pegel_proto::caps;
use pegel_proto::metrics::{Family, MetricType};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A region of a shape.
#[derive(Debug, Clone)]
pub(super) struct Region {
    hash: u64,
    length: usize,
    /// The type in force after it.
    kind: MetricType,
    /// What it describes; the region before the first metadata describes nothing.
    pub(super) family: Option<Arc<Family>>,
}

/// A region of the body at hand.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScannedRegion {
    start: usize,
    end: usize,
    /// The type in force after it.
    pub(super) kind: MetricType,
    hash: u64,
    /// The region of the shape that says the same.
    pub(super) same: Option<u32>,
}

/// Finds the regions of a body.
pub(super) struct RegionScan<'a> {
    found: &'a mut Vec<ScannedRegion>,
    before: &'a [Region],
    /// Whether `before` is of the same format, so that equal text means the same.
    comparable: bool,
    next: usize,
    open: Option<usize>,
}

impl<'a> RegionScan<'a> {
    pub(super) fn new(found: &'a mut Vec<ScannedRegion>, before: &'a [Region], comparable: bool) -> Self {
        found.clear();
        let mut scan = Self { found, before, comparable, next: 0, open: Some(0) };
        // The region before the first metadata: every sample has one.
        scan.end(&[], 0, MetricType::Unknown);
        scan
    }

    /// If the region that comes next in the shape comes next in the body, whole, notes it and says how long it is and
    /// which type is in force after it.
    pub(super) fn skip(&mut self, body: &[u8], position: usize) -> Option<(usize, MetricType)> {
        let region = self.before.get(self.next).filter(|_| self.comparable && self.open.is_none())?;
        let end = position + region.length;
        // Only a sample ends a region. Whatever else follows is to be read to know.
        if body.get(position) != Some(&b'#') || matches!(body.get(end)?, b'#' | b' ' | b'\t' | b'\n') {
            return None;
        }
        let (hash, kind) = (region.hash, region.kind);
        if xxh3_64_with_seed(&body[position..end], kind as u64) != hash {
            return None;
        }
        let same = Some(self.next as u32);
        self.found.push(ScannedRegion { start: position, end, kind, hash, same });
        self.next += 1;
        Some((region.length, kind))
    }

    /// A metadata line at `position`.
    pub(super) fn begin(&mut self, position: usize) {
        self.open.get_or_insert(position);
    }

    /// A sample: whatever region is open ends before `position`.
    pub(super) fn end(&mut self, body: &[u8], position: usize, kind: MetricType) {
        let Some(start) = self.open.take() else { return };
        let hash = xxh3_64_with_seed(&body[start..position], kind as u64);
        let (past, coming) = self.before.split_at(self.next.min(self.before.len()));
        let same = match coming.iter().position(|region| region.hash == hash) {
            Some(ahead) => Some(past.len() + ahead),
            None => past.iter().position(|region| region.hash == hash),
        };
        self.next = same.map_or(self.next, |index| index + 1);
        self.found.push(ScannedRegion { start, end: position, kind, hash, same: same.map(|i| i as u32) });
    }

    /// The region that the sample at hand is in.
    pub(super) fn current(&self) -> u32 {
        self.found.len() as u32 - 1
    }
}

impl ScannedRegion {
    /// The region to keep, sharing what `before` has of it.
    pub(super) fn keep(&self, body: &[u8], format: Format, before: &[Region]) -> Region {
        if let Some(same) = self.same {
            return before[same as usize].clone();
        }
        let family = described(&body[self.start..self.end], format).map(|family| {
            let kept = before.iter().filter_map(|region| region.family.as_ref());
            kept.into_iter().find(|kept| ***kept == family).cloned().unwrap_or_else(|| Arc::new(family))
        });
        Region { hash: self.hash, length: self.end - self.start, kind: self.kind, family }
    }
}

/// The family that metadata names last, with all that it says of it.
fn described(text: &[u8], format: Format) -> Option<Family> {
    let mut families: Vec<Family> = Vec::new();
    // In OpenMetrics the piece lacks its end mark; the error for that is the end.
    for entry in Exposition::new(text, format).map_while(Result::ok) {
        match entry {
            Entry::Help { family, text } => named(&mut families, &family).help = cut_help(&text).into(),
            Entry::Type { family, kind } => named(&mut families, &family).kind = kind,
            Entry::Unit { family, unit } => named(&mut families, &family).unit = unit.into(),
            Entry::Sample(_) => {}
        }
    }
    families.pop()
}

/// The family of a name, last in the list.
fn named<'a>(families: &'a mut Vec<Family>, name: &str) -> &'a mut Family {
    match families.iter().position(|family| &*family.name == name) {
        Some(index) => {
            let family = families.remove(index);
            families.push(family);
        }
        None => families.push(Family { name: name.into(), ..Family::default() }),
    }
    families.last_mut().expect("pushed above")
}

fn cut_help(text: &str) -> &str {
    &text[..text.floor_char_boundary(caps::MAX_HELP_BYTES)]
}

/// Whether a metric of this name belongs to a family: it has the family's name, with the endings that metrics of
/// its type have.
pub(super) fn belongs(name: &str, family: &Family) -> bool {
    let endings: &[&str] = match family.kind {
        MetricType::Counter => &["_total"],
        MetricType::Histogram => &["_bucket", "_sum", "_count"],
        MetricType::GaugeHistogram => &["_bucket", "_gsum", "_gcount"],
        MetricType::Summary => &["_sum", "_count"],
        MetricType::Info => &["_info"],
        MetricType::Unknown | MetricType::Gauge | MetricType::StateSet => &[],
    };
    let stem = endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    // The text format names counters and infos with their ending, OpenMetrics without.
    let family_stem = match family.kind {
        MetricType::Counter => family.name.strip_suffix("_total"),
        MetricType::Info => family.name.strip_suffix("_info"),
        _ => None,
    };
    stem == family_stem.unwrap_or(&family.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_belong_to_families_by_the_endings_of_their_type() {
        let family = |name: &str, kind| Family { name: name.into(), kind, ..Family::default() };
        for (name, of, kind, yes) in [
            ("a_total", "a", MetricType::Counter, true),
            ("a_total", "a_total", MetricType::Counter, true),
            ("a", "a", MetricType::Counter, true),
            ("a_bucket", "a", MetricType::Histogram, true),
            ("a_bucket", "a", MetricType::Summary, false),
            ("a_sum", "a", MetricType::Summary, true),
            ("a_gsum", "a", MetricType::GaugeHistogram, true),
            ("a_info", "a", MetricType::Info, true),
            ("a_total", "a", MetricType::Gauge, false),
            ("ab", "a", MetricType::Unknown, false),
        ] {
            assert_eq!(belongs(name, &family(of, kind)), yes, "{name} of {of} {kind:?}");
        }
    }

    #[test]
    fn a_region_describes_the_family_that_it_names_last() {
        let text = b"# HELP a A.\n# TYPE a gauge\n# TYPE b_seconds counter\n# UNIT b_seconds seconds\n";
        let family = described(text, Format::OpenMetrics).unwrap();
        assert_eq!(
            (&*family.name, family.kind, &*family.unit),
            ("b_seconds", MetricType::Counter, "seconds")
        );
        assert_eq!(described(b"", Format::Text), None);
    }
}
