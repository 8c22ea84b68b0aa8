//! The edges of a subscription, ECID to token or lead, as one sorted object: what a pass over an audience joins its members
//! with, instead of reading every token's item.

use std::collections::HashSet;

use crate::base::mix;
use crate::identity::{LeadRecord, TokenRecord};
use crate::limits::TOKENS_PER_ECID;
use crate::planted::{Guard, holds};
use crate::report::AudienceCounts;
use crate::rows::Row;
use crate::{LeadId, LeadSet};

/// The token is over its cap: its edges count for nobody.
const ASIDE: u8 = 1;
/// Marketo was never asked about the token.
const UNASKED: u8 = 2;
/// Nobody asks Marketo about the token, for it was found in no audience that is followed.
const RESTS: u8 = 4;
/// The token has other ECIDs.
const SHARED: u8 = 8;
/// The lead is known.
const KNOWN: u8 = 16;

/// Sources that are leads; those that are tokens have this bit not set.
const LEAD: u128 = 1 << 127;

/// Where an edge is from: a token, by a digest of it, or a lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source(u128);

impl Source {
    /// A token, by a digest of it that nobody can choose.
    #[must_use]
    pub const fn token(digest: u128) -> Self {
        Self(digest & !LEAD)
    }

    /// A lead.
    #[must_use]
    pub const fn lead(lead: LeadId) -> Self {
        Self(LEAD | lead as u128)
    }

    /// As text.
    #[must_use]
    pub fn text(self) -> String {
        format!("{:032x}", self.0)
    }

    /// Reads what [`Source::text`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        u128::from_str_radix(text, 16).ok().map(Self)
    }

    const fn is_lead(self) -> bool {
        self.0 & LEAD != 0
    }
}

/// An edge. Edges are ordered by their rows, and those of one row by where they are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The row of its ECID ([`mix`]).
    pub row: u128,
    /// Where it is from.
    pub source: Source,
    /// Who owns the token, or the lead itself, if known; else 0.
    lead: LeadId,
    /// From when on, in ms, somebody who follows the audience asks Marketo about the token at once.
    ask_at: u64,
    flags: u8,
}

impl Row for Edge {
    const SIZE: u64 = 49;
    const MAGIC: [u8; 4] = *b"ASE1";
    const END: [u8; 4] = *b"1ESA";
    const FENCED: bool = false;

    fn put(self, out: &mut Vec<u8>) {
        let mut bytes = [0; 49];
        bytes[..16].copy_from_slice(&self.row.to_be_bytes());
        bytes[16..32].copy_from_slice(&self.source.0.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.lead.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.ask_at.to_be_bytes());
        bytes[48] = self.flags;
        out.extend_from_slice(&bytes);
    }

    fn take(bytes: &[u8], out: &mut Vec<Self>) {
        let wide = |bytes: &[u8; 49], from: usize| u128::from_be_bytes(std::array::from_fn(|at| bytes[from + at]));
        let number = |bytes: &[u8; 49], from: usize| u64::from_be_bytes(std::array::from_fn(|at| bytes[from + at]));
        out.extend(bytes.as_chunks().0.iter().map(|bytes| Self {
            row: wide(bytes, 0),
            source: Source(wide(bytes, 16)),
            lead: number(bytes, 32),
            ask_at: number(bytes, 40),
            flags: bytes[48],
        }));
    }
}

/// Adds a token's edges. `ask_at`: from when on, in ms, it is asked about at once by whoever follows an audience with it.
pub fn of_token(record: &TokenRecord, source: Source, ask_at: u64, out: &mut Vec<Edge>) {
    let flag = |holds: bool, flag: u8| if holds { flag } else { 0 };
    let flags = flag(record.set_aside(), ASIDE)
        | flag(record.asked_at.is_none(), UNASKED)
        | flag(record.parked || record.doubted, RESTS)
        | flag(record.ecids.len() > 1, SHARED)
        | flag(record.person().is_some(), KNOWN);
    let lead = record.person().unwrap_or_default();
    out.extend(record.ecids.keys().map(|ecid| Edge { row: mix(*ecid), source, lead, ask_at, flags }));
}

/// Adds the edges that Marketo itself has stored for a lead.
pub fn of_lead(record: &LeadRecord, out: &mut Vec<Edge>) {
    let known = record.known && !record.gone;
    let (lead, flags) = if known { (record.lead, KNOWN) } else { (0, 0) };
    let source = Source::lead(record.lead);
    let counted = record.counted().into_iter().flatten();
    out.extend(counted.map(|ecid| Edge { row: mix(*ecid), source, lead, ask_at: u64::MAX, flags }));
}

/// Edges with all those of some sources replaced. All ascend. `new` is then at the first edge that comes after the piece; with
/// `is_last` nothing does.
pub fn replace(edges: &[Edge], gone: &HashSet<Source>, new: &mut &[Edge], is_last: bool, out: &mut Vec<Edge>) {
    for edge in edges {
        let before = new.partition_point(|new| new < edge);
        let (some, rest) = new.split_at(before);
        out.extend_from_slice(some);
        *new = rest;
        if !gone.contains(&edge.source) {
            out.push(*edge);
        }
    }
    if is_last {
        out.extend_from_slice(new);
        *new = &[];
    }
}

/// Counts what became of an audience's ECIDs, in the order of rows.
#[derive(Debug)]
pub struct Census {
    as_of: u64,
    counts: AudienceCounts,
    not_asked: u64,
    people: Vec<LeadId>,
    inside: u64,
    to_look_up: u64,
    /// Tokens of several ECIDs that were met.
    met: HashSet<Source>,
}

/// What a [`Census`] found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// What became of every ECID.
    pub counts: AudienceCounts,
    /// The known people.
    pub people: LeadSet,
    /// ECIDs with a match, of nobody known, of whose tokens Marketo was never asked about at least one.
    pub not_asked: u64,
    /// Tokens that were seen beside any ECID of the audience.
    pub inside: u64,
    /// Those of them that somebody who follows the audience asks about at once.
    pub to_look_up: u64,
}

impl Census {
    /// At a time, in ms.
    #[must_use]
    pub fn new(as_of: u64) -> Self {
        Self {
            as_of,
            counts: AudienceCounts::default(),
            not_asked: 0,
            people: Vec::new(),
            inside: 0,
            to_look_up: 0,
            met: HashSet::new(),
        }
    }

    /// Counts members as far as their edges are at hand; both ascend, none twice. What was counted is taken off both. When it
    /// returns, one of them is at its end, or may go on where it ends: more is to be brought. `are_all`: no more edges come.
    /// `resting`: is told of each member with a token that nobody asks about.
    pub fn join(&mut self, members: &mut &[u128], edges: &mut &[Edge], are_all: bool, mut resting: impl FnMut(u128)) {
        let mut left = *edges;
        loop {
            self.join_plain(members, &mut left);
            let Some((member, rest)) = members.split_first() else { break };
            while left.first().is_some_and(|edge| edge.row < *member) {
                left = &left[1..];
            }
            let count = left.iter().take_while(|edge| edge.row == *member).count();
            if count == left.len() && !are_all {
                // The next edge may be this member's, too.
                break;
            }
            if self.member(&left[..count]) {
                resting(*member);
            }
            left = &left[count..];
            *members = rest;
        }
        *edges = left;
    }

    /// Counts members as long as each has one edge or none, and that a token's of which nothing else is to be said, as nearly
    /// all are. Whether a member has an edge and whether its lead is known is anybody's guess, a processor's, too: there is no
    /// branch for it.
    fn join_plain(&mut self, members: &mut &[u128], edges: &mut &[Edge]) {
        let (mut matches, mut known, mut look_ups) = (0, 0, 0);
        let mut left = *edges;
        let mut count = 0;
        for member in *members {
            while left.first().is_some_and(|edge| edge.row < *member) {
                left = &left[1..];
            }
            let [edge, next, ..] = left else { break };
            let is_plain = edge.flags & !KNOWN == 0 && !edge.source.is_lead() && next.row != *member;
            if !is_plain && edge.row == *member {
                break;
            }
            let is_match = u64::from(edge.row == *member);
            let is_known = is_match & u64::from(edge.flags == KNOWN);
            matches += is_match;
            known += is_known;
            look_ups += is_match & u64::from(edge.ask_at <= self.as_of);
            self.people.push(edge.lead);
            self.people.truncate(self.people.len() - 1 + is_known as usize);
            left = &left[is_match as usize..];
            count += 1;
        }
        self.counts.audience += count as u64;
        self.counts.no_match += count as u64 - matches;
        self.counts.known += known;
        self.counts.anonymous += matches - known;
        self.inside += matches;
        self.to_look_up += look_ups;
        (*members, *edges) = (&members[count..], left);
    }

    /// Counts one member by its edges. Returns whether a token of it rests.
    fn member(&mut self, edges: &[Edge]) -> bool {
        self.counts.audience += 1;
        if edges.is_empty() {
            self.counts.no_match += 1;
            return false;
        }
        let (mut tokens, mut matched, mut aside, mut unasked, mut rests) = (0, false, false, false, false);
        let people = self.people.len();
        for edge in edges {
            let is = |flag: u8| edge.flags & flag != 0;
            if edge.source.is_lead() {
                matched = true;
            } else {
                tokens += 1;
                rests |= is(RESTS);
                if !is(SHARED) || self.met.insert(edge.source) {
                    self.inside += 1;
                    self.to_look_up += u64::from(edge.ask_at <= self.as_of);
                }
                if is(ASIDE) {
                    aside = true;
                    continue;
                }
                matched = true;
                unasked |= is(UNASKED);
            }
            if is(KNOWN) {
                self.people.push(edge.lead);
            }
        }
        let known = self.people.len() > people;
        let over = tokens > TOKENS_PER_ECID;
        if over {
            self.people.truncate(people);
        } else if unasked && !known {
            self.not_asked += 1;
        }
        let class = if over {
            &mut self.counts.set_aside
        } else if known {
            &mut self.counts.known
        } else if matched {
            &mut self.counts.anonymous
        } else {
            // There is an edge, and it counts for nobody.
            debug_assert!(aside);
            &mut self.counts.set_aside
        };
        *class += 1;
        rests
    }

    /// What was found.
    #[must_use]
    pub fn end(mut self) -> Found {
        let counted = self.people.len() as u64;
        let people = LeadSet::of(self.people);
        self.counts.people = if holds(Guard::PeopleAreASet) { people.len() } else { counted };
        Found {
            counts: self.counts,
            people,
            not_asked: self.not_asked,
            inside: self.inside,
            to_look_up: self.to_look_up,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::rows::{Encoder, decode};
    use crate::{Ecid, Token};

    fn ecid(n: u8) -> Ecid {
        Ecid::from_number(u128::from(n)).unwrap()
    }

    fn source(n: usize) -> Source {
        Source::token(u128::MAX - n as u128)
    }

    /// A token seen beside some ECIDs; asked about, resting, and owned as the numbers say.
    fn token(n: usize, ecids: &BTreeSet<u8>, state: u8, lead: u64) -> TokenRecord {
        let text = format!("_mch-example.com-{}-{n}", 1_700_000_000_000_u64 + n as u64);
        let mut token = TokenRecord::new(Token::parse(&text).unwrap());
        for n in ecids {
            token.sight(ecid(*n), 1);
        }
        token.asked_at = (state & 1 == 0).then_some(5);
        token.parked = state & 2 != 0;
        token.lead = (lead > 0).then_some(lead);
        token.known = state & 4 == 0 && lead > 0;
        token
    }

    fn lead(id: u64, ecids: &BTreeSet<u8>, known: bool) -> LeadRecord {
        let mut lead = LeadRecord::new(id);
        lead.told(known, ecids.iter().map(|n| ecid(*n)).collect(), 1);
        lead
    }

    fn edges(tokens: &[TokenRecord], leads: &[LeadRecord]) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (n, record) in tokens.iter().enumerate() {
            of_token(record, source(n), if record.asked_at.is_none() { 0 } else { 100 }, &mut edges);
        }
        for record in leads {
            of_lead(record, &mut edges);
        }
        edges.sort_unstable();
        edges
    }

    /// The same by looking at every record for every member.
    fn counted(members: &BTreeSet<u8>, tokens: &[TokenRecord], leads: &[LeadRecord]) -> (Found, BTreeSet<u8>) {
        let (mut found, mut people, mut resting) = (Found::default(), BTreeSet::new(), BTreeSet::new());
        for n in members {
            let own: Vec<&TokenRecord> = tokens.iter().filter(|token| token.ecids.contains_key(&ecid(*n))).collect();
            let counting: Vec<&&TokenRecord> = own.iter().filter(|token| !token.set_aside()).collect();
            let told: Vec<&LeadRecord> =
                leads.iter().filter(|lead| lead.counted().is_some_and(|ecids| ecids.contains(&ecid(*n)))).collect();
            let mut owners: BTreeSet<u64> = counting.iter().filter_map(|token| token.person()).collect();
            owners.extend(told.iter().filter(|lead| lead.known).map(|lead| lead.lead));
            if own.iter().any(|token| token.parked) {
                resting.insert(*n);
            }
            found.counts.audience += 1;
            let over = own.len() > TOKENS_PER_ECID;
            *(if over {
                &mut found.counts.set_aside
            } else if !owners.is_empty() {
                people.append(&mut owners);
                &mut found.counts.known
            } else if !counting.is_empty() || !told.is_empty() {
                found.not_asked += u64::from(counting.iter().any(|token| token.asked_at.is_none()));
                &mut found.counts.anonymous
            } else if !own.is_empty() {
                &mut found.counts.set_aside
            } else {
                &mut found.counts.no_match
            }) += 1;
        }
        let inside = tokens.iter().filter(|token| members.iter().any(|n| token.ecids.contains_key(&ecid(*n))));
        for token in inside {
            found.inside += 1;
            found.to_look_up += u64::from(token.asked_at.is_none());
        }
        found.people = people.into_iter().collect();
        found.counts.people = found.people.len();
        (found, resting)
    }

    fn joined(members: &[u128], edges: &[Edge], size: usize) -> (Found, BTreeSet<u128>) {
        let (mut census, mut resting) = (Census::new(50), BTreeSet::new());
        let (mut left, mut taken) = (Vec::new(), 0);
        for piece in members.chunks(size) {
            let mut piece = piece;
            while !piece.is_empty() {
                let mut some = &left[..];
                census.join(&mut piece, &mut some, taken == edges.len(), |row| assert!(resting.insert(row)));
                left = some.to_vec();
                let more = edges.len().min(taken + size);
                left.extend_from_slice(&edges[taken..more]);
                taken = more;
            }
        }
        (census.end(), resting)
    }

    proptest! {
        #[test]
        fn what_is_joined_by_pieces_is_what_is_found_record_by_record(
            members in proptest::collection::btree_set(0..30_u8, 0..30),
            tokens in proptest::collection::vec(
                (proptest::collection::btree_set(0..60_u8, 0..9), 0..8_u8, 0..6_u64, proptest::bool::weighted(0.1)), 0..40,
            ),
            leads in proptest::collection::btree_map(
                1..9_u64, (proptest::collection::btree_set(0..40_u8, 0..5), proptest::bool::ANY), 0..6,
            ),
            size in 1..40_usize,
        ) {
            let all: BTreeSet<u8> = (0..60).collect();
            let tokens: Vec<TokenRecord> = tokens
                .iter()
                .enumerate()
                .map(|(n, (ecids, state, lead, aside))| token(n, if *aside { &all } else { ecids }, *state, *lead))
                .collect();
            let leads: Vec<LeadRecord> = leads.iter().map(|(id, (ecids, known))| lead(*id, ecids, *known)).collect();
            let mut rows: Vec<u128> = members.iter().map(|n| mix(ecid(*n))).collect();
            rows.sort_unstable();
            let (found, resting) = joined(&rows, &edges(&tokens, &leads), size);
            let (expected, rest) = counted(&members, &tokens, &leads);
            prop_assert_eq!(found, expected);
            prop_assert_eq!(resting, rest.iter().map(|n| mix(ecid(*n))).collect::<BTreeSet<_>>());
        }

        #[test]
        fn edges_of_changed_records_are_replaced_and_no_others(
            before in proptest::collection::btree_map(0..20_usize, proptest::collection::btree_set(0..60_u8, 0..5), 0..15),
            after in proptest::collection::btree_map(0..20_usize, proptest::collection::btree_set(0..60_u8, 0..5), 0..15),
            size in 1..20_usize,
        ) {
            let of = |records: &BTreeMap<usize, BTreeSet<u8>>| {
                let mut edges = Vec::new();
                for (n, ecids) in records {
                    of_token(&token(*n, ecids, 0, 0), source(*n), 0, &mut edges);
                }
                edges.sort_unstable();
                edges
            };
            let (old, new) = (of(&before), of(&after));
            let gone: HashSet<Source> = after.keys().map(|n| source(*n)).collect();
            let (mut left, mut out) = (&new[..], Vec::new());
            for piece in old.chunks(size) {
                replace(piece, &gone, &mut left, false, &mut out);
            }
            replace(&[], &gone, &mut left, true, &mut out);
            prop_assert!(left.is_empty());
            let mut merged = before;
            merged.extend(after);
            prop_assert_eq!(&out, &of(&merged));

            let mut bytes = Vec::new();
            let mut encoder = Encoder::begin(9, &mut bytes);
            for piece in out.chunks(size) {
                encoder.rows(piece, &mut bytes);
            }
            prop_assert_eq!(encoder.end(&mut bytes), out.len() as u64);
            prop_assert_eq!(decode::<Edge>(&bytes), Some((out, 9)));
        }
    }
}
