//! Every seed, and some thousand mutations of each, through the properties that libFuzzer checks for longer.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fuzz::{TARGETS, Target};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// Mutations of each seed.
const MUTATIONS: u64 = 4_000;

/// What the parsers look for, so that mutations meet it more often than by chance.
const PIECES: [&[u8]; 40] = [
    b"%",
    b"%7C",
    b"%25",
    b"%ff",
    b"|",
    b"=",
    b"==",
    b";",
    b"; ",
    b"&",
    b":",
    b"-",
    b"_",
    b"+",
    b"/",
    b"MCMID|72523635356235877200189499512793502995",
    b"|MCOPTOUT-1712769706s|",
    b"NONE",
    b"\x0a\x26",
    b"\x80",
    b",",
    b" ",
    b"\t",
    b"\n",
    b"\r\n",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"null",
    b"0",
    b"1",
    b"\xef\xbb\xbf",
    b"12345678901234567890123456789012345678",
    b"\"status\":\"exited\"",
    b"11111111-2222-3333-4444-555555555555",
    b"2026-01-02T03:04:05Z",
    b"jane@example.com",
];

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder of seeds").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() >= 3, "{target} has {} seeds", files.len());
    files.into_iter().map(|file| (file.clone(), fs::read(file).expect("a seed"))).collect()
}

/// Changes a seed at one to four places.
fn mutate(seed: &[u8], rng: &mut SmallRng) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(0..=data.len());
        let end = rng.random_range(at..=data.len().min(at + 50));
        match rng.random_range(0..7) {
            0 if at < data.len() => data[at] ^= 1 << rng.random_range(0..8),
            1 if at < data.len() => data[at] = rng.random(),
            2 => data.truncate(at),
            3 => drop(data.drain(at..end)),
            4 => {
                let again = data[at..end].to_vec();
                data.splice(at..at, again);
            }
            5 => data.insert(at, rng.random()),
            _ => {
                let piece = PIECES.choose(rng).copied().unwrap_or_default();
                data.splice(at..at, piece.iter().copied());
            }
        }
    }
    data
}

/// The first input on which a property fails, if there is any.
fn fails((name, property): Target) -> Option<String> {
    for (file, seed) in seeds(name) {
        let inputs = (0..=MUTATIONS).map(|number| match number {
            0 => seed.clone(),
            _ => mutate(&seed, &mut SmallRng::seed_from_u64(number - 1)),
        });
        for (number, data) in inputs.enumerate() {
            if std::panic::catch_unwind(|| property(&data)).is_err() {
                return Some(format!("{}, mutation {number}: {}", file.display(), data.escape_ascii()));
            }
        }
    }
    None
}

#[test]
fn every_seed_and_its_mutations_hold_the_properties() {
    let failed: Vec<String> = TARGETS.into_iter().filter_map(fails).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_target_is_known_to_cargo_fuzz_and_has_seeds() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = |below: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(folder.join(below)).expect(below);
        entries
            .map(|entry| entry.expect(below).path().file_stem().expect(below).to_string_lossy().into_owned())
            .collect()
    };
    assert_eq!(found("fuzz_targets"), names);
    assert_eq!(found("seeds"), names);
}
