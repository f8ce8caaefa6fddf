use super::*;
use crate::source::probe::hooks::limit::Bounds;
use crate::source::probe::hooks::settings::{Action, Url, Webhook, Wildcard};
use crate::source::probe::kinds::Kind;
use crate::source::probe::outcome::{Failure, Phase, Reason};
use crate::source::probe::program::Program;
use crate::source::probe::settings::Check;
use crate::source::probe::state::State::{self, Down, Maintenance, Pending, Up};
use crate::source::probe::target::Target;
use crate::source::scrape::settings::{Auth, Secret};
use pegel_proto::metrics::Labels;
use pegel_runtime::http_client::ClientTls;
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(30);

/// Hooks that run, with what feeds them and what they tell.
struct Bed {
    settings: watch::Sender<Arc<Settings>>,
    changes: broadcast::Sender<StateChange>,
    told: Arc<Latest<HookRun>>,
    registry: Registry,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Bed {
    fn new(hooks: Vec<Hook>) -> Self {
        let (settings, receiver) = watch::channel(Arc::new(Settings { hooks, ..Settings::default() }));
        let (changes, told) = (broadcast::Sender::new(16), Arc::default());
        let (registry, shutdown) = (Registry::new(), CancellationToken::new());
        let task = Hooks::new(
            receiver,
            changes.subscribe(),
            Arc::clone(&told),
            shutdown.clone(),
            SampleClock::default(),
            &registry,
        );
        Self { settings, changes, told, registry, shutdown, task: tokio::spawn(task.run()) }
    }

    fn change(&self, change: StateChange) {
        self.changes.send(change).unwrap();
    }

    /// Waits until so many runs were told.
    async fn told(&self, count: usize) -> Vec<HookRun> {
        let wait = async {
            while self.told.all().len() < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{:?}", self.told.all()));
        self.told.all()
    }

    async fn end(self) -> Vec<HookRun> {
        self.shutdown.cancel();
        tokio::time::timeout(SOON, self.task).await.expect("it ends").unwrap();
        self.told.all()
    }
}

fn hook(name: &str, action: Action) -> Hook {
    Hook {
        name: name.to_owned(),
        checks: Vec::new(),
        targets: Vec::new(),
        container_checks: false,
        on: vec![Event::Down, Event::Up],
        action,
        timeout: Duration::from_secs(20),
        bounds: Bounds { per_target: 100, in_all: 1_000, window: Duration::from_secs(3_600) },
        dry_run: false,
    }
}

fn script(text: &str, dir: &Path) -> Action {
    Action::Command(Program {
        path: "/bin/sh".into(),
        args: vec!["-c".into(), text.into(), "it".into(), "{event}".into(), "{target}".into()],
        env: Vec::new(),
        pass_env: Vec::new(),
        working_directory: dir.to_owned(),
    })
}

fn change(check: &str, target: &str, from: State, to: State, was_up: Option<bool>) -> StateChange {
    let check = Check::new(check, Kind::Http(Box::default()));
    let labels = Labels::new([("instance", target), ("site", "north")]).unwrap();
    let target = Target {
        check: Arc::new(check),
        address: target.to_owned(),
        labels: labels.clone(),
        shared: Arc::new(labels),
    };
    let failure =
        (to == Down).then(|| Failure::new(Phase::Connect, Reason::Refused, "--evil; $(touch bait)"));
    StateChange { target: Arc::new(target), from, to, was_up, at_ms: 61_000, was_since_ms: 1_000, failure }
}

fn down(target: &str) -> StateChange {
    change("shop", target, Up, Down, Some(true))
}

fn up(target: &str) -> StateChange {
    change("shop", target, Down, Up, Some(false))
}

#[tokio::test]
async fn a_program_is_run_with_what_happened_and_without_a_shell_around_it() {
    let dir = tempfile::tempdir().unwrap();
    let text = "printf '%s|' \"$1\" \"$2\" \"$PEGEL_HOOK\" \"$PEGEL_CHECK\" \"$PEGEL_STATE\" \"$PEGEL_FROM\" \
                \"$PEGEL_REASON\" \"$PEGEL_PHASE\" \"$PEGEL_SINCE\" \"$PEGEL_MESSAGE\" >> out; exit $PEGEL_EXIT";
    let mut action = script(text, dir.path());
    let Action::Command(program) = &mut action else { unreachable!() };
    program.env = vec![("PEGEL_EXIT".into(), "3".into())];
    let bed = Bed::new(vec![hook("restart", action)]);
    bed.change(down("t;$(touch bait)"));
    let told = bed.told(1).await;
    let out = std::fs::read_to_string(dir.path().join("out")).unwrap();
    let expected = "down|t;$(touch bait)|restart|shop|down|up|refused|connect|1970-01-01T00:01:01Z|\
                    --evil; $(touch bait)|";
    assert_eq!(out, expected);
    assert!(!dir.path().join("bait").exists());
    let run = &told[0];
    assert_eq!((run.outcome, run.code, &*run.action), (Outcome::Failed, Some(3), "/bin/sh"));
    assert_eq!((&*run.hook, &*run.check, run.event), ("restart", "shop", "down"));
    let metrics = bed.registry.render();
    assert!(metrics.contains("pegel_hook_runs_total{hook=\"restart\",outcome=\"failed\"} 1"), "{metrics}");
    assert!(metrics.contains("pegel_hook_runs_total{hook=\"restart\",outcome=\"ok\"} 0"), "{metrics}");
    bed.end().await;
}

#[tokio::test]
async fn only_what_a_hook_is_for_has_it_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut only = hook("only", script("true", dir.path()));
    only.on = vec![Event::Up];
    only.checks = vec![Wildcard::new("sh*").unwrap()];
    only.targets = vec![Wildcard::new("https://*.example/*").unwrap()];
    let bed = Bed::new(vec![only]);
    let good = "https://a.example/x";
    bed.change(down(good));
    bed.change(up("https://a.other/x"));
    bed.change(change("mail", good, Down, Up, Some(false)));
    let mut of_container = up(good);
    let target = Arc::make_mut(&mut of_container.target);
    Arc::make_mut(&mut target.check).from_container = true;
    bed.change(of_container);
    // Its first success, maintenance, and what comes out of maintenance as it was.
    bed.change(change("shop", good, Pending, Up, None));
    bed.change(change("shop", good, Down, Maintenance, Some(false)));
    bed.change(change("shop", good, Maintenance, Up, Some(true)));
    bed.change(up(good));
    let told = bed.told(1).await;
    assert_eq!((told.len(), told[0].event, told[0].outcome), (1, "up", Outcome::Ok));
    assert_eq!(bed.end().await.len(), 1);
}

#[tokio::test]
async fn maintenance_is_no_event_and_an_outage_is_told_once_around_it() {
    let events = |changes: &[(State, State, Option<bool>)]| {
        let all = changes.iter().map(|(from, to, was)| Event::of(&change("c", "t", *from, *to, *was)));
        all.map(|event| event.map_or("-", Event::name)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(events(&[(Pending, Up, None), (Up, Down, Some(true)), (Down, Up, Some(false))]), "- down up");
    assert_eq!(events(&[(Pending, Down, None), (Down, Up, Some(false))]), "down up");
    assert_eq!(events(&[(Down, Maintenance, Some(false)), (Maintenance, Down, Some(false))]), "- -");
    assert_eq!(events(&[(Up, Maintenance, Some(true)), (Maintenance, Down, Some(true))]), "- down");
    assert_eq!(events(&[(Maintenance, Up, Some(true)), (Maintenance, Up, Some(false))]), "- up");
}

#[tokio::test]
async fn what_is_done_too_often_is_not_done_and_told_and_a_reload_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut often = hook("often", script("echo x >> out", dir.path()));
    often.bounds = Bounds { per_target: 2, in_all: 3, window: Duration::from_secs(3_600) };
    let bed = Bed::new(vec![often.clone()]);
    for _ in 0..3 {
        bed.change(down("a"));
    }
    bed.told(3).await;
    often.timeout = Duration::from_secs(19);
    bed.settings.send_replace(Arc::new(Settings { hooks: vec![often], ..Settings::default() }));
    for target in ["b", "c", "a"] {
        bed.change(down(target));
    }
    let told = bed.told(6).await;
    let count = |outcome| told.iter().filter(|run| run.outcome == outcome).count();
    assert_eq!((count(Outcome::Ok), count(Outcome::RateLimited)), (3, 3), "{told:?}");
    assert_eq!(std::fs::read_to_string(dir.path().join("out")).unwrap(), "x\nx\nx\n");
    bed.end().await;
}

#[tokio::test]
async fn a_dry_run_does_nothing_and_says_what_it_would() {
    let dir = tempfile::tempdir().unwrap();
    let mut dry = hook("dry", script("touch done", dir.path()));
    dry.dry_run = true;
    let bed = Bed::new(vec![dry]);
    bed.change(down("a"));
    let told = bed.told(1).await;
    assert_eq!((told[0].outcome, &*told[0].action), (Outcome::DryRun, "/bin/sh"));
    bed.end().await;
    assert!(!dir.path().join("done").exists());
}

#[tokio::test]
async fn what_takes_too_long_is_ended_and_one_target_has_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut slow = hook("slow", script("echo $1 >> out; test $1 = up || exec sleep 1000", dir.path()));
    slow.timeout = Duration::from_millis(500);
    let bed = Bed::new(vec![slow, hook("missing", script("true", Path::new("/nonexistent")))]);
    bed.change(down("a"));
    bed.change(up("a"));
    let told = bed.told(4).await;
    let of =
        |hook: &str| told.iter().filter(|run| run.hook == hook).map(|run| run.outcome).collect::<Vec<_>>();
    assert_eq!(of("slow")[0], Outcome::Timeout, "{told:?}");
    assert_eq!(of("missing"), [Outcome::NotDone, Outcome::NotDone]);
    let out = std::fs::read_to_string(dir.path().join("out")).unwrap();
    assert!(out.starts_with("down\n"), "{out}");
    bed.end().await;
}

#[tokio::test]
async fn what_runs_when_the_agent_ends_is_ended_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::new(vec![hook("long", script("touch begun; exec sleep 1000", dir.path()))]);
    bed.change(down("a"));
    let begun = async {
        while !dir.path().join("begun").exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, begun).await.expect("it begins");
    let told = bed.end().await;
    assert_eq!(told[0].outcome, Outcome::Aborted);
}

#[tokio::test]
async fn who_falls_behind_says_how_many_were_missed() {
    let dir = tempfile::tempdir().unwrap();
    let bed = Bed::new(vec![hook("all", script("true", dir.path()))]);
    // The hooks' task has no turn between these.
    for i in 0..20 {
        bed.change(down(&format!("t{i}")));
    }
    bed.told(16).await;
    let metrics = bed.registry.render();
    assert!(metrics.contains("pegel_hook_missed_changes_total 4"), "{metrics}");
    bed.end().await;
}

/// A server that answers each request with this status, and gives requests as they came.
async fn server(status: &'static str) -> (String, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = Vec::new();
            let mut piece = [0; 4_096];
            // The body of these tests ends with the object.
            while !text.ends_with(b"}") {
                match stream.read(&mut piece).await {
                    Ok(n) if n > 0 => text.extend_from_slice(&piece[..n]),
                    _ => break,
                }
            }
            let _ = sender.send(String::from_utf8_lossy(&text).into_owned());
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 7\r\nConnection: close\r\n\r\nhunter5");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, receiver)
}

fn webhook(url: Url) -> Webhook {
    Webhook { url, headers: Vec::new(), auth: None, tls: ClientTls::default() }
}

#[tokio::test]
async fn a_webhook_is_told_what_happened_and_shows_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let (url, mut requests) = server("204 No Content").await;
    let (failing, _failing_requests) = server("503 No").await;
    let (token, url_file) = (dir.path().join("token"), dir.path().join("url"));
    std::fs::write(&token, "hunter2\n").unwrap();
    std::fs::write(&url_file, format!("{url}/hunter3\n")).unwrap();
    let mut good = webhook(Url::File(url_file));
    good.auth = Some(Auth::Bearer(Secret::File(token)));
    good.headers = vec![("x-team".parse().unwrap(), "web".parse().unwrap())];
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut no_token = webhook(Url::Text(format!("{url}/hunter3")));
    no_token.auth = Some(Auth::Bearer(Secret::File("/nonexistent/token".into())));
    let action = |webhook| Action::Webhook(Box::new(webhook));
    let hooks = vec![
        hook("good", action(good)),
        hook("failing", action(webhook(Url::Text(format!("{failing}/hunter3?key=hunter4"))))),
        hook("refused", action(webhook(Url::Text(format!("http://{closed}/hunter3"))))),
        hook("no-token", action(no_token)),
    ];
    let shown = format!("{hooks:?}");
    let bed = Bed::new(hooks);
    bed.change(down("a"));
    let told = bed.told(4).await;
    let of = |hook: &str| told.iter().find(|run| run.hook == hook).unwrap();
    assert_eq!((of("good").outcome, of("good").code), (Outcome::Ok, Some(204)));
    assert_eq!((of("failing").outcome, of("failing").code), (Outcome::Failed, Some(503)));
    assert_eq!(of("failing").action, format!("POST {failing}"));
    assert_eq!(of("refused").outcome, Outcome::NotDone);
    assert!(of("refused").detail.as_ref().unwrap().contains("refused"), "{:?}", of("refused"));
    assert!(of("no-token").detail.as_ref().unwrap().contains("/nonexistent/token"));
    let request = requests.recv().await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /hunter3 http/1.1"), "{head}");
    for header in ["authorization: bearer hunter2", "x-team: web", "content-type: application/json"] {
        assert!(head.contains(header), "{head}");
    }
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let expected = serde_json::json!({
        "version": 1, "hook": "good", "event": "down", "check": "shop", "kind": "http", "target": "a",
        "labels": {"instance": "a", "site": "north"}, "state": "down", "from": "up",
        "since": "1970-01-01T00:01:01Z", "from_since": "1970-01-01T00:00:01Z",
        "phase": "connect", "reason": "refused", "message": "--evil; $(touch bait)",
    });
    assert_eq!(body, expected);
    // Nobody shows what is in files, in paths of URLs or in answers.
    let all = format!("{shown} {told:?} {} {}", serde_json::to_string(&told).unwrap(), bed.registry.render());
    for secret in ["hunter2", "hunter3", "hunter4", "hunter5"] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
    bed.end().await;
}
