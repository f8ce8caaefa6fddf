use super::*;

fn question(name: &str, qtype: u16) -> Question {
    Question { name: name.into(), qtype, class: IN }
}

/// An answer with the question's name compressed.
fn answer(records: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = query(7, &question("www.example.org", A), true).unwrap();
    bytes[2] |= 0x80;
    bytes[7] = records.len() as u8;
    for (rtype, data) in records {
        bytes.extend_from_slice(&[0xc0, 12]);
        bytes.extend_from_slice(&rtype.to_be_bytes());
        bytes.extend_from_slice(&IN.to_be_bytes());
        bytes.extend_from_slice(&300_u32.to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
        bytes.extend_from_slice(data);
    }
    bytes
}

#[test]
fn a_query_is_that_of_the_rfc() {
    let bytes = query(0x1234, &question("a.example.", AAAA), true).unwrap();
    assert_eq!(
        bytes,
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x1c\x00\x01"
    );
    assert_eq!(query(1, &question(".", 2), false).unwrap().len(), 17);
    for bad in ["a..b", &"x".repeat(64), &"x.".repeat(200)] {
        assert_eq!(query(1, &question(bad, A), true), Err(BadMessage::Name), "{bad}");
    }
}

#[test]
fn records_are_written_as_in_zone_files() {
    let soa = b"\x02ns\xc0\x10\x04host\xc0\x10\0\0\0\x2a\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04";
    let bytes = answer(&[
        (A, &[192, 0, 2, 1]),
        (AAAA, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        (15, b"\x00\x0a\x04mail\xc0\x10"),
        (16, b"\x05hello\x03\"q\xff"),
        (SOA, soa),
        (33, b"\x00\x01\x00\x02\x01\xbb\xc0\x0c"),
        (257, b"\x00\x05issueca.example"),
        (65, b"\x00\x01"),
        (A, &[1]),
    ]);
    let message = Message::parse(bytes).unwrap();
    let texts: Vec<_> = message.answers.iter().map(|r| message.text(r)).collect();
    let contents: Vec<_> =
        texts.iter().map(|t| t.strip_prefix("www.example.org.\t300\tIN\t").unwrap()).collect();
    assert_eq!(
        contents,
        [
            "A\t192.0.2.1",
            "AAAA\t2001:db8::1",
            "MX\t10 mail.example.org.",
            "TXT\t\"hello\" \"\\\"q\\255\"",
            "SOA\tns.example.org. host.example.org. 42 1 2 3 4",
            "SRV\t1 2 443 www.example.org.",
            "CAA\t0 issue \"ca.example\"",
            "HTTPS\t\\# 2 0001",
            "A\t\\# 1 01",
        ]
    );
    assert_eq!(message.serial(&message.answers[4]), Some(42));
    assert_eq!(message.address(&message.answers[0]), Some(IpAddr::from([192, 0, 2, 1])));
}

#[test]
fn an_answer_belongs_to_its_query_only() {
    let message = Message::parse(answer(&[])).unwrap();
    assert!(message.answers_to(7, &question("WWW.example.org.", A)));
    for (id, name, qtype) in [(8, "www.example.org", A), (7, "example.org", A), (7, "www.example.org", AAAA)]
    {
        assert!(!message.answers_to(id, &question(name, qtype)), "{id} {name} {qtype}");
    }
    let asked = query(7, &question("www.example.org", A), true).unwrap();
    assert!(!Message::parse(asked).unwrap().answers_to(7, &question("www.example.org", A)));
}

#[test]
fn malformed_messages_are_refused_and_never_loop() {
    // A pointer to itself, and one forward.
    for pointer in [12_u8, 40] {
        let mut bytes = vec![0, 7, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, pointer, 0, 1, 0, 1];
        bytes.resize(60, 0);
        assert_eq!(Message::parse(bytes), Err(BadMessage::Name));
    }
    let good = answer(&[(A, &[1, 2, 3, 4]), (15, b"\x00\x0a\xc0\x0c")]);
    for end in 0..good.len() {
        assert!(Message::parse(good[..end].to_vec()).is_err(), "{end}");
    }
    for at in 0..good.len() {
        for byte in [0, 1, 0x3f, 0xc0, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = byte;
            if let Ok(message) = Message::parse(bytes) {
                for record in &message.answers {
                    let _ = (message.text(record), message.serial(record), message.address(record));
                }
            }
        }
    }
}
