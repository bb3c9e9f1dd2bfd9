//! The same model as terms of [`Calibrated`](super::super::Calibrated)'s formula: where a fit begins.

use super::super::calibrated::{CalibratedAllReduce, Factor, Formula, Knot, Terms};
use super::{Costs, Roofline, rounded_max};

impl Roofline {
    /// This model as a formula of a few terms. It is close, not equal: the formula has one root for all
    /// matrices where the roofline has one for the layers, one for the output and one a chunk. The
    /// tests hold decode steps within 5 % and chunks within 10 %. What a host that launches kernels one by one
    /// adds to the smallest step is part of its launch: larger steps take less longer, which no term says.
    #[must_use]
    pub fn formula(&self) -> Formula {
        let costs = &self.costs;
        let weights_s = costs.weights_s(u64::MAX);
        let token_s = costs.gemm_token_s + costs.elementwise_token_s;
        let at = |tokens: u64| {
            let multiply_s = token_s * tokens as f64;
            let share = rounded_max(costs.weights_s(tokens), multiply_s)
                / rounded_max(weights_s, multiply_s);
            Knot {
                at: tokens,
                factor: share,
            }
        };
        // Only a mixture of experts reads fewer weights for fewer tokens: each octave has two knots.
        let octaves = (0..u32::BITS).flat_map(|octave| [1_u64 << octave, 3 << octave >> 1]);
        let mut places: Vec<u64> = octaves.collect();
        places.dedup();
        let last = costs.experts_share.len() as u64;
        places.retain(|tokens| *tokens < last);
        places.extend((last > 0).then_some(last));
        let knots = places.into_iter().map(at);
        let smallest_s = costs.step(1, 1);
        let waiting_s = (costs.host).map_or(0.0, |host| host.step_s(smallest_s) - smallest_s);
        Formula {
            terms: Terms {
                launch_s: costs.fixed_s + waiting_s,
                weights_s,
                token_s,
                sequence_s: costs.sequence_s,
                kv_token_s: costs.kv_read_token_s,
                pair_s: costs.attention_pair_s,
                chunk_kv_token_s: costs.kv_read_token_s,
                ..Terms::default()
            },
            token_factor: Factor {
                knots: knots.collect(),
            },
            kv_factor: Factor::default(),
            all_reduce: self.exchanges(),
        }
    }

    fn exchanges(&self) -> Option<CalibratedAllReduce> {
        let costs = &self.costs;
        (!costs.all_reduce_ranges.is_empty()).then(|| CalibratedAllReduce {
            per_step: costs.all_reduces,
            bytes_per_token: costs.all_reduce_bytes_token,
            ranges: costs.all_reduce_ranges.clone(),
        })
    }
}

impl Costs {
    /// Reading the weights that a step of so many tokens needs, the output's included (s).
    fn weights_s(&self, tokens: u64) -> f64 {
        self.dense_read_s + self.experts_read_s * self.experts_share(tokens) + self.lm_head_read_s
    }
}
