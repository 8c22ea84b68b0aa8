//! Asks a live Marketo instance what its documents do not say: whether Bulk Lead Import puts people into a list by a
//! file that holds nothing but their ids. It makes the very calls that the list-writer would make.

mod memory;

use domain::{LeadId, LeadSet, ListId, MunchkinId};
use marketo::{CallError, Import, ImportId, ImportState, Marketo, class};
use ports::Credentials;
use state::budget::Purpose;
use state::{Deps, Settings};

/// A job is asked about this often, in ms, before scaling (Marketo, "bulk lead import": every 5 to 30 s).
const POLL_MS: u64 = 30_000;
/// A job of one row that has not ended by then is given up, in ms, before scaling. Ours.
const PATIENCE_MS: u64 = 3_600_000;
/// Only a name for the row that counts our calls: the address says which instance it is.
const MUNCHKIN: &str = "000-AAA-000";

/// The instance to be asked.
#[derive(Debug)]
pub struct Instance {
    /// Address of its REST interface, with or without `/rest`.
    pub url: String,
    /// The custom service.
    pub credentials: Credentials,
    /// Every wait is multiplied by it; 1 for a live instance.
    pub time_scale: f64,
}

/// What came out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Bulk import may be switched on for this instance.
    pub works: bool,
    /// Why, in a sentence.
    pub why: String,
}

impl Verdict {
    fn no(why: impl Into<String>) -> Self {
        Self { works: false, why: why.into() }
    }
}

/// Puts one person, who must not be in the list, into the list by a file with one id. Each step is told as it is taken.
///
/// # Errors
/// When Marketo cannot be reached, or nobody knows what came of a call: then the probe has found nothing out.
pub async fn probe(
    instance: Instance,
    list: ListId,
    lead: LeadId,
    tell: &mut (dyn FnMut(&str) + Send),
) -> anyhow::Result<Verdict> {
    let url = instance.url.trim_end_matches('/').trim_end_matches("/rest").to_owned();
    anyhow::ensure!(!url.is_empty(), "the address of the instance is empty");
    let settings = Settings {
        time_scale: instance.time_scale,
        quota_share: 0.5,
        quota_per_day: 50_000,
        match_lifetime_ms: 0,
        marketo_url: url,
        ims_url: String::new(),
        aam_url: String::new(),
        aep_url: String::new(),
        aep_folders_url: String::new(),
        aep_sandbox: String::new(),
        adobe_scopes: String::new(),
        pass_above: 1,
        slice_records: 1,
        entries_at_once: 1_000,
        run_above: 1_000,
        fold_after_ms: 8 * 86_400_000,
    };
    let deps = Deps::new(memory::ports(instance.credentials)?, settings);
    let munchkin = MunchkinId::parse(MUNCHKIN).ok_or_else(|| anyhow::anyhow!("not a Munchkin id"))?;
    let deadline = deps.now() + deps.settings.scaled(2 * PATIENCE_MS);
    let marketo = Marketo::new(&deps, &munchkin, deadline, Purpose::Control);
    match steps(&deps, marketo, list, lead, tell).await {
        Ok(verdict) => Ok(verdict),
        Err(CallError::Refused { code, request_id }) => {
            let sentence = class::sentence(&code);
            Ok(Verdict::no(format!("Marketo refused: {sentence} (code {code}, request {request_id})")))
        }
        Err(CallError::Wait(_)) => anyhow::bail!("Marketo takes no more calls or imports for now: try again later"),
        Err(error) => Err(anyhow::anyhow!("{error}")),
    }
}

async fn steps(
    deps: &Deps,
    marketo: Marketo<'_>,
    list: ListId,
    lead: LeadId,
    tell: &mut (dyn FnMut(&str) + Send),
) -> Result<Verdict, CallError> {
    tell("Is the person in the list already?");
    let before = marketo.membership(marketo.slot().await?, list, &[lead]).await?;
    if before.members.contains(lead) {
        return Ok(Verdict::no("the person is in the list already, which proves nothing: name another"));
    }
    if !before.not_members.contains(lead) {
        return Ok(Verdict::no("Marketo does not show this person to the API user: name another"));
    }
    tell("No. A file with one id is imported into the list.");
    let id = marketo.start_import(marketo.slot().await?, list, &LeadSet::from_iter([lead])).await?;
    let Some(end) = wait(deps, marketo, id, tell).await? else {
        return Ok(Verdict::no("the import had not ended after an hour: look at it in Marketo"));
    };
    tell(&format!("It has ended: {} rows taken, {} failed, {} with a warning.", end.processed, end.failed, end.warned));
    for (rows, what) in [(end.failed, "failed"), (end.warned, "was taken with a warning")] {
        if rows == 0 {
            continue;
        }
        let slot = marketo.slot().await?;
        let file = if what == "failed" {
            marketo.import_failures(slot, id).await?
        } else {
            marketo.import_warnings(slot, id).await?
        };
        if !file.iter().any(|(told, _)| *told == lead) {
            return Ok(Verdict::no(format!("a row {what}, and Marketo's file does not say whose")));
        }
        for (_, reason) in file {
            tell(&format!("The row {what}: {reason}"));
        }
    }
    tell("Is the person in the list now?");
    let after = marketo.membership(marketo.slot().await?, list, &[lead]).await?;
    let joined = after.members.contains(lead);
    tell(if joined { "Yes. Take them out by hand if they do not belong there." } else { "No." });
    Ok(match (end.state, joined) {
        (ImportState::Complete, true) if end.processed + end.failed >= 1 && end.failed == 0 => Verdict {
            works: true,
            why: "a file of ids alone put the person into the list, and Marketo counted the row".to_owned(),
        },
        (ImportState::Complete, true) => {
            Verdict::no("the person is in the list, but Marketo counts the row as failed, or not at all")
        }
        (ImportState::Complete, false) => {
            Verdict::no("Marketo calls the import complete, but the person is not in the list")
        }
        (_, true) => Verdict::no("Marketo calls the import failed, although the person is in the list"),
        (_, false) => Verdict::no("the import failed"),
    })
}

/// Waits for the end of an import; `None`: it takes too long.
async fn wait(
    deps: &Deps,
    marketo: Marketo<'_>,
    id: ImportId,
    tell: &mut (dyn FnMut(&str) + Send),
) -> Result<Option<Import>, CallError> {
    let until = deps.now() + deps.settings.scaled(PATIENCE_MS);
    while deps.now() < until {
        tell("Waiting for the end of the import ...");
        deps.ports.clock.sleep_ms(deps.settings.scaled(POLL_MS)).await;
        let status = marketo.import_status(marketo.slot().await?, id).await?;
        if status.state != ImportState::Running {
            return Ok(Some(status));
        }
    }
    Ok(None)
}
