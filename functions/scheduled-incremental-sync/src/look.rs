//! Looks at some ECIDs and people of one audience: whom they concern, and who of them is wanted. What several of them share is
//! read once, and together.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::identity::{LeadRecord, TokenRecord};
use domain::limits::TOKENS_PER_ECID;
use domain::{Ecid, LeadId, MunchkinId, Token};
use futures::FutureExt as _;
use state::audience::Members;
use state::identity::{EcidHints, hints_of_ecid, hints_of_lead, leads, tokens};
use state::{Deps, Doc, Step};

use crate::propagate::many;

/// What was read so far.
pub(crate) struct Look<'a> {
    deps: &'a Deps,
    munchkin: &'a MunchkinId,
    members: &'a Members<'a>,
    inside: HashMap<Ecid, bool>,
    hints: HashMap<Ecid, EcidHints>,
    /// `None`: there is none.
    tokens: HashMap<Token, Option<Doc<TokenRecord>>>,
}

impl<'a> Look<'a> {
    pub(crate) fn new(deps: &'a Deps, munchkin: &'a MunchkinId, members: &'a Members<'a>) -> Self {
        Self { deps, munchkin, members, inside: HashMap::new(), hints: HashMap::new(), tokens: HashMap::new() }
    }

    async fn read_members(&mut self, ecids: impl IntoIterator<Item = Ecid>) -> Step<()> {
        let new: BTreeSet<Ecid> = ecids.into_iter().filter(|ecid| !self.inside.contains_key(ecid)).collect();
        if !new.is_empty() {
            let found = self.members.which(&new).await?;
            self.inside.extend(new.into_iter().map(|ecid| (ecid, found.contains(&ecid))));
        }
        Ok(())
    }

    async fn read_hints(&mut self, ecids: impl IntoIterator<Item = Ecid>) -> Step<()> {
        let (deps, munchkin) = (self.deps, self.munchkin);
        let new: BTreeSet<Ecid> = ecids.into_iter().filter(|ecid| !self.hints.contains_key(ecid)).collect();
        let hints =
            new.into_iter().map(|ecid| async move { Ok((ecid, hints_of_ecid(deps, munchkin, ecid).await?)) }.boxed());
        self.hints.extend(many(hints).await?);
        Ok(())
    }

    async fn read_tokens(&mut self, names: impl IntoIterator<Item = Token>) -> Step<()> {
        let new: BTreeSet<Token> = names.into_iter().filter(|token| !self.tokens.contains_key(token)).collect();
        let found = tokens(self.deps, self.munchkin, &new).await?;
        self.tokens.extend(new.into_iter().map(|token| (token, None)));
        self.tokens.extend(found.into_iter().map(|token| (token.value.token.clone(), Some(token))));
        Ok(())
    }

    fn is_inside(&self, ecid: Ecid) -> bool {
        self.inside.get(&ecid) == Some(&true)
    }

    /// Tokens that were seen beside an ECID whose hints were read.
    fn beside(&self, ecid: Ecid) -> impl Iterator<Item = &Doc<TokenRecord>> {
        let named = self.hints.get(&ecid).into_iter().flat_map(|hints| BTreeSet::from_iter(&hints.tokens));
        let tokens = named.filter_map(|token| self.tokens.get(token)?.as_ref());
        tokens.filter(move |token| token.value.ecids.contains_key(&ecid))
    }

    /// The leads that these ECIDs concern, and the tokens beside those of them that are in the audience.
    pub(crate) async fn concerned(
        &mut self,
        ecids: &BTreeSet<Ecid>,
    ) -> Step<(BTreeSet<LeadId>, Vec<Doc<TokenRecord>>)> {
        self.read_hints(ecids.iter().copied()).await?;
        self.read_members(ecids.iter().copied()).await?;
        let named: Vec<Token> = ecids.iter().flat_map(|ecid| self.hints[ecid].tokens.clone()).collect();
        self.read_tokens(named).await?;
        let (mut concerned, mut inside) = (BTreeSet::new(), BTreeMap::new());
        for ecid in ecids {
            concerned.extend(&self.hints[ecid].leads);
            for token in self.beside(*ecid) {
                concerned.extend(token.value.lead);
                if self.is_inside(*ecid) {
                    inside.insert(&token.value.token, token);
                }
            }
        }
        Ok((concerned, inside.into_values().cloned().collect()))
    }

    /// Those of the leads who are known and own at least one ECID of the audience.
    pub(crate) async fn wanted(&mut self, people: &BTreeSet<LeadId>) -> Step<BTreeSet<LeadId>> {
        let mut wanted = self.seen_inside(people);
        let left: Vec<LeadId> = people.difference(&wanted).copied().collect();
        let (deps, munchkin) = (self.deps, self.munchkin);
        let owned = left.iter().map(|lead| {
            let lead = *lead;
            async move { Ok((lead, hints_of_lead(deps, munchkin, lead).await?)) }.boxed()
        });
        let owned: Vec<(LeadId, Vec<Token>)> = many(owned).await?;
        self.read_tokens(owned.iter().flat_map(|(_, tokens)| tokens.iter().cloned())).await?;
        let mut ecids: BTreeMap<LeadId, BTreeSet<Ecid>> = BTreeMap::new();
        for (lead, token) in owned.iter().flat_map(|(lead, tokens)| tokens.iter().map(move |token| (lead, token))) {
            let token = self.tokens.get(token).and_then(Option::as_ref);
            if let Some(token) = token.filter(|token| token.value.person() == Some(*lead)) {
                ecids.entry(*lead).or_default().extend(token.value.ecids.keys());
            }
        }
        for record in leads(deps, munchkin, left).await? {
            if let Some(counted) = direct(&record.value) {
                ecids.entry(record.value.lead).or_default().extend(counted);
            }
        }
        self.read_members(ecids.values().flatten().copied()).await?;
        for ecids in ecids.values_mut() {
            ecids.retain(|ecid| self.is_inside(*ecid));
        }
        // Who owns an ECID that was seen beside too many tokens is not known.
        self.read_hints(ecids.values().flatten().copied()).await?;
        let doubtful: Vec<Token> = ecids
            .values()
            .flatten()
            .map(|ecid| &self.hints[ecid].tokens)
            .filter(|tokens| tokens.len() > TOKENS_PER_ECID)
            .flatten()
            .cloned()
            .collect();
        self.read_tokens(doubtful).await?;
        let counts = |ecid: &Ecid| {
            self.hints[ecid].tokens.len() <= TOKENS_PER_ECID || self.beside(*ecid).count() <= TOKENS_PER_ECID
        };
        wanted.extend(ecids.iter().filter(|(_, ecids)| ecids.iter().any(counts)).map(|(lead, _)| *lead));
        Ok(wanted)
    }

    /// Those of the leads of whom what was read says so already.
    pub(crate) fn seen_inside(&self, people: &BTreeSet<LeadId>) -> BTreeSet<LeadId> {
        let counts = |ecid: &Ecid| {
            self.is_inside(*ecid) && self.hints.get(ecid).is_some_and(|hints| hints.tokens.len() <= TOKENS_PER_ECID)
        };
        let tokens = self.tokens.values().flatten().map(|token| &token.value);
        let owners = tokens.filter(|token| token.ecids.keys().any(counts)).filter_map(TokenRecord::person);
        owners.filter(|lead| people.contains(lead)).collect()
    }
}

/// The ECIDs by which Marketo itself ties a lead to an audience.
pub(crate) fn direct(record: &LeadRecord) -> Option<&BTreeSet<Ecid>> {
    record.counted().filter(|_| record.known && !record.gone)
}

/// Whether a lead is known and owns at least one ECID of the audience.
pub(crate) async fn is_wanted(deps: &Deps, munchkin: &MunchkinId, members: &Members<'_>, lead: LeadId) -> Step<bool> {
    Ok(!Look::new(deps, munchkin, members).wanted(&BTreeSet::from([lead])).await?.is_empty())
}
