//! What was seeded as a secret is in no byte of a block.

use super::*;

struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn word(&mut self, alphabet: &str, many: usize) -> String {
        let alphabet: Vec<char> = alphabet.chars().collect();
        (0..many).map(|_| alphabet[self.below(alphabet.len())]).collect()
    }
}

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";
const BASE62: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A secret, and whether its words stand before it.
fn secret(random: &mut Random) -> (String, String) {
    let plain = |secret: String| (secret.clone(), secret);
    match random.below(9) {
        0 => plain(format!(
            "{}.{}@{}.example.org",
            random.word(LETTERS, 5),
            random.word(LETTERS, 7),
            random.word(LETTERS, 4)
        )),
        1 => {
            let mut digits = random.pick(&["4", "51", "37", "6011"]).to_owned();
            let length = if digits == "37" { 15 } else { 16 };
            while digits.len() < length - 1 {
                digits.push_str(&random.word("0123456789", 1));
            }
            let check = (0..10).find(|check| luhn(&format!("{digits}{check}"))).unwrap();
            plain(format!("{digits}{check}"))
        }
        2 => {
            let account = random.word("0123456789", 18);
            let check = (2..99).find(|check| mod97(&format!("DE{check:02}{account}"))).unwrap();
            plain(format!("DE{check:02}{account}"))
        }
        3 => plain(format!("AKIA{}", random.word("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", 16))),
        4 => plain(format!("ghp_{}", random.word(BASE62, 36))),
        5 => plain(format!(
            "eyJ{}.eyJ{}.{}",
            random.word(BASE62, 20),
            random.word(BASE62, 30),
            random.word(BASE62, 40)
        )),
        6 => {
            let token = random.word(BASE62, 24);
            (token.clone(), format!("Bearer {token}"))
        }
        7 => {
            let password = random.word(BASE62, 12);
            (password.clone(), format!("postgres://app:{password}@db/shop"))
        }
        _ => {
            let password = random.word(BASE62, 10);
            let key = random.pick(&["password", "db_passwd", "api_key", "client-secret"]);
            (password.clone(), format!("{key}={password}"))
        }
    }
}

fn luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(n, b)| (n, u32::from(b - b'0')))
        .map(|(n, d)| if n % 2 == 0 { d } else { 2 * d / 10 + 2 * d % 10 })
        .sum();
    sum % 10 == 0
}

fn mod97(iban: &str) -> bool {
    let rotated = format!("{}{}", &iban[4..], &iban[..4]);
    rotated.chars().fold(0, |rest, c| {
        let digit = c.to_digit(36).unwrap();
        if digit < 10 { (rest * 10 + digit) % 97 } else { (rest * 100 + digit) % 97 }
    }) == 1
}

/// A line with the secret somewhere in it.
fn line(random: &mut Random, said: &str) -> String {
    let noise = random.word("abc 0123=:,", 12);
    match random.below(8) {
        0 => format!("{noise} {said} {noise}"),
        1 => format!("{{\"msg\":\"{noise} {said}\",\"n\":1}}"),
        2 => format!("{{\"a\":{{\"b\":\"{said}\"}},\"level\":\"info\",\"l\":[\"{said}\"]}}"),
        3 => format!("level=info msg=\"{said} x\" other={noise}"),
        4 => format!("k={} v=\"{said}\"", random.word(LETTERS, 4)),
        5 => format!("ERROR failed\\n{said}\\t{noise}"),
        6 => serde_json::json!({ "outer": format!("{{\"inner\":\"{said}\"}}"), "x": noise }).to_string(),
        _ => format!("[{said}]"),
    }
}

fn masked(steps: Vec<Step>) -> Settings {
    let kinds = [MaskKind::Email, MaskKind::Card, MaskKind::Iban, MaskKind::Token, MaskKind::Secret].to_vec();
    Settings {
        steps: steps.into(),
        mask: Some(Arc::new(Mask::new(kinds, Vec::new()))),
        ..Settings::default()
    }
}

/// The bytes of a block before compression: whatever would be spooled or sent.
fn payload(settings: &Settings, bytes: &[u8], source: &SourceLabels) -> Vec<u8> {
    let mut shaper = Shaper::new(settings);
    let mut block = BlockBuilder::new();
    let chunk = Chunk { bytes, offset: 0, base_ns: BASE_NS, floor_ns: 0, end: End::Flush, again: false };
    let shaped = shaper.shape(source, chunk, 1 << 20, &mut block);
    assert_eq!(shaped.consumed, bytes.len());
    let block = block.finish().unwrap();
    let mut payload = block.bytes.to_vec();
    let frame = payload.windows(4).position(|four| four == [0x28, 0xb5, 0x2f, 0xfd]).expect("a zstd frame");
    payload.extend(zstd::bulk::decompress(&block.bytes[frame..], block.raw_bytes as usize).unwrap());
    payload
}

#[test]
fn no_seeded_secret_is_in_a_blocks_bytes() {
    let seed = std::env::var("PEGEL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(17);
    let mut random = Random(seed);
    let everything = || Step::Metadata(Metadata::default());
    let capture = Capture::new(r"(?<head>\S+)\s(?<secret_part>.*)").unwrap();
    let value = Capture::new(r"[=:]\s*(?<pw>\S+)").unwrap();
    let tables = [
        masked(Vec::new()),
        masked(vec![Step::Json(Parse::default()), everything()]),
        masked(vec![
            Step::Json(Parse::default()),
            Step::Labels(vec![("m".into(), "msg".into()), ("a_b".into(), "a_b".into())]),
        ]),
        masked(vec![Step::Logfmt(Parse::default()), everything(), Step::Output("v".into())]),
        masked(vec![Step::Capture("regex", Parse::default(), capture), everything()]),
        masked(vec![
            Step::Capture("regex", Parse::default(), value),
            everything(),
            Step::Output("pw".into()),
        ]),
        masked(vec![
            Step::Json(Parse::default()),
            Step::Json(Parse { field: Some("outer".into()), prefix: String::new() }),
            everything(),
            Step::Labels(vec![("inner".into(), "inner".into())]),
        ]),
        Settings { repeats: true, ..masked(Vec::new()) },
    ];
    for round in 0..4_000 {
        let (secret, said) = secret(&mut random);
        let line = line(&mut random, &said);
        let settings = &tables[random.below(tables.len())];
        let payload = payload(settings, line.as_bytes(), &[]);
        let found = memchr::memmem::find(&payload, secret.as_bytes()).is_some();
        assert!(
            !found,
            "seed {seed}, round {round}: `{secret}` of `{line}` got through {:?}",
            settings.steps
        );
    }
}

#[test]
fn labels_of_the_source_and_messages_are_masked_too() {
    let settings = masked(Vec::new());
    let source = [("filename".to_owned(), "/home/bob@example.org/x.log".to_owned())];
    let payload = payload(&settings, b"line\n", &source);
    assert!(memchr::memmem::find(&payload, b"bob@example.org").is_none());
    let mut shaper = Shaper::new(&settings);
    let mut block = BlockBuilder::new();
    let message = Message {
        text: b"x",
        at_ns: None,
        base_ns: 5,
        floor_ns: 0,
        metadata: &[("bob@example.org", "bob@example.org"), ("password", "hunter2")],
        again: false,
    };
    shaper.message(&[], message, 1 << 20, &mut block);
    let decoded = block.finish().unwrap().decode().unwrap();
    let metadata: Vec<_> = decoded.entries().next().unwrap().metadata().collect();
    assert_eq!(metadata, [("_email_", "<email>"), ("password", "<secret>")]);
}

#[test]
fn a_private_key_over_several_lines_and_a_secret_at_a_cut_are_masked_whole() {
    let key = "begin\n-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nabcdefghijkl/+==\n-----END RSA PRIVATE KEY-----\nafter\n";
    assert_eq!(lines(&masked(Vec::new()), key.as_bytes()), ["begin", "<token>", "after"]);
    let unfinished = "-----BEGIN PRIVATE KEY-----\nMIIE\nno key any more\n";
    assert_eq!(lines(&masked(Vec::new()), unfinished.as_bytes()), ["<token>", "no key any more"]);
    let mut random = Random(3);
    for _ in 0..50 {
        let (secret, said) = secret(&mut random);
        let before = random.below(400);
        let line = format!("{};{said};{}\n", "x".repeat(before), "y".repeat(400));
        let settings = Settings { max_line: 200, ..masked(Vec::new()) };
        let whole = lines(&settings, line.as_bytes()).concat();
        assert!(!whole.contains(&secret), "{said} in {whole}");
    }
}
