//! How long a replica takes to start: one draw of the scenario's stages.

use foresail_core::time::{Nanos, SECOND};
use foresail_scenarios::distribution::Distribution;
use foresail_scenarios::random::{Stream, numbered_stream};
use foresail_scenarios::scenario::{ColdStart, ColdStartPhase, ColdStartStage};
use rand::Rng;

/// How long each phase of one start takes; a phase appears once, with all its stages.
pub(crate) type Phases = Vec<(ColdStartPhase, Nanos)>;

/// Draws an attempt, from 1, to start a replica. Each replica has its own stream,
/// so what one start takes does not depend on how many there were before it.
pub(crate) fn draw(cold_start: &ColdStart, seed: u64, replica: u32, attempt: u32) -> Phases {
    let mut rng = numbered_stream(
        seed,
        &format!("cold_start.{replica}"),
        u64::from(attempt - 1),
    );
    let mut phases = Phases::new();
    for stage in &cold_start.stages {
        let nanos = draw_stage(stage, &mut rng);
        match phases.last_mut() {
            Some((phase, total)) if *phase == stage.phase => *total = total.saturating_add(nanos),
            _ => phases.push((stage.phase, nanos)),
        }
    }
    phases
}

fn draw_stage(stage: &ColdStartStage, rng: &mut Stream) -> Nanos {
    // Always the same number of draws for the choice, so that another
    // probability does not reshuffle the stages after this one.
    let choice = (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let mut upto = 0.0;
    let last = stage.outcomes.last();
    let chosen = stage.outcomes.iter().find(|outcome| {
        upto += outcome.probability;
        choice < upto
    });
    chosen
        .or(last)
        .map_or(0, |outcome| nanos(&outcome.seconds, rng))
}

/// One draw of a time in seconds.
pub(crate) fn nanos(seconds: &Distribution, rng: &mut Stream) -> Nanos {
    (seconds.sample(rng) * SECOND as f64) as Nanos
}

#[cfg(test)]
mod tests {
    use super::*;
    use foresail_scenarios::scenario::ColdStartOutcome;

    fn fixed(phase: ColdStartPhase, seconds: f64) -> ColdStartStage {
        let seconds = Distribution::Fixed { value: seconds };
        let outcomes = vec![ColdStartOutcome {
            probability: 1.0,
            seconds,
        }];
        ColdStartStage {
            name: "stage".into(),
            phase,
            outcomes,
        }
    }

    #[test]
    fn stages_of_one_phase_add_up() {
        use ColdStartPhase::{Downloading, Initialising, Pending};
        let stages = vec![
            fixed(Pending, 3.0),
            fixed(Downloading, 2.0),
            fixed(Initialising, 12.0),
            fixed(Initialising, 0.5),
        ];
        let phases = draw(&ColdStart { stages }, 1, 0, 1);
        let expected = [
            (Pending, 3 * SECOND),
            (Downloading, 2 * SECOND),
            (Initialising, 12_500_000_000),
        ];
        assert_eq!(phases, expected);
    }

    #[test]
    fn a_replica_starts_the_same_whatever_started_before() {
        let seconds = Distribution::log_normal_median(10.0, 0.5);
        let outcomes = vec![ColdStartOutcome {
            probability: 1.0,
            seconds,
        }];
        let stage = ColdStartStage {
            name: "weights".into(),
            phase: ColdStartPhase::Initialising,
            outcomes,
        };
        let cold_start = ColdStart {
            stages: vec![stage],
        };
        let draw = |seed, replica, attempt| draw(&cold_start, seed, replica, attempt);
        assert_eq!(draw(7, 3, 1), draw(7, 3, 1));
        assert_ne!(draw(7, 3, 1), draw(7, 4, 1));
        assert_ne!(draw(7, 3, 1), draw(8, 3, 1));
        assert_ne!(draw(7, 3, 1), draw(7, 3, 2));
    }
}
