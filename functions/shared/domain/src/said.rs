//! Sentences that people read: in English, with a code and the values that they name, so that a screen can say them in
//! another language.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sayings::ALL;

/// An English sentence, its stable code, and the values that it names. The values are ours (a number, a name of a column or
/// of a setting), never what stood in a file or who somebody is, and they are small: such sentences are kept by the hundred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Said {
    /// The sentence.
    pub sentence: Cow<'static, str>,
    /// What it says, for programs; `None`: it was stored before sentences had codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Cow<'static, str>>,
    /// What differs between two sentences of one code.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<Cow<'static, str>, Value>,
}

/// A sentence as it stands in a table: a text alone, of before there were codes; code and text, as previews had them; or all
/// of it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Text(String),
    Coded(String, String),
    Said {
        sentence: String,
        #[serde(default)]
        code: Option<String>,
        #[serde(default)]
        values: BTreeMap<String, Value>,
    },
}

impl From<Stored> for Said {
    fn from(stored: Stored) -> Self {
        match stored {
            // What was said before there were codes is still said by the same sentence, where that names no value.
            Stored::Text(sentence) => {
                let saying = ALL.iter().find(|saying| saying.english == sentence);
                saying.map_or_else(|| Self::of_before(sentence), Saying::plain)
            }
            Stored::Coded(code, sentence) => Self { code: Some(code.into()), ..Self::of_before(sentence) },
            Stored::Said { sentence, code, values } => Self {
                sentence: sentence.into(),
                code: code.map(Cow::Owned),
                values: values.into_iter().map(|(name, value)| (name.into(), value)).collect(),
            },
        }
    }
}

impl Said {
    /// A sentence and its code.
    #[must_use]
    pub fn new(code: &'static str, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { sentence: sentence.into(), code: Some(code.into()), values: BTreeMap::new() }
    }

    /// A sentence that was stored before there were codes.
    #[must_use]
    pub fn of_before(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self { sentence: sentence.into(), code: None, values: BTreeMap::new() }
    }

    /// With a value that the sentence names.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.values.insert(name.into(), value.into());
        self
    }

    /// Its code, if it has one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Whether it says this, whatever its values.
    #[must_use]
    pub fn is(&self, saying: &Saying) -> bool {
        self.code() == Some(saying.code)
    }
}

/// Compared with a text, it is its sentence.
impl PartialEq<str> for Said {
    fn eq(&self, other: &str) -> bool {
        self.sentence == other
    }
}

impl PartialEq<&str> for Said {
    fn eq(&self, other: &&str) -> bool {
        self.sentence == *other
    }
}

impl Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl AsRef<str> for Said {
    fn as_ref(&self) -> &str {
        &self.sentence
    }
}

/// A sentence that is said in several places, or with several values: its code, and its English with the names of its values
/// in braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saying {
    /// What it says, for programs.
    pub code: &'static str,
    /// The sentence, such as `column {column}: expected an ECID`.
    pub english: &'static str,
}

impl Saying {
    /// The sentence, where it names no values. Nothing is allocated.
    #[must_use]
    pub const fn plain(&self) -> Said {
        Said { sentence: Cow::Borrowed(self.english), code: Some(Cow::Borrowed(self.code)), values: BTreeMap::new() }
    }

    /// The sentence with its values: texts as they are, lists with commas.
    #[must_use]
    pub fn with<const N: usize>(&self, values: [(&'static str, Value); N]) -> Said {
        let mut sentence = self.english.to_owned();
        for (name, value) in &values {
            sentence = sentence.replace(&format!("{{{name}}}"), &text(value));
        }
        values.into_iter().fold(self.worded(sentence), |said, (name, value)| said.with(name, value))
    }

    /// The same in other words, which name more than its values.
    #[must_use]
    pub fn worded(&self, sentence: impl Into<Cow<'static, str>>) -> Said {
        Said::new(self.code, sentence)
    }
}

/// A value as it stands in a sentence.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SAYING: Saying = Saying { code: "a.code", english: "{count} of {names}" };

    #[test]
    fn a_sentence_names_its_values_and_comes_back_from_a_table() {
        let said = SAYING.with([("count", 2.into()), ("names", json!(["a", "b"]))]);
        assert_eq!(said.to_string(), "2 of a, b");
        let stored = json!({"sentence": "2 of a, b", "code": "a.code", "values": {"count": 2, "names": ["a", "b"]}});
        assert_eq!(json!(said), stored);
        let back: Said = serde_json::from_value(stored).unwrap();
        assert!(back == said && back.is(&SAYING));
        assert_eq!(json!(Said::new("a", "b").with("c", 1)), json!({"sentence": "b", "code": "a", "values": {"c": 1}}));
        assert_eq!(json!(Said::new("a", "b")), json!({"sentence": "b", "code": "a"}));
    }

    #[test]
    fn a_text_of_before_there_were_codes_is_still_read() {
        let said: Said = serde_json::from_value(json!("an old sentence")).unwrap();
        assert_eq!((said.code(), said.as_ref(), said.values.len()), (None, "an old sentence", 0));
        let known: Said = serde_json::from_value(json!("paused by an operator")).unwrap();
        assert_eq!(known, crate::sayings::PAUSED_BY_HAND.plain());
        let coded: Said = serde_json::from_value(json!(["list_gone", "an old sentence"])).unwrap();
        assert_eq!((coded.code(), coded.as_ref()), (Some("list_gone"), "an old sentence"));
        let none: Option<Said> = serde_json::from_value(json!(null)).unwrap();
        assert_eq!(none, None);
    }
}
