use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roaring::RoaringTreemap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::LeadId;

/// A set of leads: a roaring bitmap, written as base64 in JSON.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LeadSet(RoaringTreemap);

impl LeadSet {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a lead; `true` if it was not there.
    pub fn insert(&mut self, lead: LeadId) -> bool {
        self.0.insert(lead)
    }

    /// Takes a lead out; `true` if it was there.
    pub fn remove(&mut self, lead: LeadId) -> bool {
        self.0.remove(lead)
    }

    /// Whether the lead is in the set.
    #[must_use]
    pub fn contains(&self, lead: LeadId) -> bool {
        self.0.contains(lead)
    }

    /// How many leads.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether nobody is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The leads, ascending.
    pub fn iter(&self) -> impl Iterator<Item = LeadId> + '_ {
        self.0.iter()
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &LeadSet) {
        self.0 |= &other.0;
    }

    /// Takes all of `other` out.
    pub fn remove_all(&mut self, other: &LeadSet) {
        self.0 -= &other.0;
    }

    /// Those in both.
    #[must_use]
    pub fn and(&self, other: &LeadSet) -> LeadSet {
        LeadSet(&self.0 & &other.0)
    }

    /// Those here and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &LeadSet) -> LeadSet {
        LeadSet(&self.0 - &other.0)
    }

    /// The portable roaring bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.serialized_size());
        // Writing to a Vec cannot fail.
        if self.0.serialize_into(&mut bytes).is_err() {
            bytes.clear();
        }
        bytes
    }

    /// Reads what [`LeadSet::to_bytes`] wrote; `None` if the bytes are something else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        RoaringTreemap::deserialize_from(bytes).ok().map(Self)
    }
}

impl FromIterator<LeadId> for LeadSet {
    fn from_iter<I: IntoIterator<Item = LeadId>>(leads: I) -> Self {
        Self(leads.into_iter().collect())
    }
}

impl Extend<LeadId> for LeadSet {
    fn extend<I: IntoIterator<Item = LeadId>>(&mut self, leads: I) {
        self.0.extend(leads);
    }
}

impl Serialize for LeadSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(self.to_bytes()))
    }
}

impl<'de> Deserialize<'de> for LeadSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(serde::de::Error::custom)?;
        Self::from_bytes(&bytes).ok_or_else(|| serde::de::Error::custom("not a roaring bitmap"))
    }
}
