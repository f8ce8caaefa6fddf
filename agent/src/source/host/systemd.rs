//! Units of systemd, by its D-Bus interface (org.freedesktop.systemd1(5)).
//!
//! One `ListUnits` a scrape, and for the units that pass the filter only those properties that a metric needs.

use super::dbus::{Call, Connection, Owned, Property, Refusal, Route, Service};
use super::emit::{Emitter, Metric};
use super::{CollectError, Collector, CollectorKind, Filter, Setup};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The states whose series are always there.
const STATES: [&str; 5] = ["active", "activating", "deactivating", "inactive", "failed"];

/// The first version of systemd that tells the system's state and when a timer was triggered.
const FIRST_VERSION_WITH_STATE: f64 = 212.0;

const BUS_NAME: &str = "org.freedesktop.systemd1";
const ROOT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const SOCKET: &str = "org.freedesktop.systemd1.Socket";
const TIMER: &str = "org.freedesktop.systemd1.Timer";
const MOUNT: &str = "org.freedesktop.systemd1.Mount";

/// What can be set about the systemd collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemdSettings {
    /// Units that have series of their own, by their whole name (`collector.systemd.unit-include`, `-exclude`).
    pub units: Filter,
    /// `node_systemd_unit_tasks_current` and `_max` (`collector.systemd.enable-task-metrics`).
    pub tasks: bool,
    /// `node_systemd_service_restart_total` (`collector.systemd.enable-restarts-metrics`).
    pub restarts: bool,
    /// `node_systemd_unit_start_time_seconds` (`collector.systemd.enable-start-time-metrics`).
    pub start_times: bool,
    /// Asks systemd on its own socket, which only root can, rather than through the bus
    /// (`collector.systemd.private`).
    pub private: bool,
}

impl Default for SystemdSettings {
    fn default() -> Self {
        Self {
            units: Filter::excluding(super::Pattern::default_systemd_units()),
            tasks: false,
            restarts: false,
            start_times: false,
            private: false,
        }
    }
}

struct Systemd {
    service: Service,
    settings: SystemdSettings,
    metrics: Metrics,
}

struct Metrics {
    version: Metric,
    virtualization: Metric,
    units: Metric,
    state: Metric,
    restarts: Metric,
    start_time: Metric,
    tasks_current: Metric,
    tasks_max: Metric,
    timer: Metric,
    accepted: Metric,
    connections: Metric,
    refused: Metric,
    running: Metric,
}

/// Makes the collector.
pub(super) fn new(setup: &Setup<'_>) -> Box<dyn Collector> {
    let settings = setup.settings.systemd.clone();
    let (socket, route) = if settings.private {
        (PathBuf::from("/run/systemd/private"), Route::Direct)
    } else {
        (setup.paths.system_bus.clone(), Route::Bus(BUS_NAME))
    };
    let service = Service::new(socket, route, answer_limit(setup, CollectorKind::Systemd));
    Box::new(Systemd { service, settings, metrics: Metrics::new() })
}

/// The time for the answers of a bus: less than the collector's, so that a bus that hangs is named by the one who
/// asked it and costs no thread.
pub(super) fn answer_limit(setup: &Setup<'_>, kind: CollectorKind) -> Duration {
    setup.settings.limit_of(kind) * 3 / 4
}

impl Metrics {
    fn new() -> Self {
        let gauge = |name: &str, help: &str, labels| Metric::gauge(name, help, labels);
        let counter = |name: &str, help: &str| Metric::counter(name, help, &["name"]);
        Self {
            version: gauge("node_systemd_version", "The version of systemd.", &["version"]),
            virtualization: gauge(
                "node_systemd_virtualization_info",
                "The virtualization that systemd detected.",
                &["virtualization_type"],
            ),
            units: gauge("node_systemd_units", "Units, by their state.", &["state"]),
            state: gauge(
                "node_systemd_unit_state",
                "1 for the state that the unit is in, 0 for the others.",
                &["name", "state", "type"],
            ),
            restarts: counter("node_systemd_service_restart_total", "Automatic restarts of the service."),
            start_time: gauge(
                "node_systemd_unit_start_time_seconds",
                "When the unit became active, in Unix time; 0 if it is not.",
                &["name"],
            ),
            tasks_current: gauge("node_systemd_unit_tasks_current", "Tasks of the service.", &["name"]),
            tasks_max: gauge("node_systemd_unit_tasks_max", "The service's limit of tasks.", &["name"]),
            timer: gauge(
                "node_systemd_timer_last_trigger_seconds",
                "When the timer last triggered, in Unix time.",
                &["name"],
            ),
            accepted: counter(
                "node_systemd_socket_accepted_connections_total",
                "Connections that the socket accepted.",
            ),
            connections: gauge(
                "node_systemd_socket_current_connections",
                "Connections that the socket has.",
                &["name"],
            ),
            // A count, but node_exporter calls it a gauge.
            refused: gauge(
                "node_systemd_socket_refused_connections_total",
                "Connections that the socket refused.",
                &["name"],
            ),
            running: gauge(
                "node_systemd_system_running",
                "1 if the system is up and no unit has failed, as systemctl is-system-running says.",
                &[],
            ),
        }
    }
}

/// A unit that has series of its own.
struct Unit {
    name: Box<str>,
    path: Box<str>,
    active_state: Box<str>,
}

/// What a scrape learns.
struct Found {
    version: Box<str>,
    virtualization: Option<Box<str>>,
    system_state: Result<Owned, Refusal>,
    /// How many units are in each state.
    summary: Vec<(Box<str>, u64)>,
    units: Vec<Unit>,
    /// The answers to what was asked of the units, in the order of [`Systemd::wanted`].
    properties: Vec<Option<Owned>>,
}

/// What is asked of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Type,
    Restarts,
    StartTime,
    TasksCurrent,
    TasksMax,
    LastTrigger,
    Accepted,
    Connections,
    Refused,
}

impl Wanted {
    /// Its interface and name, for a unit of this kind.
    fn property(self, kind: &str) -> (&'static str, &'static str) {
        match self {
            Self::Type if kind == "mount" => (MOUNT, "Type"),
            Self::Type => (SERVICE, "Type"),
            Self::Restarts => (SERVICE, "NRestarts"),
            Self::StartTime => (UNIT, "ActiveEnterTimestamp"),
            Self::TasksCurrent => (SERVICE, "TasksCurrent"),
            Self::TasksMax => (SERVICE, "TasksMax"),
            Self::LastTrigger => (TIMER, "LastTriggerUSec"),
            Self::Accepted => (SOCKET, "NAccepted"),
            Self::Connections => (SOCKET, "NConnections"),
            Self::Refused => (SOCKET, "NRefused"),
        }
    }
}

impl SystemdSettings {
    /// What is asked of a unit, in the order in which it is emitted.
    fn wanted(&self, unit: &Unit, tells_triggers: bool) -> impl Iterator<Item = Wanted> + use<> {
        let kind = unit.kind();
        let (service, socket) = (kind == "service", kind == "socket");
        let started = self.start_times && &*unit.active_state == "active";
        [
            (Wanted::Type, service || kind == "mount"),
            (Wanted::Restarts, service && self.restarts),
            (Wanted::StartTime, started),
            (Wanted::TasksCurrent, service && self.tasks),
            (Wanted::TasksMax, service && self.tasks),
            (Wanted::LastTrigger, kind == "timer" && tells_triggers),
            (Wanted::Accepted, socket),
            (Wanted::Connections, socket),
            (Wanted::Refused, socket),
        ]
        .into_iter()
        .filter_map(|(wanted, is)| is.then_some(wanted))
    }
}

impl Unit {
    /// The kind of the unit: what stands behind the name's last dot.
    fn kind(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(_, kind)| kind)
    }
}

impl Collector for Systemd {
    fn collect(&mut self, out: &mut Emitter<'_>) -> Result<(), CollectError> {
        let Self { service, settings, metrics } = self;
        let found = service.ask(|connection| ask(connection, settings))?;
        emit(&found, settings, metrics, out);
        match found.system_state {
            Err(refusal) if tells_state(&found.version) => Err(CollectError::Read {
                path: service.socket().to_owned(),
                source: io::Error::other(refusal),
            }),
            _ => Ok(()),
        }
    }
}

fn ask(connection: &mut Connection, settings: &SystemdSettings) -> io::Result<Found> {
    let manager = |name| Property { path: ROOT, interface: MANAGER, name };
    let about = [manager("Version"), manager("Virtualization"), manager("SystemState")];
    let mut about = connection.properties(&about)?.into_iter();
    let mut text = || about.next().and_then(Result::ok).and_then(|value| value.text().map(Box::from));
    let version: Box<str> = text().unwrap_or_default();
    let virtualization = text();
    let system_state = about.next().unwrap_or_else(|| Ok(Owned::Text("".into())));

    let mut summary: Vec<(Box<str>, u64)> = STATES.iter().map(|state| ((*state).into(), 0)).collect();
    let list = Call { path: ROOT, interface: MANAGER, member: "ListUnits", arguments: &[] };
    let units = connection.call(list, |body| {
        let mut reader = body.of("a(ssssssouso)")?;
        reader.structures(|unit| {
            let (name, _description, load) = (unit.string()?, unit.string()?, unit.string()?);
            let (active, _sub, _following) = (unit.string()?, unit.string()?, unit.string()?);
            let path = unit.string()?;
            let (_job, _job_type, _job_path) = (unit.u32()?, unit.string()?, unit.string()?);
            match summary.iter_mut().find(|(state, _)| **state == *active) {
                Some((_, count)) => *count += 1,
                None => summary.push((active.into(), 1)),
            }
            let own = load == "loaded" && settings.units.passes(name);
            Ok(own.then(|| Unit { name: name.into(), path: path.into(), active_state: active.into() }))
        })
    })?;
    let mut units: Vec<Unit> = units.into_iter().flatten().collect();
    // systemd lists them in the order of a hash table.
    units.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    summary[STATES.len()..].sort_unstable();

    let tells = tells_state(&version);
    let mut properties = Vec::new();
    for unit in &units {
        for wanted in settings.wanted(unit, tells) {
            let (interface, name) = wanted.property(unit.kind());
            properties.push(Property { path: &unit.path, interface, name });
        }
    }
    let answers = connection.properties(&properties)?;
    // A unit that has gone meanwhile, or a property that this systemd does not have, is missing alone.
    let properties = answers.into_iter().map(Result::ok).collect();
    Ok(Found { version, virtualization, system_state, summary, units, properties })
}

fn emit(found: &Found, settings: &SystemdSettings, metrics: &Metrics, out: &mut Emitter<'_>) {
    match version_number(&found.version) {
        Some(number) => out.emit(&metrics.version, &[&found.version], number),
        None => out.emit(&metrics.version, &[""], 0.0),
    }
    let virtualization = match found.virtualization.as_deref() {
        None => "unknown",
        Some("") => "none",
        Some(kind) => kind,
    };
    out.emit(&metrics.virtualization, &[virtualization], 1.0);
    for (state, count) in &found.summary {
        out.emit(&metrics.units, &[state], *count as f64);
    }
    let tells = tells_state(&found.version);
    if let (true, Ok(state)) = (tells, &found.system_state) {
        out.emit(&metrics.running, &[], f64::from(u8::from(state.text() == Some("running"))));
    }
    let mut answers = found.properties.iter();
    for unit in &found.units {
        let wanted: Vec<Wanted> = settings.wanted(unit, tells).collect();
        let answers: Vec<(Wanted, &Owned)> =
            wanted.into_iter().filter_map(|wanted| Some((wanted, answers.next()?.as_ref()?))).collect();
        emit_unit(unit, &answers, settings, metrics, out);
    }
}

fn emit_unit(
    unit: &Unit,
    answers: &[(Wanted, &Owned)],
    settings: &SystemdSettings,
    metrics: &Metrics,
    out: &mut Emitter<'_>,
) {
    let kind = answers.iter().find(|(wanted, _)| *wanted == Wanted::Type).and_then(|(_, value)| value.text());
    for state in STATES {
        let is = f64::from(u8::from(*unit.active_state == *state));
        out.emit(&metrics.state, &[&unit.name, state, kind.unwrap_or_default()], is);
    }
    if settings.start_times && &*unit.active_state != "active" {
        out.emit(&metrics.start_time, &[&unit.name], 0.0);
    }
    for (wanted, value) in answers {
        let Some(number) = value.number() else { continue };
        let (metric, value) = match wanted {
            Wanted::Type => continue,
            // No limit, and nobody who counts.
            Wanted::TasksCurrent | Wanted::TasksMax if number == u64::MAX => continue,
            Wanted::Restarts => (&metrics.restarts, number as f64),
            Wanted::StartTime => (&metrics.start_time, number as f64 / 1e6),
            Wanted::TasksCurrent => (&metrics.tasks_current, number as f64),
            Wanted::TasksMax => (&metrics.tasks_max, number as f64),
            Wanted::LastTrigger => (&metrics.timer, number as f64 / 1e6),
            Wanted::Accepted => (&metrics.accepted, number as f64),
            Wanted::Connections => (&metrics.connections, number as f64),
            Wanted::Refused => (&metrics.refused, number as f64),
        };
        out.emit(metric, &[&unit.name], value);
    }
}

/// The number in a version such as `252.39-1~deb12u1`: its first three digits or more, with what stands behind a dot.
fn version_number(version: &str) -> Option<f64> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = version;
    loop {
        rest = &rest[rest.find(|c: char| c.is_ascii_digit())?..];
        let length = digits(rest);
        if length < 3 {
            rest = &rest[length..];
            continue;
        }
        let fraction = rest[length..].strip_prefix('.').map_or(0, digits);
        let end = if fraction == 0 { length } else { length + 1 + fraction };
        return rest[..end].parse().ok();
    }
}

/// Whether this version tells the system's state and when timers were triggered.
fn tells_state(version: &str) -> bool {
    version_number(version).is_some_and(|number| number >= FIRST_VERSION_WITH_STATE)
}

#[cfg(test)]
mod tests;
