//! How often 95 % intervals hold the truth.

use super::*;
use crate::normal::standard_normal;

/// The same run, had the engine been slower.
fn slower(run: &mut Run, times: f64) {
    for observed in &mut run.observed {
        match observed.figure.is_rate() {
            true => observed.value /= times,
            false => observed.value *= times,
        }
    }
}

/// Engines whose runs are slow or fast as a whole, seen by figures of the same requests.
#[test]
fn intervals_of_other_runs_hold_the_truth() {
    const ENGINES: u64 = 8;
    const NOISE: f64 = 0.02;
    let unseen = || {
        vec![
            open(3.0, 60, 21),
            open(8.0, 60, 22),
            closed(24, 700, 40),
            closed(1, 1000, 30),
        ]
    };
    let (mut terms_inside, mut terms_all) = (0, 0);
    let (mut inside, mut all) = (0, 0);
    for seed in 0..ENGINES {
        let mut random = stream(seed, "test.engine");
        let mut normal = || standard_normal(&mut random);
        let mut truth = truth();
        for name in Terms::names() {
            let value = truth.get(name).unwrap() * libm::exp(0.3 * normal());
            truth.set(name, value);
        }
        // Each run is off as a whole and in each figure.
        let mut runs = measured(design(), truth, batching(64), NOISE, seed);
        let mut slow = stream(seed, "test.slow");
        for run in &mut runs {
            slower(run, libm::exp(NOISE * standard_normal(&mut slow)));
            // As repeats of whole runs show it.
            for observed in &mut run.observed {
                observed.relative_deviation = libm::hypot(NOISE, NOISE);
            }
        }
        let options = Options {
            run_to_run: NOISE,
            ..Options::new(batching(64), Prior::generic(&runs))
        };
        let fit = fit(&runs, &options).unwrap();
        let best = Calibrated::of_fit(&fit.fit, 64).unwrap();
        let drawn: Vec<Calibrated> = (0..40)
            .map(|draw| best.drawn(draw, libm::exp, normal()))
            .collect();
        for mut run in measured(unseen(), truth, batching(64), 0.0, 1) {
            slower(&mut run, libm::exp(NOISE * standard_normal(&mut slow)));
            let figures = |model: &Calibrated| -> Vec<f64> {
                let overhead = |prompt_tokens| model.request_overhead(prompt_tokens);
                let replayed = replay(&run.traffic, batching(64), model, overhead).unwrap();
                let of = |observed: &Observed| observed.figure.of(&replayed.requests).unwrap();
                run.observed.iter().map(of).collect()
            };
            let predicted: Vec<Vec<f64>> = drawn.iter().map(figures).collect();
            for (place, observed) in run.observed.iter().enumerate() {
                let mut values: Vec<f64> = predicted.iter().map(|each| each[place]).collect();
                values.sort_by(f64::total_cmp);
                inside += u32::from((values[1]..=values[38]).contains(&observed.value));
                all += 1;
            }
        }
        for term in fit.fit.terms.iter().filter(|term| term.is_identified) {
            let value = truth.get(&term.name).unwrap();
            terms_inside += u32::from((term.low..=term.high).contains(&value));
            terms_all += 1;
        }
    }
    let share = f64::from(inside) / f64::from(all);
    assert!((0.9..=0.995).contains(&share), "{inside} of {all}");
    let share = f64::from(terms_inside) / f64::from(terms_all);
    assert!(share >= 0.85, "{terms_inside} of {terms_all}");
}
