//! The words after a command.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};

/// Flags of a command, as they stood on the command line.
#[derive(Debug)]
pub struct Flags {
    numbers: BTreeMap<String, u64>,
    bare: BTreeSet<String>,
}

impl Flags {
    /// Reads words: `numbers` are the flags that a number follows, `bare` those that stand alone. Any other is an error.
    pub fn read(words: &[&str], numbers: &[&str], bare: &[&str]) -> anyhow::Result<Self> {
        let mut read = Self { numbers: BTreeMap::new(), bare: BTreeSet::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if numbers.contains(word) {
                let number = words.next().with_context(|| format!("{word} takes a number"))?;
                let number = number.parse().with_context(|| format!("{word} takes a whole number"))?;
                read.numbers.insert((*word).to_owned(), number);
            } else if bare.contains(word) {
                read.bare.insert((*word).to_owned());
            } else {
                bail!("unknown flag {word}");
            }
        }
        Ok(read)
    }

    /// The number that follows a flag.
    pub fn number(&self, flag: &str) -> Option<u64> {
        self.numbers.get(flag).copied()
    }

    /// Whether a flag stands there.
    pub fn has(&self, flag: &str) -> bool {
        self.bare.contains(flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_has_a_number_or_stands_alone_and_any_other_word_is_an_error() {
        let read = |words: &[&str]| Flags::read(words, &["--size", "--churn"], &["--json"]);
        let flags = read(&["--json", "--size", "7"]).expect("flags");
        assert_eq!((flags.number("--size"), flags.number("--churn"), flags.has("--json")), (Some(7), None, true));
        assert!(!read(&[]).expect("none").has("--json"));
        for wrong in [&["--size"][..], &["--size", "x"], &["--size", "--json"], &["--sizes", "7"], &["7"]] {
            read(wrong).expect_err("an error");
        }
    }
}
