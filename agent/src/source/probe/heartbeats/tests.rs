use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

#[tokio::test]
async fn what_was_heard_outlives_the_agent_and_a_damaged_file() {
    let dir = tempfile::tempdir().unwrap();
    let heartbeats = Heartbeats::open(dir.path());
    heartbeats.expect_only(&["backup", "old"], 1_000);
    assert_eq!(heartbeats.call("backup", Call::Started, 2_000).await, Ok(Hearing::Kept));
    assert_eq!(heartbeats.call("backup", Call::Ended(0), 5_500).await, Ok(Hearing::Kept));
    let again = Heartbeats::open(dir.path());
    again.expect_only(&["backup", "new"], 9_000);
    let expected =
        Heard { expected_since_ms: 1_000, ended_ms: Some(5_500), took_ms: Some(3_500), ..Heard::default() };
    assert_eq!(again.heard("backup"), Some(expected));
    assert_eq!(again.heard("new").unwrap().expected_since_ms, 9_000);
    let version = again.jobs.lock().version;
    assert_eq!(again.kept(version).await, Hearing::Kept);
    assert_eq!(Heartbeats::open(dir.path()).heard("old"), None);
    std::fs::write(dir.path().join(FILE), "{half").unwrap();
    assert_eq!(Heartbeats::open(dir.path()).heard("backup"), None);
    assert!(dir.path().join("heartbeats.json.damaged").exists());
}

#[tokio::test]
async fn a_job_that_nobody_expects_is_refused_in_words() {
    let heartbeats = Heartbeats::in_memory();
    let error = heartbeats.call("bakcup", Call::Ended(0), 1).await.unwrap_err().to_string();
    assert!(error.contains("`bakcup`") && error.contains("configuration"), "{error}");
}

/// A disk that counts its writes; each begins by saying so and goes on when it is let.
fn disk() -> (Write, Arc<AtomicUsize>, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let writes = Arc::new(AtomicUsize::new(0));
    let ((begun, begins), (go, goes)) = (mpsc::channel(), mpsc::channel::<()>());
    let (counted, begun, goes) = (writes.clone(), Mutex::new(begun), Mutex::new(goes));
    let write: Write = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        let _ = begun.lock().send(());
        // Nobody lets it go on any more: the test ends.
        let _ = goes.lock().recv();
        Ok(())
    });
    (write, writes, begins, go)
}

#[tokio::test]
async fn a_disk_that_hangs_holds_up_no_caller_for_long_and_nobody_else() {
    let (write, _, begins, go) = disk();
    let mut heartbeats = Heartbeats::with(BTreeMap::new(), write, "test".to_owned());
    heartbeats.patience = Duration::from_millis(50);
    heartbeats.expect("backup", 1);
    begins.recv().unwrap();
    let answer = heartbeats.call("backup", Call::Ended(3), 7).await.unwrap();
    assert!(matches!(&answer, Hearing::InMemory(why) if why.contains("disk")), "{answer:?}");
    assert_eq!(heartbeats.heard("backup").unwrap().exit_code, 3, "it was heard all the same");
    drop(go);
}

#[tokio::test]
async fn many_jobs_and_many_calls_are_written_together() {
    let (write, writes, begins, go) = disk();
    let heartbeats = Arc::new(Heartbeats::with(BTreeMap::new(), write, "test".to_owned()));
    let names: Vec<String> = (0..1_000).map(|i| format!("job-{i}")).collect();
    heartbeats.expect_only(&names.iter().map(String::as_str).collect::<Vec<_>>(), 1);
    // While the jobs are written, all of them call.
    begins.recv().unwrap();
    let calls = names.iter().map(|name| heartbeats.call(name, Call::Ended(0), 2));
    let calls = futures_util::future::join_all(calls);
    tokio::pin!(calls);
    assert!(futures_util::poll!(&mut calls).is_pending());
    go.send(()).unwrap();
    go.send(()).unwrap();
    let answers = tokio::time::timeout(Duration::from_secs(30), calls).await.expect("they are answered");
    assert!(answers.iter().all(|answer| *answer == Ok(Hearing::Kept)));
    assert_eq!(writes.load(Ordering::SeqCst), 2, "one for the jobs, one for all calls");
}

#[tokio::test]
async fn a_disk_that_is_full_is_said_and_later_writes_go_on() {
    let full = Arc::new(AtomicUsize::new(1));
    let is_full = full.clone();
    let write: Write = Arc::new(move |_| match is_full.load(Ordering::SeqCst) {
        0 => Ok(()),
        _ => Err(std::io::ErrorKind::StorageFull.into()),
    });
    let heartbeats = Heartbeats::with(BTreeMap::new(), write, "test".to_owned());
    heartbeats.expect("backup", 1);
    let answer = heartbeats.call("backup", Call::Started, 2).await.unwrap();
    assert!(matches!(&answer, Hearing::InMemory(_)), "{answer:?}");
    full.store(0, Ordering::SeqCst);
    assert_eq!(heartbeats.call("backup", Call::Ended(0), 3).await, Ok(Hearing::Kept));
}
