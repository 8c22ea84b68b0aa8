//! The change feed.
//!
//! Page visits are not recorded: nobody here asks for them. Adding to and removing from lists (24, 25) are, for
//! each real change; a merge, a deletion of a lead and a deletion of a list write none.

use serde::{Deserialize, Serialize};

use super::{BATCH, Marketo, Outcome, Refusal, page_size, page_token, position_of};
use crate::wire::{Params, iso, parse_time, push_json, push_number};

/// Fill Out Form.
pub(super) const FILL_OUT_FORM: u16 = 2;
/// New Lead.
pub(super) const NEW_LEAD: u16 = 12;
/// Add to List.
pub(super) const ADD_TO_LIST: u16 = 24;
/// Remove from List.
pub(super) const REMOVE_FROM_LIST: u16 = 25;
/// Merge Leads.
pub(super) const MERGE_LEADS: u16 = 32;
/// Delete Lead.
pub(super) const DELETE_LEAD: u16 = 37;

/// Activity types of one call.
const TYPES: usize = 10;
/// Lead ids of one call.
const LEAD_IDS: usize = 30;

/// Something that happened to a lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// When.
    pub at_ms: u64,
    /// Marketo's number of the type.
    pub type_id: u16,
    /// The lead; of a merge, the winner.
    pub lead: u64,
    /// The list, of a change of membership: its primary attribute. Otherwise that is the lead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<u64>,
    /// Name and value.
    pub attributes: Vec<(String, String)>,
}

impl Marketo {
    /// When the next activity that cannot be read yet becomes visible; `None`: all are visible.
    #[must_use]
    pub fn next_visible_activity_at(&self) -> Option<u64> {
        let next = self.state.activities.get(self.visible(self.state.now_ms))?;
        Some(next.at_ms + self.scaled(self.settings.activity_lag_ms))
    }

    /// When the last activity becomes visible, be it past or to come; `None`: there is none.
    #[must_use]
    pub fn last_visible_activity_at(&self) -> Option<u64> {
        let last = self.state.activities.last()?;
        Some(last.at_ms + self.scaled(self.settings.activity_lag_ms))
    }

    /// Every activity so far, visible or not.
    #[must_use]
    pub fn activities(&self) -> &[Activity] {
        &self.state.activities
    }

    /// Records that something happened.
    pub(super) fn happen(&mut self, at_ms: u64, type_id: u16, lead: u64, attributes: Vec<(String, String)>) {
        self.quiet.push(self.state.activities.len());
        self.state.activities.push(Activity { at_ms, type_id, lead, list: None, attributes });
    }

    /// Records that leads joined a list (24) or left it (25).
    pub(super) fn moved(&mut self, at_ms: u64, type_id: u16, list: u64, leads: &[u64]) {
        let rows =
            leads.iter().map(|lead| Activity { at_ms, type_id, lead: *lead, list: Some(list), attributes: Vec::new() });
        self.state.activities.extend(rows);
    }

    /// How many of the activities can be read now.
    fn visible(&self, now: u64) -> usize {
        let lag = self.scaled(self.settings.activity_lag_ms);
        self.state.activities.partition_point(|activity| activity.at_ms + lag <= now)
    }

    pub(super) fn paging_token(&mut self, params: &Params<'_>) -> Outcome {
        let since = params.filled("sinceDatetime").ok_or_else(|| Refusal::missing("sinceDatetime"))?;
        let since = parse_time(since).ok_or_else(|| Refusal::new(704, "Bad date in 'sinceDatetime'"))?;
        // Activities not yet visible stand behind the token as well, and so are not missed. The date has no
        // milliseconds when it is shown; what happened within that second counts.
        let position = self.state.activities.partition_point(|activity| activity.at_ms / 1_000 < since / 1_000);
        let mut out = "\"nextPageToken\":".to_owned();
        push_json(&mut out, &page_token('A', position));
        Ok(self.success(&out))
    }

    pub(super) fn read_activities(&mut self, now: u64, params: &Params<'_>) -> Outcome {
        let types = params.filled("activityTypeIds").ok_or_else(|| Refusal::missing("activityTypeIds"))?;
        let types: Vec<u16> = numbers(types, "activityTypeIds", TYPES)?;
        self.page_of_activities(now, params, &types)
    }

    pub(super) fn deleted_leads(&mut self, now: u64, params: &Params<'_>) -> Outcome {
        self.page_of_activities(now, params, &[DELETE_LEAD])
    }

    /// A page walks over at most 300 activities of any type, so that it may hold fewer rows, or none, although
    /// there are more to come. Changes of membership are not among them unless they are asked for: a big load
    /// would hide everything else behind a thousand empty pages.
    fn page_of_activities(&mut self, now: u64, params: &Params<'_>, types: &[u16]) -> Outcome {
        let token = params.filled("nextPageToken").ok_or_else(|| Refusal::missing("nextPageToken"))?;
        let leads: Option<Vec<u64>> =
            params.filled("leadIds").map(|ids| numbers(ids, "leadIds", LEAD_IDS)).transpose()?;
        let size = page_size(params, "batchSize", BATCH, BATCH)?;
        // A token from before a fresh start may stand behind the end.
        let from = position_of('A', token)?.min(self.state.activities.len());
        let visible = self.visible(now).max(from);
        let mut rows = String::new();
        let mut count = 0;
        let mut row = |at: usize| {
            let activity = &self.state.activities[at];
            if types.contains(&activity.type_id) && leads.as_ref().is_none_or(|ids| ids.contains(&activity.lead)) {
                count += 1;
                self.push_activity(&mut rows, at, activity);
                rows.push(',');
            }
        };
        let to = if types.iter().any(|kind| matches!(*kind, ADD_TO_LIST | REMOVE_FROM_LIST)) {
            let to = (from + size).min(visible);
            (from..to).for_each(&mut row);
            to
        } else {
            let begin = self.quiet.partition_point(|at| *at < from);
            let mut walk = self.quiet[begin..].iter().copied().take_while(|at| *at < visible);
            walk.by_ref().take(size).for_each(&mut row);
            walk.next().unwrap_or(visible)
        };
        let mut out = String::new();
        if rows.pop().is_some() {
            out.push_str("\"result\":[");
            out.push_str(&rows);
            out.push_str("],");
        }
        out.push_str("\"nextPageToken\":");
        push_json(&mut out, &page_token('A', to));
        out.push_str(if to < visible { ",\"moreResult\":true" } else { ",\"moreResult\":false" });
        Ok(self.success(&out).with_ids(count))
    }

    fn push_activity(&self, out: &mut String, position: usize, activity: &Activity) {
        let number = position as u64;
        // `id` is deprecated and not unique; `marketoGUID` is.
        out.push_str("{\"id\":");
        push_number(out, 9_000 + number / 2);
        out.push_str(",\"marketoGUID\":\"");
        push_number(out, 9_000 + number);
        out.push_str("\",\"leadId\":");
        push_number(out, activity.lead);
        out.push_str(",\"activityDate\":\"");
        out.push_str(&iso(activity.at_ms));
        out.push_str("\",\"activityTypeId\":");
        push_number(out, u64::from(activity.type_id));
        out.push_str(",\"primaryAttributeValueId\":");
        push_number(out, activity.list.unwrap_or(activity.lead));
        out.push_str(",\"primaryAttributeValue\":");
        match activity.list {
            None => push_json(out, &activity.lead.to_string()),
            Some(id) => {
                let here = self.state.lists.get(&id).map(|list| &list.name);
                push_json(out, here.or_else(|| self.state.gone_lists.get(&id)).map_or("", String::as_str));
            }
        }
        out.push_str(",\"attributes\":[");
        for (at, (name, value)) in activity.attributes.iter().enumerate() {
            out.push_str(if at == 0 { "{\"name\":" } else { ",{\"name\":" });
            push_json(out, name);
            out.push_str(",\"value\":");
            push_json(out, value);
            out.push('}');
        }
        out.push_str("]}");
    }
}

fn numbers<T: std::str::FromStr>(text: &str, name: &str, most: usize) -> Result<Vec<T>, Refusal> {
    let numbers = text.split(',').map(|part| part.trim().parse::<T>()).collect::<Result<Vec<T>, _>>();
    let numbers = numbers.map_err(|_| Refusal(1003, format!("Invalid value for parameter '{name}'")))?;
    if numbers.len() > most {
        return Err(Refusal(1003, format!("Too many values for parameter '{name}': at most {most}")));
    }
    Ok(numbers)
}
