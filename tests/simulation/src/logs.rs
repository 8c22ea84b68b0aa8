//! Hears everything that is logged on a thread, and looks for what is personal in it.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Once;

use repo::canaries::personal;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Looks at what the functions log, as a deployment does.
struct Ears;

/// Begins to hear; from then on for the whole process, unless somebody else hears already.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Where a test hears by itself there is nothing to do.
        drop(tracing::subscriber::set_global_default(Ears));
    });
}

/// What was personal in a log line of this thread since somebody asked.
#[must_use]
pub fn heard() -> Option<String> {
    HEARD.take()
}

/// Notes what is personal in a text that goes into a log.
pub fn look_at(text: &str) {
    if let Some(what) = personal(text) {
        HEARD.set(Some(format!("{what} in a log: {text}")));
    }
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl Subscriber for Ears {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line::default();
        span.record(&mut line);
        look_at(&line.0);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line::default();
        values.record(&mut line);
        look_at(&line.0);
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        look_at(&line.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_personal_value_in_a_field_of_an_event_or_span_is_heard() {
        listen();
        tracing::info!(list = 7, "nothing personal");
        assert_eq!(heard(), None);
        tracing::warn!(who = "p1@example.com", "somebody");
        assert!(heard().is_some_and(|what| what.starts_with("an email address")));
        let _span = tracing::info_span!("work", token = "_mch-example.com-1700000000001-1").entered();
        assert!(heard().is_some_and(|what| what.starts_with("a Munchkin token")));
    }
}
