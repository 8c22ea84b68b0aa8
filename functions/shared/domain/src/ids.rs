//! Ids, as their vendors write them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Marketo's id of a lead.
pub type LeadId = u64;
/// Marketo's id of a static list.
pub type ListId = u64;

/// An Experience Cloud id: 38 decimal digits, leading zeros included. 10^38 < 2^128, so a `u128` holds it.
///
/// It is personal data: `Debug` does not print it. [`Ecid::text`] does, for tables and wires.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ecid(u128);

impl Ecid {
    /// Digits of an ECID.
    pub const DIGITS: usize = 38;

    /// Reads 38 ASCII digits; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != Self::DIGITS || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        text.parse().ok().map(Self)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u128 {
        self.0
    }

    /// From a number below 10^38; `None` above.
    #[must_use]
    pub const fn from_number(number: u128) -> Option<Self> {
        if number < 10u128.pow(38) { Some(Self(number)) } else { None }
    }

    /// The 38 digits.
    #[must_use]
    pub fn text(self) -> String {
        format!("{:038}", self.0)
    }
}

impl fmt::Debug for Ecid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ecid(..)")
    }
}

impl Serialize for Ecid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for Ecid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected an ECID: a string of 38 digits"))
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What a valid one looks like, for error messages.
            pub const EXPECTED: &'static str = $expected;

            /// Checks the form; `None` if it is wrong.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let check: fn(&str) -> bool = $check;
                check(text).then(|| Self(text.to_owned()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom(concat!("expected ", $expected)))
            }
        }
    };
}

text_id!(
    /// A Munchkin id: one Marketo subscription. Not personal.
    MunchkinId,
    "a Munchkin id such as 123-ABC-456",
    |text| {
        let bytes = text.as_bytes();
        bytes.len() == 11
            && bytes.iter().enumerate().all(|(i, b)| match i {
                3 | 7 => *b == b'-',
                4..=6 => b.is_ascii_uppercase(),
                _ => b.is_ascii_digit(),
            })
    }
);

text_id!(
    /// An IMS organisation. Not personal.
    OrgId,
    "an IMS organisation such as 0123456789ABCDEF01234567@AdobeOrg",
    |text| text.strip_suffix("@AdobeOrg").is_some_and(|id| id.len() == 24 && id.bytes().all(|b| b.is_ascii_alphanumeric()))
);

text_id!(
    /// An audience: its source and its id there, such as `aam:101`. Experience Platform's ids are UUIDs, in lower case.
    AudienceId,
    "an audience id such as aam:101 or aep:11111111-2222-3333-4444-555555555555",
    |text| match text.split_once(':') {
        Some(("aam", sid)) =>
            !sid.is_empty() && sid.len() <= 18 && sid.bytes().all(|b| b.is_ascii_digit()) && !sid.starts_with('0'),
        Some(("aep", id)) => is_uuid(id) && !id.bytes().any(|b| b.is_ascii_uppercase()),
        _ => false,
    }
);

text_id!(
    /// A Munchkin token (`_mch-…`), without the `id:…&token:` before it. It is personal data.
    Token,
    "a Munchkin token such as _mch-example.com-1700000000000-12345",
    crate::cookie::is_token
);

/// Whether this is a UUID as Experience Platform writes its audiences' ids.
fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

impl AudienceId {
    /// The audience of an Audience Manager segment.
    #[must_use]
    pub fn aam(sid: u64) -> Self {
        Self(format!("aam:{sid}"))
    }

    /// An audience of Experience Platform, by its UUID in either case; `None`: that is no UUID.
    #[must_use]
    pub fn aep(id: &str) -> Option<Self> {
        is_uuid(id).then(|| Self(format!("aep:{}", id.to_ascii_lowercase())))
    }

    /// Its id at Experience Platform, if it is of there.
    #[must_use]
    pub fn uuid(&self) -> Option<&str> {
        self.0.strip_prefix("aep:")
    }

    /// The segment's id at Audience Manager.
    #[must_use]
    pub fn sid(&self) -> Option<u64> {
        self.0.strip_prefix("aam:")?.parse().ok()
    }
}

macro_rules! shown {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
shown!(MunchkinId, OrgId, AudienceId);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ecid_keeps_its_leading_zeros_and_is_never_a_number() {
        let text = "09931076965856026570390653077113735069";
        let ecid = Ecid::parse(text).unwrap();
        assert_eq!(ecid.text(), text);
        assert_eq!(serde_json::to_string(&ecid).unwrap(), format!("\"{text}\""));
        assert!(serde_json::from_str::<Ecid>("12345678901234567890123456789012345678").is_err());
        assert_eq!(Ecid::parse(&text[1..]), None);
        assert_eq!(Ecid::parse("+9931076965856026570390653077113735069"), None);
        assert_eq!(Ecid::parse(&"9".repeat(38)).unwrap().text(), "9".repeat(38));
    }

    #[test]
    fn personal_ids_do_not_show_in_debug_output() {
        let ecid = Ecid::parse(&"7".repeat(38)).unwrap();
        let token = Token::parse("_mch-example.com-1700000000000-12345").unwrap();
        assert_eq!(format!("{ecid:?} {token:?}"), "Ecid(..) Token(..)");
    }

    #[test]
    fn forms_are_checked() {
        assert!(MunchkinId::parse("123-ABC-456").is_some());
        for bad in ["123-abc-456", "1234-AB-456", "123-ABC-45", "", "123-ABC-4567"] {
            assert!(MunchkinId::parse(bad).is_none(), "{bad}");
        }
        assert!(OrgId::parse("0123456789ABCDEF01234567@AdobeOrg").is_some());
        assert!(OrgId::parse("0123456789ABCDEF01234567").is_none());
        assert_eq!(AudienceId::parse("aam:101").unwrap().sid(), Some(101));
        let platform = AudienceId::parse("aep:11111111-2222-3333-4444-55555555abcd").unwrap();
        assert_eq!(AudienceId::aep("11111111-2222-3333-4444-55555555ABCD"), Some(platform.clone()));
        assert_eq!((platform.uuid(), platform.sid()), (Some("11111111-2222-3333-4444-55555555abcd"), None));
        for bad in [
            "aam:",
            "aam:x",
            "101",
            "aam:0101",
            "aep:1",
            "aep:11111111-2222-3333-4444-55555555ABCD",
            "aep:11111111-2222-3333-444455555555abcd-",
            "aam:11111111-2222-3333-4444-55555555abcd",
        ] {
            assert!(AudienceId::parse(bad).is_none(), "{bad}");
        }
    }
}
