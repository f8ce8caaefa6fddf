//! Processes of a recorded tree, and TCP connections as netlink tells of them.

use super::*;

const SOCK_DIAG_BY_FAMILY: u16 = 20;

fn collected(settings: Settings, system: FixedSystem) -> BTreeMap<String, f64> {
    samples(source(settings, system).collect_blocking(0).last().unwrap())
}

fn lines(all: &BTreeMap<String, f64>, prefix: &str) -> Vec<String> {
    let named = all.iter().filter(|(key, _)| key.starts_with(prefix));
    named.map(|(key, value)| format!("{} {value}", key.replace('"', ""))).collect()
}

#[test]
fn processes_and_threads_are_counted_by_state_whatever_they_are_called() {
    let tree = Tree::recorded("tasks");
    let settings = Settings { collectors: vec![CollectorKind::Processes], ..tree.settings() };
    let all = collected(settings, FixedSystem::new());
    assert_eq!(success(&all, "processes"), 1.0);
    assert_eq!(
        lines(&all, "node_processes_"),
        [
            "node_processes_max_processes 4194304",
            "node_processes_max_threads 125952",
            "node_processes_pids 4",
            "node_processes_state{state=I} 1",
            "node_processes_state{state=S} 2",
            "node_processes_state{state=Z} 1",
            "node_processes_threads 7",
            "node_processes_threads_state{thread_state=D} 1",
            "node_processes_threads_state{thread_state=I} 1",
            "node_processes_threads_state{thread_state=R} 1",
            "node_processes_threads_state{thread_state=S} 3",
            "node_processes_threads_state{thread_state=Z} 1",
        ]
    );
}

#[test]
fn a_damaged_stat_file_fails_the_processes_and_is_named() {
    for damage in ["1 (systemd) S 0 0\n", "1 (systemd\n", ""] {
        let tree = Tree::recorded("tasks");
        tree.write("proc/1/stat", damage.as_bytes());
        let error = first_error(&tree, "processes");
        assert!(error.contains("proc/1/stat"), "{error}");
    }
}

/// A `struct inet_diag_msg`.
fn connection(family: u8, state: u8, receive: u32, send: u32) -> (u16, Vec<u8>) {
    let mut message = vec![0; 72];
    message[..2].copy_from_slice(&[family, state]);
    message[56..60].copy_from_slice(&receive.to_ne_bytes());
    message[60..64].copy_from_slice(&send.to_ne_bytes());
    (SOCK_DIAG_BY_FAMILY, message)
}

#[test]
fn connections_of_both_families_are_counted_by_state() {
    let (v4, v6) = (2, 10);
    let answers = vec![
        connection(v4, 1, 10, 0),
        connection(v4, 10, 0, 128),
        connection(v6, 1, 5, 7),
        connection(v6, 6, 0, 0),
        connection(v6, 13, 0, 0),
        (SOCK_DIAG_BY_FAMILY, vec![v4]),
    ];
    let answers = Arc::new(BTreeMap::from([(SOCK_DIAG_BY_FAMILY, answers)]));
    let tree = Tree::recorded("tasks");
    let states = || {
        let system = FixedSystem { answers: answers.clone(), ..FixedSystem::new() };
        let settings = Settings { collectors: vec![CollectorKind::Tcpstat], ..tree.settings() };
        lines(&collected(settings, system), "node_tcp_connection_states")
    };
    let of = |state: &str, value| format!("node_tcp_connection_states{{state={state}}} {value}");
    // Without /proc/net/tcp6 the kernel has no IPv6, and is not asked for it.
    let v4 = [
        of("established", 1),
        of("listen", 1),
        of("rx_queued_bytes", 10),
        of("tx_queued_bytes", 128),
        of("unknown", 1),
    ];
    assert_eq!(states(), v4);
    tree.write("proc/net/tcp6", b"");
    let both = [
        of("established", 2),
        of("listen", 1),
        of("rx_queued_bytes", 15),
        of("time_wait", 1),
        of("tx_queued_bytes", 135),
        of("unknown", 2),
    ];
    assert_eq!(states(), both);
}

#[test]
fn the_running_kernel_tells_of_a_connection_that_we_made() {
    let listener = std::net::TcpListener::bind("[::1]:0")
        .or_else(|_| std::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let settings = Settings { collectors: vec![CollectorKind::Tcpstat], ..Settings::default() };
    let all = samples(&source(settings, KernelSystem::new()).collect_blocking(0)[0]);
    drop(client);
    assert_eq!(success(&all, "tcpstat"), 1.0);
    assert!(all[r#"node_tcp_connection_states{state="established"}"#] >= 2.0);
    assert!(all[r#"node_tcp_connection_states{state="listen"}"#] >= 1.0);
}
