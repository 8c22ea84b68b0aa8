//! The edges of a subscription, ECID to token or lead, as one sorted object: what a pass over an audience joins its members
//! with, instead of reading every token's item.

use std::collections::HashSet;

use crate::base::mix;
use crate::identity::{LeadRecord, TokenRecord};
use crate::limits::TOKENS_PER_ECID;
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

    fn take(bytes: &[u8]) -> Option<Self> {
        let (row, rest) = bytes.split_first_chunk()?;
        let (source, rest) = rest.split_first_chunk()?;
        let (lead, rest) = rest.split_first_chunk()?;
        let (ask_at, rest) = rest.split_first_chunk()?;
        Some(Self {
            row: u128::from_be_bytes(*row),
            source: Source(u128::from_be_bytes(*source)),
            lead: u64::from_be_bytes(*lead),
            ask_at: u64::from_be_bytes(*ask_at),
            flags: *rest.first()?,
        })
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
        while let Some((member, rest)) = members.split_first() {
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
        self.people.sort_unstable();
        let people: LeadSet = self.people.into_iter().collect();
        self.counts.people = people.len();
        Found {
            counts: self.counts,
            people,
            not_asked: self.not_asked,
            inside: self.inside,
            to_look_up: self.to_look_up,
        }
    }
}
