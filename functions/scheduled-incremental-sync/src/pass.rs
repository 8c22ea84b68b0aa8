//! A pass over an audience: reads every token and lead of the subscription once, in slices, and counts what became
//! of every ECID. What changes meanwhile stands in rows of work, which are applied before the pass publishes.

use std::sync::Arc;

use bytes::Bytes;
use domain::base::Base;
use domain::identity::{LeadRecord, TokenRecord};
use domain::limits::TOKENS_PER_ECID;
use domain::planted::{Guard, holds};
use domain::report::AudienceCounts;
use domain::{AudienceId, LeadId, LeadSet, MunchkinId};
use futures::FutureExt as _;
use ports::{Failure, Item, Read, Table};
use state::audience::{Head, Members, Pass, Waiting, head_key, read_base};
use state::bases::Writer;
use state::bell::{BellKey, Next};
use state::budget::outlook;
use state::identity::{SHARDS, lead_shard, token_shard};
use state::lists::{AudienceReport, Want, want_key, write_leads};
use state::{Deps, Doc, Step, bell, doc, load, save, update};

use crate::audience::{apply, direct, forget, publish, ring_lists, todos, wake};
use crate::propagate::many;
use crate::sizes;

/// A slice ends when the invocation has less than this left, in ms.
const RESERVE_MS: u64 = 30_000;
/// Records of one page.
const PAGE: usize = 1_000;

/// What a pass has found so far, by row of the members.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Found {
    /// Tokens that were seen beside it, up to 255.
    tokens: Vec<u8>,
    /// It has an edge that counts.
    matched: Vec<bool>,
    /// It has an edge that is set aside.
    aside: Vec<bool>,
    /// It was seen beside a token, not set aside, about which Marketo was never asked.
    unasked: Vec<bool>,
    /// Known leads, by row.
    people: Vec<(u32, LeadId)>,
    /// Tokens that were seen beside any.
    inside: u64,
    /// Those of them that somebody who follows the audience asks about at once.
    to_look_up: u64,
}

/// Marks the objects that hold a [`Found`], and their layout.
const MAGIC: &[u8; 4] = b"ASF2";
const MATCHED: u8 = 1;
const ASIDE: u8 = 2;
const UNASKED: u8 = 4;
/// Bytes of a person: row and lead.
const PERSON: usize = 12;

impl Found {
    fn new(members: usize) -> Self {
        let none = vec![false; members];
        Self { tokens: vec![0; members], matched: none.clone(), aside: none.clone(), unasked: none, ..Self::default() }
    }

    /// The object's bytes, big-endian: magic, count of rows (u32), both counts of tokens (u64), tokens, flags, people. As JSON, five million members
    /// would be a hundred megabytes a slice, and a second of our time to write and to read.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24 + 2 * self.tokens.len() + PERSON * self.people.len());
        bytes.extend_from_slice(MAGIC);
        // Rows are numbered by `u32` ([`Found::people`]).
        bytes.extend_from_slice(&u32::try_from(self.tokens.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&self.inside.to_be_bytes());
        bytes.extend_from_slice(&self.to_look_up.to_be_bytes());
        bytes.extend_from_slice(&self.tokens);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = |row: usize| {
            flag(self.matched[row], MATCHED) | flag(self.aside[row], ASIDE) | flag(self.unasked[row], UNASKED)
        };
        bytes.extend((0..self.tokens.len()).map(flags));
        for (row, lead) in &self.people {
            bytes.extend_from_slice(&row.to_be_bytes());
            bytes.extend_from_slice(&lead.to_be_bytes());
        }
        bytes
    }

    /// Reads what [`Found::encode`] wrote of so many members; `None`: it is something else, or of another version.
    fn decode(bytes: &[u8], members: usize) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (inside, rest) = rest.split_first_chunk()?;
        let (to_look_up, rest) = rest.split_first_chunk()?;
        if magic != MAGIC || usize::try_from(u32::from_be_bytes(*count)).ok()? != members {
            return None;
        }
        let (tokens, rest) = rest.split_at_checked(members)?;
        let (flags, people) = rest.split_at_checked(members)?;
        let flag = |flag: u8| flags.iter().map(|flags| flags & flag != 0).collect();
        let person = |bytes: &[u8]| {
            let (row, lead) = bytes.split_first_chunk()?;
            Some((u32::from_be_bytes(*row), u64::from_be_bytes(lead.try_into().ok()?)))
        };
        let people = people.chunks(PERSON).map(person).collect::<Option<_>>()?;
        Some(Self {
            tokens: tokens.to_vec(),
            matched: flag(MATCHED),
            aside: flag(ASIDE),
            unasked: flag(UNASKED),
            people,
            inside: u64::from_be_bytes(*inside),
            to_look_up: u64::from_be_bytes(*to_look_up),
        })
    }

    fn token(&mut self, members: &Base, record: &TokenRecord) -> bool {
        let mut inside = false;
        let person = record.person();
        for ecid in record.ecids.keys() {
            let Some(row) = members.row(*ecid) else { continue };
            inside = true;
            self.tokens[row] = self.tokens[row].saturating_add(1);
            if record.set_aside() {
                self.aside[row] = true;
                continue;
            }
            self.matched[row] = true;
            self.unasked[row] |= record.asked_at.is_none();
            if let (Some(lead), Ok(row)) = (person, u32::try_from(row)) {
                self.people.push((row, lead));
            }
        }
        inside
    }

    fn lead(&mut self, members: &Base, record: &LeadRecord) {
        let Some(counted) = record.counted() else { return };
        let known = direct(record).is_some();
        for ecid in counted {
            let Some(row) = members.row(*ecid) else { continue };
            self.matched[row] = true;
            if let (true, Ok(row)) = (known, u32::try_from(row)) {
                self.people.push((row, record.lead));
            }
        }
    }

    /// What became of every ECID, and the known people.
    pub(crate) fn count(&self) -> (AudienceCounts, LeadSet) {
        let over = |row: usize| usize::from(self.tokens[row]) > TOKENS_PER_ECID;
        let mut known = vec![false; self.tokens.len()];
        let mut people = LeadSet::new();
        for &(row, lead) in &self.people {
            if !over(row as usize) {
                known[row as usize] = true;
                people.insert(lead);
            }
        }
        let mut counts =
            AudienceCounts { audience: self.tokens.len() as u64, people: people.len(), ..Default::default() };
        for (row, known) in known.into_iter().enumerate() {
            let class = if over(row) {
                &mut counts.set_aside
            } else if known {
                &mut counts.known
            } else if self.matched[row] {
                &mut counts.anonymous
            } else if self.aside[row] {
                &mut counts.set_aside
            } else {
                &mut counts.no_match
            };
            *class += 1;
        }
        (counts, people)
    }

    /// ECIDs with a match, of nobody known, of whose tokens Marketo was never asked about at least one.
    pub(crate) fn not_asked(&self) -> u64 {
        let mut asked: Vec<bool> = self.unasked.iter().map(|unasked| !unasked).collect();
        for (row, _) in &self.people {
            asked[*row as usize] = true;
        }
        let over = |row: usize| usize::from(self.tokens[row]) > TOKENS_PER_ECID;
        asked.iter().enumerate().filter(|(row, asked)| !**asked && !over(*row)).count() as u64
    }

    /// Tokens that somebody who follows the audience asks about at once.
    pub(crate) const fn to_look_up(&self) -> u64 {
        self.to_look_up
    }
}

/// Whether a token is asked about as soon as an audience with it is followed: it never was, or its time has come while it
/// rested.
fn is_asked_at_once(deps: &Deps, record: &TokenRecord, now: u64) -> bool {
    let Some(asked) = record.asked_at else { return true };
    let mut awake = record.clone();
    awake.is_wanted();
    awake.unpropagated = false;
    awake.due(now).is_some_and(|at| at <= now || asked + deps.settings.scaled(at.saturating_sub(asked)) <= now)
}

/// Begins to read: writes down the members that are counted.
pub(crate) async fn begin(deps: &Deps, members: &Members<'_>, number: u64) -> Step<Pass> {
    let as_of = members.head().base.as_ref().map_or(0, |base| base.as_of);
    let mut writer = Writer::begin(deps, "runs/members", as_of);
    let mut rows = members.rows().await?;
    while let Some(piece) = rows.next().await? {
        writer.rows(&piece).await?;
    }
    Ok(Pass { number, as_of: deps.now(), members: writer.end().await?, found_key: None, shard: 0, after: None })
}

/// What was found so far.
pub(crate) async fn take_up(deps: &Deps, pass: &mut Pass) -> Step<(Arc<Base>, Found)> {
    let members = read_base(deps, &pass.members).await?;
    let found = match &pass.found_key {
        None => Found::new(members.len()),
        Some(key) => {
            let bytes = deps.ports.objects.get(key).await?.ok_or_else(|| Failure::retry("a pass was replaced"))?;
            Found::decode(&bytes, members.len()).unwrap_or_else(|| {
                // Of another version: from the beginning, over the same members.
                (pass.shard, pass.after) = (0, None);
                Found::new(members.len())
            })
        }
    };
    Ok((members, found))
}

/// Writes down what was found so far. Returns the object that this replaces: garbage once the checkpoint is written.
pub(crate) async fn put_by(deps: &Deps, pass: &mut Pass, found: &Found) -> Step<Option<String>> {
    let key = format!("runs/found/{}", deps.fresh_id());
    deps.ports.objects.put(&key, Bytes::from(found.encode())).await?;
    Ok(pass.found_key.replace(key))
}

/// How far a slice came.
pub(crate) struct Slice {
    /// Every record has been read.
    pub(crate) whole: bool,
    /// A token was woken that Marketo is to be asked about.
    woken: bool,
}

/// Reads on until every record was read or the slice is over. `wakes`: tokens that rest are woken, for the audience is
/// followed.
pub(crate) async fn read_on(
    deps: &Deps,
    munchkin: &MunchkinId,
    pass: &mut Pass,
    members: &Base,
    found: &mut Found,
    wakes: bool,
    deadline: u64,
) -> Step<Slice> {
    let mut records = 0;
    let mut woken = false;
    while pass.shard < 2 * SHARDS {
        let shard = match pass.shard.checked_sub(SHARDS) {
            None => token_shard(munchkin, pass.shard),
            Some(shard) => lead_shard(munchkin, shard),
        };
        let limit = PAGE.min(deps.settings.slice_records);
        let page = deps.ports.tables.query(Table::Identity, &shard, "", pass.after.as_deref(), limit, Read::Consistent);
        let page = page.await?;
        records += page.items.len();
        let mut resting = Vec::new();
        for item in page.items {
            if pass.shard < SHARDS {
                let token: Doc<TokenRecord> = doc::read(item)?;
                if found.token(members, &token.value) {
                    found.inside += 1;
                    found.to_look_up += u64::from(is_asked_at_once(deps, &token.value, pass.as_of));
                    if wakes && (token.value.parked || token.value.doubted) {
                        resting.push(token);
                    }
                }
            } else {
                found.lead(members, &doc::read::<LeadRecord>(item)?.value);
            }
        }
        let waking = many(resting.into_iter().map(|token| wake(deps, munchkin, token).boxed())).await?;
        woken |= waking.contains(&true);
        pass.after = page.next;
        if pass.after.is_none() {
            pass.shard += 1;
        }
        let late = deps.now() + deps.settings.scaled(RESERVE_MS) > deadline;
        if pass.shard < 2 * SHARDS && (records >= deps.settings.slice_records || late) {
            return Ok(Slice { whole: false, woken });
        }
    }
    Ok(Slice { whole: true, woken })
}

/// Does one slice of a pass: begins it, reads on, or publishes it.
pub(crate) async fn slice(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId, deadline: u64) -> Step<Next> {
    let key = head_key(munchkin, audience);
    let Some(mut head) = load::<Head>(deps, Table::Audiences, &key).await? else { return Ok(Next::Done(None)) };
    let mut pass = match head.value.pass.clone() {
        Some(pass) => pass,
        None => {
            let Some(members) = Members::open(deps, munchkin, audience).await? else { return Ok(Next::Done(None)) };
            begin(deps, &members, head.value.pass_wanted.max(head.value.pass_done + 1)).await?
        }
    };
    // Published before the first record is read, so that whoever asks for a pass from here on gets another one.
    if head.value.pass.replace(pass.clone()).is_some() {
        checkpoint(deps, munchkin, audience, &mut head).await?;
    } else {
        // Whoever changed the head since its members were read would not be heard: the pass begins anew.
        if !save(deps, Table::Audiences, key, &head.value, Some(head.rev), None).await? {
            deps.ports.objects.delete(&pass.members.key).await?;
            return Ok(Next::Again);
        }
        head.rev += 1;
    }

    let (members, mut found) = take_up(deps, &mut pass).await?;
    let slice = read_on(deps, munchkin, &mut pass, &members, &mut found, true, deadline).await?;
    if slice.woken {
        bell::mark(deps, &BellKey::identity(munchkin)).await?;
    }
    if !slice.whole {
        let replaced = put_by(deps, &mut pass, &found).await?;
        head.value.pass = Some(pass);
        checkpoint(deps, munchkin, audience, &mut head).await?;
        if let Some(replaced) = replaced {
            deps.ports.objects.delete(&replaced).await?;
        }
        return Ok(Next::Again);
    }
    let applied = finish(deps, munchkin, audience, &pass, &found).await?;
    head.value.pass_done = pass.number;
    head.value.pass = None;
    let calls = outlook(deps, munchkin).await?;
    head.value.waiting = Some(Waiting {
        as_of: pass.as_of,
        tokens: found.to_look_up,
        of: found.inside,
        took_ms: deps.now().saturating_sub(pass.as_of),
        look_ups: calls.look_ups_today,
        calls: calls.calls_today,
    });
    checkpoint(deps, munchkin, audience, &mut head).await?;
    // Not before: whoever dies between publishing and here publishes again, from what this pass has read, and without
    // these rows what they say would be lost.
    forget(deps, &applied).await?;
    for key in [Some(pass.members.key), pass.found_key].into_iter().flatten() {
        deps.ports.objects.delete(&key).await?;
    }
    // Again: rows of work may be left, or another pass asked for.
    Ok(Next::Again)
}

/// Gives up a pass under way; its number is never published.
pub(crate) async fn abandon(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId) -> Step<()> {
    update(
        deps,
        Table::Audiences,
        &head_key(munchkin, audience),
        |head: Option<Head>| {
            let given_up = head.and_then(|mut head| {
                let pass = head.pass.take()?;
                head.pass_done = head.pass_done.max(pass.number);
                head.pass_wanted = head.pass_wanted.max(pass.number + 1);
                Some(head)
            });
            Ok((given_up, ()))
        },
        |_| None,
    )
    .await
}

async fn checkpoint(deps: &Deps, munchkin: &MunchkinId, audience: &AudienceId, head: &mut Doc<Head>) -> Step<()> {
    let key = head_key(munchkin, audience);
    for _ in 0..10 {
        if save(deps, Table::Audiences, key.clone(), &head.value, Some(head.rev), None).await? {
            head.rev += 1;
            return Ok(());
        }
        // A delivery may have changed the head meanwhile; another pass may not.
        let Some(now) = load::<Head>(deps, Table::Audiences, &key).await? else { break };
        let (ours, theirs) = (head.value.pass.as_ref(), now.value.pass.as_ref());
        let number = ours.map_or(head.value.pass_done, |pass| pass.number);
        if theirs.is_some_and(|pass| pass.number > number) || now.value.pass_done > head.value.pass_done {
            break;
        }
        let Head { pass, pass_done, waiting, .. } = head.value.clone();
        let merged = Head { pass, pass_done, waiting, ..now.value };
        *head = Doc { value: merged, rev: now.rev };
    }
    Err(Failure::retry("somebody else passes over this audience"))
}

/// Publishes what a pass has found. Returns the rows of work that it has applied.
async fn finish(
    deps: &Deps,
    munchkin: &MunchkinId,
    audience: &AudienceId,
    pass: &Pass,
    found: &Found,
) -> Step<Vec<Item>> {
    let want: Option<Doc<Want>> = load(deps, Table::Lists, &want_key(munchkin, audience)).await?;
    // Those beyond stay, and are handled next.
    let todos = todos(deps, munchkin, audience, deps.settings.pass_above.max(100)).await?;
    let (counts, people) = found.count();
    let mut wanted = people.clone();
    if holds(Guard::ReplayBeforePublish)
        && let Some(members) = Members::open(deps, munchkin, audience).await?
    {
        apply(deps, munchkin, &members, &todos, &mut wanted).await?;
    }
    let people_key = write_leads(deps, "people", &people).await?;
    let report = AudienceReport { as_of: pass.as_of, counts: counts.clone(), people_key };
    publish(deps, munchkin, audience, want, &wanted, report, pass.number).await?;
    ring_lists(deps, munchkin, audience, true).await?;
    sizes::keep(deps, munchkin, audience, pass, &counts).await?;
    Ok(todos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pass_found_is_read_as_it_was_written_and_nothing_else_is() {
        let mut found = Found::new(5);
        found.tokens = vec![0, 1, 255, 2, 0];
        found.matched[1] = true;
        (found.matched[2], found.aside[2]) = (true, true);
        found.aside[3] = true;
        (found.unasked[2], found.inside, found.to_look_up) = (true, 11, 9);
        found.people = vec![(1, 7), (4, u64::MAX)];
        let bytes = found.encode();
        assert_eq!(Found::decode(&bytes, 5), Some(found));
        for cut in [0, 3, 7, 12, bytes.len() - 1] {
            assert_eq!(Found::decode(&bytes[..cut], 5), None, "{cut}");
        }
        assert_eq!(Found::decode(&bytes, 4), None);
        assert_eq!(Found::decode(br#"{"tokens":[]}"#, 5), None);
    }
}
