use super::*;
use crate::source::container::{Container, Health, PodIdentity, RunState, RuntimeKind};
use globset::{Glob, GlobSet};
use std::time::{Duration, Instant};

fn container(id: &str, name: &str, labels: &[(&str, &str)]) -> Container {
    let mut labels: Vec<(Box<str>, Box<str>)> =
        labels.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
    labels.sort();
    Container {
        id: ContainerId::new(id),
        runtime: RuntimeKind::Docker,
        name: name.into(),
        image: "nginx:1".into(),
        labels: labels.into(),
        env: [].into(),
        pod: None,
        state: RunState::Running,
        health: Health::None,
        pid: None,
        created_ms: None,
        started_ms: None,
        restarts: None,
        log_path: Some(format!("/docker/{id}/{id}-json.log").into()),
        host_network: false,
    }
}

fn in_pod(mut container: Container, namespace: &str, name: &str) -> Container {
    container.runtime = RuntimeKind::Containerd;
    container.pod = Some(PodIdentity {
        namespace: namespace.into(),
        pod: "web-0".into(),
        uid: "1".into(),
        container: name.into(),
    });
    container
}

#[expect(clippy::unnecessary_wraps, reason = "as settings have it")]
fn set(pattern: &str) -> Option<GlobSet> {
    Some(GlobSet::builder().add(Glob::new(pattern).unwrap()).build().unwrap())
}

fn labels(settings: &Settings, container: &Container) -> Vec<(String, String)> {
    let configured = BTreeMap::from([("job".to_owned(), "containers".to_owned())]);
    select(settings, &configured, container).unwrap().labels
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn streams_have_the_names_that_people_know_their_containers_by() {
    let mut settings = Settings::default();
    let docker = container(
        "a1",
        "shop-web-1",
        &[
            ("com.docker.compose.project", "shop"),
            ("com.docker.compose.service", "web"),
            ("com.example.team", "red"),
            ("pegel.logs.label.tier", "front"),
            ("pegel.logs.label.bad-name", "x"),
            ("pegel.logs.label.job", "the configuration's wins"),
            ("pegel.logs.multiline", "java"),
        ],
    );
    let expected = [
        ("compose_project", "shop"),
        ("compose_service", "web"),
        ("container", "shop-web-1"),
        ("job", "containers"),
        ("tier", "front"),
    ];
    assert_eq!(labels(&settings, &docker), pairs(&expected));
    settings.image = true;
    settings.labels_from = vec![("team".to_owned(), "com.example.team".to_owned())];
    let all = labels(&settings, &docker);
    assert!(all.contains(&("image".to_owned(), "nginx:1".to_owned())), "{all:?}");
    assert!(all.contains(&("team".to_owned(), "red".to_owned())), "{all:?}");
    let followed = select(&settings, &BTreeMap::new(), &docker).unwrap();
    assert_eq!((followed.format, followed.multiline.as_deref()), (Format::Docker, Some("java")));
    assert_eq!(Followed::from_note(&followed.to_note()), Some(followed));

    let pod = in_pod(container("b2", "web", &[]), "shop", "web");
    let expected = [("container", "web"), ("job", "containers"), ("namespace", "shop"), ("pod", "web-0")];
    assert_eq!(labels(&Settings::default(), &pod), pairs(&expected));
    assert_eq!(select(&settings, &BTreeMap::new(), &pod).unwrap().format, Format::Cri);
}

#[test]
fn containers_are_taken_by_name_namespace_and_label() {
    let web = container("a1", "web-1", &[("tier", "front")]);
    let out = container("a2", "web-2", &[("pegel.logs", "False")]);
    let pod = in_pod(container("b1", "app", &[]), "kube-system", "app");
    let sandbox = in_pod(container("b2", "POD", &[]), "shop", "POD");
    let takes = |settings: &Settings| [&web, &out, &pod, &sandbox].map(|container| settings.takes(container));
    let default = Settings::default();
    assert_eq!(takes(&default), [true, false, true, false]);
    assert_eq!(takes(&Settings { names: set("web-*"), ..default.clone() }), [true, false, false, false]);
    assert_eq!(
        takes(&Settings { exclude_names: set("web-*"), ..default.clone() }),
        [false, false, true, false]
    );
    assert_eq!(
        takes(&Settings { namespaces: set("kube-*"), ..default.clone() }),
        [false, false, true, false]
    );
    let without = Settings { exclude_namespaces: set("kube-*"), ..default.clone() };
    assert_eq!(takes(&without), [true, false, false, false]);
    let tier = ("tier".to_owned(), Glob::new("fr*").unwrap().compile_matcher());
    assert_eq!(takes(&Settings { with_labels: vec![tier], ..default }), [true, false, false, false]);
}

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Feed for Told {
    fn follow(&mut self, followed: Followed) {
        self.0.lock().push(format!("+{} {}", followed.key, followed.labels[0].1));
    }

    fn gone(&mut self, key: &str) {
        self.0.lock().push(format!("-{key}"));
    }

    fn complete(&mut self) {}
}

#[tokio::test]
async fn what_begins_ends_and_changes_is_told_once() {
    let catalogue = Arc::new(Catalogue::default());
    let told = Told::default();
    let status: Arc<Mutex<Status>> = Arc::default();
    let shutdown = CancellationToken::new();
    let put = |container: Container| {
        let container = Arc::new(container);
        catalogue.put(container.clone());
        container
    };
    put(container("a1", "early", &[]));
    let mut away = container("a2", "journald", &[]);
    away.log_path = None;
    put(away);
    let running = tokio::spawn(run(
        Settings::default(),
        BTreeMap::new(),
        catalogue.clone(),
        told.clone(),
        status.clone(),
        shutdown.clone(),
    ));
    let until = async |expected: &[&str]| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while *told.0.lock() != expected {
            assert!(Instant::now() < deadline, "{expected:?}, but {:?}", told.0.lock());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    until(&["+a1 early"]).await;
    let late = put(container("a3", "late", &[]));
    catalogue.tell(Change::Started(late.clone()));
    catalogue.tell(Change::Updated(late.clone()));
    catalogue.tell(Change::Stopped { container: late.clone(), exit_code: Some(0) });
    until(&["+a1 early", "+a3 late"]).await;
    let renamed = put(container("a3", "renamed", &[]));
    catalogue.tell(Change::Updated(renamed));
    catalogue.remove(&late.id);
    until(&["+a1 early", "+a3 late", "+a3 renamed", "-a3"]).await;
    // More changes than are kept: all is looked at again.
    for n in 0..3_000 {
        let id = format!("c{n:04}");
        let one = put(container(&id, "storm", &[]));
        catalogue.tell(Change::Started(one));
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while status.lock().followed != 3_001 {
        assert!(Instant::now() < deadline, "{:?}", status.lock());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(told.0.lock().len(), 3_004);
    assert_eq!(status.lock().without_file, ["journald"]);
    shutdown.cancel();
    running.await.unwrap();
}
