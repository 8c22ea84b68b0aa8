use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roaring::{RoaringBitmap, RoaringTreemap};
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

    /// Those leads, in any order, each as often as may be.
    #[must_use]
    pub fn of(mut leads: Vec<LeadId>) -> Self {
        let Some(most) = leads.iter().copied().max() else { return Self::default() };
        // Marketo counts leads from 1: many of them stand close together, and a bit for each up to the last one takes no more
        // room than they do.
        if let Ok(most) = u32::try_from(most)
            && u64::from(most) / 64 <= leads.len() as u64
        {
            let mut bits = vec![0_u8; most as usize / 8 + 1];
            for lead in leads {
                bits[lead as usize / 8] |= 1 << (lead % 8);
            }
            return Self(RoaringTreemap::from_bitmaps([(0, RoaringBitmap::from_lsb0_bytes(0, &bits))]));
        }
        leads.sort_unstable();
        leads.into_iter().collect()
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
        let mut rest = bytes;
        let set = RoaringTreemap::deserialize_from(&mut rest).ok()?;
        // The reader of the crate takes the same range twice, and the last of it counts; and it leaves empty ones, with which
        // equal sets differ.
        let ranges = u64::from_le_bytes(*bytes.first_chunk()?);
        let is_whole = set.bitmaps().count() as u64 == ranges && set.bitmaps().all(|(_, range)| !range.is_empty());
        (rest.is_empty() && is_whole).then_some(Self(set))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_something_else_are_no_set() {
        let set: LeadSet = [1, 70_000, 1 << 40].into_iter().collect();
        let bytes = set.to_bytes();
        assert_eq!(LeadSet::from_bytes(&bytes), Some(set));
        assert_eq!(LeadSet::from_bytes(&[&bytes[..], b"x"].concat()), None, "more than a set");
        assert_eq!(LeadSet::from_bytes(&bytes[..bytes.len() - 1]), None, "less");
        assert_eq!(LeadSet::from_bytes(b""), None);
        // One range of no leads.
        let empty_range = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x3a, 0x30, 0, 0, 0, 0, 0, 0];
        assert_eq!(LeadSet::from_bytes(&empty_range), None);
        assert_eq!(LeadSet::from_bytes(&LeadSet::new().to_bytes()), Some(LeadSet::new()));
    }

    proptest::proptest! {
        #[test]
        fn however_close_they_stand_the_set_is_the_same(
            leads in proptest::collection::vec(proptest::prop_oneof![0..300_u64, 0..u64::MAX], 0..50),
            close in proptest::collection::vec(0..3_000_u64, 0..200),
        ) {
            for leads in [leads, close] {
                let one_by_one: LeadSet = leads.iter().copied().collect();
                proptest::prop_assert_eq!(LeadSet::of(leads), one_by_one);
            }
        }
    }
}
