//! Members of another list whom the sync's audience does not want: what is known of each of them.

use std::collections::{BTreeMap, BTreeSet};

use domain::identity::{LeadRecord, TokenRecord};
use domain::limits::TOKENS_PER_ECID;
use domain::{AudienceId, Ecid, LeadId, LeadSet, MunchkinId};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use state::audience::Members;
use state::identity::{hints_of_ecid, hints_of_leads, leads, tokens};
use state::{Deps, Step};

/// People who are looked up together: the more of them, the more of what concerns them comes with one answer. Ours: their
/// records stand in memory, of some KB each where somebody is tied to many browsers.
pub(super) const AT_ONCE: usize = 3_000;
/// Questions under way at once. Ours: one after the other they are bound by the network's latency alone.
const READS_AT_ONCE: usize = 16;

pub(super) struct Strangers<'a> {
    pub(super) deps: &'a Deps,
    pub(super) munchkin: &'a MunchkinId,
    pub(super) audience: &'a AudienceId,
    /// Who is, or lately was, in the sync's list by our doing.
    pub(super) knew: &'a LeadSet,
}

/// What the code of somebody who is only in the other list means.
pub(super) fn sentence(code: &str) -> &'static str {
    match code {
        "merged" => "Marketo has merged the person into another one.",
        "gone" => "Marketo has deleted the person.",
        "left_audience" => "Was in the audience, and has left it.",
        "not_in_audience" => "Is tied to browsers, and the audience holds none of them.",
        "anonymous" => "Is tied to a browser of the audience, and anonymous: Marketo has told us of no email.",
        "set_aside" => {
            "Is tied to browsers by nothing but cookies or browsers that are over a cap and count for nobody."
        }
        "waiting" => {
            "Is tied to a browser of the audience by something new: the sync counts the person within minutes."
        }
        _ => "We can tie the person to no browser: no page has shown one, and Marketo has stored none.",
    }
}

impl Strangers<'_> {
    /// What is known of each of these people.
    pub(super) async fn look(&self, people: &[LeadId]) -> Step<Vec<(&'static str, LeadId)>> {
        let mut records: BTreeMap<LeadId, LeadRecord> = BTreeMap::new();
        for record in leads(self.deps, self.munchkin, people.iter().copied()).await? {
            records.insert(record.value.lead, record.value);
        }
        let mut owned = self.tokens_of(people).await?;
        let mut ties = Vec::new();
        for lead in people {
            ties.push((*lead, Ties::of(records.get(lead), &owned.remove(lead).unwrap_or_default())));
        }
        let Some(members) = Members::open(self.deps, self.munchkin, self.audience).await? else {
            return Ok(ties.into_iter().map(|(lead, ties)| (ties.outside(false), lead)).collect());
        };
        let all: BTreeSet<Ecid> = ties.iter().flat_map(|(_, ties)| ties.all()).collect();
        let (inside, ever) = members.which_and_ever(&all).await?;
        let ties: Vec<_> = ties.into_iter().map(|(lead, ties)| (lead, ties.inside(&inside), ties)).collect();
        let over_cap = self.over_cap(&ties).await?;
        let mut found = Vec::new();
        for (lead, place, ties) in ties {
            let code = match place {
                None => {
                    let lately = |ecid: &Ecid| ever.contains(ecid) && !inside.contains(ecid);
                    ties.outside(self.knew.contains(lead) || ties.counting.iter().any(lately))
                }
                Some(Inside::Aside) => "set_aside",
                Some(Inside::Counts(_)) if over_cap.contains(lead) => "set_aside",
                Some(Inside::Counts(_)) if ties.known => "waiting",
                Some(Inside::Counts(_)) => "anonymous",
            };
            found.push((code, lead));
        }
        Ok(found)
    }

    async fn tokens_of(&self, people: &[LeadId]) -> Step<BTreeMap<LeadId, Vec<TokenRecord>>> {
        let hints = hints_of_leads(self.deps, self.munchkin, people.iter().copied()).await?;
        let mut owned: BTreeMap<LeadId, Vec<TokenRecord>> = BTreeMap::new();
        for token in tokens(self.deps, self.munchkin, &hints).await? {
            if let Some(lead) = token.value.lead {
                owned.entry(lead).or_default().push(token.value);
            }
        }
        Ok(owned)
    }

    /// Those of the people whose browsers in the audience are all over their cap.
    async fn over_cap(&self, people: &[(LeadId, Option<Inside>, Ties)]) -> Step<LeadSet> {
        let asked = people.iter().filter_map(|(lead, place, _)| match place {
            Some(Inside::Counts(ecids)) => Some((*lead, ecids)),
            _ => None,
        });
        let asked: Vec<BoxFuture<'_, Step<Option<LeadId>>>> = asked
            .map(|(lead, ecids)| async move { Ok(self.are_over_cap(ecids).await?.then_some(lead)) }.boxed())
            .collect();
        let found: Vec<Option<LeadId>> = stream::iter(asked).buffer_unordered(READS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Whether each of these browsers was seen beside too many cookies.
    async fn are_over_cap(&self, ecids: &BTreeSet<Ecid>) -> Step<bool> {
        for ecid in ecids {
            let hints = hints_of_ecid(self.deps, self.munchkin, *ecid).await?.tokens;
            if hints.len() <= TOKENS_PER_ECID {
                return Ok(false);
            }
            let found = tokens(self.deps, self.munchkin, &hints).await?;
            if found.iter().filter(|token| token.value.ecids.contains_key(ecid)).count() <= TOKENS_PER_ECID {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What ties somebody to browsers.
#[derive(Debug, Default)]
struct Ties {
    known: bool,
    gone: Option<&'static str>,
    counting: BTreeSet<Ecid>,
    /// By cookies that were seen in too many browsers.
    aside: BTreeSet<Ecid>,
    is_aside: bool,
}

enum Inside {
    Aside,
    Counts(BTreeSet<Ecid>),
}

impl Ties {
    fn of(record: Option<&LeadRecord>, tokens: &[TokenRecord]) -> Self {
        let mut ties = Self::default();
        for token in tokens {
            ties.known |= token.known;
            if token.set_aside() {
                ties.is_aside = true;
                ties.aside.extend(token.ecids.keys());
            } else {
                ties.counting.extend(token.ecids.keys());
            }
        }
        if let Some(record) = record {
            ties.known |= record.known && !record.gone;
            ties.gone = record.gone.then_some(if record.merged_into.is_some() { "merged" } else { "gone" });
            match record.counted() {
                Some(counted) => ties.counting.extend(counted),
                None => ties.is_aside = true,
            }
        }
        ties
    }

    fn all(&self) -> impl Iterator<Item = Ecid> + '_ {
        self.counting.iter().chain(&self.aside).copied()
    }

    fn inside(&self, inside: &BTreeSet<Ecid>) -> Option<Inside> {
        let counting: BTreeSet<Ecid> = self.counting.iter().filter(|ecid| inside.contains(ecid)).copied().collect();
        if !counting.is_empty() {
            return Some(Inside::Counts(counting));
        }
        self.aside.iter().any(|ecid| inside.contains(ecid)).then_some(Inside::Aside)
    }

    /// Of somebody whom nothing ties to a browser of the audience. `was`: something did.
    fn outside(&self, was: bool) -> &'static str {
        match self.gone {
            Some(gone) => gone,
            None if was => "left_audience",
            None if !self.counting.is_empty() => "not_in_audience",
            None if self.is_aside => "set_aside",
            None => "no_browser",
        }
    }
}
