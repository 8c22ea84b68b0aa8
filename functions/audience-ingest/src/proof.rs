//! Whether a request comes from whom it should. Everything is compared in constant time, and before anything is parsed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use lambda::HttpEvent;
use md5::Md5;
use ports::StreamSecret;
use secrecy::ExposeSecret as _;
use sha1::Sha1;
use sha2::Sha256;
use state::feeds::{Feed, Kind, Signature};
use subtle::ConstantTimeEq as _;

use crate::token;

/// How a feed's sender proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// By a signature of the body.
    Signature,
    /// By a bearer token, ours or one that it was given.
    Bearer,
}

impl Proof {
    /// A signature where there are keys for it: whoever can sign need not show a token.
    pub(crate) fn of(feed: &Feed, secret: &StreamSecret) -> Self {
        if feed.kind == Kind::AamStream && !secret.keys.is_empty() { Self::Signature } else { Self::Bearer }
    }

    /// What a request should have shown.
    pub(crate) fn expected(self, feed: &Feed) -> String {
        match self {
            Self::Signature => format!(
                "expected the base64 of the HMAC-{} of the body, with a key of this feed, in the header {}",
                match feed.signature {
                    Signature::Sha256 => "SHA256",
                    Signature::Sha1 => "SHA1",
                    Signature::Md5 => "MD5",
                },
                feed.signature_header
            ),
            Self::Bearer => {
                "expected a token of this feed in the header authorization, by the scheme \"Bearer\"".to_owned()
            }
        }
    }

    /// Whether the request shows it. `name`: of the feed, as [`token::issue`] had it; `now` in ms.
    pub(crate) fn is_shown(
        self,
        request: &HttpEvent,
        feed: &Feed,
        secret: &StreamSecret,
        name: &str,
        now: u64,
    ) -> bool {
        match self {
            Self::Signature => {
                let shown = request.header(&feed.signature_header.to_ascii_lowercase());
                shown.is_some_and(|shown| is_signed(&request.body, shown, feed.signature, secret))
            }
            Self::Bearer => {
                let shown = request.header("authorization").and_then(|value| after_scheme(value, "bearer"));
                shown.is_some_and(|shown| {
                    secret.tokens.iter().any(|token| is_same(token.expose_secret(), shown))
                        || token::is_valid(shown, &secret.clients, name, now)
                })
            }
        }
    }
}

/// Whether one of the keys, the old one or the new one, made this signature of exactly these bytes.
fn is_signed(body: &[u8], shown: &str, signature: Signature, secret: &StreamSecret) -> bool {
    let Ok(shown) = STANDARD.decode(shown.trim()) else { return false };
    let is = match signature {
        Signature::Sha256 => is_mac::<Hmac<Sha256>>,
        Signature::Sha1 => is_mac::<Hmac<Sha1>>,
        Signature::Md5 => is_mac::<Hmac<Md5>>,
    };
    secret.keys.iter().any(|key| is(key.expose_secret().as_bytes(), body, &shown))
}

fn is_mac<M: Mac + KeyInit>(key: &[u8], body: &[u8], shown: &[u8]) -> bool {
    <M as KeyInit>::new_from_slice(key).is_ok_and(|mac| mac.chain_update(body).verify_slice(shown).is_ok())
}

/// Whether two texts are the same. The time that it takes tells their lengths at most.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

/// The value of a header `Authorization` after its scheme.
pub(crate) fn after_scheme<'a>(value: &'a str, scheme: &str) -> Option<&'a str> {
    let (found, rest) = value.trim().split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

#[cfg(test)]
mod tests {
    use ports::Credentials;

    use super::*;

    /// Adobe's example, "Digitally signed HTTP requests".
    const KEY: &str = "sample_partner_private_key";
    const BODY: &[u8] = b"POST message content";
    const SHA1: &str = "+wFdR/afZNoVqtGl8/e1KJ4ykPU=";
    /// Computed from the same with another program.
    const SHA256: &str = "WJzevEtYmeOolVtcXGrcA3KKiTQMTZUfKzCw/ZNz9YU=";
    const MD5: &str = "BwA1u1xkb9MNnDgRkyLwlQ==";
    const NOW: u64 = 1_767_268_800_000;

    fn secret(keys: &[&str], tokens: &[&str]) -> StreamSecret {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).into()).collect();
        StreamSecret { keys: texts(keys), tokens: texts(tokens), clients: Vec::new() }
    }

    fn request(header: &str, value: &str, body: &[u8]) -> HttpEvent {
        HttpEvent { headers: vec![(header.into(), value.into())], body: body.to_vec(), ..HttpEvent::default() }
    }

    fn is_shown(feed: &Feed, secret: &StreamSecret, request: &HttpEvent) -> bool {
        Proof::of(feed, secret).is_shown(request, feed, secret, "123-ABC-456/web", NOW)
    }

    #[test]
    fn a_signature_is_that_of_the_bytes_by_the_feeds_algorithm() {
        let secret = secret(&[KEY], &["token"]);
        for (signature, good) in [(Signature::Sha256, SHA256), (Signature::Sha1, SHA1), (Signature::Md5, MD5)] {
            let feed = Feed { signature, ..Feed::new("web", Kind::AamStream) };
            assert_eq!(Proof::of(&feed, &secret), Proof::Signature);
            assert!(is_shown(&feed, &secret, &request("x-signature", good, BODY)), "{signature:?}");
            assert!(is_shown(&feed, &secret, &request("x-signature", &format!(" {good} "), BODY)));
            for (header, value, body) in [
                ("x-signature", good, &b"POST message content "[..]),
                ("x-signature", good, b""),
                ("x-other", good, BODY),
                ("x-signature", "", BODY),
                ("x-signature", "not base64!", BODY),
                ("x-signature", &good[4..], BODY),
                // A token is no signature.
                ("authorization", "Bearer token", BODY),
            ] {
                assert!(!is_shown(&feed, &secret, &request(header, value, body)), "{signature:?} {header} {value}");
            }
        }
        let others = Feed::new("web", Kind::AamStream);
        assert!(!is_shown(&others, &secret, &request("x-signature", SHA1, BODY)), "of another algorithm");
    }

    #[test]
    fn the_old_key_and_the_new_one_count_and_no_other() {
        let feed = Feed { signature_header: "X-Adobe-Signature".into(), ..Feed::new("web", Kind::AamStream) };
        let signed = request("x-adobe-signature", SHA256, BODY);
        assert!(is_shown(&feed, &secret(&[KEY, "new"], &[]), &signed));
        assert!(is_shown(&feed, &secret(&["new", KEY], &[]), &signed));
        assert!(!is_shown(&feed, &secret(&["new", "newer"], &[]), &signed));
        let expected = Proof::Signature.expected(&feed);
        assert!(expected.contains("X-Adobe-Signature") && expected.contains("HMAC-SHA256"), "{expected}");
    }

    #[test]
    fn a_bearer_token_is_one_of_the_feeds() {
        let feed = Feed::new("live", Kind::AepStream);
        let secret = secret(&["key"], &["old", "new"]);
        assert_eq!(Proof::of(&feed, &secret), Proof::Bearer);
        for (value, shown) in [
            ("Bearer new", true),
            ("bearer  old", true),
            ("Bearer older", false),
            ("Bearer ol", false),
            ("Bearer ", false),
            ("Bearer", false),
            ("new", false),
            ("Basic new", false),
        ] {
            assert_eq!(is_shown(&feed, &secret, &request("authorization", value, BODY)), shown, "{value}");
        }
        assert!(!is_shown(&feed, &StreamSecret::default(), &request("authorization", "Bearer ", BODY)));
    }

    #[test]
    fn audience_manager_without_a_key_shows_a_token() {
        let feed = Feed::new("web", Kind::AamStream);
        let clients = vec![Credentials::new("id", "secret")];
        let secret = StreamSecret { clients: clients.clone(), ..StreamSecret::default() };
        let token = token::issue(&clients[0], "123-ABC-456/web", NOW).expect("a token");
        assert!(is_shown(&feed, &secret, &request("authorization", &format!("Bearer {token}"), BODY)));
        assert!(!is_shown(&feed, &secret, &request("x-signature", SHA256, BODY)));
    }
}
