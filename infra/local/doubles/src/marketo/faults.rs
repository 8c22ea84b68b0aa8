//! Faults that a test asks for.

use serde::{Deserialize, Serialize};

use super::{Answer, Kind, Marketo, Refusal};

/// A call, or a share of the calls, that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Calls of this kind only; `None`: of any kind.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// Which of them.
    pub which: Which,
    /// What the caller sees.
    pub answer: FaultAnswer,
    /// What happens to the call's effect.
    #[serde(default)]
    pub commit: Commit,
}

/// Which of the matching calls a fault hits. Only calls that passed token and limits count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    /// The n-th from now (1: the next), once.
    Nth(u32),
    /// Each with this probability (0 to 1), until the faults are cleared.
    Share(f64),
}

/// What the caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultAnswer {
    /// HTTP 502 with an HTML body.
    Http502,
    /// HTTP 200, `success:false` with this code.
    Code(u16),
    /// Nothing: the connection closes.
    Drop,
}

/// What happens to the effect of a call that went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Commit {
    /// None: it went wrong before.
    #[default]
    Before,
    /// It has happened when the answer leaves.
    After,
    /// It happens later, on the double's clock.
    Late {
        /// After the call; before scaling, at most 180,000.
        after_ms: u64,
    },
}

/// A fault and how many matching calls still come before it.
#[derive(Debug)]
pub(super) struct Injected {
    fault: Fault,
    wait: u32,
}

impl Marketo {
    /// Makes a coming call go wrong.
    pub fn inject(&mut self, fault: Fault) {
        let wait = match fault.which {
            Which::Nth(n) => n.max(1),
            Which::Share(_) => 0,
        };
        self.faults.push(Injected { fault, wait });
    }

    /// Takes back every fault that has not struck yet. Effects already on their way still land.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// How many faults wait (a share waits until it is cleared).
    #[must_use]
    pub fn faults_waiting(&self) -> usize {
        self.faults.len()
    }

    /// The fault that hits this call. When two would, the one injected first does and the other waits.
    pub(super) fn next_fault(&mut self, kind: Kind) -> Option<(FaultAnswer, Commit)> {
        if self.faults.is_empty() {
            return None;
        }
        let mut struck = None;
        let mut at = 0;
        while at < self.faults.len() {
            let Injected { fault, wait } = &mut self.faults[at];
            let (fault, mut done) = (*fault, false);
            if fault.kind.is_none_or(|wanted| wanted == kind) {
                let hits = match fault.which {
                    Which::Nth(_) if *wait > 1 => {
                        *wait -= 1;
                        false
                    }
                    Which::Nth(_) => struck.is_none(),
                    Which::Share(share) => struck.is_none() && next_unit(&mut self.random) < share,
                };
                if hits {
                    struck = Some((fault.answer, fault.commit));
                    done = matches!(fault.which, Which::Nth(_));
                }
            }
            if done {
                self.faults.remove(at);
            } else {
                at += 1;
            }
        }
        struck
    }

    pub(super) fn fault_answer(&mut self, answer: FaultAnswer) -> Answer {
        match answer {
            FaultAnswer::Http502 | FaultAnswer::Drop => Answer {
                content_type: "text/html",
                ..Answer::plain(502, "<html><head><title>502 Bad Gateway</title></head></html>")
            },
            FaultAnswer::Code(code) => {
                let message = match code {
                    604 => "Request timed out",
                    606 => "Max rate limit '100' exceeded with in '20' secs",
                    607 => "Daily quota reached",
                    608 => "API temporarily unavailable",
                    611 => "System error",
                    614 => "Subscription not found",
                    615 => "Concurrent access limit '10' reached",
                    _ => "Refused by a test",
                };
                self.refuse(&Refusal::new(code, message))
            }
        }
    }
}

/// The next number of a SplitMix64 sequence, in [0, 1).
fn next_unit(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 11) as f64 / (1_u64 << 53) as f64
}
