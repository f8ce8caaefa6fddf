//! A host and a port as targets have them: `example.org:443`, `[2001:db8::1]:443`, `192.0.2.1`.

use std::net::{IpAddr, Ipv6Addr};

/// Splits an address into host and port. Without a port, the default is taken, if there is one.
pub fn split(address: &str, default_port: Option<u16>) -> Result<(&str, u16), String> {
    if address.contains("://") {
        return Err("it is a URL; write the host and the port only".to_owned());
    }
    let remedy = "write HOST:PORT, an IPv6 address in brackets";
    let missing = || default_port.ok_or_else(|| format!("it has no port; {remedy}"));
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) =
            rest.split_once(']').ok_or_else(|| format!("its bracket is not closed; {remedy}"))?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(format!("what is in brackets is no IPv6 address; {remedy}"));
        }
        match rest.strip_prefix(':') {
            Some(port) => (host, number(port)?),
            None if rest.is_empty() => (host, missing()?),
            None => return Err(format!("it goes on after the bracket; {remedy}")),
        }
    } else if address.parse::<IpAddr>().is_ok() {
        (address, missing()?)
    } else {
        match address.split_once(':') {
            Some((host, port)) => (host, number(port)?),
            None => (address, missing()?),
        }
    };
    check(host)?;
    Ok((host, port))
}

fn number(port: &str) -> Result<u16, String> {
    let number = port.parse().ok().filter(|port| *port > 0);
    number.ok_or_else(|| "its port is no number from 1 to 65535".to_owned())
}

/// Says why a text is neither a host name nor an address.
pub fn check(host: &str) -> Result<(), String> {
    if host.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let good = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if host.contains("://") {
        return Err("it is a URL; write the host and the port only".to_owned());
    }
    if host.contains('@') {
        return Err("it holds a user name".to_owned());
    }
    if name.len() > 253 || !name.split('.').all(good) {
        return Err("its host is neither a name nor an address".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_split() {
        for (address, port, parts) in [
            ("a.example:1", None, ("a.example", 1)),
            ("[::1]:2", None, ("::1", 2)),
            ("::1", Some(53), ("::1", 53)),
            ("[::1]", Some(53), ("::1", 53)),
            ("10.0.0.1", Some(53), ("10.0.0.1", 53)),
            ("a_b.example.", Some(53), ("a_b.example.", 53)),
        ] {
            assert_eq!(split(address, port), Ok(parts), "{address}");
        }
        for (address, reason) in [
            ("a", "no port"),
            ("a:0", "1 to 65535"),
            ("::1", "no port"),
            ("[::1:2", "not closed"),
            ("[a]:1", "no IPv6"),
            ("http://a:1", "URL"),
            ("a..b:1", "neither"),
            ("me@a:1", "user name"),
            ("", "no port"),
        ] {
            let error = split(address, None).unwrap_err();
            assert!(error.contains(reason), "{address}: {error}");
        }
    }
}
