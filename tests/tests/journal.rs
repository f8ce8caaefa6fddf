//! systemd's journal as it is in a machine with systemd: read beside `journalctl`.
//!
//! `tests/backends/backend machine` makes the machine; without it the suite says `SKIPPED`.

use pegel_agent::source::log::journal::{Cursor, Directory, Entry, Journal, Parser, Start, Wanted};
use pegel_tests::eventually;
use pegel_tests::machine::{Cgroups, Machine, MachineSetup};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long the reader may be behind.
const READ_WITHIN: Duration = Duration::from_secs(20);

/// An entry: its cursor, and its fields in the order of their names.
type Read = (String, Vec<(String, Vec<u8>)>);

fn read(entry: &Entry) -> Read {
    let mut fields: Vec<(String, Vec<u8>)> = entry
        .fields()
        .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.to_vec()))
        .collect();
    fields.sort();
    (entry.cursor.to_string(), fields)
}

/// The directories of a machine's journal, from outside.
fn directories(machine: &Machine) -> Vec<PathBuf> {
    let root = PathBuf::from(format!("/proc/{}/root", machine.leader()));
    let id = std::fs::read_to_string(root.join("etc/machine-id")).expect("a machine has an id");
    ["var/log/journal", "run/log/journal"].map(|dir| root.join(dir).join(id.trim())).to_vec()
}

/// Follows a machine's journal on a thread of its own.
struct Follower {
    stop: Arc<AtomicBool>,
    read: Arc<parking_lot::Mutex<Vec<Read>>>,
    thread: Option<std::thread::JoinHandle<pegel_agent::source::log::journal::Trouble>>,
}

impl Follower {
    fn start(machine: &Machine, start: Start) -> Self {
        let mut journal =
            Directory::open(directories(machine), Wanted::all(), start).expect("the journal can be read");
        let stop = Arc::new(AtomicBool::new(false));
        let entries: Arc<parking_lot::Mutex<Vec<Read>>> = Arc::default();
        let (ended, collected) = (stop.clone(), entries.clone());
        let thread = std::thread::spawn(move || {
            let mut entry = Entry::default();
            let mut trouble = pegel_agent::source::log::journal::Trouble::default();
            while !ended.load(Ordering::Acquire) {
                while journal.next(&mut entry).expect("the journal stays readable") {
                    assert_eq!((entry.damaged, entry.oversized), (0, 0));
                    collected.lock().push(read(&entry));
                }
                journal.wait(Duration::from_millis(20));
                let more = journal.trouble();
                trouble.last = more.last.or(trouble.last);
                trouble.damaged_files += more.damaged_files;
                trouble.damaged_entries += more.damaged_entries;
            }
            trouble
        });
        Self { stop, read: entries, thread: Some(thread) }
    }

    async fn until(&self, message: &str) {
        eventually(&format!("`{message}` is read"), READ_WITHIN, || async {
            let read = self.read.lock();
            let last = read.iter().rev().take(200);
            last.flat_map(|(_, fields)| fields)
                .any(|(name, value)| name == "MESSAGE" && value == message.as_bytes())
                .then_some(())
        })
        .await;
    }

    fn stop(mut self) -> (Vec<Read>, pegel_agent::source::log::journal::Trouble) {
        self.stop.store(true, Ordering::Release);
        let trouble = self.thread.take().expect("it runs").join().expect("it ends well");
        (std::mem::take(&mut *self.read.lock()), trouble)
    }
}

/// What journalctl says that is there.
async fn journalctl(machine: &Machine, options: &str) -> Vec<Read> {
    machine.run(&format!("journalctl --output=export --all --no-pager {options} > /shared/export")).await;
    let bytes = std::fs::read(machine.shared().join("export")).expect("journalctl wrote it");
    let mut parser = Parser::default();
    parser.push(&bytes);
    let mut entry = Entry::default();
    let mut all = Vec::new();
    while parser.next(&mut entry) {
        assert_eq!(entry.damaged, 0);
        all.push(read(&entry));
    }
    all
}

/// Both have the same entries with the same fields in the same order, up to a message.
fn same(ours: &[Read], theirs: &[Read], last: &str) {
    let end = |all: &[Read]| {
        let at = all
            .iter()
            .rposition(|(_, fields)| fields.iter().any(|(n, v)| n == "MESSAGE" && v == last.as_bytes()));
        at.unwrap_or_else(|| panic!("`{last}` is among {} entries", all.len()))
    };
    let (ours, theirs) = (&ours[..=end(ours)], &theirs[..=end(theirs)]);
    let mut seen = HashMap::new();
    for (nth, (cursor, _)) in ours.iter().enumerate() {
        if let Some(before) = seen.insert(cursor, nth) {
            panic!("{cursor} came as entry {before} and {nth}");
        }
    }
    for (nth, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!(ours.0, theirs.0, "entry {nth} of {}", ours.1.len());
        assert_eq!(ours.1, theirs.1, "entry {nth}");
    }
    assert_eq!(ours.len(), theirs.len());
    assert!(theirs.len() > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_as_journalctl_reads_them_across_rotation_vacuum_and_kills_of_journald() {
    let Some(machine) = Machine::boot(MachineSetup::new(Cgroups::V2)).await else { return };
    machine.run("mkdir -p /var/log/journal && systemd-tmpfiles --create --prefix /var/log/journal; systemctl restart systemd-journald && journalctl --flush").await;
    let follower = Follower::start(&machine, Start::Beginning);

    // Short and long ones (which journald compresses), values that are no text, other users' files.
    machine
        .run(
            "for i in $(seq 200); do echo \"line $i\"; done | systemd-cat -t numbers -p warning
             head -c 40000 /dev/zero | tr '\\0' z | systemd-cat -t long
             head -c 300000 /dev/urandom | base64 -w0 | head -c 30000 | systemd-cat -t longer
             printf 'MESSAGE=of bytes \\001\\002\\033 end\\nPRIORITY=3\\nX_SAME=a\\nX_SAME=b\\n' | logger --journald
             for u in 1000 1001; do setpriv --reuid $u --clear-groups sh -c 'for i in $(seq 50); do echo user $i | systemd-cat -t of-user; done'; done
             logger -t marker marker-1",
        )
        .await;
    follower.until("marker-1").await;
    machine.run("journalctl --rotate; for i in $(seq 100); do logger rotated $i; done; journalctl --rotate; logger marker-2").await;
    follower.until("marker-2").await;
    for kill in 0..3 {
        let script = format!(
            "for i in $(seq 100); do logger before kill {kill} $i; done
             systemctl kill --signal=KILL systemd-journald; systemctl reset-failed systemd-journald
             for t in $(seq 100); do systemctl is-active -q systemd-journald && break; sleep 0.1; done
             for i in $(seq 20); do logger after kill {kill} $i; done
             logger killed-{kill}"
        );
        machine.run(&script).await;
        follower.until(&format!("killed-{kill}")).await;
    }
    let theirs = journalctl(&machine, "").await;
    // What the vacuum deletes was read; what comes after is, too.
    machine
        .run("journalctl --rotate --vacuum-files=1; for i in $(seq 100); do logger vacuumed $i; done; logger marker-3")
        .await;
    follower.until("marker-3").await;
    let (ours, trouble) = follower.stop();
    assert_eq!((trouble.damaged_files, trouble.damaged_entries), (0, 0), "{:?}", trouble.last);
    same(&ours, &theirs, "killed-2");
    let cursor = theirs.last().expect("entries").0.clone();
    let rest = journalctl(&machine, &format!("--after-cursor='{cursor}'")).await;
    // The vacuum took some that we had read.
    let from = ours.iter().position(|(at, _)| *at == rest[0].0).expect("it was read");
    let last = ours.iter().position(|(at, _)| *at == cursor).expect("it was read");
    assert!(from > last);
    same(&ours[from..], &rest, "marker-3");

    // A reader that begins behind any of them gives the rest.
    for at in [ours.len() - 2, ours.len() - 40, ours.len() - 101] {
        let cursor: Cursor = ours[at].0.parse().expect("our own cursor");
        let follower = Follower::start(&machine, Start::After(cursor));
        follower.until("marker-3").await;
        let (again, _) = follower.stop();
        assert_eq!(again[..ours.len() - at - 1], ours[at + 1..], "behind entry {at} of {}", ours.len());
    }
}
