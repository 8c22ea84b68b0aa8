//! Lines of any source, with a bound on what is kept of one.

use std::io::{BufRead, ErrorKind};

/// Longest line of a file, record of a CSV file or profile of a JSON file that is read, in bytes. Ours: a row with 100,000
/// segments of 9 digits fits; a file without any line end must not be kept as a whole.
pub const RECORD_MAX: usize = 1 << 20;

/// One more piece of the source; `None`: it ends. An error says that it ends too early.
pub(crate) fn more<R: BufRead + ?Sized>(source: &mut R) -> Result<Option<&[u8]>, ()> {
    // Asked twice, since the borrow checker does not let go of a piece that is returned from within a loop.
    loop {
        match source.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(()),
            Ok(_) => break,
        }
    }
    let piece = source.fill_buf().map_err(|_| ())?;
    Ok((!piece.is_empty()).then_some(piece))
}

/// Gives each line, without its LF, to `each`, or `None` where it is longer than [`RECORD_MAX`]. Returns whether the data end
/// too early; the line in which they do is not given.
pub(crate) fn each(source: &mut impl BufRead, mut each: impl FnMut(Option<&[u8]>)) -> bool {
    // The beginning of a line whose end has not come yet, or of one that is too long.
    let mut begun: Vec<u8> = Vec::new();
    let mut too_long = false;
    loop {
        let piece = match more(source) {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(()) => return true,
        };
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if too_long || begun.len() + line.len() > RECORD_MAX {
                each(None);
            } else if begun.is_empty() {
                each(Some(line));
            } else {
                begun.extend_from_slice(line);
                each(Some(&begun));
            }
            begun.clear();
            too_long = false;
        }
        if too_long || begun.len() + rest.len() > RECORD_MAX {
            too_long = true;
            begun.clear();
        } else {
            begun.extend_from_slice(rest);
        }
        let used = piece.len();
        source.consume(used);
    }
    if too_long {
        each(None);
    } else if !begun.is_empty() {
        each(Some(&begun));
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn all(mut source: impl BufRead) -> Vec<Option<Vec<u8>>> {
        let mut lines = Vec::new();
        assert!(!each(&mut source, |line| lines.push(line.map(<[u8]>::to_vec))));
        lines
    }

    #[test]
    fn how_the_bytes_come_changes_nothing() {
        let text = b"one\r\n\n\nthree and more\nlast without an end";
        let whole = all(&text[..]);
        assert_eq!(whole.len(), 5);
        for size in 1..20 {
            assert_eq!(all(BufReader::with_capacity(size, &text[..])), whole);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_left_out_and_the_next_one_is_read() {
        let mut text = vec![b'1'; RECORD_MAX + 1];
        text.extend_from_slice(b"\nnext\n");
        let expected = vec![None, Some(b"next".to_vec())];
        assert_eq!(all(&text[..]), expected);
        assert_eq!(all(BufReader::new(&text[..])), expected);
        text.remove(0);
        assert!(all(&text[..])[0].is_some());
        assert_eq!(all(&vec![b'1'; RECORD_MAX + 1][..]), [None]);
    }
}
