//! The load of the recorded runs: `vllm bench serve` jobs, each with a rate and
//! at most 512 requests in flight, beyond which its clients wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;

use foresail_scenarios::random::stream;
use rand::Rng;

/// `--max-concurrency` of every job.
const IN_FLIGHT_MAX: usize = 512;

/// A job: from when on (s), how many requests a second, and how many in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) start_s: f64,
    pub(crate) rate_per_s: f64,
    pub(crate) requests: u32,
}

/// A request as a job's schedule has it, and when it was really sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    job: usize,
    due_s: f64,
    pub(crate) sent_s: f64,
    prompt_tokens: u32,
    output_tokens: u32,
}

/// The schedules of some jobs: Poisson arrivals, and lengths about those of the
/// data set (ShareGPT, answers of at most 1,024 tokens). The runs recorded only
/// means of lengths: about 240 tokens of prompt, and about 440 of answer.
pub(crate) fn schedule(jobs: &[Job]) -> Vec<Sent> {
    let mut requests = Vec::new();
    for (
        job,
        &Job {
            start_s,
            rate_per_s,
            requests: count,
        },
    ) in jobs.iter().enumerate()
    {
        let mut random = stream(1, &format!("recorded_runs.{job}"));
        let mut exponential = |mean: f64| {
            let uniform = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
            -libm::log1p(-uniform) * mean
        };
        let mut due_s = start_s;
        for _ in 0..count {
            due_s += exponential(1.0 / rate_per_s);
            requests.push(Sent {
                job,
                due_s,
                sent_s: due_s,
                prompt_tokens: 4 + exponential(236.0).min(1020.0) as u32,
                // Cut off at 1,024, the mean is 440.
                output_tokens: 1 + exponential(505.0).min(1023.0) as u32,
            });
        }
    }
    requests
}

/// Sends each request when its job has fewer than 512 in flight, if each takes
/// as long as is believed. Returns by how much sending times moved (s, mean).
pub(crate) fn hold_back(requests: &mut [Sent], took_s: &[f64]) -> f64 {
    let jobs = requests
        .iter()
        .map(|request| request.job + 1)
        .max()
        .unwrap_or(0);
    let mut in_flight: Vec<BinaryHeap<Reverse<u64>>> = vec![BinaryHeap::new(); jobs];
    let mut sum_s = 0.0;
    for (request, took_s) in requests.iter_mut().zip(took_s) {
        let job = &mut in_flight[request.job];
        let mut sent_s = request.due_s;
        while job
            .peek()
            .is_some_and(|Reverse(end)| *end as f64 / 1e6 <= sent_s)
        {
            job.pop();
        }
        if job.len() >= IN_FLIGHT_MAX {
            let Reverse(end) = job.pop().expect("the job has requests in flight");
            sent_s = sent_s.max(end as f64 / 1e6);
        }
        job.push(Reverse(((sent_s + took_s) * 1e6) as u64));
        sum_s += (sent_s - request.sent_s).abs();
        request.sent_s = sent_s;
    }
    sum_s / requests.len() as f64
}

/// The order in which requests were sent: positions in `requests`.
pub(crate) fn order(requests: &[Sent]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by(|&a, &b| requests[a].sent_s.total_cmp(&requests[b].sent_s));
    order
}

/// The requests as a trace.
pub(crate) fn trace(requests: &[Sent], order: &[usize]) -> String {
    let mut text = "due_ns,prompt_tokens,output_tokens,session,\
        group,shared_tokens,content_session,block_tokens,block_ids\n"
        .to_owned();
    for &index in order {
        let Sent {
            sent_s,
            prompt_tokens,
            output_tokens,
            ..
        } = requests[index];
        let due_ns = (sent_s * 1e9) as u64;
        writeln!(text, "{due_ns},{prompt_tokens},{output_tokens},,,,,,").expect("text grows");
    }
    text
}
