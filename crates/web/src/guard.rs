//! Rules for requests: which hosts may be asked, and which pages may change anything.
//!
//! A web site may point a name of its own at 127.0.0.1 (DNS rebinding) or send a form to it. The name in `Host`
//! gives away the first, `Origin` and the content type the second.

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// The page loads only its own files, and no other page may show it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The relation between the site of the asking page and this one, as browsers tell it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Headers of every answer.
static HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Adds the headers of every answer, unless it has its own. Only files of the page have their own caching.
pub(crate) fn secure(headers: &mut HeaderMap) {
    for (name, value) in &HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// Checks a request. `Err` has the status and the reason.
pub(crate) fn check(
    bound: SocketAddr,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), (StatusCode, String)> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let forbidden = |reason: String| Err((StatusCode::FORBIDDEN, reason));
    let Some(host) = text(HOST) else {
        return forbidden("the request has no Host header: name this machine, such as localhost".into());
    };
    if !is_own(host, bound) {
        return forbidden(format!(
            "the host \"{host}\" is not this machine: open the page as http://{bound}/ or http://localhost:{}/",
            bound.port()
        ));
    }
    // A page of another site can't read the answers, but it could keep the engine busy.
    if !matches!(text(SEC_FETCH_SITE), None | Some("same-origin" | "none")) && path.starts_with("/api/") {
        return forbidden(format!("a page of another site may not ask {path}"));
    }
    if method != Method::POST {
        return Ok(());
    }
    if let Some(origin) = text(ORIGIN)
        && !is_same_origin(origin, host)
    {
        return forbidden(format!("a page of \"{origin}\" may not change anything at \"{host}\""));
    }
    let kind = text(CONTENT_TYPE).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let reason = format!("the content type is \"{kind}\", expected application/json");
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
    }
    Ok(())
}

/// Returns true if `host` (`name`, `name:port`, `[::1]:port`) is the bound address or the loopback interface. Any
/// port may be named, since a tunnel may have another one.
fn is_own(host: &str, bound: SocketAddr) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) => (name, port),
            None => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok());
    if !is_port {
        return false;
    }
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || address == bound.ip())
}

/// Returns true if `origin` is a page of `host`. A proxy may have added TLS.
fn is_same_origin(origin: &str, host: &str) -> bool {
    let of = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    of.is_some_and(|of| of.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(HeaderName, &str)]) -> HeaderMap {
        all.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn status(method: Method, all: &[(HeaderName, &str)]) -> u16 {
        let bound = "127.0.0.1:4778".parse().unwrap();
        check(bound, &method, "/api/sql", &headers(all)).map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn only_names_of_this_machine_are_hosts() {
        let bound: SocketAddr = "127.0.0.1:4778".parse().unwrap();
        for own in ["localhost", "LocalHost:1", "127.0.0.1:4778", "127.0.0.2", "[::1]:4778", "[::1]"] {
            assert!(is_own(own, bound), "{own}");
        }
        for other in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:4778",
            "evil.example:4778",
            "10.0.0.1",
            "[::2]:1",
            "[::1",
            "localhost:x",
            "localhost:99999",
            "",
            "::1",
            "user@localhost",
        ] {
            assert!(!is_own(other, bound), "{other}");
        }
    }

    #[test]
    fn a_request_names_this_machine() {
        assert_eq!(status(Method::GET, &[]), 403);
        assert_eq!(status(Method::GET, &[(HOST, "evil.example:4778")]), 403);
        assert_eq!(status(Method::GET, &[(HOST, "localhost:9000")]), 200);
        for (site, expected) in [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403)]
        {
            assert_eq!(
                status(Method::GET, &[(HOST, "localhost"), (SEC_FETCH_SITE, site)]),
                expected,
                "{site}"
            );
        }
        // An answer to another origin's GET can't be read by that page.
        assert_eq!(status(Method::GET, &[(HOST, "localhost:9000"), (ORIGIN, "http://evil.example")]), 200);
    }

    #[test]
    fn a_change_comes_from_the_page_itself_or_from_a_program() {
        let host = (HOST, "localhost:4778");
        let json = (CONTENT_TYPE, "application/json; charset=utf-8");
        assert_eq!(status(Method::POST, &[host.clone(), json.clone()]), 200);
        assert_eq!(
            status(Method::POST, &[host.clone(), json.clone(), (ORIGIN, "http://localhost:4778")]),
            200
        );
        for origin in
            ["null", "http://evil.example", "http://localhost:4779", "http://127.0.0.1:4778", "file://"]
        {
            assert_eq!(
                status(Method::POST, &[host.clone(), json.clone(), (ORIGIN, origin)]),
                403,
                "{origin}"
            );
        }
        assert_eq!(status(Method::POST, std::slice::from_ref(&host)), 415);
        for kind in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; a=application/json"]
        {
            assert_eq!(status(Method::POST, &[host.clone(), (CONTENT_TYPE, kind)]), 415, "{kind}");
        }
    }
}
