//! The cookies that show who a browser is: Munchkin's and Adobe's.
//!
//! Whoever sends a request writes its cookies, so nothing here trusts them: work and memory grow with the length of the
//! text and no faster, and what cannot be read is `None`.

mod adobe;

use percent_encoding::percent_decode_str;

pub use self::adobe::{Amcv, parse_amcv, parse_kndctr, parse_s_ecid};
use crate::{Ecid, MunchkinId, OrgId, Token};

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

/// Reads the value of a `_mkto_trk` cookie, `id:<Munchkin id>&token:<token>`, raw or percent-encoded; `None` if it is
/// not one.
#[must_use]
pub fn parse_mkto_trk(value: &str) -> Option<(MunchkinId, Token)> {
    let value = percent_decode_str(value).decode_utf8().ok()?;
    let (id, token) = value.strip_prefix("id:")?.split_once("&token:")?;
    Some((MunchkinId::parse(id)?, Token::parse(token)?))
}

/// What the cookies of a request show, for one organisation and one Munchkin id.
///
/// ECID and token are read whether the visitor opted out or not: it is for the caller to heed `opted_out`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// The visitor's ECID in the organisation.
    pub ecid: Option<Ecid>,
    /// The visitor's token in the subscription.
    pub token: Option<Token>,
    /// The visitor opted out of Marketo's tracking, of Audience Manager, or of the organisation's tracking.
    pub opted_out: bool,
}

/// Reads the cookies of a request. Each text is one `name=value` or a whole header's `name=value; name=value`.
///
/// The ECID is that of `kndctr_<organisation>_AdobeOrg_identity`, else of `AMCV_<organisation>%40AdobeOrg`, else of
/// `s_ecid`, whose name says nothing of an organisation: it is left alone beside another organisation's cookies and none
/// of this one. Of several cookies of a name (of the page's host and of the
/// domain above it) the first that can be read counts; an opt-out counts wherever it stands.
#[must_use]
pub fn shown<'a>(cookies: impl IntoIterator<Item = &'a str>, org: &OrgId, munchkin: &MunchkinId) -> Shown {
    let (mut kndctr, mut amcv, mut s_ecid) = (None, None, None);
    let (mut own, mut foreign) = (false, false);
    let mut shown = Shown::default();
    for cookie in cookies.into_iter().flat_map(|text| text.split(';')) {
        let Some((name, value)) = cookie.trim().split_once('=') else { continue };
        match name {
            "_mkto_trk" => {
                let of_ours = || parse_mkto_trk(value).filter(|(id, _)| id == munchkin).map(|(_, token)| token);
                shown.token = shown.token.or_else(of_ours);
            }
            "mkto_opt_out" => shown.opted_out |= value == "true",
            "demdex" => shown.opted_out |= value == "NOTARGET",
            "s_ecid" => s_ecid = s_ecid.or_else(|| parse_s_ecid(value)),
            _ if is_kndctr(name, org) => {
                kndctr = kndctr.or_else(|| parse_kndctr(value));
                own = true;
            }
            _ if is_amcv(name, org) => {
                own = true;
                let read = parse_amcv(value);
                amcv = amcv.or(read.ecid);
                shown.opted_out |= read.opted_out;
            }
            _ => foreign |= is_adobes(name),
        }
    }
    shown.ecid = kndctr.or(amcv).or(s_ecid.filter(|_| own || !foreign));
    shown
}

/// Whether a name is `kndctr_<id>_AdobeOrg_identity` of this organisation.
fn is_kndctr(name: &str, org: &OrgId) -> bool {
    name.strip_prefix("kndctr_").and_then(|name| name.strip_prefix(before_at(org))) == Some("_AdobeOrg_identity")
}

/// Whether a name is `AMCV_<id>@AdobeOrg` of this organisation, raw or percent-encoded.
fn is_amcv(name: &str, org: &OrgId) -> bool {
    let rest = name.strip_prefix("AMCV_").and_then(|name| name.strip_prefix(before_at(org)));
    matches!(rest, Some("%40AdobeOrg" | "@AdobeOrg"))
}

/// Whether a name is that of some organisation's cookie with an ECID.
fn is_adobes(name: &str) -> bool {
    let of = |prefix: &str, suffixes: &[&str]| {
        name.strip_prefix(prefix).is_some_and(|rest| suffixes.iter().any(|suffix| rest.ends_with(suffix)))
    };
    of("AMCV_", &["%40AdobeOrg", "@AdobeOrg"]) || of("kndctr_", &["_AdobeOrg_identity"])
}

/// An organisation's id without its `@AdobeOrg`.
fn before_at(org: &OrgId) -> &str {
    org.as_str().split('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_s_ecid_beside_another_organisations_cookies_alone_is_nobodys() {
        let org = OrgId::parse("0123456789ABCDEF01234567@AdobeOrg").unwrap();
        let munchkin = MunchkinId::parse("123-ABC-456").unwrap();
        let s_ecid = "s_ecid=MCMID|72523635356235877200189499512793502995";
        let read = |other: &str| shown([s_ecid, other], &org, &munchkin).ecid.is_some();
        assert!(read("a=b") && read("AMCVS_76543210FEDCBA9876543210%40AdobeOrg=1"));
        for foreign in [
            "AMCV_76543210FEDCBA9876543210%40AdobeOrg=MCMID|1",
            "AMCV_76543210FEDCBA9876543210@AdobeOrg=",
            "kndctr_76543210FEDCBA9876543210_AdobeOrg_identity=x",
        ] {
            assert!(!read(foreign), "{foreign}");
            assert!(read(&format!("{foreign}; AMCV_0123456789ABCDEF01234567@AdobeOrg=vVersion|5")), "{foreign}");
        }
    }

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
            "id:123-ABC-456&token:_mch-example.com-0123456789abcdef0123456789abcdef0",
            "id:123-ABC-456&token:_mch-example.com-0123456789abcdef0123456789abc",
        ] {
            assert_eq!(parse_mkto_trk(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_token_has_at_most_320_bytes() {
        let token = |length: usize| format!("_mch-{}-1700000000000-12345", "a".repeat(length - 25));
        assert_eq!(token(MAX_TOKEN).len(), MAX_TOKEN);
        assert!(is_token(&token(MAX_TOKEN)));
        assert!(!is_token(&token(MAX_TOKEN + 1)));
    }

    const ORG: &str = "0123456789ABCDEF01234567";
    const KNDCTR: &str =
        "CiYxNDAxNTI0NjEzODM4MjI2ODk1MTgwNTkyMTYxNjkxNTc0MzEyOFISCIelhf%5FOMRABGAEqA09SMjAA8AHX%5F4DZlzI%3D";
    const OF_KNDCTR: &str = "14015246138382268951805921616915743128";
    const OF_AMCV: &str = "72523635356235877200189499512793502995";
    const OF_S_ECID: &str = "09931076965856026570390653077113735069";
    const TOKEN: &str = "_mch-example.com-1700000000000-12345";

    fn seen(cookies: &[&str]) -> Shown {
        let org = OrgId::parse(&format!("{ORG}@AdobeOrg")).unwrap();
        shown(cookies.iter().copied(), &org, &MunchkinId::parse("123-ABC-456").unwrap())
    }

    fn ecid_of(cookies: &[&str]) -> Option<String> {
        seen(cookies).ecid.map(Ecid::text)
    }

    #[test]
    fn a_request_shows_ecid_and_token_as_pairs_or_as_one_header() {
        let kndctr = format!("kndctr_{ORG}_AdobeOrg_identity={KNDCTR}");
        let trk = format!("_mkto_trk=id:123-ABC-456&token:{TOKEN}");
        let header = format!("theme=dark; {kndctr};{trk} ; flag; =; a=b=c");
        for cookies in [vec![kndctr.as_str(), &trk], vec!["theme=dark", &trk, "", &kndctr], vec![&header]] {
            let shown = seen(&cookies);
            assert_eq!(shown.ecid.map(Ecid::text).as_deref(), Some(OF_KNDCTR));
            assert_eq!(shown.token.as_ref().map(Token::as_str), Some(TOKEN));
            assert!(!shown.opted_out);
        }
        assert_eq!(seen(&[]), Shown::default());
    }

    #[test]
    fn the_web_sdks_cookie_goes_before_visitor_js_and_that_before_s_ecid() {
        let kndctr = format!("kndctr_{ORG}_AdobeOrg_identity={KNDCTR}");
        let amcv = format!("AMCV_{ORG}%40AdobeOrg=1176715910%7CMCMID%7C{OF_AMCV}%7CMCOPTOUT-1712769706s%7CNONE");
        let s_ecid = format!("s_ecid=MCMID%7C{OF_S_ECID}");
        assert_eq!(ecid_of(&[&s_ecid, &amcv, &kndctr]).as_deref(), Some(OF_KNDCTR));
        assert_eq!(ecid_of(&[&s_ecid, &amcv]).as_deref(), Some(OF_AMCV));
        assert_eq!(ecid_of(&[&s_ecid, &amcv.replace("%40", "@")]).as_deref(), Some(OF_AMCV));
        assert_eq!(ecid_of(&[&s_ecid]).as_deref(), Some(OF_S_ECID));
        // A cookie that cannot be read hides none that can.
        let broken = format!("kndctr_{ORG}_AdobeOrg_identity=CiYx");
        assert_eq!(ecid_of(&[&broken, &amcv]).as_deref(), Some(OF_AMCV));
        assert_eq!(ecid_of(&[&broken, &kndctr, &amcv]).as_deref(), Some(OF_KNDCTR));
    }

    #[test]
    fn cookies_of_other_organisations_and_subscriptions_are_not_ours() {
        let other = ORG.replace("0123", "3210");
        let lower = ORG.to_lowercase();
        for org in [other.as_str(), &lower, &ORG[1..], ""] {
            let kndctr = format!("kndctr_{org}_AdobeOrg_identity={KNDCTR}");
            let amcv = format!("AMCV_{org}%40AdobeOrg=MCMID|{OF_AMCV}|MCOPTOUT|global");
            assert_eq!(seen(&[&kndctr, &amcv]), Shown::default(), "{org}");
        }
        for name in ["AMCVS_ORG%40AdobeOrg", "AMCV_ORG%40AdobeOrgX", "XAMCV_ORG%40AdobeOrg", "AMCV_ORG"] {
            let amcv = format!("{}=MCMID|{OF_AMCV}|MCOPTOUT|global", name.replace("ORG", ORG));
            assert_eq!(seen(&[&amcv]), Shown::default(), "{name}");
        }
        let theirs = format!("_mkto_trk=id:999-XYZ-999&token:{}", TOKEN.replace("example", "theirs"));
        let ours = format!("_mkto_trk=id%3A123-ABC-456%26token%3A{TOKEN}");
        assert_eq!(seen(&[&theirs]), Shown::default());
        for cookies in [[theirs.as_str(), &ours], [&ours, &theirs]] {
            assert_eq!(seen(&cookies).token.as_ref().map(Token::as_str), Some(TOKEN));
        }
    }

    #[test]
    fn of_several_cookies_of_a_name_the_first_counts() {
        let trk = |n: u8| format!("_mkto_trk=id:123-ABC-456&token:_mch-example.com-1700000000000-{n}");
        let s_ecid = |n: u8| format!("s_ecid=MCMID|{n:038}");
        let amcv = |n: u8| format!("AMCV_{ORG}@AdobeOrg=MCMID|{n:038}");
        let first = seen(&[&trk(1), &trk(2), &amcv(1), &amcv(2), &s_ecid(3)]);
        assert_eq!(first.token.as_ref().map(Token::as_str), Some("_mch-example.com-1700000000000-1"));
        assert_eq!(first.ecid, Ecid::from_number(1));
        assert_eq!(seen(&[&s_ecid(3), &s_ecid(4)]).ecid, Ecid::from_number(3));
    }

    #[test]
    fn each_opt_out_is_heeded() {
        let amcv = |value: &str| format!("AMCV_{ORG}%40AdobeOrg=MCMID%7C{OF_AMCV}%7CMCOPTOUT-1712769706s%7C{value}");
        for (cookie, opted_out) in [
            ("mkto_opt_out=true", true),
            ("mkto_opt_out=false", false),
            ("demdex=NOTARGET", true),
            ("demdex=12345678901234567890123456789012345678", false),
            (&amcv("global"), true),
            (&amcv("NONE"), false),
        ] {
            assert_eq!(seen(&[cookie]).opted_out, opted_out, "{cookie}");
            // Also where the ECID is found elsewhere.
            let kndctr = format!("kndctr_{ORG}_AdobeOrg_identity={KNDCTR}");
            assert_eq!(seen(&[&kndctr, cookie]).opted_out, opted_out, "{cookie}");
        }
    }

    #[test]
    fn what_is_shown_does_not_show_in_debug_output() {
        let kndctr = format!("kndctr_{ORG}_AdobeOrg_identity={KNDCTR}");
        let shown = seen(&[&kndctr, &format!("_mkto_trk=id:123-ABC-456&token:{TOKEN}")]);
        assert_eq!(format!("{shown:?}"), "Shown { ecid: Some(Ecid(..)), token: Some(Token(..)), opted_out: false }");
    }

    #[test]
    fn a_header_full_of_nonsense_shows_nothing() {
        // A gateway passes 10,240 bytes of request line and headers.
        for piece in ["%", ";", "=", "|", "a=b;", "_mkto_trk=%;", "s_ecid=MCMID|;", "AMCV_%40AdobeOrg=|;", "é=é;"] {
            let header = piece.repeat(10_240 / piece.len());
            assert_eq!(seen(&[&header]), Shown::default(), "{piece}");
        }
    }
}
