//! Real time, sped up: the same steps, and none ends before it should.

use foresail_engine::emulated::RealClock;
use foresail_scenarios::workload::{Content, Request};

use crate::{emulated, library, simulated};

/// How much faster than real: two seconds take a tenth of one.
const SPEED: f64 = 20.0;

#[test]
fn real_time_has_the_same_steps_and_none_ends_early() {
    let scenario = library("chat", &[]);
    let request = |number: u32| Request {
        due: 0,
        prompt_tokens: 200 + 300 * (number % 7),
        output_tokens: 20 + number,
        session: None,
        adapter: None,
        content: Content::Unique,
    };
    let requests: Vec<_> = (0..60).map(request).collect();
    let simulated = simulated::run(&scenario, &requests);
    let jumped = emulated::run(&scenario, &requests);
    let real = emulated::run_at_once(&scenario, &requests, RealClock::new(SPEED).unwrap());
    let loads: Vec<_> = real.steps.iter().map(|step| step.load.clone()).collect();
    assert_eq!(loads, simulated.loads);
    let began = real.steps[0].start;
    for (real, jumped) in real.steps.iter().zip(&jumped.steps) {
        // The speed is a float: one nanosecond either way is the same time.
        assert!(
            real.end + 1 >= began + jumped.end,
            "{real:?} is before {jumped:?}"
        );
    }
}
