//! What Marketo refuses for a while, by code; and how it goes on once that is over.

use std::collections::BTreeSet;

use doubles::marketo::{Call, Commit, Fault, FaultAnswer, Kind as CallKind, Permission, Which};
use ports::Table;
use rand::Rng as _;
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::scenario::{LEADS, Scenario, TOKENS, token};

/// Worlds with a midnight begin a quarter of an hour before it; after this time, in ms, it has passed.
const UNTIL_ANOTHER_DAY_MS: u64 = 16 * 60_000;

/// What is refused, and what is left of it.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// People whom Marketo does not find although they are there (1004).
    people: BTreeSet<u64>,
    /// Tokens that it does not take (1012).
    cookies: BTreeSet<u64>,
    /// Its calls up to the last one after which a day has passed.
    told: usize,
    /// Whether it has not found a list (1013) which is there.
    no_list: bool,
    /// Answers that are injected from the beginning.
    pub(crate) answers: Vec<Fault>,
    /// Syncs that were active when their list was deleted.
    gone: Vec<usize>,
}

impl Scenario {
    /// Marketo begins to refuse something, or takes it again.
    pub(crate) fn refuse(&mut self) {
        if self.rng.random_bool(0.2) {
            self.lift();
        }
        let begins = [Kind::Denied, Kind::Unseen, Kind::NoField, Kind::BadCookie, Kind::NoList];
        for kind in begins.into_iter().filter(|kind| self.kinds.has(*kind)).collect::<Vec<_>>() {
            // Cookies and lists are seldom asked about.
            let chance = if matches!(kind, Kind::BadCookie | Kind::NoList) { 0.3 } else { 0.08 };
            if self.rng.random_bool(chance) {
                self.refuse_by(kind);
            }
        }
    }

    fn refuse_by(&mut self, kind: Kind) {
        self.tell(format!("from here on: {}", kind.name()));
        match kind {
            Kind::Denied => {
                let all = [
                    Permission::ReadLead,
                    Permission::ReadWriteLead,
                    Permission::ReadActivity,
                    Permission::ReadAsset,
                    Permission::ReadWriteAsset,
                ];
                let missing: Vec<Permission> = all.into_iter().filter(|_| self.rng.random_bool(0.4)).collect();
                let listed = self.rng.random_bool(0.7);
                let mut store = self.driver.sim.lock();
                store.marketo.set_missing(missing);
                store.marketo.set_allowlisted(listed);
            }
            Kind::Unseen => {
                let lead = self.any(LEADS);
                self.refusals.people.insert(lead);
                let mut store = self.driver.sim.lock();
                store.counts.count(kind);
                store.marketo.refuse_lead(lead, Some(1004));
            }
            // What becomes of an export under way whose field goes away nobody has documented.
            Kind::NoField if self.is_extracting() => {}
            Kind::NoField => self.driver.sim.lock().marketo.set_ecids_field(false),
            Kind::BadCookie => {
                let some: Vec<u64> = (1..=TOKENS).filter(|_| self.rng.random_bool(0.5)).collect();
                for t in some {
                    self.refusals.cookies.insert(t);
                    self.driver.sim.lock().marketo.refuse_cookie(&token(t), true);
                }
            }
            _ => {
                self.refusals.no_list = true;
                let call = [CallKind::ListAdd, CallKind::ListRemove, CallKind::IsMember][self.rng.random_range(0..3)];
                let answer = FaultAnswer::Code(1013);
                let fault = Fault { kind: Some(call), which: Which::Nth(1), answer, commit: Commit::Before };
                self.driver.sim.lock().marketo.inject(fault);
            }
        }
    }

    /// Whether an extract of leads is under way, or was never made.
    fn is_extracting(&self) -> bool {
        let store = self.driver.sim.lock();
        let mut heads = store.tables.iter().filter(|((table, key), _)| *table == Table::Syncs && key.sk == "identity");
        heads.any(|(_, head)| !head.doc["extract"]["job"].is_null() || head.doc["extract"]["done_at"].is_null())
    }

    /// Somebody gives the API user its role back.
    pub(crate) fn allow(&mut self) {
        let mut store = self.driver.sim.lock();
        store.marketo.set_missing([]);
        store.marketo.set_allowlisted(true);
    }

    /// Injects the answers that Marketo gives in this world.
    pub(crate) fn answer_otherwise(&mut self) {
        let mut store = self.driver.sim.lock();
        self.refusals.answers.iter().for_each(|answer| store.marketo.inject(*answer));
    }

    /// Nothing is refused any more.
    fn lift(&mut self) {
        self.allow();
        self.driver.sim.lock().marketo.clear_faults();
        self.answer_otherwise();
        let mut store = self.driver.sim.lock();
        store.marketo.set_ecids_field(true);
        for lead in &self.refusals.people {
            store.marketo.refuse_lead(*lead, None);
        }
        for t in &self.refusals.cookies {
            store.marketo.refuse_cookie(&token(*t), false);
        }
    }

    /// Nothing is refused any more, and whoever waits for that goes on: something happens to the people concerned, an operator
    /// resumes syncs whose list was not found, and where the field `ecids` was missing, or the list of a sync that was
    /// stopped, a day passes.
    pub(crate) fn mend(&mut self) {
        self.lift();
        let mut people = std::mem::take(&mut self.refusals.people);
        let cookies = std::mem::take(&mut self.refusals.cookies);
        people.extend(cookies.into_iter().filter_map(|t| self.owner_of(t)));
        for lead in people {
            let mut store = self.driver.sim.lock();
            let now = store.now;
            if let Some(known) = store.marketo.lead(lead).cloned() {
                let (email, cookies, ecids) = (known.email, known.cookies, known.ecids);
                store.marketo.upsert_lead(now, world::types::Lead { id: lead, email, cookies, ecids });
            }
        }
        self.resume_where_no_list_was_found();
        self.apply_held();
        let stopped = self.syncs.iter().any(|sync| sync.over);
        let waits = |call: &&Call| call.code == 1006 || (call.code == 1013 && call.fault && stopped);
        let told = self.driver.sim.lock().marketo.calls().iter().rposition(|call| waits(&call)).map_or(0, |at| at + 1);
        if told > self.refusals.told {
            self.refusals.told = told;
            self.a_day_passes();
        }
    }

    /// An operator resumes the syncs whose list was not found although it is there. Returns whether there was one.
    pub(crate) fn resume_where_no_list_was_found(&mut self) -> bool {
        if !self.refusals.no_list {
            return false;
        }
        let mut resumed = false;
        for index in 0..self.syncs.len() {
            let path = format!("/syncs/{}", self.syncs[index].id);
            if !self.syncs[index].over && !self.syncs[index].paused {
                let (_, view) = self.request("GET", &path, &Value::Null);
                if view["status"] == "paused" {
                    resumed |= self.request("POST", &format!("{path}/resume"), &json!({})).0 < 300;
                }
            }
        }
        resumed
    }

    /// An operator has read why a delivery is held, and applies it: twelve invocations in a row were killed over it.
    fn apply_held(&mut self) {
        let (_, imports) = self.request("GET", "/imports", &Value::Null);
        for import in imports.as_array().into_iter().flatten().filter(|import| import["status"] == "held") {
            self.request("POST", "/imports/decide", &json!({"import": import["id"], "decision": "apply"}));
        }
    }

    /// Somebody deletes a list in Marketo: its syncs are over, once they have noticed.
    pub(crate) fn random_list_gone(&mut self) {
        let lists: Vec<u64> = self.driver.sim.lock().marketo.lists().keys().copied().collect();
        if lists.is_empty() {
            return;
        }
        let list = lists[self.rng.random_range(0..lists.len())];
        self.tell(format!("list {list} is deleted"));
        {
            let mut store = self.driver.sim.lock();
            let now = store.now;
            store.marketo.delete_list(now, list);
            store.counts.count(Kind::ListGone);
        }
        for (index, sync) in self.syncs.iter_mut().enumerate().filter(|(_, sync)| sync.list == list && !sync.over) {
            sync.over = true;
            if !sync.paused {
                self.refusals.gone.push(index);
            }
        }
    }

    /// A sync whose list was deleted says so as soon as somebody can look at the list.
    pub(crate) fn say_that_lists_are_gone(&mut self) -> Result<(), String> {
        let gone = std::mem::take(&mut self.refusals.gone);
        if gone.is_empty() {
            return Ok(());
        }
        for index in &gone {
            let path = format!("/syncs/{}/verify", self.syncs[*index].id);
            self.request("POST", &path, &Value::Null);
        }
        if self.kinds.has(Kind::OtherTools) && self.kinds.has(Kind::Midnight) {
            // They may have spent the day's calls: then nobody looks before it ends.
            self.driver.run_for(UNTIL_ANOTHER_DAY_MS);
        }
        self.settle()?;
        for index in gone {
            let (status, view) = self.request("GET", &format!("/syncs/{}", self.syncs[index].id), &Value::Null);
            if view["status"] != "paused" || view["why_code"] != "list_gone" {
                return Err(format!("a sync does not say that its list is gone: {status} {view}"));
            }
        }
        self.check()
    }
}
