use super::*;
use crate::source::container::RuntimeKind;
use tokio::sync::broadcast::Receiver;

const DOCKER: Owner = Owner(0);
const CRI: Owner = Owner(1);

fn container(id: &str, started_ms: i64) -> Container {
    Container {
        id: ContainerId::new(id),
        runtime: RuntimeKind::Docker,
        name: id.into(),
        image: "image:1".into(),
        labels: Box::default(),
        env: Box::default(),
        pod: None,
        state: RunState::Running,
        health: Health::None,
        pid: Some(7),
        created_ms: Some(1),
        started_ms: Some(started_ms),
        restarts: Some(0),
        log_path: None,
        host_network: false,
    }
}

fn running(id: &str, started_ms: i64) -> Sighting {
    Sighting { container: container(id, started_ms), exit_code: None, oom_killed: false, news: false }
}

fn exited(id: &str, exit_code: i64, oom_killed: bool) -> Sighting {
    let container = Container { state: RunState::Exited, pid: None, ..container(id, 5) };
    Sighting { container, exit_code: Some(exit_code), oom_killed, news: false }
}

struct Bench {
    roster: Roster,
    catalogue: Arc<Catalogue>,
    changes: Receiver<Change>,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let catalogue = Arc::new(Catalogue::default());
        let mut roster = Roster::new(catalogue.clone());
        roster.attend(DOCKER);
        Self { roster, changes: catalogue.changes(), catalogue, now: Instant::now() }
    }

    fn see(&mut self, owner: Owner, sighting: Sighting) {
        assert!(self.roster.see(owner, sighting, self.now));
    }

    /// What was told since the last look, in a few words each.
    fn told(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.changes.try_recv().ok())
            .map(|change| match change {
                Change::Started(c) => format!("started {}", c.id),
                Change::Stopped { container, exit_code } => format!("stopped {} {exit_code:?}", container.id),
                Change::OutOfMemory(c) => format!("oom {}", c.id),
                Change::Health(c, health) => format!("health {} {health:?}", c.id),
                Change::Updated(c) => format!("updated {} {}", c.id, c.name),
                Change::Removed(id) => format!("removed {id}"),
            })
            .collect()
    }
}

#[test]
fn a_life_is_told_once_however_often_it_is_seen() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        bench.see(DOCKER, running("a", 5));
    }
    assert_eq!(bench.told(), ["started a"]);
    for _ in 0..3 {
        bench.see(DOCKER, exited("a", 3, false));
        bench.roster.end(DOCKER, &ContainerId::new("a"), Some(9), bench.now);
    }
    assert_eq!(bench.told(), ["stopped a Some(3)"]);
    assert_eq!(bench.catalogue.container("a").map(|c| (c.state, c.pid)), Some((RunState::Exited, None)));
}

#[test]
fn what_ended_stays_for_its_last_data_and_is_removed_then() {
    let mut bench = Bench::new();
    bench.see(DOCKER, running("a", 5));
    bench.see(DOCKER, exited("a", 0, false));
    bench.roster.expire(bench.now + KEPT_AFTER_END - Duration::from_millis(1));
    assert!(bench.catalogue.container("a").is_some());
    bench.roster.expire(bench.now + KEPT_AFTER_END);
    assert!(bench.catalogue.container("a").is_none());
    assert_eq!(bench.told(), ["started a", "stopped a Some(0)", "removed a"]);
}

#[test]
fn a_container_that_comes_back_within_its_grace_is_not_removed() {
    let mut bench = Bench::new();
    bench.see(DOCKER, running("a", 5));
    bench.see(DOCKER, exited("a", 1, false));
    bench.see(DOCKER, running("a", 6));
    bench.roster.expire(bench.now + 2 * KEPT_AFTER_END);
    assert_eq!(bench.told(), ["started a", "stopped a Some(1)", "started a"]);
    assert!(bench.roster.running(DOCKER, &ContainerId::new("a")).is_some());
}

#[test]
fn a_restart_that_nobody_saw_is_an_end_and_a_start() {
    let mut bench = Bench::new();
    bench.see(DOCKER, running("a", 5));
    bench.see(DOCKER, running("a", 6));
    assert_eq!(bench.told(), ["started a", "stopped a None", "started a"]);
}

#[test]
fn an_end_that_was_never_begun_here_is_nothing() {
    let mut bench = Bench::new();
    bench.see(DOCKER, exited("a", 1, true));
    bench.roster.out_of_memory(DOCKER, &ContainerId::new("a"), Some(1));
    assert_eq!(bench.told(), Vec::<String>::new());
    assert!(bench.catalogue.all().is_empty());
}

#[test]
fn a_life_too_short_to_be_seen_is_told_if_it_is_news() {
    let mut bench = Bench::new();
    let news = |sighting| Sighting { news: true, ..sighting };
    bench.see(DOCKER, news(exited("a", 7, true)));
    bench.see(DOCKER, news(exited("a", 7, true)));
    assert_eq!(bench.told(), ["started a", "oom a", "stopped a Some(7)"]);
    bench.roster.expire(bench.now + KEPT_AFTER_END);
    assert_eq!(bench.told(), ["removed a"]);
}

#[test]
fn an_oom_is_told_by_its_event_or_by_the_end_and_a_replayed_event_not_again() {
    let mut bench = Bench::new();
    bench.see(DOCKER, running("a", 5));
    bench.roster.out_of_memory(DOCKER, &ContainerId::new("a"), Some(100));
    bench.roster.out_of_memory(DOCKER, &ContainerId::new("a"), Some(100));
    bench.roster.out_of_memory(DOCKER, &ContainerId::new("a"), Some(200));
    bench.see(DOCKER, exited("a", 137, true));
    assert_eq!(bench.told(), ["started a", "oom a", "oom a", "stopped a Some(137)"]);
    bench.see(DOCKER, running("b", 5));
    bench.see(DOCKER, exited("b", 137, true));
    bench.see(DOCKER, exited("b", 137, true));
    assert_eq!(bench.told(), ["started b", "oom b", "stopped b Some(137)"]);
}

#[test]
fn health_and_names_change_what_is_known() {
    let mut bench = Bench::new();
    bench.see(DOCKER, running("a", 5));
    bench.roster.health(DOCKER, &ContainerId::new("a"), Health::Healthy);
    bench.roster.health(DOCKER, &ContainerId::new("a"), Health::Healthy);
    let mut renamed = running("a", 5);
    renamed.container.name = "other".into();
    renamed.container.health = Health::Healthy;
    bench.see(DOCKER, renamed);
    assert_eq!(bench.told(), ["started a", "health a Healthy", "updated a other"]);
}

#[test]
fn a_container_that_two_runtimes_show_is_there_once_until_its_first_is_away() {
    let mut bench = Bench::new();
    bench.roster.attend(CRI);
    bench.see(DOCKER, running("a", 5));
    bench.see(CRI, running("a", 5));
    bench.roster.end(CRI, &ContainerId::new("a"), None, bench.now);
    assert!(bench.roster.is_anothers(CRI, &ContainerId::new("a")));
    assert_eq!((bench.roster.count(DOCKER), bench.roster.count(CRI)), (1, 0));
    bench.roster.lose(DOCKER);
    bench.see(CRI, running("a", 5));
    assert_eq!((bench.roster.count(DOCKER), bench.roster.count(CRI)), (0, 1));
    assert_eq!(bench.told(), ["started a"]);
}

#[test]
fn while_a_runtime_is_away_dead_processes_end_their_containers() {
    let mut bench = Bench::new();
    let mut other = running("b", 5);
    other.container.pid = Some(8);
    bench.see(DOCKER, running("a", 5));
    bench.see(DOCKER, other);
    bench.roster.lose(DOCKER);
    bench.roster.sweep(DOCKER, |pid| pid == 8, bench.now);
    assert_eq!(bench.told(), ["started a", "started b", "stopped a None"]);
}

#[test]
fn there_is_a_bound_and_what_is_known_stays_within_it() {
    let mut bench = Bench::new();
    for n in 0..MAX_CONTAINERS {
        bench.see(DOCKER, running(&n.to_string(), 5));
    }
    assert!(!bench.roster.see(DOCKER, running("one more", 5), bench.now));
    assert!(bench.roster.see(DOCKER, running("7", 6), bench.now));
    assert_eq!(bench.catalogue.all().len(), MAX_CONTAINERS);
}
