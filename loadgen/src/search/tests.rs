//! Searches for a capacity that is known, through noise.

use foresail_scenarios::random::{Stream, stream};
use proptest::prelude::*;
use rand::Rng;

use super::*;

/// An endpoint whose margin falls with the rate: `steepness` for each factor of e.
struct Endpoint {
    capacity: f64,
    steepness: f64,
    /// Standard deviation of a run's margin.
    noise: f64,
    stream: Stream,
}

impl Endpoint {
    fn new(capacity: f64, steepness: f64, noise: f64, seed: u64) -> Self {
        let stream = stream(seed, "endpoint");
        Self {
            capacity,
            steepness,
            noise,
            stream,
        }
    }

    fn run(&mut self, rate: f64) -> Reading {
        // Twelve uniforms less 6 are close to a normal law of variance 1.
        let uniform = |stream: &mut Stream| stream.next_u32() as f64 / f64::from(u32::MAX);
        let normal: f64 = (0..12).map(|_| uniform(&mut self.stream)).sum::<f64>() - 6.0;
        Reading::Margin(self.steepness * (self.capacity / rate).ln() + self.noise * normal)
    }

    /// Searches to the end; how many runs that took.
    fn search(&mut self, settings: Settings) -> (Found, u32) {
        let mut search = Search::new(settings).unwrap();
        let points_max = search.points_max();
        loop {
            match search.next() {
                Step::Done(found) => {
                    assert!(found.points.len() as u32 <= points_max, "{found:?}");
                    return (found, search.runs);
                }
                Step::Run(run) => search.told(self.run(run.rate_per_s)),
            }
        }
    }
}

#[test]
fn the_true_capacity_is_within_the_two_rates_as_often_as_promised() {
    for (steepness, noise) in [(1.0, 0.05), (1.0, 0.3), (8.0, 0.3), (0.5, 0.02)] {
        let mut missed = 0;
        let mut runs_total = 0;
        for seed in 0..1000_u32 {
            let capacity = 3.0 + f64::from(seed) * 0.37;
            let mut endpoint = Endpoint::new(capacity, steepness, noise, seed.into());
            let (found, runs) = endpoint.search(Settings::default());
            let (met, not_met) = (found.met_per_s.unwrap(), found.not_met_per_s.unwrap());
            missed += u32::from(!(met..=not_met).contains(&capacity));
            runs_total += runs;
        }
        // 50 of 1000 are promised to be missed at most.
        assert!(missed <= 50, "{steepness} {noise}: {missed} missed");
        assert!(
            runs_total < 100_000,
            "{steepness} {noise}: {runs_total} runs"
        );
    }
}

#[test]
fn without_noise_the_interval_is_narrow_and_no_run_is_wasted() {
    let (found, runs) = Endpoint::new(37.0, 2.0, 0.0, 1).search(Settings::default());
    let (met, not_met) = (found.met_per_s.unwrap(), found.not_met_per_s.unwrap());
    assert!(met <= 37.0 && 37.0 <= not_met && not_met / met <= 1.05);
    assert_eq!(found.ending, Ending::Narrow);
    // One run at 1, 2, 4, …, 64, two more at the last two of them, and three for each of
    // the four bisections of the octave between them to within 5 %.
    assert_eq!((found.points.len(), runs), (11, 7 + 4 + 12));
}

#[test]
fn noise_widens_the_interval_instead_of_deciding_by_luck() {
    let (found, _) = Endpoint::new(37.0, 1.0, 0.4, 3).search(Settings::default());
    assert_eq!(found.ending, Ending::OnTheEdge);
    assert!(found.not_met_per_s.unwrap() / found.met_per_s.unwrap() > 1.05);
    let on_the_edge = |point: &&Point| point.verdict == Some(Verdict::OnTheEdge);
    for point in found.points.iter().filter(on_the_edge) {
        assert_eq!(point.readings.len(), 8);
        let Interval { low, high } = point.interval.unwrap();
        assert!(low <= 0.0 && 0.0 <= high);
    }
}

#[test]
fn a_capacity_out_of_range_is_said_to_be() {
    let settings = Settings {
        start_per_s: 4.0,
        rate_min_per_s: 1.0,
        rate_max_per_s: 10.0,
        ..Settings::default()
    };
    let (found, _) = Endpoint::new(1000.0, 1.0, 0.0, 1).search(settings.clone());
    let rates = |found: &Found| -> Vec<f64> { found.points.iter().map(|p| p.rate_per_s).collect() };
    assert_eq!(
        (found.ending, found.met_per_s),
        (Ending::RateMax, Some(10.0))
    );
    assert_eq!(
        (found.not_met_per_s, rates(&found)),
        (None, vec![4.0, 8.0, 10.0])
    );
    let (found, _) = Endpoint::new(0.1, 1.0, 0.0, 1).search(settings);
    assert_eq!(
        (found.ending, found.not_met_per_s),
        (Ending::RateMin, Some(1.0))
    );
    assert_eq!(
        (found.met_per_s, rates(&found)),
        (None, vec![1.0, 2.0, 4.0])
    );
}

#[test]
fn runs_are_numbered_and_asking_twice_changes_nothing() {
    let mut search = Search::new(Settings::default()).unwrap();
    let margins = [1.0, -1.0, 1.0, 1.0, -1.0];
    let steps = [
        (0, 0, 1.0),
        (1, 0, 2.0),
        (2, 1, 1.0),
        (3, 2, 1.0),
        (4, 1, 2.0),
    ];
    for ((number, repeat, rate_per_s), margin) in steps.into_iter().zip(margins) {
        let expected = Step::Run(Run {
            number,
            rate_per_s,
            repeat,
        });
        assert_eq!(search.next(), expected);
        assert_eq!(search.next(), expected);
        search.told(Reading::Margin(margin));
    }
}

#[test]
fn a_search_that_is_stopped_tells_what_it_knows() {
    let mut search = Search::new(Settings::default()).unwrap();
    // 1 and 2, twice more 1, twice more 2, and the middle.
    for margin in [1.0, -1.0, 1.0, 1.0, -1.0, -1.0, 0.5] {
        search.told(Reading::Margin(margin));
    }
    let found = search.stopped();
    let known = (found.met_per_s, found.not_met_per_s, found.ending);
    assert_eq!(known, (Some(1.0), Some(2.0), Ending::Stopped));
    assert_eq!(found.points.len(), 3);
}

#[test]
fn settings_out_of_range() {
    let edited = |edit: fn(&mut Settings)| {
        let mut settings = Settings::default();
        edit(&mut settings);
        Search::new(settings).unwrap_err().option
    };
    assert_eq!(edited(|settings| settings.start_per_s = 0.0), "start");
    assert_eq!(edited(|settings| settings.rate_min_per_s = 0.0), "rates");
    assert_eq!(
        edited(|settings| settings.rate_max_per_s = f64::INFINITY),
        "rates"
    );
    assert_eq!(edited(|settings| settings.width = 0.0), "width");
    assert_eq!(edited(|settings| settings.confidence = 1.0), "confidence");
    assert_eq!(edited(|settings| settings.looks = vec![1, 2]), "looks");
    assert_eq!(edited(|settings| settings.looks = vec![3, 3]), "looks");
    assert_eq!(edited(|settings| settings.looks = Vec::new()), "looks");
}

proptest! {
    #[test]
    fn a_search_ends_whatever_it_is_told(
        readings in prop::collection::vec(prop::option::of(-2.0..2.0_f64), 1..50),
        width in 0.01..1.0_f64,
    ) {
        let settings = Settings { width, ..Settings::default() };
        let mut search = Search::new(settings).unwrap();
        let runs_max = 8 * search.points_max();
        let mut readings = readings.iter().cycle();
        while let Step::Run(run) = search.next() {
            prop_assert!(run.number < runs_max, "{} runs", run.number);
            let reading = readings.next().unwrap();
            search.told(reading.map_or(Reading::Collapsed, Reading::Margin));
        }
        let Step::Done(found) = search.next() else { panic!("the search is over") };
        if let (Some(met), Some(not_met)) = (found.met_per_s, found.not_met_per_s) {
            prop_assert!(met < not_met);
        }
    }
}
