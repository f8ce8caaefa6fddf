//! Numbers with check digits.

use std::ops::Range;

/// The fewest and most digits of a card's number.
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// Tells each card number: groups of digits with one blank, hyphen or point between them.
pub(super) fn cards(bytes: &[u8], tell: &mut impl FnMut(Range<usize>)) {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if let Some(rest) = bytes[at..].strip_prefix(b"\\u") {
            // An escaped character is no part of a number.
            if rest.len() >= 4 && rest[..4].iter().all(u8::is_ascii_hexdigit) {
                within(bytes, &groups, tell);
                groups.clear();
                at += 6;
                continue;
            }
        }
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let from = at;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        let joined = groups
            .last()
            .is_some_and(|last| last.end + 1 == from && matches!(bytes[last.end], b' ' | b'-' | b'.'));
        if !joined {
            within(bytes, &groups, tell);
            groups.clear();
        }
        groups.push(from..at);
    }
    within(bytes, &groups, tell);
}

/// Looks through groups that stand together: a number begins and ends with one.
fn within(bytes: &[u8], groups: &[Range<usize>], tell: &mut impl FnMut(Range<usize>)) {
    let mut first = 0;
    while first < groups.len() {
        let mut digits = [0_u8; 19];
        let (mut many, mut found) = (0, None);
        for (last, group) in groups.iter().enumerate().skip(first) {
            if many + group.len() > digits.len() {
                break;
            }
            for byte in &bytes[group.clone()] {
                digits[many] = byte - b'0';
                many += 1;
            }
            if CARD_DIGITS.contains(&many) && issued(&digits[..many]) && luhn(&digits[..many]) {
                found = Some(last);
            }
        }
        match found {
            Some(last) => {
                tell(groups[first].start..groups[last].end);
                first = last + 1;
            }
            None => first += 1,
        }
    }
}

/// Whether an issuer gives out numbers that begin so and are so long.
fn issued(digits: &[u8]) -> bool {
    let head = digits[..4].iter().fold(0_u32, |head, digit| head * 10 + u32::from(*digit));
    let many = digits.len();
    match head {
        4000..=4999 => matches!(many, 13 | 16 | 18 | 19),
        5100..=5599 | 2221..=2720 | 2200..=2204 => matches!(many, 16..=19),
        3400..=3499 | 3700..=3799 => many == 15,
        3000..=3059 | 3095 | 3600..=3699 | 3800..=3999 => matches!(many, 14..=19),
        3528..=3589 => matches!(many, 16..=19),
        5000..=5099 | 5600..=6999 => matches!(many, 13..=19),
        _ => false,
    }
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(nth, digit)| {
            let digit = u32::from(*digit);
            match nth % 2 {
                0 => digit,
                _ if digit > 4 => 2 * digit - 9,
                _ => 2 * digit,
            }
        })
        .sum();
    sum % 10 == 0
}

/// Countries and the length of their account numbers, from the registry of ISO 13616.
const IBANS: [(&[u8; 2], usize); 84] = [
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
];

/// Tells each account number, with or without a blank or hyphen between groups. Letters of either case.
pub(super) fn ibans(bytes: &[u8], tell: &mut impl FnMut(Range<usize>)) {
    let mut at = 0;
    while at + 15 <= bytes.len() {
        let begins = bytes[at].is_ascii_alphabetic() && bytes[at + 1].is_ascii_alphabetic();
        let length = if begins && bytes[at + 2].is_ascii_digit() {
            let country = [bytes[at].to_ascii_uppercase(), bytes[at + 1].to_ascii_uppercase()];
            IBANS.iter().find(|(known, _)| **known == country).map(|(_, length)| *length)
        } else {
            None
        };
        match length.and_then(|length| iban_end(bytes, at, length)) {
            Some(end) => {
                tell(at..end);
                at = end;
            }
            None => at += 1,
        }
    }
}

/// The end of the account number of so many characters that begins here, if its check digits are right.
fn iban_end(bytes: &[u8], from: usize, length: usize) -> Option<usize> {
    let mut characters = [0_u8; 34];
    let (mut many, mut at) = (0, from);
    while many < length {
        let byte = *bytes.get(at)?;
        at += 1;
        if byte.is_ascii_alphanumeric() {
            characters[many] = byte.to_ascii_uppercase();
            many += 1;
        } else if !(matches!(byte, b' ' | b'-') && bytes[at - 2].is_ascii_alphanumeric()) {
            return None;
        }
    }
    let rotated = characters[4..length].iter().chain(&characters[..4]);
    let rest = rotated.fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    (rest == 1).then_some(at)
}
