//! Sentences in answers: beside each stand its code and its values, from which the console says it in other languages.

use domain::Said;
use serde_json::{Value, json};
use state::feeds::Reject;

/// Puts a sentence into an answer, as `name`, and beside it `<name>_code` and `<name>_values`. Where there is no sentence, or
/// it was stored before sentences had codes, these are `null`.
pub(crate) fn put(answer: &mut Value, name: &str, said: Option<&Said>) {
    answer[name] = json!(said.map(Said::as_ref));
    answer[format!("{name}_code")] = json!(said.and_then(Said::code));
    answer[format!("{name}_values")] = values(said);
}

/// The values of a sentence that has a code.
pub(crate) fn values(said: Option<&Said>) -> Value {
    json!(said.filter(|said| said.code.is_some()).map(|said| &said.values))
}

/// A rejected line.
pub(crate) fn rejected(reject: &Reject) -> Value {
    let Reject { line, reason, code, values } = reject;
    json!({"line": line, "reason": reason, "code": code, "values": code.as_ref().map(|_| values)})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::sayings::ALL;
    use marketo::class::ANSWERS;
    use state::alerts::IncidentKind;
    use state::runs::NO_CLEAR_ANSWER;

    use super::*;

    /// The names in braces.
    fn names(text: &str) -> BTreeSet<&str> {
        text.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name)).collect()
    }

    #[test]
    fn the_console_has_each_sentence_in_its_languages_and_names_no_value_that_it_lacks() {
        let catalogue: Value = serde_json::from_str(include_str!("../console/catalogue.json")).expect("JSON");
        for saying in ALL {
            let key = format!("why.{}", saying.code);
            for language in ["en", "fr", "sv"] {
                let text = catalogue[&key][language].as_str().unwrap_or_else(|| panic!("{key} in {language}"));
                assert!(names(text).is_subset(&names(saying.english)), "{key} in {language}");
            }
        }
        let known: BTreeSet<String> = ALL.iter().map(|saying| format!("why.{}", saying.code)).collect();
        let of_sayings = catalogue.as_object().expect("an object").keys().filter(|key| key.starts_with("why."));
        let unknown: Vec<&String> = of_sayings.filter(|key| !known.contains(*key)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn the_console_has_each_code_of_marketo_in_its_languages_and_no_other() {
        let catalogue: Value = serde_json::from_str(include_str!("../console/catalogue.json")).expect("JSON");
        // Codes in brackets stand for answers without one; in reports and runs those are ours.
        let theirs = ANSWERS.iter().map(|row| row.code).filter(|code| !code.starts_with('['));
        let known: BTreeSet<&str> = theirs.chain([NO_CLEAR_ANSWER, "none"]).collect();
        for code in &known {
            for language in ["en", "fr", "sv"] {
                let text = catalogue[format!("marketo.{code}")][language].as_str();
                assert!(text.is_some_and(|text| names(text).is_empty()), "marketo.{code} in {language}");
            }
        }
        let keys = catalogue.as_object().expect("an object").keys().filter_map(|key| key.strip_prefix("marketo."));
        assert_eq!(keys.collect::<BTreeSet<_>>(), known);
    }

    #[test]
    fn the_console_has_each_incident_in_its_languages() {
        let catalogue: Value = serde_json::from_str(include_str!("../console/catalogue.json")).expect("JSON");
        for kind in IncidentKind::ALL.iter().copied() {
            let name = kind.name();
            assert!(catalogue[format!("alerts.kind.{name}")].is_object(), "{name}");
            // Of a sync that was stopped it is told why: a sentence of its own.
            let said = [format!("alerts.said.{name}"), format!("alerts.said.{name}#other")];
            assert!(kind == IncidentKind::SyncStopped || said.iter().any(|key| catalogue[key].is_object()), "{name}");
        }
    }

    #[test]
    fn a_sentence_of_before_stands_alone() {
        let mut answer = json!({});
        put(&mut answer, "why", Some(&Said::of_before("an old sentence")));
        assert_eq!(answer, json!({"why": "an old sentence", "why_code": null, "why_values": null}));
        let old: Reject = serde_json::from_value(json!({"line": 3, "reason": "an old sentence"})).expect("a reject");
        assert_eq!(rejected(&old), json!({"line": 3, "reason": "an old sentence", "code": null, "values": null}));
    }
}
