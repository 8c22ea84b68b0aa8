//! Who owns which token: look-ups, and the activity log.

use std::collections::BTreeSet;

use domain::{Ecid, LeadId, Token};
use http::Method;
use serde_json::Value;

use crate::answer::{number, text};
use crate::{CallError, Marketo, Slot, query};

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
        let values: Vec<String> =
            tokens.iter().map(|token| format!("id:{}&token:{}", self.munchkin, token.as_str())).collect();
        self.leads(slot, "cookies", &values.join(","), "id,email,cookies").await
    }

    /// These leads, at most 300 at once, in no order; those that are gone have no row.
    pub async fn leads_by_id(&self, slot: Slot, ids: &[LeadId], ecids: bool) -> Result<Vec<LeadRow>, CallError> {
        let values: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let fields = if ecids { "id,email,cookies,ecids" } else { "id,email,cookies" };
        self.leads(slot, "id", &values.join(","), fields).await
    }

    async fn leads(&self, slot: Slot, filter: &str, values: &str, fields: &str) -> Result<Vec<LeadRow>, CallError> {
        // As a form: 300 cookies are 21 KB, and a URI may have 8.
        let form = query(&[("filterType", filter), ("filterValues", values), ("fields", fields), ("batchSize", "300")]);
        let mut answer = self.lead_page(slot, form.clone()).await?;
        let mut rows: Vec<LeadRow> = answer.result.iter().filter_map(LeadRow::read).collect();
        while let Some(next) = answer.next {
            let form = format!("{form}&{}", query(&[("nextPageToken", &next)]));
            answer = self.lead_page(self.slot().await?, form).await?;
            rows.extend(answer.result.iter().filter_map(LeadRow::read));
        }
        Ok(rows)
    }

    async fn lead_page(&self, slot: Slot, form: String) -> Result<crate::Answer, CallError> {
        let body = Some(("application/x-www-form-urlencoded", form.into_bytes()));
        let answer = self.call(slot, Method::POST, "/rest/v1/leads.json?_method=GET", body).await;
        reading(answer)
    }

    /// Where the activity log stands at a moment (RFC 3339).
    pub async fn paging_token(&self, slot: Slot, since: &str) -> Result<String, CallError> {
        let path = format!("/rest/v1/activities/pagingtoken.json?{}", query(&[("sinceDatetime", since)]));
        let answer = reading(self.get(slot, &path).await)?;
        answer.next.ok_or_else(|| CallError::Unknown("a paging token without a token".to_owned()))
    }

    /// The next page of the activity log.
    pub async fn activities(&self, slot: Slot, token: &str) -> Result<ActivityPage, CallError> {
        let path =
            format!("/rest/v1/activities.json?{}", query(&[("nextPageToken", token), ("activityTypeIds", FOLLOWED)]));
        let answer = reading(self.get(slot, &path).await)?;
        let next =
            answer.next.ok_or_else(|| CallError::Unknown("a page of activities without a next token".to_owned()))?;
        Ok(ActivityPage { rows: answer.result.iter().filter_map(read_activity).collect(), next, more: answer.more })
    }
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

/// A call that only reads has no effect, so an unknown outcome is simply no answer.
pub(crate) fn reading<T>(answer: Result<T, CallError>) -> Result<T, CallError> {
    match answer {
        Err(CallError::Unknown(reason)) => Err(CallError::Ours(ports::Failure::retry(reason))),
        other => other,
    }
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
}
