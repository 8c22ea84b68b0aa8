//! Time and randomness of the machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl ports::Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the adapter of ports::Clock: everybody else takes it from there")]
    fn now_ms(&self) -> u64 {
        // A clock before 1970 reads as 0; a u64 of milliseconds lasts 584 million years.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    async fn sleep_ms(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

/// The operating system's randomness, through the thread's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl ports::Random for SystemRandom {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}

/// The n-th pause (from 0) before a repeat: 50 ms, doubled each time up to 1.6 s, of which a random half to
/// whole is taken, so that those who failed together do not return together.
pub(crate) async fn back_off(attempt: u32) {
    let whole = 50u64 << attempt.min(5);
    let ms = whole / 2 + rand::random::<u64>() % (whole / 2 + 1);
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Runs `call` up to four times while it answers [`ports::PortError::Unavailable`]: certainly nothing was done,
/// so that even a conditional write may be repeated. Any other answer is final.
pub(crate) async fn while_unavailable<T, F, Fut>(mut call: F) -> ports::PortResult<T>
where
    F: FnMut() -> Fut + Send,
    Fut: Future<Output = ports::PortResult<T>> + Send,
{
    const REPEATS: u32 = 3;
    for attempt in 0..REPEATS {
        match call().await {
            Err(ports::PortError::Unavailable { .. }) => back_off(attempt).await,
            other => return other,
        }
    }
    call().await
}
