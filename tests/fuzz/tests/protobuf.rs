//! Our protobuf reader against prost, on messages that prost writes, and on broken ones.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use domain::Ecid;
use domain::cookie::parse_kndctr;
use fuzz::{by_prost, message};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use prost::Message as _;

/// The identity cookie's message with all fields that are known.
#[derive(Clone, PartialEq, prost::Message)]
struct Identity {
    #[prost(string, optional, tag = "1")]
    ecid: Option<String>,
    #[prost(message, optional, tag = "10")]
    metadata: Option<Metadata>,
    #[prost(uint64, optional, tag = "20")]
    last_sync: Option<u64>,
    #[prost(fixed64, optional, tag = "21")]
    sync_hash: Option<u64>,
    #[prost(fixed32, optional, tag = "22")]
    container: Option<u32>,
    #[prost(uint64, optional, tag = "30")]
    write_time: Option<u64>,
    /// The highest number that a field may have.
    #[prost(bytes = "vec", optional, tag = "536870911")]
    unknown: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(uint64, tag = "1")]
    created_at: u64,
    #[prost(bool, tag = "2")]
    is_new: bool,
    #[prost(string, tag = "5")]
    region: String,
}

fn read(message: &[u8]) -> Option<Ecid> {
    parse_kndctr(&BASE64_URL_SAFE_NO_PAD.encode(message))
}

prop_compose! {
    fn metadata()(created_at: u64, is_new: bool, region in "[A-Z]{2}[0-9]|.{0,9}") -> Metadata {
        Metadata { created_at, is_new, region }
    }
}

prop_compose! {
    fn identity()(
        ecid in prop::option::weighted(0.9, prop_oneof![9 => "[0-9]{38}", 1 => "[0-9]{37,39}", 1 => ".{0,40}"]),
        metadata in prop::option::of(metadata()),
        last_sync: Option<u64>,
        sync_hash: Option<u64>,
        container: Option<u32>,
        write_time: Option<u64>,
        unknown in prop::option::of(vec(any::<u8>(), 0..200)),
    ) -> Identity {
        Identity { ecid, metadata, last_sync, sync_hash, container, write_time, unknown }
    }
}

/// A field of any kind, number and length, most of them well formed.
fn field() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![4 => Just(1u64), 4 => 2u64..40, 1 => 0u64..(1 << 30)];
    let length = prop_oneof![8 => Just(None), 1 => any::<u64>().prop_map(Some), 1 => (0u64..60).prop_map(Some)];
    let content = prop_oneof![3 => "[0-9]{38}".prop_map(String::into_bytes), 2 => vec(any::<u8>(), 0..50)];
    (number, 0u64..8, length, any::<u64>(), content).prop_map(|(number, wire_type, length, varint, content)| {
        let mut field = Vec::new();
        prost::encoding::encode_varint(number << 3 | wire_type, &mut field);
        match wire_type {
            0 => prost::encoding::encode_varint(varint, &mut field),
            1 => field.extend(varint.to_le_bytes()),
            2 => {
                prost::encoding::encode_varint(length.unwrap_or(content.len() as u64), &mut field);
                field.extend(content);
            }
            5 => field.extend(&varint.to_le_bytes()[..4]),
            _ => {}
        }
        field
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4_000,
        rng_seed: RngSeed::Fixed(4),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_prost_writes_is_read(identity in identity()) {
        let bytes = identity.encode_to_vec();
        prop_assert_eq!(read(&bytes), identity.ecid.as_deref().and_then(Ecid::parse));
        message(&bytes);
    }

    #[test]
    fn of_two_messages_in_one_the_last_ecid_counts(one in identity(), two in identity()) {
        let bytes = [one.encode_to_vec(), two.encode_to_vec()].concat();
        prop_assert_eq!(read(&bytes), two.ecid.or(one.ecid).as_deref().and_then(Ecid::parse));
        message(&bytes);
    }

    #[test]
    fn cut_anywhere_it_is_what_prost_says(identity in identity()) {
        let bytes = identity.encode_to_vec();
        for length in 0..bytes.len() {
            message(&bytes[..length]);
        }
    }

    #[test]
    fn altered_anywhere_it_is_what_prost_says(
        identity in identity(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = identity.encode_to_vec();
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        message(&bytes);
    }

    #[test]
    fn made_of_any_fields_it_is_what_prost_says(fields in vec(field(), 0..5)) {
        message(&fields.concat());
    }

    #[test]
    fn made_of_any_bytes_it_is_what_prost_says(bytes in vec(any::<u8>(), 0..120)) {
        message(&bytes);
    }
}

#[test]
fn groups_are_refused_where_prost_steps_over_them() {
    let ecid = "72523635356235877200189499512793502995";
    let mut bytes = Identity { ecid: Some(ecid.to_owned()), ..Identity::default() }.encode_to_vec();
    // Field 2: a group with nothing in it.
    bytes.extend([0x13, 0x14]);
    assert_eq!((by_prost(&bytes), read(&bytes)), (Ecid::parse(ecid), None));
}
