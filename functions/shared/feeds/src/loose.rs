//! JSON as Audience Manager's control files have it: names may stand without quotes, and a comma before a closing bracket.
//! All strict JSON is read as what it is.

use domain::Said;
use domain::sayings::{CONTROL_FIELD, CONTROL_NO_JSON, CONTROL_NO_TEXT};
use serde_json::{Map, Value};

/// How deep objects and lists may stand in each other. Ours; a control file has three levels.
const DEPTH_MAX: usize = 32;

/// Reads one value that fills the whole text. The error says what was expected.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, Said> {
    let text = std::str::from_utf8(crate::aam::without_mark(bytes)).map_err(|_| CONTROL_NO_TEXT.plain())?;
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0);
    match value {
        Some(value) if reader.peek().is_none() => Ok(value),
        _ => {
            let line = 1 + text.get(..reader.at).unwrap_or(text).matches('\n').count();
            Err(CONTROL_NO_JSON.with([("line", line.into())]))
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    /// How many bytes were read; always between two characters.
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next byte that is no white space of JSON.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.rest().bytes().next()
    }

    /// Passes over a byte that was peeked at, if it is this one.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        match self.peek()? {
            _ if depth > DEPTH_MAX => None,
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' => self.quoted().map(Value::String),
            _ => match self.word()? {
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                "null" => Some(Value::Null),
                number => serde_json::from_str(number).ok().map(Value::Number),
            },
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        let mut members = Map::new();
        self.take(b'{');
        while !self.take(b'}') {
            let name = if self.peek()? == b'"' { self.quoted()? } else { self.word()?.to_owned() };
            if !self.take(b':') {
                return None;
            }
            members.insert(name, self.value(depth + 1)?);
            if !self.take(b',') && self.peek()? != b'}' {
                return None;
            }
        }
        Some(Value::Object(members))
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        let mut values = Vec::new();
        self.take(b'[');
        while !self.take(b']') {
            values.push(self.value(depth + 1)?);
            if !self.take(b',') && self.peek()? != b']' {
                return None;
            }
        }
        Some(Value::Array(values))
    }

    /// A text in quotes.
    fn quoted(&mut self) -> Option<String> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        let quoted = &rest[..end + 2];
        self.at += quoted.len();
        serde_json::from_str(quoted).ok()
    }

    /// A name without quotes, a number or one of JSON's three words.
    fn word(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let of_word = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '+' | '.' | '$');
        let word = &rest[..rest.find(|letter| !of_word(letter)).unwrap_or(rest.len())];
        self.at += word.len();
        (!word.is_empty()).then_some(word)
    }
}

/// A whole number, as a number or as a text. `Ok(None)`: there is none.
pub(crate) fn count(value: Option<&Value>) -> Result<Option<u64>, ()> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.trim().bytes().all(|byte| byte.is_ascii_digit()) => {
            text.trim().parse().map(Some).map_err(|_| ())
        }
        Some(value) => value.as_u64().map(Some).ok_or(()),
    }
}

/// A field of a control file is missing or wrong, and what would be right.
pub(crate) fn wrong(field: &str, expected: &str) -> Said {
    let sentence = format!("the control file cannot be read: {field}: expected {expected}");
    CONTROL_FIELD.worded(sentence).with("field", field)
}

/// A file's name without folders.
pub(crate) fn last_component(name: &str) -> Option<&str> {
    name.rsplit('/').next().map(str::trim).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_need_no_quotes_and_a_last_comma_is_no_value() {
        let strict = r#"{"a": [1, "x", {"b-c": null}], "d": true, "e": 1.5}"#;
        let loose = "\u{feff} {a:[1,\"x\",{b-c:null,},],d :true,\r\n\t\"e\": 1.5 , } \n";
        assert_eq!(parse(loose.as_bytes()), parse(strict.as_bytes()));
        assert_eq!(parse(strict.as_bytes()).unwrap(), serde_json::from_str::<Value>(strict).unwrap());
        let escaped = r#"{"a\"b\\": "\u00e9\n"}"#;
        assert_eq!(parse(escaped.as_bytes()).unwrap(), serde_json::from_str::<Value>(escaped).unwrap());
    }

    #[test]
    fn what_is_neither_is_refused_with_its_line() {
        for bad in
            ["", "{", "{a}", "{a:1", "{a:1 b:2}", "[1 2]", "[,]", "{,}", "{a:x}", "1 2", "{\"a:1}", "{a:'x'}", "\"\\"]
        {
            assert!(parse(bad.as_bytes()).unwrap_err().sentence.contains(": line 1: not JSON"), "{bad}");
        }
        assert!(parse(b"{a:\n\n").unwrap_err().sentence.contains(": line 3"));
        assert!(parse(b"\xff").unwrap_err().sentence.contains("UTF-8"));
        assert!(parse("[".repeat(1_000_000).as_bytes()).is_err());
        assert!(parse("{a:".repeat(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn counts_are_whole_numbers_in_either_form() {
        let read = |text: &str| count(Some(&serde_json::from_str(text).unwrap()));
        assert_eq!(
            (read("12"), read("\" 12\""), read("null"), count(None)),
            (Ok(Some(12)), Ok(Some(12)), Ok(None), Ok(None))
        );
        for bad in ["-1", "1.5", "\"x\"", "\"\"", "\"+1\"", "true", "{}", "\"99999999999999999999\""] {
            assert_eq!(read(bad), Err(()), "{bad}");
        }
    }
}
