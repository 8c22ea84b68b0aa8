//! The reports as `out/reports.json` shows them, and as tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::screen::grouped;

/// The report of one sync: exactly the keys that `out/reports.json` has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    pub(crate) audience_id: String,
    /// `None`: the sync only reports, on a list that does not exist.
    pub(crate) list_id: Option<u64>,
    pub(crate) as_of: String,
    pub(crate) audience: u64,
    pub(crate) addressable: u64,
    pub(crate) known: u64,
    pub(crate) people: u64,
    pub(crate) in_list: InList,
    pub(crate) waiting: u64,
    /// Taken out of the list by hand; not in the file, whose world has no hands.
    #[serde(skip)]
    pub(crate) kept_out: u64,
    /// Not added because an operator dropped a mass change; not in the file either.
    #[serde(skip)]
    pub(crate) dropped: u64,
    /// By Marketo's code; 1004 is always there.
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) members_in_marketo: u64,
}

/// People of the audience who are in the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct InList {
    pub(crate) ours: u64,
    pub(crate) before_us: u64,
}

impl Report {
    /// From what `GET /syncs/{id}/report` answers. `members`: what Marketo shows now, for a report that read no
    /// list (nothing delivered, or `report_only`).
    pub(crate) fn read(answer: &Value, members: u64) -> Option<Self> {
        let number = |field: &str| answer[field].as_u64();
        let mut failed = BTreeMap::from([("1004".to_owned(), 0)]);
        for (code, count) in answer["failed"].as_object()? {
            failed.insert(code.clone(), count.as_u64()?);
        }
        Some(Self {
            audience_id: answer["audience_id"].as_str()?.to_owned(),
            list_id: number("list_id"),
            as_of: answer["as_of"].as_str()?.to_owned(),
            audience: number("audience")?,
            addressable: number("addressable")?,
            known: number("known")?,
            people: number("people")?,
            in_list: InList {
                ours: answer["in_list"]["ours"].as_u64()?,
                before_us: answer["in_list"]["before_us"].as_u64()?,
            },
            waiting: number("waiting")?,
            kept_out: number("kept_out").unwrap_or(0),
            dropped: number("dropped").unwrap_or(0),
            failed,
            members_in_marketo: number("members_in_marketo").unwrap_or(members),
        })
    }

    /// The report as a table.
    pub(crate) fn table(&self, audience: &str, list: &str) -> String {
        let mut out = format!("{} ({audience}) -> list {}", self.audience_id, self.list_id.unwrap_or_default());
        _ = writeln!(out, " ({list})");
        let failed: u64 = self.failed.values().sum();
        let codes: Vec<String> =
            self.failed.iter().filter(|(_, n)| **n > 0).map(|(code, n)| format!("{code}: {n}")).collect();
        let codes = if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) };
        for (what, number, more) in [
            ("ECIDs in the audience", self.audience, String::new()),
            ("addressable (seen beside a token)", self.addressable, String::new()),
            ("known (the person has an email)", self.known, String::new()),
            ("people behind them", self.people, String::new()),
            ("  in the list, put there by us", self.in_list.ours, String::new()),
            ("  in the list, there before us", self.in_list.before_us, String::new()),
            ("  waiting", self.waiting, String::new()),
            ("  taken out of it by hand", self.kept_out, String::new()),
            ("  dropped by an operator", self.dropped, String::new()),
            ("  refused by Marketo", failed, codes),
            ("members that Marketo shows", self.members_in_marketo, String::new()),
        ] {
            let rare = what.starts_with("  taken") || what.starts_with("  dropped");
            if rare && number == 0 {
                continue;
            }
            _ = writeln!(out, "    {what:<36}{:>10}{more}", grouped(number));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_report_has_the_keys_of_the_file_and_always_1004() {
        let answer = json!({
            "sync_id": "s", "audience_id": "aam:101", "list_id": 1001, "as_of": "2026-11-01T00:00:00Z", "audience": 9,
            "addressable": 5, "known": 4, "people": 3, "in_list": {"ours": 1, "before_us": 1}, "waiting": 0,
            "failed": {"1003": 1}, "members_in_marketo": null, "members": null,
        });
        let report = Report::read(&answer, 7).expect("report");
        let text = serde_json::to_string(&report).expect("JSON");
        assert_eq!(
            text,
            r#"{"audience_id":"aam:101","list_id":1001,"as_of":"2026-11-01T00:00:00Z","audience":9,"addressable":5,"known":4,"people":3,"in_list":{"ours":1,"before_us":1},"waiting":0,"failed":{"1003":1,"1004":0},"members_in_marketo":7}"#
        );
        let table = report.table("Cart abandoners", "VIP");
        assert!(table.contains("refused by Marketo") && table.contains("(1003: 1)"), "{table}");
        assert!(!table.contains("by hand"), "{table}");
        let mut answer = answer;
        answer["kept_out"] = json!(1);
        let table = Report::read(&answer, 7).expect("report").table("Cart abandoners", "VIP");
        assert!(table.contains("taken out of it by hand"), "{table}");
        assert_eq!(Report::read(&json!({"audience_id": "aam:1"}), 0), None);
    }
}
