//! Where the people of a sync stand in its list, as far as the list's writer knows.

use std::collections::BTreeMap;

use domain::list::{LEAD_NOT_FOUND, State};
use domain::{LeadId, LeadSet};
use ports::{Failure, Table};
use state::lists::{OpenList, Want, read_leads, want_key};
use state::syncs::{Leaving, MembersBefore, Start, Status, Sync, syncs};
use state::{Deps, Step, load};

/// Attempts to read what is replaced meanwhile, before the last one.
pub(crate) const ATTEMPTS: usize = 2;
/// Why somebody has to leave who was there before us.
const ADOPTED: &str = "adopted";

/// Where somebody stands: a word for machines, Marketo's code or ours where there is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// `in_list`, `before_us`, `waiting`, `on_hold`, `held`, `kept_out`, `dropped`, `refused`, `gone`, `paused`,
    /// `report_only`; of those who are not wanted any more `kept` and `to_leave`.
    pub(crate) state: &'static str,
    /// Marketo's code of somebody who was refused.
    pub(crate) code: Option<String>,
}

impl Place {
    const fn new(state: &'static str) -> Self {
        Self { state, code: None }
    }

    /// Whether Marketo shows them in the list, as far as we know.
    pub(crate) fn is_in_list(&self) -> bool {
        matches!(self.state, "in_list" | "before_us" | "kept")
    }

    /// The same in a sentence.
    pub(crate) fn sentence(&self) -> String {
        let words = match self.state {
            "in_list" => "In the list, put there by a sync.",
            "before_us" => "In the list: was there before us, or was added by hand.",
            "waiting" => "Is added with one of the next calls.",
            "on_hold" => "Marketo did not answer clearly: tried again once the last call is over for certain.",
            "held" => "Part of a mass change that waits for an operator to apply or drop it.",
            "kept_out" => "Was taken out of the list by hand in Marketo, and stays out until put back.",
            "dropped" => "An operator dropped the addition: stays out until put back.",
            "gone" => "Marketo does not know the person any more: deleted, merged, or not visible to our user (1004).",
            "paused" => "The sync is paused: is added when it is resumed.",
            "report_only" => "The sync only reports: it writes no list.",
            "kept" => "Has left the audience and stays in the list, by the choice of a sync or of an operator.",
            "to_leave" if self.code.as_deref() == Some("held") => {
                "Is not wanted in the list; the removal is part of a mass change that waits for an operator."
            }
            "to_leave" if self.code.as_deref() == Some(ADOPTED) => {
                "Was there before us and is not wanted: the list is adopted, and the person leaves with one of the next calls."
            }
            "to_leave" => "Is not wanted in the list any more, and leaves it with one of the next calls.",
            _ => "",
        };
        match &self.code {
            Some(code) if self.state == "refused" => {
                format!("Marketo refused with code {code}: {}", marketo::class::sentence(code))
            }
            Some(code) if self.state == "to_leave" && code != "held" && code != ADOPTED => format!(
                "Is not wanted in the list; Marketo refused the removal with code {code}: {}",
                marketo::class::sentence(code)
            ),
            _ => words.to_owned(),
        }
    }
}

/// People who stand in one place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Class {
    pub(crate) place: Place,
    pub(crate) leads: LeadSet,
    /// Since when all of them do, in ms, where that is known.
    pub(crate) since: Option<u64>,
    /// Since when each of them does, in ms, where that is known of each.
    pub(crate) each: BTreeMap<LeadId, u64>,
}

/// What is known of a sync's list.
#[derive(Debug)]
pub(crate) struct Places {
    /// Who should be in the list by this sync, by the last word of its audience.
    pub(crate) want: LeadSet,
    /// Whether the audience has had the pass that this sync waits for.
    pub(crate) counted: bool,
    report_only: bool,
    paused: bool,
    state: State,
    /// The union of what active syncs want of the list.
    wanted: LeadSet,
    kept: LeadSet,
    /// Who was there before us and leaves, because an active sync adopts the list.
    adopted: LeadSet,
}

impl Places {
    pub(crate) async fn open(deps: &Deps, sync: &Sync) -> Step<Self> {
        // A set or a state may be replaced between its pointer and itself.
        for _ in 0..ATTEMPTS {
            match Self::read(deps, sync).await {
                Err(Failure::Retry { .. }) => {}
                other => return other,
            }
        }
        Self::read(deps, sync).await
    }

    async fn read(deps: &Deps, sync: &Sync) -> Step<Self> {
        let report_only = sync.start == Start::ReportOnly;
        let found = want(deps, sync).await?;
        let counted = found.is_some();
        let (mut state, mut wanted, mut adopts) = (State::default(), LeadSet::new(), false);
        if let (false, Some(list)) = (report_only, sync.list.id) {
            for other in syncs(deps, &sync.munchkin).await? {
                let other = other.value;
                let writes = other.start == Start::Now && other.status == Status::Active;
                if writes && other.list.id == Some(list) {
                    let found = want(deps, &other).await?;
                    let removes = other.leaving == Leaving::Remove && found.is_some();
                    adopts |= removes && other.members_before == MembersBefore::Adopt;
                    wanted.add_all(&found.unwrap_or_default());
                }
            }
            state = OpenList::open(deps, &sync.munchkin, list).await?.state;
        }
        let kept = state.kept();
        let tied = if adopts { state.theirs.and(&state.tied) } else { LeadSet::new() };
        let adopted = tied.minus(&wanted).minus(&state.restore);
        let want = if sync.follows() { found.unwrap_or_default() } else { LeadSet::new() };
        Ok(Self { want, counted, report_only, paused: sync.status == Status::Paused, state, wanted, kept, adopted })
    }

    /// People whom the audience wants in the list, by where they stand. Each of them once.
    pub(crate) fn wanted(&self, people: &LeadSet) -> Vec<Class> {
        let mut sorter = Sorter::of(people.clone());
        if self.report_only {
            sorter.rest(Place::new("report_only"));
            return sorter.found;
        }
        let State { sure, theirs, restore, kept_out, dropped, held, .. } = &self.state;
        sorter.take(Place::new("before_us"), &theirs.minus(restore).minus(&self.adopted), None);
        // Of a sync that rests: those that run decide.
        sorter.take(Place::new("to_leave"), &self.adopted, None);
        sorter.take(Place::new("in_list"), sure, None);
        sorter.take(Place::new("kept_out"), kept_out, None);
        sorter.take(Place::new("dropped"), dropped, None);
        for (code, each) in self.refusals() {
            let gone = code == LEAD_NOT_FOUND;
            sorter.take_each(Place { state: if gone { "gone" } else { "refused" }, code: Some(code) }, each);
        }
        sorter.take(Place::new("on_hold"), &self.state.hold.keys().copied().collect(), None);
        if let Some(held) = held {
            sorter.take(Place::new("held"), &held.change.add, Some(held.since));
        }
        if self.paused {
            let resting = people.minus(&self.wanted);
            sorter.take(Place::new("paused"), &resting, None);
        }
        sorter.rest(Place::new("waiting"));
        sorter.found
    }

    /// Those of these people who are in the list although no audience wants them there any more: by our doing, or since
    /// before a list that is adopted.
    pub(crate) fn unwanted(&self, people: &LeadSet) -> Vec<Class> {
        let mut unwanted = self.state.may.minus(&self.state.theirs).minus(&self.wanted);
        unwanted.add_all(&self.adopted);
        let mut sorter = Sorter::of(people.and(&unwanted.minus(&self.want)));
        sorter.take(Place::new("kept"), &self.kept.minus(&self.adopted), None);
        for (code, each) in self.refusals() {
            sorter.take_each(Place { state: "to_leave", code: Some(code) }, each);
        }
        if let Some(held) = &self.state.held {
            let place = Place { state: "to_leave", code: Some("held".into()) };
            sorter.take(place, &held.change.remove, Some(held.since));
        }
        sorter.take(Place { state: "to_leave", code: Some(ADOPTED.into()) }, &self.adopted, None);
        sorter.rest(Place::new("to_leave"));
        sorter.found
    }

    /// Everybody whom the sync concerns.
    pub(crate) fn all(&self) -> Vec<Class> {
        let mut all = self.wanted(&self.want);
        let mut others = self.state.may.clone();
        others.add_all(&self.adopted);
        all.extend(self.unwanted(&others));
        all
    }

    /// Where one person stands, who is wanted or not; `None`: nowhere.
    pub(crate) fn of(&self, lead: LeadId, wanted: bool) -> Option<Place> {
        let one = LeadSet::from_iter([lead]);
        let found = if wanted { self.wanted(&one) } else { self.unwanted(&one) };
        let theirs = !wanted && self.state.theirs.contains(lead);
        found.into_iter().next().map(|class| class.place).or(theirs.then_some(Place::new("before_us")))
    }

    /// Whether the list holds somebody, or did within the last day, by our doing.
    pub(crate) fn knew(&self) -> LeadSet {
        let mut knew = self.state.may.clone();
        knew.add_all(&self.kept);
        self.state.left.values().for_each(|left| knew.add_all(left));
        knew
    }

    fn refusals(&self) -> BTreeMap<String, BTreeMap<LeadId, u64>> {
        let mut by_code: BTreeMap<String, BTreeMap<LeadId, u64>> = BTreeMap::new();
        for (lead, refusal) in &self.state.failed {
            by_code.entry(refusal.code.clone()).or_default().insert(*lead, refusal.at);
        }
        by_code
    }
}

/// Who is wanted by a sync's audience; `None`: nobody has counted since the sync began.
async fn want(deps: &Deps, sync: &Sync) -> Step<Option<LeadSet>> {
    let found = load::<Want>(deps, Table::Lists, &want_key(&sync.munchkin, &sync.audience)).await?;
    let found = found.map(|found| found.value).filter(|want| sync.from_pass.is_none_or(|pass| want.pass >= pass));
    match found {
        Some(want) => Ok(Some(read_leads(deps, &want.key).await?)),
        None => Ok(None),
    }
}

/// Sorts people into classes, each into the first that takes them.
struct Sorter {
    rest: LeadSet,
    found: Vec<Class>,
}

impl Sorter {
    const fn of(people: LeadSet) -> Self {
        Self { rest: people, found: Vec::new() }
    }

    fn take(&mut self, place: Place, set: &LeadSet, since: Option<u64>) {
        let leads = self.rest.and(set);
        if !leads.is_empty() {
            self.rest.remove_all(&leads);
            self.found.push(Class { place, leads, since, each: BTreeMap::new() });
        }
    }

    fn take_each(&mut self, place: Place, mut each: BTreeMap<LeadId, u64>) {
        each.retain(|lead, _| self.rest.remove(*lead));
        if !each.is_empty() {
            self.found.push(Class { place, leads: each.keys().copied().collect(), since: None, each });
        }
    }

    fn rest(&mut self, place: Place) {
        let leads = std::mem::take(&mut self.rest);
        self.take_all(place, leads);
    }

    fn take_all(&mut self, place: Place, leads: LeadSet) {
        if !leads.is_empty() {
            self.found.push(Class { place, leads, since: None, each: BTreeMap::new() });
        }
    }
}
