//! Who owns what: a token's record is the only truth of its edges, a lead's record of Marketo's own ECIDs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::limits::{DAY_MS, ECIDS_PER_LEAD, ECIDS_PER_TOKEN, HOUR_MS, SIGHT_GRAIN_MS};
use crate::planted::{Guard, holds};
use crate::{Ecid, LeadId, Token};

/// What we know of a Munchkin token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Version of this shape.
    pub v: u8,
    /// The token.
    pub token: Token,
    /// ECIDs seen beside it, each with its last sight in ms (grain: 30 days). At most one above the cap.
    pub ecids: BTreeMap<Ecid, u64>,
    /// The lead that Marketo says owns it.
    pub lead: Option<LeadId>,
    /// Whether that lead has an email.
    pub known: bool,
    /// Leads that owned it and whose lists were not recomputed since.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub former: BTreeSet<LeadId>,
    /// Something about it changed that the audiences have not been told.
    pub unpropagated: bool,
    /// When Marketo was last asked about it, in ms.
    pub asked_at: Option<u64>,
    /// How often Marketo was asked without learning of a known lead.
    pub asked: u32,
    /// It was found in no audience of an active sync, and is checked once more before it is parked: whoever finds
    /// it in one meanwhile takes this back.
    #[serde(default)]
    pub doubted: bool,
    /// It is in none, so nobody asks.
    pub parked: bool,
    /// Look at it now, whatever the intervals say.
    #[serde(default)]
    pub hinted: bool,
}

/// What a sight did to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Known and fresh: nothing to write.
    Repeat,
    /// Known: only the time of the last sight moved.
    Later,
    /// A new ECID.
    New,
}

impl TokenRecord {
    /// A token that nobody has seen.
    #[must_use]
    pub fn new(token: Token) -> Self {
        Self {
            v: 1,
            token,
            ecids: BTreeMap::new(),
            lead: None,
            known: false,
            former: BTreeSet::new(),
            unpropagated: false,
            asked_at: None,
            asked: 0,
            doubted: false,
            parked: false,
            hinted: false,
        }
    }

    /// Whether seeing this ECID at this time would change anything.
    #[must_use]
    pub fn is_repeat(&self, ecid: Ecid, seen_at: u64) -> bool {
        if self.ecids.len() > ECIDS_PER_TOKEN && !self.ecids.contains_key(&ecid) {
            return true;
        }
        self.ecids.get(&ecid).is_some_and(|last| seen_at < last.saturating_add(SIGHT_GRAIN_MS))
    }

    /// An ECID was seen beside this token.
    pub fn sight(&mut self, ecid: Ecid, seen_at: u64) -> Sight {
        if self.is_repeat(ecid, seen_at) {
            return Sight::Repeat;
        }
        if self.ecids.insert(ecid, seen_at).is_some() {
            return Sight::Later;
        }
        // An ECID beside a token of nobody changes no list: the audiences are told when Marketo names its lead.
        self.unpropagated |= self.lead.is_some();
        self.parked = false;
        self.doubted = false;
        Sight::New
    }

    /// Over the cap: none of its edges counts.
    #[must_use]
    pub fn set_aside(&self) -> bool {
        self.ecids.len() > ECIDS_PER_TOKEN
    }

    /// The known lead that owns it, unless it is set aside.
    #[must_use]
    pub fn person(&self) -> Option<LeadId> {
        self.lead.filter(|_| self.known && !self.set_aside())
    }

    /// Marketo says who owns it; `None`: nobody does any more. Returns whether anything changed.
    pub fn owned_by(&mut self, lead: Option<LeadId>, known: bool) -> bool {
        let known = known && lead.is_some();
        if (self.lead, self.known) == (lead, known) {
            return false;
        }
        if let Some(old) = self.lead
            && Some(old) != lead
            && holds(Guard::FormerLeads)
        {
            self.former.insert(old);
        }
        self.lead = lead;
        self.known = known;
        self.unpropagated = true;
        true
    }

    /// Marketo was asked at this time.
    pub fn was_asked(&mut self, now: u64) {
        self.asked_at = Some(now);
        self.hinted = false;
        self.asked = if self.known { 0 } else { self.asked.saturating_add(1) };
    }

    /// The audiences have been told.
    pub fn was_propagated(&mut self) {
        self.unpropagated = false;
        self.former.clear();
    }

    /// It is in an audience of an active sync. Returns whether the record must be written for it: it must where it
    /// is parked or about to be.
    pub fn is_wanted(&mut self) -> bool {
        let news = self.doubted || self.parked;
        self.doubted = false;
        self.parked = false;
        news
    }

    /// When it is to be looked at, in ms; `None`: not before something changes.
    #[must_use]
    pub fn due(&self, now: u64) -> Option<u64> {
        if self.unpropagated {
            return Some(now);
        }
        if self.parked {
            return None;
        }
        if self.hinted {
            return Some(now);
        }
        match self.asked_at {
            None => Some(now),
            Some(at) => Some(at + self.interval(now)),
        }
    }

    /// The backstop's growing interval, in ms: from 1 hour, at most 24 hours while a match is younger than 30 days,
    /// a week after that and for known leads (whose changes come by activities).
    fn interval(&self, now: u64) -> u64 {
        let last = self.ecids.values().copied().max().unwrap_or(0);
        if self.known || last.saturating_add(30 * DAY_MS) < now {
            return 7 * DAY_MS;
        }
        (HOUR_MS << self.asked.saturating_sub(1).min(5)).min(DAY_MS)
    }
}

/// What Marketo itself says of a lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeadRecord {
    /// Version of this shape.
    pub v: u8,
    /// Marketo's id.
    pub lead: LeadId,
    /// Whether it has an email.
    pub known: bool,
    /// ECIDs that Marketo has stored for it.
    pub ecids: BTreeSet<Ecid>,
    /// ECIDs that it had, and the audiences have not been told.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub former: BTreeSet<Ecid>,
    /// Something about it changed that the audiences have not been told.
    pub unpropagated: bool,
    /// The moment of which this is the truth, in ms; an older answer never replaces a newer one.
    pub as_of: u64,
    /// It was merged into this lead.
    pub merged_into: Option<LeadId>,
    /// It was deleted, or merged away.
    pub gone: bool,
}

impl LeadRecord {
    /// A lead of which nothing is known.
    #[must_use]
    pub fn new(lead: LeadId) -> Self {
        Self {
            v: 1,
            lead,
            known: false,
            ecids: BTreeSet::new(),
            former: BTreeSet::new(),
            unpropagated: false,
            as_of: 0,
            merged_into: None,
            gone: false,
        }
    }

    /// Marketo says that the lead has these ECIDs, as of a moment. Returns whether anything changed.
    pub fn told(&mut self, known: bool, ecids: BTreeSet<Ecid>, as_of: u64) -> bool {
        if self.gone || as_of < self.as_of {
            return false;
        }
        self.as_of = as_of;
        if (self.known, &self.ecids) == (known, &ecids) {
            return false;
        }
        self.former.extend(self.ecids.difference(&ecids));
        self.known = known;
        self.ecids = ecids;
        self.unpropagated = true;
        true
    }

    /// The lead is gone: deleted, or merged into another one. Returns whether anything changed.
    pub fn left(&mut self, merged_into: Option<LeadId>) -> bool {
        if self.gone {
            return false;
        }
        self.former.append(&mut self.ecids);
        self.known = false;
        self.gone = true;
        self.merged_into = merged_into;
        self.unpropagated = true;
        true
    }

    /// The ECIDs that count: none of an anonymous lead, none above the cap.
    #[must_use]
    pub fn counted(&self) -> Option<&BTreeSet<Ecid>> {
        (self.ecids.len() <= ECIDS_PER_LEAD).then_some(&self.ecids)
    }

    /// The audiences have been told.
    pub fn was_propagated(&mut self) {
        self.unpropagated = false;
        self.former.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> TokenRecord {
        TokenRecord::new(Token::parse("_mch-example.com-1700000000000-12345").unwrap())
    }

    fn ecid(n: u128) -> Ecid {
        Ecid::from_number(n).unwrap()
    }

    #[test]
    fn a_repeat_within_thirty_days_changes_nothing() {
        let mut token = record();
        assert_eq!(token.sight(ecid(1), 1000), Sight::New);
        assert_eq!(token.sight(ecid(1), 1000 + SIGHT_GRAIN_MS - 1), Sight::Repeat);
        assert_eq!(token.sight(ecid(1), 10), Sight::Repeat);
        assert_eq!(token.sight(ecid(1), 1000 + SIGHT_GRAIN_MS), Sight::Later);
    }

    #[test]
    fn a_token_over_its_cap_counts_for_nobody() {
        let mut token = record();
        for n in 0..=(ECIDS_PER_TOKEN as u128) {
            assert_eq!(token.sight(ecid(n), 1), Sight::New);
        }
        assert!(token.owned_by(Some(7), true));
        assert!(token.set_aside() && token.person().is_none());
        assert_eq!(token.sight(ecid(999), 1), Sight::Repeat);
    }

    #[test]
    fn a_token_that_moves_remembers_its_former_leads_until_they_are_recomputed() {
        let mut token = record();
        assert!(token.owned_by(Some(1), true));
        assert!(token.owned_by(Some(2), true));
        assert!(!token.owned_by(Some(2), true));
        assert!(token.owned_by(None, true));
        assert_eq!(token.former, BTreeSet::from([1, 2]));
        assert_eq!(token.due(5), Some(5));
        token.was_propagated();
        assert!(token.former.is_empty());
    }

    #[test]
    fn intervals_grow_to_a_day_and_parked_tokens_rest() {
        let mut token = record();
        token.sight(ecid(1), 0);
        token.was_propagated();
        let mut last = 0;
        for _ in 0..10 {
            token.was_asked(0);
            let due = token.due(1).unwrap();
            assert!(due >= last && due <= DAY_MS);
            last = due;
        }
        assert_eq!(last, DAY_MS);
        token.parked = true;
        assert_eq!(token.due(1), None);
        assert!(token.is_wanted());
        assert_eq!(token.due(1), Some(DAY_MS));
    }

    #[test]
    fn an_older_word_on_a_lead_never_replaces_a_newer_one_and_the_gone_stay_gone() {
        let mut lead = LeadRecord::new(1);
        assert!(lead.told(true, BTreeSet::from([ecid(1), ecid(2)]), 10));
        assert!(!lead.told(true, BTreeSet::new(), 9));
        assert!(lead.told(true, BTreeSet::from([ecid(2)]), 11));
        assert_eq!(lead.former, BTreeSet::from([ecid(1)]));
        assert!(lead.left(Some(2)));
        assert!(!lead.told(true, BTreeSet::from([ecid(3)]), 12));
        assert_eq!((lead.former.len(), lead.ecids.len()), (2, 0));
    }
}
