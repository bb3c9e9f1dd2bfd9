//! Waits for an instant more exactly than the runtime's timers, which tick in milliseconds.

use std::io;
use std::time::Instant;

#[cfg(target_os = "linux")]
pub(super) use linux::Timer;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Timer;

#[cfg(target_os = "linux")]
mod linux {
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    use super::{Instant, io};

    /// A timer of the kernel that wakes the event loop as a socket does.
    #[derive(Debug)]
    pub(crate) struct Timer {
        timer: AsyncFd<OwnedFd>,
    }

    impl Timer {
        /// A timer of the runtime that this runs on.
        pub(crate) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            #[expect(
                deprecated,
                reason = "it is for descriptors that others may close, and its successor is `unsafe`; \
                          this one is owned"
            )]
            let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
            Ok(Self { timer })
        }

        /// Ends at this instant, or as soon after it as the event loop gets to it. Dropped before, it wakes nobody
        /// for longer than that.
        pub(crate) async fn until(&self, instant: Instant) -> io::Result<()> {
            loop {
                let left = instant.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(());
                }
                let once = Itimerspec {
                    it_interval: Timespec::default(),
                    it_value: Timespec {
                        tv_sec: left.as_secs() as i64,
                        tv_nsec: left.subsec_nanos().into(),
                    },
                };
                timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
                let mut ready = self.timer.readable().await?;
                // How often it fired does not matter; that it was read makes it fire again.
                let _ =
                    ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0_u8; 8])?));
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use super::{Instant, io};

    /// The runtime's own timer: up to a millisecond late.
    #[derive(Debug)]
    pub(crate) struct Timer;

    impl Timer {
        /// A timer of the runtime that this runs on.
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        /// Ends at this instant or up to a millisecond later.
        pub(crate) async fn until(&self, instant: Instant) -> io::Result<()> {
            tokio::time::sleep_until(instant.into()).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_fires_in_time_and_never_early() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let timer = Timer::new().unwrap();
            let start = Instant::now();
            let mut late = Duration::MAX;
            for tenth in 1..=100 {
                let due = start + Duration::from_micros(500) * tenth;
                timer.until(due).await.unwrap();
                let now = Instant::now();
                assert!(now >= due);
                late = late.min(now - due);
            }
            // The best of many, as a machine that is busy delays most of them.
            assert!(late < Duration::from_millis(1), "{late:?}");
            timer.until(start).await.unwrap();
        });
    }

    #[test]
    fn one_that_was_dropped_does_not_disturb_the_next() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let timer = Timer::new().unwrap();
            let soon = Instant::now() + Duration::from_millis(5);
            tokio::select! {
                biased;
                _ = timer.until(soon + Duration::from_secs(600)) => panic!("far too early"),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
            timer.until(soon).await.unwrap();
            assert!(Instant::now() >= soon);
        });
    }
}
