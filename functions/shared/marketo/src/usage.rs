//! How much of the day's quota is used, by everybody.

use serde_json::Value;

use crate::answer::{number, text};
use crate::{CallError, Marketo, Slot};

/// Calls of the instance on one of Marketo's days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayUse {
    /// `2026-11-22`, US Central.
    pub date: String,
    /// All tools together.
    pub total: u64,
    /// By API user, in Marketo's order; ours is among them.
    pub users: Vec<(String, u64)>,
}

impl Marketo<'_> {
    /// Calls of the instance on Marketo's present day, all tools together, with the day's date; `None`: it shows none.
    pub async fn use_today(&self, slot: Slot) -> Result<Option<(String, u64)>, CallError> {
        Ok(self.use_by_user(slot).await?.map(|day| (day.date, day.total)))
    }

    /// The same, and who made them.
    pub async fn use_by_user(&self, slot: Slot) -> Result<Option<DayUse>, CallError> {
        let answer = self.get(slot, "/rest/v1/stats/usage.json").await?;
        Ok(newest(&answer.result))
    }
}

/// The newest date; dates are written so that their order is that of their text.
fn newest(rows: &[Value]) -> Option<DayUse> {
    let user = |row: &Value| Some((text(&row["userId"])?, number(&row["count"])?));
    let dated = rows.iter().filter_map(|row| {
        let users = row["users"].as_array().map_or(&[][..], Vec::as_slice);
        let (date, total) = (text(&row["date"])?, number(&row["total"])?);
        Some(DayUse { date, total, users: users.iter().filter_map(user).collect() })
    });
    dated.max_by(|one, other| one.date.cmp(&other.date))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_day_counts() {
        let day = |date: &str, total: Value| json!({"date": date, "total": total, "users": []});
        let of = |date: &str, total: u64| Some(DayUse { date: date.to_owned(), total, users: Vec::new() });
        assert_eq!(newest(&[day("2026-11-20", json!(100))]), of("2026-11-20", 100));
        assert_eq!(newest(&[day("2026-11-20", json!("7")), day("2026-11-19", json!(100))]), of("2026-11-20", 7));
        assert_eq!(newest(&[day("2026-10-31", json!(1)), day("2026-11-01", json!(2))]), of("2026-11-01", 2));
        assert_eq!(newest(&[]), None);
    }

    #[test]
    fn each_user_that_marketo_names_is_read() {
        let users = json!([{"userId": "api@example.com", "count": 3}, {"userId": "b", "count": "4"}, {"count": 1}]);
        let day = newest(&[json!({"date": "2026-11-20", "total": 8, "users": users})]).unwrap();
        assert_eq!(day.users, [("api@example.com".to_owned(), 3), ("b".to_owned(), 4)]);
        assert!(newest(&[json!({"date": "2026-11-20", "total": 8})]).unwrap().users.is_empty());
    }
}
