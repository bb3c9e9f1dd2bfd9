//! An alarm that wakes a poll at a time finer than a millisecond.
//!
//! `epoll_wait` counts in milliseconds, which is a fifth of the gap between two
//! tokens. A timer that is a file descriptor wakes it on time.

use std::io;

use mio::{Registry, Token};

/// Wakes the poll when it goes off.
#[cfg(target_os = "linux")]
pub(crate) struct Alarm {
    timer: std::os::fd::OwnedFd,
}

#[cfg(target_os = "linux")]
impl Alarm {
    pub(crate) fn register(registry: &Registry, token: Token) -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd as _;

        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let raw = timer.as_raw_fd();
        registry.register(
            &mut mio::unix::SourceFd(&raw),
            token,
            mio::Interest::READABLE,
        )?;
        Ok(Self { timer })
    }

    /// Goes off once, in so many nanoseconds. What was set before is forgotten.
    pub(crate) fn set(&self, in_ns: u64) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};

        // Zero would switch it off.
        let in_ns = in_ns.max(1);
        let value = Timespec {
            tv_sec: (in_ns / 1_000_000_000) as i64,
            tv_nsec: (in_ns % 1_000_000_000) as _,
        };
        let never_again = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let spec = Itimerspec {
            it_interval: never_again,
            it_value: value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    /// How long the poll itself may wait: for ever, the alarm wakes it.
    pub(crate) fn poll_timeout(_in_ns: u64) -> Option<std::time::Duration> {
        None
    }
}

/// Elsewhere the poll's own timeout has to do.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(crate) fn register(_registry: &Registry, _token: Token) -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn set(&self, _in_ns: u64) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn poll_timeout(in_ns: u64) -> Option<std::time::Duration> {
        Some(std::time::Duration::from_nanos(in_ns))
    }
}
