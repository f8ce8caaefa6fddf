//! Targets that do not answer as they should.

use super::*;

/// The error of one scrape of a job.
async fn error_of(job: Job) -> (String, Scrape) {
    let bench = Bench::new();
    let (mut scrapes, _) = scrape_once(&settings(vec![job]), &bench.context).await;
    let scrape = scrapes.remove(0);
    let values = Scrape(scrape.blocks);
    assert_eq!(values.value("up").as_deref(), Some("0"), "{:?}", scrape.status);
    (scrape.status.last_error.unwrap(), values)
}

#[tokio::test]
async fn a_failed_scrape_is_down_and_stale_and_then_recovers() {
    let exporter = Exporter::start().await;
    exporter.exposes("a 1\n");
    let mut bench = Bench::new();
    let source = ScrapeSource::start(settings(vec![job("node", &[&exporter])]), bench.context.clone());
    bench.next_where(Scrape::is_up).await;
    exporter.set(|_| respond(500, TEXT, "a 1\n".into()));
    let failed = bench.next_where(|scrape| !scrape.is_up()).await;
    assert_eq!(failed.value("a").as_deref(), Some("stale"));
    assert_eq!(failed.value("scrape_samples_scraped").as_deref(), Some("0"));
    assert_eq!(bench.next().await.values().len(), 5, "markers are written once");
    let status = source.status().remove(0);
    assert_eq!(status.up, Some(false));
    assert!(status.last_error.as_ref().unwrap().contains("500"), "{status:?}");
    exporter.exposes("a 2\n");
    let recovered = bench.next_where(Scrape::is_up).await;
    assert_eq!(recovered.value("a").as_deref(), Some("2"));
    assert_eq!(recovered.value("scrape_series_added").as_deref(), Some("0"), "it was known before");
}

#[tokio::test]
async fn a_hanging_target_times_out_and_delays_nobody() {
    let (hangs, answers) = (Exporter::start().await, Exporter::start().await);
    hangs.set(|_| Box::pin(std::future::pending()));
    answers.exposes("fine 1\n");
    let mut bench = Bench::new();
    let both =
        Job { interval: Duration::from_secs(1), timeout: Duration::from_secs(1), ..job("hangs", &[&hangs]) };
    let fine = job("fine", &[&answers]);
    let _source = ScrapeSource::start(settings(vec![both, fine]), bench.context.clone());
    let mut before_the_timeout = 0;
    loop {
        let scrape = bench.next().await;
        if scrape.value("fine").is_none() {
            assert_eq!(scrape.value("up").as_deref(), Some("0"));
            break;
        }
        before_the_timeout += 1;
    }
    assert!(before_the_timeout >= 5, "{before_the_timeout} scrapes of the other in a second");
}

#[tokio::test]
async fn a_target_that_is_not_there_is_down_with_the_reason() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let targets = vec![TargetGroup { targets: vec![address], labels: vec![] }];
    let (error, _) = error_of(Job { targets, ..Job::new("gone") }).await;
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn limits_fail_the_scrape_with_the_reason() {
    let exporter = Exporter::start().await;
    exporter.exposes("a 1\nb{l=\"long value\"} 2\nc 3\n");
    let (error, values) = error_of(Job { sample_limit: 2, ..job("samples", &[&exporter]) }).await;
    assert_eq!(error, "3 samples exceed the limit of 2");
    assert_eq!(values.value("scrape_samples_scraped").as_deref(), Some("3"));

    let (error, values) = error_of(Job { body_size_limit: 10, ..job("body", &[&exporter]) }).await;
    assert_eq!(error, "the body reaches body_size_limit (10 bytes)");
    assert_eq!(values.value("scrape_samples_scraped").as_deref(), Some("0"));

    let label_limits = LabelLimits { value_bytes: 9, ..LabelLimits::default() };
    let (error, _) = error_of(Job { label_limits, ..job("l", &[&exporter]) }).await;
    // `instance` is longer, too; the series is named.
    assert!(error.contains("label_value_length_limit (9)"), "{error}");
}

#[tokio::test]
async fn an_endless_body_is_read_up_to_the_limit_only() {
    let exporter = Exporter::start().await;
    exporter.set(|_| {
        let piece = || Some((Ok::<_, std::io::Error>(axum::body::Bytes::from_static(b"# comment\n")), ()));
        let endless = futures_util::stream::unfold((), move |()| std::future::ready(piece()));
        let response = Response::builder().header("content-type", TEXT).body(Body::from_stream(endless));
        Box::pin(std::future::ready(response.unwrap()))
    });
    let endless = Job { timeout: DEADLINE, interval: DEADLINE, ..job("endless", &[&exporter]) };
    let (error, _) = error_of(Job { body_size_limit: 100_000, ..endless }).await;
    assert_eq!(error, "the body reaches body_size_limit (100000 bytes)");
}

#[tokio::test]
async fn bodies_that_are_no_exposition_are_refused_with_the_place() {
    let exporter = Exporter::start().await;
    exporter.exposes("a 1\nb {\n");
    let (error, values) = error_of(job("broken", &[&exporter])).await;
    assert!(error.contains("line 2, column 4"), "{error}");
    assert_eq!(values.value("scrape_samples_scraped").as_deref(), Some("1"));
    assert_eq!(values.value("a"), None, "nothing of a broken body is taken");

    exporter.set(|_| respond(200, "text/html", "a 1\n".into()));
    let (error, _) = error_of(job("html", &[&exporter])).await;
    assert!(error.contains("`text/html` is no text exposition"), "{error}");
}

#[tokio::test]
async fn secrets_that_cannot_be_read_name_the_file_and_never_the_secret() {
    let exporter = Exporter::start().await;
    let auth = Some(Auth::Bearer(Secret::File("/nonexistent/token".into())));
    let (error, _) = error_of(Job { auth, ..job("file", &[&exporter]) }).await;
    assert!(error.contains("/nonexistent/token"), "{error}");
    let auth = Some(Auth::Bearer(Secret::Text("swordfish\n".into())));
    let with_secret = Job { auth, ..job("text", &[&exporter]) };
    assert!(!format!("{with_secret:?}").contains("swordfish"));
    let (error, _) = error_of(with_secret).await;
    assert!(!error.contains("swordfish") && error.contains("characters"), "{error}");
}

#[tokio::test]
async fn series_that_cannot_be_stored_are_left_out_alone() {
    let exporter = Exporter::start().await;
    exporter.exposes("a 1\na 2\nb{x=\"1\",x=\"2\"} 1\nup 7\nc{x=\"1\",y=\"2\"} 1\nc{y=\"2\",x=\"1\"} 9\n");
    let mut bench = Bench::new();
    let _source = ScrapeSource::start(settings(vec![job("node", &[&exporter])]), bench.context.clone());
    let first = bench.next().await;
    let second = bench.next().await;
    for scrape in [&first, &second] {
        let values = scrape.values();
        assert_eq!(values["a"], "1");
        assert_eq!(values["c x=1,y=2"], "1");
        assert_eq!(values["up"], "1");
        assert_eq!(values["scrape_samples_scraped"], "6");
        assert_eq!(values["scrape_samples_post_metric_relabeling"], "5");
        assert_eq!(values.len(), 7);
    }
    assert!(Arc::ptr_eq(&first.0[0].set, &second.0[0].set), "the shape did not change");
    bench.next().await;
    let metrics = bench.context.registry.render();
    assert!(metrics.contains("pegel_scrape_left_out_samples_total{reason=\"invalid_labels\"}"), "{metrics}");
}
