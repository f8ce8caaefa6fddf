//! Bodies of fuzz targets: plain functions that panic on what must not happen.

use super::framing::{Frame, Framer};
use super::message::{Flaw, Format};
use super::parse::{Context, parse};
use jiff::tz::TimeZone;

/// A message of any bytes: it has a text, and its parts are parts of it.
pub fn syslog_message(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for local in [false, true] {
        let context = Context { received_ns: 1_795_275_276_352_879_112, zone: TimeZone::UTC, local };
        let message = parse(&text, &context);
        for part in [message.host, message.app, message.procid, message.msgid].into_iter().flatten() {
            assert!(text.contains(part) && !part.is_empty());
        }
        assert!(text.contains(message.text));
        let whole = text.trim_end_matches(['\n', '\r', '\0']);
        let headless = message.flaw == Some(Flaw::BadHeader);
        assert!(!headless || whole.ends_with(message.text));
        assert!(message.format == Format::Rfc5424 || message.data.is_empty());
        assert!(message.data.iter().all(|(name, _)| !name.is_empty()));
    }
}

/// A stream of any bytes: its messages do not depend on the pieces in which it comes, and none is over the limit.
pub fn syslog_stream(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    let limit = usize::from(first >> 4) * 16 + 1;
    let whole = frames(bytes, bytes.len().max(1), limit);
    assert!(whole.iter().all(|frame| frame.bytes.len() <= limit));
    assert_eq!(frames(bytes, usize::from(first % 7) + 1, limit), whole);
}

fn frames(bytes: &[u8], pieces: usize, limit: usize) -> Vec<Frame> {
    let mut framer = Framer::new(limit);
    let mut frames = Vec::new();
    for piece in bytes.chunks(pieces) {
        framer.push(piece);
        frames.extend(std::iter::from_fn(|| framer.next_frame()));
    }
    frames.extend(framer.end());
    frames
}
