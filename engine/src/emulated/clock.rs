//! The clocks that an emulated device can live by.

use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use foresail_core::time::Nanos;

/// A clock that can be waited for.
pub trait Clock: Send {
    /// The time (ns since the clock began).
    fn now(&self) -> Nanos;

    /// Waits until that time, and never returns before it.
    fn wait_until(&mut self, at: Nanos);
}

/// Real time, or a multiple of it.
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    began: Instant,
    speed: f64,
}

/// Why a clock cannot run at a speed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a speed of {0} is none; it must be above 0 and at most {SPEED_MAX}, 1 for real time")]
pub struct SpeedError(pub f64);

/// At this speed a clock can go on for three weeks before nanoseconds overflow; no thread wakes so soon anyway.
const SPEED_MAX: f64 = 10_000.0;

/// How long before its end a wait stops sleeping. Linux wakes a thread 50 µs
/// late on purpose (`timer_slack_ns`), and some tens of microseconds more by
/// the time that it runs again.
const AWAKE: Duration = Duration::from_micros(150);

impl RealClock {
    /// A clock that begins now and goes `speed` times as fast as real time.
    ///
    /// # Errors
    /// If the speed is not a positive number, or too large a one.
    pub fn new(speed: f64) -> Result<Self, SpeedError> {
        if speed > 0.0 && speed <= SPEED_MAX {
            let began = Instant::now();
            Ok(Self { began, speed })
        } else {
            Err(SpeedError(speed))
        }
    }

    /// How much of its time passes in this much of real time.
    pub(super) fn in_real(&self, time: Duration) -> Nanos {
        (time.as_nanos() as f64 * self.speed) as Nanos
    }
}

impl Clock for RealClock {
    fn now(&self) -> Nanos {
        self.in_real(self.began.elapsed())
    }

    fn wait_until(&mut self, at: Nanos) {
        // Rounded up, so that the wait never ends early.
        let real = Duration::from_nanos((at as f64 / self.speed).ceil() as u64);
        let deadline = self.began + real;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            if left > AWAKE {
                thread::sleep(left - AWAKE);
            } else {
                // Yielding here would give the core away for as long as
                // another thread likes, often a millisecond.
                hint::spin_loop();
            }
        }
    }
}

/// A clock that only moves when it is waited for, or moved. Clones are of the same clock.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock(Arc<AtomicU64>);

impl VirtualClock {
    /// Moves the clock forward to this time; it never goes back.
    pub fn advance_to(&self, at: Nanos) {
        self.0.fetch_max(at, SeqCst);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Nanos {
        self.0.load(SeqCst)
    }

    fn wait_until(&mut self, at: Nanos) {
        self.advance_to(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foresail_core::time::MILLISECOND;

    #[test]
    fn real_time_never_comes_early_at_any_speed() {
        for speed in [0.5, 1.0, 3.0, 1e4] {
            let mut clock = RealClock::new(speed).unwrap();
            let (began, mut last) = (Instant::now(), clock.now());
            for wait in 1..=5 {
                let at = last + wait * MILLISECOND / 5;
                clock.wait_until(at);
                last = clock.now();
                // The speed is a float: one nanosecond either way is the same time.
                assert!(last + 1 >= at, "{last} is before {at} at {speed}");
            }
            let real = began.elapsed().as_secs_f64() * speed;
            assert!(real >= 2.9e-3, "{real} s passed of 3 ms");
        }
    }

    #[test]
    fn a_speed_is_a_positive_number() {
        for speed in [0.0, -1.0, f64::NAN, 1.1e4, f64::INFINITY] {
            assert!(RealClock::new(speed).is_err());
        }
        let error = RealClock::new(0.0).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"a speed of 0 is none; it must be above 0 and at most 10000, 1 for real time");
    }

    #[test]
    fn virtual_time_jumps_and_never_goes_back() {
        let mut clock = VirtualClock::default();
        let same = clock.clone();
        clock.wait_until(70);
        assert_eq!(same.now(), 70);
        same.advance_to(20);
        assert_eq!(clock.now(), 70);
    }
}
