//! The page: static files, compiled in. Scripts render; the server only sends data.

use super::Refusal;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::xxh3_64;

const SHELL: &str = include_str!("page/index.html");

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, content type, content.
const ASSETS: [(&str, &str, &str); 10] = [
    ("style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("app.js", JAVASCRIPT, include_str!("page/app.js")),
    ("dom.js", JAVASCRIPT, include_str!("page/dom.js")),
    ("words.js", JAVASCRIPT, include_str!("page/words.js")),
    ("chart.js", JAVASCRIPT, include_str!("page/chart.js")),
    ("checks.js", JAVASCRIPT, include_str!("page/checks.js")),
    ("fleet.js", JAVASCRIPT, include_str!("page/fleet.js")),
    ("node.js", JAVASCRIPT, include_str!("page/node.js")),
    ("tail.js", JAVASCRIPT, include_str!("page/tail.js")),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// The shell of every view; `app.js` reads the path.
pub(super) async fn shell(headers: HeaderMap) -> Response {
    cached(&headers, "text/html; charset=utf-8", SHELL)
}

/// A style, script or image.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match ASSETS.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, content)) => cached(&headers, kind, content),
        None => Refusal(StatusCode::NOT_FOUND, "the page has no such file".into()).into_response(),
    }
}

/// Browsers ask each time and are told in a few bytes that nothing changed.
fn cached(headers: &HeaderMap, kind: &'static str, content: &'static str) -> Response {
    let tag = format!("\"{:016x}\"", xxh3_64(content.as_bytes()));
    let fresh = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let caching = [(header::ETAG, tag), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if fresh {
        (StatusCode::NOT_MODIFIED, caching).into_response()
    } else {
        (caching, [(header::CONTENT_TYPE, kind)], content).into_response()
    }
}
