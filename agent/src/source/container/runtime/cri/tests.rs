use super::super::{Discovery, Pace, RuntimeState, RuntimeStatus, Settings, Socket, Sockets};
use crate::source::container::{Catalogue, RuntimeKind};
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pegel_runtime::metrics::Registry;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Serves each connection so, watches it, and gives the first status that is not `Connecting`.
async fn status_of<F>(serve: impl Fn(UnixStream) -> F + Send + 'static) -> RuntimeStatus
where
    F: Future<Output = ()> + Send + 'static,
{
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("containerd.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream));
        }
    });
    let settings = Settings {
        sockets: Sockets::These(vec![Socket { kind: RuntimeKind::Containerd, path }]),
        pace: Pace { call: Duration::from_millis(500), ..Pace::default() },
        ..Settings::default()
    };
    let catalogue = Arc::new(Catalogue::default());
    let discovery = Discovery::start(settings, catalogue, &Registry::new(), &CancellationToken::new());
    // The first look for sockets is the task's own first step.
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..3_000 {
        ticks.tick().await;
        let known = discovery.status().into_iter().find(|status| status.state != RuntimeState::Connecting);
        if let Some(status) = known {
            server.abort();
            return status;
        }
    }
    panic!("nothing became of it: {:?}", discovery.status());
}

/// Answers every call with this, whatever it is.
async fn answer(stream: UnixStream, status: Option<&'static str>, body: &'static [u8]) {
    let service = service_fn(move |_| async move {
        let mut response = http::Response::builder().header("content-type", "application/grpc");
        if let Some(status) = status {
            response = response.header("grpc-status", status);
        }
        Ok::<_, Infallible>(response.body(Full::new(Bytes::from_static(body))).expect("a response"))
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

#[tokio::test]
async fn a_containerd_without_the_cri_is_not_used_and_no_trouble() {
    let status = status_of(|stream| answer(stream, Some("12"), b"")).await;
    assert_eq!(status.state, RuntimeState::Unused, "{status:?}");
}

#[tokio::test]
async fn a_socket_that_accepts_and_says_nothing_is_named() {
    let status = status_of(|stream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    assert_eq!(status.state, RuntimeState::Away);
    let error = status.last_error.expect("an error");
    assert!(error.contains("the version was not answered within 500ms"), "{error}");
}

#[tokio::test]
async fn what_speaks_no_http2_is_named() {
    let status = status_of(|mut stream| async move {
        let _ = stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\nno such protocol here, nor anywhere near")
            .await;
    })
    .await;
    assert_eq!(status.state, RuntimeState::Away, "{status:?}");
}

#[tokio::test]
async fn a_message_beyond_its_bound_is_not_waited_for() {
    // A message of 2 GiB, by its length.
    let status = status_of(|stream| answer(stream, None, b"\0\x7f\xff\xff\xff")).await;
    assert_eq!(status.state, RuntimeState::Away);
    let error = status.last_error.expect("an error");
    assert!(error.contains("too large"), "{error}");
}

#[tokio::test]
async fn garbage_in_a_message_is_named() {
    let status = status_of(|stream| answer(stream, None, b"\0\0\0\0\x02\xff\xff")).await;
    assert_eq!(status.state, RuntimeState::Away, "{status:?}");
}
