//! The reference model: what Marketo's lists must finally hold, computed from the raw inputs, plainly.
//!
//! A file is a step, and what happens after it is another; each settles before the next. On a list that several
//! syncs feed, who was ever wanted by one that keeps those who leave stays, and one that adopts the earlier members
//! adopts them for all; a sync that keeps lets nobody go, so that it adopts nobody. What a stream says is newer than
//! what any file says: files bear times before the run.

mod files;

pub use files::unknown;

use crate::{World, syncs, syncs::Accepted, types::Event, types::Lead};
use files::Audiences;
use std::collections::{BTreeMap, BTreeSet};

/// More tokens than this set an ECID aside; more ECIDs than that set a token aside (design §5).
const CAPS: (usize, usize) = (10, 50);

/// Members of every list of a world of which nothing is [`unknown`], by list id, once `after_files` files, and what happens after each, have settled.
#[must_use]
pub fn lists(world: &World, after_files: usize) -> BTreeMap<u64, BTreeSet<u64>> {
    let mut model = Model { syncs: syncs::accepted(world), ..Model::default() };
    world.marketo.leads.iter().for_each(|lead| model.happen(Event::Lead(lead.clone())));
    world.matches.iter().for_each(|m| model.happen(Event::Match(m.clone())));
    let old = world.marketo.lists.iter().map(|l| (l.id, [l.members.clone(), l.members.clone(), BTreeSet::new()]));
    model.lists = model.syncs.iter().map(|sync| (sync.list, Default::default())).chain(old).collect();
    for (n, file) in (1..=after_files).zip(&world.files) {
        model.audiences.deliver(world, file);
        model.settle();
        let later = world.later.iter().filter(|later| later.after_file == n);
        later.for_each(|later| model.happen(later.event.clone()));
        model.settle();
    }
    model.lists.into_iter().map(|(id, [members, ..])| (id, members)).collect()
}

#[derive(Default)]
struct Model {
    leads: BTreeMap<u64, Lead>,
    owner: BTreeMap<String, u64>, // who got the token last
    matches: BTreeSet<(String, String)>,
    audiences: Audiences,
    lists: BTreeMap<u64, [BTreeSet<u64>; 3]>, // members; those there before us; those to keep
    syncs: Vec<Accepted>,
}

impl Model {
    fn happen(&mut self, event: Event) {
        match event {
            Event::Match(m) => _ = self.matches.insert((m.ecid, m.token)),
            Event::Stream(said) => self.audiences.hear(said),
            Event::Delete(id) => self.vanish(id, None),
            Event::Merge { winner, .. } if !self.leads.contains_key(&winner) => {}
            Event::Merge { winner, losers } => {
                for loser in losers.into_iter().filter(|loser| *loser != winner) {
                    self.vanish(loser, self.leads.get(&winner).cloned());
                }
            }
            Event::Lead(lead) => {
                for token in &lead.cookies {
                    let old = self.owner.insert(token.clone(), lead.id).and_then(|id| self.leads.get_mut(&id));
                    old.into_iter().for_each(|old| old.cookies.retain(|other| other != token));
                }
                self.leads.insert(lead.id, lead);
            }
        }
    }

    /// A lead is gone: deleted, or merged into an heir, who gets all it had.
    fn vanish(&mut self, id: u64, heir: Option<Lead>) {
        let Some(lead) = self.leads.remove(&id) else { return };
        for ids in self.lists.values_mut().flatten().filter_map(|ids| ids.remove(&id).then_some(ids)) {
            ids.extend(heir.iter().map(|heir| heir.id));
        }
        if let Some(heir) = heir {
            let (cookies, ecids) = ([heir.cookies, lead.cookies].concat(), [heir.ecids, lead.ecids].concat());
            self.happen(Event::Lead(Lead { id: heir.id, email: heir.email.or(lead.email), cookies, ecids }));
        }
    }

    /// The known leads of each ECID.
    fn people(&self) -> BTreeMap<String, BTreeSet<u64>> {
        let (mut tokens, mut ecids) = (BTreeMap::new(), BTreeMap::new());
        for (ecid, token) in &self.matches {
            *tokens.entry(ecid).or_insert(0) += 1;
            *ecids.entry(token).or_insert(0) += 1;
        }
        let known = || self.leads.values().filter(|lead| lead.email.is_some());
        let owner: BTreeMap<_, _> = known().flat_map(|l| l.cookies.iter().map(|token| (token, l.id))).collect();
        let seen = self.matches.iter().filter(|(_, token)| ecids[token] <= CAPS.1);
        let seen = seen.filter_map(|(ecid, token)| Some((ecid, *owner.get(token)?)));
        let own = known().flat_map(|lead| lead.ecids.iter().map(|ecid| (ecid, lead.id)));
        let mut people = BTreeMap::<_, BTreeSet<_>>::new();
        for (ecid, id) in seen.chain(own).filter(|(ecid, _)| tokens.get(ecid).is_none_or(|n| *n <= CAPS.0)) {
            people.entry(ecid.clone()).or_default().insert(id);
        }
        people
    }

    fn settle(&mut self) {
        let people = self.people();
        let tied: BTreeSet<u64> = people.values().flatten().copied().collect();
        for (list, [members, before, kept]) in &mut self.lists {
            let active = |s: &&Accepted| s.list == *list && self.audiences.named.contains_key(&s.audience);
            let syncs: Vec<&Accepted> = self.syncs.iter().filter(active).collect();
            let people_of =
                |s: &&Accepted| self.audiences.named[&s.audience].iter().filter_map(|ecid| people.get(ecid)).flatten();
            let want = |keep| syncs.iter().filter(move |s| s.keep == keep).flat_map(people_of);
            let adopt = syncs.iter().any(|s| s.adopt && !s.keep);
            kept.extend(want(true));
            members.retain(|id| syncs.is_empty() || before.contains(id) && !(adopt && tied.contains(id)));
            members.extend(want(false).chain(&*kept));
            before.retain(|id| members.contains(id));
        }
    }
}

#[cfg(test)]
mod tests;
