//! What must hold of whatever reads bytes: the parsers of cookies, of Adobe's files and messages, of Marketo's and Adobe's
//! answers, our own doors, and what we have stored ourselves. Each function here takes any bytes and panics where a property
//! fails; libFuzzer calls them through `fuzz_targets/`, and `tests/seeds.rs` with mutations of the seeds.
//!
//! The judges are others than the code: regular expressions for the text formats, prost for protobuf, the crate csv, `serde_json`.

mod codecs;
mod doors;
mod feeds;
mod outside;
mod vendors;

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use domain::cookie::{self, Amcv, MAX_TOKEN, Shown, parse_amcv, parse_kndctr, parse_mkto_trk, parse_s_ecid};
use domain::{Ecid, MunchkinId, OrgId, Token};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};
use regex::bytes::Regex;

pub use crate::codecs::{ids, lead_set, queue_message, rows, stored};
pub use crate::doors::{api, collected, http_event};
pub use crate::feeds::{
    aam_control, aam_lines, aam_stream, aep_csv, aep_json, aep_manifest, aep_stream, compressed, names, times,
};
pub use crate::vendors::{adobe, marketo, vendor_token};

/// A target: its name, which is that of its folder of seeds, and its property.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 27] = [
    ("aam_control", aam_control),
    ("aam_lines", aam_lines),
    ("aam_stream", aam_stream),
    ("adobe", adobe),
    ("aep_csv", aep_csv),
    ("aep_json", aep_json),
    ("aep_manifest", aep_manifest),
    ("aep_stream", aep_stream),
    ("amcv", amcv),
    ("api", api),
    ("collected", collected),
    ("compressed", compressed),
    ("http_event", http_event),
    ("ids", ids),
    ("kndctr", kndctr),
    ("lead_set", lead_set),
    ("marketo", marketo),
    ("message", message),
    ("mkto_trk", mkto_trk),
    ("names", names),
    ("queue_message", queue_message),
    ("rows", rows),
    ("s_ecid", s_ecid),
    ("shown", shown),
    ("stored", stored),
    ("times", times),
    ("vendor_token", vendor_token),
];

/// The organisation of the seeds, without its `@AdobeOrg`.
pub const ORG: &str = "0123456789ABCDEF01234567";
/// The Munchkin id of the seeds.
pub const MUNCHKIN: &str = "123-ABC-456";

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a regular expression")
}

/// A header is text; what is not is replaced as HTTP servers replace it.
fn text(data: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(data)
}

fn decoded(value: &str) -> Vec<u8> {
    percent_decode_str(value).collect()
}

/// Every byte but letters and digits percent-encoded.
fn encode(plain: &[u8]) -> String {
    percent_encode(plain, NON_ALPHANUMERIC).to_string()
}

/// `_mkto_trk`: read exactly where the contract's expression matches, in every encoding, and what was read reads again.
pub fn mkto_trk(data: &[u8]) {
    static FORM: LazyLock<Regex> = LazyLock::new(|| {
        regex(concat!(
            r"^id:([0-9]{3}-[A-Z]{3}-[0-9]{3})",
            r"&token:(_mch-[0-9A-Za-z._-]+-(?:[0-9]{13}-[0-9]{1,5}|[0-9a-f]{30,32}))$"
        ))
    });
    let value = text(data);
    let read = parse_mkto_trk(&value);
    let plain = decoded(&value);
    let expected = FORM.captures(&plain).filter(|found| found[2].len() <= MAX_TOKEN);
    let pair = read.as_ref().map(|(munchkin, token)| (munchkin.as_str().as_bytes(), token.as_str().as_bytes()));
    assert_eq!(pair, expected.as_ref().map(|found| (&found[1], &found[2])));
    assert_eq!(parse_mkto_trk(&encode(&plain)), read);
    if let Some((munchkin, token)) = &read {
        let canonical = format!("id:{munchkin}&token:{}", token.as_str());
        assert_eq!(parse_mkto_trk(&canonical), read);
        assert_eq!(decoded(&value), canonical.as_bytes());
    }
}

/// `kndctr_…_identity`: the alphabet, the padding and percent-encoding change nothing, and what was read reads again.
pub fn kndctr(data: &[u8]) {
    let value = text(data);
    let read = parse_kndctr(&value);
    let plain = decoded(&value);
    assert_eq!(parse_kndctr(&encode(&plain)), read);
    for (from, to) in [(b"-_", b"+/"), (b"+/", b"-_")] {
        let written = |byte: &u8| from.iter().position(|other| other == byte).map_or(*byte, |at| to[at]);
        let swapped: Vec<u8> = plain.iter().map(written).collect();
        assert_eq!(parse_kndctr(&encode(&swapped)), read);
    }
    if let Some(ecid) = read {
        let unpadded = plain.split(|byte| *byte == b'=').next().unwrap_or_default();
        assert_eq!(parse_kndctr(&encode(unpadded)), read);
        let message = Identity { ecid: ecid.text() }.encode_to_vec();
        assert_eq!(parse_kndctr(&BASE64_URL_SAFE_NO_PAD.encode(message)), read);
    }
}

/// Field 1 of the identity cookie's message, the only one that we read.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Identity {
    /// The ECID.
    #[prost(string, tag = "1")]
    pub ecid: String,
}

/// What prost reads in a message.
#[must_use]
pub fn by_prost(message: &[u8]) -> Option<Ecid> {
    Ecid::parse(&Identity::decode(message).ok()?.ecid)
}

/// Whether a message that prost reads has a group among its fields.
fn has_group(mut message: &[u8]) -> bool {
    while let Ok((number, wire_type)) = decode_key(&mut message) {
        if wire_type == WireType::StartGroup {
            return true;
        }
        if skip_field(wire_type, number, &mut message, DecodeContext::default()).is_err() {
            return false;
        }
    }
    false
}

/// The protobuf reader alone, on the bytes inside the base64: prost reads the same ECID or none. One difference is
/// meant: prost steps over groups, which protobuf has given up and Adobe does not send, and we refuse them.
pub fn message(data: &[u8]) {
    let read = parse_kndctr(&BASE64_URL_SAFE_NO_PAD.encode(data));
    let expected = if has_group(data) { None } else { by_prost(data) };
    assert_eq!(read, expected);
    for text in [BASE64_STANDARD.encode(data), BASE64_STANDARD_NO_PAD.encode(data), BASE64_URL_SAFE.encode(data)] {
        assert_eq!(parse_kndctr(&text), read);
    }
}

/// `AMCV_…`: the ECID is what the expression of Adobe's Web SDK finds, with 38 digits; the opt-out is what an
/// expression finds; neither hides the other.
pub fn amcv(data: &[u8]) {
    static ECID: LazyLock<Regex> = LazyLock::new(|| regex(r"(?-u)(?:^|\|)MCMID\|([0-9]{38})(?:$|\|)"));
    static OPT_OUT: LazyLock<Regex> = LazyLock::new(|| regex(r"(?-u)(?:^|\|)MCOPTOUT(?:-[^|]*)?\|([^|]*)"));
    let value = text(data);
    let read = parse_amcv(&value);
    let plain = decoded(&value);
    let expected = ECID.captures(&plain).and_then(|found| Ecid::parse(str::from_utf8(&found[1]).ok()?));
    let opted_out = OPT_OUT.captures_iter(&plain).any(|found| &found[1] != b"NONE");
    assert_eq!(read, Amcv { ecid: expected, opted_out });
    assert_eq!(parse_amcv(&encode(&plain)), read);
    // A visitor who opts out later is heard, and is no other visitor.
    let later = parse_amcv(&format!("{value}|MCOPTOUT-1712769706s|global"));
    assert!(later.opted_out);
    assert_eq!(later.ecid, read.ecid);
}

/// `s_ecid`: the ECID that an AMCV cookie of this value has, and it reads again from its own form.
pub fn s_ecid(data: &[u8]) {
    let value = text(data);
    let read = parse_s_ecid(&value);
    assert_eq!(read, parse_amcv(&value).ecid);
    assert_eq!(parse_s_ecid(&encode(&decoded(&value))), read);
    if let Some(ecid) = read {
        assert_eq!(parse_s_ecid(&format!("MCMID|{}", ecid.text())), read);
    }
}

/// A whole header: the same as by looking each cookie up by its name, as one text or as pairs, and cookies of other
/// names or organisations change nothing.
pub fn shown(data: &[u8]) {
    let org = OrgId::parse(&format!("{ORG}@AdobeOrg")).expect("an organisation");
    let munchkin = MunchkinId::parse(MUNCHKIN).expect("a Munchkin id");
    let header = text(data);
    let read = cookie::shown([header.as_ref()], &org, &munchkin);
    assert_eq!(read, looked_up(&header, &munchkin));
    assert_eq!(cookie::shown(header.split(';'), &org, &munchkin), read);

    let noise = format!(
        "a=b;AMCV_{ORG}=MCMID|{ecid}|MCOPTOUT|global;AMCVS_{ORG}%40AdobeOrg=1;\
         _mkto_trk=id:999-XYZ-999&token:_mch-example.com-1700000000000-12345",
        ecid = "1".repeat(38),
    );
    assert_eq!(cookie::shown([noise.as_str(), &header], &org, &munchkin), read);
    assert_eq!(cookie::shown([format!("{header};{noise}").as_str()], &org, &munchkin), read);
    let refused = cookie::shown([header.as_ref(), "mkto_opt_out=true"], &org, &munchkin);
    assert_eq!(refused, Shown { opted_out: true, ..read.clone() });

    let debug = format!("{read:?}");
    assert!(read.ecid.is_none_or(|ecid| !debug.contains(&ecid.text())));
    assert!(read.token.is_none_or(|token| !debug.contains(token.as_str())));
}

/// [`cookie::shown`] in other words.
fn looked_up(header: &str, munchkin: &MunchkinId) -> Shown {
    let pairs: Vec<(&str, &str)> = header.split(';').filter_map(|pair| pair.trim().split_once('=')).collect();
    let values = |name: String| pairs.iter().filter(move |(other, _)| *other == name).map(|(_, value)| *value);
    let of_amcv: Vec<Amcv> = pairs
        .iter()
        .filter(|(name, _)| {
            [format!("AMCV_{ORG}%40AdobeOrg"), format!("AMCV_{ORG}@AdobeOrg")].contains(&(*name).into())
        })
        .map(|(_, value)| parse_amcv(value))
        .collect();
    let named = |pattern: &str| {
        let pattern = Regex::new(pattern).expect("a pattern");
        pairs.iter().any(|(name, _)| pattern.is_match(name.as_bytes()))
    };
    let own = named(&format!("^(AMCV_{ORG}(%40|@)AdobeOrg|kndctr_{ORG}_AdobeOrg_identity)$"));
    let some = named("(?s)^(AMCV_.*(%40|@)AdobeOrg|kndctr_.*_AdobeOrg_identity)$");
    let ecid = values(format!("kndctr_{ORG}_AdobeOrg_identity"))
        .find_map(parse_kndctr)
        .or_else(|| of_amcv.iter().find_map(|amcv| amcv.ecid))
        .or_else(|| values("s_ecid".into()).find_map(parse_s_ecid).filter(|_| own || !some));
    let token: Option<Token> = values("_mkto_trk".into())
        .filter_map(parse_mkto_trk)
        .find_map(|(id, token)| (id == *munchkin).then_some(token));
    let opted_out = pairs.contains(&("mkto_opt_out", "true"))
        || pairs.contains(&("demdex", "NOTARGET"))
        || of_amcv.iter().any(|amcv| amcv.opted_out);
    Shown { ecid, token, opted_out }
}
