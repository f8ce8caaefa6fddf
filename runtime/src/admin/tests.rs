use super::*;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower_service::Service as _;

fn settings() -> AdminSettings {
    RawAdmin::on_port(0).resolve(&Path::root(), &mut Mistakes::for_tests())
}

async fn ask(router: &Router, request: http::request::Builder) -> (u16, String) {
    let response = router.clone().call(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn get(path: &str) -> http::request::Builder {
    Request::get(path).header("host", "127.0.0.1:9464")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn metrics_and_liveness_are_served() {
    let registry = Registry::new();
    registry.counter("pegel_x_total", "X.", &[]).inc();
    let router = Admin::new(settings(), registry).into_router();
    runtime().block_on(async {
        let (status, body) = ask(&router, get("/metrics")).await;
        assert!(status == 200 && body.contains("pegel_x_total 1"), "{body}");
        for path in ["/-/healthy", "/-/ready", "/health", "/health/live", "/health/ready"] {
            assert_eq!(ask(&router, get(path)).await.0, 200, "{path}");
        }
        assert_eq!(ask(&router, get("/nothing")).await.0, 404);
    });
}

#[test]
fn a_failing_or_hanging_dependency_makes_it_unready_in_time() {
    let settings = AdminSettings { check_timeout: Duration::from_millis(50), ..settings() };
    let router = Admin::new(settings, Registry::new())
        .check("spool", || async { Ok("0 bytes".to_owned()) })
        .check("uplink", || async { Err("no aggregator answers".to_owned()) })
        .check("disk", std::future::pending)
        .check("bug", || async { panic!("expected by the test") })
        .into_router();
    let (status, body) = runtime().block_on(ask(&router, get("/health/ready")));
    let report: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &report["status"]), (503, &"failing".into()));
    assert_eq!(report["checks"]["spool"]["status"], "ok");
    assert_eq!(report["checks"]["uplink"]["detail"], "no aggregator answers");
    assert_eq!(report["checks"]["disk"]["detail"], "no answer within 50 ms");
    assert_eq!(report["checks"]["bug"]["status"], "failing");
    let (status, words) = runtime().block_on(ask(&router, get("/-/ready")));
    assert!(status == 503 && words.contains("uplink: no aggregator answers"), "{words}");
}

#[test]
fn a_reload_answers_with_what_happened() {
    for (result, status, words) in [
        (Ok("2 settings changed".to_owned()), 200, "2 settings changed"),
        (
            Err(ReloadRefused { bad_configuration: true, message: "a.yaml:1:1: bad".into() }),
            422,
            "a.yaml:1:1",
        ),
        (Err(ReloadRefused { bad_configuration: false, message: "port taken".into() }), 500, "port taken"),
    ] {
        let router =
            Admin::new(settings(), Registry::new()).reload(Arc::new(move || result.clone())).into_router();
        runtime().block_on(async {
            let post = Request::post("/-/reload").header("host", "localhost");
            let (found, body) = ask(&router, post).await;
            assert!(found == status && body.contains(words), "{found} {body}");
            assert_eq!(ask(&router, get("/-/reload")).await.0, 405);
        });
    }
}

#[test]
fn other_names_and_other_sites_are_refused() {
    let settings = AdminSettings { hosts: vec!["node.example".into()], ..settings() };
    let own = Router::new().route("/api/status", axum::routing::get(|| async { "own" }));
    let router = Admin::new(settings, Registry::new()).route(own).into_router();
    runtime().block_on(async {
        for (host, origin, status) in [
            ("127.0.0.1:9464", None, 200),
            ("node.example:9464", None, 200),
            ("rebound.example", None, 421),
            ("127.0.0.1:9464", Some("http://127.0.0.1:9464"), 200),
            ("127.0.0.1:9464", Some("https://evil.example"), 403),
            ("127.0.0.1:9464", Some("null"), 403),
        ] {
            for path in ["/metrics", "/api/status"] {
                let mut request = Request::get(path).header("host", host);
                if let Some(origin) = origin {
                    request = request.header("origin", origin);
                }
                assert_eq!(ask(&router, request).await.0, status, "{host} {origin:?} {path}");
            }
        }
        assert_eq!(ask(&router, Request::get("/metrics")).await.0, 400);
    });
}

#[test]
fn a_free_port_is_bound_written_down_served_and_closed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("admin.address");
    let settings = AdminSettings { address_file: Some(file.clone()), ..settings() };
    runtime().block_on(async {
        let admin = Admin::new(settings, Registry::new()).bind().await.unwrap();
        let written: SocketAddr = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        assert_eq!(written, admin.address());
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(admin.serve(shutdown.clone()));
        let mut stream = tokio::net::TcpStream::connect(written).await.unwrap();
        let request = "GET /-/healthy HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        shutdown.cancel();
        tokio::time::timeout(2 * DRAIN, server).await.unwrap().unwrap();
        assert!(tokio::net::TcpStream::connect(written).await.is_err());
    });
}

#[test]
fn a_taken_port_is_an_error_in_words() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = AdminSettings { listen: taken.local_addr().unwrap(), ..settings() };
    let error = runtime().block_on(Admin::new(settings, Registry::new()).bind()).err().unwrap().to_string();
    assert!(error.contains("cannot listen on 127.0.0.1:") && error.contains("admin.listen"), "{error}");
}

#[test]
fn listening_for_other_machines_has_to_be_asked_for() {
    let mut raw = RawAdmin { listen: Listen("0.0.0.0:9464".parse().unwrap()), ..RawAdmin::on_port(0) };
    let mut mistakes = Mistakes::for_tests();
    raw.resolve(&Path::parse("admin"), &mut mistakes);
    assert!(mistakes.all().concat().contains("set allow_remote: true beside it"), "{:?}", mistakes.all());
    raw.allow_remote = true;
    let mut mistakes = Mistakes::for_tests();
    raw.resolve(&Path::parse("admin"), &mut mistakes);
    assert!(mistakes.all().is_empty());
}
