//! One replica of one world size, asked what it can do.

use std::cell::OnceCell;

use foresail_core::batching::{self, Scheduler};
use foresail_core::step_time::StepTime;
use foresail_core::time::{Nanos, SECOND};
use foresail_scenarios::scenario::{
    Deployment, Group, LatencyMetric, Metric, Objective, Scenario, Statistic, StepTimeModel,
};
use foresail_scenarios::workload::Request;
use foresail_simulator::replay::{Replay, Replayed, Traffic, replay};
use serde::Serialize;

use crate::failure::Failure;

/// Batches whose time between tokens is shown.
const BATCHES: [u32; 4] = [1, 8, 32, 128];

/// Full batches that come at once for the rate at saturation.
const SATURATION_BATCHES: usize = 5;

/// Halvings of the rates between which the highest is sought: to within 0.1 %.
const HALVINGS: u32 = 10;

/// A deployment of one world size and the requests it is asked to serve.
pub(super) struct Probe {
    scenario: Scenario,
    /// In order, the first at 0; those of the model itself.
    requests: Vec<Request>,
    /// Requests that a replica of this world size would refuse.
    refused: usize,
    /// About how many requests the workload has, if it has more than were taken and that is known.
    workload_requests: Option<u64>,
    saturation: OnceCell<f64>,
    requests_per_s_max: OnceCell<f64>,
}

/// What a world size can do.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) world_size: u32,
    /// Why there is nothing to say.
    pub(super) why_not: Option<String>,
    pub(super) figures: Option<Figures>,
}

/// The figures of a world size.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figures {
    /// Tokens that fit in the KV cache.
    pub(super) kv_tokens: u64,
    /// Time to first token of a prompt of mean length, alone (s).
    pub(super) ttft_idle_s: f64,
    /// Time between tokens by sequences in the batch, half way through answers of mean length.
    pub(super) itl: Vec<Itl>,
    /// How many times as fast as the smallest world size a lone sequence gets its tokens.
    pub(super) speed_up: f64,
    /// Requests a second when more come than can be served.
    pub(super) saturation_requests_per_s: f64,
    /// The most requests a second within the objectives; 0 if they are met at no rate.
    pub(super) requests_per_s_max: f64,
    /// That for each GPU, over that of the smallest world size.
    pub(super) efficiency: Option<f64>,
    /// At that rate (USD); none if it is 0.
    pub(super) usd_per_million_output_tokens: Option<f64>,
}

/// The time between tokens of a batch.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Itl {
    pub(super) batch: u32,
    pub(super) seconds: f64,
}

impl Row {
    pub(super) fn refused(world_size: u32, why: String) -> Self {
        Self {
            world_size,
            why_not: Some(why),
            figures: None,
        }
    }
}

impl Probe {
    /// Of a sound scenario, with so many of its requests; or why there is nothing to say of it.
    pub(super) fn new(group: &Group, requests: u32) -> Result<Result<Self, String>, Failure> {
        let scenario = group.deployments.first();
        let scenario = scenario.ok_or_else(|| Failure::Defect("a group of none".to_owned()))?;
        let mut opened = scenario
            .workload
            .open(group.seed_of(scenario, group.seed))?;
        let workload_requests = opened.len_hint();
        let requests = opened.by_ref().take(requests as usize);
        let mut requests = requests.collect::<Result<Vec<Request>, _>>()?;
        let is_cut = opened.next().is_some();
        if requests.is_empty() {
            let name = &scenario.name;
            return Err(Failure::Input(format!(
                "{name} has no requests to size a replica for"
            )));
        }
        let begin = requests[0].due;
        for request in &mut requests {
            request.due -= begin;
            request.adapter = None;
        }
        let all = requests.len();
        if let Err(why) = leave_out_refused(scenario.deployment.batching, &mut requests) {
            return Ok(Err(why));
        }
        Ok(Ok(Self {
            scenario: scenario.clone(),
            refused: all - requests.len(),
            requests,
            workload_requests: workload_requests.filter(|_| is_cut),
            saturation: OnceCell::new(),
            requests_per_s_max: OnceCell::new(),
        }))
    }

    pub(super) fn name(&self) -> &str {
        &self.scenario.name
    }

    pub(super) fn deployment(&self) -> &Deployment {
        &self.scenario.deployment
    }

    pub(super) fn world_size(&self) -> u32 {
        self.deployment().world_size
    }

    pub(super) fn prompt_tokens_mean(&self) -> f64 {
        self.mean(|request| request.prompt_tokens)
    }

    pub(super) fn output_tokens_mean(&self) -> f64 {
        self.mean(|request| request.output_tokens)
    }

    fn mean(&self, of: impl Fn(&Request) -> u32) -> f64 {
        let sum: u64 = self
            .requests
            .iter()
            .map(|request| u64::from(of(request)))
            .sum();
        sum as f64 / self.requests.len() as f64
    }

    /// The objectives that decide which rate is too high. Of answers of one token nobody knows a TPOT.
    fn judged(&self) -> impl Iterator<Item = (&Objective, LatencyMetric, Statistic)> {
        let has_tpot = self
            .requests
            .iter()
            .any(|request| request.output_tokens > 1);
        let objectives = self.scenario.objectives.iter();
        objectives.filter_map(move |objective| match objective.metric {
            Metric::Latency(LatencyMetric::Tpot, _) if !has_tpot => None,
            Metric::Latency(
                of @ (LatencyMetric::Ttft | LatencyMetric::Tpot | LatencyMetric::E2e),
                statistic,
            ) => Some((objective, of, statistic)),
            _ => None,
        })
    }

    pub(super) fn objectives(&self) -> Vec<String> {
        let judged = self.judged();
        judged
            .map(|(objective, of, statistic)| {
                let of = match of {
                    LatencyMetric::Ttft => "ttft",
                    LatencyMetric::Tpot => "tpot",
                    _ => "e2e",
                };
                let statistic = match statistic {
                    Statistic::Mean => "mean".to_owned(),
                    Statistic::Percentile(share) => format!("p{share}"),
                    Statistic::Max => "max".to_owned(),
                };
                format!("{of} {statistic} at most {} s", objective.limit)
            })
            .collect()
    }

    /// How many objectives of the scenario decide nothing here.
    pub(super) fn objectives_not_judged(&self) -> usize {
        self.scenario.objectives.len() - self.judged().count()
    }

    /// What the numbers stand on.
    pub(super) fn facts(&self) -> Vec<String> {
        let deployment = self.deployment();
        let step_time = match &deployment.step_time {
            StepTimeModel::Roofline(_) => format!(
                "step and all-reduce times: from the model's shape and the built-in figures of {} (docs/accuracy.md says \
                 how far off those are)",
                deployment.gpu
            ),
            StepTimeModel::Calibrated(_) => {
                "step times: the calibrated profile, which says of each world size how it was measured".to_owned()
            }
            StepTimeModel::Profile(_) => {
                "step times: the measured steps of a profile that holds for one world size; the rows of others \
                 repeat it"
                    .to_owned()
            }
        };
        let mut facts = vec![
            step_time,
            format!("price: {}", deployment.price_source),
            format!(
                "rates: {} requests of the scenario's workload under one seed at one replica, their times stretched; no \
                 autoscaler, no cold start, {}",
                self.requests.len(),
                self.overhead()
            ),
        ];
        if let Some(all) = self.workload_requests {
            facts.push(format!(
                "the workload has about {all} requests, and these are the first of them: what comes later, such as a \
                 rush, is in no rate; --requests says how many to take"
            ));
        }
        let not_judged = self.objectives_not_judged();
        if not_judged > 0 {
            facts.push(format!(
                "not judged: {not_judged} of the scenario's {} objectives, which are about other things than TTFT, TPOT \
                 and E2E of these requests",
                self.scenario.objectives.len()
            ));
        }
        if self.judged().next().is_none() {
            facts.push("maximum rate: saturation, as there is no objective for latency".to_owned());
        }
        if self.scenario.deployment.adapters.is_some() {
            facts.push("adapters: left out; every request asks for the model itself".to_owned());
        }
        facts
    }

    /// What requests take around their steps, in words.
    fn overhead(&self) -> String {
        let overhead = self.deployment().request_overhead();
        if overhead.is_none() {
            return "no request overhead of a server".to_owned();
        }
        format!(
            "a request overhead of {:.3} ms and {:.3} µs a token of the prompt",
            1e3 * overhead.request_s,
            1e6 * overhead.prompt_token_s
        )
    }

    /// What its rates stand on that those of other world sizes may not.
    pub(super) fn doubts(&self) -> Result<Vec<String>, Failure> {
        let (size, count) = (self.world_size(), self.requests.len());
        let mut doubts = Vec::new();
        if self.refused > 0 {
            doubts.push(format!(
                "world size {size}: {} requests are left out that it would refuse, as they are too long for it",
                self.refused
            ));
        }
        if self.judged().next().is_some() && self.requests_per_s_max()? >= self.saturation()? {
            doubts.push(format!(
                "world size {size}: its maximum rate is saturation, where queues grow without end; {count} requests are too \
                 few to see that, and a replica that is to last takes less: give more --requests"
            ));
        }
        Ok(doubts)
    }

    /// The figures, beside those of the smallest world size.
    pub(super) fn row(&self, smallest: &Self) -> Result<Row, Failure> {
        let requests_per_s_max = self.requests_per_s_max()?;
        let per_gpu = |probe: &Self, rate: f64| rate / f64::from(probe.world_size());
        let smallest_max = smallest.requests_per_s_max()?;
        let efficiency = (smallest_max > 0.0)
            .then(|| per_gpu(self, requests_per_s_max) / per_gpu(smallest, smallest_max));
        let deployment = self.deployment();
        let usd_per_s = f64::from(self.world_size())
            * deployment.price.nanodollars_per_gpu_hour as f64
            / 1e9
            / 3600.0;
        let tokens_per_s = requests_per_s_max * self.output_tokens_mean();
        let batches = BATCHES
            .iter()
            .filter(|batch| **batch <= deployment.batching.max_num_seqs);
        let figures = Figures {
            kv_tokens: u64::from(deployment.batching.num_blocks)
                * u64::from(deployment.batching.block_size),
            ttft_idle_s: self.ttft_idle_s()?,
            itl: batches
                .map(|batch| Itl {
                    batch: *batch,
                    seconds: self.itl_s(*batch),
                })
                .collect(),
            speed_up: smallest.itl_s(1) / self.itl_s(1),
            saturation_requests_per_s: self.saturation()?,
            requests_per_s_max,
            efficiency,
            usd_per_million_output_tokens: (tokens_per_s > 0.0)
                .then(|| usd_per_s / tokens_per_s * 1e6),
        };
        Ok(Row {
            world_size: self.world_size(),
            why_not: None,
            figures: Some(figures),
        })
    }

    fn ttft_idle_s(&self) -> Result<f64, Failure> {
        let mut request = self.requests[0].clone();
        request.prompt_tokens = (self.prompt_tokens_mean().round() as u32).max(1);
        request.output_tokens = 1;
        let replay = self.replay(&Traffic::Recorded(vec![request]))?;
        Ok(replay.requests.first().map_or(0.0, ttft_s))
    }

    /// Time between tokens of a batch half way through answers of mean length (s).
    fn itl_s(&self, batch: u32) -> f64 {
        let context = self.prompt_tokens_mean() + self.output_tokens_mean() / 2.0;
        let past = u64::from(batch) * context.round() as u64;
        let picos = match &self.deployment().step_time {
            StepTimeModel::Roofline(model) => model.decode(batch, past).at(past),
            StepTimeModel::Profile(model) => model.decode(batch, past).at(past),
            StepTimeModel::Calibrated(model) => model.decode(batch, past).at(past),
        };
        picos as f64 / 1e12
    }

    /// Requests a second when more wait than can be served: of many that come at once, those that end after the
    /// batch has filled and before the queue is empty.
    pub(super) fn saturation(&self) -> Result<f64, Failure> {
        once(&self.saturation, || self.find_saturation())
    }

    fn find_saturation(&self) -> Result<f64, Failure> {
        let batch = self.deployment().batching.max_num_seqs as usize;
        let count = self.requests.len().max(SATURATION_BATCHES * batch);
        let at_once = self.requests.iter().cycle().take(count).cloned();
        let at_once = at_once.map(|request| Request { due: 0, ..request });
        let replay = self.replay(&Traffic::Recorded(at_once.collect()))?;
        let mut ends: Vec<Nanos> = replay
            .requests
            .iter()
            .map(|request| request.end_ns)
            .collect();
        ends.sort_unstable();
        let (first, last) = (count * 3 / 10, count * 7 / 10);
        let seconds = (ends[last] - ends[first]).max(1) as f64 / SECOND as f64;
        Ok((last - first) as f64 / seconds)
    }

    /// The most requests a second within the objectives.
    fn requests_per_s_max(&self) -> Result<f64, Failure> {
        once(&self.requests_per_s_max, || self.find_requests_per_s_max())
    }

    fn find_requests_per_s_max(&self) -> Result<f64, Failure> {
        let saturation = self.saturation()?;
        if self.judged().next().is_none() || self.is_met(saturation)? {
            return Ok(saturation);
        }
        // Below a hundredth of saturation, requests hardly ever meet.
        let (mut low, mut high) = (saturation / 100.0, saturation);
        if !self.is_met(low)? {
            return Ok(0.0);
        }
        for _ in 0..HALVINGS {
            let middle = low + (high - low) / 2.0;
            if self.is_met(middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    fn is_met(&self, rate: f64) -> Result<bool, Failure> {
        let replay = self.at_rate(rate)?;
        let is_met = |(objective, of, statistic): (&Objective, LatencyMetric, Statistic)| {
            let of = match of {
                LatencyMetric::Ttft => |each: &Replayed| Some(ttft_s(each)),
                LatencyMetric::Tpot => tpot_s,
                _ => |each: &Replayed| Some(e2e_s(each)),
            };
            // What nothing says is not met.
            statistic_of(&replay.requests, of, statistic).is_some_and(|it| it <= objective.limit)
        };
        Ok(self.judged().all(is_met))
    }

    /// Mean time of a request at a rate (s).
    pub(super) fn e2e_mean_s(&self, rate: f64) -> Result<f64, Failure> {
        let replay = self.at_rate(rate)?;
        let seconds: f64 = replay.requests.iter().map(e2e_s).sum();
        Ok(seconds / replay.requests.len() as f64)
    }

    /// The same requests, their times stretched to a rate (requests/s).
    fn at_rate(&self, rate: f64) -> Result<Replay, Failure> {
        let last = self.requests.last().map_or(0, |request| request.due);
        let count = self.requests.len() as f64;
        let lasts = count / rate * SECOND as f64;
        let stretched = self.requests.iter().enumerate().map(|(index, request)| {
            let share = match last {
                0 => index as f64 / count,
                last => request.due as f64 / last as f64,
            };
            Request {
                due: (share * lasts) as Nanos,
                ..request.clone()
            }
        });
        self.replay(&Traffic::Recorded(stretched.collect()))
    }

    fn replay(&self, traffic: &Traffic) -> Result<Replay, Failure> {
        let deployment = self.deployment();
        let batching = deployment.batching;
        let overhead = deployment.request_overhead();
        let overhead = |tokens| overhead.of(tokens);
        let replay = match &deployment.step_time {
            StepTimeModel::Roofline(model) => replay(traffic, batching, &**model, overhead),
            StepTimeModel::Profile(model) => replay(traffic, batching, &**model, overhead),
            StepTimeModel::Calibrated(model) => replay(traffic, batching, &**model, overhead),
        };
        replay.map_err(|error| {
            let size = self.world_size();
            Failure::Input(format!("{}, world size {size}: {error}", self.name()))
        })
    }
}

fn ttft_s(of: &Replayed) -> f64 {
    (of.first_token_ns - of.due_ns) as f64 / SECOND as f64
}

fn e2e_s(of: &Replayed) -> f64 {
    (of.end_ns - of.due_ns) as f64 / SECOND as f64
}

/// None of a single token.
fn tpot_s(of: &Replayed) -> Option<f64> {
    let gaps = of.output_tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
    Some((of.end_ns - of.first_token_ns) as f64 / SECOND as f64 / f64::from(gaps))
}

/// Of those that have it; `None` if nobody does.
fn statistic_of(
    requests: &[Replayed],
    of: fn(&Replayed) -> Option<f64>,
    statistic: Statistic,
) -> Option<f64> {
    let mut values: Vec<f64> = requests.iter().filter_map(of).collect();
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let share = match statistic {
        Statistic::Mean => return Some(values.iter().sum::<f64>() / values.len() as f64),
        Statistic::Percentile(share) => share / 100.0,
        Statistic::Max => 1.0,
    };
    // The smallest value that is at least as large as that share of all.
    let rank = (share * values.len() as f64).ceil() as usize;
    Some(values[rank.clamp(1, values.len()) - 1])
}

/// The value, found the first time that it is asked for.
fn once(cell: &OnceCell<f64>, find: impl FnOnce() -> Result<f64, Failure>) -> Result<f64, Failure> {
    if let Some(value) = cell.get() {
        return Ok(*value);
    }
    let value = find()?;
    Ok(*cell.get_or_init(|| value))
}

/// Leaves out what a replica with these limits would refuse, as a deployment does; or says why that is everything.
fn leave_out_refused(
    batching: batching::Config,
    requests: &mut Vec<Request>,
) -> Result<(), String> {
    let scheduler = Scheduler::new(batching).map_err(|error| error.to_string())?;
    let mut last = None;
    requests.retain(|request| {
        let asked = batching::Request {
            prompt: request.prompt_tokens,
            max_new: request.output_tokens,
            cacheable: false,
            adapter: None,
        };
        let refused = scheduler.check_request(&asked).err();
        let is_taken = refused.is_none();
        last = refused.or(last);
        is_taken
    });
    match last {
        Some(why) if requests.is_empty() => Err(format!("no request can be served: {why}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replayed(first_s: u64, end_s: u64, output_tokens: u32) -> Replayed {
        Replayed {
            due_ns: 0,
            first_token_ns: first_s * SECOND,
            end_ns: end_s * SECOND,
            output_tokens,
            ..Replayed::default()
        }
    }

    /// Half of these have no token after the first, which is not the same as one at once.
    #[test]
    fn single_tokens_have_no_time_between_tokens() {
        let requests = [
            replayed(1, 1, 1),
            replayed(1, 5, 3),
            replayed(1, 1, 1),
            replayed(1, 4, 2),
        ];
        let tpot = |statistic| statistic_of(&requests, tpot_s, statistic);
        assert_eq!(tpot(Statistic::Percentile(50.0)), Some(2.0));
        assert_eq!(tpot(Statistic::Mean), Some(2.5));
        assert_eq!(statistic_of(&requests[..1], tpot_s, Statistic::Max), None);
    }
}
