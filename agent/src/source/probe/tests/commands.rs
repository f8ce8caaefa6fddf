//! Runs of programs: what is measured and why they fail.

use super::settings as settings_of;
use super::*;
use crate::source::probe::kinds::assertion::Pattern;
use crate::source::probe::kinds::command::{self, Output};
use crate::source::probe::program::Program;

fn script(text: &str) -> command::Settings {
    command::Settings {
        program: Program {
            path: "/bin/sh".into(),
            args: vec!["-c".into(), text.into(), "it".into(), "{target}".into()],
            env: Vec::new(),
            pass_env: Vec::new(),
            working_directory: "/".into(),
        },
        exit_codes: vec![0],
        fail_if_matches: Vec::new(),
        fail_if_not_matches: Vec::new(),
        output: Output::Plain,
    }
}

async fn run(settings: command::Settings, target: &str, timeout: Duration) -> (CheckStatus, Vec<Block>) {
    let (context, _receiver) = context();
    let mut check = Check::new("c", Kind::Command(Box::new(settings)));
    check.timeout = timeout;
    check.targets = vec![TargetGroup { targets: vec![target.to_owned()], labels: Vec::new() }];
    let (mut results, problems) = probe_once(&settings_of(vec![check]), &context).await;
    assert_eq!(problems, Vec::<String>::new());
    results.remove(0)
}

fn failure(status: &CheckStatus) -> (&'static str, &'static str) {
    (status.phase.unwrap_or_default(), status.reason.unwrap_or_default())
}

#[tokio::test]
async fn exit_codes_signals_and_output_decide() {
    let patterns = |text: &str| vec![Pattern::new(text).unwrap()];
    let with = |text: &str, change: &dyn Fn(&mut command::Settings)| {
        let mut settings = script(text);
        change(&mut settings);
        settings
    };
    let missing = with("", &|s| s.program.path = "/nonexistent/x".into());
    let not_allowed = with("", &|s| s.program.path = "/etc/passwd".into());
    for (settings, expected, code, words) in [
        (script("exit 0"), ("", ""), 0.0, ""),
        (
            script("echo out; echo bad disk >&2; exit 2"),
            ("assertion", "exit_code"),
            2.0,
            "exit code 2: bad disk",
        ),
        (with("exit 1", &|s| s.exit_codes = vec![0, 1]), ("", ""), 1.0, ""),
        (script("kill -15 $$"), ("assertion", "signal"), -1.0, "ended by signal 15"),
        (missing, ("connect", "spawn_failed"), -1.0, "`/nonexistent/x` cannot be started"),
        (not_allowed, ("connect", "not_permitted"), -1.0, "cannot be started"),
        (
            with("echo green", &|s| s.fail_if_matches = patterns("^gr")),
            ("assertion", "body"),
            0.0,
            "matches `^gr`",
        ),
        (
            with("echo green", &|s| s.fail_if_not_matches = patterns("red")),
            ("assertion", "body"),
            0.0,
            "does not",
        ),
        (with("echo green", &|s| s.fail_if_not_matches = patterns("green")), ("", ""), 0.0, ""),
    ] {
        let (status, blocks) = run(settings, "t", Duration::from_secs(20)).await;
        assert_eq!(failure(&status), expected, "{status:?}");
        assert_eq!(value(&blocks, "probe_command_exit_code", None), Some(code), "{status:?}");
        assert!(status.last_error.unwrap_or_default().contains(words), "{words}");
    }
}

#[tokio::test]
async fn a_target_is_one_argument_whatever_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let bait = dir.path().join("bait");
    let target = format!("a b; touch {0} $(touch {0})", bait.display());
    let mut settings =
        script("printf %s \"$1\"; test \"$1\" = \"$PEGEL_TARGET\" && test \"$PEGEL_CHECK\" = c");
    settings.fail_if_not_matches =
        vec![Pattern::new(&format!("^{}$", target.replace(['$', '(', ')', '.'], "."))).unwrap()];
    let (status, _) = run(settings, &target, Duration::from_secs(20)).await;
    assert_eq!(status.last_error, None);
    assert!(!bait.exists());
}

#[tokio::test]
async fn plugins_of_nagios_give_their_data_and_their_line() {
    let mut settings = script("echo 'DISK CRITICAL - 1% left | /=99%;80;90 used=5MB'; echo long; exit 2");
    settings.output = Output::Nagios;
    let (status, blocks) = run(settings, "t", Duration::from_secs(20)).await;
    assert_eq!(failure(&status), ("assertion", "exit_code"));
    assert_eq!(status.last_error.as_deref(), Some("exit code 2: DISK CRITICAL - 1% left"));
    assert_eq!(value(&blocks, "probe_command_perfdata", Some(("label", "/"))), Some(99.0));
    assert_eq!(value(&blocks, "probe_command_perfdata", Some(("unit", "MB"))), Some(5.0));
}

#[tokio::test]
async fn a_program_that_hangs_is_a_timeout_and_the_next_waits_for_its_end() {
    let dir = tempfile::tempdir().unwrap();
    // The first one ignores SIGTERM for as long as it may; the second finds nobody else.
    let text = format!(
        "cd {}; if test -e once; then exit 0; fi; touch once; trap '' TERM; while :; do sleep 0.05; done",
        dir.path().display()
    );
    let (context, _receiver) = context();
    let mut check = Check::new("c", Kind::Command(Box::new(script(&text))));
    check.timeout = Duration::from_secs(4);
    check.retries = 1;
    check.targets = vec![TargetGroup { targets: vec!["t".into()], labels: Vec::new() }];
    let shared = Shared::new(context.clone(), &settings_of(vec![check.clone()]), &Registry::new());
    let (tasks, _) = resolve_all(
        &[Checked { probe: check.kind.probe(), check: Arc::new(check.clone()), files: Vec::new() }],
        &Settings::default().labels,
        &Labels::default(),
    );
    let began = Instant::now();
    let ran = worker::run(&tasks[0].1, &shared).await;
    assert_eq!((ran.retries, ran.failure), (1, None));
    let least = check.timeout + program::GRACE;
    assert!(began.elapsed() >= least, "the second began after the first was killed: {:?}", began.elapsed());
    let (status, _) = run(script("sleep 100"), "t", Duration::from_millis(200)).await;
    assert_eq!(failure(&status).1, "timeout");
}
