//! The same samples as Prometheus remote write, 1.0 and 2.0, one request a scrape, snappy-compressed.
//! The messages are those fields of prompb/types.proto, prompb/remote.proto and io/prometheus/write/v2/types.proto
//! that samples and metadata need.

use anyhow::{Result, ensure};
use pegel_proto::metrics::{Block, MetricType, full_labels};
use prost::Message;
use std::collections::HashMap;

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Series1 {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Request1 {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<Series1>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
    #[prost(uint32, tag = "4")]
    unit_ref: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Series2 {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct Request2 {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<Series2>,
}

fn sample(block: &Block, index: usize) -> Sample {
    Sample { value: block.values[index], timestamp: block.stamp_ms(index) }
}

/// All samples, as their block and their index in it.
fn samples(blocks: &[Block]) -> impl Iterator<Item = (&Block, usize)> {
    blocks.iter().flat_map(|block| (0..block.values.len()).map(move |index| (block, index)))
}

fn pack(message: &impl Message) -> Result<Vec<u8>> {
    Ok(snap::raw::Encoder::new().compress_vec(&message.encode_to_vec())?)
}

/// Scrapes as one request of remote write 1.0, decoded again and compared.
pub fn version_1(blocks: &[Block]) -> Result<usize> {
    let mut timeseries = Vec::new();
    for (block, index) in samples(blocks) {
        let series = &block.set.series()[index];
        let labels = full_labels(block.set.target(), series.labels())
            .into_iter()
            .map(|(name, value)| Label { name: name.into(), value: value.into() })
            .collect();
        timeseries.push(Series1 { labels, samples: vec![sample(block, index)] });
    }
    let packed = pack(&Request1 { timeseries })?;
    let arrived = Request1::decode(&*snap::raw::Decoder::new().decompress_vec(&packed)?)?;
    let values = arrived.timeseries.iter().flat_map(|s| &s.samples);
    compare(blocks, values)?;
    Ok(packed.len())
}

/// The symbols of one request.
#[derive(Default)]
struct Symbols<'a> {
    refs: HashMap<&'a str, u32>,
    all: Vec<String>,
}

impl<'a> Symbols<'a> {
    fn refer(&mut self, text: &'a str) -> u32 {
        *self.refs.entry(text).or_insert_with(|| {
            self.all.push(text.to_owned());
            self.all.len() as u32 - 1
        })
    }
}

/// Scrapes as one request of remote write 2.0 with its symbols and metadata, decoded again and compared. Prometheus
/// sends type, unit and help text of each series with every request; a sender may leave them away.
pub fn version_2(blocks: &[Block], with_metadata: bool) -> Result<usize> {
    let mut symbols = Symbols::default();
    symbols.refer("");
    let mut timeseries = Vec::new();
    for (block, index) in samples(blocks) {
        let series = &block.set.series()[index];
        let mut labels_refs = Vec::new();
        for (name, value) in full_labels(block.set.target(), series.labels()) {
            labels_refs.push(symbols.refer(name));
            labels_refs.push(symbols.refer(value));
        }
        let family = series.family();
        let metadata = Metadata {
            kind: match family.kind {
                MetricType::Unknown => 0,
                MetricType::Counter => 1,
                MetricType::Gauge => 2,
                MetricType::Histogram => 3,
                MetricType::GaugeHistogram => 4,
                MetricType::Summary => 5,
                MetricType::Info => 6,
                MetricType::StateSet => 7,
            },
            help_ref: symbols.refer(if with_metadata { &family.help } else { "" }),
            unit_ref: symbols.refer(&family.unit),
        };
        timeseries.push(Series2 {
            labels_refs,
            samples: vec![sample(block, index)],
            metadata: with_metadata.then_some(metadata),
        });
    }
    let packed = pack(&Request2 { symbols: symbols.all, timeseries })?;
    let arrived = Request2::decode(&*snap::raw::Decoder::new().decompress_vec(&packed)?)?;
    let values = arrived.timeseries.iter().flat_map(|s| &s.samples);
    compare(blocks, values)?;
    Ok(packed.len())
}

fn compare<'a>(blocks: &[Block], arrived: impl Iterator<Item = &'a Sample>) -> Result<()> {
    let arrived: Vec<_> = arrived.map(|s| (s.value.to_bits(), s.timestamp)).collect();
    let sent: Vec<_> = samples(blocks).map(|(b, i)| (b.values[i].to_bits(), b.stamp_ms(i))).collect();
    ensure!(arrived == sent, "remote write did not arrive as it was sent");
    Ok(())
}
