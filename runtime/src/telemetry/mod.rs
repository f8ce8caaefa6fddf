//! Logging: one line an event to stderr, as text, JSON or logfmt, with repeats limited.
//!
//! `tracing-subscriber`'s formatter and its `EnvFilter` bring regular expressions and a good part of a megabyte; the
//! agent has 16 in all. What is needed is small: [`line`](mod@line) writes an event, [`repeats`] decides whether it
//! is written, and `Targets` filters by level and module.

mod line;
pub mod repeats;

use crate::config::form::Level;
use line::{Fields, Line};
use parking_lot::Mutex;
use repeats::{Admission, Repeats};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, reload};

/// The target of lines that say what the agent did on its own to the machine or to others. None of them is left out
/// as a repeat.
pub const AUDIT: &str = "pegel::audit";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// `key=value` pairs.
    Logfmt,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// How lines look. A change of it needs a restart.
    pub format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`; for single modules `info,pegel_agent::uplink=debug`.
    pub level: Level,
}

fn targets(level: &Level) -> Targets {
    // The form was checked when the level was read; should it not parse, the usual level is better than silence.
    level.0.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO))
}

/// The handle on logging that stays for the process' life.
#[derive(Clone)]
pub struct Telemetry {
    level: reload::Handle<Targets, Registry>,
    sink: Arc<Sink>,
}

impl Telemetry {
    /// Sets logging up for the process. A second call in one process (tests) keeps the first.
    pub fn start(settings: &LogSettings) -> Self {
        let (telemetry, subscriber) = Self::with_output(settings, Box::new(std::io::stderr()));
        let _ = subscriber.try_init();
        telemetry
    }

    fn with_output(
        settings: &LogSettings,
        output: Box<dyn Write + Send>,
    ) -> (Self, impl Subscriber + Send + Sync + use<>) {
        let sink = Arc::new(Sink {
            format: settings.format,
            output: Mutex::new(output),
            repeats: Mutex::new(Repeats::new()),
        });
        let (filter, level) = reload::Layer::new(targets(&settings.level));
        let subscriber = tracing_subscriber::registry().with(Lines(sink.clone()).with_filter(filter));
        (Self { level, sink }, subscriber)
    }

    /// Takes another level over, on a reload.
    pub fn set_level(&self, level: &Level) {
        let _ = self.level.reload(targets(level));
    }

    /// Says how many repeats were left out in intervals that have ended, and forgets those.
    pub fn tell_of_repeats(&self, now: Instant) {
        let ended = self.sink.repeats.lock().ended(now);
        for left_out in ended {
            self.sink.write_left_out(&left_out);
        }
    }

    /// Tells of left-out repeats every interval, also when nothing else is logged; ends with the process.
    pub async fn tell_of_repeats_forever(&self) {
        let mut ticks = tokio::time::interval(repeats::INTERVAL);
        loop {
            let now = ticks.tick().await;
            self.tell_of_repeats(now.into_std());
        }
    }
}

/// Where lines go.
struct Sink {
    format: LogFormat,
    output: Mutex<Box<dyn Write + Send>>,
    repeats: Mutex<Repeats>,
}

impl Sink {
    fn write(&self, line: &Line<'_>) {
        let mut text = String::with_capacity(160);
        line.write(self.format, &mut text);
        text.push('\n');
        // One write a line, so that lines of threads and processes do not mix. If stderr is gone, nobody reads.
        let _ = self.output.lock().write_all(text.as_bytes());
    }

    fn write_left_out(&self, left_out: &repeats::LeftOut) {
        let mut fields = Fields::default();
        fields.add("left_out", left_out.count.to_string(), false);
        fields.add("interval_seconds", repeats::INTERVAL.as_secs().to_string(), false);
        fields.add("of", left_out.message.clone(), true);
        let line = Line {
            at: SystemTime::now(),
            level: left_out.level,
            target: left_out.target,
            message: "repeats of a message were left out",
            fields: &fields,
            spans: &[],
        };
        self.write(&line);
    }
}

/// The layer that writes events.
struct Lines(Arc<Sink>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.take_message();
        let metadata = event.metadata();
        let now = Instant::now();
        let mut hasher = DefaultHasher::new();
        metadata.callsite().hash(&mut hasher);
        message.hash(&mut hasher);
        let admission = self.0.repeats.lock().admit(hasher.finish(), metadata, &message, now);
        if let Admission::LeaveOut = admission {
            return;
        }
        let mut spans = Vec::new();
        for span in
            context.event_scope(event).into_iter().flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            if let Some(found) = span.extensions().get::<Fields>() {
                spans.push((span.name(), found.clone()));
            }
        }
        self.0.write(&Line {
            at: SystemTime::now(),
            level: *metadata.level(),
            target: metadata.target(),
            message: &message,
            fields: &fields,
            spans: &spans,
        });
        let ended = self.0.repeats.lock().ended(now);
        for left_out in ended {
            self.0.write_left_out(&left_out);
        }
    }
}

#[cfg(test)]
mod tests;
