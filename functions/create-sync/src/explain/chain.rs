//! What is known of somebody: browsers, the audiences they are in, their matches, and the people these lead to.

use std::collections::{BTreeMap, BTreeSet};

use domain::identity::{TokenRecord, has_expired};
use domain::limits::TOKENS_PER_ECID;
use domain::{AudienceId, Ecid, LeadId, MunchkinId};
use state::audience::Members;
use state::erase::Subject;
use state::identity::{hints_of_ecid, hints_of_lead, leads, tokens};
use state::{Deps, Step};

/// Browsers of one answer. Ours: a person has a handful; somebody on a shared computer is told of the first ones.
const BROWSERS: usize = 20;
/// People of one answer, who were found by an email or by browsers. Ours, for the same reason.
const PEOPLE: usize = 20;

#[derive(Debug, Default)]
pub(crate) struct Chain {
    pub(crate) browsers: Vec<Browser>,
    pub(crate) browsers_not_shown: usize,
    pub(crate) people: BTreeMap<LeadId, Person>,
    /// Whether anything is stored about whoever was asked for.
    pub(crate) is_known: bool,
}

#[derive(Debug)]
pub(crate) struct Browser {
    pub(crate) ecid: Ecid,
    /// Of each followed audience what was said; `None`: it was never delivered.
    pub(crate) audiences: BTreeMap<AudienceId, Option<Said>>,
    pub(crate) matches: Vec<Match>,
    /// Leads for whom Marketo has stored it.
    pub(crate) from_marketo: BTreeSet<LeadId>,
    /// Seen beside so many cookies that none of them counts.
    pub(crate) set_aside: bool,
}

#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) inside: bool,
    /// When a delivery last said so, in ms.
    pub(crate) at: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Match {
    pub(crate) seen_at: u64,
    pub(crate) lead: Option<LeadId>,
    pub(crate) known: bool,
    pub(crate) asked_at: Option<u64>,
    pub(crate) state: MatchState,
}

/// What a match is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatchState {
    Counts,
    /// The cookie was seen in too many browsers.
    CookieSetAside,
    /// The browser was seen with too many cookies.
    BrowserSetAside,
    Expired,
    NotAsked,
    /// It rests: its browser was in no followed audience when it was last looked at.
    Doubted,
    /// Marketo knows no lead with this cookie.
    Nobody,
    Anonymous,
}

impl MatchState {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Counts => "counts",
            Self::CookieSetAside | Self::BrowserSetAside => "set_aside",
            Self::Expired => "expired",
            Self::NotAsked => "not_asked",
            Self::Doubted => "doubted",
            Self::Nobody => "nobody",
            Self::Anonymous => "anonymous",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) lead: LeadId,
    /// Whether Marketo has an email; `None`: nobody has told.
    pub(crate) known: Option<bool>,
    pub(crate) gone: bool,
    pub(crate) merged_into: Option<LeadId>,
    /// The moment of which that is true, in ms.
    pub(crate) as_of: Option<u64>,
}

impl Chain {
    pub(crate) async fn of(
        deps: &Deps,
        munchkin: &MunchkinId,
        subject: &Subject,
        followed: &BTreeMap<AudienceId, String>,
    ) -> Step<Self> {
        let mut chain = Self::default();
        let mut ecids = BTreeSet::new();
        match subject {
            Subject::Ecid(ecid) => {
                ecids.insert(*ecid);
            }
            Subject::Token(token) => {
                let found = tokens(deps, munchkin, [token]).await?.pop();
                chain.is_known = found.is_some();
                if let Some(found) = found {
                    ecids.extend(found.value.ecids.keys());
                    chain.learn(found.value.lead, &found.value);
                }
            }
            Subject::Leads(found) => {
                for lead in found.iter().take(PEOPLE) {
                    ecids.extend(chain.follow(deps, munchkin, *lead).await?);
                }
            }
        }
        chain.browsers_not_shown = ecids.len().saturating_sub(BROWSERS);
        let ecids: BTreeSet<Ecid> = ecids.into_iter().take(BROWSERS).collect();
        let mut said = said(deps, munchkin, &ecids, followed).await?;
        for ecid in ecids {
            let browser = chain.browser(deps, munchkin, ecid, subject, said.remove(&ecid).unwrap_or_default()).await?;
            chain.is_known |= browser.is_inside() || !browser.matches.is_empty() || !browser.from_marketo.is_empty();
            chain.browsers.push(browser);
        }
        let mut found = BTreeSet::new();
        for browser in &chain.browsers {
            found.extend(browser.from_marketo.iter().copied());
        }
        found.extend(chain.people.keys());
        for record in leads(deps, munchkin, found.into_iter().take(PEOPLE)).await? {
            let record = record.value;
            let person = chain.people.entry(record.lead).or_insert_with(|| Person::new(record.lead));
            person.known = if record.gone { person.known } else { Some(record.known || person.known == Some(true)) };
            person.gone = record.gone;
            person.merged_into = record.merged_into;
            person.as_of = person.as_of.max(Some(record.as_of).filter(|at| *at > 0));
            chain.is_known = true;
        }
        Ok(chain)
    }

    /// A person, and whoever they were merged into. Returns the browsers that are tied to them.
    async fn follow(&mut self, deps: &Deps, munchkin: &MunchkinId, lead: LeadId) -> Step<BTreeSet<Ecid>> {
        let mut ecids = BTreeSet::new();
        let mut next = Some(lead);
        while let Some(lead) = next.take().filter(|lead| !self.people.contains_key(lead)) {
            self.people.insert(lead, Person::new(lead));
            let hints = hints_of_lead(deps, munchkin, lead).await?;
            for token in tokens(deps, munchkin, &hints).await? {
                if token.value.lead == Some(lead) {
                    ecids.extend(token.value.ecids.keys());
                    self.learn(Some(lead), &token.value);
                    self.is_known = true;
                }
            }
            for record in leads(deps, munchkin, [lead]).await? {
                ecids.extend(record.value.counted().into_iter().flatten());
                next = record.value.merged_into.filter(|_| self.people.len() < PEOPLE);
            }
        }
        Ok(ecids)
    }

    /// A token tells of its lead.
    fn learn(&mut self, lead: Option<LeadId>, token: &TokenRecord) {
        let Some(lead) = lead else { return };
        if self.people.len() < PEOPLE || self.people.contains_key(&lead) {
            let person = self.people.entry(lead).or_insert_with(|| Person::new(lead));
            person.known = Some(token.known || person.known == Some(true));
            person.as_of = person.as_of.max(token.asked_at);
        }
    }

    async fn browser(
        &mut self,
        deps: &Deps,
        munchkin: &MunchkinId,
        ecid: Ecid,
        subject: &Subject,
        audiences: BTreeMap<AudienceId, Option<Said>>,
    ) -> Step<Browser> {
        let hints = hints_of_ecid(deps, munchkin, ecid).await?;
        let found = tokens(deps, munchkin, &hints.tokens).await?;
        let beside: Vec<TokenRecord> =
            found.into_iter().map(|token| token.value).filter(|token| token.ecids.contains_key(&ecid)).collect();
        let set_aside = beside.len() > TOKENS_PER_ECID;
        let mut matches = Vec::new();
        for token in beside {
            // What was not asked for is another chain.
            let is_meant = match subject {
                Subject::Ecid(_) => true,
                Subject::Token(one) => token.token == *one,
                Subject::Leads(_) => token.lead.is_some_and(|lead| self.people.contains_key(&lead)),
            };
            if let Some(seen) = token.ecids.get(&ecid).filter(|_| is_meant) {
                self.learn(token.lead, &token);
                matches.push(Match {
                    seen_at: seen.last,
                    lead: token.lead,
                    known: token.known,
                    asked_at: token.asked_at,
                    state: state_of(deps, &token, seen.last, set_aside),
                });
            }
        }
        let mut from_marketo = BTreeSet::new();
        if !matches!(subject, Subject::Token(_)) {
            for record in leads(deps, munchkin, hints.leads).await? {
                let record = record.value;
                let is_meant = matches!(subject, Subject::Ecid(_)) || self.people.contains_key(&record.lead);
                if is_meant && record.counted().is_some_and(|counted| counted.contains(&ecid)) {
                    from_marketo.insert(record.lead);
                }
            }
        }
        Ok(Browser { ecid, audiences, matches, from_marketo, set_aside })
    }

    /// Whether everything is there that an audience needs to want a person.
    pub(crate) fn ties(&self, lead: LeadId, audience: &AudienceId) -> bool {
        let known = self.people.get(&lead).is_some_and(|person| person.known == Some(true) && !person.gone);
        let ties = |browser: &Browser| {
            let counts = |found: &Match| found.lead == Some(lead) && found.state == MatchState::Counts;
            let direct = known && !browser.set_aside && browser.from_marketo.contains(&lead);
            browser.is_in(audience) && (direct || browser.matches.iter().any(counts))
        };
        self.browsers.iter().any(ties)
    }
}

impl Browser {
    fn is_in(&self, audience: &AudienceId) -> bool {
        self.audiences.get(audience).is_some_and(|said| said.as_ref().is_some_and(|said| said.inside))
    }

    /// Whether some followed audience holds it.
    pub(crate) fn is_inside(&self) -> bool {
        self.audiences.keys().any(|audience| self.is_in(audience))
    }
}

impl Person {
    const fn new(lead: LeadId) -> Self {
        Self { lead, known: None, gone: false, merged_into: None, as_of: None }
    }
}

fn state_of(deps: &Deps, token: &TokenRecord, seen_at: u64, browser_aside: bool) -> MatchState {
    if has_expired(seen_at, deps.settings.match_lifetime_ms, deps.now()) {
        return MatchState::Expired;
    }
    if token.set_aside() {
        return MatchState::CookieSetAside;
    }
    if browser_aside {
        return MatchState::BrowserSetAside;
    }
    match token.lead {
        Some(_) if token.known => MatchState::Counts,
        Some(_) => MatchState::Anonymous,
        None if token.asked_at.is_some() => MatchState::Nobody,
        None if token.parked || token.doubted => MatchState::Doubted,
        None => MatchState::NotAsked,
    }
}

/// What each followed audience says of each browser.
async fn said(
    deps: &Deps,
    munchkin: &MunchkinId,
    ecids: &BTreeSet<Ecid>,
    followed: &BTreeMap<AudienceId, String>,
) -> Step<BTreeMap<Ecid, BTreeMap<AudienceId, Option<Said>>>> {
    let mut all: BTreeMap<Ecid, BTreeMap<AudienceId, Option<Said>>> = BTreeMap::new();
    for audience in followed.keys() {
        let members = Members::open(deps, munchkin, audience).await?;
        let mut inside = BTreeSet::new();
        let (mut facts, mut as_of) = (BTreeMap::new(), None);
        if let Some(members) = &members {
            inside = members.which(ecids).await?;
            facts = members.said(ecids).await?;
            as_of = members.head().base.as_ref().map(|base| base.as_of);
        }
        for ecid in ecids {
            let at = facts.get(ecid).map(|fact| fact.time).max(as_of);
            let said = members.is_some().then(|| Said { inside: inside.contains(ecid), at });
            all.entry(*ecid).or_default().insert(audience.clone(), said);
        }
    }
    Ok(all)
}
