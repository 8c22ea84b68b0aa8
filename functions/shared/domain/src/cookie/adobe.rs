//! Adobe's cookies: the Web SDK's `kndctr_…_identity`, visitor.js's `AMCV_…`, and `s_ecid`.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;

use crate::Ecid;

/// What an `AMCV_…` cookie says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amcv {
    /// The visitor's ECID.
    pub ecid: Option<Ecid>,
    /// The visitor opted out of Adobe's tracking.
    pub opted_out: bool,
}

/// Reads the value of an `AMCV_…` cookie, raw or percent-encoded: fields between bars, of which `MCMID` is followed by
/// the ECID and `MCOPTOUT`, `MCOPTOUT-<time>` or `MCOPTOUT-<time>s` by the opt-out. The first ECID counts, and any
/// opt-out other than `NONE`.
#[must_use]
pub fn parse_amcv(value: &str) -> Amcv {
    let mut amcv = Amcv::default();
    let decoded: Vec<u8> = percent_decode_str(value).collect();
    let mut key: &[u8] = b"";
    for field in decoded.split(|byte| *byte == b'|') {
        if key == b"MCMID" {
            amcv.ecid = amcv.ecid.or_else(|| ecid(field));
        }
        if key == b"MCOPTOUT" || key.starts_with(b"MCOPTOUT-") {
            amcv.opted_out |= field != b"NONE";
        }
        key = field;
    }
    amcv
}

/// Reads the value of an `s_ecid` cookie, raw or percent-encoded: `MCMID|<ECID>`.
#[must_use]
pub fn parse_s_ecid(value: &str) -> Option<Ecid> {
    parse_amcv(value).ecid
}

/// Both alphabets once `-` and `_` are written `+` and `/`. Padding may be there or not, and what is left of the last
/// byte may be anything, as browsers have it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Reads the value of a `kndctr_…_identity` cookie: a protobuf message in base64 or base64url, raw or percent-encoded,
/// whose field 1 is the ECID.
#[must_use]
pub fn parse_kndctr(value: &str) -> Option<Ecid> {
    let plain = |byte| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    };
    let text: Vec<u8> = percent_decode_str(value).map(plain).collect();
    ecid(field_one(&BASE64.decode(text).ok()?)?.as_bytes())
}

/// Field 1 of a protobuf message, a text; of several the last, as protobuf has it. `None` if it is missing, of
/// another type or not UTF-8, if the message is cut, or if it has groups, which protobuf has given up.
fn field_one(message: &[u8]) -> Option<&str> {
    let mut found = None;
    let mut rest = message;
    while !rest.is_empty() {
        // Field numbers have 29 bits, and none is 0.
        let key = u32::try_from(varint(&mut rest)?).ok()?;
        let (number, wire_type) = (key >> 3, key & 7);
        let value = match wire_type {
            0 => varint(&mut rest).map(|_| None),
            1 => take(&mut rest, 8).map(|_| None),
            2 => usize::try_from(varint(&mut rest)?).ok().and_then(|length| take(&mut rest, length)).map(Some),
            5 => take(&mut rest, 4).map(|_| None),
            _ => None,
        }?;
        match number {
            0 => return None,
            1 => found = Some(str::from_utf8(value?).ok()?),
            _ => {}
        }
    }
    found
}

/// Takes the next bytes; `None` if there are fewer.
fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

/// Takes a number of 1 to 10 bytes, seven bits in each, the lowest first; `None` if it is cut or needs over 64 bits.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        if shift == 63 && byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn ecid(text: &[u8]) -> Option<Ecid> {
    str::from_utf8(text).ok().and_then(Ecid::parse)
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

    use super::*;

    const ECID: &str = "72523635356235877200189499512793502995";
    const AMCV: &str = "1176715910|MCIDTS|19824|MCMID|72523635356235877200189499512793502995|MCAAMLH-1713367306|11|\
                        MCAAMB-1713367306|a_b-c|MCCIDH|857883598|MCOPTOUT-1712769706s|NONE|vVersion|5.4.0";

    fn encoded(text: &str) -> String {
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
    }

    fn read(message: &[u8]) -> Option<String> {
        parse_kndctr(&BASE64_URL_SAFE_NO_PAD.encode(message)).map(Ecid::text)
    }

    /// Field 1 with this text.
    fn first(text: &str) -> Vec<u8> {
        [&[0x0a, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }

    #[test]
    fn adobes_own_kndctr_cookies_are_read() {
        // From the tests of Adobe's Web SDK.
        for (cookie, ecid) in [
            (
                "CiYxNDAxNTI0NjEzODM4MjI2ODk1MTgwNTkyMTYxNjkxNTc0MzEyOFISCIelhf%5FOMRABGAEqA09SMjAA8AHX%5F4DZlzI%3D",
                "14015246138382268951805921616915743128",
            ),
            (
                "CiY4MDA2MDcwMjc3Nzk4MDc1NjMxMzI5Mjg1NTQ1NDE0OTUxMzIxN1IQCJS1kPGzMRgBKgNPUjIwAaAB0NOe3o0ysAG8swHwAcjTnt6NMg",
                "80060702777980756313292855454149513217",
            ),
            (
                "CiY0NDQ0MjAwMTI2MDA4NzQwNTQ5MTUxNDc5MzAzNTA2NTIxNDI4OFISCMjEz4O5MRABGAEqA09SMjAA8AHj2ouV1DE",
                "44442001260087405491514793035065214288",
            ),
        ] {
            assert_eq!(parse_kndctr(cookie).map(Ecid::text).as_deref(), Some(ecid), "{cookie}");
        }
    }

    #[test]
    fn kndctr_is_read_in_every_encoding() {
        // Field 2 holds bytes that the two alphabets write differently.
        let message = [first(ECID), vec![0x12, 6, 0xfb, 0xef, 0xbe, 0xff, 0xff, 0xff]].concat();
        for text in [
            BASE64_STANDARD.encode(&message),
            BASE64_STANDARD_NO_PAD.encode(&message),
            BASE64_URL_SAFE.encode(&message),
            BASE64_URL_SAFE_NO_PAD.encode(&message),
        ] {
            assert_eq!(parse_kndctr(&text).map(Ecid::text).as_deref(), Some(ECID), "{text}");
            assert_eq!(parse_kndctr(&encoded(&text)).map(Ecid::text).as_deref(), Some(ECID), "{text}");
        }
    }

    #[test]
    fn every_kind_of_field_is_stepped_over_and_the_last_field_one_wins() {
        let others: [&[u8]; 4] = [
            &[0xf0, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x11, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x52, 2, 0x0a, 0x26],
            &[0x2d, 1, 2, 3, 4],
        ];
        let others = others.concat();
        let message = [others.clone(), first(&"1".repeat(38)), others.clone(), first(ECID), others].concat();
        assert_eq!(read(&message).as_deref(), Some(ECID));
    }

    #[test]
    fn a_message_that_is_cut_or_wrong_is_no_identity() {
        let good = first(ECID);
        for length in 0..good.len() {
            assert_eq!(read(&good[..length]), None, "{length}");
        }
        let after: [(&str, &[u8]); 9] = [
            ("a field without a value", &[0x10]),
            ("a key that is cut", &[0x80]),
            ("a number of eleven bytes", &[0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]),
            ("a number of over 64 bits", &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]),
            ("a length beyond the end", &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            ("field 0", &[0x02, 0x00]),
            ("field 1 as a number", &[0x08, 0x01]),
            ("a group", &[0x13, 0x14]),
            ("an unknown type", &[0x16]),
        ];
        for (what, bytes) in after {
            assert_eq!(read(&[good.as_slice(), bytes].concat()), None, "{what}");
        }
        let short = &ECID[1..];
        let letters = "a".repeat(38);
        for text in [short, &letters, &format!("{ECID}0"), &format!("+{short}"), ""] {
            assert_eq!(read(&first(text)), None, "{text}");
            assert_eq!(read(&[first(ECID), first(text)].concat()), None, "{text}");
        }
        for value in ["", "=", "!", "%", "%zz", "Ci%59", "CiY", "a", &"A".repeat(10_000)] {
            assert_eq!(parse_kndctr(value), None, "{value}");
        }
    }

    #[test]
    fn amcv_and_s_ecid_are_read_raw_and_encoded() {
        let short = format!("MCMID|{ECID}");
        for raw in [AMCV, &short] {
            for cookie in [raw.to_owned(), encoded(raw), raw.replace('|', "%7C"), raw.replace('|', "%7c")] {
                let amcv = parse_amcv(&cookie);
                assert_eq!((amcv.ecid.map(Ecid::text).as_deref(), amcv.opted_out), (Some(ECID), false), "{cookie}");
                assert_eq!(parse_s_ecid(&cookie).map(Ecid::text).as_deref(), Some(ECID), "{cookie}");
            }
        }
    }

    #[test]
    fn an_opt_out_is_seen_whatever_stands_beside_it() {
        for (cookie, opted_out) in [
            ("MCOPTOUT|NONE", false),
            ("MCOPTOUT-1712769706|NONE", false),
            ("MCOPTOUT-1712769706s|NONE", false),
            ("XMCOPTOUT|global", false),
            ("MCOPTOUTS|global", false),
            ("MCOPTOUT", false),
            ("MCOPTOUT|global", true),
            ("MCOPTOUT-1712769706|global", true),
            ("MCOPTOUT-1712769706s|isolated", true),
            ("MCOPTOUT-1712769706s%7Cglobal", true),
            ("MCOPTOUT|", true),
            ("MCOPTOUT|none", true),
            ("MCOPTOUT|NONE|MCOPTOUT|global", true),
            ("MCOPTOUT|global|MCOPTOUT|NONE", true),
            ("MCAAMB|%zz%ff%|MCOPTOUT|global|%", true),
        ] {
            assert_eq!(parse_amcv(cookie), Amcv { ecid: None, opted_out }, "{cookie}");
        }
    }

    #[test]
    fn what_is_not_an_ecid_of_38_digits_is_not_read() {
        let short = &ECID[1..];
        for cookie in [
            "",
            "MCMID",
            "MCMID|",
            "1",
            &format!("MCMID|{short}"),
            &format!("MCMID|{ECID}0"),
            &format!("MCMID|-{short}"),
            &format!("mcmid|{ECID}"),
            &format!("MCMID-1|{ECID}"),
            &format!("XMCMID|{ECID}"),
            &format!("MCMID={ECID}"),
            &format!("MCMID%257C{ECID}"),
            ECID,
        ] {
            assert_eq!(parse_amcv(cookie), Amcv::default(), "{cookie}");
            assert_eq!(parse_s_ecid(cookie), None, "{cookie}");
        }
        let twice = format!("MCMID|{short}|MCMID|{ECID}|MCMID|{}", "1".repeat(38));
        assert_eq!(parse_s_ecid(&twice).map(Ecid::text).as_deref(), Some(ECID));
    }
}
