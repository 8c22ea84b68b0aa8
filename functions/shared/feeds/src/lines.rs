//! Lines of any source, as its bytes come, with a bound on what is kept of one.

/// Longest line of a file, record of a CSV file or profile of a JSON file that is read, in bytes. Ours: a row with 100,000
/// segments of 9 digits fits; a file without any line end must not be kept as a whole.
pub const RECORD_MAX: usize = 1 << 20;

/// Takes lines out of bytes as these come.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// That line is longer than [`RECORD_MAX`].
    too_long: bool,
}

impl Lines {
    /// Gives each line that ends in this piece, without its LF, to `each`, or `None` where it is longer than [`RECORD_MAX`].
    pub(crate) fn feed(&mut self, piece: &[u8], mut each: impl FnMut(Option<&[u8]>)) {
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if self.too_long || self.begun.len() + line.len() > RECORD_MAX {
                each(None);
            } else if self.begun.is_empty() {
                each(Some(line));
            } else {
                self.begun.extend_from_slice(line);
                each(Some(&self.begun));
            }
            self.begun.clear();
            self.too_long = false;
        }
        if self.too_long || self.begun.len() + rest.len() > RECORD_MAX {
            self.too_long = true;
            self.begun.clear();
        } else {
            self.begun.extend_from_slice(rest);
        }
    }

    /// The last line, if it has no LF.
    pub(crate) fn end(self, each: impl FnOnce(Option<&[u8]>)) {
        if self.too_long {
            each(None);
        } else if !self.begun.is_empty() {
            each(Some(&self.begun));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], size: usize) -> Vec<Option<Vec<u8>>> {
        let mut all = Vec::new();
        let mut lines = Lines::default();
        let mut each = |line: Option<&[u8]>| all.push(line.map(<[u8]>::to_vec));
        for piece in text.chunks(size) {
            lines.feed(piece, &mut each);
        }
        lines.end(each);
        all
    }

    #[test]
    fn how_the_bytes_come_changes_nothing() {
        let text = b"one\r\n\n\nthree and more\nlast without an end";
        let whole = all(text, text.len());
        assert_eq!(whole.len(), 5);
        for size in 1..20 {
            assert_eq!(all(text, size), whole);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out_and_the_next_one_is_read() {
        let mut text = vec![b'1'; RECORD_MAX + 1];
        text.extend_from_slice(b"\nnext\n");
        let expected = vec![None, Some(b"next".to_vec())];
        assert_eq!(all(&text, text.len()), expected);
        assert_eq!(all(&text, 1 << 13), expected);
        text.remove(0);
        assert!(all(&text, text.len())[0].is_some());
        assert_eq!(all(&vec![b'1'; RECORD_MAX + 1], 1 << 13), [None]);
    }
}
