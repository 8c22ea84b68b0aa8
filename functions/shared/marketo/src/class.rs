//! Every documented answer of Marketo's, what is done about it, and our sentence for people.
//!
//! One table ([`ANSWERS`]), so that no answer is treated by chance. `ANSWERS.md` beside this crate is made from it.

/// Waits before the second to the fifth attempt of a call that had no effect, in ms, before scaling. Ours: together
/// 15 s, which outlast Marketo's lock waits and are below [`SEND_WITHIN_MS`](crate::SEND_WITHIN_MS).
pub const RETRY_DELAYS_MS: [u64; 4] = [1_000, 2_000, 4_000, 8_000];
/// How long a key rests where Marketo needs time, in ms, before scaling. Ours: its queues drain in minutes.
pub const LATER_MS: u64 = 300_000;
/// How long a key rests after a second refused token in a row, in ms, before scaling. Ours: Marketo may hand out a
/// token at its edge again until it has expired.
pub const TOKEN_REST_MS: u64 = 30_000;

/// What is done about an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A passing trouble, certainly without effect: the client sends the call again after 1, 2, 4 and 8 s
    /// ([`RETRY_DELAYS_MS`]), each time with a new slot. At the cap of five attempts: 5 minutes' rest.
    RetrySoon,
    /// The same, but at the cap the instance is out of reach: the invocation fails, so that the poller backs off
    /// and the alarm goes off.
    RetryThenAlarm,
    /// A queue of Marketo's is full, certainly without effect: a rest of 5 minutes ([`LATER_MS`]), as often as it
    /// takes; no cap, for other work goes on.
    Later,
    /// Too many calls in the window: everybody keeps away until a whole window (20 s) has passed, and the rate is
    /// lowered by a tenth; no cap.
    NextWindow,
    /// Too many calls at once: everybody keeps away for 1 to 2 s, and half as many go at once; no cap.
    FewerAtOnce,
    /// The day's quota is used up: everybody rests until midnight US Central; no cap.
    Midnight,
    /// The token is not taken, certainly without effect: it is renewed once and the call is sent once more. At the
    /// cap: 30 s' rest ([`TOKEN_REST_MS`]).
    RenewToken,
    /// Too much in one call, or one bad value in it, certainly without effect: the caller halves the batch at once,
    /// down to one value (at most 9 halvings of 300). At the cap that value has no answer.
    Split,
    /// This person is refused, the neighbours are not: recorded with code and request id, and tried again when
    /// something about the person changes, and once a day; no cap.
    DropPerson,
    /// It is as we wanted it already.
    Done,
    /// The list is gone: its syncs stop at once and say why. They go on when somebody resumes them.
    StopSync,
    /// Nothing was found, which is an answer.
    NothingFound,
    /// The instance lacks a feature: the caller goes on without it.
    GoWithout,
    /// Marketo's rules do not allow it: never sent again as it was; whoever asked is told code and sentence.
    Refuse,
    /// Our request is wrong, which no retry mends: the key fails, is set aside after three failures with an alarm,
    /// and is tried by the sweep in case a new version has mended it.
    OurMistake,
    /// The whole instance refuses us: the invocation fails, so that the poller backs off and the alarm goes off.
    /// Tried again at the poller's pace; no cap, until a human has mended it.
    Alarm,
    /// It may or may not have taken effect, or may do so up to 180 s later. A call that changes something: the hold
    /// of its people stays, and they are looked at again after it. A call that only reads: the message is tried again.
    Unknown,
}

/// How a class is handled, in words for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handling {
    /// What is done.
    pub done: &'static str,
    /// After how long.
    pub delay: &'static str,
    /// How often at most.
    pub cap: &'static str,
    /// What happens then.
    pub at_cap: &'static str,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 17] = [
        Class::RetrySoon,
        Class::RetryThenAlarm,
        Class::Later,
        Class::NextWindow,
        Class::FewerAtOnce,
        Class::Midnight,
        Class::RenewToken,
        Class::Split,
        Class::DropPerson,
        Class::Done,
        Class::StopSync,
        Class::NothingFound,
        Class::GoWithout,
        Class::Refuse,
        Class::OurMistake,
        Class::Alarm,
        Class::Unknown,
    ];

    /// Its name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Class::RetrySoon => "retry soon",
            Class::RetryThenAlarm => "retry soon, then alarm",
            Class::Later => "retry later",
            Class::NextWindow => "retry after the window",
            Class::FewerAtOnce => "fewer at once",
            Class::Midnight => "rest until midnight",
            Class::RenewToken => "renew the token",
            Class::Split => "split",
            Class::DropPerson => "leave this person out",
            Class::Done => "done",
            Class::StopSync => "stop the sync",
            Class::NothingFound => "nothing found",
            Class::GoWithout => "go without",
            Class::Refuse => "tell who asked",
            Class::OurMistake => "our mistake",
            Class::Alarm => "alarm",
            Class::Unknown => "unknown outcome",
        }
    }

    /// How it is handled.
    #[must_use]
    pub const fn handling(self) -> Handling {
        let (done, delay, cap, at_cap) = match self {
            Class::RetrySoon => ("sent again", "1, 2, 4, 8 s", "5 attempts", "the key rests 5 minutes"),
            Class::RetryThenAlarm => ("sent again", "1, 2, 4, 8 s", "5 attempts", "the invocation fails; alarm"),
            Class::Later => ("the key rests", "5 minutes", "none", ""),
            Class::NextWindow => ("everybody rests, and then calls less often", "20 s", "none", ""),
            Class::FewerAtOnce => ("everybody rests, and then half as many call at once", "1 to 2 s", "none", ""),
            Class::Midnight => ("everybody rests", "until midnight US Central", "none", ""),
            Class::RenewToken => ("token renewed, call sent again", "none", "once", "the key rests 30 s"),
            Class::Split => ("the batch is halved", "none", "down to one value", "that value has no answer"),
            Class::DropPerson => ("recorded; the neighbours are not affected", "a day, or a change", "none", ""),
            Class::Done => ("counts as done", "none", "none", ""),
            Class::StopSync => ("the list's syncs stop and say why", "none", "once", "somebody resumes them"),
            Class::NothingFound => ("an empty answer", "none", "none", ""),
            Class::GoWithout => (
                "goes on without the feature",
                "none",
                "once",
                "the feature stays off; the field ecids is asked for again a day later",
            ),
            Class::Refuse => ("not sent again; whoever asked is told", "none", "once", "told with code and request id"),
            Class::OurMistake => ("the key fails", "the queue's", "3 failures", "the key is set aside; alarm"),
            Class::Alarm => ("the invocation fails; alarm", "the poller's", "none", ""),
            Class::Unknown => ("on hold; looked at again after it", "180 s", "none", ""),
        };
        Handling { done, delay, cap, at_cap }
    }
}

/// A documented answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Marketo's code or the HTTP status; in brackets: an answer without either.
    pub code: &'static str,
    /// What is done where the whole request is answered so.
    pub class: Class,
    /// What is done where one person of a request is answered so; `None`: not documented for a person.
    pub person: Option<Class>,
    /// Our sentence for people.
    pub sentence: &'static str,
}

const fn row(code: &'static str, class: Class, sentence: &'static str) -> Row {
    Row { code, class, person: None, sentence }
}

const fn person(code: &'static str, class: Class, person: Class, sentence: &'static str) -> Row {
    Row { code, class, person: Some(person), sentence }
}

/// Every documented answer (Marketo, "error codes"), and what is done.
pub static ANSWERS: &[Row] = &[
    row("[dropped]", Class::Unknown, "The connection to Marketo broke, or no answer came in time."),
    row("[empty]", Class::Unknown, "Marketo sent an empty answer."),
    row("[not JSON]", Class::Unknown, "Marketo, or something before it, sent a page and no answer."),
    row("[no code]", Class::Unknown, "Marketo reported a failure and gave no code."),
    row("401", Class::Alarm, "Marketo does not take the client id and secret."),
    row("413", Class::Split, "The request was too large for Marketo."),
    row("414", Class::Split, "The address of the request was too long for Marketo."),
    row("500", Class::Unknown, "Marketo had an internal error."),
    row("502", Class::Unknown, "Marketo's gateway gave up waiting."),
    row("503", Class::Unknown, "Marketo was not available."),
    row("504", Class::Unknown, "Marketo's gateway gave up waiting."),
    row("601", Class::RenewToken, "Marketo did not take our access token."),
    row("602", Class::RenewToken, "Our access token had expired."),
    row(
        "603",
        Class::Alarm,
        "Marketo denies access: the API user lacks a permission, or our address is not on Marketo's allowlist.",
    ),
    row("604", Class::Unknown, "Marketo took too long and gave up."),
    row("605", Class::OurMistake, "Marketo does not support this HTTP method here."),
    row("606", Class::NextWindow, "More than 100 calls in 20 seconds, all tools together."),
    row("607", Class::Midnight, "The day's quota of calls is used up, all tools together."),
    row("608", Class::RetrySoon, "Marketo's API was not available for a moment."),
    row("609", Class::OurMistake, "Marketo could not read our JSON."),
    row("610", Class::OurMistake, "Marketo knows no such address."),
    row("611", Class::Unknown, "Marketo had an error that it does not explain."),
    row("612", Class::OurMistake, "Marketo does not take this content type."),
    row("613", Class::OurMistake, "Marketo could not read our file upload."),
    row("614", Class::RetryThenAlarm, "Marketo could not reach the subscription, or does not know it."),
    row("615", Class::FewerAtOnce, "More than 10 calls at once, all tools together."),
    row("616", Class::Alarm, "This kind of Marketo subscription does not offer what we asked for."),
    row("701", Class::OurMistake, "A field that Marketo needs was blank."),
    row("702", Class::NothingFound, "Marketo found nothing."),
    row("703", Class::Alarm, "A feature that we need is not enabled in this Marketo subscription."),
    row("704", Class::OurMistake, "Marketo could not read a date."),
    row("709", Class::Refuse, "Marketo's rules do not allow it: the name is taken, or the list is in use."),
    row("710", Class::Refuse, "Marketo does not find the folder."),
    row("711", Class::Refuse, "Marketo does not take lists into a folder of this kind."),
    row("712", Class::Refuse, "Marketo does not merge Salesforce person accounts."),
    row("713", Class::RetrySoon, "Something in Marketo was not available for a moment."),
    row("714", Class::Refuse, "Marketo finds no default record type to merge into."),
    row("718", Class::Refuse, "Marketo does not know the sales person."),
    row("719", Class::RetrySoon, "Marketo waited too long for a lock."),
    person("1001", Class::OurMistake, Class::DropPerson, "A value is of a type that Marketo does not take."),
    person("1002", Class::OurMistake, Class::DropPerson, "A value that Marketo needs is missing."),
    person(
        "1003",
        Class::Split,
        Class::DropPerson,
        "Marketo does not take a value, or more than 1,000 people match the question.",
    ),
    person(
        "1004",
        Class::NothingFound,
        Class::DropPerson,
        "Marketo does not find this person: deleted, merged into another, or not visible to the API user.",
    ),
    person("1005", Class::Refuse, Class::DropPerson, "Marketo has this person already."),
    person("1006", Class::GoWithout, Class::DropPerson, "This Marketo instance has no such field."),
    person("1007", Class::Refuse, Class::DropPerson, "Marketo finds several people for this key."),
    person(
        "1008",
        Class::Refuse,
        Class::DropPerson,
        "The API user may not see this person: the person is in another lead partition.",
    ),
    person("1009", Class::Refuse, Class::DropPerson, "Marketo wants to know the lead partition."),
    person("1010", Class::Refuse, Class::DropPerson, "Marketo does not allow the lead partition to change."),
    row("1011", Class::GoWithout, "This Marketo instance does not search by this field."),
    person("1012", Class::Split, Class::DropPerson, "Marketo does not take a cookie value."),
    row("1013", Class::StopSync, "Marketo does not find the list: it was deleted, or the API user may not see it."),
    row("1014", Class::Refuse, "Marketo could not make the list."),
    person("1015", Class::Refuse, Class::Done, "This person is not in the list."),
    row("1016", Class::Later, "Marketo's queue of imports is full."),
    row("1017", Class::Refuse, "Marketo has something of this name already."),
    person("1018", Class::Refuse, Class::DropPerson, "The instance's own link with a sales system does not allow it."),
    row("1019", Class::Later, "An import into this list is under way."),
    row("1020", Class::Refuse, "Marketo's allowance of program clones is used up for the day."),
    row("1021", Class::Refuse, "Marketo does not let the company change here."),
    row("1022", Class::Refuse, "The list is in use, so Marketo does not delete it."),
    row("1025", Class::Refuse, "Marketo does not find the program's status."),
    row("1026", Class::Refuse, "This Marketo instance has no custom objects."),
    row("1027", Class::Refuse, "Marketo takes no more custom activity types."),
    row("1028", Class::Refuse, "A custom activity has at most 20 attributes."),
    row("1029", Class::Later, "Marketo's queue of exports is full, or the day's export quota is used up."),
    row("1035", Class::GoWithout, "This Marketo subscription does not offer this filter for exports."),
    row("1036", Class::Refuse, "The same thing stood twice in the request."),
    row("1037", Class::Refuse, "Marketo skipped this person: already in this status, or past it."),
    row("1042", Class::Refuse, "The date lies too far in the future for Marketo."),
    row("1048", Class::Refuse, "Marketo could not discard the draft of a custom object."),
    row("1049", Class::Refuse, "The attributes of an activity are too long for Marketo."),
    row("1076", Class::Refuse, "Marketo could not merge these people in the sales system: it would make a duplicate."),
    row("1077", Class::Refuse, "Marketo could not merge these people in the sales system: a field is too long."),
    row("1078", Class::Refuse, "Marketo could not merge these people in the sales system."),
    row("1079", Class::Refuse, "Marketo does not merge people who share a personalised URL."),
    row("1080", Class::Refuse, "Marketo merges at most 25 people at once."),
];

/// The row of a code.
fn find(code: &str) -> Option<&'static Row> {
    ANSWERS.iter().find(|row| row.code == code)
}

/// What is done where a whole request is answered with this code (or HTTP status). A code that nobody has documented
/// leaves open whether anything was done.
#[must_use]
pub fn class_of(code: &str) -> Class {
    find(code).map_or(Class::Unknown, |row| row.class)
}

/// What is done where one person of a request is answered with this code. A code that nobody has documented: this
/// person is left out and the code is recorded, for Marketo says "skipped" beside it.
#[must_use]
pub fn class_of_person(code: &str) -> Class {
    find(code).and_then(|row| row.person).unwrap_or(Class::DropPerson)
}

/// Our sentence for a code, for reports.
#[must_use]
pub fn sentence(code: &str) -> &'static str {
    find(code).map_or("Marketo refused with a code that its documents do not explain.", |row| row.sentence)
}

/// Both tables as markdown: what `ANSWERS.md` holds.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Marketo's answers\n\n\
         Made from the table in `src/class.rs`; a test compares the two. A code in brackets stands for an answer \
         without a code. A code that is not here leaves the outcome open where it answers a whole request, and \
         leaves one person out where it answers for one person. \"The key\" is the list or the subscription that is \
         worked on.\n\n\
         | code | what it means | done about the request | done about a person |\n|---|---|---|---|\n",
    );
    for row in ANSWERS {
        let person = row.person.map_or("", Class::name);
        text += &format!("| {} | {} | {} | {person} |\n", row.code, row.sentence, row.class.name());
    }
    text.push_str("\n| class | what is done | after | at most | and then |\n|---|---|---|---|---|\n");
    for class in Class::ALL {
        let Handling { done, delay, cap, at_cap } = class.handling();
        text += &format!("| {} | {done} | {delay} | {cap} | {at_cap} |\n", class.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_code_of_the_contract_has_one_row_and_each_class_is_used() {
        let codes: BTreeSet<&str> = ANSWERS.iter().map(|row| row.code).collect();
        assert_eq!(codes.len(), ANSWERS.len(), "a code stands twice");
        let documented = [401, 413, 414, 500, 502, 503, 504]
            .into_iter()
            .chain(601..=616)
            .chain([701, 702, 703, 704, 709, 710, 711, 712, 713, 714, 718, 719])
            .chain(1001..=1022)
            .chain(1025..=1029)
            .chain([1035, 1036, 1037, 1042, 1048, 1049])
            .chain(1076..=1080);
        for code in documented {
            assert!(codes.contains(code.to_string().as_str()), "{code}");
        }
        let used: BTreeSet<Class> = ANSWERS.iter().flat_map(|row| [Some(row.class), row.person]).flatten().collect();
        assert_eq!(used, BTreeSet::from(Class::ALL));
    }

    #[test]
    fn an_undocumented_code_is_never_taken_for_done() {
        assert_eq!((class_of("9999"), class_of_person("9999")), (Class::Unknown, Class::DropPerson));
        assert_eq!((class_of(""), class_of_person("")), (Class::Unknown, Class::DropPerson));
        assert!(sentence("9999").contains("do not explain"));
    }

    #[test]
    fn the_document_is_the_table() {
        let written = include_str!("../ANSWERS.md");
        assert!(written == markdown(), "ANSWERS.md must hold what class::markdown() returns:\n{}", markdown());
    }
}
