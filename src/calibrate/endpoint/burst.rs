//! What a burst shows of the batch limit.
//!
//! ```text
//! in flight   a limit: requests wait,          slow prompts: the next one
//!    |        and nothing begins               begins all the time
//!    |         ___________________               ___/\/\/\/\__
//!    |        /                   \/\/\       __/
//!    |       /                             __/
//!    +------/-------------------^----->   /--------^---------->  time
//!                       first end                  first end
//! ```
//!
//! How many were in flight at most is no limit by itself: prompts that are computed a few in a step begin one
//! after the other, and after a while as many end as begin. Only a pause tells: somebody waits, nothing begins, and
//! that goes on until an answer has ended.

use foresail_simulator::replay::Replayed;

use super::design::Kind;
use super::findings::replayed;
use super::measure::Done;

/// A pause is so many times as long as any between two that began, and as the time of a token.
const PAUSE_MIN: u64 = 3;

/// How many sequences the endpoint computes at once, as far as bursts tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BatchLimit {
    /// So many, and the others waited for their ends, in every burst that made any wait.
    Found(u32),
    /// All of a burst were computed at once: so many at least.
    AtLeast(u32),
    /// So many were, and the others began late: for want of a place, or because prompts take long. A
    /// simulation of both may tell.
    Prompts(u32),
    /// From so many to so many, as bursts differed.
    Between(u32, u32),
    /// No burst was measured.
    Unknown,
}

/// What one burst shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// In flight at once, for longer than a moment.
    in_flight: u32,
    /// How many had begun when nothing more did although somebody waited.
    held_at: Option<u32>,
    sent: u32,
}

/// The batch limit, from the bursts that came through whole.
pub(super) fn batch_limit<'a>(runs: impl Iterator<Item = &'a Done>) -> BatchLimit {
    let bursts = runs.filter(|done| done.job.kind == Kind::Burst && done.failed() == 0);
    let seen: Vec<Seen> = bursts
        .filter_map(|done| seen(done.records.iter().filter_map(replayed).collect()))
        .collect();
    let Some(most) = seen.iter().map(|seen| seen.in_flight).max() else {
        return BatchLimit::Unknown;
    };
    let held = || seen.iter().filter_map(|seen| seen.held_at);
    match (held().min(), held().max()) {
        (Some(least), Some(held_max)) if most <= held_max => match least == held_max {
            true => BatchLimit::Found(least),
            false => BatchLimit::Between(least, held_max),
        },
        // More than were held up: what held them up was no limit.
        _ if seen.iter().any(|seen| seen.in_flight == seen.sent) => BatchLimit::AtLeast(most),
        _ => BatchLimit::Prompts(most),
    }
}

fn seen(mut requests: Vec<Replayed>) -> Option<Seen> {
    let sent = requests.len() as u32;
    requests.sort_by_key(|each| each.first_token_ns);
    let first = requests.first()?;
    let first_end = requests.iter().map(|each| each.end_ns).min()?;
    let begun = requests
        .iter()
        .take_while(|each| each.first_token_ns < first_end)
        .count();
    let token_ns = first.end_ns.saturating_sub(first.first_token_ns)
        / u64::from(first.output_tokens.max(2) - 1);
    let ramp = &requests[..begun];
    let gap_ns = ramp
        .windows(2)
        .map(|pair| pair[1].first_token_ns - pair[0].first_token_ns)
        .max()
        .unwrap_or(0);
    let is_held = ramp.last().is_some_and(|last| {
        let pause_ns = first_end - last.first_token_ns;
        let waits = requests[begun..]
            .iter()
            .any(|each| each.due_ns <= last.first_token_ns);
        waits && pause_ns > PAUSE_MIN * gap_ns.max(token_ns)
    });
    Some(Seen {
        in_flight: in_flight_max(&requests, token_ns / 2),
        held_at: is_held.then_some(begun as u32),
        sent,
    })
}

/// The most that were in flight for longer than a moment: an end and a beginning of the same step may come in
/// any order.
fn in_flight_max(requests: &[Replayed], moment_ns: u64) -> u32 {
    let begins = requests.iter().map(|each| (each.first_token_ns, 1_i64));
    let ends = requests.iter().map(|each| (each.end_ns, -1_i64));
    let mut changes: Vec<(u64, i64)> = begins.chain(ends).collect();
    changes.sort_unstable();
    let mut in_flight = 0;
    let mut most = 0;
    for (index, (at, change)) in changes.iter().enumerate() {
        in_flight += change;
        let until = changes.get(index + 1).map_or(*at, |(until, _)| *until);
        if until - at > moment_ns {
            most = most.max(in_flight);
        }
    }
    most as u32
}

#[cfg(test)]
mod tests;
