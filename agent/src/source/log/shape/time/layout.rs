//! Layouts of timestamps: what strftime and Go write, as one list of items.

/// One part of a timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// This text.
    Text(String),
    /// Any blanks, none included.
    Blanks,
    Year,
    /// Two digits: 69 to 99 are of the last century.
    ShortYear,
    Month,
    MonthName,
    Day,
    DayOfYear,
    WeekdayName,
    Hour,
    Minute,
    Second,
    /// A point or comma and digits, which may be missing.
    Fraction,
    /// Digits of a fraction without a point.
    FractionDigits,
    Afternoon,
    /// `Z`, `+0200` or `+02:00`.
    Offset,
    /// `UTC`, `GMT`, or an offset; any other abbreviation is ambiguous and not read.
    ZoneName,
    /// Seconds since the Unix epoch: only `%s` alone makes sense, so it is refused with its remedy.
    Never,
}

/// What is wrong with a layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLayout {
    /// A directive of strftime's that is not known.
    #[error("`%{0}` is not known")]
    Unknown(char),
    /// `%` at the end.
    #[error("ends within a directive")]
    Open,
    /// Seconds since the epoch are a format by name.
    #[error("`%s` is read by the format `unix`")]
    Epoch,
    /// Nothing in it tells a time.
    #[error("tells neither a date nor a time")]
    Nothing,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub year: Option<i16>,
    pub month: Option<i8>,
    pub day: Option<i8>,
    pub day_of_year: Option<i16>,
    pub hour: Option<i8>,
    pub minute: Option<i8>,
    pub second: Option<i8>,
    pub nanosecond: i32,
    pub afternoon: Option<bool>,
    pub offset: Option<i32>,
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Compiles what strftime would write with it.
pub(super) fn strftime(layout: &str) -> Result<Vec<Item>, BadLayout> {
    let mut items = Vec::new();
    let mut chars = layout.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            text(&mut items, char);
            continue;
        }
        let mut directive = chars.next().ok_or(BadLayout::Open)?;
        // Flags of glibc's that change padding make no difference to reading.
        while matches!(directive, '-' | '_' | '0' | ':' | '.' | '3' | '6' | '9') {
            directive = chars.next().ok_or(BadLayout::Open)?;
        }
        let one = match directive {
            'Y' => Item::Year,
            'y' => Item::ShortYear,
            'm' => Item::Month,
            'b' | 'B' | 'h' => Item::MonthName,
            'd' | 'e' => Item::Day,
            'j' => Item::DayOfYear,
            'a' | 'A' => Item::WeekdayName,
            'H' | 'k' | 'I' | 'l' => Item::Hour,
            'M' => Item::Minute,
            'S' => Item::Second,
            'f' | 'N' | 'L' => match items.last() {
                Some(Item::Text(before)) if before.ends_with(['.', ',']) => Item::FractionDigits,
                _ => Item::Fraction,
            },
            'p' | 'P' => Item::Afternoon,
            'z' => Item::Offset,
            'Z' => Item::ZoneName,
            'F' | 'T' | 'R' | 'D' => {
                items.extend(strftime(match directive {
                    'F' => "%Y-%m-%d",
                    'T' => "%H:%M:%S",
                    'R' => "%H:%M",
                    _ => "%m/%d/%y",
                })?);
                continue;
            }
            'n' | 't' => Item::Blanks,
            '%' => {
                text(&mut items, '%');
                continue;
            }
            's' => return Err(BadLayout::Epoch),
            other => return Err(BadLayout::Unknown(other)),
        };
        items.push(one);
    }
    told(items)
}

/// Go's spellings, the longer of two that begin alike first.
const GO: [(&str, Item); 33] = [
    ("January", Item::MonthName),
    ("Jan", Item::MonthName),
    ("Monday", Item::WeekdayName),
    ("Mon", Item::WeekdayName),
    ("MST", Item::ZoneName),
    ("2006", Item::Year),
    ("Z07:00:00", Item::Offset),
    ("Z07:00", Item::Offset),
    ("Z0700", Item::Offset),
    ("Z07", Item::Offset),
    ("-07:00:00", Item::Offset),
    ("-07:00", Item::Offset),
    ("-0700", Item::Offset),
    ("-07", Item::Offset),
    ("002", Item::DayOfYear),
    ("__2", Item::DayOfYear),
    ("01", Item::Month),
    ("02", Item::Day),
    ("03", Item::Hour),
    ("04", Item::Minute),
    ("05", Item::Second),
    ("06", Item::ShortYear),
    ("15", Item::Hour),
    ("_2", Item::Day),
    ("PM", Item::Afternoon),
    ("pm", Item::Afternoon),
    ("1", Item::Month),
    ("2", Item::Day),
    ("3", Item::Hour),
    ("4", Item::Minute),
    ("5", Item::Second),
    (".", Item::Never),
    (",", Item::Never),
];

/// Compiles one of Go's layouts, the reference time written as timestamps are.
pub(super) fn go(layout: &str) -> Result<Vec<Item>, BadLayout> {
    let mut items = Vec::new();
    let mut rest = layout;
    while let Some(char) = rest.chars().next() {
        if matches!(char, '.' | ',') {
            // `.000` and `.999` are fractions where no digit follows.
            let digits = rest[1..]
                .bytes()
                .take_while(|b| *b == b'0')
                .count()
                .max(rest[1..].bytes().take_while(|b| *b == b'9').count());
            let more = rest.as_bytes().get(1 + digits).is_some_and(u8::is_ascii_digit);
            if digits > 0 && !more {
                items.push(Item::Fraction);
                rest = &rest[1 + digits..];
                continue;
            }
        }
        match GO.iter().find(|(spelling, item)| *item != Item::Never && rest.starts_with(spelling)) {
            Some((spelling, item)) => {
                items.push(item.clone());
                rest = &rest[spelling.len()..];
            }
            None => {
                text(&mut items, char);
                rest = &rest[char.len_utf8()..];
            }
        }
    }
    told(items)
}

fn text(items: &mut Vec<Item>, char: char) {
    if char.is_whitespace() {
        if items.last() != Some(&Item::Blanks) {
            items.push(Item::Blanks);
        }
        return;
    }
    if let Some(Item::Text(before)) = items.last_mut() {
        before.push(char);
        return;
    }
    items.push(Item::Text(char.to_string()));
}

fn told(items: Vec<Item>) -> Result<Vec<Item>, BadLayout> {
    let date = items.contains(&Item::DayOfYear)
        || (items.contains(&Item::Day) && (items.contains(&Item::Month) || items.contains(&Item::MonthName)));
    let month_or_day = [Item::Day, Item::Month, Item::MonthName].iter().any(|item| items.contains(item));
    if date || (items.contains(&Item::Hour) && !month_or_day) { Ok(items) } else { Err(BadLayout::Nothing) }
}

/// Reads what the items say; none if the text says something else.
pub(super) fn read(items: &[Item], rest: &mut &str, parts: &mut Parts) -> Option<()> {
    for item in items {
        match item {
            Item::Text(text) => {
                // RFC 3339 allows a blank and a small letter for the T.
                if text == "T" && rest.starts_with([' ', 't']) {
                    *rest = &rest[1..];
                } else {
                    *rest = rest.strip_prefix(text.as_str())?;
                }
            }
            Item::Blanks => {
                // ISO 8601 in its many hands: a T where a blank is meant.
                let trimmed = rest.trim_start();
                *rest = if trimmed.len() == rest.len() {
                    rest.strip_prefix('T').unwrap_or(rest)
                } else {
                    trimmed
                };
            }
            Item::Year => parts.year = Some(number(rest, 4, 4)? as i16),
            Item::ShortYear => {
                let year = number(rest, 2, 2)? as i16;
                parts.year = Some(if year < 69 { 2000 + year } else { 1900 + year });
            }
            Item::Month => parts.month = Some(number(rest, 1, 2)? as i8),
            Item::MonthName => parts.month = Some(name(rest, &MONTHS)? as i8 + 1),
            Item::Day => {
                *rest = rest.trim_start_matches(' ');
                parts.day = Some(number(rest, 1, 2)? as i8);
            }
            Item::DayOfYear => {
                *rest = rest.trim_start_matches(' ');
                parts.day_of_year = Some(number(rest, 1, 3)? as i16);
            }
            Item::WeekdayName => {
                name(rest, &WEEKDAYS)?;
            }
            Item::Hour => {
                *rest = rest.trim_start_matches(' ');
                parts.hour = Some(number(rest, 1, 2)? as i8);
            }
            Item::Minute => parts.minute = Some(number(rest, 1, 2)? as i8),
            Item::Second => {
                parts.second = Some(number(rest, 1, 2)? as i8);
                // As Go does: a fraction is read though the layout has none.
                if let Some(after) =
                    rest.strip_prefix(['.', ',']).filter(|r| r.starts_with(|c: char| c.is_ascii_digit()))
                {
                    if !items.iter().any(|i| matches!(i, Item::Fraction | Item::FractionDigits)) {
                        *rest = after;
                        parts.nanosecond = fraction(rest)?;
                    }
                }
            }
            Item::Fraction => {
                if let Some(after) = rest.strip_prefix(['.', ',']) {
                    *rest = after;
                    parts.nanosecond = fraction(rest)?;
                }
            }
            Item::FractionDigits => parts.nanosecond = fraction(rest)?,
            Item::Afternoon => {
                let word = rest.get(..2)?;
                parts.afternoon = Some(match () {
                    () if word.eq_ignore_ascii_case("pm") => true,
                    () if word.eq_ignore_ascii_case("am") => false,
                    () => return None,
                });
                *rest = &rest[2..];
            }
            Item::Offset => parts.offset = Some(offset(rest)?),
            Item::ZoneName => {
                let utc = ["UTC", "GMT", "UT"].into_iter().find(|name| rest.starts_with(name));
                parts.offset = Some(match utc {
                    Some(name) => {
                        *rest = &rest[name.len()..];
                        0
                    }
                    None => offset(rest)?,
                });
            }
            Item::Never => return None,
        }
    }
    Some(())
}

fn number(rest: &mut &str, least: usize, most: usize) -> Option<u32> {
    let digits = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if digits < least {
        return None;
    }
    let (number, after) = rest.split_at(digits);
    *rest = after;
    number.parse().ok()
}

/// A fraction of a second in nanoseconds; digits beyond are passed over.
fn fraction(rest: &mut &str) -> Option<i32> {
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return None;
    }
    let (text, after) = rest.split_at(digits);
    *rest = after;
    let kept = &text[..digits.min(9)];
    Some(kept.parse::<i32>().ok()? * 10_i32.pow(9 - kept.len() as u32))
}

/// A name's number, written in full or with its first three letters.
fn name(rest: &mut &str, names: &[&str]) -> Option<usize> {
    let begins = |with: &str| rest.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    let nth = names.iter().position(|name| begins(&name[..3]))?;
    let taken = if begins(names[nth]) { names[nth].len() } else { 3 };
    *rest = &rest[taken..];
    Some(nth)
}

/// `Z`, `+02`, `+0200`, `+02:00` or `+02:00:00`, in seconds.
pub(super) fn offset(rest: &mut &str) -> Option<i32> {
    if let Some(after) = rest.strip_prefix(['Z', 'z']) {
        *rest = after;
        return Some(0);
    }
    let sign = match rest.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let mut after = &rest[1..];
    let hours = number(&mut after, 2, 2)?;
    let mut seconds = hours * 3600;
    for unit in [60, 1] {
        let mut next = after.strip_prefix(':').unwrap_or(after);
        let Some(part) = number(&mut next, 2, 2).filter(|part| *part < 60) else { break };
        seconds += part * unit;
        after = next;
    }
    if hours > 24 {
        return None;
    }
    *rest = after;
    Some(sign * seconds as i32)
}
