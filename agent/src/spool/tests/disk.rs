//! A real file system that is full, and one that can't be written.

use super::*;
use std::process::Command;

/// A small tmpfs, unmounted on drop; none where mounting is not allowed.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(dir.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: a tmpfs can't be mounted here (that takes root)");
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_commits_keeps_what_is_stored_and_takes_more_once_there_is_room() {
    let Some(tmpfs) = Tmpfs::mount(24) else { return };
    let dir = tmpfs.0.path().join("spool");
    // Segments large beside sled's log segments, of which opening one fills the last.
    let settings = Settings { segment_bytes: 2 << 20, ..settings(&dir) };
    let mut spool = SegmentedSpool::open(settings.clone()).unwrap();
    let mut encoder = CountingEncoder::default();
    let mut stored = 0;
    let mut refused = 0;
    for seq in 1..=2000 {
        encoder.append(&mut spool, seq, 1, 20_000).unwrap();
        match spool.commit() {
            Ok(committed) => stored = committed.up_to.expect("something was staged").0,
            Err(SpoolError::Storage(_)) => {
                refused += 1;
                // The disk is full, not gone. But where sled's own thread met the error first, it leaks its lock, and
                // that one segment has to be copied: then reading says that there is no room, and goes on later.
                match CheckingReader::new(stored).next(&mut spool) {
                    Ok(read) => assert_eq!(read.map(|(seq, _)| seq), Some(stored)),
                    Err(SpoolError::Storage(StoreError::Io { doing: "copying", source, .. })) => {
                        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
                    }
                    Err(other) => panic!("{other}"),
                }
                // What an agent would do: drain a part, then try the same batch again.
                spool.trim(BatchSeq(stored / 2)).unwrap();
                encoder.append(&mut spool, seq, 1, 20_000).unwrap();
                stored = spool.commit().expect("room was made").up_to.expect("staged").0;
                break;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(refused, 1, "2,000 batches of 20 kB do not fit into 24 MiB");
    let from = spool.inventory().segments[0].first.0;
    assert_eq!(CheckingReader::new(from).all(&mut spool), (from..=stored).collect::<Vec<_>>());
    assert_eq!(spool.take_losses(), []);
    drop(spool);
    let mut spool = SegmentedSpool::open(settings).unwrap();
    assert_eq!(CheckingReader::new(from).all(&mut spool), (from..=stored).collect::<Vec<_>>());
    assert_eq!(spool.take_losses(), []);
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), b"not a directory").unwrap();
    let opened = SegmentedSpool::open(settings(&dir.path().join("file/spool")));
    assert!(matches!(opened, Err(SpoolError::Storage(_))));
}

#[test]
fn space_that_is_to_stay_free_is_left_free() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { keep_free_bytes: u64::MAX / 2, ..settings(dir.path()) };
    let mut spool = SegmentedSpool::open(settings).unwrap();
    CountingEncoder::default().append(&mut spool, 1, 1, 100).unwrap();
    let refused = spool.commit();
    assert!(matches!(refused, Err(SpoolError::Storage(StoreError::NoSpace { .. }))));
    assert_eq!(spool.inventory().segments, []);
}
