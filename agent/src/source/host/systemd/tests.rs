//! Units and sessions as a bus of the test's own tells of them.

#![allow(clippy::float_cmp, reason = "the same numbers are expected to the last bit")]

use super::super::dbus::tests::{Asked, Body, FakeBus, Manner, Says};
use super::super::tests::{FixedSystem, samples, source, success};
use super::super::{CollectorKind, Paths, Pattern, Settings};
use super::*;
use std::collections::BTreeMap;

const UNITS: [(&str, &str, &str); 9] = [
    ("ssh.service", "loaded", "active"),
    ("broken.service", "loaded", "failed"),
    ("gone.service", "not-found", "inactive"),
    ("vanishing.service", "loaded", "active"),
    ("daily.timer", "loaded", "active"),
    ("api.socket", "loaded", "reloading"),
    ("tmp.mount", "loaded", "active"),
    ("user.slice", "loaded", "active"),
    ("a\"b\\x2d.path", "loaded", "inactive"),
];

fn units() -> Says {
    let mut body = Body::default();
    body.array(|all| {
        for (name, load, active) in UNITS {
            all.align(8).string(name).string("words").string(load).string(active).string("sub").string("");
            all.string(&format!("/unit/{name}")).u32(0).string("").string("/");
        }
    });
    Says::Reply("a(ssssssouso)", body)
}

fn text(text: &str) -> Says {
    Says::Property(Owned::Text(text.into()))
}

/// A systemd of this version and state.
fn systemd(asked: &Asked, version: &str, state: &str) -> Says {
    if asked.member == "ListUnits" {
        return units();
    }
    let number = |number| Says::Property(Owned::Number(number));
    match (&*asked.path, &*asked.arguments[1]) {
        (_, "Version") => text(version),
        (_, "Virtualization") => text(""),
        (_, "SystemState") => text(state),
        ("/unit/vanishing.service", _) => Says::Refusal("org.freedesktop.DBus.Error.UnknownObject"),
        ("/unit/ssh.service", "Type") => text("notify"),
        (_, "Type") => text("simple"),
        (_, "NRestarts") => number(3),
        (_, "ActiveEnterTimestamp") => number(1_700_000_000_500_000),
        (_, "TasksCurrent") => number(2),
        ("/unit/ssh.service", "TasksMax") => number(100),
        (_, "TasksMax") => number(u64::MAX),
        (_, "LastTriggerUSec") => number(1_600_000_000_250_000),
        (_, "NAccepted") => number(7),
        (_, "NConnections") => number(1),
        // As a systemd before 239.
        (_, "NRefused") => Says::Refusal("org.freedesktop.DBus.Error.UnknownProperty"),
        (path, name) => panic!("nobody should ask {path} for {name}"),
    }
}

fn settings(dir: &std::path::Path, kind: CollectorKind) -> Settings {
    Settings {
        paths: Paths { system_bus: dir.join("bus"), ..Paths::default() },
        collectors: vec![kind],
        ..Settings::default()
    }
}

fn collected(settings: Settings) -> BTreeMap<String, f64> {
    samples(source(settings, FixedSystem::new()).collect_blocking(0).last().unwrap())
}

fn of_systemd(all: &BTreeMap<String, f64>) -> String {
    let lines = all.iter().filter(|(key, _)| key.starts_with("node_systemd_"));
    lines.map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join("\n")
}

#[test]
fn units_that_pass_the_filter_have_states_and_what_their_kind_tells() {
    let dir = tempfile::tempdir().unwrap();
    let _bus =
        FakeBus::start(&dir.path().join("bus"), |asked| systemd(asked, "252.39-1~deb12u1", "degraded"));
    let all = collected(settings(dir.path(), CollectorKind::Systemd));
    assert_eq!(success(&all, "systemd"), 1.0);
    let mut expected = vec![
        "node_systemd_socket_accepted_connections_total{name=\"api.socket\"} 7".to_owned(),
        "node_systemd_socket_current_connections{name=\"api.socket\"} 1".to_owned(),
        "node_systemd_system_running 0".to_owned(),
        "node_systemd_timer_last_trigger_seconds{name=\"daily.timer\"} 1600000000.25".to_owned(),
        "node_systemd_version{version=\"252.39-1~deb12u1\"} 252.39".to_owned(),
        "node_systemd_virtualization_info{virtualization_type=\"none\"} 1".to_owned(),
    ];
    for (state, count) in [
        ("active", 5),
        ("activating", 0),
        ("deactivating", 0),
        ("inactive", 2),
        ("failed", 1),
        ("reloading", 1),
    ] {
        expected.push(format!("node_systemd_units{{state=\"{state}\"}} {count}"));
    }
    for (name, is, kind) in [
        ("ssh.service", "active", "notify"),
        ("broken.service", "failed", "simple"),
        ("vanishing.service", "active", ""),
        ("daily.timer", "active", ""),
        ("api.socket", "reloading", ""),
        (r#"a\"b\\x2d.path"#, "inactive", ""),
    ] {
        for state in STATES {
            let value = u8::from(state == is);
            expected.push(format!(
                "node_systemd_unit_state{{name=\"{name}\",state=\"{state}\",type=\"{kind}\"}} {value}"
            ));
        }
    }
    expected.sort_unstable();
    let mut found: Vec<_> = of_systemd(&all).lines().map(str::to_owned).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn what_node_exporter_has_off_is_asked_for_only_when_it_is_on() {
    let dir = tempfile::tempdir().unwrap();
    let _bus = FakeBus::start(&dir.path().join("bus"), |asked| systemd(asked, "v255", "running"));
    let mut settings = settings(dir.path(), CollectorKind::Systemd);
    settings.systemd = SystemdSettings {
        units: Filter {
            include: Some(Pattern::parse("^(?:.*ssh.*|tmp.*|.*broken.*)$").unwrap()),
            exclude: None,
        },
        tasks: true,
        restarts: true,
        start_times: true,
        private: false,
    };
    let all = collected(settings);
    let mut found = of_systemd(&all);
    found.retain(|c| c != '"');
    for line in [
        "node_systemd_version{version=v255} 255",
        "node_systemd_system_running 1",
        "node_systemd_unit_state{name=tmp.mount,state=active,type=simple} 1",
        "node_systemd_service_restart_total{name=broken.service} 3",
        "node_systemd_unit_start_time_seconds{name=broken.service} 0",
        "node_systemd_unit_start_time_seconds{name=ssh.service} 1700000000.5",
        "node_systemd_unit_start_time_seconds{name=tmp.mount} 1700000000.5",
        "node_systemd_unit_tasks_current{name=broken.service} 2",
        "node_systemd_unit_tasks_max{name=ssh.service} 100",
    ] {
        assert!(found.lines().any(|found| found == line), "{line} is missing in\n{found}");
    }
    assert!(!found.contains("tasks_max{name=broken"), "no limit is none:\n{found}");
    assert!(!found.contains("daily.timer"), "{found}");
}

#[test]
fn an_old_systemd_is_asked_for_nothing_that_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let _bus =
        FakeBus::start(&dir.path().join("bus"), |asked| match asked.arguments.get(1).map(String::as_str) {
            Some("SystemState" | "Virtualization") => {
                Says::Refusal("org.freedesktop.DBus.Error.UnknownProperty")
            }
            Some("LastTriggerUSec") => panic!("it does not have that"),
            _ => systemd(asked, "systemd 208", ""),
        });
    let all = collected(settings(dir.path(), CollectorKind::Systemd));
    assert_eq!(success(&all, "systemd"), 1.0);
    assert_eq!(all[r#"node_systemd_virtualization_info{virtualization_type="unknown"}"#], 1.0);
    assert!(!of_systemd(&all).contains("running"));
}

#[test]
fn versions_are_numbers_with_three_digits_or_more() {
    for (version, number) in [
        ("252.39-1~deb12u1", Some(252.39)),
        ("v255", Some(255.0)),
        ("systemd 25 249.11", Some(249.11)),
        ("257.", Some(257.0)),
        ("1.2.3", None),
        ("", None),
    ] {
        assert_eq!(version_number(version), number, "{version}");
    }
}

#[test]
fn a_bus_that_hangs_fails_one_collector_within_its_time_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let bus = FakeBus::start(&dir.path().join("bus"), |asked| systemd(asked, "252", "running"));
    let mut settings = settings(dir.path(), CollectorKind::Systemd);
    settings.collectors.push(CollectorKind::Uname);
    settings.collector_timeout = Duration::from_secs(1);
    let mut source = source(settings, FixedSystem::new());
    let mut scrape = || samples(source.collect_blocking(0).last().unwrap());
    assert_eq!(success(&scrape(), "systemd"), 1.0);
    bus.behave(Manner::Silent);
    bus.disconnect();
    for _ in 0..2 {
        let all = scrape();
        assert_eq!((success(&all, "systemd"), success(&all, "uname")), (0.0, 1.0));
        // The collector gave up by itself: its thread does not hang.
        let seconds = all[r#"node_scrape_collector_duration_seconds{collector="systemd"}"#];
        assert!((0.7..1.0).contains(&seconds), "{seconds}");
        assert_eq!(of_systemd(&all), "");
    }
    bus.behave(Manner::Sound);
    assert_eq!(success(&scrape(), "systemd"), 1.0);
}

#[test]
fn sessions_are_counted_by_seat_and_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let _bus = FakeBus::start(&dir.path().join("bus"), |asked| match &*asked.member {
        "ListSeats" => {
            let mut body = Body::default();
            body.array(|all| {
                all.align(8).string("seat0").string("/seat/0");
            });
            Says::Reply("a(so)", body)
        }
        "ListSessions" => {
            let mut body = Body::default();
            body.array(|all| {
                for (id, seat) in [("1", "seat0"), ("2", ""), ("3", ""), ("4", "")] {
                    all.align(8).string(id).u32(1000).string("user").string(seat);
                    all.string(&format!("/session/{id}"));
                }
            });
            Says::Reply("a(susso)", body)
        }
        _ => match (&*asked.path, &*asked.arguments[1]) {
            ("/session/4", _) => Says::Refusal("org.freedesktop.DBus.Error.UnknownObject"),
            (path, "Remote") => Says::Boolean(path != "/session/1"),
            ("/session/1", "Type") => text("hologram"),
            (_, "Type") => text("tty"),
            (_, _) => text("user"),
        },
    });
    let all = collected(settings(dir.path(), CollectorKind::Logind));
    assert_eq!(success(&all, "logind"), 1.0);
    let sessions: BTreeMap<_, _> = all.iter().filter(|(key, _)| key.starts_with("node_logind")).collect();
    assert_eq!(sessions.len(), 2 * 7 * 5 * 2);
    let some: Vec<_> =
        sessions.iter().filter(|(_, value)| ***value > 0.0).map(|(k, v)| format!("{k} {v}")).collect();
    assert_eq!(
        some,
        [
            r#"node_logind_sessions{class="user",remote="false",seat="seat0",type="other"} 1"#,
            r#"node_logind_sessions{class="user",remote="true",seat="",type="tty"} 2"#,
        ]
    );
}
