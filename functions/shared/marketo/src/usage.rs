//! How much of the day's quota is used, by everybody.

use serde_json::Value;

use crate::answer::{number, text};
use crate::{CallError, Marketo, Slot};

impl Marketo<'_> {
    /// Calls of the instance on Marketo's present day, all tools together, with the day's date; `None`: it shows none.
    pub async fn use_today(&self, slot: Slot) -> Result<Option<(String, u64)>, CallError> {
        let answer = self.get(slot, "/rest/v1/stats/usage.json").await?;
        Ok(total(&answer.result))
    }
}

/// The total of the newest date; dates are written so that their order is that of their text.
fn total(rows: &[Value]) -> Option<(String, u64)> {
    let dated = rows.iter().filter_map(|row| Some((text(&row["date"])?, number(&row["total"])?)));
    dated.max_by(|one, other| one.0.cmp(&other.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_day_counts() {
        let day = |date: &str, total: Value| json!({"date": date, "total": total, "users": []});
        let of = |date: &str, total: u64| Some((date.to_owned(), total));
        assert_eq!(total(&[day("2026-11-20", json!(100))]), of("2026-11-20", 100));
        assert_eq!(total(&[day("2026-11-20", json!("7")), day("2026-11-19", json!(100))]), of("2026-11-20", 7));
        assert_eq!(total(&[day("2026-10-31", json!(1)), day("2026-11-01", json!(2))]), of("2026-11-01", 2));
        assert_eq!(total(&[]), None);
    }
}
