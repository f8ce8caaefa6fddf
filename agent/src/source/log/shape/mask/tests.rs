use super::*;

fn all() -> Mask {
    Mask::new(Kind::ALL.to_vec(), Vec::new())
}

fn masked(text: &str) -> String {
    all().text(text, &mut Vec::new()).into_owned()
}

#[test]
fn each_kind_and_what_looks_like_it() {
    for (text, expected) in [
        ("mail bob.smith+x@mail.example.org now", "mail <email> now"),
        (r"{\u0022a\u0022:bob\u0040example.org}", r"{\u0022a\u0022:<email>}"),
        ("to=bob%40example.org&x", "to=<email>&x"),
        (r#"{"m":"a\nbob@example.org \u000abob@example.org"}"#, r#"{"m":"a\n<email> \u000a<email>"}"#),
        ("root@localhost stays, as does 5@6", "root@localhost stays, as does 5@6"),
        ("card 4111 1111 1111 1111 12", "card <card> 12"),
        ("card 4111-1111-1111-1111.", "card <card>."),
        ("card=378282246310005;", "card=<card>;"),
        (r"\u00205555555555554444\n", r"\u0020<card>\n"),
        ("id 4111111111111112 and 1700000000250 stay", "id 4111111111111112 and 1700000000250 stay"),
        ("2024-01-02 4111111111111111", "2024-01-02 <card>"),
        ("iban DE89 3704 0044 0532 0130 00,", "iban <iban>,"),
        (r"\nGB29NWBK60161331926819 x", r"\n<iban> x"),
        ("iban de89370400440532013001 stays", "iban de89370400440532013001 stays"),
        ("key AKIAIOSFODNN7EXAMPLE.", "key <token>."),
        ("t ghp_0123456789abcdefghijABCDEFGHIJ012345 x", "t <token> x"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln-_x!", "jwt <token>!"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer <token>"),
        (r#""authorization":["Basic dXNlcjpwYXNz"]"#, r#""authorization":["Basic <token>"]"#),
        ("postgres://app:hunter2@db/x", "postgres://app:<token>@db/x"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- z", "<token> z"),
        (r"-----BEGIN PRIVATE KEY-----\nMIIE", "<token>"),
        ("password=hunter2 user=x", "password=<secret> user=x"),
        (r#"{"db_password": "a\"b c", "x": 1}"#, r#"{"db_password": "<secret>", "x": 1}"#),
        (r#"{"m":"{\"api_key\":\"x y\",\"b\":1}"}"#, r#"{"m":"{\"api_key\":\"<secret>\",\"b\":1}"}"#),
        ("DB_PASSWORD: 's3 cret' tail", "DB_PASSWORD: '<secret>' tail"),
        ("the secret is out", "the secret is out"),
        ("from 10.1.2.3:80 and fe80::1%eth0, 2001:db8::1", "from <ip>:80 and <ip>%eth0, <ip>"),
        ("at 12:34:56 of 300.1.2.3", "at 12:34:56 of 300.1.2.3"),
    ] {
        assert_eq!(masked(text), expected, "{text}");
        assert_eq!(masked(expected), *expected, "twice");
    }
}

#[test]
fn kinds_that_are_not_asked_for_stay() {
    let mask = Mask::new(vec![Kind::Card], Vec::new());
    let text = "bob@example.org 4111111111111111 10.0.0.1";
    assert_eq!(mask.text(text, &mut Vec::new()), "bob@example.org <card> 10.0.0.1");
    assert!(matches!(mask.text("plain", &mut Vec::new()), Cow::Borrowed(_)));
}

#[test]
fn patterns_of_ones_own_may_keep_a_part() {
    let own = Own { pattern: Regex::new(r"(?<kind>cust)-\d+").unwrap(), replacement: "${kind}-*".into() };
    let mask = Mask::new(Vec::new(), vec![own]);
    let mut pieces = Vec::new();
    assert_eq!(mask.text("a cust-12345 b", &mut pieces), "a cust-* b");
    assert_eq!(pieces, ["cust-12345"]);
}

#[test]
fn a_piece_is_taken_out_where_its_key_is_lost() {
    let mask = all();
    let mut pieces = Vec::new();
    mask.text("login password=hunter2 ok", &mut pieces);
    assert_eq!(mask.value("pw", "hunter2", &mut pieces), "<masked>");
    assert_eq!(mask.value("user_password", "x y", &mut Vec::new()), "<secret>");
}

#[test]
fn nothing_is_cut_through() {
    let mask = all();
    let text = format!("{} bob@example.org {}", "x".repeat(100), "y".repeat(100));
    for at in 90..130 {
        let cut = mask.before_cut(&text, at);
        let inside = at > 101 && at < 116;
        assert_eq!(cut, if inside { 101 } else { at });
    }
}

/// Numbers with a right check digit, from the issuers' ranges.
fn card(random: &mut impl FnMut(usize) -> usize) -> String {
    let mut digits: Vec<u8> =
        format!("{}", [4111, 5105, 6011, 2221][random(4)]).bytes().map(|b| b - b'0').collect();
    while digits.len() < 15 {
        digits.push(random(10) as u8);
    }
    let doubled = |(nth, digit): (usize, &u8)| {
        let digit = u32::from(*digit);
        if nth % 2 == 0 { 2 * digit / 10 + 2 * digit % 10 } else { digit }
    };
    let sum: u32 = digits.iter().rev().enumerate().map(doubled).sum();
    digits.push(((10 - sum % 10) % 10) as u8);
    digits.iter().map(|digit| char::from(digit + b'0')).collect()
}

#[test]
fn no_card_gets_through_whatever_stands_around_it() {
    let mut seed = 11_u64;
    let mut random = move |most: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % most
    };
    let around = [" ", "a", "\"", ":", "=", "\\n", "12 ", "-", "é", ",", "2024-01-02 ", "\\u0020", "x9 "];
    for _ in 0..5_000 {
        let card = card(&mut random);
        let text = format!(
            "{}{card}{}",
            around[random(around.len())],
            [" ", "a", "\"", ",", ". ", " 12", "\\n"][random(7)]
        );
        assert!(!masked(&text).contains(&card), "{text}: {}", masked(&text));
    }
}
