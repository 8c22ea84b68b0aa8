//! Marketo: the credentials, the role's permissions, the allow-list, the quota, and the field `ecids`. Six calls at most,
//! none of which changes anything, one after the other.

use domain::LeadId;
use marketo::class::sentence;
use marketo::{CallError, DayUse, Marketo, Slot};
use ports::{Failure, Vendor};
use serde_json::json;
use state::budget::{self, Purpose, Standing};
use state::{Deps, time};

use super::{About, Area, Check, Row, USERS, in_time};
use crate::problem::Answer;

/// A lead that does not exist: the largest id that Marketo's type allows. Asked about it, Marketo shows nobody.
const NOBODY: LeadId = 2_147_483_647;
/// A list that is asked about where no sync has one. Marketo looks at the permission before it looks for the list.
const SOME_LIST: u64 = 1;
/// Marketo's answer to whoever may not.
const DENIED: &str = "603";
/// Marketo's answer to wrong credentials.
const WRONG_CREDENTIALS: &str = "401";
/// Marketo's answer where a field does not exist.
const NO_FIELD: &str = "1006";
/// A wait longer than this, in ms, before scaling, is no matter of the rate: the day's calls are spent. Ours.
const LONG_MS: u64 = 10 * 60_000;

const ADMINISTRATOR: &str = "Marketo administrator";
const ROLES: &str = "Marketo: Admin > Users & Roles > Roles, the role of the API user";

const fn about(code: &'static str, title: &'static str, place: &'static str) -> About {
    About { code, area: Area::Marketo, title, who: ADMINISTRATOR, place }
}

const CREDENTIALS: About = About {
    who: "Marketo administrator and operator of audience-sync",
    ..about(
        "marketo_credentials",
        "Marketo credentials",
        "Marketo: Admin > LaunchPoint, the custom service; AWS: Secrets Manager, the secret of the parameter MarketoSecretArn",
    )
};
const ALLOW_LIST: About =
    about("marketo_ip_allowlist", "IP allow-list", "Marketo: Admin > Web Services > IP Restrictions");
const READ_LEAD: About = about("marketo_read_lead", "Permission Read-Only Lead", ROLES);
const READ_WRITE_LEAD: About = about("marketo_read_write_lead", "Permission Read-Write Lead", ROLES);
const READ_ACTIVITY: About = about("marketo_read_activity", "Permission Read-Only Activity", ROLES);
const READ_ASSET: About = about("marketo_read_asset", "Permission Read-Only Asset", ROLES);
const READ_WRITE_ASSET: About = about("marketo_read_write_asset", "Permission Read-Write Asset", ROLES);
const QUOTA: About = about(
    "marketo_quota",
    "Calls left today",
    "Marketo: Admin > Web Services shows who calls; our part is the parameter QuotaShare",
);
const ECIDS: About =
    about("marketo_ecids", "Field ecids", "Marketo: Admin > Integration > Adobe Organization Mapping (cookie sync)");

/// The permissions, and what a sync does with each.
const PERMISSIONS: [(About, &str); 4] = [
    (READ_LEAD, "no person can be looked up and no list can be read"),
    (READ_WRITE_LEAD, "nobody can be added to a list or taken out of one"),
    (READ_ACTIVITY, "nobody notices who became known, was merged or deleted"),
    (READ_ASSET, "no folder or list can be found by its name"),
];

/// Why there is no answer.
#[derive(Debug)]
enum No {
    /// 603.
    Denied,
    /// The client id and secret are not taken.
    Credentials,
    /// Another clear refusal. See [`No::is_allowed`].
    Refused(String),
    /// Nothing may be sent before this time, in ms.
    Wait(u64),
    /// Something of ours is missing.
    Ours(String),
    /// Nobody knows.
    Silence(String),
    /// There was no time left.
    NotInTime,
}

impl No {
    /// What an error says of what was tried. `Err`: it says something of who asked, and nothing of the set-up.
    fn of(error: CallError) -> Result<Self, CallError> {
        Ok(match error {
            CallError::ViewersWait { .. } => return Err(error),
            // Somebody else's call was under way.
            CallError::Taken(_) => Self::NotInTime,
            CallError::Refused { code, .. } if code == DENIED => Self::Denied,
            CallError::Refused { code, .. } if code == WRONG_CREDENTIALS => Self::Credentials,
            CallError::Refused { code, .. } => Self::Refused(code),
            CallError::Wait(until) => Self::Wait(until),
            CallError::Unknown(reason) => Self::Silence(reason),
            CallError::Ours(Failure::Outage { reason }) => Self::Ours(reason),
            CallError::Ours(failure) => Self::Silence(super::words(&failure).to_owned()),
        })
    }

    /// Whether the answer says that the permission is there: what is refused is the question (7xx, 1xxx).
    fn is_allowed(&self) -> bool {
        matches!(self, Self::Refused(code) if (code.len() == 4 || code.starts_with('7')) && code != "703")
    }
}

/// What Marketo said to each call; `None`: it was not made.
#[derive(Default)]
struct Said {
    usage: Option<Result<Option<DayUse>, No>>,
    /// With the field `ecids`, where it is used.
    lead: Option<Result<(), No>>,
    lists: Option<Result<(), No>>,
    member: Option<Result<(), No>>,
    activities: Option<Result<(), No>>,
    folders: Option<Result<(), No>>,
    /// A token was given.
    signed_in: bool,
}

struct Asking<'a> {
    deps: &'a Deps,
    marketo: Marketo<'a>,
    until: u64,
}

impl Asking<'_> {
    /// `Err`: whoever asks may not go on.
    async fn ask<T>(&self, call: impl AsyncFnOnce(Slot) -> Result<T, CallError>) -> Result<Result<T, No>, CallError> {
        let work = async { call(self.marketo.slot().await?).await };
        Ok(match in_time(self.deps, self.until, work).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(No::of(error)?),
            None => Err(No::NotInTime),
        })
    }
}

pub(super) async fn rows(check: &Check<'_>) -> Answer<Vec<Row>> {
    let standing = budget::standing(check.deps, &check.subscription.munchkin_id).await?;
    if check.subscription.hipaa_ready {
        let means = "Nothing was tried: the instance is marked HIPAA-ready.";
        let abouts = [CREDENTIALS, ALLOW_LIST]
            .into_iter()
            .chain(PERMISSIONS.map(|(about, _)| about))
            .chain([READ_WRITE_ASSET, QUOTA, ECIDS])
            .map(|about| about.not_seen("hipaa", "nothing", means));
        return Ok(abouts.collect());
    }
    if check.deps.is_for_viewer() && standing.viewers_left == 0 {
        // Kept for others it would say what is true of viewers alone.
        let (until, now) = (standing.day_ends, check.deps.now());
        return Err(CallError::ViewersWait { until, in_ms: until.saturating_sub(now) }.into());
    }
    let said = ask(check).await?;
    let standing = if matches!(said.usage, Some(Ok(_))) {
        budget::standing(check.deps, &check.subscription.munchkin_id).await?
    } else {
        standing
    };
    let shut = said.is_shut();
    let mut rows = vec![credentials(&said), allow_list(&said)];
    for ((about, without), (call, answers)) in PERMISSIONS.into_iter().zip(said.permissions()) {
        rows.push(permission(about, without, call, &answers, shut));
    }
    rows.push(read_write_asset(check));
    rows.push(quota(check, &said, &standing));
    rows.push(ecids(check, &said));
    Ok(rows)
}

/// Makes the calls. What is spent for the day, or refused for all, is not tried again and again.
async fn ask(check: &Check<'_>) -> Result<Said, CallError> {
    let Check { deps, subscription, until, .. } = check;
    let munchkin = &subscription.munchkin_id;
    let asking = Asking { deps, marketo: Marketo::new(deps, munchkin, *until, Purpose::Control), until: *until };
    let marketo = &asking.marketo;
    let mut said = Said::default();
    // A token that was given before would hide that the credentials are not taken any more.
    deps.forget_access_token(Vendor::Marketo);
    let asked_at = deps.now();
    let usage = asking.ask(async |slot| marketo.use_by_user(slot).await).await?;
    said.signed_in = deps.access_token(Vendor::Marketo).is_some();
    if let Ok(day) = &usage {
        let used = day.as_ref().map(|day| (day.date.clone(), day.total));
        if let Err(failure) = budget::learn_use(deps, munchkin, used, asked_at).await {
            tracing::warn!(reason = %failure, "the use of the quota is shown, and not noted");
        }
    }
    let goes_on = said.signed_in && !matches!(usage, Err(No::Wait(_) | No::NotInTime));
    said.usage = Some(usage);
    if !goes_on {
        return Ok(said);
    }
    let list = check.syncs.iter().find_map(|sync| sync.list.id).unwrap_or(SOME_LIST);
    // To the second, as Marketo's documents write it.
    let now = time(deps.now() / 1_000 * 1_000);
    let ecids = subscription.cookie_sync;
    said.lead = Some(asking.ask(async |slot| marketo.leads_by_id(slot, &[NOBODY], ecids).await.map(drop)).await?);
    said.lists = Some(asking.ask(async |slot| marketo.lists_page(slot, None).await.map(drop)).await?);
    said.member = Some(asking.ask(async |slot| marketo.membership(slot, list, &[NOBODY]).await.map(drop)).await?);
    said.activities = Some(asking.ask(async |slot| marketo.paging_token(slot, &now).await.map(drop)).await?);
    said.folders = Some(asking.ask(async |slot| marketo.list_folders(slot).await.map(drop)).await?);
    Ok(said)
}

impl Said {
    /// The calls that stand for each permission of [`PERMISSIONS`], and their answers.
    fn permissions(&self) -> [(&'static str, Vec<&Result<(), No>>); 4] {
        let both = [&self.lead, &self.lists].into_iter().flatten().collect();
        let one = |answer| [answer].into_iter().flatten().collect();
        [
            ("reading a person who does not exist, and the first page of lists", both),
            ("asking whether a person who does not exist is in a list", one(&self.member)),
            ("asking where the log of activities stands", one(&self.activities)),
            ("browsing the folders of lists", one(&self.folders)),
        ]
    }

    /// Every call that was answered was answered with 603, and at least one was.
    fn is_shut(&self) -> bool {
        let calls = [&self.lead, &self.lists, &self.member, &self.activities, &self.folders].into_iter().flatten();
        let usage = self.usage.as_ref().map(|usage| usage.as_ref().map(|_| ()));
        let answers = calls.map(|answer| answer.as_ref().map(|&()| ())).chain(usage);
        let (mut denied, mut let_in) = (false, false);
        for answer in answers {
            match answer {
                Err(No::Denied) => denied = true,
                Ok(()) => let_in = true,
                Err(no) => let_in |= no.is_allowed(),
            }
        }
        denied && !let_in
    }

    /// What the first call told of them all.
    fn first(&self) -> Option<&No> {
        self.usage.as_ref()?.as_ref().err()
    }
}

fn credentials(said: &Said) -> Row {
    let tried = "asking for an access token with the stored client id and secret";
    if said.signed_in {
        return CREDENTIALS.ok("taken", tried, "Marketo takes the client id and the secret.");
    }
    match said.first() {
        Some(No::Credentials) => {
            let means = "Marketo does not take the client id and the secret: nothing works. Compare them with the custom \
                         service, and store what stands there; nothing needs to be deployed.";
            CREDENTIALS.not_ok("refused", tried, means)
        }
        Some(No::Ours(reason)) => {
            let means = format!("The stored credentials cannot be used ({reason}): nothing works.");
            CREDENTIALS.not_ok("unreadable", tried, means)
        }
        Some(No::NotInTime) | None => CREDENTIALS.not_in_time(tried),
        Some(No::Silence(reason)) => {
            let means = format!("Marketo did not answer ({reason}). Is the Munchkin id right?");
            CREDENTIALS.not_seen("no_answer", tried, means)
        }
        Some(other) => unanswered(CREDENTIALS, tried, other),
    }
}

fn allow_list(said: &Said) -> Row {
    let tried = "whether any call is let in";
    if !said.signed_in {
        return ALLOW_LIST.not_seen("not_signed_in", "nothing", "Nothing was tried: there is no access token.");
    }
    if said.is_shut() {
        let means = "Marketo gives a token and refuses every call with 603: our address is not on the allow-list, or the API \
                     user's role grants nothing at all. The functions need a fixed address (a NAT gateway) that stands there.";
        return ALLOW_LIST.not_ok("shut", tried, means);
    }
    match said.first() {
        Some(No::NotInTime) => ALLOW_LIST.not_in_time(tried),
        Some(no @ (No::Wait(_) | No::Silence(_))) => unanswered(ALLOW_LIST, tried, no),
        _ => ALLOW_LIST.ok("open", tried, "Marketo lets calls from our address in."),
    }
}

fn permission(about: About, without: &str, call: &str, answers: &[&Result<(), No>], shut: bool) -> Row {
    let tried = format!("{call} (changes nothing)");
    if answers.is_empty() {
        return about.not_seen(
            "not_tried",
            "nothing",
            "Nothing was tried, because an earlier call failed: see the rows above.",
        );
    }
    let denied = answers.iter().any(|answer| matches!(answer, Err(No::Denied)));
    if denied && shut {
        let means =
            "Every call is refused, so that nobody can tell whether this permission is missing: see the IP allow-list.";
        return about.not_seen("shut", tried, means);
    }
    if denied {
        let means = format!("The API user's role lacks this permission (603): {without}.");
        return about.not_ok("missing", tried, means);
    }
    match answers.iter().filter_map(|answer| answer.as_ref().err()).find(|no| !no.is_allowed()) {
        None => about.ok("granted", tried, "The API user's role holds this permission."),
        Some(no) => unanswered(about, &tried, no),
    }
}

/// A row of which there is no word for its own reason.
fn unanswered(about: About, tried: &str, no: &No) -> Row {
    match no {
        No::NotInTime => about.not_in_time(tried),
        No::Wait(until) => {
            let until = time(*until);
            let means =
                format!("Marketo's limits, or our share of them, are used up until {until}: it could not be tried.");
            about.not_seen("limits", tried, means).with("until", json!(until))
        }
        No::Refused(code) => {
            let means = format!("Marketo refuses with code {code}: {}", sentence(code));
            about.not_ok("refused", tried, means).with("marketo_code", json!(code))
        }
        No::Silence(reason) | No::Ours(reason) => {
            about.not_seen("no_answer", tried, format!("There was no clear answer ({reason})."))
        }
        No::Denied | No::Credentials => about.not_ok("missing", tried, "Marketo refuses us."),
    }
}

/// No call tries it without making something; a list that we made tells.
fn read_write_asset(check: &Check<'_>) -> Row {
    let tried = "whether a sync of ours has made its list (no harmless call tells)";
    match check.syncs.iter().find(|sync| sync.list.ours && sync.list.id.is_some()) {
        Some(sync) => {
            let means = "A list was made, so the API user's role held this permission then.";
            READ_WRITE_ASSET.ok("used", tried, means).with("list_id", json!(sync.list.id))
        }
        None => {
            let means = "No list was made yet. Only syncs into new lists need this permission; without it the first of them says so.";
            READ_WRITE_ASSET.not_seen("not_used_yet", tried, means)
        }
    }
}

fn quota(check: &Check<'_>, said: &Said, standing: &Standing) -> Row {
    let settings = &check.deps.settings;
    let Standing { left, ours, others, day_ends, share, .. } = *standing;
    let (per_day, day_ends) = (settings.quota_per_day, time(day_ends));
    let tried = "asking Marketo how many calls were made today, and by whom";
    let told = said.usage.as_ref().and_then(|usage| usage.as_ref().ok()?.as_ref());
    let users = told.map_or(&[][..], |day| &day.users);
    let with = |row: Row| {
        row.with("left", json!(left))
            .with("ours", json!(ours))
            .with("others", json!(told.map(|_| others)))
            .with("per_day", json!(per_day))
            .with("share", json!(share))
            .with("day_ends", json!(day_ends))
            .with("user_count", json!(told.map(|_| users.len())))
            .with(USERS, users.iter().map(|(user, calls)| json!({"user": user, "calls": calls})).collect())
    };
    let spent = |until: u64| until > check.deps.now().saturating_add(settings.scaled(LONG_MS));
    let refused_for_today = matches!(said.first(), Some(No::Wait(until)) if spent(*until));
    if left == 0 || refused_for_today {
        let means = format!(
            "The calls of today are used up: we made {ours} and others {others} of {per_day}. Lists are not written until {day_ends}."
        );
        return with(QUOTA.not_ok("used_up", tried, means));
    }
    if others > per_day.saturating_sub(share) {
        let means = format!(
            "Other tools made {others} of the day's {per_day} calls, more than the {} that we leave to them: of our {share} \
             only {left} are left until {day_ends}.",
            per_day.saturating_sub(share)
        );
        return with(QUOTA.not_ok("others_use_more", tried, means));
    }
    let means = match told {
        Some(_) => {
            format!("{left} calls are left to us until {day_ends}: we made {ours}, other tools {others} of {per_day}.")
        }
        None => format!(
            "By our own count {left} calls are left to us until {day_ends}. Marketo did not tell what other tools use: their \
             use is felt as codes 606 and 607."
        ),
    };
    with(QUOTA.ok(if told.is_some() { "left" } else { "left_by_our_count" }, tried, means))
}

fn ecids(check: &Check<'_>, said: &Said) -> Row {
    let tried = "reading the field of a person who does not exist";
    if !check.subscription.cookie_sync {
        return ECIDS.not_used("cookie_sync_off", "Cookie sync is off, so that Marketo stores no ECIDs.");
    }
    let missing = "This Marketo instance has no field ecids: what Marketo itself has matched is not read, and people are found \
                   by the tag and by matches alone. The field comes with the Experience Cloud audience sharing.";
    match (&said.lead, check.identity.extract.no_ecids) {
        (Some(Err(No::Refused(code))), _) if code == NO_FIELD => ECIDS.not_ok("missing", tried, missing),
        (Some(Ok(())), true) => {
            let means = "The field is there now. It was not when people were first read, so what Marketo had matched before \
                         is not read.";
            ECIDS.not_ok("came_late", tried, means)
        }
        (Some(Ok(())), false) => {
            ECIDS.ok("there", tried, "The field is there: what Marketo has matched is read each day.")
        }
        (_, true) => ECIDS.not_ok("missing", "what the daily extract was answered", missing),
        (Some(Err(no)), false) => match no {
            No::Denied => ECIDS.not_seen(
                "denied",
                tried,
                "Reading people is refused, so that nobody can tell: see the rows above.",
            ),
            no => unanswered(ECIDS, tried, no),
        },
        (None, false) => ECIDS.not_seen(
            "not_tried",
            "nothing",
            "Nothing was tried, because an earlier call failed: see the rows above.",
        ),
    }
}
