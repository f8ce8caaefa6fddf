//! Targets that answer.

use super::*;

#[tokio::test]
async fn a_target_is_scraped_with_its_labels_and_reports() {
    let exporter = Exporter::start().await;
    exporter.exposes("# HELP a Help of a.\n# TYPE a gauge\na{l=\"x\",job=\"own\"} 1.5\nb 2\n");
    let mut bench = Bench::new();
    let _source = ScrapeSource::start(settings(vec![job("node", &[&exporter])]), bench.context.clone());
    let scrape = bench.next().await;
    let values = scrape.values();
    assert_eq!(values["a exported_job=own,l=x"], "1.5");
    assert_eq!(values["b"], "2");
    assert_eq!(values["up"], "1");
    assert_eq!(values["scrape_samples_scraped"], "2");
    assert_eq!(values["scrape_samples_post_metric_relabeling"], "2");
    assert_eq!(values["scrape_series_added"], "2");
    assert!(values["scrape_duration_seconds"].parse::<f64>().unwrap() > 0.0);
    assert_eq!(values.len(), 7);
    let target = scrape.0[0].set.target();
    let labels = [("job", "node"), ("instance", exporter.address.as_str()), ("site", "lab")];
    assert_eq!(**target, Labels::new(labels).unwrap());
    let family = scrape.0[0].set.series()[0].family();
    assert_eq!((&*family.name, &*family.help), ("a", "Help of a."));
}

#[tokio::test]
async fn the_next_scrape_shares_the_series_of_the_one_before() {
    let exporter = Exporter::start().await;
    exporter.exposes("a 1\nb 2\n");
    let mut bench = Bench::new();
    let source = ScrapeSource::start(settings(vec![job("node", &[&exporter])]), bench.context.clone());
    let first = bench.next().await;
    exporter.exposes("b 4\na 3\n");
    let second = bench.next_where(|scrape| scrape.value("a").as_deref() == Some("3")).await;
    assert!(Arc::ptr_eq(&first.0[0].set, &second.0[0].set), "only the order changed");
    assert_eq!(second.value("b").as_deref(), Some("4"));
    assert_eq!(second.value("scrape_series_added").as_deref(), Some("0"));
    let status = source.status();
    assert_eq!((status[0].up, status[0].samples, status[0].series), (Some(true), 2, 2));
}

#[tokio::test]
async fn a_series_that_vanishes_gets_a_staleness_marker_once() {
    let exporter = Exporter::start().await;
    exporter.exposes("a 1\nb 2\n");
    let mut bench = Bench::new();
    let _source = ScrapeSource::start(settings(vec![job("node", &[&exporter])]), bench.context.clone());
    bench.next().await;
    exporter.exposes("a 1\nc 3\n");
    let changed = bench.next_where(|scrape| scrape.value("c").is_some()).await;
    assert_eq!(changed.value("b").as_deref(), Some("stale"));
    assert_eq!(changed.value("a").as_deref(), Some("1"));
    assert_eq!(changed.value("scrape_series_added").as_deref(), Some("1"));
    assert_eq!(bench.next().await.value("b"), None);
}

#[tokio::test]
async fn scrapes_are_equally_spaced() {
    let exporter = Exporter::start().await;
    exporter.exposes("a 1\n");
    let mut bench = Bench::new();
    // Within the tolerance of a hundredth of the interval every scrape has the time at which it was due.
    let slow = Job { interval: Duration::from_millis(500), ..job("node", &[&exporter]) };
    let _source = ScrapeSource::start(settings(vec![slow]), bench.context.clone());
    let mut stamps = Vec::new();
    for _ in 0..4 {
        stamps.push(bench.next().await.0[0].at_ms);
    }
    // A busy machine may wake it later than that; then the time is that of the scrape.
    for pair in stamps.windows(2) {
        assert!((400..).contains(&(pair[1] - pair[0])), "{stamps:?}");
    }
}

#[tokio::test]
async fn a_removed_target_ends_its_series_and_one_that_stays_does_not() {
    let (gone, stays) = (Exporter::start().await, Exporter::start().await);
    gone.exposes("g 1\n");
    stays.exposes("s 1\n");
    let mut bench = Bench::new();
    let source = ScrapeSource::start(settings(vec![job("node", &[&gone, &stays])]), bench.context.clone());
    bench.next_where(|scrape| scrape.value("g").is_some()).await;
    bench.next_where(|scrape| scrape.value("s").is_some()).await;
    // Another timeout makes it no other target: its series go on.
    let changed = Job { timeout: Duration::from_millis(90), ..job("node", &[&stays]) };
    source.apply(settings(vec![changed]));
    let mut ended = None;
    while ended.is_none() {
        let scrape = bench.next().await;
        assert_ne!(scrape.value("s").as_deref(), Some("stale"));
        if scrape.value("s").is_some() {
            assert_ne!(scrape.value("scrape_series_added").as_deref(), Some("1"), "it lost its state");
        }
        ended = scrape.value("g").filter(|value| value == "stale").map(|_| scrape);
    }
    let ended = ended.unwrap().values();
    assert_eq!(ended.len(), 6);
    assert!(ended.values().all(|value| value == "stale"), "{ended:?}");
    assert_eq!(source.status().len(), 1);
}

#[tokio::test]
async fn other_rules_for_labels_apply_from_the_next_scrape_on() {
    let exporter = Exporter::start().await;
    exporter.exposes("a{job=\"own\"} 1\n");
    let mut bench = Bench::new();
    let source = ScrapeSource::start(settings(vec![job("node", &[&exporter])]), bench.context.clone());
    bench.next_where(|scrape| scrape.value("a exported_job=own").as_deref() == Some("1")).await;
    source.apply(settings(vec![Job { honor_labels: true, ..job("node", &[&exporter]) }]));
    let changed = bench.next_where(|scrape| scrape.value("a").is_some()).await;
    assert_eq!(changed.value("a exported_job=own").as_deref(), Some("stale"));
}

#[tokio::test]
async fn a_large_body_is_read_beside_the_runtime() {
    let exporter = Exporter::start().await;
    let mut body = String::new();
    for number in 0..20_000 {
        let _ = std::fmt::Write::write_fmt(
            &mut body,
            format_args!("series_of_many{{number=\"{number}\"}} {number}\n"),
        );
    }
    assert!(body.len() > 512 << 10);
    exporter.exposes(&body);
    let mut bench = Bench::new();
    let patient =
        Job { interval: Duration::from_secs(2), timeout: Duration::from_secs(2), ..job("n", &[&exporter]) };
    let _source = ScrapeSource::start(settings(vec![patient]), bench.context.clone());
    let (first, second) = (bench.next().await, bench.next().await);
    assert_eq!(first.0[0].values[19_999].to_bits(), 19_999_f64.to_bits());
    assert!(Arc::ptr_eq(&first.0[0].set, &second.0[0].set));
}

#[tokio::test]
async fn a_shutdown_writes_no_markers() {
    let exporter = Exporter::start().await;
    exporter.exposes("a 1\n");
    let Bench { context, mut receiver } = Bench::new();
    let source = ScrapeSource::start(settings(vec![job("node", &[&exporter])]), context.clone());
    receiver.next().await.unwrap();
    context.shutdown.cancel();
    tokio::time::timeout(DEADLINE, source.stopped()).await.expect("the source ends");
    drop((source, context));
    while let Some(collected) = receiver.next().await {
        assert!(collected.blocks.iter().all(|block| block.values.iter().all(|v| !is_stale_marker(*v))));
    }
}

#[tokio::test]
async fn targets_from_files_come_and_go() {
    let exporter = Exporter::start().await;
    exporter.exposes("a 1\n");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("targets.json");
    let mut bench = Bench::new();
    let found = Job { file_sd: vec![directory.path().join("*.json")], ..job("files", &[]) };
    let source = ScrapeSource::start(settings(vec![found]), bench.context.clone());
    let write = |text: String| {
        let new = directory.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &file).unwrap();
    };
    write(format!(r#"[{{"targets": ["{}"], "labels": {{"rack": "7"}}}}]"#, exporter.address));
    let scrape = bench.next().await;
    assert_eq!(scrape.value("a rack=7").as_deref(), Some("1"));
    std::fs::remove_file(&file).unwrap();
    bench.next_where(|scrape| scrape.value("up rack=7").as_deref() == Some("stale")).await;
    assert!(source.status().is_empty());
}

#[tokio::test]
async fn what_is_asked_says_who_asks_and_what_for() {
    let exporter = Exporter::start().await;
    let seen = Arc::new(Mutex::new(None));
    let noted = seen.clone();
    exporter.set(move |request| {
        *noted.lock() = Some((request.uri().clone(), request.headers().clone()));
        respond(200, TEXT, "a 1\n".into())
    });
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");
    std::fs::write(&password, "open sesame\n").unwrap();
    let asking = Job {
        metrics_path: "/m".into(),
        params: vec![("q".into(), vec!["a b".into()])],
        auth: Some(Auth::Basic { username: "ali".into(), password: Secret::File(password) }),
        ..job("node", &[&exporter])
    };
    let mut bench = Bench::new();
    let _source = ScrapeSource::start(settings(vec![asking]), bench.context.clone());
    assert!(bench.next().await.is_up());
    let (uri, headers) = seen.lock().take().unwrap();
    assert_eq!(uri, "/m?q=a%20b");
    assert_eq!(headers["authorization"], "Basic YWxpOm9wZW4gc2VzYW1l");
    assert_eq!(headers["x-prometheus-scrape-timeout-seconds"], "0.1");
    assert_eq!(headers["accept-encoding"], "identity");
    assert!(headers["accept"].to_str().unwrap().starts_with("application/openmetrics-text;version=1.0.0"));
}

#[tokio::test]
async fn redirects_are_followed_without_handing_secrets_to_others() {
    let (first, other) = (Exporter::start().await, Exporter::start().await);
    let location = format!("http://{}/there", other.address);
    first.set(move |request| {
        assert!(request.headers().contains_key("authorization"));
        let response = Response::builder().status(302).header("location", &location);
        Box::pin(std::future::ready(response.body(Body::empty()).unwrap()))
    });
    other.set(|request| {
        assert!(!request.headers().contains_key("authorization"));
        respond(200, TEXT, format!("path{{p=\"{}\"}} 1\n", request.uri()))
    });
    let bearer = Some(Auth::Bearer(Secret::Text("token".into())));
    let redirected = Job { auth: bearer, ..job("node", &[&first]) };
    let stuck = Job { follow_redirects: false, ..job("stuck", &[&first]) };
    let stuck = Job { auth: redirected.auth.clone(), ..stuck };
    let bench = Bench::new();
    let (scrapes, problems) = scrape_once(&settings(vec![redirected, stuck]), &bench.context).await;
    assert!(problems.is_empty());
    assert_eq!(Scrape(scrapes[0].blocks.clone()).value("path p=/there").as_deref(), Some("1"));
    assert_eq!(scrapes[1].status.last_error.as_deref(), Some("the target answered HTTP status 302 Found"));
}

#[tokio::test]
async fn openmetrics_stamps_and_exemplars_are_understood() {
    let exporter = Exporter::start().await;
    exporter.set(|_| {
        let body = "# TYPE a counter\na_total 1 # {trace=\"x\"} 1\na_total{own=\"1\"} 2 12.5\n# EOF\n";
        respond(200, OPENMETRICS, body.into())
    });
    let mut bench = Bench::new();
    let _source = ScrapeSource::start(settings(vec![job("node", &[&exporter])]), bench.context.clone());
    let scrape = bench.next().await;
    let stamped = scrape.0.iter().find(|block| block.stamps_ms.is_some()).unwrap();
    assert_eq!((stamped.stamp_ms(0), stamped.values[0]), (12_500, 2.0));
    assert_eq!(scrape.value("a_total").as_deref(), Some("1"));
    bench.next().await;
    let metrics = bench.context.registry.render();
    assert!(metrics.lines().any(|line| {
        line.strip_prefix("pegel_scrape_left_out_exemplars_total ").is_some_and(|n| n != "0")
    }));
    // No markers for series with timestamps of their own.
    exporter.set(|_| respond(200, OPENMETRICS, "b 1\n# EOF\n".into()));
    let changed = bench.next_where(|scrape| scrape.value("b").is_some()).await;
    assert_eq!(changed.value("a_total").as_deref(), Some("stale"));
    assert_eq!(changed.value("a_total own=1"), None);
}
