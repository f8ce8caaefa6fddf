//! Reading a message: RFC 5424 where its version says so, else what RFC 3164 describes and senders really do.

use super::message::{Flaw, Format, Message, Priority};
use super::structured;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// The longest parts that RFC 5424 allows. Senders break these limits, and nothing depends on them here: a part is
/// taken up to some multiple.
const MAX_PART_BYTES: usize = 1_024;

/// A time without a year is at most half a year away, and a day for zones.
const MAX_YEARLESS_DISTANCE_NS: u64 = 184 * 24 * 3_600 * 1_000_000_000;

/// What a receiver knows of a message that does not say it.
#[derive(Debug, Clone)]
pub struct Context {
    /// When it was received, nanoseconds since the Unix epoch: its year.
    pub received_ns: i64,
    /// The zone of times that name none.
    pub zone: TimeZone,
    /// It came through a local socket, where no host is named.
    pub local: bool,
}

/// Reads a message. It is never refused: what can't be told apart is its text.
pub fn parse<'a>(message: &'a str, context: &Context) -> Message<'a> {
    let message = message.trim_end_matches(['\n', '\r', '\0']);
    let Some((priority, rest)) = priority(message) else {
        let mut parsed = rfc3164(Priority::DEFAULT, message, context);
        parsed.flaw = Some(Flaw::NoPriority);
        return parsed;
    };
    match rest.strip_prefix("1 ") {
        Some(rest) => rfc5424(priority, rest, context),
        None => rfc3164(priority, rest, context),
    }
}

fn priority(message: &str) -> Option<(Priority, &str)> {
    let (digits, rest) = message.strip_prefix('<')?.split_once('>')?;
    let digit = |b: u8| b.is_ascii_digit();
    if !(1..=3).contains(&digits.len()) || !digits.bytes().all(digit) {
        return None;
    }
    Some((Priority::new(digits.parse().ok()?)?, rest))
}

/// Behind the version: `TIME HOST APP PROCID MSGID SD [TEXT]`.
fn rfc5424<'a>(priority: Priority, rest: &'a str, context: &Context) -> Message<'a> {
    let whole = rest;
    let mut rest = rest;
    let mut part = || {
        let (part, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after;
        (!part.is_empty() && part.len() <= MAX_PART_BYTES).then_some(part)
    };
    let parts = (part(), part(), part(), part(), part());
    let (Some(time), Some(host), Some(app), Some(procid), Some(msgid)) = parts else {
        return Message::of_text(priority, whole, Some(Flaw::BadHeader));
    };
    let mut flaw = None;
    let said = |part: &'a str| (part != "-").then_some(part);
    let at_ns = said(time).and_then(|time| {
        let at = full_time(time, context);
        flaw = at.is_none().then_some(Flaw::BadTime);
        at
    });
    let (data, text) = match structured::read(rest) {
        Some((data, text)) => (data, text),
        None => {
            flaw = flaw.or(Some(Flaw::BadStructuredData));
            (Vec::new(), rest)
        }
    };
    Message {
        format: Format::Rfc5424,
        priority,
        at_ns,
        host: said(host),
        app: said(app),
        procid: said(procid),
        msgid: said(msgid),
        data,
        text: text.strip_prefix('\u{feff}').unwrap_or(text),
        flaw,
    }
}

/// Behind the priority: `Mmm dd hh:mm:ss HOST TAG[PID]: TEXT`, of which anything may be missing.
fn rfc3164<'a>(priority: Priority, rest: &'a str, context: &Context) -> Message<'a> {
    let Some((at_ns, after)) = time(rest, context) else {
        // Without a time there is no header (RFC 3164, 4.3.2), but many senders put the tag there.
        let mut parsed = Message::of_text(priority, rest, None);
        take_tag(&mut parsed);
        if parsed.app.is_none() && !context.local {
            parsed.flaw = Some(Flaw::BadTime);
        }
        return parsed;
    };
    let mut parsed = Message::of_text(priority, after, None);
    parsed.at_ns = Some(at_ns);
    if !context.local {
        // A host is no tag: those end with a colon or have a number in brackets.
        if let Some((host, text)) = after.split_once(' ')
            && !host.is_empty()
            && !host.ends_with(':')
            && !host.contains('[')
        {
            parsed.host = Some(host);
            parsed.text = text;
        }
    }
    take_tag(&mut parsed);
    parsed
}

/// Moves `TAG[PID]: ` from the text to its parts.
fn take_tag(parsed: &mut Message<'_>) {
    let text = parsed.text;
    let is_tag = |c: char| c.is_ascii_alphanumeric() || "-_./()@+~".contains(c);
    let end = text.find(|c| !is_tag(c)).unwrap_or(text.len());
    if end == 0 || end > 256 {
        return;
    }
    let (app, rest) = text.split_at(end);
    let (pid, rest) = match rest.strip_prefix('[') {
        Some(inside) => match inside.split_once(']') {
            Some((pid, rest)) if !pid.is_empty() && pid.len() <= 128 => (Some(pid), rest),
            _ => return,
        },
        None => (None, rest),
    };
    let rest = match rest.strip_prefix(':') {
        Some(rest) => rest,
        None if pid.is_some() => rest,
        None => return,
    };
    parsed.app = Some(app);
    parsed.procid = pid;
    parsed.text = rest.strip_prefix(' ').unwrap_or(rest);
}

/// The time at the beginning of a text, and what follows its blank.
fn time<'a>(text: &'a str, context: &Context) -> Option<(i64, &'a str)> {
    let first = text.bytes().next()?;
    if first.is_ascii_digit() {
        // rsyslog's and syslog-ng's own forwarding, with a whole time.
        let (time, after) = text.split_once(' ')?;
        return Some((full_time(time, context)?, after));
    }
    short_time(text, context)
}

/// RFC 3339.
fn full_time(text: &str, context: &Context) -> Option<i64> {
    if text.len() < 19 || text.len() > 64 {
        return None;
    }
    let at = match text.parse::<Timestamp>() {
        Ok(at) => at,
        Err(_) => text.parse::<DateTime>().ok()?.to_zoned(context.zone.clone()).ok()?.timestamp(),
    };
    i64::try_from(at.as_nanosecond()).ok()
}

/// `Mmm dd hh:mm:ss`, with a year behind the day or fractions of a second where the sender has them (Cisco's). Without
/// a year it is the one that brings the time closest to when it was received.
fn short_time<'a>(text: &'a str, context: &Context) -> Option<(i64, &'a str)> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (name, rest) = text.split_at_checked(3)?;
    let month = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))? as i8 + 1;
    let (day, rest) = rest.strip_prefix(' ')?.trim_start_matches(' ').split_once(' ')?;
    let day: i8 = number(day, 2)?;
    let rest = rest.trim_start_matches(' ');
    let (year, rest) = match rest.split_once(' ') {
        Some((year, rest)) if year.len() == 4 && !year.contains(':') => (Some(number(year, 4)?), rest),
        _ => (None, rest),
    };
    let (clock, after) = rest.split_once(' ').unwrap_or((rest, ""));
    let clock = clock.strip_suffix(':').unwrap_or(clock);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':').map(|part| number::<i8>(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || fraction.len() > 9 {
        return None;
    }
    let mut nanos = fraction.bytes().chain(*b"000000000").take(9);
    let nanos = nanos.try_fold(0, |sum, b| b.is_ascii_digit().then(|| 10 * sum + i32::from(b - b'0')))?;
    // A leap second is the second before.
    let at = |year| {
        let civil = DateTime::new(year, month, day, hour, minute, second.min(59), nanos).ok()?;
        let at = civil.to_zoned(context.zone.clone()).ok()?.timestamp().as_nanosecond();
        i64::try_from(at).ok()
    };
    let at_ns = match year {
        Some(year) => at(year)?,
        None => {
            let received = Timestamp::from_nanosecond(i128::from(context.received_ns)).ok()?;
            let this = received.to_zoned(context.zone.clone()).checked_add(0.days()).ok()?.year();
            let years = [this - 1, this, this + 1].into_iter().filter_map(at);
            // A day that only another year has is none.
            let near = years.filter(|at| at.abs_diff(context.received_ns) <= MAX_YEARLESS_DISTANCE_NS);
            near.min_by_key(|at| at.abs_diff(context.received_ns))?
        }
    };
    Some((at_ns, after))
}

fn number<N: std::str::FromStr>(text: &str, most: usize) -> Option<N> {
    let digits = (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}
