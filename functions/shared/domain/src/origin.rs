//! Origins of web pages, and patterns of them.

/// Most characters of a host's name (RFC 1035, section 2.3.4, without the root's dot).
const HOST: usize = 253;

/// A page's origin that is allowed, or all hosts below a domain: `https://www.example.com`, `https://*.example.com`,
/// `http://localhost:8080`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginPattern<'a> {
    scheme: &'a str,
    /// Below this domain, if the pattern began with `*.`; else exactly this host.
    below: bool,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> OriginPattern<'a> {
    /// What a valid one looks like, for error messages.
    pub const EXPECTED: &'static str =
        "an origin such as https://www.example.com or https://*.example.com, without a path";

    /// Reads a pattern; `None` if it is none.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        if !["http", "https"].contains(&scheme) {
            return None;
        }
        let (below, rest) = rest.strip_prefix("*.").map_or((false, rest), |rest| (true, rest));
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok().filter(|_| port.bytes().all(|b| b.is_ascii_digit()))?)),
            None => (rest, None),
        };
        let labels = host.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
        });
        // `*.com` would allow half of the internet.
        let narrow = !below || host.contains('.');
        // Below a domain there is at least one letter and a dot; otherwise nobody could ever fit.
        let longest = if below { HOST - 2 } else { HOST };
        (labels && narrow && host.len() <= longest).then_some(Self { scheme, below, host, port })
    }

    /// Whether it allows a page's origin, as a browser writes it in the header `Origin`.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        let Some(origin) = OriginPattern::parse(origin).filter(|origin| !origin.below) else { return false };
        let host = if self.below {
            origin.host.strip_suffix(self.host).is_some_and(|rest| rest.ends_with('.'))
        } else {
            origin.host == self.host
        };
        host && (origin.scheme, origin.port()) == (self.scheme, self.port())
    }

    fn port(&self) -> u16 {
        self.port.unwrap_or(if self.scheme == "http" { 80 } else { 443 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_allowed_exactly_or_below_a_domain() {
        let allows = |pattern: &str, origin: &str| OriginPattern::parse(pattern).unwrap().allows(origin);
        assert!(allows("https://www.example.com", "https://www.example.com"));
        assert!(allows("https://www.example.com", "https://www.example.com:443"));
        assert!(allows("https://*.example.com", "https://shop.eu.example.com"));
        assert!(allows("http://localhost:8080", "http://localhost:8080"));
        for (pattern, origin) in [
            ("https://www.example.com", "http://www.example.com"),
            ("https://www.example.com", "https://www.example.com:8443"),
            ("https://www.example.com", "https://www.example.com.evil.test"),
            ("https://*.example.com", "https://example.com"),
            ("https://*.example.com", "https://evilexample.com"),
            ("https://*.example.com", "https://*.example.com"),
            ("https://www.example.com", "null"),
            ("https://www.example.com", ""),
        ] {
            assert!(!allows(pattern, origin), "{pattern} {origin}");
        }
    }

    #[test]
    fn a_pattern_that_no_host_can_fit_is_refused() {
        let pattern = |length: usize| format!("https://*.{}.com", "x".repeat(length - ".com".len()));
        let longest = pattern(HOST - 2);
        let fits = longest.replacen('*', "a", 1);
        assert!(OriginPattern::parse(&longest).expect("a pattern").allows(&fits));
        assert_eq!(OriginPattern::parse(&pattern(HOST - 1)), None);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in [
            "",
            "*",
            "https://",
            "https://*",
            "https://*.com",
            "www.example.com",
            "https://www.example.com/",
            "ftp://www.example.com",
            "https://www.example.com:",
            "https://www.example.com:+1",
            "https://WWW.example.com",
            "https://www.*.com",
            "https://www..com",
            "https://user@example.com",
        ] {
            assert_eq!(OriginPattern::parse(bad), None, "{bad}");
        }
    }
}
