use super::*;
use std::path::Path;
use std::time::Instant;
use tokio::sync::oneshot;

/// How long anything may take on a machine that does much else.
const SOON: Duration = Duration::from_secs(30);

fn program(path: &str, args: &[&str]) -> Program {
    Program {
        path: path.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Vec::new(),
        pass_env: Vec::new(),
        working_directory: "/".into(),
    }
}

/// A program that is a shell script, for what only a script can do.
fn script(text: &str) -> Program {
    program("/bin/sh", &["-c", text])
}

async fn ended(program: &Program, words: &[Word<'_>]) -> Ended {
    tokio::time::timeout(SOON, run(program.call(words), ())).await.expect("it ends").expect("it runs")
}

/// The state letter of a process (proc_pid_stat(5)); none when it is gone.
fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn nothing_has_a_meaning_to_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    let bait = dir.path().join("bait");
    let evil = format!("; touch {0} $(touch {0}) `touch {0}` | touch {0} && * ~ '\"\\", bait.display());
    let echo = program("/bin/echo", &["-n", &evil, "x{target}y{check}{none}{"]);
    let words = [("target", "PEGEL_TARGET", "$(touch x) {check} a\0b"), ("check", "PEGEL_CHECK", "c")];
    let ended = ended(&echo, &words).await;
    assert_eq!(ended.how, How::Code(0));
    assert_eq!(ended.stdout.text(), format!("{evil} x$(touch x) {{check}} abyc{{none}}{{"));
    assert!(!bait.exists());
}

#[tokio::test]
async fn it_inherits_nothing_that_is_not_named() {
    let mut env = script("/usr/bin/env; echo; ls -l /proc/self/fd; cat; pwd");
    env.env = vec![("GIVEN".to_owned(), "yes".to_owned())];
    let theirs = ["PATH", "LC_ALL", "GIVEN", "PWD", "_", "SHLVL", "OLDPWD"];
    let plain = |name: &String| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let mut names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let passed = names.find(|name| plain(name) && !theirs.contains(&name.as_str())).expect("a variable");
    env.pass_env = vec![passed.clone(), "NOT_SET_ANYWHERE".to_owned()];
    env.working_directory = "/proc".into();
    // Descriptors that are open in the agent.
    let _file = std::fs::File::open("/etc/passwd").unwrap();
    let _socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ended = ended(&env, &[("target", "PEGEL_TARGET", "t")]).await;
    let text = ended.stdout.text();
    let (variables, rest) = text.split_once("\n\n").unwrap();
    let mut names: Vec<_> = variables.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.retain(|name| !matches!(*name, "PWD" | "_" | "SHLVL" | "OLDPWD"));
    let mut expected = [&*passed, "GIVEN", "LC_ALL", "PATH", "PEGEL_TARGET"];
    expected.sort_unstable();
    names.sort_unstable();
    assert_eq!(names, expected);
    assert!(
        rest.contains("0 -> /dev/null") && !rest.contains("passwd") && !rest.contains("socket"),
        "{rest}"
    );
    assert_eq!(rest.trim_end().lines().last(), Some("/proc"));
}

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
    assert_eq!(ended(&script("exit 3"), &[]).await.how, How::Code(3));
    assert_eq!(ended(&script("kill -9 $$"), &[]).await.how, How::Signal(9));
    let both = ended(&script("echo out; echo err >&2"), &[]).await;
    assert_eq!(
        (both.stdout.first_line(), both.stderr.first_line()),
        (Some("out".into()), Some("err".into()))
    );
}

#[tokio::test]
async fn what_is_no_program_is_told_without_its_arguments() {
    let missing = program("/nonexistent/program", &["--password=hunter2"]);
    let words = run(missing.call(&[]), ()).await.unwrap_err().to_string();
    assert!(words.contains("`/nonexistent/program`") && !words.contains("hunter2"), "{words}");
    assert!(!format!("{missing:?}").contains("hunter2"));
    let mut nowhere = program("/bin/true", &[]);
    nowhere.working_directory = "/nonexistent".into();
    assert!(run(nowhere.call(&[]), ()).await.unwrap_err().to_string().contains("in `/nonexistent`"));
    assert!(matches!(run(program("/etc/passwd", &[]).call(&[]), ()).await, Err(NotRun::Start { .. })));
}

#[tokio::test]
async fn much_output_is_read_and_little_of_it_kept() {
    let much = script("head -c 50000000 /dev/zero; head -c 3000000 /dev/zero >&2");
    let ended = ended(&much, &[]).await;
    assert_eq!(ended.how, How::Code(0), "it was not held up by a full pipe");
    assert_eq!((ended.stdout.bytes, ended.stdout.kept.len()), (50_000_000, MAX_KEPT));
    assert_eq!((ended.stderr.bytes, ended.stderr.kept.len()), (3_000_000, MAX_KEPT));
}

/// A leader and a grandchild that ignore SIGTERM; both write their numbers, then hang.
fn stubborn(dir: &Path) -> Program {
    let text = "trap '' TERM; echo $$ > leader.new; mv leader.new leader; \
                /bin/sh -c 'trap \"\" TERM; echo $$ > child.new; mv child.new child; while :; do sleep 1000; done' & \
                while :; do sleep 1000; done";
    let mut program = script(text);
    program.working_directory = dir.to_owned();
    program
}

fn pid(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A process that is gone, or a zombie of somebody else (init of the machine, which may be slow).
fn is_over(pid: i32) -> bool {
    matches!(state(pid), None | Some('Z' | 'X'))
}

#[tokio::test]
async fn who_does_not_end_is_ended_with_all_it_started_and_reaped() {
    let dir = tempfile::tempdir().unwrap();
    let (leader, child) = (dir.path().join("leader"), dir.path().join("child"));
    let (hold, gone) = oneshot::channel::<()>();
    let task = tokio::spawn(run(stubborn(dir.path()).call(&[]), hold));
    until("both run", || pid(&leader).is_some() && pid(&child).is_some()).await;
    let (leader, child) = (pid(&leader).unwrap(), pid(&child).unwrap());
    let told = Instant::now();
    task.abort();
    // What is held is let go when the program is really gone.
    assert!(tokio::time::timeout(SOON, gone).await.expect("it ends").is_err());
    assert!(told.elapsed() >= GRACE, "SIGTERM comes first");
    assert!(state(leader).is_none(), "the leader was reaped");
    until("the grandchild is gone", || is_over(child)).await;
}

#[tokio::test]
async fn who_ends_when_told_is_not_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut polite = script("trap 'echo bye > bye; exit 0' TERM; echo $$ > pid; sleep 1000 & wait");
    polite.working_directory = dir.path().to_owned();
    let (hold, gone) = oneshot::channel::<()>();
    let task = tokio::spawn(run(polite.call(&[]), hold));
    until("it runs", || pid(&dir.path().join("pid")).is_some()).await;
    task.abort();
    assert!(tokio::time::timeout(SOON, gone).await.expect("it ends").is_err());
    assert!(dir.path().join("bye").exists());
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut leaves = script("sleep 1000 & echo $! > child; echo done");
    leaves.working_directory = dir.path().to_owned();
    // The child holds the pipes open, and nobody waits for it.
    let ended = ended(&leaves, &[]).await;
    assert_eq!((ended.how, ended.stdout.first_line()), (How::Code(0), Some("done".into())));
    let child = pid(&dir.path().join("child")).unwrap();
    until("the child is gone", || is_over(child)).await;
}

#[test]
fn an_agent_that_ends_leaves_no_program() {
    let dir = tempfile::tempdir().unwrap();
    let (leader, child) = (dir.path().join("leader"), dir.path().join("child"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::spawn(run(stubborn(dir.path()).call(&[]), ()));
        until("both run", || pid(&leader).is_some() && pid(&child).is_some()).await;
    });
    let (leader, child) = (pid(&leader).unwrap(), pid(&child).unwrap());
    runtime.shutdown_background();
    let deadline = Instant::now() + SOON;
    while !(is_over(leader) && is_over(child)) {
        assert!(Instant::now() < deadline, "somebody is left");
        std::thread::yield_now();
    }
}
