//! Faults that a test asks for.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// Each, until the faults are cleared.
    All,
}

/// What the caller sees. The last four are the true answer in another shape: the call takes effect, and
/// [`Commit`] does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultAnswer {
    /// HTTP 502 with an HTML body.
    Http502,
    /// This HTTP status (401, 413, 414, 500, 503, …) with an HTML body.
    Http(u16),
    /// HTTP 200, `success:false` with this code.
    Code(u16),
    /// As `Code`, but the code is a JSON number.
    NumberCode(u16),
    /// HTTP 200, `success:false` without `errors`.
    NoErrors,
    /// HTTP 200, `success:false` with `errors` that are empty.
    EmptyErrors,
    /// HTTP 200 with an HTML page.
    Html,
    /// HTTP 200 without a body.
    Empty,
    /// Nothing: the connection closes.
    Drop,
    /// Every code in it is a JSON number.
    NumberCodes,
    /// `result` is its first row instead of an array.
    ObjectResult,
    /// The rows come in another order than the ids that were asked.
    Shuffled,
    /// One row is not there.
    MissingRow,
}

impl FaultAnswer {
    /// Whether it is the true answer in another shape.
    pub(super) fn alters(self) -> bool {
        matches!(self, Self::NumberCodes | Self::ObjectResult | Self::Shuffled | Self::MissingRow)
    }
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
            Which::Share(_) | Which::All => 0,
        };
        self.faults.push(Injected { fault, wait });
    }

    /// From now on Marketo skips this lead with this code (such as 1008) in every add, removal and import;
    /// `None`: no more.
    pub fn refuse_lead(&mut self, lead: u64, code: Option<u16>) {
        match code {
            Some(code) => self.refused.insert(lead, code),
            None => self.refused.remove(&lead),
        };
    }

    /// From now on Marketo finds this token invalid (1012), and with it each question that holds it; `false`: no more.
    pub fn refuse_cookie(&mut self, token: &str, refused: bool) {
        if refused {
            self.refused_cookies.insert(token.to_owned());
        } else {
            self.refused_cookies.remove(token);
        }
    }

    /// Takes back every fault that has not struck yet. Effects already on their way still land, and refused leads
    /// stay refused.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// How many faults wait (a share, or all, waits until it is cleared).
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
                    Which::All => struck.is_none(),
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

    /// An answer that is not the true one.
    pub(super) fn fault_answer(&mut self, answer: FaultAnswer) -> Answer {
        let page = |status: u16| {
            let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            let title = format!("{status} {}", reason.unwrap_or_default());
            let html = format!("<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>");
            Answer { content_type: "text/html", ..Answer::plain(status, &html) }
        };
        match answer {
            FaultAnswer::Http502 | FaultAnswer::Drop => page(502),
            FaultAnswer::Http(status) => page(status),
            FaultAnswer::Html => page(200),
            FaultAnswer::Code(code) => self.refuse(&Refusal::new(code, message_of(code))),
            FaultAnswer::NumberCode(code) => {
                let refused = self.refuse(&Refusal::new(code, message_of(code)));
                self.altered(FaultAnswer::NumberCodes, refused)
            }
            FaultAnswer::NoErrors => self.failure(""),
            FaultAnswer::EmptyErrors => self.failure(r#","errors":[]"#),
            FaultAnswer::Empty
            | FaultAnswer::NumberCodes
            | FaultAnswer::ObjectResult
            | FaultAnswer::Shuffled
            | FaultAnswer::MissingRow => Answer::json(String::new()),
        }
    }

    /// The true answer in another shape. What is not JSON stays as it is.
    pub(super) fn altered(&mut self, how: FaultAnswer, answer: Answer) -> Answer {
        let Ok(mut body) = serde_json::from_slice::<Value>(&answer.body) else { return answer };
        if how == FaultAnswer::NumberCodes {
            number_codes(&mut body);
        } else if let Some(result) = body.get_mut("result") {
            let Some(rows) = result.as_array_mut().filter(|rows| !rows.is_empty()) else { return answer };
            let mut below = |end: usize| (next_unit(&mut self.random) * end as f64) as usize;
            match how {
                FaultAnswer::ObjectResult => *result = rows.swap_remove(0),
                FaultAnswer::MissingRow => drop(rows.remove(below(rows.len()))),
                _ => {
                    let before = rows.clone();
                    (1..rows.len()).rev().for_each(|at| rows.swap(at, below(at + 1)));
                    if *rows == before {
                        rows.rotate_left(1);
                    }
                }
            }
        }
        Answer { body: body.to_string().into_bytes(), ..answer }
    }

    fn failure(&mut self, members: &str) -> Answer {
        let request = self.request_id();
        Answer::json(format!(r#"{{"requestId":"{request}","success":false{members}}}"#))
    }
}

/// Every `"code":"1004"` becomes `"code":1004`, however deep.
fn number_codes(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(number_codes),
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str().filter(|_| name == "code").and_then(|text| text.parse::<u16>().ok()) {
                    Some(code) => *value = code.into(),
                    None => number_codes(value),
                }
            }
        }
        _ => {}
    }
}

/// What Marketo says with a code.
pub(super) fn message_of(code: u16) -> &'static str {
    match code {
        601 => "Access token invalid",
        602 => "Access token expired",
        603 => "Access denied",
        604 => "Request timed out",
        605 => "HTTP method not supported",
        606 => "Max rate limit '100' exceeded with in '20' secs",
        607 => "Daily quota reached",
        608 => "API temporarily unavailable",
        609 => "Invalid JSON",
        610 => "Requested resource not found",
        611 => "System error",
        612 => "The content type specified is not supported",
        613 => "Invalid multipart request",
        614 => "Subscription not found",
        615 => "Concurrent access limit '10' reached",
        616 => "Invalid subscription type",
        701 => "Field cannot be blank",
        702 => "No data found",
        703 => "Feature is not enabled for this subscription",
        704 => "Invalid date format",
        709 => "Business rule violation",
        710 => "Parent folder not found",
        711 => "Incorrect folder type",
        713 => "Transient error",
        719 => "Lock wait timeout",
        1001 => "Invalid value",
        1002 => "Missing value for required parameter",
        1003 => "Invalid data",
        1004 => "Lead not found",
        1005 => "Lead already exists",
        1006 => "Field not found",
        1007 => "Multiple leads match lookup criteria",
        1008 => "Access denied to partition",
        1009 => "Partition name must be specified",
        1010 => "Partition update not allowed",
        1011 => "Field is not supported as filter",
        1012 => "Invalid cookie value",
        1013 => "Object not found",
        1014 => "Failed to create object",
        1015 => "Lead not in list",
        1016 => "Too many imports",
        1017 => "Object already exists",
        1018 => "CRM enabled",
        1019 => "Import in progress",
        1022 => "Object in use",
        1029 => "Too many jobs in queue",
        1035 => "Unsupported filter type for the target subscription",
        _ => "Refused by a test",
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
