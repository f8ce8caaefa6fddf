use super::*;
use crate::intake::{Inbox, log_intake};
use crate::source::log::checkpoints::Checkpoints;
use crate::source::log::origin::Origin;
use crate::source::log::shape;
use pegel_proto::batch::Content;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

const WITHIN: Duration = Duration::from_secs(10);

#[test]
fn a_named_pipe_is_made_and_writers_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    let checkpoints = Checkpoints::open(dir.path()).unwrap().checkpoints;
    let (intake, receiver) = log_intake();
    let mut inbox = Inbox::Logs(receiver);
    let shutdown = CancellationToken::new();
    let status: Arc<Mutex<Status>> = Arc::default();
    let parts = Parts {
        name: "pipe".to_owned(),
        settings: Settings::Fifo { path: path.clone(), mode: 0o620 },
        labels: vec![("job".to_owned(), "pipe".to_owned())],
        flush_after: Duration::from_millis(100),
        shaper: Shaper::new(&shape::Settings::default()),
        cutter: Cutter::new(checkpoints.clone(), intake, 1),
        registry: Registry::new(),
        shutdown: shutdown.clone(),
        status: status.clone(),
    };
    let thread = std::thread::spawn(move || run(parts));
    let deadline = Instant::now() + WITHIN;
    let writer = |text: &str| {
        loop {
            let open = std::fs::OpenOptions::new().write(true).open(&path);
            match open {
                Ok(mut pipe) => return pipe.write_all(text.as_bytes()).unwrap(),
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let mut lines = Vec::new();
    let mut read = |count: usize| {
        while lines.len() < count {
            assert!(Instant::now() < deadline, "{count} lines, but {lines:?}");
            if let Some(Content::Logs(logs)) = inbox.take_now() {
                assert_eq!(
                    Origin::from_bytes(&logs.origin).unwrap().pushed_entries(),
                    u64::from(logs.block.entries)
                );
                let block = logs.block.decode().unwrap();
                lines.extend(block.entries().map(|entry| entry.line().to_owned()));
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        lines.clone()
    };
    writer("one\ntwo\nth");
    read(2);
    writer("ree\n");
    read(3);
    let many: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    writer(&many);
    writer("no end");
    let all = read(20_004);
    assert_eq!(all[..3], ["one", "two", "three"]);
    assert_eq!(
        (all[3].as_str(), all[20_002].as_str(), all[20_003].as_str()),
        ("line 0", "line 19999", "no end")
    );
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
    assert_eq!(status.lock().bytes, many.len() as u64 + 20);
    shutdown.cancel();
    thread.join().unwrap();
    assert!(status.lock().ended);
    // What was pushed and is not safe is what a kill would lose.
    assert!(
        checkpoints.outstanding().iter().all(|origin| origin.ranges.iter().all(|range| range.source == 0))
    );
}

#[test]
fn a_file_in_the_pipes_place_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "x").unwrap();
    let error = open(&path, 0o600).unwrap_err().to_string();
    assert!(error.contains("is no pipe"), "{error}");
    assert!(open(&dir.path().join("none/pipe"), 0o600).is_err());
}
