//! What happened to containers: the last of it for `/api/v1/status`, counted for `/metrics`, a line each in the log.

use super::Change;
use super::summary::OomKill;
use parking_lot::Mutex;
use pegel_runtime::metrics::Registry;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;

/// How many events are kept.
const EVENTS_KEPT: usize = 100;

/// The most lines in the log within [`LOG_WINDOW_MS`]: a storm of starts and stops is counted instead.
const LINES_PER_WINDOW: u32 = 20;

/// See [`LINES_PER_WINDOW`].
const LOG_WINDOW_MS: i64 = 10_000;

/// How long after a runtime's word of a kill the kernel's count of it is taken for the same, in milliseconds.
const SAME_KILL_MS: i64 = 60_000;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When it was noted, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// The container's id; empty for other cgroups.
    pub id: Box<str>,
    /// The container's name, or the cgroup's path.
    pub name: Box<str>,
    /// What happened: `start`, `stop`, `oom`, `health`.
    pub event: &'static str,
    /// An exit code, a state of health, a number of kills; empty if there is nothing more to say.
    pub detail: Box<str>,
}

/// The events of a node. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    last: VecDeque<Event>,
    window_began_ms: i64,
    lines: u32,
    unsaid: u64,
}

impl Events {
    /// The last of them, the newest last.
    pub fn last(&self) -> Vec<Event> {
        self.0.lock().last.iter().cloned().collect()
    }

    /// Takes in what a runtime says.
    pub(super) fn note_change(&self, change: &Change, at_ms: i64, registry: &Registry) {
        let (container, event, detail) = match change {
            Change::Started(container) => (container, "start", String::new()),
            Change::Stopped { container, exit_code } => {
                (container, "stop", exit_code.map_or_else(String::new, |code| format!("exit code {code}")))
            }
            Change::OutOfMemory(container) => (container, "oom", String::new()),
            Change::Health(container, health) => (container, "health", format!("{health:?}").to_lowercase()),
            Change::Updated(_) | Change::Removed(_) => return,
        };
        let id = container.id.as_str().into();
        let event = Event { at_ms, id, name: container.name.clone(), event, detail: detail.into() };
        self.note(event, registry);
    }

    /// Takes in what the kernel counted, unless the runtime told of it.
    pub(super) fn note_kill(&self, kill: OomKill, at_ms: i64, registry: &Registry) {
        let told = self.0.lock().last.iter().any(|event| {
            event.event == "oom" && Some(&event.id) == kill.id.as_ref() && at_ms - event.at_ms < SAME_KILL_MS
        });
        if !told {
            let detail = format!("{} killed", kill.count).into();
            let id = kill.id.unwrap_or_default();
            self.note(Event { at_ms, id, name: kill.name, event: "oom", detail }, registry);
        }
    }

    fn note(&self, event: Event, registry: &Registry) {
        let name = event.event;
        registry
            .counter("pegel_container_events_total", "What happened to containers.", &[("event", name)])
            .inc();
        let mut state = self.0.lock();
        state.log(&event);
        if state.last.len() == EVENTS_KEPT {
            state.last.pop_front();
        }
        state.last.push_back(event);
    }
}

impl State {
    fn log(&mut self, event: &Event) {
        if !(0..LOG_WINDOW_MS).contains(&(event.at_ms - self.window_began_ms)) {
            if self.unsaid > 0 {
                tracing::info!(events = self.unsaid, "more happened to containers than was logged");
            }
            *self = Self {
                last: std::mem::take(&mut self.last),
                window_began_ms: event.at_ms,
                lines: 0,
                unsaid: 0,
            };
        }
        if self.lines == LINES_PER_WINDOW {
            self.unsaid += 1;
            return;
        }
        self.lines += 1;
        let Event { name, id, event, detail, .. } = event;
        if *event == "oom" {
            tracing::warn!(container = %name, %id, %detail, "a container ran out of memory");
        } else {
            tracing::info!(container = %name, %id, event, %detail, "container");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kill(id: &str) -> OomKill {
        OomKill { id: Some(id.into()), name: id.into(), count: 2 }
    }

    #[test]
    fn only_the_last_events_are_kept_and_all_are_counted() {
        let (events, registry) = (Events::default(), Registry::new());
        for n in 0..2 * EVENTS_KEPT {
            events.note_kill(kill(&n.to_string()), 0, &registry);
        }
        let last = events.last();
        assert_eq!(
            (last.len(), &*last[EVENTS_KEPT - 1].id, &*last[0].detail),
            (EVENTS_KEPT, "199", "2 killed")
        );
        assert!(registry.render().contains("pegel_container_events_total{event=\"oom\"} 200"));
        assert_eq!(events.0.lock().unsaid, 180);
    }

    #[test]
    fn a_kill_that_was_told_of_is_not_noted_twice() {
        let (events, registry) = (Events::default(), Registry::new());
        events.note_kill(kill("a"), 0, &registry);
        events.note_kill(kill("a"), SAME_KILL_MS - 1, &registry);
        events.note_kill(kill("b"), 0, &registry);
        events.note_kill(kill("a"), SAME_KILL_MS, &registry);
        assert_eq!(events.last().len(), 3);
    }
}
