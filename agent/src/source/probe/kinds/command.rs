//! Checks by programs of this machine, such as the plugins of Nagios: what they end with, what they print, how long
//! they take. [`program`](crate::source::probe::program) says how they are run.

mod perfdata;

use crate::source::probe::kinds::assertion::{FAILED_REGEX, Pattern};
use crate::source::probe::outcome::{Failure, Phase, Reason, reason_of_io};
use crate::source::probe::program::{How, NotRun, Printed, Program, run};
use crate::source::probe::record::Gauge;
use crate::source::probe::run::{Probe, Run, Running};
use crate::source::probe::turns::Turns;
use perfdata::perfdata;

static EXIT_CODE: Gauge =
    Gauge::new("probe_command_exit_code", "What the program ended with; -1 if it did not by itself.", &[]);
static OUTPUT: Gauge =
    Gauge::new("probe_command_output_bytes", "How much the program printed, in bytes.", &["stream"]);
static PERFDATA: Gauge = Gauge::new(
    "probe_command_perfdata",
    "A value of the program's performance data, in the unit that it gives.",
    &["label", "unit"],
);

/// The longest target.
const MAX_TARGET_BYTES: usize = 1_024;

/// What a program's output is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// Text.
    #[default]
    Plain,
    /// As the guidelines for plugins of Nagios have it: a line of text, `|` and performance data.
    Nagios,
}

/// What is run, and what of it is good.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The program.
    pub program: Program,
    /// Exit codes that are good.
    pub exit_codes: Vec<i32>,
    /// Fails if one of these matches standard output.
    pub fail_if_matches: Vec<Pattern>,
    /// Fails if one of these does not.
    pub fail_if_not_matches: Vec<Pattern>,
    /// What standard output is taken for.
    pub output: Output,
}

/// Says why an address is no target.
pub fn check_address(address: &str) -> Result<(), String> {
    if address.is_empty() || address.len() > MAX_TARGET_BYTES || address.contains(char::is_control) {
        return Err(format!("it is no text of 1 to {MAX_TARGET_BYTES} printable bytes"));
    }
    if address.starts_with('-') {
        return Err("it begins with `-`, which programs take for an option".to_owned());
    }
    Ok(())
}

/// The probe.
#[derive(Debug)]
pub struct CommandProbe {
    settings: Settings,
    /// The targets whose program runs, or was told to end and did not yet: there is one at a time for each.
    turns: Turns<String>,
}

impl CommandProbe {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings, turns: Turns::default() }
    }

    async fn attempt(&self, go: &mut Run) -> Result<(), Failure> {
        let Settings { program, exit_codes, output, .. } = &self.settings;
        let matched =
            !(self.settings.fail_if_matches.is_empty() && self.settings.fail_if_not_matches.is_empty());
        go.record.set(&EXIT_CODE, -1.0);
        if matched {
            go.record.set(&FAILED_REGEX, 0.0);
        }
        let target = go.target.clone();
        let turn = self.turns.take(target.address.clone()).await;
        go.enter(Phase::Processing);
        let call = program.call(&[
            ("target", "PEGEL_TARGET", &target.address),
            ("check", "PEGEL_CHECK", &target.check.name),
        ]);
        let ended = run(call, turn).await.map_err(|error| not_run(&error))?;
        for (name, printed) in [("stdout", &ended.stdout), ("stderr", &ended.stderr)] {
            go.record.set_label(&OUTPUT, name, printed.bytes as f64);
        }
        if *output == Output::Nagios {
            for value in perfdata(&ended.stdout.text()) {
                go.record.set_labels(&PERFDATA, [value.label.into(), value.unit.into()], value.number);
            }
        }
        go.enter(Phase::Assertion);
        match ended.how {
            How::Code(code) => {
                go.record.set(&EXIT_CODE, f64::from(code));
                if !exit_codes.contains(&code) {
                    let words = format!("exit code {code}{}", said(*output, &ended.stdout, &ended.stderr));
                    return Err(Failure::assertion(Reason::ExitCode, words));
                }
            }
            How::Signal(number) => {
                let words =
                    format!("ended by signal {number}{}", said(*output, &ended.stdout, &ended.stderr));
                return Err(Failure::assertion(Reason::Signal, words));
            }
        }
        let judged = self.judge(&ended.stdout.text());
        if judged.is_err() {
            go.record.set(&FAILED_REGEX, 1.0);
        }
        judged
    }

    fn judge(&self, text: &str) -> Result<(), Failure> {
        let failure = |does: &str, pattern: &Pattern| {
            let words = format!("standard output {does} `{}`", pattern.text());
            Err(Failure::assertion(Reason::Body, words))
        };
        if let Some(pattern) = self.settings.fail_if_matches.iter().find(|p| p.matches(text)) {
            return failure("matches", pattern);
        }
        match self.settings.fail_if_not_matches.iter().find(|p| !p.matches(text)) {
            Some(pattern) => failure("does not match", pattern),
            None => Ok(()),
        }
    }
}

/// What the program said of it: the line that plugins print, or what a program complains about.
fn said(output: Output, stdout: &Printed, stderr: &Printed) -> String {
    let line = match output {
        Output::Nagios => {
            let line = stdout.first_line();
            line.map(|line| line.split('|').next().unwrap_or_default().trim().to_owned())
        }
        Output::Plain => None,
    };
    let line = line.or_else(|| stderr.first_line()).or_else(|| stdout.first_line());
    line.map(|line| format!(": {line}")).unwrap_or_default()
}

fn not_run(error: &NotRun) -> Failure {
    let reason = match error {
        NotRun::Start { error, .. } | NotRun::Follow { error, .. } => match reason_of_io(error) {
            reason @ (Reason::NotPermitted | Reason::Resources) => reason,
            _ => Reason::SpawnFailed,
        },
        NotRun::AgentEnds => Reason::Other,
    };
    Failure::new(Phase::Connect, reason, error.to_string())
}

impl Probe for CommandProbe {
    fn attempt<'a>(&'a self, run: &'a mut Run) -> Running<'a> {
        Box::pin(self.attempt(run))
    }
}
