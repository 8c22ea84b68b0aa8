//! Compressed or plain, whatever the name says.

use std::io::{ErrorKind, Write as _};

use flate2::write::MultiGzDecoder;

/// First bytes of gzip data (RFC 1952, 2.3.1).
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Unpacks a file's bytes as they come: decompressed if they begin as gzip does, members one after the other, else as they
/// are. What is held of it does not depend on how much comes out of how little.
#[derive(Debug, Default)]
pub struct Unpack(State);

#[derive(Debug, Default)]
enum State {
    /// Less than two bytes have come.
    #[default]
    Nothing,
    One(u8),
    Plain,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
    /// The data are cut or damaged: what comes is not looked at.
    Broken,
}

impl Unpack {
    /// Takes the next bytes, and gives what they unpack to.
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) {
        loop {
            match (&mut self.0, bytes) {
                (_, []) | (State::Broken, _) => return,
                (State::Nothing, [only]) => {
                    self.0 = State::One(*only);
                    return;
                }
                (State::Nothing, _) if !bytes.starts_with(&MAGIC) => self.0 = State::Plain,
                (State::Nothing, _) => self.0 = State::Gzip(Box::new(MultiGzDecoder::new(Vec::new()))),
                (State::One(first), _) if [*first, bytes[0]] == MAGIC => {
                    let mut decoder = Box::new(MultiGzDecoder::new(Vec::new()));
                    // A header that is not whole yet is taken.
                    let taken = decoder.write(&[*first]);
                    self.0 = if taken.is_ok() { State::Gzip(decoder) } else { State::Broken };
                }
                (State::One(first), _) => {
                    each(&[*first]);
                    self.0 = State::Plain;
                }
                (State::Plain, _) => return each(bytes),
                (State::Gzip(decoder), _) => {
                    // What one call makes is bounded by the decoder's own buffer.
                    let taken = decoder.write(bytes);
                    let made = decoder.get_mut();
                    if !made.is_empty() {
                        each(made);
                        made.clear();
                    }
                    match taken {
                        Ok(taken @ 1..) => bytes = &bytes[taken..],
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Ok(0) | Err(_) => self.0 = State::Broken,
                    }
                }
            }
        }
    }

    /// Gives what is left. Returns whether the data end too early, or were damaged.
    pub fn end(self, mut each: impl FnMut(&[u8])) -> bool {
        match self.0 {
            State::Nothing | State::Plain => false,
            State::One(only) => {
                each(&[only]);
                false
            }
            State::Gzip(mut decoder) => {
                let ended = decoder.try_finish();
                each(decoder.get_ref());
                ended.is_err()
            }
            State::Broken => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// What comes out, and whether the data were cut.
    fn read(bytes: &[u8], size: usize) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        let mut unpack = Unpack::default();
        for piece in bytes.chunks(size) {
            unpack.feed(piece, |plain| all.extend_from_slice(plain));
        }
        let cut = unpack.end(|plain| all.extend_from_slice(plain));
        (all, cut)
    }

    #[test]
    fn gzip_of_any_number_of_members_and_plain_bytes_are_told_by_their_beginning() {
        let two = [gzip(b"one\n"), gzip(b""), gzip(b"two\n")].concat();
        for size in 1..=two.len() {
            assert_eq!(read(b"plain", size), (b"plain".to_vec(), false));
            assert_eq!(read(b"p", size), (b"p".to_vec(), false));
            assert_eq!(read(b"", size), (Vec::new(), false));
            assert_eq!(read(&[0x1f], size), (vec![0x1f], false));
            assert_eq!(read(&two, size), (b"one\ntwo\n".to_vec(), false), "{size}");
        }
    }

    #[test]
    fn a_cut_or_damaged_file_is_cut_after_what_could_be_read() {
        let plain: Vec<u8> =
            (0..100_000_u32).flat_map(|line| format!("line {line} of the file\n").into_bytes()).collect();
        let whole = gzip(&plain);
        for size in [1 << 10, 1 << 16, whole.len()] {
            assert_eq!(read(&whole, size), (plain.clone(), false));
            for end in [2, 3, whole.len() / 2, whole.len() - 9, whole.len() - 8, whole.len() - 1] {
                let (before, cut) = read(&whole[..end], size);
                assert!(cut && plain.starts_with(&before), "{end}");
            }
            let (half, _) = read(&whole[..whole.len() / 2], size);
            assert!(half.len() > plain.len() / 3);
            let mut damaged = whole.clone();
            let at = damaged.len() - 6;
            damaged[at] ^= 1;
            assert!(read(&damaged, size).1);
            assert!(read(&[&whole[..], b"and more"].concat(), size).1);
        }
    }

    #[test]
    fn what_is_held_does_not_depend_on_how_much_comes_out() {
        let whole = gzip(&vec![b'a'; 1 << 24]);
        let mut unpack = Unpack::default();
        let (mut most, mut all) = (0, 0);
        let mut each = |plain: &[u8]| {
            most = most.max(plain.len());
            all += plain.len();
        };
        unpack.feed(&whole, &mut each);
        assert!(!unpack.end(&mut each));
        assert!(all == 1 << 24 && most <= 1 << 16, "{most}");
    }
}
