//! Plain HTTP requests of tests.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

/// Sends a request; status and body, or none if nobody answers.
pub async fn request(method: Method, url: &str, body: &str) -> Option<(u16, String)> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(body.to_owned())))
        // Of a program that has not said yet where it listens.
        .ok()?;
    let response = client.request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

/// The body of a 2xx answer.
pub async fn get(url: &str) -> Option<String> {
    let (status, body) = request(Method::GET, url, "").await?;
    (200..300).contains(&status).then_some(body)
}

/// A 2xx answer as JSON.
pub async fn get_json(url: &str) -> Option<serde_json::Value> {
    serde_json::from_str(&get(url).await?).ok()
}

/// Escapes a query's value.
pub fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => (b as char).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}
