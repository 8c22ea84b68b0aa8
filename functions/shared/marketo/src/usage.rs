//! How much of the day's quota is used, by everybody.

use serde_json::Value;

use crate::answer::{number, text};
use crate::{CallError, Marketo, Slot};

impl Marketo<'_> {
    /// Calls of the instance today, all tools together, as Marketo counts them (US Central's day).
    pub async fn use_today(&self, slot: Slot) -> Result<u64, CallError> {
        let answer = self.get(slot, "/rest/v1/stats/usage.json").await?;
        Ok(total(&answer.result))
    }
}

/// The total of the newest date; dates are written so that their order is that of their text.
fn total(rows: &[Value]) -> u64 {
    let newest = rows.iter().max_by_key(|row| text(&row["date"]).unwrap_or_default());
    newest.and_then(|row| number(&row["total"])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_day_counts() {
        let day = |date: &str, total: Value| json!({"date": date, "total": total, "users": []});
        assert_eq!(total(&[day("2026-11-20", json!(100))]), 100);
        assert_eq!(total(&[day("2026-11-20", json!("7")), day("2026-11-19", json!(100))]), 7);
        assert_eq!(total(&[day("2026-10-31", json!(1)), day("2026-11-01", json!(2))]), 2);
        assert_eq!(total(&[]), 0);
    }
}
