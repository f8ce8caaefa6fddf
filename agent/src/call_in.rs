//! Where jobs call in: `/api/v1/heartbeats/NAME` on the admin address.
//!
//! The answer comes when what was heard is on the disk: 200; after some seconds without that, or if it cannot be
//! written, 202, which is success to callers and says in words what may happen.
//!
//! GET works as POST does: what calls is a line at the end of a script, with whatever tool the machine has.

use crate::source::clock::SampleClock;
use crate::source::probe::heartbeats::{Call, Hearing, Heartbeats};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use std::sync::Arc;

#[derive(Clone)]
struct Listening {
    heartbeats: Arc<Heartbeats>,
    clock: SampleClock,
}

/// How a run ended.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Ending {
    /// Its exit code; 0, success, if it is not said.
    #[serde(default)]
    exit_code: i64,
}

/// The routes.
pub fn routes(heartbeats: Arc<Heartbeats>, clock: SampleClock) -> Router {
    Router::new()
        .route("/api/v1/heartbeats/{name}", get(ended).post(ended))
        .route("/api/v1/heartbeats/{name}/start", get(started).post(started))
        .with_state(Listening { heartbeats, clock })
}

async fn ended(
    State(listening): State<Listening>,
    Path(name): Path<String>,
    Query(Ending { exit_code }): Query<Ending>,
) -> (StatusCode, String) {
    listening.hear(&name, Call::Ended(exit_code)).await
}

async fn started(State(listening): State<Listening>, Path(name): Path<String>) -> (StatusCode, String) {
    listening.hear(&name, Call::Started).await
}

impl Listening {
    async fn hear(&self, name: &str, call: Call) -> (StatusCode, String) {
        match self.heartbeats.call(name, call, self.clock.now_ms()).await {
            Ok(Hearing::Kept) => (StatusCode::OK, "heard\n".to_owned()),
            Ok(Hearing::InMemory(why)) => {
                let words = format!("heard, but a restart of the agent may forget it: {why}\n");
                (StatusCode::ACCEPTED, words)
            }
            Err(unexpected) => (StatusCode::NOT_FOUND, format!("{unexpected}\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn jobs_call_at_both_ends_and_strangers_are_told() {
        let heartbeats = Arc::new(Heartbeats::in_memory());
        heartbeats.expect("backup", 0);
        let routes = routes(heartbeats.clone(), SampleClock::default());
        let call = async |path: &str| {
            let request = Request::post(format!("/api/v1/heartbeats/{path}")).body(Body::empty()).unwrap();
            let answer = routes.clone().oneshot(request).await.unwrap();
            let code = answer.status().as_u16();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (code, String::from_utf8_lossy(&body).into_owned())
        };
        assert_eq!(call("backup/start").await.0, 200);
        assert!(heartbeats.heard("backup").unwrap().started_ms.is_some());
        assert_eq!(call("backup?exit_code=3").await.0, 200);
        let heard = heartbeats.heard("backup").unwrap();
        assert_eq!((heard.exit_code, heard.started_ms), (3, None));
        assert!(heard.ended_ms.is_some() && heard.took_ms.is_some());
        assert_eq!(call("backup?exitcode=0").await.0, 400, "a misspelt key is not success");
        let (code, words) = call("bakcup").await;
        assert!(code == 404 && words.contains("`bakcup`"), "{words}");
    }
}
