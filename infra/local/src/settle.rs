//! When everything has settled.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use stack::QueueDepth;
use tokio::time::Instant;

use crate::deployment::Work;
use crate::play::Local;
use crate::screen::{grouped, words};

/// Without any change for this long, a run gives up.
const PATIENCE: Duration = Duration::from_secs(600);
/// A run that changes all the time and never settles gives up after this.
const LONGEST: Duration = Duration::from_secs(3_600);
/// Time over which the speed is measured that the time left is told from.
const SPEED_OVER: Duration = Duration::from_secs(8);

/// What one look found.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// What is not done, in words; empty: nothing.
    pub(crate) waits_for: Vec<String>,
    /// Items of work that can be counted.
    work: u64,
    /// Changes when something has happened.
    print: u64,
}

impl Local<'_> {
    /// Waits until nothing is left to do: two looks in a row find nothing, with every schedule fired in between.
    pub(crate) async fn settle(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut changed = (began, 0);
        let mut speed = (began, 0);
        let mut calm = false;
        loop {
            let look = self.look().await?;
            if look.waits_for.is_empty() {
                if calm {
                    return Ok(());
                }
                calm = true;
                self.stack.tick().await?;
                continue;
            }
            calm = false;
            let now = Instant::now();
            if look.print != changed.1 {
                changed = (now, look.print);
            }
            if now > changed.0 + PATIENCE || now > began + LONGEST {
                bail!("not settled after {}: waiting for {}", words(now - began), look.waits_for.join(", "));
            }
            if look.work > speed.1 || now > speed.0 + SPEED_OVER * 2 {
                speed = (now, look.work);
            }
            let done = speed.1 - look.work;
            let left = if done > 0 && now > speed.0 + SPEED_OVER / 2 {
                let per_item = (now - speed.0).div_f64(done as f64);
                format!(", about {} left", words(per_item.mul_f64(look.work as f64)))
            } else {
                String::new()
            };
            self.screen.progress(&format!("waiting for {}{left}", look.waits_for.join(", ")));
            tokio::time::sleep(self.stack.look_every()).await;
        }
    }

    /// Looks at everything once.
    async fn look(&self) -> anyhow::Result<Look> {
        let Work { queues, running } = self.stack.work().await?;
        if let Some(dead) = queues.iter().find(|queue| queue.dead && queue.visible + queue.in_flight > 0) {
            bail!(
                "{} message(s) in the dead-letter queue {}: the functions' logs in {} say why",
                dead.visible + dead.in_flight,
                dead.name,
                self.state_dir.join("stack/logs").display()
            );
        }
        let mut look = Look::default();
        let mut hash = DefaultHasher::new();
        look.queues(&queues, &mut hash);
        if running > 0 {
            look.waits_for.push(format!("{running} running invocation(s)"));
        }
        // Asking is an invocation of its own; while the queues are full it would only be in the way.
        if look.waits_for.is_empty() || look.work == 0 {
            let status = self.api.get("/status").await?;
            if status.status != 200 {
                bail!("GET /status answers {}: {}", status.status, status.reason());
            }
            look.status(&status.body, &mut hash);
            self.world_pending(&status.body, &mut look);
        }
        look.print = hash.finish();
        Ok(look)
    }

    /// What Marketo's world still holds back.
    fn world_pending(&self, status: &Value, look: &mut Look) {
        let now = (self.now)();
        let mut marketo = self.marketo.lock();
        marketo.tick(now);
        if marketo.next_late_effect_at().is_some() {
            look.waits_for.push("a late effect at Marketo".to_owned());
        }
        if !status["refused"].is_null() || status["munchkin_id"].is_null() {
            return;
        }
        let last = marketo.last_visible_activity_at();
        let polled = status["activities_polled_at"].as_u64().unwrap_or(0);
        if marketo.next_visible_activity_at().is_some() || last.is_some_and(|last| polled <= last) {
            look.waits_for.push("Marketo's activities to be read".to_owned());
        }
    }
}

impl Look {
    fn queues(&mut self, queues: &[QueueDepth], hash: &mut DefaultHasher) {
        let waiting: u64 = queues.iter().map(|queue| queue.visible + queue.in_flight).sum();
        queues.iter().for_each(|queue| (queue.visible, queue.in_flight).hash(hash));
        if waiting > 0 {
            self.waits_for.push(format!("{} message(s) in the queues", grouped(waiting)));
        }
        // Doorbells say nothing about how much there is to do; matches are work themselves.
        let matches = queues.iter().filter(|queue| queue.name.contains("matches"));
        self.work += matches.map(|queue| queue.visible + queue.in_flight).sum::<u64>();
    }

    fn status(&mut self, status: &Value, hash: &mut DefaultHasher) {
        for (field, value) in status.as_object().into_iter().flatten() {
            // These change by themselves.
            if !matches!(field.as_str(), "now" | "next_at" | "activities_polled_at" | "calls_today") {
                (field, value.to_string()).hash(hash);
            }
        }
        let waits_for = status["waits_for"].as_array().into_iter().flatten();
        self.waits_for.extend(waits_for.filter_map(Value::as_str).map(str::to_owned));
        if let Some(stuck) = status["stuck"].as_u64().filter(|stuck| *stuck > 0) {
            self.waits_for.push(format!("{stuck} stuck key(s) to be tried again"));
        }
        let outstanding = status["outstanding"].as_array().into_iter().flatten();
        let count = |list: &Value, field: &str| list[field].as_u64().unwrap_or(0);
        self.work += outstanding.map(|list| count(list, "add") + count(list, "remove")).sum::<u64>();
        self.work += status["due_tokens"].as_u64().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn clocks_are_no_progress_and_counts_are() {
        let look = |status: Value| {
            let (mut look, mut hash) = (Look::default(), DefaultHasher::new());
            look.status(&status, &mut hash);
            look.print = hash.finish();
            look
        };
        let one = look(json!({"now": 1, "due_tokens": 5, "waits_for": ["5 tokens"], "activities_polled_at": 1}));
        let two = look(json!({"now": 2, "due_tokens": 5, "waits_for": ["5 tokens"], "activities_polled_at": 2}));
        let three = look(json!({"now": 2, "due_tokens": 4, "waits_for": ["4 tokens"], "activities_polled_at": 2}));
        assert_eq!(one.print, two.print);
        assert_ne!(two.print, three.print);
        assert_eq!((one.work, three.work), (5, 4));
        assert_eq!(three.waits_for, ["4 tokens"]);
        assert!(look(json!({"stuck": 0, "waits_for": []})).waits_for.is_empty());
    }
}
