//! Who may ask: see the head of [`super`].

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

static NODE_NAME: LazyLock<Option<String>> = LazyLock::new(|| {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_ascii_lowercase())
});

/// Refuses requests by other names and from pages of other sites.
pub(super) async fn refuse_strangers(
    State(hosts): State<Arc<[String]>>,
    request: Request,
    next: Next,
) -> Response {
    match refusal(&request, &hosts) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

fn refusal(request: &Request, hosts: &[String]) -> Option<Response> {
    let header_text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    // HTTP/1.1 has the header, HTTP/2 the authority.
    let host = header_text(header::HOST).or_else(|| request.uri().authority().map(Authority::as_str));
    let Some(host) = host else {
        return Some((StatusCode::BAD_REQUEST, "the request has no Host\n").into_response());
    };
    let name = host_name(host);
    if !is_known(&name, hosts) {
        let words = format!(
            "requests for the host `{}` are refused, because a web page could send them by DNS rebinding; use an \
             address, or add the name to admin.hosts\n",
            name.escape_debug()
        );
        return Some((StatusCode::MISDIRECTED_REQUEST, words).into_response());
    }
    let origin = header_text(header::ORIGIN)?;
    let same = origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host));
    let words = "requests from pages of other sites are refused\n";
    (!same).then(|| (StatusCode::FORBIDDEN, words).into_response())
}

/// The name in a `Host`, in lower case, without port and brackets.
fn host_name(host: &str) -> String {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn is_known(name: &str, hosts: &[String]) -> bool {
    name == "localhost"
        || name.parse::<IpAddr>().is_ok()
        || hosts.iter().any(|host| host == name)
        || NODE_NAME.as_deref() == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_configured_names_are_known() {
        let hosts = ["metrics.example".to_owned()];
        for (host, known) in [
            ("127.0.0.1:9464", true),
            ("[::1]:9464", true),
            ("LOCALHOST", true),
            ("localhost.:80", true),
            ("metrics.example:9464", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_known(&host_name(host), &hosts), known, "{host}");
        }
    }
}
