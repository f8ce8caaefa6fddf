//! Where a redirect leads.

use http::Uri;

/// Resolves a `Location` against the URL that was answered with it (RFC 3986, section 5, for http and https).
pub(in crate::source) fn resolve_redirect(from: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?.trim();
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let absolute = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", from.path())
    } else if location.is_empty() {
        return None;
    } else {
        let directory = from.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        let (path, query) = match location.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (location, String::new()),
        };
        format!("{scheme}://{authority}{}{query}", without_dots(&format!("{directory}/{path}")))
    };
    let uri: Uri = absolute.parse().ok()?;
    matches!(uri.scheme_str()?, "http" | "https").then_some(uri)
}

/// A path with its `.` and `..` resolved.
fn without_dots(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_of_every_shape_are_resolved() {
        let from: Uri = "http://a:1/b/c?q=1".parse().unwrap();
        for (location, to) in [
            ("https://b/x", "https://b/x"),
            ("//b:2/x", "http://b:2/x"),
            ("/x?y", "http://a:1/x?y"),
            ("x", "http://a:1/b/x"),
            ("../x?z=1", "http://a:1/x?z=1"),
            ("./x#part", "http://a:1/b/x"),
            ("?q=2", "http://a:1/b/c?q=2"),
        ] {
            assert_eq!(resolve_redirect(&from, location).unwrap().to_string(), to, "{location}");
        }
        for nowhere in ["", "ftp://b/x", "http://"] {
            assert_eq!(resolve_redirect(&from, nowhere), None, "{nowhere}");
        }
    }
}
