//! What the person at the terminal sees.

use std::io::{IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How often a progress line is written to a terminal, where it replaces the one before.
const REDRAW_EVERY: Duration = Duration::from_millis(200);
/// How often one is written elsewhere.
const WRITE_EVERY: Duration = Duration::from_secs(5);

/// Prints steps and progress.
pub(crate) struct Screen {
    state: Mutex<State>,
    every: Duration,
}

struct State {
    out: Box<dyn Write + Send>,
    terminal: bool,
    started: Instant,
    /// When the last progress line was written.
    drawn: Option<Instant>,
    /// A progress line stands at the cursor.
    open: bool,
}

impl Screen {
    /// Prints to standard output, or, where that is for the reports, to standard error.
    pub(crate) fn new(to_stderr: bool) -> Self {
        let (out, terminal): (Box<dyn Write + Send>, bool) = if to_stderr {
            (Box::new(std::io::stderr()), std::io::stderr().is_terminal())
        } else {
            (Box::new(std::io::stdout()), std::io::stdout().is_terminal())
        };
        let every = if terminal { REDRAW_EVERY } else { WRITE_EVERY };
        let state = State { out, terminal, started: Instant::now(), drawn: None, open: false };
        Self { state: Mutex::new(state), every }
    }

    /// A line that stays.
    pub(crate) fn say(&self, text: &str) {
        let mut state = self.lock();
        state.close();
        state.write(&format!("{text}\n"));
    }

    /// A line that stays, with the time since the start.
    pub(crate) fn step(&self, text: &str) {
        let seconds = self.lock().started.elapsed().as_secs();
        self.say(&format!("[{:>2}:{:02}] {text}", seconds / 60, seconds % 60));
    }

    /// How far a step is. Written only now and then.
    pub(crate) fn progress(&self, text: &str) {
        let mut state = self.lock();
        let now = Instant::now();
        if state.drawn.is_some_and(|drawn| now < drawn + self.every) {
            return;
        }
        state.drawn = Some(now);
        if state.terminal {
            state.open = true;
            state.write(&format!("\r\x1b[2K        {text}"));
        } else {
            state.write(&format!("        {text}\n"));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn close(&mut self) {
        if self.open {
            self.open = false;
            self.write("\r\x1b[2K");
        }
        // A step's own progress begins after a while.
        self.drawn = Some(Instant::now());
    }

    fn write(&mut self, text: &str) {
        // Nobody reads a closed terminal; the run goes on.
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).ok();
    }
}

/// Time left of a step that has done `done` of `all` in this time, as words; empty when it cannot be told yet.
pub(crate) fn time_left(elapsed: Duration, done: usize, all: usize) -> String {
    if done == 0 || all <= done || elapsed < Duration::from_secs(1) {
        return String::new();
    }
    let per_item = elapsed.div_f64(done as f64);
    format!(", about {} left", words(per_item.mul_f64((all - done) as f64)))
}

/// `45 s`, `3 min`.
pub(crate) fn words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=90 => format!("{} s", seconds.max(1)),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// 12345 as 12,345.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_well() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(words(Duration::from_millis(10)), "1 s");
        assert_eq!(words(Duration::from_secs(91)), "2 min");
        assert_eq!(time_left(Duration::from_secs(10), 10, 30), ", about 20 s left");
        assert_eq!(time_left(Duration::from_secs(10), 0, 30), "");
    }
}
