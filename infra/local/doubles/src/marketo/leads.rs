//! Leads by filter and by id.

use super::{Answer, BATCH, LeadState, Marketo, Outcome, Refusal, page_size, page_token, position_of};
use crate::wire::{Params, iso, push_json, push_number};

/// A filter query that matches more leads than this is refused.
const MATCHES: usize = 1_000;

/// A field that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Id,
    Email,
    Cookies,
    Ecids,
    CreatedAt,
    UpdatedAt,
    /// Known to Marketo, and null for everybody here.
    Null,
}

impl Marketo {
    /// The field of this name.
    pub(super) fn field(&self, name: &str) -> Result<Field, Refusal> {
        Ok(match name {
            "id" => Field::Id,
            "email" => Field::Email,
            "cookies" => Field::Cookies,
            "ecids" if self.settings.ecids_field => Field::Ecids,
            "createdAt" => Field::CreatedAt,
            "updatedAt" => Field::UpdatedAt,
            "firstName" | "lastName" | "company" | "leadPartitionId" => Field::Null,
            _ => return Err(Refusal(1006, format!("Field '{name}' not found"))),
        })
    }

    /// The fields asked for, or the default ones.
    pub(super) fn fields(&self, params: &Params<'_>) -> Result<Vec<Field>, Refusal> {
        let Some(names) = params.filled("fields") else {
            return Ok(vec![Field::Id, Field::Email, Field::UpdatedAt, Field::CreatedAt]);
        };
        names.split(',').map(|name| self.field(name.trim())).collect()
    }

    pub(super) fn leads_by_filter(&mut self, params: &Params<'_>) -> Outcome {
        let filter = params.filled("filterType").ok_or_else(|| Refusal::missing("filterType"))?;
        let values = params.filled("filterValues").ok_or_else(|| Refusal::missing("filterValues"))?;
        let values: Vec<&str> = values.split(',').map(str::trim).collect();
        if values.len() > BATCH {
            return Err(Refusal(1003, format!("Too many values for parameter 'filterValues': at most {BATCH}")));
        }
        let fields = self.fields(params)?;
        let mut found: Vec<u64> = match filter {
            "cookies" | "cookie" => {
                let mut found = Vec::with_capacity(values.len());
                for value in &values {
                    let token = self.token_of_cookie(value)?;
                    found.extend(self.by_cookie.get(token));
                }
                found
            }
            "id" => {
                let mut found = Vec::with_capacity(values.len());
                for value in &values {
                    // An integer, as `describe2` says; how wide is not documented, so the narrowest reading counts.
                    let id = value.parse::<u64>().ok().filter(|id| i32::try_from(*id).is_ok()).ok_or_else(bad_id)?;
                    if self.state.leads.contains_key(&id) {
                        found.push(id);
                    }
                }
                found
            }
            "email" => {
                values.iter().filter_map(|value| self.by_email.get(&value.to_lowercase())).flatten().copied().collect()
            }
            "ecids" => return Err(Refusal::new(1011, "Field 'ecids' is not supported as filter")),
            _ => return Err(Refusal::new(1003, "Invalid value for parameter 'filterType'")),
        };
        // Rows come in Marketo's order, each lead once, and do not say which value matched.
        found.sort_unstable();
        found.dedup();
        if found.len() > MATCHES {
            return Err(Refusal::new(1003, "Too many results match the filter"));
        }
        Ok(self.page_of_leads(params, 'L', &fields, &found)?.with_ids(values.len()))
    }

    /// One page of the leads `found`.
    pub(super) fn page_of_leads(
        &mut self,
        params: &Params<'_>,
        family: char,
        fields: &[Field],
        found: &[u64],
    ) -> Outcome {
        let size = page_size(params, "batchSize", BATCH, BATCH)?;
        let from = params.filled("nextPageToken").map_or(Ok(0), |token| position_of(family, token))?;
        let mut out = String::with_capacity(64 + 64 * found.len().min(size));
        out.push_str("\"result\":[");
        for id in found.iter().skip(from).take(size) {
            if let Some(lead) = self.state.leads.get(id) {
                push_lead(&mut out, *id, lead, fields);
                out.push(',');
            }
        }
        close(&mut out, ']');
        if from + size < found.len() {
            out.push_str(",\"nextPageToken\":");
            push_json(&mut out, &page_token(family, from + size));
        }
        Ok(self.success(&out))
    }

    pub(super) fn lead_by_id(&mut self, id: u64, params: &Params<'_>) -> Outcome {
        let fields = self.fields(params)?;
        let Some(lead) = self.state.leads.get(&id) else {
            return Err(Refusal(1004, format!("Lead '{id}' not found")));
        };
        let mut out = "\"result\":[".to_owned();
        push_lead(&mut out, id, lead, &fields);
        out.push(']');
        Ok(self.success(&out).with_ids(1))
    }

    /// Only the searchable fields; `ecids` is never one of them.
    pub(super) fn describe(&mut self) -> Answer {
        let ecids =
            if self.settings.ecids_field { r#",{"name":"ecids","displayName":"ECIDs","dataType":"text"}"# } else { "" };
        self.success(&format!(
            r#""result":[{{"name":"API Lead","searchableFields":[["cookies"],["email"],["id"]],"fields":[{{"name":"id","displayName":"Id","dataType":"integer"}},{{"name":"email","displayName":"Email Address","dataType":"email"}},{{"name":"cookies","displayName":"Cookies","dataType":"text"}}{ecids}]}}]"#
        ))
    }

    pub(super) fn lists_of_lead(&mut self, id: u64, params: &Params<'_>) -> Outcome {
        if !self.state.leads.contains_key(&id) {
            return Err(Refusal(1004, format!("Lead '{id}' not found")));
        }
        let lists = self.state.lists.iter().filter(|(_, list)| list.members.contains(&id));
        let rows: Vec<String> = lists
            .map(|(list, state)| {
                let (created, updated) = (iso(state.created_ms), iso(state.updated_ms));
                format!(r#"{{"listId":{list},"createdAt":"{created}","updatedAt":"{updated}"}}"#)
            })
            .collect();
        Ok(self.page_of_rows(params, 'B', &rows)?.with_ids(1))
    }

    /// One page of rows that are JSON text already.
    pub(super) fn page_of_rows(&mut self, params: &Params<'_>, family: char, rows: &[String]) -> Outcome {
        let size = page_size(params, "batchSize", BATCH, BATCH)?;
        let from = params.filled("nextPageToken").map_or(Ok(0), |token| position_of(family, token))?;
        let page: Vec<&str> = rows.iter().skip(from).take(size).map(String::as_str).collect();
        let mut out = format!("\"result\":[{}]", page.join(","));
        if from + size < rows.len() {
            out.push_str(",\"nextPageToken\":");
            push_json(&mut out, &page_token(family, from + size));
        }
        Ok(self.success(&out))
    }

    /// The token of `id:AAA-BBB-CCC&token:_mch-…`. One bad value spoils the whole call.
    fn token_of_cookie<'v>(&self, value: &'v str) -> Result<&'v str, Refusal> {
        value
            .strip_prefix("id:")
            .and_then(|rest| rest.split_once("&token:"))
            .filter(|(instance, token)| *instance == self.state.munchkin_id && is_token(token))
            .filter(|(_, token)| !self.refused_cookies.contains(*token))
            .map(|(_, token)| token)
            .ok_or_else(|| Refusal(1012, format!("Invalid cookie value '{value}'")))
    }
}

/// `_mch-<domain>-<rest>`, without the characters that separate values.
fn is_token(token: &str) -> bool {
    token.len() <= 255
        && token.strip_prefix("_mch-").and_then(|rest| rest.rsplit_once('-')).is_some_and(|(domain, end)| {
            !domain.is_empty() && !end.is_empty() && end.bytes().all(|b| b.is_ascii_alphanumeric())
        })
        && token.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b',' | b';' | b'&' | b'"'))
}

pub(super) fn bad_id() -> Refusal {
    Refusal::new(1001, "Invalid value for parameter 'id': an integer is required")
}

/// Replaces a trailing comma by `with`, or appends it.
pub(super) fn close(out: &mut String, with: char) {
    if out.ends_with(',') {
        out.pop();
    }
    out.push(with);
}

/// Appends one lead. The id always comes; a field that is null is left out.
pub(super) fn push_lead(out: &mut String, id: u64, lead: &LeadState, fields: &[Field]) {
    out.push_str("{\"id\":");
    push_number(out, id);
    for field in fields {
        let (name, value) = match field {
            Field::Id | Field::Null => continue,
            Field::Email => match &lead.email {
                None => continue,
                Some(email) => {
                    out.push_str(",\"email\":");
                    push_json(out, email);
                    continue;
                }
            },
            Field::Cookies => ("cookies", joined(&lead.cookies)),
            Field::Ecids => ("ecids", joined(&lead.ecids)),
            Field::CreatedAt => ("createdAt", Some(iso(lead.created_ms))),
            Field::UpdatedAt => ("updatedAt", Some(iso(lead.updated_ms))),
        };
        if let Some(value) = value {
            out.push_str(",\"");
            out.push_str(name);
            out.push_str("\":");
            push_json(out, &value);
        }
    }
    out.push('}');
}

/// Several values of one field stand in one string, separated by commas.
pub(super) fn joined(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| values.join(","))
}
