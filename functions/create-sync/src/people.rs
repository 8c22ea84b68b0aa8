//! Erasing people, and the secrets with which others may point at one.

use std::collections::BTreeSet;

use domain::limits::LEAD_ID_MOST;
use domain::said::Said;
use domain::{Ecid, MunchkinId, Token};
use marketo::Marketo;
use ports::{Failure, Table};
use serde_json::{Value, json};
use state::bell::{self, BellKey};
use state::budget::Purpose;
use state::erase::{Job, Phase, Subject, answers, job, save_job};
use state::syncs::{HintSecret, HintSecrets, hint_secrets_key};
use state::{Deps, time, update};

use crate::orders::unknown;
use crate::problem::{Answer, Problem};
use crate::routes::Request;

const SUBJECTS: [&str; 4] = ["ecid", "token", "lead_id", "email"];
/// What an erasure does not reach, for whoever has to answer the person.
const NOT_REACHED: &str = "What Adobe delivered (files, and the members of an audience as Adobe names them) is Adobe's \
    word on the browser: files expire by themselves after 35 days, and an audience loses the browser once Adobe \
    deletes it there. Marketo's own record of the person is Marketo's. Numbers of people (Marketo ids) stand in \
    reports until the next report, and may stand in files of earlier results that nothing reads any more. What is \
    deleted from the bucket, and the tables as they were, can be restored by an engineer for a week and for 35 days.";

/// `POST /people/erase`: writes the job. An email is turned into Marketo's ids here, so that it is stored nowhere.
/// That call is made for a subscription that must not be used too: whoever wants to be forgotten is, whatever the settings
/// say, and what was stored before the door was shut must be found.
pub(crate) async fn erase(deps: &Deps, munchkin: &MunchkinId, request: &Request, deadline: u64) -> Answer<Value> {
    let (_, subject) = subject(deps, munchkin, &request.json()?, deadline).await?;
    let new = Job::new(deps.fresh_id(), subject, deps.now());
    if !save_job(deps, munchkin, &new, None).await? {
        return Err(Failure::retry("an id was taken").into());
    }
    bell::rouse(deps, &BellKey::identity(munchkin)).await?;
    show(deps, munchkin, &new).await
}

/// Whom a body means, and by which of its fields. An email costs one call to Marketo, which turns it into lead ids: it is
/// kept nowhere.
pub(crate) async fn subject(
    deps: &Deps,
    munchkin: &MunchkinId,
    body: &Value,
    deadline: u64,
) -> Answer<(&'static str, Subject)> {
    let mut errors = unknown(body, &SUBJECTS, "");
    let named: Vec<&str> = SUBJECTS.into_iter().filter(|name| !body[*name].is_null()).collect();
    let [name] = named[..] else {
        let (detail, words) = (format!("expected exactly one of {}", SUBJECTS.join(", ")), SUBJECTS.join(", "));
        errors.push((String::new(), Said::new("one_subject", detail).with("words", words)));
        return Err(Problem::fields(errors));
    };
    let value = &body[name];
    let subject = match name {
        "ecid" => value.as_str().and_then(Ecid::parse).map(Subject::Ecid),
        "token" => value.as_str().and_then(Token::parse).map(Subject::Token),
        "lead_id" => {
            value.as_u64().filter(|id| (1..=LEAD_ID_MOST).contains(id)).map(|id| Subject::Leads(BTreeSet::from([id])))
        }
        _ => match value.as_str().filter(|email| is_email(email)) {
            Some(email) => {
                let marketo = Marketo::new(deps, munchkin, deadline, Purpose::Control);
                let leads = marketo.leads_by_email(marketo.slot().await?, email).await?;
                Some(Subject::Leads(leads.into_iter().collect()))
            }
            None => None,
        },
    };
    let Some(subject) = subject.filter(|_| errors.is_empty()) else {
        let expected = match name {
            "ecid" => Said::new("expected_ecid", "expected a string of 38 digits"),
            "token" => Said::new("expected_token", "expected the token (_mch-…) of a Munchkin cookie"),
            "lead_id" => Said::new("expected_lead_id", "expected Marketo's id as a number"),
            _ => Said::new("expected_email", "expected an email address"),
        };
        if errors.is_empty() {
            errors.push((format!("/{name}"), expected));
        }
        return Err(Problem::fields(errors));
    };
    Ok((name, subject))
}

/// Marketo takes several values between commas.
fn is_email(text: &str) -> bool {
    let plain = text.len() <= 254 && !text.contains([',', ' ', '\n', '\r', '\t']);
    plain && text.split_once('@').is_some_and(|(name, domain)| !name.is_empty() && !domain.is_empty())
}

/// `GET /people/erase/{id}`: how far a job is.
pub(crate) async fn erasure(deps: &Deps, munchkin: &MunchkinId, id: &str) -> Answer<Value> {
    match job(deps, munchkin, id).await? {
        Some(found) => show(deps, munchkin, &found.value).await,
        None => Err(Problem::new(404, Said::new("erasure_unknown", "there is no erasure with this id"))),
    }
}

async fn show(deps: &Deps, munchkin: &MunchkinId, job: &Job) -> Answer<Value> {
    let answered = answers(deps, munchkin, job).await?;
    let waiting: Vec<u64> =
        job.lists.iter().copied().filter(|list| answered.iter().all(|(done, _)| done != list)).collect();
    let step = match job.phase {
        Phase::Forgetting => "what ties the person to browsers is being forgotten",
        Phase::Leaving => "the audiences are working out who is wanted without it",
        Phase::Lists => "the lists are taking the people out",
        Phase::Done => "done",
    };
    Ok(json!({
        "id": job.id,
        "status": job.phase,
        "step": step,
        "requested_at": time(job.requested_at),
        "done_at": job.done_at.map(time),
        "cookies_forgotten": job.tokens,
        "browsers_forgotten": job.ecids,
        "people_out_of_audiences": job.people_out,
        "people_who_stay": job.people_stay,
        "lists": answered
            .iter()
            .map(|(list, answer)| json!({"list_id": list, "taken_out": answer.out, "stay": answer.stay, "at": time(answer.at)}))
            .collect::<Vec<Value>>(),
        "lists_waiting": waiting,
        "not_reached": NOT_REACHED,
    }))
}

/// Bytes of a hint secret and of its salt, by eight.
const WORDS: usize = 4;

/// `POST /subscription/hint-secrets`: makes a secret, which is shown this once. The two newest are valid.
pub(crate) async fn new_hint_secret(deps: &Deps, munchkin: &MunchkinId) -> Answer<Value> {
    let random = || (0..WORDS).map(|_| deps.fresh_id()).collect::<String>();
    let secret = random();
    let kept = HintSecret::of(&secret, random(), deps.now());
    let valid = update(
        deps,
        Table::Syncs,
        &hint_secrets_key(munchkin),
        |found: Option<HintSecrets>| {
            let mut secrets = found.unwrap_or_default();
            secrets.v = 1;
            secrets.valid.insert(0, kept.clone());
            secrets.valid.truncate(2);
            let made: Vec<u64> = secrets.valid.iter().map(|secret| secret.made_at).collect();
            Ok((Some(secrets), made))
        },
        |_| None,
    )
    .await?;
    Ok(json!({
        "secret": secret,
        "header": "x-hint-secret",
        "valid": valid.into_iter().map(|made_at| json!({"made_at": time(made_at)})).collect::<Vec<Value>>(),
        "note": "Shown this once. The newest two are valid: make another one to end the older of them.",
    }))
}
