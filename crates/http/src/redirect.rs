//! The target of an answer with status 3xx.

use ureq::http::{Method, StatusCode};
use url::Url;

/// The next request after a redirect: its method and its address.
///
/// The method stays, also after 301 and 302: a body is what these servers are asked with, and a GET in its place, as browsers
/// send it, asks for nothing. Only 303 means a GET.
///
/// # Errors
/// When the address is missing, cannot be read, or would carry a request out of TLS to another host.
pub(crate) fn next(
    method: &Method,
    status: StatusCode,
    from: &Url,
    location: Option<&str>,
) -> Result<(Method, Url), String> {
    let location = location.ok_or("the answer names no `Location`")?;
    let mut to = from.join(location).map_err(|_| "its `Location` is no address")?;
    if !matches!(to.scheme(), "http" | "https") {
        return Err(format!("it leads to the scheme `{}`", to.scheme()));
    }
    to.set_fragment(None);
    if from.scheme() == "https" && to.scheme() == "http" {
        // A server behind a proxy that speaks TLS for it does not know that it is asked over TLS.
        let same = from.host() == to.host() && to.port().is_none_or(|port| Some(port) == from.port());
        if !same {
            return Err(format!("it leads from TLS to {}, which has none", crate::address::endpoint(to.as_str())));
        }
        let _ = to.set_scheme("https");
        let _ = to.set_port(from.port());
    }
    let method = if status == StatusCode::SEE_OTHER { Method::GET } else { method.clone() };
    Ok((method, to))
}

/// Whether credentials for one address may travel to the other: the same scheme, host and port, or the same host over TLS.
pub(crate) fn trusts(with: &Url, to: &Url) -> bool {
    let upgraded = (with.scheme(), to.scheme()) == ("http", "https")
        && with.host() == to.host()
        && with.port().is_none()
        && to.port().is_none();
    with.origin() == to.origin() || upgraded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn methods_and_addresses() {
        for (status, from, location, expected) in [
            (307, "http://h:1/retrieve/?a=b", "/retrieve?a=b", "POST http://h:1/retrieve?a=b"),
            (308, "http://h/retrieve", "https://h/retrieve", "POST https://h/retrieve"),
            (301, "http://h/a/b", "c", "POST http://h/a/c"),
            (302, "http://h/a", "//other:2/b#x", "POST http://other:2/b"),
            (303, "http://h/a", "?job=7", "GET http://h/a?job=7"),
            // Behind a proxy that speaks TLS.
            (307, "https://h/a/", "http://h/a", "POST https://h/a"),
            (307, "https://h:8443/a/", "http://h:8443/a", "POST https://h:8443/a"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let (method, to) = next(&Method::POST, status, &url(from), Some(location)).unwrap();
            assert_eq!(format!("{method} {to}"), expected);
        }
    }

    #[test]
    fn ways_that_are_not_taken() {
        for (location, why) in [
            (None, "no `Location`"),
            (Some("http://["), "no address"),
            (Some("ftp://h/a"), "scheme `ftp`"),
            (Some("http://other/a?key=secret"), "from TLS to http://other/a, which"),
            (Some("http://h:81/a"), "from TLS"),
        ] {
            let error =
                next(&Method::POST, StatusCode::TEMPORARY_REDIRECT, &url("https://h/a/"), location).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn credentials_stay_with_their_server() {
        for (with, to, expected) in [
            ("http://h/a", "http://h:80/b", true),
            ("http://h/a", "https://h/a", true),
            ("https://h/a", "http://h/a", false),
            ("http://h:1/a", "http://h:2/a", false),
            ("http://h:1/a", "https://h:2/a", false),
            ("http://h/a", "http://other/a", false),
            ("http://h/a", "http://h.evil/a", false),
        ] {
            assert_eq!(trusts(&url(with), &url(to)), expected, "{with} {to}");
        }
    }
}
