//! What we show to Marketo and to Adobe.

use secrecy::{ExposeSecret as _, SecretString};

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
}
