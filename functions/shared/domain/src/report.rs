//! Everything is accounted for: what became of every ECID of an audience and of every member of a list.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::LeadSet;
use crate::list::{State, Wishes};

/// What one pass over an audience found. `audience = no_match + set_aside + anonymous + known`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudienceCounts {
    /// ECIDs in the audience.
    pub audience: u64,
    /// ECIDs that nobody saw beside a Munchkin token, and that Marketo does not know.
    pub no_match: u64,
    /// ECIDs over a cap.
    pub set_aside: u64,
    /// ECIDs with a match, of nobody whose email Marketo has.
    pub anonymous: u64,
    /// ECIDs of at least one known person.
    pub known: u64,
    /// Known people who own at least one ECID of the audience.
    pub people: u64,
}

impl AudienceCounts {
    /// ECIDs with a match: addressable, in the field's term.
    #[must_use]
    pub const fn addressable(&self) -> u64 {
        self.set_aside + self.anonymous + self.known
    }
}

/// Where the people of an audience are. `people = ours + before_us + waiting + kept_out + dropped + failed`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeopleCounts {
    /// In the list, put there by a sync.
    pub ours: u64,
    /// In the list, and there before us.
    pub before_us: u64,
    /// Not in the list yet.
    pub waiting: u64,
    /// Taken out of the list by hand.
    #[serde(default)]
    pub kept_out: u64,
    /// Not added because an operator dropped a mass change.
    #[serde(default)]
    pub dropped: u64,
    /// Refused by Marketo, by its code.
    pub failed: BTreeMap<String, u64>,
}

/// Who the members are that Marketo shows. Their sum is the list's size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCounts {
    /// In this audience, put there by a sync.
    pub in_audience_by_us: u64,
    /// In this audience, and there before us.
    pub in_audience_before_us: u64,
    /// There before us or added by hand, and not in this audience.
    pub before_us_only: u64,
    /// Put there for another sync of ours on this list.
    pub by_another_sync: u64,
    /// Put there by us, no longer wanted, and kept by a sync's choice.
    pub kept: u64,
    /// Put there by us, no longer wanted, and about to leave.
    pub waiting_to_leave: u64,
}

impl MemberCounts {
    /// All members.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.in_audience_by_us
            + self.in_audience_before_us
            + self.before_us_only
            + self.by_another_sync
            + self.kept
            + self.waiting_to_leave
    }
}

/// Sorts the people of an audience and the members of a list into their classes; each person and each member is
/// counted exactly once, so the sums hold whatever is in flight.
#[must_use]
pub fn account(people: &LeadSet, members: &LeadSet, state: &State, wishes: &Wishes) -> (PeopleCounts, MemberCounts) {
    let wanted = wishes.wanted();
    let kept = state.kept();
    let mut of_people = PeopleCounts::default();
    for lead in people.iter() {
        if members.contains(lead) {
            if state.may.contains(lead) && !state.theirs.contains(lead) {
                of_people.ours += 1;
            } else {
                of_people.before_us += 1;
            }
        } else if state.kept_out.contains(lead) {
            of_people.kept_out += 1;
        } else if state.dropped.contains(lead) {
            of_people.dropped += 1;
        } else if let Some(refusal) = state.failed.get(&lead) {
            *of_people.failed.entry(refusal.code.clone()).or_default() += 1;
        } else {
            of_people.waiting += 1;
        }
    }
    let mut of_members = MemberCounts {
        in_audience_by_us: of_people.ours,
        in_audience_before_us: of_people.before_us,
        ..MemberCounts::default()
    };
    for lead in members.minus(people).iter() {
        if state.theirs.contains(lead) || !state.may.contains(lead) {
            of_members.before_us_only += 1;
        } else if wanted.contains(lead) {
            of_members.by_another_sync += 1;
        } else if kept.contains(lead) {
            of_members.kept += 1;
        } else {
            of_members.waiting_to_leave += 1;
        }
    }
    (of_people, of_members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::{Mode, Refusal, Wish};

    #[test]
    fn everybody_is_counted_exactly_once() {
        let set = |leads: &[u64]| leads.iter().copied().collect::<LeadSet>();
        let mut state = State { may: set(&[1, 2, 7, 8, 9]), theirs: set(&[3]), ..State::default() };
        state.failed.insert(4, Refusal { code: "1004".into(), at: 0, request_id: String::new() });
        state.kept_by.insert("x".into(), set(&[8]));
        state.kept_out.insert(10);
        state.dropped.insert(11);
        let wishes = Wishes {
            syncs: vec![Wish { sync: "a".into(), want: set(&[1, 2, 3, 4, 5, 7, 10, 11]), mode: Mode::Active }],
            adopt: false,
            incomplete: false,
        };
        let (people, members) = account(&set(&[1, 2, 3, 4, 5, 10, 11]), &set(&[1, 3, 6, 7, 8, 9]), &state, &wishes);
        assert_eq!((people.ours, people.before_us, people.waiting), (1, 1, 2));
        assert_eq!((people.kept_out, people.dropped), (1, 1));
        assert_eq!(people.failed, BTreeMap::from([("1004".to_owned(), 1)]));
        assert_eq!(
            members,
            MemberCounts {
                in_audience_by_us: 1,
                in_audience_before_us: 1,
                before_us_only: 1,
                by_another_sync: 1,
                kept: 1,
                waiting_to_leave: 1
            }
        );
        assert_eq!(members.total(), 6);
    }
}
