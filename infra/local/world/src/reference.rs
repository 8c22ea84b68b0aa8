//! The reference model: what Marketo's lists must finally hold, computed from the raw inputs, plainly.
//!
//! A file is a step, and what happens after it is another; each settles before the next. On a list that several
//! syncs feed, one that keeps (`leaving`, `members_before`) outweighs one that lets go. A lead keeps the tokens and
//! ECIDs that a later event does not repeat; it loses a token only to another lead.

use crate::{World, feed::FeedFile, syncs, syncs::Accepted, types::Event};
use std::collections::{BTreeMap, BTreeSet};

/// More tokens than this set an ECID aside; more ECIDs than that set a token aside (design §5).
const CAPS: (usize, usize) = (10, 50);

/// Members of every list, by list id, once `after_files` files, and what happens after each, have settled.
#[must_use]
pub fn lists(world: &World, after_files: usize) -> BTreeMap<u64, BTreeSet<u64>> {
    let mut model = Model { syncs: syncs::accepted(world), ..Model::default() };
    world.marketo.leads.iter().for_each(|lead| model.happen(Event::Lead(lead.clone())));
    world.matches.iter().for_each(|m| model.happen(Event::Match(m.clone())));
    let old = world.marketo.lists.iter().map(|l| (l.id, [l.members.clone(), l.members.clone()]));
    model.lists = model.syncs.iter().map(|sync| (sync.list, Default::default())).chain(old).collect();
    for (n, file) in (1..=after_files).zip(&world.files) {
        model.deliver(file);
        model.settle();
        let later = world.later.iter().filter(|later| later.after_file == n);
        later.for_each(|later| model.happen(later.event.clone()));
        model.settle();
    }
    model.lists.into_iter().map(|(id, [members, _])| (id, members)).collect()
}

#[derive(Default)]
struct Model {
    known: BTreeSet<u64>,
    gone: BTreeMap<u64, Option<u64>>, // deleted, or merged into another
    owner: BTreeMap<String, u64>,     // of a token
    ecids: BTreeSet<(String, u64)>,   // that Marketo itself has stored
    matches: BTreeSet<(String, String)>,
    audiences: BTreeMap<u64, BTreeSet<String>>, // those that a file has named
    lists: BTreeMap<u64, [BTreeSet<u64>; 2]>,   // members; those there before us
    syncs: Vec<Accepted>,
}

impl Model {
    fn deliver(&mut self, file: &FeedFile) {
        let Some(facts) = file.facts() else { return };
        self.audiences.retain(|sid, _| !facts.snapshot || !facts.joined.contains_key(sid));
        for (sid, ecids) in facts.joined {
            self.audiences.entry(sid).or_default().extend(ecids);
        }
        for (sid, ecids) in facts.left {
            self.audiences.entry(sid).or_default().retain(|ecid| !ecids.contains(ecid));
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Lead(lead) if self.gone.contains_key(&lead.id) => {} // Marketo gives no id twice
            Event::Lead(lead) => {
                self.known.remove(&lead.id);
                self.known.extend(lead.email.map(|_| lead.id));
                self.owner.extend(lead.cookies.into_iter().map(|token| (token, lead.id)));
                self.ecids.extend(lead.ecids.into_iter().map(|ecid| (ecid, lead.id)));
            }
            Event::Match(m) => _ = self.matches.insert((m.ecid, m.token)),
            Event::Delete(lead) => _ = self.gone.entry(lead).or_insert(None),
            Event::Merge { winner, losers } => {
                for loser in losers.into_iter().filter(|loser| *loser != winner) {
                    if [winner, loser].iter().all(|id| self.now(*id) == Some(*id)) {
                        self.known.extend(self.known.contains(&loser).then_some(winner));
                        self.gone.insert(loser, Some(winner));
                    }
                }
            }
        }
    }

    /// Who this lead is by now.
    fn now(&self, lead: u64) -> Option<u64> {
        self.gone.get(&lead).map_or(Some(lead), |heir| self.now((*heir)?))
    }

    /// The known leads of each ECID.
    fn people(&self) -> BTreeMap<String, BTreeSet<u64>> {
        let (mut tokens, mut ecids) = (BTreeMap::new(), BTreeMap::new());
        for (ecid, token) in &self.matches {
            *tokens.entry(ecid).or_insert(0) += 1;
            *ecids.entry(token).or_insert(0) += 1;
        }
        let seen = self.matches.iter().filter(|(_, token)| ecids[token] <= CAPS.1);
        let seen = seen.filter_map(|(ecid, token)| Some((ecid, *self.owner.get(token)?)));
        let mut people = BTreeMap::<_, BTreeSet<_>>::new();
        for (ecid, lead) in seen.chain(self.ecids.iter().map(|(ecid, lead)| (ecid, *lead))) {
            let lead = self.now(lead).filter(|id| self.known.contains(id));
            if let Some(id) = lead.filter(|_| tokens.get(ecid).is_none_or(|n| *n <= CAPS.0)) {
                people.entry(ecid.clone()).or_default().insert(id);
            }
        }
        people
    }

    fn settle(&mut self) {
        let people = self.people();
        let tied: BTreeSet<u64> = people.values().flatten().copied().collect();
        for (list, sets) in std::mem::take(&mut self.lists) {
            let now = |ids: BTreeSet<u64>| ids.into_iter().filter_map(|id| self.now(id)).collect();
            let [members, before]: [BTreeSet<u64>; 2] = sets.map(now);
            let active = |s: &&Accepted| s.list == list && self.audiences.contains_key(&s.sid);
            let syncs: Vec<&Accepted> = self.syncs.iter().filter(active).collect();
            let ecids = syncs.iter().flat_map(|s| &self.audiences[&s.sid]);
            let want = ecids.filter_map(|ecid| people.get(ecid)).flatten().copied();
            let (keep, adopt) = (syncs.is_empty() || syncs.iter().any(|s| s.keep), syncs.iter().all(|s| s.adopt));
            let stays = |id: &u64| keep || before.contains(id) && !(adopt && tied.contains(id));
            let members: BTreeSet<u64> = members.into_iter().filter(stays).chain(want).collect();
            self.lists.insert(list, [members.clone(), &before & &members]);
        }
    }
}

#[cfg(test)]
mod tests;
