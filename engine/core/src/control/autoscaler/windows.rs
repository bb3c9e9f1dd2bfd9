//! Five readings of "wait before scaling up after observing increased load".
//!
//! The specification does not say which one it means. Each is a small machine
//! that is shown the replicas that the load calls for, at every look, and
//! answers with the replicas there should be. `current` always is the target,
//! starting replicas included, so that a slow start is not ordered twice.

use super::WindowSemantics;
use super::trailing::{TrailingExtreme, TrailingMean};
use crate::time::Nanos;

/// How far load alone can move the target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// At least 1: only idleness takes the last replica.
    pub(super) fewest: u32,
    /// At least `fewest`.
    pub(super) most: u32,
}

impl Limits {
    /// Whole replicas for a demand in replicas. A demand that is whole but for
    /// the rounding of a division does not cost one more.
    pub(super) fn replicas(self, demand: f64) -> u32 {
        ((demand - 1e-9).ceil() as u32).clamp(self.fewest, self.most)
    }
}

/// The time to wait in each direction.
#[derive(Clone, Copy, Debug)]
struct Waits {
    up: Nanos,
    down: Nanos,
}

impl Waits {
    fn of(self, direction: Direction) -> Nanos {
        match direction {
            Direction::Up => self.up,
            Direction::Down => self.down,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Direction {
    fn of(current: u32, desired: u32) -> Option<Direction> {
        match desired.cmp(&current) {
            std::cmp::Ordering::Greater => Some(Direction::Up),
            std::cmp::Ordering::Less => Some(Direction::Down),
            std::cmp::Ordering::Equal => None,
        }
    }
}

/// One of the five.
#[derive(Clone, Debug)]
pub(super) enum Windows {
    Sustained(Sustained),
    Stabilized(Stabilized),
    Average(Average),
    Cooldown(Cooldown),
    Oneshot(Oneshot),
}

impl Windows {
    pub(super) fn new(semantics: WindowSemantics, up: Nanos, down: Nanos) -> Self {
        let waits = Waits { up, down };
        match semantics {
            WindowSemantics::Sustained => Windows::Sustained(Sustained { waits, run: None }),
            WindowSemantics::Stabilized => Windows::Stabilized(Stabilized::new(waits)),
            WindowSemantics::Average => Windows::Average(Average::new(waits)),
            WindowSemantics::Cooldown => Windows::Cooldown(Cooldown { waits, last: None }),
            WindowSemantics::Oneshot => Windows::Oneshot(Oneshot {
                waits,
                higher_since: None,
                lower_since: None,
            }),
        }
    }

    /// The replicas there should be, given the `demand` in replicas at `now`.
    pub(super) fn apply(&mut self, now: Nanos, demand: f64, current: u32, limits: Limits) -> u32 {
        let desired = limits.replicas(demand);
        match self {
            Windows::Sustained(windows) => windows.apply(now, desired, current),
            Windows::Stabilized(windows) => windows.apply(now, desired, current),
            Windows::Average(windows) => windows.apply(now, demand, current, limits),
            Windows::Cooldown(windows) => windows.apply(now, desired, current),
            Windows::Oneshot(windows) => windows.apply(now, desired, current),
        }
    }

    /// Begins anew, because the target was changed by something other than load.
    pub(super) fn restart(&mut self, now: Nanos) {
        match self {
            Windows::Sustained(windows) => windows.run = None,
            Windows::Stabilized(windows) => windows.restart(),
            Windows::Average(windows) => windows.restart(),
            Windows::Cooldown(windows) => windows.last = Some(now),
            Windows::Oneshot(windows) => windows.restart(),
        }
    }
}

/// An unbroken run of looks in one direction, as long as the window; then the
/// value of the last look. One look that is equal or opposite ends the run.
/// The rule of Ray Serve, without its tolerance of a microsecond.
#[derive(Clone, Debug)]
pub(super) struct Sustained {
    waits: Waits,
    run: Option<(Direction, Nanos)>,
}

impl Sustained {
    fn apply(&mut self, now: Nanos, desired: u32, current: u32) -> u32 {
        let Some(direction) = Direction::of(current, desired) else {
            self.run = None;
            return current;
        };
        let since = match self.run {
            Some((running, since)) if running == direction => since,
            _ => now,
        };
        self.run = Some((direction, since));
        if now - since < self.waits.of(direction) {
            return current;
        }
        self.run = None;
        desired
    }
}

/// Never above the lowest of the up window when rising, never below the highest
/// of the down window when falling, as in the Kubernetes autoscaler, but with
/// both ends of the window included, so that an unbroken run acts when
/// [`Sustained`] does. A side acts once its window has been seen whole.
#[derive(Clone, Debug)]
pub(super) struct Stabilized {
    waits: Waits,
    lowest: TrailingExtreme,
    highest: TrailingExtreme,
    first: Option<Nanos>,
}

impl Stabilized {
    fn new(waits: Waits) -> Self {
        Stabilized {
            waits,
            lowest: TrailingExtreme::smallest(waits.up),
            highest: TrailingExtreme::largest(waits.down),
            first: None,
        }
    }

    fn restart(&mut self) {
        self.lowest.restart();
        self.highest.restart();
        self.first = None;
    }

    fn apply(&mut self, now: Nanos, desired: u32, current: u32) -> u32 {
        let seen = now - *self.first.get_or_insert(now);
        let lowest = self.lowest.push(now, desired);
        let highest = self.highest.push(now, desired);
        if lowest > current && seen >= self.waits.up {
            lowest
        } else if highest < current && seen >= self.waits.down {
            highest
        } else {
            current
        }
    }
}

/// From the mean demand over each window, up before down, as Knative does with
/// its stable window. A side acts once its window has been seen whole.
#[derive(Clone, Debug)]
pub(super) struct Average {
    waits: Waits,
    up: TrailingMean,
    down: TrailingMean,
    first: Option<Nanos>,
}

impl Average {
    fn new(waits: Waits) -> Self {
        Average {
            waits,
            up: TrailingMean::new(waits.up),
            down: TrailingMean::new(waits.down),
            first: None,
        }
    }

    fn restart(&mut self) {
        self.up.restart();
        self.down.restart();
        self.first = None;
    }

    fn apply(&mut self, now: Nanos, demand: f64, current: u32, limits: Limits) -> u32 {
        let seen = now - *self.first.get_or_insert(now);
        let up = limits.replicas(self.up.push(now, demand));
        let down = limits.replicas(self.down.push(now, demand));
        if up > current && seen >= self.waits.up {
            up
        } else if down < current && seen >= self.waits.down {
            down
        } else {
            current
        }
    }
}

/// At once, unless the target changed less than a window ago.
#[derive(Clone, Debug)]
pub(super) struct Cooldown {
    waits: Waits,
    last: Option<Nanos>,
}

impl Cooldown {
    fn apply(&mut self, now: Nanos, desired: u32, current: u32) -> u32 {
        let Some(direction) = Direction::of(current, desired) else {
            return current;
        };
        let rested = |last| now - last >= self.waits.of(direction);
        if !self.last.is_none_or(rested) {
            return current;
        }
        self.last = Some(now);
        desired
    }
}

/// The first difference in a direction starts its timer. When that ends, the
/// value of the moment is applied if it still lies in that direction; what
/// happened in between does not matter. The most literal reading.
#[derive(Clone, Debug)]
pub(super) struct Oneshot {
    waits: Waits,
    higher_since: Option<Nanos>,
    lower_since: Option<Nanos>,
}

impl Oneshot {
    fn restart(&mut self) {
        self.higher_since = None;
        self.lower_since = None;
    }

    fn apply(&mut self, now: Nanos, desired: u32, current: u32) -> u32 {
        let ends = [
            Self::ends(
                &mut self.higher_since,
                now,
                desired > current,
                self.waits.up,
            ),
            Self::ends(
                &mut self.lower_since,
                now,
                desired < current,
                self.waits.down,
            ),
        ];
        if !ends.contains(&true) {
            return current;
        }
        self.restart();
        desired
    }

    /// Runs one timer; true if it ended now and the difference is still there.
    fn ends(since: &mut Option<Nanos>, now: Nanos, differs: bool, wait: Nanos) -> bool {
        if differs && since.is_none() {
            *since = Some(now);
        }
        let ended = since.is_some_and(|since| now - since >= wait);
        if ended {
            *since = None;
        }
        ended && differs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        fewest: 1,
        most: 100,
    };

    /// Changes of the target as (when, to what), looking once a unit of time.
    fn changes(
        semantics: WindowSemantics,
        (up, down): (Nanos, Nanos),
        mut current: u32,
        demand: impl Fn(u64) -> u32,
        until: u64,
    ) -> Vec<(u64, u32)> {
        let mut windows = Windows::new(semantics, up, down);
        let mut changes = Vec::new();
        for now in 0..=until {
            let target = windows.apply(now, f64::from(demand(now)), current, LIMITS);
            if target != current {
                changes.push((now, target));
                current = target;
            }
        }
        changes
    }

    #[test]
    fn whole_demands_are_not_rounded_up_again() {
        assert_eq!(LIMITS.replicas(2.4 / 0.8), 3);
        assert_eq!(LIMITS.replicas(2.0 + 1e-12), 2);
        assert_eq!(LIMITS.replicas(2.0 + 1e-6), 3);
        assert_eq!(LIMITS.replicas(0.0), 1);
        assert_eq!(LIMITS.replicas(1e30), 100);
    }

    #[test]
    fn stabilized_is_a_delay_line_for_a_monotone_demand() {
        let demand = |t: u64| 2 + (t / 7) as u32;
        let rising = changes(WindowSemantics::Stabilized, (30, 600), 2, demand, 200);
        let expected: Vec<_> = (1..).map(|k| (30 + 7 * k, 2 + k as u32)).take(24).collect();
        assert_eq!(rising, expected);

        let demand = |t: u64| 20 - (t / 50).min(18) as u32;
        let falling = changes(WindowSemantics::Stabilized, (30, 600), 20, demand, 1_600);
        let expected: Vec<_> = (1..=18).map(|k| (600 + 50 * k, 20 - k as u32)).collect();
        assert_eq!(falling, expected);
    }

    #[test]
    fn stabilized_rises_to_the_lowest_of_the_window() {
        let demand = |t| if t == 15 { 3 } else { 9 };
        let changes = changes(WindowSemantics::Stabilized, (30, 600), 1, demand, 60);
        assert_eq!(changes, [(30, 3), (46, 9)]);
    }

    #[test]
    fn sustained_rises_to_the_value_of_the_last_look() {
        let demand = |t| if t == 15 { 3 } else { 9 };
        let changes = changes(WindowSemantics::Sustained, (30, 600), 1, demand, 60);
        assert_eq!(changes, [(30, 9)]);
    }

    #[test]
    fn average_acts_on_the_mean_of_a_window_seen_whole() {
        let constant = changes(WindowSemantics::Average, (30, 600), 1, |_| 5, 60);
        assert_eq!(constant, [(30, 5)]);
        // A step from 1 to 4 at 100: the mean passes 1 with the first look.
        let step = |t| if t < 100 { 1 } else { 4 };
        let changes = changes(WindowSemantics::Average, (30, 600), 1, step, 200);
        assert_eq!(changes, [(100, 2), (110, 3), (120, 4)]);
    }

    #[test]
    fn average_of_a_square_wave_is_in_the_middle() {
        let square = |t: u64| if t % 30 < 15 { 8 } else { 4 };
        let changes = changes(WindowSemantics::Average, (30, 600), 1, square, 1_000);
        assert_eq!(changes, [(30, 6)]);
    }

    #[test]
    fn cooldown_acts_at_once_and_then_rests() {
        let demand = |t: u64| 2 + (t / 10) as u32;
        let rising = changes(WindowSemantics::Cooldown, (30, 600), 1, demand, 70);
        assert_eq!(rising, [(0, 2), (30, 5), (60, 8)]);
        let drop = |t: u64| if t < 100 { 5 } else { 2 };
        let falling = changes(WindowSemantics::Cooldown, (30, 600), 1, drop, 700);
        assert_eq!(falling, [(0, 5), (600, 2)]);
    }

    #[test]
    fn oneshot_ignores_what_happens_before_its_end() {
        let dip = |t| if (1..30).contains(&t) { 1 } else { 5 };
        let acted = changes(WindowSemantics::Oneshot, (30, 600), 1, dip, 40);
        assert_eq!(acted, [(30, 5)]);
        let gone = |t| if (30..=35).contains(&t) { 1 } else { 5 };
        let waited = changes(WindowSemantics::Oneshot, (30, 600), 1, gone, 80);
        assert_eq!(waited, [(66, 5)]);
    }

    fn all() -> impl Strategy<Value = WindowSemantics> {
        prop::sample::select(vec![
            WindowSemantics::Sustained,
            WindowSemantics::Stabilized,
            WindowSemantics::Average,
            WindowSemantics::Cooldown,
            WindowSemantics::Oneshot,
        ])
    }

    proptest! {
        #[test]
        fn sustained_fires_exactly_when_a_whole_window_differed(
            (up, down) in (0_u64..6, 0_u64..9),
            demands in prop::collection::vec(1_u32..5, 1..80),
        ) {
            let mut windows = Windows::new(WindowSemantics::Sustained, up, down);
            let (mut current, mut since_change) = (2, Vec::new());
            for (now, &demand) in (0_u64..).zip(&demands) {
                since_change.push((now, demand));
                let run = |differs: &dyn Fn(u32) -> bool| {
                    since_change.iter().rev().take_while(|(_, d)| differs(*d)).last().map(|s| now - s.0)
                };
                let fires = run(&|d| d > current).is_some_and(|length| length >= up)
                    || run(&|d| d < current).is_some_and(|length| length >= down);
                let expected = if fires { demand } else { current };
                let target = windows.apply(now, f64::from(demand), current, LIMITS);
                prop_assert_eq!(target, expected, "at {}", now);
                if fires {
                    since_change.clear();
                    current = target;
                }
            }
        }

        #[test]
        fn stabilized_is_the_clamp_between_the_extremes_of_the_windows(
            (up, down) in (0_u64..6, 0_u64..9),
            demands in prop::collection::vec(1_u32..5, 1..80),
        ) {
            let mut windows = Windows::new(WindowSemantics::Stabilized, up, down);
            let mut current = 2;
            for now in 0..demands.len() {
                let last = |wait: u64| &demands[now.saturating_sub(wait as usize)..=now];
                let low = if now as u64 >= up { *last(up).iter().min().expect("one") } else { 0 };
                let high = if now as u64 >= down { *last(down).iter().max().expect("one") } else { 99 };
                let expected = current.max(low).min(high.max(low));
                current = windows.apply(now as u64, f64::from(demands[now]), current, LIMITS);
                prop_assert_eq!(current, expected, "at {}", now);
            }
        }

        #[test]
        fn a_constant_demand_is_reached_once_and_for_all(
            semantics in all(),
            (up, down) in (0_u64..20, 0_u64..20),
            (demand, initial) in (1_u32..100, 1_u32..100),
        ) {
            let changes = changes(semantics, (up, down), initial, |_| demand, 50);
            if demand == initial {
                prop_assert_eq!(changes, []);
            } else {
                let wait = if demand > initial { up } else { down };
                let at_once = semantics == WindowSemantics::Cooldown;
                let when = if at_once { 0 } else { wait };
                prop_assert_eq!(changes, [(when, demand)]);
            }
        }
    }
}
