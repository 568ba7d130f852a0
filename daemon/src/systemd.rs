//! What systemd is told: ready, stopping, and that the daemon is alive.
//!
//! Outside systemd every function does nothing. Whether the daemon is alive is answered by the
//! caller's health check, never assumed here.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Tells systemd that the daemon is ready, with a line for `systemctl status`.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Changes the line of `systemctl status`.
pub fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

/// Tells systemd that the daemon stops.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Feeds the watchdog, if the unit has one, each time `health` answers `true` in time; ends when
/// `stop` is cancelled.
pub async fn watchdog<H>(health: impl Fn() -> H, stop: CancellationToken)
where
    H: Future<Output = bool>,
{
    if let Some(period) = sd_notify::watchdog_enabled() {
        feed(period, health, || notify(&[NotifyState::Watchdog]), stop).await;
    }
}

async fn feed<H>(period: Duration, health: impl Fn() -> H, mut alive: impl FnMut(), stop: CancellationToken)
where
    H: Future<Output = bool>,
{
    let mut ticks = interval(period / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let until_stopped = async {
        loop {
            ticks.tick().await;
            match timeout(period / 3, health()).await {
                Ok(true) => alive(),
                Ok(false) | Err(_) => tracing::error!("watchdog not fed, the daemon does not answer itself"),
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = until_stopped => {}
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "service manager not reached");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn fed<H: Future<Output = bool>>(health: impl Fn() -> H) -> u32 {
        let stop = CancellationToken::new();
        let count = Cell::new(0);
        let run = feed(Duration::from_secs(30), health, || count.set(count.get() + 1), stop.clone());
        let end = async {
            tokio::time::sleep(Duration::from_secs(65)).await;
            stop.cancel();
        };
        tokio::join!(run, end);
        count.get()
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_three_times_a_period_while_healthy() {
        assert_eq!(fed(|| std::future::ready(true)).await, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_not_fed_when_the_check_says_no_or_hangs() {
        assert_eq!(fed(|| std::future::ready(false)).await, 0);
        assert_eq!(fed(std::future::pending).await, 0);
    }
}
