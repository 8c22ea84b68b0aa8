//! The Munchkin cookie `_mkto_trk`: `id:<munchkin id>&token:<token>`, raw or percent-encoded.

use crate::{MunchkinId, Token};

/// Longest token that we store, in bytes. The documented forms are far shorter; a DNS name has at most 253.
pub const MAX_TOKEN: usize = 320;

/// Whether `text` is a Munchkin token: `_mch-<domain>-<13 digits>-<1 to 5 digits>` or `_mch-<domain>-<30 to 32 hex>`.
/// The domain may contain `-` and `.`, so it is read from the right.
#[must_use]
pub fn is_token(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("_mch-") else { return false };
    if text.len() > MAX_TOKEN {
        return false;
    }
    let Some((before, last)) = rest.rsplit_once('-') else { return false };
    if (30..=32).contains(&last.len()) && last.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return is_domain(before);
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !(digits(last) && last.len() <= 5) {
        return false;
    }
    before.rsplit_once('-').is_some_and(|(domain, time)| time.len() == 13 && digits(time) && is_domain(domain))
}

fn is_domain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// Reads a `_mkto_trk` cookie's value; `None` if it is not one.
#[must_use]
pub fn parse_mkto_trk(value: &str) -> Option<(MunchkinId, Token)> {
    let decoded;
    let value = if value.contains('%') {
        decoded = percent_decode(value)?;
        decoded.as_str()
    } else {
        value
    };
    let (id, token) = value.strip_prefix("id:")?.split_once("&token:")?;
    Some((MunchkinId::parse(id)?, Token::parse(token)?))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = (rest.next()? as char).to_digit(16)?;
            let low = (rest.next()? as char).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_token_and_both_encodings_are_read() {
        let hex = "_mch-example.com-0123456789abcdef0123456789abcdef";
        for token in [
            "_mch-example.com-1700000000000-12345",
            "_mch-my-shop.example.com-1700000000000-1",
            hex,
            &hex[..hex.len() - 1],
        ] {
            let raw = format!("id:123-ABC-456&token:{token}");
            let encoded = format!("id%3A123-ABC-456%26token%3A{token}");
            for cookie in [raw, encoded] {
                let (munchkin, read) = parse_mkto_trk(&cookie).unwrap();
                assert_eq!((munchkin.as_str(), read.as_str()), ("123-ABC-456", token));
            }
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "id:123-ABC-456",
            "id:123-ABC-456&token:",
            "id:123-ABC-456&token:abc",
            "id:123-abc-456&token:_mch-example.com-1700000000000-12345",
            "id:123-ABC-456&token:_mch-example.com-170000000000-12345",
            "id:123-ABC-456&token:_mch-example.com-1700000000000-123456",
            "id:123-ABC-456&token:_mch--1700000000000-12345",
            "id%3A123-ABC-456%26token%3",
            "id:123-ABC-456&token:_mch-exa,mple.com-1700000000000-12345",
        ] {
            assert_eq!(parse_mkto_trk(bad), None, "{bad}");
        }
    }
}
