//! Cookies from redirect to redirect of one run: a login page that sets one and sends its visitor on would else send
//! in circles. RFC 6265 without what needs a memory or a list of public suffixes: cookies go back to the very host
//! that set them.

use http::Uri;
use http::header::{self, HeaderMap, HeaderValue};

/// The most cookies of one run: as many as browsers keep for a host.
const MAX_COOKIES: usize = 50;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cookie {
    host: String,
    path: String,
    name: String,
    value: String,
    secure: bool,
}

/// The cookies of one run.
#[derive(Debug, Default)]
pub(super) struct Jar(Vec<Cookie>);

impl Jar {
    /// Takes the cookies of an answer.
    pub(super) fn take(&mut self, url: &Uri, headers: &HeaderMap) {
        for value in headers.get_all(header::SET_COOKIE) {
            let Ok(text) = value.to_str() else { continue };
            let mut parts = text.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { continue };
            let mut cookie = Cookie {
                host: url.host().unwrap_or_default().to_ascii_lowercase(),
                path: default_path(url.path()).to_owned(),
                name: name.trim().to_owned(),
                value: value.trim().to_owned(),
                secure: false,
            };
            let mut ended = false;
            for part in parts {
                let (key, value) = part.split_once('=').unwrap_or((part, ""));
                match key.to_ascii_lowercase().as_str() {
                    "path" if value.starts_with('/') => value.clone_into(&mut cookie.path),
                    "secure" => cookie.secure = true,
                    "max-age" => ended = value.trim().parse::<i64>().is_ok_and(|age| age <= 0),
                    _ => {}
                }
            }
            let same = |c: &Cookie| (&c.host, &c.path, &c.name) == (&cookie.host, &cookie.path, &cookie.name);
            self.0.retain(|known| !same(known));
            if !ended && !cookie.name.is_empty() && self.0.len() < MAX_COOKIES {
                self.0.push(cookie);
            }
        }
    }

    /// The header of a request.
    pub(super) fn header(&self, url: &Uri) -> Option<HeaderValue> {
        let host = url.host().unwrap_or_default();
        let https = url.scheme_str() == Some("https");
        let fits = |cookie: &&Cookie| {
            cookie.host.eq_ignore_ascii_case(host)
                && (https || !cookie.secure)
                && under(url.path(), &cookie.path)
        };
        let pairs: Vec<String> =
            self.0.iter().filter(fits).map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        if pairs.is_empty() { None } else { HeaderValue::from_str(&pairs.join("; ")).ok() }
    }
}

/// RFC 6265, section 5.1.4.
fn default_path(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(end) => &path[..end],
    }
}

fn under(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || of.ends_with('/') || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_go_back_to_where_they_came_from() {
        let mut jar = Jar::default();
        let mut headers = HeaderMap::new();
        for cookie in
            ["sid=1; Path=/; HttpOnly", "deep=2", "tls=3; Secure; path=/", "gone=4; Max-Age=0", "bad"]
        {
            headers.append(header::SET_COOKIE, HeaderValue::from_static(cookie));
        }
        jar.take(&"http://a.example/login/form".parse().unwrap(), &headers);
        let sent = |url: &str| jar.header(&url.parse().unwrap()).map(|h| h.to_str().unwrap().to_owned());
        assert_eq!(sent("http://a.example/").as_deref(), Some("sid=1"));
        assert_eq!(sent("https://A.example/login/next").as_deref(), Some("sid=1; deep=2; tls=3"));
        assert_eq!(sent("http://a.example/loginx").as_deref(), Some("sid=1"));
        assert_eq!(sent("http://b.example/"), None);
    }
}
