//! A model of Loki 3.7: its distributor's checks, its ingester's, and what of their answers reaches the client.

use super::super::answer::Response;
use super::super::labels::parse;
use super::super::piece::Piece;
use super::super::shard::Holdings;
use super::{HOUR, SECOND};
use prost::Message;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::Instant;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Message)]
pub struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    pub streams: Vec<Stream>,
}

#[derive(Message)]
pub struct Stream {
    #[prost(string, tag = "1")]
    pub labels: String,
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<Entry>,
}

#[derive(Message)]
pub struct Entry {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    pub line: String,
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<Pair>,
}

#[derive(Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

#[derive(Message)]
pub struct Pair {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

impl Entry {
    pub fn at_ns(&self) -> i64 {
        self.timestamp.as_ref().map_or(0, |t| t.seconds * SECOND + i64::from(t.nanos))
    }
}

pub fn decode(body: &[u8]) -> PushRequest {
    PushRequest::decode(&*snap::raw::Decoder::new().decompress_vec(body).unwrap()).unwrap()
}

pub const MAX_LINE: usize = 1_000;
const MAX_AGE: i64 = 7 * 24 * HOUR;
const GRACE: i64 = 600 * SECOND;

#[derive(Default)]
pub struct Stored {
    pub entries: BTreeMap<(i64, String), u64>,
    newest_ns: i64,
    tokens: f64,
    filled: Option<Instant>,
}

pub struct Model {
    pub now_ns: i64,
    /// More bytes of a message are 413 or, at the next hop, 500.
    pub max_message: usize,
    pub rate: f64,
    pub burst: f64,
    /// Whether a stream over its rate is refused as a whole.
    pub whole_streams: bool,
    pub streams: HashMap<String, Stored>,
    /// How many streams `x…` there is room for beside the others.
    pub room: usize,
    /// Entries that were refused without a word.
    pub silently_dropped: u64,
}

impl Model {
    pub fn copies(&self, stream: &str, at_ns: i64, line: &str) -> u64 {
        let stored = self.streams.get(stream);
        stored.and_then(|s| s.entries.get(&(at_ns, line.to_owned()))).copied().unwrap_or(0)
    }

    /// Takes a request and answers.
    pub fn receive(&mut self, body: &[u8], now: Instant) -> Response {
        let request = decode(body);
        let answer = |status, message: String| Response { status, message, retry_after: None };
        let size = request.encoded_len();
        if size > self.max_message {
            return if size.is_multiple_of(2) {
                answer(413, "too large".into())
            } else {
                answer(
                    500,
                    "rpc error: code = ResourceExhausted desc = grpc: received message larger than max"
                        .into(),
                )
            };
        }
        if request.streams.iter().any(|stream| parse(&stream.labels).is_none_or(|(_, rest)| !rest.is_empty()))
        {
            return answer(400, "couldn't parse labels: 1:3: parse error: unexpected character".into());
        }
        let mut complaints: HashMap<String, u64> = HashMap::new();
        let mut refusal: Option<(Response, u64)> = None;
        for stream in &request.streams {
            // `service_name` is discovered.
            let shown = stream.labels.replace(", tenant=", ", service_name=\"unknown_service\", tenant=");
            if stream.labels.contains("too-many-labels") {
                *complaints
                    .entry(format!("entry for stream '{shown}' has 17 label names; limit 15"))
                    .or_default() += 1;
                continue;
            }
            let good: Vec<&Entry> = stream
                .entries
                .iter()
                .filter(|entry| match self.check(&shown, entry) {
                    Ok(()) => true,
                    Err(complaint) => {
                        *complaints.entry(complaint).or_default() += 1;
                        false
                    }
                })
                .collect();
            if good.is_empty() {
                continue;
            }
            let result = self.push(&stream.labels, &shown, &good, now);
            if let Some((_, ignored)) = &refusal {
                self.silently_dropped += ignored;
            }
            refusal = result;
        }
        let Some((refusal, _)) = refusal else {
            if complaints.is_empty() {
                return answer(204, String::new());
            }
            let several = complaints.len() > 1 || complaints.values().any(|n| *n > 1);
            let texts: Vec<_> = complaints
                .iter()
                .map(|(text, n)| if several { format!("{n} errors like: {text}") } else { text.clone() })
                .collect();
            return answer(400, texts.join("; ") + "\n");
        };
        refusal
    }

    fn check(&self, stream: &str, entry: &Entry) -> Result<(), String> {
        let at = entry.at_ns();
        let oldest = self.now_ns - MAX_AGE;
        if at < oldest {
            let (at, oldest) = (rfc3339(at), rfc3339(oldest));
            return Err(format!(
                "entry for stream '{stream}' has timestamp too old: {at}, oldest acceptable timestamp is: {oldest}"
            ));
        }
        if at > self.now_ns + GRACE {
            return Err(format!("entry for stream '{stream}' has timestamp too new: {}", rfc3339(at)));
        }
        if entry.line.len() > MAX_LINE {
            return Err(format!(
                "max entry size '{MAX_LINE}' bytes exceeded for stream '{stream}' while adding an entry with length '{}' bytes",
                entry.line.len()
            ));
        }
        Ok(())
    }

    /// What an ingester does with a stream: the answer if it ignores any entry, and how many.
    fn push(&mut self, key: &str, shown: &str, entries: &[&Entry], now: Instant) -> Option<(Response, u64)> {
        let is_extra = |key: &String| key.starts_with("{app=\"x");
        if is_extra(&key.to_owned())
            && !self.streams.contains_key(key)
            && self.streams.keys().filter(|key| is_extra(key)).count() >= self.room
        {
            let message = format!(
                "maximum active stream limit exceeded when trying to create stream {shown}, reduce the number of active streams (reduce labels or reduce label values), or contact your Loki administrator to see if the limit can be increased, user: 'acme'"
            );
            return Some((Response { status: 429, message, retry_after: None }, entries.len() as u64));
        }
        let (rate, burst) = (self.rate, self.burst);
        let stored = self.streams.entry(key.to_owned()).or_default();
        let since = stored.filled.replace(now).map(|filled| now.saturating_duration_since(filled));
        stored.tokens = since.map_or(burst, |since| (stored.tokens + since.as_secs_f64() * rate).min(burst));
        let total: usize = entries.iter().map(|entry| entry.line.len()).sum();
        let mut ignored: Vec<(i64, String, u16)> = Vec::new();
        let limited = |entry: &Entry| {
            let reason = format!(
                "Per stream rate limit exceeded (limit: 2KB/sec) while attempting to ingest for stream '{shown}' totaling 9B, consider splitting"
            );
            (entry.at_ns(), reason, 429)
        };
        if self.whole_streams {
            if stored.tokens < total as f64 {
                ignored = entries.iter().map(|entry| limited(entry)).collect();
            } else {
                stored.tokens -= total as f64;
            }
        }
        if ignored.is_empty() {
            for entry in entries {
                if !self.whole_streams {
                    if stored.tokens < entry.line.len() as f64 {
                        ignored.push(limited(entry));
                        continue;
                    }
                    stored.tokens -= entry.line.len() as f64;
                }
                let at = entry.at_ns();
                if at < stored.newest_ns - HOUR {
                    let cutoff = rfc3339(stored.newest_ns - HOUR);
                    let reason = format!(
                        "entry too far behind, entry timestamp is: {}, oldest acceptable timestamp is: {cutoff}",
                        rfc3339(at)
                    );
                    ignored.push((at, reason, 400));
                    continue;
                }
                stored.newest_ns = stored.newest_ns.max(at);
                *stored.entries.entry((at, entry.line.clone())).or_default() += 1;
            }
        }
        let status = ignored.last()?.2;
        let mut message = String::new();
        for (at, reason, _) in ignored.iter().take(10) {
            let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(*at)).unwrap();
            let (date, time) = (at.date(), at.time());
            let (h, m, s, n) = time.as_hms_nano();
            let fraction = format!("{n:09}");
            let fraction = fraction.trim_end_matches('0');
            let dot = if fraction.is_empty() { "" } else { "." };
            let _ = writeln!(
                message,
                "entry with timestamp {date} {h:02}:{m:02}:{s:02}{dot}{fraction} +0000 UTC ignored, reason: '{reason}',"
            );
        }
        let (count, of) = (ignored.len(), entries.len());
        let _ = writeln!(message, "user 'acme', total ignored: {count} out of {of} for stream: {shown}");
        Some((Response { status, message, retry_after: None }, count as u64))
    }

    /// What a query finds of a piece.
    pub fn holdings(&self, piece: &Piece) -> Holdings {
        let held = piece.groups.iter().map(|group| {
            let holds = |record: &super::super::piece::Record| {
                let entry = piece.entry(*record);
                self.copies(&group.stream, entry.at_ns(), entry.line()) > 0
            };
            group.records.iter().map(holds).collect()
        });
        Holdings { held: held.collect(), blind_before_ns: i64::MIN }
    }
}

fn rfc3339(at_ns: i64) -> String {
    OffsetDateTime::from_unix_timestamp(at_ns.div_euclid(SECOND)).unwrap().format(&Rfc3339).unwrap()
}
