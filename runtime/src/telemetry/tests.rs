use super::*;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    /// The lines, without the date of text lines.
    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

fn logged(format: LogFormat, level: &str, log: impl FnOnce(&Telemetry)) -> Vec<String> {
    let buffer = Buffer::default();
    let settings = LogSettings { format, level: Level(level.to_owned()) };
    let (telemetry, subscriber) = Telemetry::with_output(&settings, Box::new(buffer.clone()));
    tracing::subscriber::with_default(subscriber, || log(&telemetry));
    buffer.lines()
}

fn events(_: &Telemetry) {
    let span = tracing::info_span!("session", node = "web 1", tenant = "acme");
    let _entered = span.enter();
    tracing::warn!(bytes = 7, ok = false, tenant = "own", reason = "a \"b\"\nc", "cannot send\nit");
}

#[test]
fn the_three_formats() {
    let text = logged(LogFormat::Text, "info", events);
    assert_eq!(
        text[0].split_once(' ').unwrap().1,
        " WARN pegel_runtime::telemetry::tests: cannot send\\nit bytes=7 ok=false tenant=own \
         reason=\"a \\\"b\\\"\\nc\" node=\"web 1\""
    );
    let json: serde_json::Value = serde_json::from_str(&logged(LogFormat::Json, "info", events)[0]).unwrap();
    assert_eq!(
        (&json["level"], &json["msg"], &json["bytes"], &json["ok"], &json["node"]),
        (&"warn".into(), &"cannot send\nit".into(), &7.into(), &false.into(), &"web 1".into())
    );
    let logfmt = logged(LogFormat::Logfmt, "info", events);
    assert!(logfmt[0].starts_with("ts=20"), "{logfmt:?}");
    assert!(
        logfmt[0]
            .contains(" level=warn target=pegel_runtime::telemetry::tests msg=\"cannot send\\nit\" bytes=7 ")
    );
}

#[test]
fn levels_by_module_and_by_reload() {
    let lines = logged(LogFormat::Logfmt, "warn,pegel_runtime::telemetry=debug", |telemetry| {
        tracing::debug!("here");
        tracing::info!(target: "elsewhere", "no");
        telemetry.set_level(&Level("error".to_owned()));
        tracing::warn!("no");
        tracing::error!("yes");
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("msg=here") && lines[1].contains("msg=yes"));
}

#[test]
fn repeats_are_left_out_and_counted() {
    let lines = logged(LogFormat::Logfmt, "debug", |telemetry| {
        for attempt in 0..1_000 {
            tracing::warn!(attempt, "connection refused");
        }
        tracing::warn!("another message");
        let now = Instant::now();
        telemetry.tell_of_repeats(now);
        telemetry.tell_of_repeats(now + repeats::INTERVAL);
        telemetry.tell_of_repeats(now + 2 * repeats::INTERVAL);
    });
    assert_eq!(lines.len(), repeats::BURST as usize + 2, "{lines:#?}");
    let last = lines.last().unwrap();
    assert!(
        last.contains("level=warn")
            && last.contains("left_out=980")
            && last.contains("of=\"connection refused\"")
    );
}

#[test]
fn memory_is_bounded_whatever_is_logged() {
    let lines = logged(LogFormat::Text, "debug", |_| {
        for number in 0..2_000 {
            tracing::warn!("message number {number}");
        }
        for number in 0..100 {
            tracing::debug!("debug {}", number % 2);
        }
    });
    assert_eq!(lines.len(), repeats::MAX_FOLLOWED + repeats::BURST as usize + 100);
}
