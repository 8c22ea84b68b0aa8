//! The ways in which Adobe writes a time. All of them come out in ms since the epoch; `None`: none of them, or before 1970.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// What Experience Platform's times look like, for error messages.
pub const RFC3339_EXPECTED: &str = "a time such as 2026-01-02T03:04:05Z";

/// Experience Platform: RFC 3339, whose offset may also lack its colon (`2026-01-02T03:04:05+0000`).
#[must_use]
pub fn rfc3339(text: &str) -> Option<u64> {
    millis(text.trim().parse().ok()?)
}

/// Audience Manager: `EEE MMM dd HH:mm:ss 'UTC' yyyy`. The day of the week is not compared with the date.
#[must_use]
pub fn spelled(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let mut words = text.split_ascii_whitespace();
    let mut word = || words.next();
    let (weekday, month, day, time, zone, year) = (word()?, word()?, word()?, word()?, word()?, word()?);
    if word().is_some() || weekday.len() != 3 || zone != "UTC" {
        return None;
    }
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))? + 1;
    let mut clock = time.splitn(3, ':');
    let mut part = || number(clock.next()?, 2);
    let (hour, minute, second) = (part()?, part()?, part()?);
    at(number(year, 4)?, u32::try_from(month).ok()?, number(day, 2)?, hour, minute, second)
}

/// The names of Experience Platform's files: `yyyyMMdd` and `HHmmss`, in UTC.
#[must_use]
pub(crate) fn digits(date: &str, time: &str) -> Option<u64> {
    if date.len() != 8 || time.len() != 6 || !date.is_ascii() || !time.is_ascii() {
        return None;
    }
    at(
        number(&date[..4], 4)?,
        number(&date[4..6], 2)?,
        number(&date[6..], 2)?,
        number(&time[..2], 2)?,
        number(&time[2..4], 2)?,
        number(&time[4..], 2)?,
    )
}

/// A number of at most so many digits, and of nothing else.
fn number(text: &str, digits: usize) -> Option<u32> {
    (text.len() <= digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn at(year: u32, month: u32, day: u32, hour: u32, minute: u32, second: u32) -> Option<u64> {
    let small = |number: u32| i8::try_from(number).ok();
    // A leap second is counted as the one before it.
    let second = second.min(if second == 60 { 59 } else { u32::MAX });
    let civil = DateTime::new(
        i16::try_from(year).ok()?,
        small(month)?,
        small(day)?,
        small(hour)?,
        small(minute)?,
        small(second)?,
        0,
    );
    millis(TimeZone::UTC.to_timestamp(civil.ok()?).ok()?)
}

fn millis(time: Timestamp) -> Option<u64> {
    u64::try_from(time.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-02T03:04:05Z.
    const TIME: u64 = 1_767_323_045_000;

    #[test]
    fn every_offset_of_experience_platform_is_read() {
        for text in [
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05+0000",
            "2026-01-02T03:04:05+00:00",
            "2026-01-02T04:34:05+0130",
            "2026-01-02T04:34:05+01:30",
            "2026-01-01T20:04:05-0700",
            "2026-01-02T03:04:05.000Z",
            " 2026-01-02T03:04:05Z",
        ] {
            assert_eq!(rfc3339(text), Some(TIME), "{text}");
        }
        assert_eq!(rfc3339("2026-01-02T03:04:05.678+0000"), Some(TIME + 678));
        assert_eq!(rfc3339("2016-12-31T23:59:60Z"), rfc3339("2016-12-31T23:59:59Z"));
        for bad in [
            "",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-13-02T03:04:05Z",
            "2026-02-30T03:04:05Z",
            "1969-12-31T23:59:59Z",
            "1767323045000",
            "Fri Jan 02 03:04:05 UTC 2026",
        ] {
            assert_eq!(rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn audience_manager_spells_its_dates() {
        for text in [
            "Fri Jan 02 03:04:05 UTC 2026",
            "Mon Jan 02 03:04:05 UTC 2026",
            "fri jan  2 03:04:05 UTC 2026",
            "Fri JAN 02 3:4:5 UTC 2026",
        ] {
            assert_eq!(spelled(text), Some(TIME), "{text}");
        }
        assert_eq!(spelled("Sat Dec 31 23:59:60 UTC 2016"), spelled("Sat Dec 31 23:59:59 UTC 2016"));
        for bad in [
            "",
            "Fri Jan 02 03:04:05 UTC",
            "Fri Jan 02 03:04:05 PST 2026",
            "Fri Jan 02 03:04:05 UTC 2026 x",
            "Fri Jam 02 03:04:05 UTC 2026",
            "Fri Jan 32 03:04:05 UTC 2026",
            "Fri Jan 02 24:04:05 UTC 2026",
            "Fri Jan 02 03:04 UTC 2026",
            "Fri Jan 02 03:04:05:06 UTC 2026",
            "Fri Jan 02 03:04:61 UTC 2026",
            "Fri Jan 02 +3:04:05 UTC 2026",
            "Thu Jan 01 00:00:00 UTC 1960",
            "2026-01-02T03:04:05Z",
        ] {
            assert_eq!(spelled(bad), None, "{bad}");
        }
    }

    #[test]
    fn digits_in_names_are_utc() {
        assert_eq!(digits("20260102", "030405"), Some(TIME));
        for (date, time) in
            [("20261302", "030405"), ("20260102", "250000"), ("2026010", "030405"), ("2026010\u{e9}", "030405")]
        {
            assert_eq!(digits(date, time), None, "{date} {time}");
        }
    }
}
