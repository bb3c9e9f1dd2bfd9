//! What requests take beside their steps, in an emulated replica's server.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use foresail_core::step_time::RequestOverhead;
use foresail_core::time::Nanos;
use tokio::sync::{oneshot, watch};

use super::{Clock, RealClock};

/// How long a request that was given up may hold up those behind it.
const GIVEN_UP_WAIT_MAX: Duration = Duration::from_millis(10);

/// The way into an emulated replica, which takes as long as the emulated server would.
///
/// As in the simulation, any number of requests can be on it at once, and they come in in the order in which they
/// began: a long prompt takes longer, and those behind it come no earlier. What this server itself takes for a
/// request comes on top of it.
#[derive(Debug)]
pub struct Entrance {
    overhead: RequestOverhead,
    clock: RealClock,
    /// Those on the way, in order. Its thread ends when the entrance is dropped.
    behind: Sender<OnTheWay>,
    count: watch::Sender<usize>,
}

/// A request that is in, or was given up, when this is dropped.
#[derive(Debug)]
pub struct Passage<'a>(&'a watch::Sender<usize>);

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[derive(Debug)]
struct OnTheWay {
    ready_at: Nanos,
    enter: oneshot::Sender<()>,
}

impl Entrance {
    /// A way that takes as long as this says, by this clock; `None` if it takes nothing.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn new(overhead: RequestOverhead, clock: RealClock) -> io::Result<Option<Self>> {
        if overhead.is_none() {
            return Ok(None);
        }
        let (behind, way) = channel();
        thread::Builder::new()
            .name("entrance".to_owned())
            .spawn(move || let_in(&way, clock))?;
        Ok(Some(Self {
            overhead,
            clock,
            behind,
            count: watch::Sender::new(0),
        }))
    }

    /// Waits until a request with so long a prompt may come in. Dropping it gives the request up.
    pub async fn pass(&self, prompt_tokens: u32) -> Passage<'_> {
        self.count.send_modify(|count| *count += 1);
        let passage = Passage(&self.count);
        let (enter, entered) = oneshot::channel();
        let overhead = self.overhead.of(prompt_tokens);
        let ready_at = self.clock.now().saturating_add(overhead);
        // The thread lives as long as this, so that neither fails; were it gone, requests would come in at once.
        if self.behind.send(OnTheWay { ready_at, enter }).is_ok() {
            let _ = entered.await;
        }
        passage
    }

    /// Waits until nobody is on the way.
    pub async fn emptied(&self) {
        // The sender is this one's, and lives as long as it does.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}

fn let_in(way: &Receiver<OnTheWay>, mut clock: RealClock) {
    for OnTheWay { ready_at, enter } in way {
        while !enter.is_closed() && clock.now() < ready_at {
            let wait_max = clock.in_real(GIVEN_UP_WAIT_MAX);
            clock.wait_until(ready_at.min(clock.now().saturating_add(wait_max)));
        }
        // Who was given up does not hear of it.
        let _ = enter.send(());
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const OVERHEAD: RequestOverhead = RequestOverhead {
        request_s: 0.02,
        prompt_token_s: 0.001,
    };

    fn entrance() -> Entrance {
        let clock = RealClock::new(1.0).expect("a speed");
        let entrance = Entrance::new(OVERHEAD, clock).expect("a thread");
        entrance.expect("it takes time")
    }

    #[test]
    fn nothing_takes_no_entrance() {
        let clock = RealClock::new(1.0).expect("a speed");
        let entrance = Entrance::new(RequestOverhead::default(), clock);
        assert!(entrance.expect("no thread is needed").is_none());
    }

    #[tokio::test]
    async fn a_request_waits_by_its_prompt_and_overtakes_nobody() {
        let entrance = entrance();
        let began = Instant::now();
        let timed = async |prompt_tokens| {
            entrance.pass(prompt_tokens).await;
            began.elapsed()
        };
        // All begin at once, in this order.
        let (short, long, behind) = tokio::join!(timed(0), timed(60), timed(10));
        assert!(short >= Duration::from_millis(20), "{short:?}");
        assert!(long >= Duration::from_millis(80), "{long:?}");
        // Alone it would take 30 ms. Who is looked at first when both are in is by chance.
        assert!(behind >= Duration::from_millis(80), "{behind:?}");
    }

    #[tokio::test]
    async fn who_gives_up_holds_up_nobody() {
        let entrance = entrance();
        let minute = || tokio::time::timeout(Duration::from_millis(1), entrance.pass(60_000));
        let began = Instant::now();
        // One is waited for by the thread when it is given up, the other behind somebody.
        assert!(minute().await.is_err());
        let (_, given_up) = tokio::join!(entrance.pass(0), minute());
        assert!(given_up.is_err());
        entrance.pass(0).await;
        let all = began.elapsed();
        assert!(all < Duration::from_secs(30), "{all:?}");
    }

    #[tokio::test]
    async fn it_is_empty_when_all_are_in_or_gone() {
        let entrance = entrance();
        entrance.emptied().await;
        let began = Instant::now();
        let (passage, ()) = tokio::join!(entrance.pass(0), async {
            // It is behind the passage that was begun before it.
            let empty = tokio::time::timeout(Duration::from_millis(1), entrance.emptied());
            assert!(empty.await.is_err());
        });
        let still = tokio::time::timeout(Duration::from_millis(1), entrance.emptied());
        assert!(still.await.is_err(), "it has yet to come in");
        drop(passage);
        entrance.emptied().await;
        assert!(began.elapsed() >= Duration::from_millis(20));
    }
}
