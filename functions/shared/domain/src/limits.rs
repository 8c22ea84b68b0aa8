//! Limits, each with its unit and source.

/// Leads in one call to Marketo (Marketo, "batch sizes": 300 records).
pub const MARKETO_BATCH: usize = 300;
/// How long after we gave up on a call it may still take effect, in ms (design, invariant 5).
pub const LATE_EFFECT_MS: u64 = 180_000;
/// Longest life of an invocation of the queue-driven functions, in ms (design, invariant 4).
pub const FUNCTION_MS: u64 = 120_000;
/// Tokens of one ECID; above, the ECID is set aside (design §5).
pub const TOKENS_PER_ECID: usize = 10;
/// ECIDs of one token; above, the token is set aside (design §5).
pub const ECIDS_PER_TOKEN: usize = 50;
/// ECIDs of one lead, as Marketo tells them; above, Marketo's word on this lead is set aside. Ours: it keeps an
/// item below 400 KB.
pub const ECIDS_PER_LEAD: usize = 1_000;
/// The largest lead id that is taken from outside. Ours: Marketo's `describe2` calls the id an integer, and says no more.
pub const LEAD_ID_MOST: u64 = i32::MAX as u64;
/// A repeat within this time of the stored last sight writes nothing, in ms (design, bar P1).
pub const SIGHT_GRAIN_MS: u64 = 30 * DAY_MS;
/// How long a match counts after its last sight where nothing else is set, in days: 13 months (issue 4).
pub const MATCH_LIFETIME_DAYS: u64 = 396;
/// New pairs that browsers may show a day where a subscription says nothing else; beyond it only some are kept. Ours:
/// a site with five times as many visitors as Marketo's usual database has leads.
pub const NEW_PAIRS_PER_DAY: u64 = 1_000_000;
/// One hour in ms.
pub const HOUR_MS: u64 = 3_600_000;
/// One day in ms.
pub const DAY_MS: u64 = 24 * HOUR_MS;
/// A lead that Marketo refused is tried again after this time, in ms (issue 3: "once a day").
pub const REFUSED_RETRY_MS: u64 = DAY_MS;
/// Matches in one `POST /matches`.
pub const MATCHES_PER_REQUEST: usize = 500;
/// Rejected rows of one import that are kept; beyond it they are only counted. Ours.
pub const REJECTS_KEPT: usize = 100;
