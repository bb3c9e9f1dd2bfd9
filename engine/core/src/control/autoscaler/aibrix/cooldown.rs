//! The cooldown windows: what was wanted recently holds back what is wanted now
//! (`stabilizeRecommendation` in `podautoscaler_controller.go`).

use std::collections::VecDeque;

use super::config::AibrixApaConfig;
use crate::time::Nanos;

/// What was wanted, within the longer of the two windows.
#[derive(Clone, Debug)]
pub(super) struct Cooldown {
    up: Nanos,
    down: Nanos,
    is_inverted: bool,
    /// (when, how many), in order of time.
    wanted: VecDeque<(Nanos, i32)>,
}

impl Cooldown {
    pub(super) fn new(config: &AibrixApaConfig) -> Self {
        Cooldown {
            up: config.scale_up_cooldown_window,
            down: config.scale_down_cooldown_window,
            is_inverted: config.aibrix_compat,
            wanted: VecDeque::new(),
        }
    }

    /// The replicas there should be. To scale up, the fewest that were wanted within
    /// the window; to scale down, the most: "similar to K8s HPA behavior", as the
    /// comment in AIBrix has it. Its code takes the most to scale up and the fewest to
    /// scale down, so that a window makes peaks and dips last instead of passing over
    /// them; `aibrix-compat` does the same.
    pub(super) fn apply(&mut self, now: Nanos, wanted: i32, current: i32) -> i32 {
        self.wanted.push_back((now, wanted));
        self.forget(now);
        let is_up = match wanted.cmp(&current) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => return current,
        };
        let window = if is_up { self.up } else { self.down };
        let recent = self
            .wanted
            .iter()
            .filter(|(at, _)| is_within(now, *at, window));
        let values = recent.map(|&(_, value)| value);
        let extreme = if is_up == self.is_inverted {
            values.max()
        } else {
            values.min()
        };
        // A window of 0 does not even hold what is wanted now.
        let extreme = extreme.unwrap_or(wanted);
        match (self.is_inverted, is_up) {
            (true, _) => extreme,
            // What was wanted on the other side of the current number holds it there.
            (false, true) => extreme.max(current),
            (false, false) => extreme.min(current),
        }
    }

    /// `cleanOldRecommendations`.
    fn forget(&mut self, now: Nanos) {
        let longest = self.up.max(self.down);
        let is_old = |&(at, _): &(Nanos, i32)| !is_within(now, at, longest);
        while self.wanted.front().is_some_and(is_old) {
            self.wanted.pop_front();
        }
    }
}

/// Strictly after the beginning of the window (`timestamp.After(cutoff)`).
fn is_within(now: Nanos, at: Nanos, window: Nanos) -> bool {
    now - at < window
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    fn cooldown(up: u64, down: u64, aibrix_compat: bool) -> Cooldown {
        Cooldown::new(&AibrixApaConfig {
            scale_up_cooldown_window: up * SECOND,
            scale_down_cooldown_window: down * SECOND,
            aibrix_compat,
            ..AibrixApaConfig::default()
        })
    }

    /// Applies what is wanted every 10 s to what came of it.
    fn run(mut cooldown: Cooldown, mut current: i32, wanted: &[i32]) -> Vec<i32> {
        let times = (0..).map(|look| look * 10 * SECOND);
        let apply = |(now, &wanted)| {
            current = cooldown.apply(now, wanted, current);
            current
        };
        times.zip(wanted).map(apply).collect()
    }

    #[test]
    fn down_waits_for_the_window_to_pass_over_the_most() {
        let counts = run(cooldown(0, 30, false), 4, &[4, 2, 3, 2, 2, 2]);
        assert_eq!(counts, [4, 4, 4, 3, 3, 2]);
    }

    #[test]
    fn up_waits_for_the_window_to_pass_over_the_fewest() {
        let counts = run(cooldown(30, 0, false), 2, &[2, 5, 4, 6, 6]);
        assert_eq!(counts, [2, 2, 2, 4, 4]);
    }

    #[test]
    fn without_a_window_the_change_is_at_once() {
        assert_eq!(run(cooldown(0, 0, false), 2, &[5, 1]), [5, 1]);
        assert_eq!(run(cooldown(0, 0, true), 2, &[5, 1]), [5, 1]);
    }

    #[test]
    fn compatible_with_aibrix_a_dip_is_made_to_last() {
        // The dip to 1 still counts when 3 are wanted of 4.
        let counts = run(cooldown(0, 300, true), 4, &[4, 1, 5, 3]);
        assert_eq!(counts, [4, 1, 5, 1]);
        // And a peak does within the up window.
        assert_eq!(run(cooldown(300, 0, true), 2, &[8, 2, 3]), [8, 2, 8]);
    }
}
