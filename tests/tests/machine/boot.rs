//! The machine itself: what the other tests rely on.

use pegel_tests::machine::{Cgroups, Machine, MachineSetup, SHARED};
use std::path::Path;

/// Directories of control groups that were made for machines of these names.
fn cgroups_of(names: &[String]) -> Vec<String> {
    let mut left = Vec::new();
    let mut waiting = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if names.iter().any(|name| entry.file_name() == **name) {
                    left.push(entry.path().display().to_string());
                }
                waiting.push(entry.path());
            }
        }
    }
    left
}

/// Whether a process runs; one that has ended and waits for the host's init to take notice does not.
fn alive(leader: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{leader}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("State:")).is_some_and(|state| !state.contains('Z'))
}

#[tokio::test]
async fn machines_run_beside_each_other_and_leave_nothing_behind() {
    let Some(unified) = Machine::boot(MachineSetup::new(Cgroups::V2)).await else { return };
    let Some(legacy) = Machine::boot(MachineSetup::new(Cgroups::V1)).await else { return };
    assert!(unified.run("stat -fc %T /sys/fs/cgroup").await.contains("cgroup2fs"));
    assert!(legacy.run("stat -fc %T /sys/fs/cgroup").await.contains("tmpfs"));

    unified
        .unit(
            "once.service",
            &format!("[Service]\nType=oneshot\nExecStart=/bin/sh -c 'id -u >{SHARED}/uid'\n"),
        )
        .await;
    unified.run("systemctl start once.service").await;
    assert_eq!(std::fs::read_to_string(unified.shared().join("uid")).unwrap(), "0\n");
    // What one writes, the other doesn't see, nor does the tree.
    assert!(!legacy.attempt("test -e /etc/systemd/system/once.service").await.status.success());

    let leaders = [unified.leader(), legacy.leader()];
    let names = [unified.name().to_owned(), legacy.name().to_owned()];
    assert!(cgroups_of(&names).len() > 2);
    unified.power_off().await;
    drop(legacy);
    assert!(!leaders.into_iter().any(alive), "{leaders:?}");
    assert!(cgroups_of(&names).is_empty(), "{:?}", cgroups_of(&names));
}

#[tokio::test]
async fn a_test_that_panics_ends_its_machine() {
    let Some(machine) = Machine::boot(MachineSetup::new(Cgroups::V2)).await else { return };
    let leader = machine.leader();
    let failing = tokio::spawn(async move {
        machine.run("false").await;
    });
    assert!(failing.await.unwrap_err().is_panic());
    assert!(!alive(leader));
}

#[tokio::test]
async fn podman_runs_containers_in_units_of_their_own() {
    let Some(machine) = Machine::boot(MachineSetup::new(Cgroups::V2)).await else { return };
    machine
        .run(
            "cd /usr/lib/*-linux-gnu && \
             tar -C / -c bin lib lib64 usr/bin/sleep usr/lib64 $PWD/libc.so.6 $PWD/ld-linux* | podman import - base && \
             podman run --detach --name=sleeps base /bin/sleep 1d",
        )
        .await;
    let groups = machine.run("podman inspect --format='{{.State.CgroupPath}}' sleeps").await;
    assert!(groups.contains("/machine.slice/libpod-"), "{groups}");
    machine.run(&format!("grep . /sys/fs/cgroup{}/cgroup.procs", groups.trim())).await;
}
