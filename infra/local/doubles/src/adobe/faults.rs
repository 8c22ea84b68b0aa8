//! What can go wrong on the way from Adobe to us.

use serde::{Deserialize, Serialize};

/// What goes wrong with the files of a delivery, or with the messages of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each goes wrong by itself")]
pub struct Faults {
    /// The first does not arrive.
    pub lost: bool,
    /// The first that does arrive comes behind all of the next time.
    pub late: bool,
    /// They arrive in the opposite order.
    pub reversed: bool,
    /// They arrive, and then all of them once more.
    pub twice: bool,
}

impl Faults {
    /// What arrives of these, and how many never will. `held` is what is late from the time before; it comes last, and
    /// then holds what is late now.
    pub fn arriving<T: Clone>(self, mut items: Vec<T>, held: &mut Vec<T>) -> (Vec<T>, usize) {
        let before = items.len();
        if self.lost && !items.is_empty() {
            items.remove(0);
        }
        let lost = before - items.len();
        let late = if self.late && !items.is_empty() { vec![items.remove(0)] } else { Vec::new() };
        if self.reversed {
            items.reverse();
        }
        if self.twice {
            items.extend(items.clone());
        }
        items.append(held);
        *held = late;
        (items, lost)
    }
}
