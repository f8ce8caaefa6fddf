//! A recording of scrapes as blocks.

use anyhow::{Context, Result, bail};
use pegel_agent::source::scrape::exposition::{Entry, Exposition, Format, labels};
use pegel_proto::metrics::{Block, Family, Labels, MetricType, Series, SeriesSet};
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
    let mut shapes = Shapes::default();
    let mut blocks = Vec::new();
    for (number, line) in BufReader::new(unpacked).lines().enumerate() {
        let place = || format!("{}, line {}", path.display(), number + 1);
        let scrape: Scrape = serde_json::from_str(&line.with_context(what)?).with_context(place)?;
        blocks.push(shapes.block(&scrape).with_context(place)?);
    }
    if blocks.is_empty() {
        bail!("the recording {} has no scrapes", path.display());
    }
    Ok(blocks)
}

/// Turns texts into blocks with the agent's own parser.
#[derive(Default)]
struct Shapes {
    target: Arc<Labels>,
    /// Series by their text before the value.
    series: HashMap<Vec<u8>, Arc<Series>>,
    families: HashMap<String, Arc<Family>>,
    last: Option<Arc<SeriesSet>>,
}

impl Shapes {
    fn block(&mut self, scrape: &Scrape) -> Result<Block> {
        if self.target.is_empty() {
            self.target = Arc::new(Labels::new([("job", "node"), ("instance", "host-a:9100")])?);
        }
        let (mut family, mut help) = (Arc::<Family>::default(), String::new());
        let (mut series, mut values) = (Vec::new(), Vec::new());
        for entry in Exposition::new(scrape.text.as_bytes(), Format::Text) {
            match entry? {
                Entry::Help { text, .. } => help = text.into_owned(),
                Entry::Type { family: name, kind } => family = self.family(&name, kind, &help),
                Entry::Unit { .. } => {}
                Entry::Sample(sample) => {
                    series.push(self.series(sample.series, &family)?);
                    values.push(sample.value);
                }
            }
        }
        let set = match &self.last {
            Some(last) if last.series() == series => last.clone(),
            _ => Arc::new(SeriesSet::new(self.target.clone(), series)),
        };
        self.last = Some(set.clone());
        Ok(Block::new(scrape.t_ms, set, values))
    }

    fn series(&mut self, text: &[u8], family: &Arc<Family>) -> Result<Arc<Series>> {
        if let Some(known) = self.series.get(text) {
            return Ok(known.clone());
        }
        let pairs = labels::decode(text, Format::Text, family.kind).context("a series that can't be read")?;
        let labels = Labels::new(pairs.into_iter().map(|(name, value)| (name, value.into_owned())))?;
        let series = Arc::new(Series::new(labels, family.clone()));
        self.series.insert(text.to_owned(), series.clone());
        Ok(series)
    }

    fn family(&mut self, name: &str, kind: MetricType, help: &str) -> Arc<Family> {
        let family = || Arc::new(Family { name: name.into(), kind, help: help.into(), unit: "".into() });
        self.families.entry(name.to_owned()).or_insert_with(family).clone()
    }
}
