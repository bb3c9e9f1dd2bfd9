//! Threads that wait for work between operations, and how they are set to it.
//!
//! A step is a few hundred operations of some ten microseconds each, so a
//! thread that finishes one looks out for the next for a while before it
//! goes to sleep: [`SPIN`] is longer than what one thread does alone between two
//! operations, and short enough that an idle replica burns nothing.

#![allow(
    unsafe_code,
    reason = "a job is borrowed by the threads while the caller waits for them"
)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a thread looks out for work before it goes to sleep.
const SPIN: Duration = Duration::from_micros(100);

/// Looks between two questions what time it is, or between letting others have the processor.
const LOOKS: u32 = 64;

/// What is done: a function of the worker's number.
type Job<'a> = dyn Fn(usize) + Sync + 'a;

/// Threads that do the same job together, each its part of it.
///
/// The thread that calls [`run`](Self::run) is worker 0.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Counts jobs; when it changes, there is one in `job`.
    epoch: AtomicUsize,
    job: UnsafeCell<Option<*const Job<'static>>>,
    /// Threads that have not finished the job.
    working: AtomicUsize,
    /// Whether the threads are to end.
    ends: AtomicBool,
    /// Whether each of the threads sleeps, or is about to.
    asleep: Vec<AtomicBool>,
    /// What the first thread to panic said.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written by the owner of the pool before it raises `epoch`
// (release), and read by the threads after they have seen that (acquire). The
// owner writes it again only when all have finished (`working` is zero).
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is to something `Sync`, and is used only while `Pool::run` borrows it.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of so many workers, the caller among them; at least one.
    ///
    /// # Errors
    /// If the system has no more threads.
    pub fn new(threads: usize) -> io::Result<Self> {
        let others = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            working: AtomicUsize::new(0),
            ends: AtomicBool::new(false),
            asleep: (0..others).map(|_| AtomicBool::new(false)).collect(),
            panic: Mutex::new(None),
        });
        let mut pool = Self {
            shared,
            threads: Vec::with_capacity(others),
        };
        for other in 0..others {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new().name(format!("cpu-{}", other + 1));
            pool.threads
                .push(thread.spawn(move || shared.serve(other))?);
        }
        Ok(pool)
    }

    /// Workers, the caller among them.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.threads.len() + 1
    }

    /// Does a job: calls it once for each worker `0..workers()`, all at the same time,
    /// and returns when all have returned.
    ///
    /// # Panics
    /// If a worker does, with what it said, after all have ended.
    pub fn run(&mut self, job: &(impl Fn(usize) + Sync)) {
        if self.threads.is_empty() {
            return job(0);
        }
        self.start(job);
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        self.wait();
        let others = self.shared.panic.lock();
        let others = others.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = own.err().or(others) {
            resume_unwind(panic);
        }
    }

    fn start(&self, job: &Job<'_>) {
        // SAFETY: only the lifetime changes, and `run` does not return before all threads are done with it.
        let job: *const Job<'static> = unsafe { std::mem::transmute(job) };
        // SAFETY: no thread reads it before `epoch` changes, or after it has
        // finished the last job, which `run` waited for.
        unsafe { *self.shared.job.get() = Some(job) };
        self.shared
            .working
            .store(self.threads.len(), Ordering::Relaxed);
        self.wake();
    }

    /// Makes the threads look what there is to do.
    fn wake(&self) {
        // Sequentially consistent, like the other side in `Shared::sleep`: either
        // this sees that a thread is asleep, or the thread sees the new epoch.
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (asleep, thread) in self.shared.asleep.iter().zip(&self.threads) {
            if asleep.load(Ordering::SeqCst) {
                thread.thread().unpark();
            }
        }
    }

    fn wait(&self) {
        let mut looks = 0;
        while self.shared.working.load(Ordering::Acquire) > 0 {
            looks += 1;
            if looks % LOOKS == 0 {
                // A thread that is late may be waiting for this processor.
                thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

impl Shared {
    /// What a thread does until the pool is dropped.
    fn serve(&self, other: usize) {
        let mut seen = 0;
        loop {
            seen = self.next_epoch(other, seen);
            if self.ends.load(Ordering::Acquire) {
                return;
            }
            // SAFETY: `epoch` has changed, so there is a job, and it is borrowed until `working` is zero.
            let job = unsafe { (*self.job.get()).map(|job| &*job) };
            let job = job.expect("there is a job in each epoch");
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(other + 1))) {
                let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(panic);
            }
            self.working.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits until there is another epoch than the one seen last.
    fn next_epoch(&self, other: usize, seen: usize) -> usize {
        let since = Instant::now();
        loop {
            for _ in 0..LOOKS {
                let epoch = self.epoch.load(Ordering::Acquire);
                if epoch != seen {
                    return epoch;
                }
                std::hint::spin_loop();
            }
            if since.elapsed() > SPIN {
                self.sleep(other, seen);
            }
        }
    }

    fn sleep(&self, other: usize, seen: usize) {
        self.asleep[other].store(true, Ordering::SeqCst);
        while self.epoch.load(Ordering::SeqCst) == seen {
            thread::park();
        }
        self.asleep[other].store(false, Ordering::SeqCst);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
        self.wake();
        for thread in self.threads.drain(..) {
            // A thread catches what its jobs throw, so it does not panic itself.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self
            .threads
            .iter()
            .map(JoinHandle::thread)
            .map(Thread::name);
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_does_its_part_of_every_job() {
        for threads in 1..5 {
            let mut pool = Pool::new(threads).unwrap();
            assert_eq!(pool.workers(), threads);
            let done: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..200 {
                pool.run(&|worker| {
                    done[worker].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 200));
        }
    }

    #[test]
    fn a_job_wakes_threads_that_sleep() {
        let mut pool = Pool::new(3).unwrap();
        let done = AtomicUsize::new(0);
        for _ in 0..3 {
            thread::sleep(SPIN * 20);
            pool.run(&|_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(done.load(Ordering::Relaxed), 9);
    }

    #[test]
    fn a_panic_of_any_worker_reaches_the_caller_and_the_pool_lives_on() {
        let mut pool = Pool::new(3).unwrap();
        for culprit in 0..3 {
            let job = |worker| assert!(worker != culprit, "worker {worker} gives up");
            let said = catch_unwind(AssertUnwindSafe(|| pool.run(&job))).unwrap_err();
            let said = said.downcast_ref::<String>().unwrap();
            assert_eq!(*said, format!("worker {culprit} gives up"));
        }
        let done = AtomicUsize::new(0);
        pool.run(&|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 3);
    }
}
