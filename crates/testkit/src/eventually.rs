//! Waiting for what cannot be awaited.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long to go on asking.
#[doc(hidden)]
pub struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    /// Ten seconds, the default.
    pub fn new() -> Self {
        Self::of(Duration::from_secs(10))
    }

    /// So long.
    pub fn of(time: Duration) -> Self {
        Self {
            until: Instant::now() + time,
            pause: Duration::from_millis(1),
        }
    }

    /// Waits a little; false once the time is over.
    pub async fn goes_on(&mut self) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Duration::from_millis(20));
        true
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits until a condition holds, at most ten seconds; the condition may await.
///
/// ```ignore
/// assert_eventually!(daemon.log_records("Task").len() == 2);
/// assert_eventually!(daemon.status().await["tasks"] == 0, "tasks are left: {}", daemon.status().await);
/// ```
#[macro_export]
macro_rules! assert_eventually {
    ($condition:expr $(,)?) => {
        $crate::assert_eventually!($condition, "never came true: {}", stringify!($condition))
    };
    ($condition:expr, $($message:tt)+) => {{
        let mut patience = $crate::Patience::new();
        while !$condition {
            if !patience.goes_on().await {
                panic!($($message)+);
            }
        }
    }};
}
