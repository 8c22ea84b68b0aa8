//! Who owns what: a token's record is the only truth of its edges, a lead's record of Marketo's own ECIDs.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::limits::{DAY_MS, ECIDS_PER_LEAD, ECIDS_PER_TOKEN, HOUR_MS, SIGHT_GRAIN_MS};
use crate::planted::{Guard, holds};
use crate::{Ecid, LeadId, Token};

/// When an ECID was seen beside a token, in ms. Stored as `[first, last]`; a bare number of an earlier version is both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredSight", into = "(u64, u64)")]
pub struct Seen {
    /// The first sight.
    pub first: u64,
    /// The last sight that was written (grain: 30 days).
    pub last: u64,
}

/// Whether a match that was seen last at a time (ms) has lived (ms) long enough.
#[must_use]
pub const fn has_expired(last_sight: u64, lifetime: u64, now: u64) -> bool {
    last_sight.saturating_add(lifetime) <= now
}

#[derive(Deserialize)]
#[serde(untagged)]
enum StoredSight {
    Both(u64, u64),
    Last(u64),
}

impl From<StoredSight> for Seen {
    fn from(stored: StoredSight) -> Self {
        match stored {
            StoredSight::Both(first, last) => Self { first, last },
            StoredSight::Last(last) => Self { first: last, last },
        }
    }
}

impl From<Seen> for (u64, u64) {
    fn from(seen: Seen) -> Self {
        (seen.first, seen.last)
    }
}

/// What we know of a Munchkin token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Version of this shape.
    pub v: u8,
    /// The token.
    pub token: Token,
    /// ECIDs seen beside it. At most one above the cap.
    pub ecids: BTreeMap<Ecid, Seen>,
    /// ECIDs that it had, and the audiences have not been told.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub former_ecids: BTreeSet<Ecid>,
    /// When it was erased, in ms: no sight up to then counts (design, invariant 11).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_at: Option<u64>,
    /// ECIDs that were erased, and when, in ms: no sight of them up to then counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub erased: BTreeMap<Ecid, u64>,
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

/// What a sight does to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Known and fresh: nothing to write.
    Repeat,
    /// The token is over its cap already: the ECID is not stored.
    SetAside,
    /// It was seen before it, or its token, was erased: it does not count.
    Erased,
    /// Known: only the time of the last sight moves.
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
            former_ecids: BTreeSet::new(),
            erased_at: None,
            erased: BTreeMap::new(),
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

    /// What seeing this ECID at this time (ms) does.
    #[must_use]
    pub fn look(&self, ecid: Ecid, seen_at: u64) -> Sight {
        let erased_at = self.erased_at.max(self.erased.get(&ecid).copied());
        if erased_at.is_some_and(|at| seen_at <= at) && holds(Guard::ErasedStaysErased) {
            return Sight::Erased;
        }
        match self.ecids.get(&ecid) {
            Some(seen) if seen_at < seen.last.saturating_add(SIGHT_GRAIN_MS) => Sight::Repeat,
            Some(_) => Sight::Later,
            None if self.set_aside() => Sight::SetAside,
            None => Sight::New,
        }
    }

    /// An ECID was seen beside this token.
    pub fn sight(&mut self, ecid: Ecid, seen_at: u64) -> Sight {
        let sight = self.look(ecid, seen_at);
        match sight {
            Sight::Repeat | Sight::SetAside | Sight::Erased => {}
            Sight::Later => {
                self.ecids.entry(ecid).and_modify(|seen| seen.last = seen_at);
            }
            Sight::New => {
                self.ecids.insert(ecid, Seen { first: seen_at, last: seen_at });
                // An ECID beside a token of nobody changes no list: the audiences are told when Marketo names its lead.
                self.unpropagated |= self.lead.is_some();
                self.parked = false;
                self.doubted = false;
            }
        }
        sight
    }

    /// Drops the ECIDs whose match has lived (ms) long enough after its last sight. Returns whether there were any.
    pub fn expire(&mut self, now: u64, lifetime: u64) -> bool {
        // A match of before such a mark would have ended by now, too.
        self.erased.retain(|_, at| !has_expired(*at, lifetime, now));
        self.drop_edges(|seen| has_expired(seen.last, lifetime, now))
    }

    /// Forgets everything that was known of it at a time (ms), and that sights up to then do not count. Returns
    /// whether that was not done before.
    pub fn erase(&mut self, at: u64) -> bool {
        if self.erased_at.is_some_and(|done| done >= at) {
            return false;
        }
        self.drop_edges(|seen| seen.first <= at);
        self.owned_by(None, false);
        self.erased_at = Some(at);
        self.erased.retain(|_, erased| *erased > at);
        self.asked_at = None;
        self.asked = 0;
        self.hinted = false;
        true
    }

    /// The same for one ECID of it.
    pub fn erase_ecid(&mut self, ecid: Ecid, at: u64) -> bool {
        if self.erased_at.max(self.erased.get(&ecid).copied()).is_some_and(|done| done >= at) {
            return false;
        }
        if self.ecids.get(&ecid).is_some_and(|seen| seen.first <= at) {
            self.drop_edge(ecid);
        }
        self.erased.insert(ecid, at);
        true
    }

    fn drop_edges(&mut self, which: impl Fn(&Seen) -> bool) -> bool {
        let gone: Vec<Ecid> = self.ecids.iter().filter(|(_, seen)| which(seen)).map(|(ecid, _)| *ecid).collect();
        gone.iter().for_each(|ecid| self.drop_edge(*ecid));
        !gone.is_empty()
    }

    fn drop_edge(&mut self, ecid: Ecid) {
        if self.ecids.remove(&ecid).is_some() {
            if !holds(Guard::EndsAreTold) {
                return;
            }
            self.former_ecids.insert(ecid);
            // Told even where the token is nobody's: the ECID may have been over its cap, and is not any more.
            self.unpropagated = true;
        }
    }

    /// Over the cap: none of its edges counts.
    #[must_use]
    pub fn set_aside(&self) -> bool {
        self.ecids.len() > ECIDS_PER_TOKEN
    }

    /// The known lead that owns it, unless it is set aside.
    #[must_use]
    pub fn person(&self) -> Option<LeadId> {
        self.lead.filter(|_| (self.known || !holds(Guard::AnonymousStayOut)) && !self.set_aside())
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
        self.former_ecids.clear();
    }

    /// It is in an audience of an active sync. Returns whether the record must be written for it: it must where it
    /// is parked or about to be.
    pub fn is_wanted(&mut self) -> bool {
        let news = self.doubted || self.parked;
        self.doubted = false;
        self.parked = false;
        news
    }

    /// When its first ECID expires, in ms, if a match lives this long (ms) after its last sight.
    #[must_use]
    pub fn expires_at(&self, lifetime: u64) -> Option<u64> {
        self.ecids.values().map(|seen| seen.last.saturating_add(lifetime)).min()
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
        self.due_to_ask(now)
    }

    /// When Marketo is to be asked about it, in ms, if an audience with it is followed; `None`: there is nothing to ask.
    #[must_use]
    pub fn due_to_ask(&self, now: u64) -> Option<u64> {
        if self.ecids.is_empty() {
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
        let last = self.ecids.values().map(|seen| seen.last).max().unwrap_or(0);
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
    /// When it was erased, in ms: the ECIDs that Marketo has stored do not count any more. Whoever returns is tied by a
    /// new match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_at: Option<u64>,
    /// ECIDs that were erased: Marketo's word on them does not count any more.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub erased_ecids: BTreeSet<Ecid>,
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
            erased_at: None,
            erased_ecids: BTreeSet::new(),
        }
    }

    /// Marketo says that the lead has these ECIDs, as of a moment. Returns whether anything changed.
    pub fn told(&mut self, known: bool, mut ecids: BTreeSet<Ecid>, as_of: u64) -> bool {
        if self.gone || self.erased_at.is_some() || as_of < self.as_of {
            return false;
        }
        self.as_of = as_of;
        ecids.retain(|ecid| !self.erased_ecids.contains(ecid));
        if (self.known, &self.ecids) == (known, &ecids) {
            return false;
        }
        if holds(Guard::FormerEcidsAreTold) {
            self.former.extend(self.ecids.difference(&ecids));
        }
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

    /// Forgets what Marketo said of it, for good. Returns whether that was not done before.
    pub fn erase(&mut self, at: u64) -> bool {
        if self.erased_at.is_some() {
            return false;
        }
        self.former.append(&mut self.ecids);
        self.erased_ecids.clear();
        self.known = false;
        self.erased_at = Some(at);
        self.unpropagated = true;
        true
    }

    /// The same for one ECID of it.
    pub fn erase_ecid(&mut self, ecid: Ecid) -> bool {
        if self.erased_at.is_some() || !self.erased_ecids.insert(ecid) {
            return false;
        }
        if self.ecids.remove(&ecid) {
            self.former.insert(ecid);
            self.unpropagated = true;
        }
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
        assert_eq!(token.sight(ecid(999), 1), Sight::SetAside);
    }

    #[test]
    fn a_match_expires_after_its_last_sight_and_its_token_counts_again_below_the_cap() {
        let mut token = record();
        for n in 0..=(ECIDS_PER_TOKEN as u128) {
            token.sight(ecid(n), 1_000 + u64::try_from(n).unwrap());
        }
        token.owned_by(Some(7), true);
        token.was_propagated();
        assert_eq!(token.expires_at(500), Some(1_500));
        assert!(!token.expire(1_499, 500) && token.due(2_000).is_some());
        assert!(token.expire(1_500, 500) && token.unpropagated && token.former_ecids == BTreeSet::from([ecid(0)]));
        assert_eq!(token.person(), Some(7));
        assert_eq!(token.expires_at(500), Some(1_501));
        token.was_propagated();
        assert!(token.former_ecids.is_empty());
        assert!(token.expire(u64::MAX, 500) && token.ecids.is_empty());
        token.was_propagated();
        assert_eq!(token.due(5_000), None, "there is nothing to ask about");
    }

    #[test]
    fn what_was_seen_before_it_was_erased_does_not_come_back_and_a_returning_visitor_does() {
        let mut token = record();
        token.sight(ecid(1), 10);
        token.sight(ecid(2), 20);
        token.owned_by(Some(7), true);
        assert!(token.erase_ecid(ecid(1), 30) && !token.erase_ecid(ecid(1), 30));
        assert_eq!(token.sight(ecid(1), 30), Sight::Erased);
        assert_eq!(token.sight(ecid(1), 31), Sight::New);
        assert!(token.erase(40) && !token.erase(40));
        assert_eq!((token.lead, token.ecids.len(), &token.former), (None, 0, &BTreeSet::from([7])));
        assert_eq!(token.former_ecids, BTreeSet::from([ecid(1), ecid(2)]));
        assert_eq!((token.sight(ecid(1), 40), token.sight(ecid(3), 12)), (Sight::Erased, Sight::Erased));
        assert_eq!(token.sight(ecid(1), 41), Sight::New);
        assert!(!token.erase(35) && !token.erase_ecid(ecid(1), 39), "an older request takes nothing back");
        assert!(token.ecids.contains_key(&ecid(1)), "nor does its repeat take what came after it");
    }

    #[test]
    fn sights_are_stored_as_a_pair_and_a_bare_number_is_read() {
        let seen: Seen = serde_json::from_str("7").unwrap();
        assert_eq!(seen, Seen { first: 7, last: 7 });
        assert_eq!(serde_json::to_string(&Seen { first: 1, last: 2 }).unwrap(), "[1,2]");
        assert_eq!(serde_json::from_str::<Seen>("[1,2]").unwrap(), Seen { first: 1, last: 2 });
    }

    #[test]
    fn an_erased_lead_is_tied_by_nothing_that_marketo_had_stored() {
        let mut lead = LeadRecord::new(1);
        lead.told(true, BTreeSet::from([ecid(1)]), 10);
        assert!(lead.erase(20) && !lead.erase(20));
        assert!(!lead.told(true, BTreeSet::from([ecid(1)]), 30));
        assert_eq!((lead.ecids.len(), &lead.former), (0, &BTreeSet::from([ecid(1)])));

        let mut lead = LeadRecord::new(2);
        lead.told(true, BTreeSet::from([ecid(1), ecid(2)]), 10);
        assert!(lead.erase_ecid(ecid(1)) && !lead.erase_ecid(ecid(1)));
        lead.told(true, BTreeSet::from([ecid(1), ecid(2)]), 30);
        assert_eq!((&lead.ecids, &lead.former), (&BTreeSet::from([ecid(2)]), &BTreeSet::from([ecid(1)])));
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
