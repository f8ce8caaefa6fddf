//! A recording of scrapes as blocks.

use anyhow::{Context, Result, bail};
use pegel_proto::metrics::{Block, Family, Labels, MetricType, NAME_LABEL, Series, SeriesSet};
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

/// The window that the recordings were compressed with: 128 MiB.
const WINDOW_LOG: u32 = 27;

#[derive(Deserialize)]
struct Scrape {
    t_ms: i64,
    text: String,
}

/// Reads all scrapes of a file, one block each.
pub fn read(path: &Path) -> Result<Vec<Block>> {
    let what = || format!("cannot read the recording {}", path.display());
    let file = File::open(path).with_context(what)?;
    let mut unpacked = zstd::Decoder::new(file).with_context(what)?;
    unpacked.window_log_max(WINDOW_LOG).with_context(what)?;
    let mut parser = Exposition::default();
    let mut blocks = Vec::new();
    for (number, line) in BufReader::new(unpacked).lines().enumerate() {
        let place = || format!("{}, line {}", path.display(), number + 1);
        let scrape: Scrape = serde_json::from_str(&line.with_context(what)?).with_context(place)?;
        blocks.push(parser.parse(&scrape).with_context(place)?);
    }
    if blocks.is_empty() {
        bail!("the recording {} has no scrapes", path.display());
    }
    Ok(blocks)
}

/// A minimal parser of the text format: what exporters write, without time stamps or exemplars.
#[derive(Default)]
struct Exposition {
    target: Arc<Labels>,
    /// Series by their text before the value.
    series: HashMap<String, Arc<Series>>,
    families: HashMap<String, Arc<Family>>,
    last: Option<Arc<SeriesSet>>,
}

impl Exposition {
    fn parse(&mut self, scrape: &Scrape) -> Result<Block> {
        if self.target.is_empty() {
            self.target = Arc::new(Labels::new([("job", "node"), ("instance", "host-a:9100")])?);
        }
        let (mut family, mut help) = (Arc::<Family>::default(), String::new());
        let (mut series, mut values) = (Vec::new(), Vec::new());
        for line in scrape.text.lines().filter(|l| !l.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                rest.split_once(' ').map_or("", |(_, h)| h).clone_into(&mut help);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = self.family(rest, &help)?;
            } else if !line.starts_with('#') {
                let (key, value) = line.rsplit_once(' ').context("a line without a value")?;
                let one = if let Some(one) = self.series.get(key) {
                    one.clone()
                } else {
                    let one = Arc::new(Series::new(labels(key)?, family.clone()));
                    self.series.insert(key.to_owned(), one.clone());
                    one
                };
                series.push(one);
                values.push(value.parse::<f64>().with_context(|| format!("`{value}` is no value"))?);
            }
        }
        let set = match &self.last {
            Some(last) if last.series() == series => last.clone(),
            _ => Arc::new(SeriesSet::new(self.target.clone(), series)),
        };
        self.last = Some(set.clone());
        Ok(Block::new(scrape.t_ms, set, values))
    }

    fn family(&mut self, line: &str, help: &str) -> Result<Arc<Family>> {
        let (name, kind) = line.split_once(' ').context("a TYPE line without a type")?;
        if let Some(family) = self.families.get(name) {
            return Ok(family.clone());
        }
        let kind = match kind {
            "counter" => MetricType::Counter,
            "gauge" => MetricType::Gauge,
            "histogram" => MetricType::Histogram,
            "summary" => MetricType::Summary,
            _ => MetricType::Unknown,
        };
        let family = Arc::new(Family { name: name.into(), kind, help: help.into(), unit: "".into() });
        self.families.insert(name.to_owned(), family.clone());
        Ok(family)
    }
}

fn labels(key: &str) -> Result<Labels> {
    let (name, mut rest) = key.split_once('{').unwrap_or((key, "}"));
    let mut pairs = vec![(NAME_LABEL.to_owned(), name.to_owned())];
    while rest != "}" {
        let (label, after) = rest.split_once("=\"").context("a label without a value")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().context("a label value without an end")? {
                (at, '"') => break at,
                (_, '\\') => match chars.next().context("a label value without an end")?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        pairs.push((label.to_owned(), value));
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Ok(Labels::new(pairs)?)
}
