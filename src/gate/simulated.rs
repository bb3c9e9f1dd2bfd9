//! Simulated runs against simulated runs: every difference is one.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;

use foresail_reports::gate::ExactComparison;
use foresail_reports::gate::report::Exact;
use foresail_reports::summary::Source;

use super::runs::Run;
use crate::failure::Failure;

const REQUESTS: &str = "requests.csv";

/// How the runs differ, seed by seed; `None` if not all of them are simulated.
pub(super) fn compare(baseline: &[Run], candidate: &[Run]) -> Result<Option<Exact>, Failure> {
    let mut all = baseline.iter().chain(candidate);
    if baseline.is_empty() || !all.all(|run| run.summary.source == Source::Simulated) {
        return Ok(None);
    }
    let [ours, theirs] = [baseline, candidate].map(seeds);
    let (ours, theirs) = (ours?, theirs?);
    let mut comparison = ExactComparison::new();
    for seed in ours.union(&theirs) {
        let run_of = |runs: &'_ [Run]| runs.iter().position(|run| run.summary.seed == *seed);
        comparison.run(&format!("seed {seed}"));
        match (run_of(baseline), run_of(candidate)) {
            (Some(one), Some(two)) => {
                both(&mut comparison, &baseline[one], &candidate[two])?;
            }
            (one, two) => {
                let there = |place: Option<usize>| place.map(|_| "a run");
                comparison.differs("summary.json", there(one), there(two));
            }
        }
    }
    Ok(Some(comparison.finish()))
}

fn seeds(runs: &[Run]) -> Result<BTreeSet<u64>, Failure> {
    let mut seeds = BTreeSet::new();
    for run in runs {
        if !seeds.insert(run.summary.seed) {
            return Err(Failure::Input(format!(
                "there are two simulated runs of seed {}, one in {}; leave out one of them",
                run.summary.seed,
                run.folder.display()
            )));
        }
    }
    Ok(seeds)
}

fn both(comparison: &mut ExactComparison, baseline: &Run, candidate: &Run) -> Result<(), Failure> {
    comparison.summaries(&baseline.summary, &candidate.summary);
    let [one, two] = [baseline, candidate].map(|run| run.folder.join(REQUESTS));
    match (one.is_file(), two.is_file()) {
        // A summary alone can be kept: it is small.
        (false, false) => Ok(()),
        (true, true) => rows(comparison, &one, &two),
        (one, two) => {
            let there = |is_there: bool| is_there.then_some("a table");
            comparison.differs(REQUESTS, there(one), there(two));
            Ok(())
        }
    }
}

/// Row by row, so that tables of any length fit.
fn rows(comparison: &mut ExactComparison, one: &Path, two: &Path) -> Result<(), Failure> {
    let (mut first, mut second) = (Ok(()), Ok(()));
    comparison.rows(lines(one, &mut first)?, lines(two, &mut second)?);
    first.and(second)
}

/// The lines of a file, up to the first that cannot be read; then why is noted.
fn lines<'a>(
    path: &'a Path,
    ended: &'a mut Result<(), Failure>,
) -> Result<impl Iterator<Item = String> + 'a, Failure> {
    let unreadable =
        |error: io::Error| Failure::Input(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(unreadable)?;
    let lines = BufReader::new(file).lines();
    Ok(lines.map_while(move |line| match line {
        Ok(line) => Some(line),
        Err(error) => {
            *ended = Err(unreadable(error));
            None
        }
    }))
}
