//! Compressed or plain, whatever the name says.

use std::io::{BufRead, BufReader};

use flate2::read::MultiGzDecoder;

/// First bytes of gzip data (RFC 1952, 2.3.1).
const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// What is decompressed at a time, in bytes. Ours.
const PIECE: usize = 1 << 17;

/// Reads the bytes of a file: decompressed if they begin as gzip does, members one after the other, else as they are. Where
/// compressed data were cut or damaged, reading ends with an error, and the readers of this crate say [`crate::Read::cut`].
#[must_use]
pub fn open<'a>(bytes: &'a [u8]) -> Box<dyn BufRead + 'a> {
    if bytes.starts_with(&MAGIC) {
        Box::new(BufReader::with_capacity(PIECE, MultiGzDecoder::new(bytes)))
    } else {
        Box::new(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
        let mut all = Vec::new();
        match open(bytes).read_to_end(&mut all) {
            Ok(_) => Ok(all),
            Err(_) => Err(all),
        }
    }

    #[test]
    fn gzip_of_any_number_of_members_and_plain_bytes_are_told_by_their_beginning() {
        assert_eq!(read(b"plain"), Ok(b"plain".to_vec()));
        assert_eq!(read(b""), Ok(Vec::new()));
        let two = [gzip(b"one\n"), gzip(b"two\n")].concat();
        assert_eq!(read(&two), Ok(b"one\ntwo\n".to_vec()));
    }

    #[test]
    fn a_cut_or_damaged_file_ends_with_an_error_after_what_could_be_read() {
        let plain = b"a line of the file\n".repeat(10_000);
        let whole = gzip(&plain);
        for end in [3, whole.len() / 2, whole.len() - 1] {
            let before = read(&whole[..end]).unwrap_err();
            assert!(plain.starts_with(&before));
        }
        let mut damaged = whole.clone();
        let at = damaged.len() - 6;
        damaged[at] ^= 1;
        assert!(read(&damaged).is_err());
    }
}
