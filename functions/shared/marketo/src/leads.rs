//! Who owns which token: look-ups, and the activity log.

use std::collections::BTreeSet;

use domain::limits::MARKETO_BATCH;
use domain::{Ecid, LeadId, ListId, Token};
use http::Method;
use jiff::Timestamp;
use ports::Failure;
use serde_json::Value;

use crate::answer::{Answer, number, text};
use crate::{Call, CallError, Effect, FORM, Marketo, Slot, query};

/// What Marketo says of a lead. The email itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeadRow {
    /// Marketo's id.
    pub id: LeadId,
    /// Whether it has an email.
    pub known: bool,
    /// Its tokens.
    pub cookies: BTreeSet<Token>,
    /// ECIDs that Marketo has stored for it.
    pub ecids: BTreeSet<Ecid>,
}

/// A line of the activity log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// The lead; of a merge, the winner.
    pub lead: LeadId,
    /// What happened.
    pub kind: u64,
    /// Leads that were merged into it (type 32).
    pub losers: BTreeSet<LeadId>,
}

/// A page of the activity log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityPage {
    /// Its lines, oldest first.
    pub rows: Vec<Activity>,
    /// Where the next page begins.
    pub next: String,
    /// Whether there is more now.
    pub more: bool,
}

/// A change of a list's members, by anybody: us, a campaign, or a hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListChange {
    /// Marketo's id of this line, if it gave one: the same line may come twice.
    pub guid: String,
    /// Who.
    pub lead: LeadId,
    /// Into or out of which list.
    pub list: ListId,
    /// Into it.
    pub added: bool,
    /// When, in ms, at the grain of a second; `None` if Marketo's time cannot be read.
    pub at: Option<u64>,
}

/// A page of the log of list changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListChangePage {
    /// Its lines, oldest first.
    pub rows: Vec<ListChange>,
    /// Where the next page begins.
    pub next: String,
    /// Whether there is more now.
    pub more: bool,
}

/// Activity: somebody came into a list.
const ADD_TO_LIST: u64 = 24;
/// Activity: somebody was taken out of a list.
const REMOVE_FROM_LIST: u64 = 25;
/// Activity: leads were merged.
pub const MERGE: u64 = 32;
/// Activity: a lead was deleted.
pub const DELETE: u64 = 37;
/// Activities after which a lead's cookies are read again: form, e-mail link, new lead, merge, deletion, push, and
/// link click (the only ones at which an anonymous visitor can become known).
const FOLLOWED: &str = "2,3,11,12,32,37,145";

impl LeadRow {
    /// Splits Marketo's comma-separated field of ECIDs; what is not an ECID is left out.
    #[must_use]
    pub fn split_ecids(field: &str) -> BTreeSet<Ecid> {
        field.split([',', ';']).filter_map(|part| Ecid::parse(part.trim())).collect()
    }

    /// Splits Marketo's field of tokens; the delimiter is not documented, so both are taken.
    #[must_use]
    pub fn split_cookies(field: &str) -> BTreeSet<Token> {
        field.split([',', ';']).filter_map(|part| Token::parse(part.trim())).collect()
    }

    pub(crate) fn read(row: &Value) -> Option<Self> {
        let field = |name: &str| row[name].as_str().unwrap_or_default();
        Some(Self {
            id: number(&row["id"])?,
            known: !field("email").trim().is_empty(),
            cookies: Self::split_cookies(field("cookies")),
            ecids: Self::split_ecids(field("ecids")),
        })
    }
}

impl Marketo<'_> {
    /// The leads that own these tokens, at most 300 at once, in no order; tokens without an owner have no row.
    pub async fn leads_by_cookies(&self, slot: Slot, tokens: &[&Token]) -> Result<Vec<LeadRow>, CallError> {
        let tokens: BTreeSet<&Token> = tokens.iter().copied().collect();
        let values = tokens.iter().map(|token| format!("id:{}&token:{}", self.munchkin, token.as_str())).collect();
        self.leads(slot, "cookies", values, "id,email,cookies").await
    }

    /// These leads, at most 300 at once, in no order; those that are gone have no row.
    pub async fn leads_by_id(&self, slot: Slot, ids: &[LeadId], ecids: bool) -> Result<Vec<LeadRow>, CallError> {
        let ids: BTreeSet<LeadId> = ids.iter().copied().collect();
        let fields = if ecids { "id,email,cookies,ecids" } else { "id,email,cookies" };
        self.leads(slot, "id", ids.iter().map(ToString::to_string).collect(), fields).await
    }

    /// The leads with this email: Marketo may hold several.
    pub async fn leads_by_email(&self, slot: Slot, email: &str) -> Result<Vec<LeadId>, CallError> {
        let rows = self.leads(slot, "email", vec![email.to_owned()], "id").await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }

    async fn leads(
        &self,
        slot: Slot,
        filter: &str,
        values: Vec<String>,
        fields: &str,
    ) -> Result<Vec<LeadRow>, CallError> {
        debug_assert!(values.len() <= MARKETO_BATCH, "too many for one call");
        let values = values.join(",");
        // As a form: 300 cookies are 21 KB, and a URI may have 8.
        let form =
            query(&[("filterType", filter), ("filterValues", &values), ("fields", fields), ("batchSize", "300")]);
        let mut answer = self.lead_page(slot, form.clone()).await?;
        let mut rows: Vec<LeadRow> = answer.result.iter().filter_map(LeadRow::read).collect();
        while let Some(next) = answer.next {
            let form = format!("{form}&{}", query(&[("nextPageToken", &next)]));
            answer = self.lead_page(self.slot().await?, form).await?;
            rows.extend(answer.result.iter().filter_map(LeadRow::read));
        }
        Ok(rows)
    }

    async fn lead_page(&self, slot: Slot, form: String) -> Result<Answer, CallError> {
        let call = Call {
            effect: Effect::Reads,
            method: Method::POST,
            path_and_query: "/rest/v1/leads.json?_method=GET",
            body: Some((FORM, form.into_bytes())),
        };
        self.call(slot, call).await
    }

    /// Where the activity log stands at a moment (RFC 3339).
    pub async fn paging_token(&self, slot: Slot, since: &str) -> Result<String, CallError> {
        let path = format!("/rest/v1/activities/pagingtoken.json?{}", query(&[("sinceDatetime", since)]));
        let answer = self.get(slot, &path).await?;
        answer.next.ok_or_else(|| Failure::retry("a paging token without a token").into())
    }

    /// The next page of the activity log.
    pub async fn activities(&self, slot: Slot, token: &str) -> Result<ActivityPage, CallError> {
        let (rows, next, more) = self.activity_rows(slot, token, FOLLOWED).await?;
        Ok(ActivityPage { rows: rows.iter().filter_map(read_activity).collect(), next, more })
    }

    /// The next page of the log of list changes, of all lists: it has a cursor of its own, which begins at a
    /// [`Marketo::paging_token`]. Lines come minutes late, and ours are among them.
    pub async fn list_changes(&self, slot: Slot, token: &str) -> Result<ListChangePage, CallError> {
        let kinds = format!("{ADD_TO_LIST},{REMOVE_FROM_LIST}");
        let (rows, next, more) = self.activity_rows(slot, token, &kinds).await?;
        Ok(ListChangePage { rows: rows.iter().filter_map(read_list_change).collect(), next, more })
    }

    async fn activity_rows(
        &self,
        slot: Slot,
        token: &str,
        kinds: &str,
    ) -> Result<(Vec<Value>, String, bool), CallError> {
        let path =
            format!("/rest/v1/activities.json?{}", query(&[("nextPageToken", token), ("activityTypeIds", kinds)]));
        let Answer { result, next, more, .. } = self.get(slot, &path).await?;
        let next = next.ok_or_else(|| Failure::retry("a page of activities without a next token"))?;
        Ok((result, next, more))
    }
}

/// Marketo writes `Z`, `+00:00`, `+0000` and `Z+0000`, and means the same.
fn read_time(text: &str) -> Option<u64> {
    let time = text.trim_end_matches("+0000").trim_end_matches('Z');
    let time = if time == text { text.to_owned() } else { format!("{time}Z") };
    u64::try_from(time.parse::<Timestamp>().ok()?.as_millisecond()).ok()
}

fn read_list_change(row: &Value) -> Option<ListChange> {
    let added = match number(&row["activityTypeId"])? {
        ADD_TO_LIST => true,
        REMOVE_FROM_LIST => false,
        _ => return None,
    };
    Some(ListChange {
        guid: text(&row["marketoGUID"]).unwrap_or_default(),
        lead: number(&row["leadId"])?,
        list: number(&row["primaryAttributeValueId"])?,
        added,
        at: text(&row["activityDate"]).and_then(|date| read_time(&date)),
    })
}

fn read_activity(row: &Value) -> Option<Activity> {
    let kind = number(&row["activityTypeId"])?;
    let mut losers = BTreeSet::new();
    if kind == MERGE {
        for attribute in row["attributes"].as_array().into_iter().flatten() {
            if attribute["name"] == "Merge IDs" {
                let ids = text(&attribute["value"]).unwrap_or_default();
                losers.extend(ids.split(|c: char| !c.is_ascii_digit()).filter_map(|id| id.parse::<LeadId>().ok()));
            }
        }
    }
    Some(Activity { lead: number(&row["leadId"])?, kind, losers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_without_an_email_is_anonymous_and_fields_are_split_leniently() {
        let row = serde_json::json!({"id": "7", "cookies": "_mch-a.com-1700000000000-1, _mch-a.com-1700000000000-2;x", "ecids": format!("{},{}", "1".repeat(38), "12")});
        let row = LeadRow::read(&row).unwrap();
        assert_eq!((row.id, row.known, row.cookies.len(), row.ecids.len()), (7, false, 2, 1));
    }

    #[test]
    fn merge_ids_are_read() {
        let row = serde_json::json!({"leadId": 5, "activityTypeId": 32, "attributes": [{"name": "Merge IDs", "value": "[100009, 7]"}]});
        assert_eq!(read_activity(&row).unwrap(), Activity { lead: 5, kind: 32, losers: BTreeSet::from([7, 100_009]) });
    }

    #[test]
    fn list_changes_are_read_with_ids_as_numbers_or_strings() {
        let row = |kind: u64, list: Value| {
            serde_json::json!({"marketoGUID": "9001", "leadId": 5, "activityTypeId": kind,
                "primaryAttributeValueId": list, "activityDate": "2026-01-02T03:04:05Z", "attributes": []})
        };
        let change =
            |added| ListChange { guid: "9001".to_owned(), lead: 5, list: 1001, added, at: Some(1_767_323_045_000) };
        assert_eq!(read_list_change(&row(24, 1001.into())), Some(change(true)));
        assert_eq!(read_list_change(&row(25, "1001".into())), Some(change(false)));
        assert_eq!(read_list_change(&row(32, 1001.into())), None);
        assert_eq!(read_list_change(&row(24, Value::Null)), None);
    }

    #[test]
    fn each_of_marketos_forms_of_a_time_is_read() {
        for text in [
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05+0000",
            "2026-01-02T03:04:05Z+0000",
            "2026-01-02T03:04:05+00:00",
        ] {
            assert_eq!(read_time(text), Some(1_767_323_045_000), "{text}");
        }
        assert_eq!(read_time("2026-01-02T03:04:05-06:00"), Some(1_767_344_645_000));
        assert_eq!(read_time("yesterday"), None);
    }
}
