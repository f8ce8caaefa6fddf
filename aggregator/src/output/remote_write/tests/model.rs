//! A model of remote-write receivers: decodes requests with prost and treats samples as Prometheus' head does.

use super::super::Version;
use super::super::answer::Response;
use prost::Message;
use std::collections::BTreeMap;
use std::fmt::Write as _;

#[derive(Message)]
pub struct V1Request {
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<V1Series>,
}

#[derive(Message)]
pub struct V1Series {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

#[derive(Message)]
pub struct Label {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Message)]
pub struct Sample {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

#[derive(Message)]
pub struct V2Request {
    #[prost(string, repeated, tag = "4")]
    pub symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    pub timeseries: Vec<V2Series>,
}

#[derive(Message)]
pub struct V2Series {
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    #[prost(message, optional, tag = "5")]
    pub metadata: Option<Metadata>,
}

#[derive(Message)]
pub struct Metadata {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(uint32, tag = "3")]
    pub help_ref: u32,
    #[prost(uint32, tag = "4")]
    pub unit_ref: u32,
}

/// A time series of a request: labels as Prometheus writes them, samples as times and bits.
pub type Written = (String, Vec<(i64, u64)>);

pub fn spell<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::from("{");
    for (i, (name, value)) in labels.enumerate() {
        let _ = write!(out, "{}{name}={value:?}", if i > 0 { ", " } else { "" });
    }
    out + "}"
}

/// Decodes a request as a receiver does.
pub fn decode(version: Version, body: &[u8]) -> Vec<Written> {
    let message = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    let bits = |samples: &[Sample]| samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
    match version {
        Version::V1 => V1Request::decode(&*message)
            .unwrap()
            .timeseries
            .iter()
            .map(|s| (spell(s.labels.iter().map(|l| (&*l.name, &*l.value))), bits(&s.samples)))
            .collect(),
        Version::V2 => {
            let request = V2Request::decode(&*message).unwrap();
            assert_eq!(request.symbols[0], "");
            let text = |r: &u32| request.symbols[*r as usize].as_str();
            request
                .timeseries
                .iter()
                .map(|s| {
                    (spell(s.labels_refs.chunks(2).map(|p| (text(&p[0]), text(&p[1])))), bits(&s.samples))
                })
                .collect()
        }
    }
}

/// Whose behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 1.0 rolls back, 2.0 stores the rest and names the others.
    Prometheus,
    /// 2.0 stores the rest, counts, and names one (Mimir).
    Mimir,
    /// 1.0 stores the rest and answers 409; 2.0 is 415.
    Thanos,
    /// Takes all that it understands; a 2.0 message is an empty 1.0 one.
    VictoriaMetrics,
}

pub struct Model {
    pub kind: Kind,
    /// More samples are 413.
    pub max_samples: usize,
    pub store: BTreeMap<String, Vec<(i64, u64)>>,
    pub head_max_ms: i64,
    pub now_ms: i64,
    /// Samples that were dropped without a word.
    pub silently_dropped: u64,
}

impl Model {
    pub fn new(kind: Kind, now_ms: i64) -> Self {
        Self {
            kind,
            max_samples: usize::MAX,
            store: BTreeMap::new(),
            head_max_ms: now_ms,
            now_ms,
            silently_dropped: 0,
        }
    }

    pub fn holds(&self, series: &str, stamp: i64, bits: u64) -> bool {
        self.store.get(series).is_some_and(|samples| samples.contains(&(stamp, bits)))
    }

    /// `appendable` in tsdb/head_append.go, without an out-of-order window.
    fn check(&self, series: &str, stamp: i64, bits: u64) -> Result<(), String> {
        if self.kind == Kind::VictoriaMetrics {
            return Ok(());
        }
        if series.contains("weird") {
            return Err("the stars are wrong".into());
        }
        if stamp > self.now_ms + 600_000 {
            return Err("out of bounds: timestamp is too far in the future".into());
        }
        if stamp < self.head_max_ms - 3_600_000 {
            return Err("out of bounds".into());
        }
        match self.store.get(series).and_then(|samples| samples.last()) {
            Some((last, _)) if stamp < *last => Err("out of order sample".into()),
            Some((last, held)) if stamp == *last && bits != *held => Err(format!(
                "duplicate sample for timestamp {stamp}; overrides not allowed: existing {}, new value {}",
                f64::from_bits(*held),
                f64::from_bits(bits)
            )),
            _ => Ok(()),
        }
    }

    fn commit(&mut self, good: Vec<(String, i64, u64)>) {
        for (series, stamp, bits) in good {
            let samples = self.store.entry(series).or_default();
            match samples.last() {
                Some((last, held)) if stamp == *last && bits == *held => {}
                Some((last, _)) if stamp <= *last && self.kind != Kind::VictoriaMetrics => {
                    self.silently_dropped += 1;
                }
                _ => samples.push((stamp, bits)),
            }
            self.head_max_ms = self.head_max_ms.max(stamp);
        }
    }

    /// Takes a request and answers.
    pub fn receive(&mut self, version: Version, body: &[u8]) -> Response {
        let answer =
            |status, message: &str| Response { status, message: message.into(), ..Response::default() };
        match (self.kind, version) {
            (Kind::Thanos, Version::V2) => return answer(415, "unsupported media type"),
            (Kind::VictoriaMetrics, Version::V2) => return answer(204, ""),
            _ => {}
        }
        let request = decode(version, body);
        let total: usize = request.iter().map(|(_, samples)| samples.len()).sum();
        if total > self.max_samples {
            return answer(413, "too large");
        }
        let (mut good, mut errors) = (Vec::new(), Vec::new());
        for (series, samples) in request {
            for (stamp, bits) in samples {
                match self.check(&series, stamp, bits) {
                    Ok(()) => good.push((series.clone(), stamp, bits)),
                    Err(error) => errors.push((error, series.clone())),
                }
            }
        }
        let written = (version == Version::V2).then_some(good.len() as u64);
        if errors.is_empty() {
            self.commit(good);
            return Response { status: 204, written, ..Response::default() };
        }
        let lines: Vec<_> =
            errors.iter().map(|(error, series)| format!("{error} for series {series}")).collect();
        match (self.kind, version) {
            (Kind::Prometheus, Version::V1) => answer(400, &errors[0].0),
            (Kind::Prometheus, Version::V2) => {
                self.commit(good);
                Response { written, ..answer(400, &(lines.join("\n") + "\n")) }
            }
            (Kind::Thanos, _) => {
                self.commit(good);
                answer(409, &format!("store locally: add 1 samples: {}", errors[0].0))
            }
            (Kind::Mimir, _) => {
                self.commit(good);
                let message = format!("failed pushing to ingester (err-mimir-x): {}", lines[0]);
                Response { written, ..answer(400, &message) }
            }
            (Kind::VictoriaMetrics, _) => unreachable!("it takes everything"),
        }
    }
}
