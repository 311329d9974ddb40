//! Addresses as people give them, and as they may be shown.

use std::net::Ipv4Addr;

use url::{Host, Url};

/// The address of a server, its path made by `path` from the one that was given.
///
/// Blanks around it and a fragment are dropped, a query string (`?api-version=…`) and a user's name and password stay.
/// One without a scheme gets `http://` where it names a port, an IPv4 address or a host without dots, as servers of one's own
/// are called, and `https://` elsewhere, where a key must not travel in the clear. One that cannot be read stays as it is: the
/// first request says so.
///
/// ```
/// use zerosearch_http::address;
///
/// let retrieve = |path: &str| if path == "/" { "/retrieve".into() } else { path.into() };
/// assert_eq!(address(" localhost:8000", retrieve), "http://localhost:8000/retrieve");
/// assert_eq!(address("https://host/search?corpus=wiki", retrieve), "https://host/search?corpus=wiki");
/// ```
pub fn address(given: &str, path: impl FnOnce(&str) -> String) -> String {
    let given = given.trim();
    let whole = match given.contains("://") {
        true => given.to_string(),
        false => format!("{}://{given}", scheme(given)),
    };
    match Url::parse(&whole) {
        Ok(mut url) if url.has_host() => {
            url.set_fragment(None);
            let path = path(url.path());
            url.set_path(&path);
            url.into()
        }
        _ => whole,
    }
}

/// The scheme that an address without one means.
fn scheme(address: &str) -> &'static str {
    let authority = address.split(['/', '?', '#']).next().unwrap_or(address);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let port = host.rsplit_once(':').map(|(_, port)| port);
    let own = port.is_some_and(|port| port != "443") || host.parse::<Ipv4Addr>().is_ok() || !host.contains('.');
    if own { "http" } else { "https" }
}

/// Whether the host is this machine, where no proxy leads.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unspecified(),
        None => false,
    }
}

/// The address without the places where keys stand: what follows `?`, and what precedes `@`.
pub(crate) fn endpoint(address: &str) -> String {
    let shown = address.split(['?', '#']).next().unwrap_or(address);
    let Some((scheme, rest)) = shown.split_once("://") else { return shown.into() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{scheme}://{}{path}", authority.rsplit('@').next().unwrap_or(authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_put_in() {
        for (given, expected) in [
            ("http://h:8000", "http://h:8000/"),
            (" http://h:8000/a/b/?c=d#e\n", "http://h:8000/a/b/?c=d"),
            ("localhost:8000", "http://localhost:8000/"),
            ("node7", "http://node7/"),
            ("127.0.0.1/v1", "http://127.0.0.1/v1"),
            ("0.0.0.0:80", "http://0.0.0.0/"),
            ("[::1]:8000", "http://[::1]:8000/"),
            ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
            ("me:a@node7.cluster:8000", "http://me:a@node7.cluster:8000/"),
            ("api.example.com/v1", "https://api.example.com/v1"),
            ("api.example.com:443", "https://api.example.com/"),
            ("no address?key=a", "http://no address?key=a"),
            ("http://", "http://"),
        ] {
            assert_eq!(address(given, str::to_string), expected, "{given:?}");
        }
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(endpoint("http://h/search?api_key=secret"), "http://h/search");
        assert_eq!(endpoint("https://me:sec@ret@h:1/a@b?c"), "https://h:1/a@b");
        assert_eq!(endpoint("no address?key=secret"), "no address");
    }

    #[test]
    fn this_machine() {
        for (address, expected) in [
            ("http://localhost:1", true),
            ("http://127.0.0.2:1/a", true),
            ("http://0.0.0.0:1", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1", false),
            ("https://localhost.example.com", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(address).unwrap()), expected, "{address}");
        }
    }
}
