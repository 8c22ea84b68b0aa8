//! Versions of messages.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Version 1 of a message's shape: written as `1`, and any other version is not read, so that a message of a later
/// deployment goes to the dead-letter queue instead of being misunderstood.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct V1;

impl Serialize for V1 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for V1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            1 => Ok(Self),
            _ => Err(serde::de::Error::custom("a message of another version")),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn another_version_is_not_read_and_unknown_fields_are_tolerated() {
        let ring = r#"{"v":1,"kind":"list","munchkin":"123-ABC-456","id":"7","version":3,"later":true}"#;
        assert!(serde_json::from_str::<crate::bell::Ring>(ring).is_ok());
        assert!(serde_json::from_str::<crate::bell::Ring>(&ring.replace("\"v\":1", "\"v\":2")).is_err());
    }
}
