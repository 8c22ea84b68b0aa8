//! What happens in Marketo's world without a call of ours.

use ::world::types::{Event, Lead};

use super::activities::{ADD_TO_LIST, DELETE_LEAD, FILL_OUT_FORM, MERGE_LEADS, NEW_LEAD, REMOVE_FROM_LIST};
use super::{LeadState, Marketo};

impl Marketo {
    /// A lead appears (activity 12) or changes (activity 2): its email, cookies and ECIDs become the given ones.
    /// A cookie that another lead owned moves, and nothing tells of that.
    pub fn upsert_lead(&mut self, now_ms: u64, lead: Lead) {
        let now = self.advance(now_ms);
        let Lead { id, email, cookies, ecids } = lead;
        let old = self.state.leads.remove(&id);
        let created_ms = old.as_ref().map_or(now, |old| old.created_ms);
        let activity = if old.is_some() { FILL_OUT_FORM } else { NEW_LEAD };
        if let Some(old) = old {
            self.forget(id, &old);
        }
        let mut state = LeadState { email: None, cookies: Vec::new(), ecids, created_ms, updated_ms: now };
        state.ecids.dedup();
        self.state.leads.insert(id, state);
        self.state.next_lead = self.state.next_lead.max(id + 1);
        self.set_email(id, email);
        for cookie in cookies {
            self.give_cookie(id, cookie);
        }
        self.happen(now, activity, id, Vec::new());
    }

    /// The visitor behind a Munchkin token fills a form with this email and becomes known, as Marketo does it:
    /// an anonymous lead joins the person who has that email, or takes the email if nobody has it; the token of
    /// another known person moves. Returns the person's lead id.
    pub fn fill_form(&mut self, now_ms: u64, token: &str, email: &str) -> u64 {
        let now = self.advance(now_ms);
        let owner = self.by_cookie.get(token).copied();
        let anonymous = owner.filter(|id| self.state.leads.get(id).is_some_and(|lead| lead.email.is_none()));
        let person = self.by_email.get(&email.to_lowercase()).and_then(|ids| ids.first().copied());
        let id = match (person, anonymous) {
            (Some(person), Some(visitor)) => {
                self.merge(now, person, &[visitor]);
                person
            }
            (Some(person), None) => person,
            (None, Some(visitor)) => {
                self.set_email(visitor, Some(email.to_owned()));
                visitor
            }
            (None, None) => {
                let id = self.state.next_lead;
                self.state.next_lead += 1;
                let lead =
                    LeadState { email: None, cookies: Vec::new(), ecids: Vec::new(), created_ms: now, updated_ms: now };
                self.state.leads.insert(id, lead);
                self.set_email(id, Some(email.to_owned()));
                self.happen(now, NEW_LEAD, id, Vec::new());
                id
            }
        };
        self.give_cookie(id, token.to_owned());
        if let Some(lead) = self.state.leads.get_mut(&id) {
            lead.updated_ms = now;
        }
        self.happen(now, FILL_OUT_FORM, id, Vec::new());
        id
    }

    /// Merges leads: the winner gets the losers' cookies, ECIDs and list memberships, and keeps its email unless
    /// it has none. The losers vanish at once; activity 32 tells of it later. `false`: no such winner, or nobody
    /// to merge.
    pub fn merge(&mut self, now_ms: u64, winner: u64, losers: &[u64]) -> bool {
        let now = self.advance(now_ms);
        if !self.state.leads.contains_key(&winner) {
            return false;
        }
        let mut merged = Vec::new();
        for &id in losers {
            if id == winner {
                continue;
            }
            let Some(loser) = self.state.leads.remove(&id) else { continue };
            self.forget(id, &loser);
            for list in self.state.lists.values_mut() {
                if list.members.remove(&id) {
                    list.members.insert(winner);
                }
            }
            for cookie in loser.cookies {
                self.give_cookie(winner, cookie);
            }
            let takes_email = self.state.leads.get_mut(&winner).is_some_and(|lead| {
                lead.ecids.extend(loser.ecids);
                lead.updated_ms = now;
                lead.email.is_none()
            });
            if takes_email && loser.email.is_some() {
                self.set_email(winner, loser.email);
            }
            merged.push(id);
        }
        if merged.is_empty() {
            return false;
        }
        if let Some(lead) = self.state.leads.get_mut(&winner) {
            let mut seen = std::collections::BTreeSet::new();
            lead.ecids.retain(|ecid| seen.insert(ecid.clone()));
        }
        let ids = merged.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let attributes = vec![
            ("Merge IDs".to_owned(), format!("[{ids}]")),
            ("Merge Source".to_owned(), "leaddb".to_owned()),
            ("Merged in Sales".to_owned(), "false".to_owned()),
            ("Master Updated".to_owned(), "false".to_owned()),
        ];
        self.happen(now, MERGE_LEADS, winner, attributes);
        true
    }

    /// A lead is deleted: gone at once, from its lists too; activity 37 tells of it later. `false`: no such lead.
    pub fn delete(&mut self, now_ms: u64, id: u64) -> bool {
        let now = self.advance(now_ms);
        let Some(lead) = self.state.leads.remove(&id) else { return false };
        self.forget(id, &lead);
        for list in self.state.lists.values_mut() {
            list.members.remove(&id);
        }
        self.happen(now, DELETE_LEAD, id, Vec::new());
        true
    }

    /// Somebody deletes a static list; calls about it answer 1013 from then on. `false`: no such list.
    pub fn delete_list(&mut self, now_ms: u64, list: u64) -> bool {
        self.advance(now_ms);
        let there = self.state.lists.contains_key(&list);
        self.asset_delete(list);
        there
    }

    /// Somebody adds a lead to a list by hand (activity 24). `false`: no such list or lead, or it was in.
    pub fn add_by_hand(&mut self, now_ms: u64, list: u64, id: u64) -> bool {
        let now = self.advance(now_ms);
        let joins = self.state.leads.contains_key(&id)
            && self.state.lists.get_mut(&list).is_some_and(|list| list.members.insert(id));
        if joins {
            self.moved(now, ADD_TO_LIST, list, &[id]);
        }
        joins
    }

    /// Somebody takes a lead out of a list by hand (activity 25). `false`: no such list, or it was not in.
    pub fn remove_by_hand(&mut self, now_ms: u64, list: u64, id: u64) -> bool {
        let now = self.advance(now_ms);
        let leaves = self.state.lists.get_mut(&list).is_some_and(|list| list.members.remove(&id));
        if leaves {
            self.moved(now, REMOVE_FROM_LIST, list, &[id]);
        }
        leaves
    }

    /// Applies an event of a world's file. `false`: it is not Marketo's, or it names a lead that is not there.
    pub fn apply(&mut self, now_ms: u64, event: &Event) -> bool {
        match event {
            Event::Lead(lead) => {
                self.upsert_lead(now_ms, lead.clone());
                true
            }
            Event::Merge { winner, losers } => self.merge(now_ms, *winner, losers),
            Event::Delete(id) => self.delete(now_ms, *id),
            Event::Match(_) | Event::Stream(_) => false,
        }
    }

    /// Applies everything that has fallen due by now: effects that land late, and finished exports.
    pub fn tick(&mut self, now_ms: u64) {
        self.advance(now_ms);
    }

    fn give_cookie(&mut self, id: u64, cookie: String) {
        match self.by_cookie.insert(cookie.clone(), id) {
            Some(owner) if owner == id => return,
            Some(owner) => {
                if let Some(lead) = self.state.leads.get_mut(&owner) {
                    lead.cookies.retain(|other| *other != cookie);
                }
            }
            None => {}
        }
        if let Some(lead) = self.state.leads.get_mut(&id) {
            lead.cookies.push(cookie);
        }
    }

    fn set_email(&mut self, id: u64, email: Option<String>) {
        let Some(lead) = self.state.leads.get_mut(&id) else { return };
        let old = std::mem::replace(&mut lead.email, email.clone());
        if let Some(old) = old {
            self.forget_email(id, &old);
        }
        if let Some(email) = email {
            self.by_email.entry(email.to_lowercase()).or_default().insert(id);
        }
    }

    fn forget_email(&mut self, id: u64, email: &str) {
        let key = email.to_lowercase();
        if let Some(ids) = self.by_email.get_mut(&key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_email.remove(&key);
            }
        }
    }

    /// Takes a lead that is no longer there out of the indexes.
    fn forget(&mut self, id: u64, lead: &LeadState) {
        for cookie in &lead.cookies {
            if self.by_cookie.get(cookie) == Some(&id) {
                self.by_cookie.remove(cookie);
            }
        }
        if let Some(email) = &lead.email {
            self.forget_email(id, email);
        }
    }
}
