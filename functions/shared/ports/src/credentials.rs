//! What we show to Marketo and to Adobe, and what Adobe shows to us.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

/// Who wants credentials of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Vendor {
    /// Marketo's custom service.
    Marketo,
    /// Adobe's OAuth server-to-server credential.
    Adobe,
}

impl Vendor {
    /// Its name, for errors.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Vendor::Marketo => "Marketo",
            Vendor::Adobe => "Adobe",
        }
    }
}

/// A client id and its secret. Neither shows in debug output.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Client id.
    pub id: SecretString,
    /// Client secret.
    pub secret: SecretString,
}

impl Credentials {
    /// Credentials of two texts.
    pub fn new(id: impl Into<SecretString>, secret: impl Into<SecretString>) -> Self {
        Self { id: id.into(), secret: secret.into() }
    }
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.id.expose_secret() == other.id.expose_secret()
            && self.secret.expose_secret() == other.secret.expose_secret()
    }
}

impl Eq for Credentials {}

/// With what the senders of streams prove who they are, by feed. None of it shows in debug output.
#[derive(Debug, Clone, Default)]
pub struct StreamSecrets(BTreeMap<String, StreamSecret>);

/// With what a feed's sender proves who it is. Each of them counts, so that one can be replaced without a gap.
#[derive(Debug, Clone, Default)]
pub struct StreamSecret {
    /// Keys of signatures.
    pub keys: Vec<SecretString>,
    /// Bearer tokens.
    pub tokens: Vec<SecretString>,
    /// Clients of OAuth, who ask us for access tokens.
    pub clients: Vec<Credentials>,
}

impl StreamSecrets {
    /// Reads `{"feeds": {"web": {"keys": ["…"], "tokens": ["…"], "clients": [{"client_id": "…", "client_secret": "…"}]}}}`.
    /// A feed's name is its id, or the Munchkin id, a slash and its id. What a feed has none of may be left out.
    ///
    /// # Errors
    /// What is wrong and what would be right; never what stands there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let secret: Value = serde_json::from_str(text).map_err(|_| "expected a JSON object".to_owned())?;
        let feeds = secret["feeds"].as_object().ok_or("`feeds`: expected an object of feeds")?;
        let feeds = feeds.iter().map(|(name, feed)| Ok((name.clone(), StreamSecret::parse(name, feed)?)));
        feeds.collect::<Result<_, String>>().map(Self)
    }

    /// A feed's: that of the subscription's feed before that of a feed of this id.
    #[must_use]
    pub fn of(&self, munchkin_id: &str, feed: &str) -> Option<&StreamSecret> {
        self.0.get(&format!("{munchkin_id}/{feed}")).or_else(|| self.0.get(feed))
    }
}

impl StreamSecret {
    fn parse(name: &str, feed: &Value) -> Result<Self, String> {
        let feed = feed.as_object().ok_or_else(|| format!("feed `{name}`: expected an object"))?;
        let clients = list(name, feed, "clients", |client| {
            let field = |name: &str| client.get(name)?.as_str().filter(|value| !value.is_empty());
            Some(Credentials::new(field("client_id")?, field("client_secret")?))
        });
        Ok(Self { keys: list(name, feed, "keys", text)?, tokens: list(name, feed, "tokens", text)?, clients: clients? })
    }
}

/// Anybody can show what is empty.
fn text(value: &Value) -> Option<SecretString> {
    value.as_str().filter(|text| !text.is_empty()).map(SecretString::from)
}

fn list<T>(
    name: &str,
    feed: &Map<String, Value>,
    field: &str,
    one: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<T>, String> {
    let found = match feed.get(field) {
        None => Some(Vec::new()),
        Some(list) => list.as_array().and_then(|list| list.iter().map(one).collect()),
    };
    let what = if field == "clients" { "of `client_id` and `client_secret`" } else { "of texts that are not empty" };
    found.ok_or_else(|| format!("feed `{name}`, `{field}`: expected a list {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_show_in_debug_output() {
        let credentials = Credentials::new("canary-id", "canary-secret");
        assert!(!format!("{credentials:?} {credentials:#?}").contains("canary"));
    }

    #[test]
    fn credentials_are_equal_if_both_parts_are() {
        let credentials = Credentials::new("a", "b");
        assert_eq!(credentials, Credentials::new("a", "b"));
        assert_ne!(credentials, Credentials::new("a", "c"));
        assert_ne!(credentials, Credentials::new("c", "b"));
    }

    #[test]
    fn the_secrets_of_streams_are_found_by_the_feed_and_do_not_show() {
        let secrets = StreamSecrets::parse(
            r#"{"note": 1, "feeds": {
                "web": {"keys": ["canary-new", "canary-old"], "note": 1},
                "live": {"tokens": ["canary"], "clients": [{"client_id": "canary-id", "client_secret": "canary"}]},
                "123-ABC-456/web": {"keys": ["canary-own"]}
            }}"#,
        )
        .unwrap();
        assert!(!format!("{secrets:?} {secrets:#?}").contains("canary"));
        let keys = |munchkin, feed| {
            let keys = secrets.of(munchkin, feed).map(|secret| &secret.keys);
            keys.map(|keys| keys.iter().map(|key| key.expose_secret().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(keys("999-ABC-456", "web").unwrap(), ["canary-new", "canary-old"]);
        assert_eq!(keys("123-ABC-456", "web").unwrap(), ["canary-own"]);
        assert_eq!(keys("123-ABC-456", "live").unwrap(), [""; 0]);
        assert_eq!(keys("123-ABC-456", "other"), None);
        let live = secrets.of("123-ABC-456", "live").unwrap();
        assert_eq!((live.tokens.len(), &live.clients), (1, &vec![Credentials::new("canary-id", "canary")]));
    }

    #[test]
    fn malformed_secrets_of_streams_are_refused_by_their_place_and_not_quoted() {
        for (text, place) in [
            ("canary", "a JSON object"),
            (r#"["canary"]"#, "`feeds`"),
            (r#"{"feeds": ["canary"]}"#, "`feeds`"),
            (r#"{"feeds": {"web": "canary"}}"#, "feed `web`: expected an object"),
            (r#"{"feeds": {"web": {"keys": "canary"}}}"#, "feed `web`, `keys`"),
            (r#"{"feeds": {"web": {"keys": ["canary", ""]}}}"#, "feed `web`, `keys`"),
            (r#"{"feeds": {"web": {"tokens": [1]}}}"#, "feed `web`, `tokens`"),
            (r#"{"feeds": {"web": {"clients": [{"client_id": "canary"}]}}}"#, "feed `web`, `clients`"),
        ] {
            let error = StreamSecrets::parse(text).unwrap_err();
            assert!(error.contains(place) && !error.contains("canary"), "{text}: {error}");
        }
    }
}
