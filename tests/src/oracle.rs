//! Compares what a backend holds with what the exporter served.

use crate::exporter::STRIDE;
use crate::prometheus::RawSamples;
use std::collections::{BTreeMap, BTreeSet};

/// What a backend holds of one exporter.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// Scrape numbers that every series holds.
    pub complete: BTreeSet<u64>,
    /// Scrape numbers that some series hold and others don't.
    pub partial: BTreeSet<u64>,
    /// Samples in all.
    pub samples: u64,
}

/// Reads the holdings and checks that nothing is invented, different, repeated or out of place: each series holds
/// values of its own only, each scrape once, at instants that rise with the scrapes.
pub fn holdings(raw: &BTreeMap<String, RawSamples>, series: u64, served: u64) -> Result<Holdings, String> {
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let mut samples = 0;
    for (labels, values) in raw {
        let metric: serde_json::Value = serde_json::from_str(labels).map_err(|e| e.to_string())?;
        let number: u64 =
            metric["series"].as_str().and_then(|s| s.parse().ok()).ok_or("a series without number")?;
        let mut last = 0;
        for (at_ms, value) in values {
            let value = *value as u64;
            let scrape = value / STRIDE;
            if value % STRIDE != number || scrape == 0 || scrape > served {
                return Err(format!("{labels} holds {value} at {at_ms}, which was never served"));
            }
            if scrape <= last {
                return Err(format!("{labels} holds scrape {scrape} at {at_ms} after scrape {last}"));
            }
            last = scrape;
            samples += 1;
            *seen.entry(scrape).or_default() += 1;
        }
    }
    let (complete, partial): (Vec<_>, Vec<_>) = seen.into_iter().partition(|(_, n)| *n == series);
    let numbers = |list: Vec<(u64, u64)>| list.into_iter().map(|(scrape, _)| scrape).collect();
    Ok(Holdings { complete: numbers(complete), partial: numbers(partial), samples })
}

/// The scrapes of `1..=served` that are not held completely.
pub fn missing(holdings: &Holdings, served: u64) -> Vec<u64> {
    (1..=served).filter(|scrape| !holdings.complete.contains(scrape)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(values: &[(i64, f64)]) -> BTreeMap<String, RawSamples> {
        [(r#"{"series":"3"}"#.to_owned(), values.to_vec())].into()
    }

    #[test]
    fn what_was_never_served_or_comes_twice_is_found() {
        assert!(holdings(&raw(&[(1, 1003.0), (2, 2003.0)]), 1, 2).is_ok());
        assert!(holdings(&raw(&[(1, 1004.0)]), 1, 2).is_err(), "a neighbour's value");
        assert!(holdings(&raw(&[(1, 3003.0)]), 1, 2).is_err(), "a scrape that never was");
        assert!(holdings(&raw(&[(1, 1003.0), (2, 1003.0)]), 1, 2).is_err(), "one scrape twice");
        assert!(holdings(&raw(&[(1, 2003.0), (2, 1003.0)]), 1, 2).is_err(), "in the wrong order");
    }

    #[test]
    fn missing_and_partial_scrapes_are_named() {
        let held = holdings(&raw(&[(1, 1003.0), (3, 3003.0)]), 1, 4).unwrap();
        assert_eq!(missing(&held, 4), [2, 4]);
        let of_two = holdings(&raw(&[(1, 1003.0)]), 2, 1).unwrap();
        assert_eq!(of_two.partial.len(), 1);
    }
}
