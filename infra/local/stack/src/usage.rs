//! What AWS would bill: DynamoDB's read and write units and SQS's requests, by who asked, and by table and queue.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::calls::Calls;

/// SQS bills a request for each 64 KB of its payload that has begun, in bytes.
pub const QUEUE_CHUNK: usize = 64 * 1024;
/// Whoever is no function: tests and programs that use the embedded servers by their own address.
pub const OUTSIDE: &str = "outside";
/// The event source mappings, which poll on behalf of Lambda; AWS bills their requests too.
pub const MAPPING: &str = "mapping";

/// Everything since the start of the stack.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// DynamoDB by caller (a function's name, or [`OUTSIDE`]) and table.
    pub tables: BTreeMap<(String, String), TableUsage>,
    /// SQS by caller (a function's name, [`MAPPING`] or [`OUTSIDE`]) and queue.
    pub queues: BTreeMap<(String, String), QueueUsage>,
    /// Invocations by function.
    pub invocations: BTreeMap<String, u64>,
}

/// Use of a table, its indexes included.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TableUsage {
    /// Requests that name the table.
    pub requests: u64,
    /// Read units; an eventually consistent read of up to 4 KB is half of one.
    pub read_units: f64,
    /// Write units. A put that fails its condition is billed by the item that was sent, and so counted; an update or
    /// a deletion that fails counts as one unit, though AWS bills by the size of the item that is there.
    pub write_units: f64,
}

/// Use of a queue, in requests of 64 KB.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueUsage {
    /// Sends, a batch being one.
    pub sends: u64,
    /// Receives that gave something.
    pub receives: u64,
    /// Receives that gave nothing. How many there are depends on the time, not on the work.
    pub empty_receives: u64,
    /// Deletions, a batch being one.
    pub deletes: u64,
    /// Everything else: changes of visibility, questions about attributes.
    pub others: u64,
}

impl QueueUsage {
    /// What depends on the work: all requests but the receives that gave nothing.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.sends + self.receives + self.deletes + self.others
    }

    fn minus(self, earlier: Self) -> Self {
        Self {
            sends: self.sends - earlier.sends,
            receives: self.receives - earlier.receives,
            empty_receives: self.empty_receives - earlier.empty_receives,
            deletes: self.deletes - earlier.deletes,
            others: self.others - earlier.others,
        }
    }
}

impl TableUsage {
    fn minus(self, earlier: Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            read_units: self.read_units - earlier.read_units,
            write_units: self.write_units - earlier.write_units,
        }
    }
}

impl Usage {
    /// What came after `earlier`, which is of the same stack.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let tables = self.tables.iter().map(|(key, all)| {
            let before = earlier.tables.get(key).copied().unwrap_or_default();
            (key.clone(), all.minus(before))
        });
        let queues = self.queues.iter().map(|(key, all)| {
            let before = earlier.queues.get(key).copied().unwrap_or_default();
            (key.clone(), all.minus(before))
        });
        let invocations = self.invocations.iter().map(|(name, all)| {
            let before = earlier.invocations.get(name).copied().unwrap_or_default();
            (name.clone(), all - before)
        });
        Self { tables: tables.collect(), queues: queues.collect(), invocations: invocations.collect() }
    }

    /// What a caller used of all tables together.
    #[must_use]
    pub fn tables_of(&self, caller: &str) -> TableUsage {
        let mut sum = TableUsage::default();
        for (_, one) in self.tables.iter().filter(|((by, _), _)| by == caller) {
            sum.requests += one.requests;
            sum.read_units += one.read_units;
            sum.write_units += one.write_units;
        }
        sum
    }

    /// What everybody together used of a queue.
    #[must_use]
    pub fn queue(&self, name: &str) -> QueueUsage {
        let mut sum = QueueUsage::default();
        for (_, one) in self.queues.iter().filter(|((_, queue), _)| queue == name) {
            sum.sends += one.sends;
            sum.receives += one.receives;
            sum.empty_receives += one.empty_receives;
            sum.deletes += one.deletes;
            sum.others += one.others;
        }
        sum
    }
}

/// Counts. Clones count into the same place.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Usage>>, Calls);

impl Meter {
    /// A meter whose callers' actions are written down as well.
    #[must_use]
    pub fn with_calls(calls: Calls) -> Self {
        Self(Arc::default(), calls)
    }

    pub(crate) fn calls(&self) -> &Calls {
        &self.1
    }

    /// Everything so far.
    #[must_use]
    pub fn read(&self) -> Usage {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn table(&self, caller: &str, table: &str, count: impl FnOnce(&mut TableUsage)) {
        let mut usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        count(usage.tables.entry((caller.to_owned(), table.to_owned())).or_default());
    }

    pub(crate) fn queue(&self, caller: &str, queue: &str, count: impl FnOnce(&mut QueueUsage)) {
        let mut usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        count(usage.queues.entry((caller.to_owned(), queue.to_owned())).or_default());
    }

    pub(crate) fn invocation(&self, function: &str) {
        let mut usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *usage.invocations.entry(function.to_owned()).or_default() += 1;
    }
}

/// Requests of 64 KB that a payload is billed as.
pub(crate) fn chunks(bytes: usize) -> u64 {
    bytes.div_ceil(QUEUE_CHUNK).max(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_billed_for_each_64_kb_that_has_begun() {
        assert_eq!([0, 1, 65_536, 65_537, 262_144].map(chunks), [1, 1, 1, 2, 4]);
    }

    #[test]
    fn a_difference_leaves_what_was_before() {
        let meter = Meter::default();
        let read = |units: f64| {
            move |usage: &mut TableUsage| {
                usage.requests += 1;
                usage.read_units += units;
            }
        };
        meter.table("f", "one", read(0.5));
        meter.invocation("f");
        let before = meter.read();
        meter.table("f", "one", read(1.0));
        meter.table("f", "two", read(2.0));
        meter.table("g", "two", read(4.0));
        meter.queue(MAPPING, "q", |usage| usage.receives += 1);
        meter.queue("f", "q", |usage| usage.sends += 2);
        meter.invocation("f");
        let since = meter.read().since(&before);
        assert_eq!(since.tables_of("f"), TableUsage { requests: 2, read_units: 3.0, write_units: 0.0 });
        assert_eq!(since.queue("q").requests(), 3);
        assert_eq!(since.invocations["f"], 1);
    }
}
