//! The page: each sync with its report, what failed and why, what is in flight, and the files that arrived.

use std::fmt::Write as _;

use serde_json::{Value, json};
use state::Deps;
use state::bell::Bell;
use state::feeds::{Import, ImportStatus};
use state::lists::Held;
use state::syncs::{Start, Status, Subscription, subscriptions};

use crate::problem::Answer;
use crate::routes::{Request, Response, maybe};
use crate::view::{self, Seen, time};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// The page loads nothing but itself and talks to nobody but us.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Text as HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Appends; writing to a `String` cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => { write!($out, $($arg)*).unwrap_or_default() };
}

/// `GET /`.
pub(crate) async fn page(deps: &Deps, request: &Request) -> Answer<Response> {
    let all = subscriptions(deps).await?;
    let mut out = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>Audience sync</title>",
    );
    put!(out, "<style>{STYLE}</style>");
    out.push_str("</head><body><h1>Audience sync</h1><p id=\"said\" role=\"status\"></p>");
    if all.len() > 1 && request.param("munchkin_id").is_none() {
        out.push_str("<p>Which Marketo subscription?</p><ul>");
        for one in &all {
            let id = escape(one.munchkin_id.as_str());
            put!(out, "<li><a href=\"/?munchkin_id={id}\">{id}</a></li>");
        }
        out.push_str("</ul>");
    } else if let Some(subscription) = maybe(deps, request).await? {
        body(deps, &subscription, &mut out).await?;
    } else {
        out.push_str("<p>No Marketo subscription is set up yet: <code>PUT /subscription</code> makes one.</p>");
    }
    put!(out, "<script>{SCRIPT}</script></body></html>");
    let headers = vec![
        ("content-security-policy", POLICY.to_owned()),
        ("cache-control", "no-store".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
    ];
    Ok(Response { status: 200, content_type: "text/html; charset=utf-8", body: out.into_bytes(), headers })
}

async fn body(deps: &Deps, subscription: &Subscription, out: &mut String) -> Answer<()> {
    let munchkin = &subscription.munchkin_id;
    let org = subscription.org_id.as_ref().map_or("none", |org| org.as_str());
    put!(out, "<p class=\"dim\">Marketo {} · IMS organisation {}", escape(munchkin.as_str()), escape(org));
    if !subscription.cookie_sync {
        out.push_str(" · cookie sync is off: no new matches and no new syncs");
    }
    out.push_str("</p>");
    if let Some(why) = subscription.refused() {
        put!(out, "<p class=\"bad\">{}</p>", escape(why));
    }
    in_flight(&view::status(deps, Some(subscription)).await?, out);
    out.push_str("<h2>Syncs</h2>");
    let syncs = view::in_order(deps, munchkin).await?;
    if syncs.is_empty() {
        out.push_str("<p>None yet.</p>");
    }
    for sync in &syncs {
        one_sync(&Seen::read(deps, sync).await?, deps.now(), out);
    }
    if subscription.refused().is_none() && subscription.cookie_sync {
        out.push_str(FORM);
    }
    out.push_str("<h2>Files</h2>");
    let imports = view::latest_imports(deps, munchkin).await?;
    if imports.is_empty() {
        out.push_str("<p>None yet.</p>");
    }
    for import in &imports {
        one_import(import, out);
    }
    Ok(())
}

const FORM: &str = "<h2>New sync</h2><form id=\"make\" class=\"card\">\
<label>Folder <select name=\"folder\"></select></label>\
<label>Audience <select name=\"audience\" required></select></label>\
<label>Static list <input name=\"list\" required maxlength=\"255\" placeholder=\"name of a new list, or an id\"></label>\
<label>Who leaves the audience <select name=\"leaving\"><option value=\"remove\">leaves the list</option>\
<option value=\"keep\">stays in the list</option></select></label>\
<label>Who was in the list before <select name=\"before\"><option value=\"keep\">stays</option>\
<option value=\"adopt\">leaves like ours, where we know them</option></select></label>\
<label>Start <select name=\"start\"><option value=\"now\">now</option>\
<option value=\"report_only\">report only, touch no list</option></select></label>\
<button>Make the sync</button></form>";

fn in_flight(status: &Value, out: &mut String) {
    out.push_str("<h2>In flight</h2>");
    let waits: Vec<&str> = status["waits_for"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if waits.is_empty() {
        out.push_str("<p>Nothing: everything has settled.</p>");
    } else {
        put!(out, "<p>{}</p>", escape(&waits.join(" · ")));
    }
    if status["stuck"].as_u64().unwrap_or(0) > 0 {
        put!(out, "<p class=\"bad\">{} stuck: tried again after a rest</p>", status["stuck"]);
    }
    let held = status["held"].as_array().map_or(0, Vec::len);
    if held > 0 {
        put!(out, "<p class=\"bad\">Lists that wait for a decision of yours: {held}</p>");
    }
    put!(out, "<p class=\"dim\">Calls to Marketo today: {}</p>", status["calls_today"]);
    browsers_today(&status["browsers_today"], out);
}

/// What pages showed today, and what of it was not taken.
fn browsers_today(today: &Value, out: &mut String) {
    let count = |name: &str| today[name].as_u64().unwrap_or(0);
    put!(
        out,
        "<p class=\"dim\">Browsers that pages showed for the first time today: {}",
        count("new_pairs_from_pages")
    );
    let over = count("not_stored_cookie_over_cap") + count("not_stored_browser_over_cap");
    if over > 0 {
        put!(out, " · {over} not stored: too many browsers of one cookie, or cookies of one browser");
    }
    out.push_str("</p>");
    if count("beyond_the_days_cap") > 0 {
        put!(
            out,
            "<p class=\"bad\">The day's cap of new browsers is passed: of {} beyond it {} were not kept. If your pages \
             really have so many visitors, raise new_pairs_per_day of the subscription.</p>",
            count("beyond_the_days_cap"),
            count("of_those_not_kept")
        );
    }
}

const fn status_name(status: Status) -> &'static str {
    match status {
        Status::Creating => "creating",
        Status::Active => "active",
        Status::Paused => "paused",
        Status::StoppedKeeping => "stopped",
        Status::StoppedLeaving => "stopped, people leave",
    }
}

fn one_sync(seen: &Seen, now: u64, out: &mut String) {
    let sync = &seen.sync;
    let name = status_name(sync.status);
    let id = escape(&sync.id);
    let class = name.split(',').next().unwrap_or_default();
    put!(
        out,
        "<section class=\"card\"><h3>{} → {} <span class=\"tag {class}\">{name}</span></h3>",
        escape(&sync.audience_name),
        escape(&sync.list.name),
    );
    let list = sync.list.id.map_or_else(|| "no list".to_owned(), |list| format!("list {list}"));
    put!(out, "<p class=\"dim\">{} · {list} · sync {id}</p>", escape(sync.audience.as_str()));
    if let Some(why) = &sync.why {
        put!(out, "<p>{}</p>", escape(why));
    }
    sources(seen, now, out);
    runs(seen, now, out);
    if let Some(held) = seen.held() {
        mass_change(held, &sync.id, out);
    }
    let report = seen.report(now);
    match &report {
        Some(report) => table(report, out),
        None => out.push_str("<p>No report yet.</p>"),
    }
    let button = |what: &str, label: &str| format!("<button data-path=\"/syncs/{id}/{what}\">{label}</button>");
    out.push_str("<p>");
    match sync.status {
        Status::Active => {
            out.push_str(&button("run", "Run now"));
            out.push_str(&button("pause", "Pause"));
        }
        Status::Paused => out.push_str(&button("resume", "Resume")),
        _ => {}
    }
    if sync.follows() && sync.start == Start::Now && sync.list.id.is_some() {
        out.push_str(&button("verify", "Check the whole list"));
        let out_of_it = |report: &Value| ["kept_out", "dropped"].iter().any(|field| report[field].as_u64() > Some(0));
        if report.as_ref().is_some_and(out_of_it) {
            let label = "Put back who was taken out by hand";
            asked("put-back", &sync.id, &json!({}), label, "Put everybody back who was taken out by hand?", out);
        }
    }
    if matches!(sync.status, Status::Active | Status::Paused | Status::Creating) {
        for (people, label) in [("keep", "Stop, keep people"), ("take_out", "Stop, take people out")] {
            asked("stop", &sync.id, &json!({"people": people}), label, &format!("{label}?"), out);
        }
    }
    out.push_str("</p></section>");
}

/// Where the members come from, how late that can be, and what to ask Adobe.
fn sources(seen: &Seen, now: u64, out: &mut String) {
    for source in seen.sources(now) {
        put!(out, "<p class=\"dim\">{}</p>", escape(&source.line()));
        if let Some(overdue) = source.overdue {
            put!(out, "<p class=\"bad\">{}</p>", escape(&overdue));
        }
    }
    let Some(not) = seen.not_delivered() else { return };
    put!(out, "<p class=\"bad\">{}</p>", escape(&not.sentence));
    if not.may_be_empty() {
        let body = json!({"decision": "empty"});
        let question = "Is this audience really empty at Adobe? Whoever is in the list by it is taken out.";
        out.push_str("<p>");
        asked("not-delivered", &seen.sync.id, &body, "It is really empty", question, out);
        out.push_str("</p>");
    }
}

/// A button that asks before it does something.
fn asked(what: &str, sync: &str, body: &Value, label: &str, question: &str, out: &mut String) {
    asked_at(&format!("/syncs/{sync}/{what}"), body, label, question, out);
}

/// The same, for any path.
fn asked_at(path: &str, body: &Value, label: &str, question: &str, out: &mut String) {
    put!(
        out,
        "<button data-path=\"{}\" data-body=\"{}\" title=\"{}\">{}</button>",
        escape(path),
        escape(&body.to_string()),
        escape(question),
        escape(label)
    );
}

/// A mass change that waits for an operator.
fn mass_change(held: &Held, sync: &str, out: &mut String) {
    put!(
        out,
        "<p class=\"bad\">Held since {}: {}. It would remove {} and add {} of a list of {}. Nothing is written to this \
         list until somebody decides.</p><p>",
        time(held.since),
        escape(held.why.trim_end_matches('.')),
        held.remove,
        held.add,
        held.of
    );
    for (decision, label) in [("apply", "Apply the change"), ("drop", "Drop it, leave these people as they are")] {
        let body = json!({"held": held.id, "decision": decision});
        asked("held", sync, &body, label, &format!("{label}?"), out);
    }
    out.push_str("</p>");
}

/// Last and next run, and what is left to do.
fn runs(seen: &Seen, now: u64, out: &mut String) {
    let last = seen.list.as_ref().map_or_else(|| "never".to_owned(), |head| time(head.handled_at));
    put!(out, "<p class=\"dim\">List last handled: {last} · next: {}</p>", next(seen, now));
    for (bell, what) in [(&seen.list_bell, "list"), (&seen.audience_bell, "audience")] {
        if bell.stuck {
            put!(out, "<p class=\"bad\">The work on the {what} failed {} times in a row.</p>", bell.failures);
        }
    }
    if let Some(head) = &seen.list {
        let left = &head.left;
        put!(
            out,
            "<p class=\"dim\">Now: {} to add · {} to remove · {} on hold · {} refused by Marketo</p>",
            left.add,
            left.remove,
            left.hold,
            left.failed
        );
    }
}

fn next(seen: &Seen, now: u64) -> String {
    let busy = |bell: &Bell| bell.dirty_since.is_some() || bell.done < bell.version;
    let bells = [&seen.list_bell, &seen.audience_bell];
    if bells.iter().any(|bell| busy(bell) && bell.not_before.is_none_or(|until| until <= now)) {
        return "at once".to_owned();
    }
    let times = bells.iter().flat_map(|bell| [bell.not_before, bell.wake_at]).flatten();
    times.min().map_or_else(|| "when something changes".to_owned(), time)
}

fn table(report: &Value, out: &mut String) {
    if let Some(note) = report["note"].as_str() {
        put!(out, "<p>{}</p>", escape(note));
        return;
    }
    put!(out, "<div class=\"scroll\"><table><caption class=\"dim\">As of {}</caption>", escape(text(&report["as_of"])));
    let mut row = |class: &str, name: &str, value: &Value| {
        let value = if value.is_null() { "–".to_owned() } else { value.to_string() };
        put!(
            out,
            "<tr class=\"{class}\"><th scope=\"row\">{}</th><td class=\"n\">{}</td></tr>",
            escape(name),
            escape(&value)
        );
    };
    row("", "ECIDs in the audience", &report["audience"]);
    row("sub", "no match", &report["no_match"]);
    row("sub", "set aside (over a cap)", &report["set_aside"]);
    row("sub", "anonymous", &report["anonymous"]);
    row("sub", "of known people", &report["known"]);
    row("", "addressable ECIDs", &report["addressable"]);
    row("", "known people", &report["people"]);
    row("sub", "in the list by us", &report["in_list"]["ours"]);
    row("sub", "in the list before us", &report["in_list"]["before_us"]);
    row("sub", "waiting", &report["waiting"]);
    row("sub", "taken out by hand", &report["kept_out"]);
    row("sub", "not added: an operator dropped it", &report["dropped"]);
    for (code, count) in report["failed"].as_object().into_iter().flatten() {
        let why = if code == "1004" { " (no such lead: deleted, merged or not visible)" } else { "" };
        row("sub", &format!("refused by Marketo, code {code}{why}"), count);
    }
    row("", "members in Marketo", &report["members_in_marketo"]);
    if let Some(members) = report["members"].as_object() {
        for (field, name) in [
            ("in_audience_by_us", "in the audience, by us"),
            ("in_audience_before_us", "in the audience, before us"),
            ("before_us_only", "before us or by hand only"),
            ("by_another_sync", "by another sync"),
            ("kept", "kept by choice"),
            ("waiting_to_leave", "waiting to leave"),
        ] {
            row("sub", name, &members[field]);
        }
    }
    out.push_str("</table></div>");
    refused(&report["refused"], out);
}

/// The people whom Marketo refused, each with what it said.
fn refused(people: &Value, out: &mut String) {
    let people = people.as_array().map(Vec::as_slice).unwrap_or_default();
    if people.is_empty() {
        return;
    }
    out.push_str("<details><summary>Refused people</summary><div class=\"scroll\"><table>");
    out.push_str("<tr><th>Lead</th><th>Code</th><th>What it means</th><th>When</th><th>Marketo's request id</th></tr>");
    for person in people {
        let cell = |field: &str| escape(text(&person[field]));
        put!(
            out,
            "<tr><td class=\"n\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            person["lead_id"],
            cell("code"),
            cell("sentence"),
            cell("at"),
            cell("request_id")
        );
    }
    out.push_str("</table></div></details>");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn one_import(import: &Import, out: &mut String) {
    let (class, name) = match import.status {
        ImportStatus::Waiting => ("creating", "waits for its other parts"),
        ImportStatus::Held => ("paused", "held"),
        ImportStatus::Running => ("creating", "being taken in"),
        ImportStatus::Done => ("active", "taken in"),
        ImportStatus::Refused => ("bad", "refused"),
    };
    put!(
        out,
        "<section class=\"card\"><h3>{} <span class=\"tag {class}\">{name}</span></h3>\
         <p class=\"dim\">{} · {} rows · {} rejected",
        escape(&import.key),
        time(import.started_at),
        import.rows,
        import.rejected
    );
    if let Some(ended) = import.ended_at {
        put!(out, " · {} s", ended.saturating_sub(import.started_at).div_ceil(1_000));
    }
    out.push_str("</p>");
    if let Some(why) = &import.why {
        put!(out, "<p class=\"bad\">{}</p>", escape(why));
    }
    if import.status == ImportStatus::Held {
        out.push_str("<p>");
        for (decision, label) in [("apply", "Take the delivery in"), ("drop", "Drop the delivery")] {
            let body = json!({"import": import.id, "decision": decision});
            asked_at("/imports/decide", &body, label, &format!("{label}?"), out);
        }
        out.push_str("</p>");
    }
    if !import.rejects.is_empty() {
        out.push_str("<details><summary>Rejected rows</summary><div class=\"scroll\"><table>");
        out.push_str("<tr><th>Line</th><th>Reason</th></tr>");
        for reject in &import.rejects {
            put!(out, "<tr><td>{}</td><td>{}</td></tr>", reject.line, escape(&reject.reason));
        }
        out.push_str("</table></div>");
        let more = import.rejected.saturating_sub(import.rejects.len() as u64);
        if more > 0 {
            put!(out, "<p>and {more} more</p>");
        }
        out.push_str("</details>");
    }
    out.push_str("</section>");
}
