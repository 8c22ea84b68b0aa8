//! The first link of a chain that is missing, and what would make it appear. Of several chains the one that goes furthest
//! counts.

use domain::LeadId;
use domain::limits::{ECIDS_PER_TOKEN, TOKENS_PER_ECID};
use serde_json::{Value, json};
use state::syncs::Sync;

use super::chain::{Browser, Chain, MatchState, Person};
use crate::places::Place;

/// Where somebody stands in the list of a sync.
#[derive(Debug)]
pub(crate) struct Stood<'a> {
    pub(crate) sync: &'a Sync,
    pub(crate) lead: LeadId,
    pub(crate) wanted: bool,
    pub(crate) place: Place,
}

/// Links up to the list, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    NothingKnown,
    NotDelivered,
    NotInAudience,
    NoMatch,
    MatchExpired,
    SetAsideBrowser,
    SetAsideCookie,
    NotAsked,
    Nobody,
    Anonymous,
    Gone,
    /// Nothing is missing up to here.
    Tied,
}

/// The first missing link: `code`, `sentence`, `what_helps`, and the sync's list where the link is there. With code null:
/// nothing is missing.
pub(crate) fn first(subject: &str, chain: &Chain, stood: &[Stood<'_>]) -> Value {
    let wanted: Vec<&Stood<'_>> = stood.iter().filter(|stood| stood.wanted).collect();
    if wanted.is_empty() {
        let (code, sentence, helps) = words(subject, link(chain), chain);
        return json!({"code": code, "sentence": sentence, "what_helps": helps});
    }
    // Everything is there up to the lists: one that waits for something is more to the point than one that does not.
    let is_open = |stood: &&&Stood<'_>| !stood.place.is_in_list() && stood.place.state != "report_only";
    let in_list = wanted.iter().find(|stood| stood.place.is_in_list());
    let Some(stood) = wanted.iter().find(is_open).or(in_list).or(wanted.first()) else { return Value::Null };
    let code = match stood.place.state {
        _ if stood.place.is_in_list() => None,
        "on_hold" => Some("waiting"),
        state => Some(state),
    };
    json!({
        "code": code,
        "sentence": stood.place.sentence(),
        "what_helps": helps_in_list(stood.place.state),
        "sync_id": stood.sync.id,
        "list_id": stood.sync.list.id,
        "list_name": stood.sync.list.name,
        "marketo_code": stood.place.code,
        "lead_id": stood.lead,
    })
}

fn link(chain: &Chain) -> Link {
    let gone = |person: &Person| person.gone && person.merged_into.is_none();
    let best = chain.browsers.iter().map(|browser| of_browser(chain, browser)).max();
    match best {
        _ if !chain.is_known => Link::NothingKnown,
        // Whoever is gone has no browsers any more.
        None | Some(Link::NotInAudience | Link::NoMatch) if chain.people.values().any(gone) => Link::Gone,
        None => Link::NoMatch,
        Some(best) => best,
    }
}

fn of_browser(chain: &Chain, browser: &Browser) -> Link {
    if !browser.is_inside() {
        let undelivered = !browser.audiences.is_empty() && browser.audiences.values().all(Option::is_none);
        return if undelivered { Link::NotDelivered } else { Link::NotInAudience };
    }
    let by_match = browser.matches.iter().map(|found| match found.state {
        MatchState::Expired => Link::MatchExpired,
        MatchState::CookieSetAside => Link::SetAsideCookie,
        MatchState::BrowserSetAside => Link::SetAsideBrowser,
        MatchState::NotAsked | MatchState::Doubted => Link::NotAsked,
        MatchState::Nobody => Link::Nobody,
        MatchState::Anonymous => Link::Anonymous,
        MatchState::Counts => Link::Tied,
    });
    let by_marketo = browser.from_marketo.iter().map(|lead| match chain.people.get(lead) {
        _ if browser.set_aside => Link::SetAsideBrowser,
        Some(person) if person.gone => Link::Gone,
        Some(person) if person.known == Some(true) => Link::Tied,
        _ => Link::Anonymous,
    });
    by_match.chain(by_marketo).max().unwrap_or(Link::NoMatch)
}

fn words(subject: &str, link: Link, chain: &Chain) -> (&'static str, String, &'static str) {
    let (code, sentence, helps) = match link {
        Link::NothingKnown => {
            let sentence = match subject {
                "ecid" => "No delivery of a followed audience names this browser, and no page has shown it.",
                "token" => "No page has shown this cookie.",
                "lead_id" => "Nothing ties this person to a browser, and Marketo has told us nothing about them.",
                _ if chain.people.is_empty() => "Marketo has no person with this email.",
                _ => "Nothing ties the person with this email to a browser.",
            };
            let helps = "A visit to a page with the tag, in a browser that the audience holds; and a form or a link of \
                an email by which Marketo learns who it is.";
            ("nothing_known", sentence.to_owned(), helps)
        }
        Link::NotDelivered => (
            "not_delivered",
            "No delivery has named the audience yet: nobody knows who is in it.".to_owned(),
            "Map the audience to the destination at Adobe and wait for the next delivery. The page of the sync says what to \
             ask for.",
        ),
        Link::NotInAudience => {
            let none = chain.browsers.iter().all(|browser| browser.audiences.is_empty());
            let sentence = if none {
                "No sync follows any audience."
            } else {
                "By the last delivery no followed audience holds the browser."
            };
            let helps =
                "A sync of the audience that is meant; or the next delivery, once Adobe has put the browser into it.";
            ("not_in_audience", sentence.to_owned(), helps)
        }
        Link::NoMatch => {
            let sentence = match subject {
                "ecid" => {
                    "The browser is in the audience, but nobody has seen it beside a Munchkin cookie, and Marketo has \
                     stored it for no person."
                }
                _ => "Nothing ties the person or the cookie to a browser of the audience.",
            };
            let helps = "A visit of the browser to a page that has both the tag and Munchkin, with consent.";
            ("no_match", sentence.to_owned(), helps)
        }
        Link::MatchExpired => (
            "match_expired",
            "The browser was seen beside a Munchkin cookie so long ago that it does not count any more.".to_owned(),
            "Another visit of the browser.",
        ),
        Link::SetAsideBrowser => (
            "set_aside_browser",
            format!("The browser was seen beside more than {TOKENS_PER_ECID} cookies: none of them counts."),
            "Nothing, until the matches above the cap have expired. Shared computers and tests look like this.",
        ),
        Link::SetAsideCookie => (
            "set_aside_cookie",
            format!("The cookie was seen in more than {ECIDS_PER_TOKEN} browsers: none of them counts."),
            "Nothing, until the matches above the cap have expired. Robots and copied cookies look like this.",
        ),
        Link::NotAsked => (
            "not_asked",
            "Marketo has not been asked yet whose cookie this is.".to_owned(),
            "The next look-up: within minutes for a new match; longer after a first delivery of millions. A hint asks now.",
        ),
        Link::Nobody => (
            "nobody",
            "Marketo knows no person with this cookie.".to_owned(),
            "A visit that Munchkin has sent to Marketo; Marketo is asked again at growing intervals, or at once by a hint.",
        ),
        Link::Anonymous => (
            "anonymous",
            "The person is anonymous: Marketo has no email.".to_owned(),
            "A form, or a click in an email, by which Marketo learns the email address.",
        ),
        Link::Gone => (
            "gone",
            "Marketo has deleted the person.".to_owned(),
            "Nothing: a new person in Marketo is tied by a new visit.",
        ),
        // Everything is there, and no list stands behind it.
        Link::Tied => (
            "waiting",
            "Everything is there: the audience is being counted.".to_owned(),
            "Nothing: within minutes the person is on the way to the list.",
        ),
    };
    (code, sentence, helps)
}

fn helps_in_list(state: &str) -> &'static str {
    match state {
        "waiting" => "Nothing: the next calls. How long that takes stands on the page of the sync.",
        "on_hold" => "Nothing: after some minutes the call is made again.",
        "held" => "An operator applies or drops the mass change, on the page of the sync.",
        "kept_out" | "dropped" => "Put the person back (POST /syncs/{id}/put-back).",
        "refused" => {
            "Whatever the sentence says, in Marketo; tried again after a day, or once something about the person changes."
        }
        "gone" => {
            "Nothing, if the person was deleted; if merged, the other person takes their place once Marketo's log tells."
        }
        // Wanted by a sync that rests: those that run decide.
        "paused" | "to_leave" => "Resume the sync.",
        "report_only" => "A sync that writes the list.",
        _ => "Nothing: the person is in the list.",
    }
}
