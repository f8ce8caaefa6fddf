//! Sessions of logind, by its D-Bus interface (org.freedesktop.login1(5)).

use super::dbus::{Call, Connection, Owned, Property, Route, Service};
use super::emit::{Emitter, Metric};
use super::systemd::answer_limit;
use super::{CollectError, Collector, CollectorKind, Setup};
use std::io;

const BUS_NAME: &str = "org.freedesktop.login1";
const ROOT: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SESSION: &str = "org.freedesktop.login1.Session";

/// What node_exporter knows of sessions, as of systemd 229; all else is `other`.
const TYPES: [&str; 7] = ["other", "unspecified", "tty", "x11", "wayland", "mir", "web"];
const CLASSES: [&str; 5] = ["other", "user", "greeter", "lock-screen", "background"];

struct Logind {
    service: Service,
    sessions: Metric,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let limit = answer_limit(setup, CollectorKind::Logind);
    Box::new(Logind {
        service: Service::new(setup.paths.system_bus.clone(), Route::Bus(BUS_NAME), limit),
        sessions: Metric::gauge(
            "node_logind_sessions",
            "Sessions of logind.",
            &["class", "remote", "seat", "type"],
        ),
    })
}

/// A session as far as it is counted.
struct Session {
    seat: Box<str>,
    remote: bool,
    kind: &'static str,
    class: &'static str,
}

impl Collector for Logind {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let (seats, sessions) = self.service.ask(ask)?;
        for remote in [true, false] {
            for kind in TYPES {
                for class in CLASSES {
                    for seat in &seats {
                        let is = |s: &&Session| {
                            s.remote == remote && s.kind == kind && s.class == class && s.seat == *seat
                        };
                        let count = sessions.iter().filter(is).count();
                        let words = if remote { "true" } else { "false" };
                        out.emit(&self.sessions, &[class, words, seat, kind], count as f64);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The seats, and the sessions.
fn ask(connection: &mut Connection) -> io::Result<(Vec<Box<str>>, Vec<Session>)> {
    let list = |member| Call { path: ROOT, interface: MANAGER, member, arguments: &[] };
    let mut seats = connection.call(list("ListSeats"), |body| {
        body.of("a(so)")?.structures(|seat| {
            let name = seat.string()?;
            seat.string()?;
            Ok(Box::from(name))
        })
    })?;
    seats.sort_unstable();
    // Sessions from elsewhere have no seat.
    seats.push("".into());
    let listed: Vec<(Box<str>, Box<str>)> = connection.call(list("ListSessions"), |body| {
        body.of("a(susso)")?.structures(|session| {
            let (_id, _user_number, _user) = (session.string()?, session.u32()?, session.string()?);
            Ok((session.string()?.into(), session.string()?.into()))
        })
    })?;
    let wanted = ["Remote", "Type", "Class"];
    let properties =
        listed.iter().flat_map(|(_, path)| wanted.map(|name| Property { path, interface: SESSION, name }));
    let properties: Vec<_> = properties.collect();
    let answers = connection.properties(&properties)?;
    let sessions =
        listed.iter().zip(answers.chunks_exact(wanted.len())).filter_map(|((seat, _), answers)| {
            // A session that has ended meanwhile is none.
            let [Ok(remote), Ok(kind), Ok(class)] = answers else { return None };
            Some(Session {
                seat: seat.clone(),
                remote: remote.number()? != 0,
                kind: known(&TYPES, kind)?,
                class: known(&CLASSES, class)?,
            })
        });
    Ok((seats, sessions.collect()))
}

fn known(all: &[&'static str], value: &Owned) -> Option<&'static str> {
    let value = value.text()?;
    Some(all.iter().find(|known| **known == value).unwrap_or(&"other"))
}
