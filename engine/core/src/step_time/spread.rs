//! How well the figures of a GPU are known, and the same GPU as another measurement might have had it.
//!
//! A roofline's figures come from other people's measurements, which differ: between models, engines and
//! their versions. Each figure has the standard deviation of its natural logarithm beside it. A run that
//! is given a drawn GPU is as likely as one with the best figures, so that what differs between such
//! runs is how far the measurements leave the answer open.

use super::{Efficiency, Gpu};

/// What a figure is called, its deviation, and the GPU whose figure is so many times what it was.
type Named = (
    &'static str,
    fn(&EfficiencySpread) -> f64,
    fn(&mut Gpu, f64),
);

/// Declares the deviations once: their field, and how a figure is multiplied.
macro_rules! spread {
    ($($(#[$doc:meta])* $name:ident: $times:expr,)+) => {
        /// Standard deviations of the natural logarithms of a GPU's figures: 0.1 is about 10 %.
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct EfficiencySpread {
            $($(#[$doc])* pub $name: f64,)+
        }

        impl EfficiencySpread {
            /// From deviations in the order of the names.
            #[must_use]
            pub fn of_array(deviations: [f64; Self::COUNT]) -> Self {
                let [$($name,)+] = deviations;
                Self { $($name,)+ }
            }
        }

        const NAMED: &[Named] = &[$((stringify!($name), |spread| spread.$name, $times),)+];
    };
}

spread! {
    /// Of [`Efficiency::weight_read`].
    weight_read: |gpu, factor| gpu.efficiency.weight_read *= factor,
    /// Of [`Efficiency::kv_read`].
    kv_read: |gpu, factor| gpu.efficiency.kv_read *= factor,
    /// Of [`Efficiency::gemm`].
    gemm: |gpu, factor| gpu.efficiency.gemm *= factor,
    /// Of [`Efficiency::gemm_fp8`].
    gemm_fp8: |gpu, factor| gpu.efficiency.gemm_fp8 *= factor,
    /// Of [`Efficiency::attention`].
    attention: |gpu, factor| gpu.efficiency.attention *= factor,
    /// Of [`Efficiency::elementwise`].
    elementwise: |gpu, factor| gpu.efficiency.elementwise *= factor,
    /// Of [`Efficiency::step_overhead_s`].
    step_overhead: |gpu, factor| gpu.efficiency.step_overhead_s *= factor,
    /// Of [`Efficiency::sequence_overhead_s`].
    sequence_overhead: |gpu, factor| gpu.efficiency.sequence_overhead_s *= factor,
    /// Of [`Efficiency::layer_overhead_s`].
    layer_overhead: |gpu, factor| gpu.efficiency.layer_overhead_s *= factor,
    /// Of [`Efficiency::kernel_overhead_s`].
    kernel_overhead: |gpu, factor| gpu.efficiency.kernel_overhead_s *= factor,
    /// Of [`Efficiency::host_launch_s`].
    host_launch: |gpu, factor| gpu.efficiency.host_launch_s *= factor,
    /// Of the time of every all-reduce.
    all_reduce: all_reduce_times,
    /// Of all times of one engine together: what the formula itself lacks.
    engine: engine_times,
}

/// The figures that are shares of a peak, which nothing exceeds.
const SHARES: [fn(&mut Efficiency) -> &mut f64; 6] = [
    |of| &mut of.weight_read,
    |of| &mut of.kv_read,
    |of| &mut of.gemm,
    |of| &mut of.gemm_fp8,
    |of| &mut of.attention,
    |of| &mut of.elementwise,
];

/// A share of a peak that is so many times as large, if that leaves room below the peak: what is short of it shrinks instead
/// of the share growing, so that small factors are as they are, and no factor reaches it.
fn below_peak(share: f64, factor: f64) -> f64 {
    if factor <= 1.0 || share >= 1.0 {
        return share * factor.min(1.0);
    }
    let short = 1.0 - share;
    1.0 - short * libm::exp(-libm::log(factor) * share / short)
}

fn all_reduce_times(gpu: &mut Gpu, factor: f64) {
    let sizes = gpu.all_reduce.by_world_size.iter_mut();
    for range in sizes.flat_map(|(_, ranges)| ranges) {
        range.alpha_s *= factor;
        range.beta_bytes_per_s /= factor;
    }
}

fn engine_times(gpu: &mut Gpu, factor: f64) {
    let Efficiency {
        weight_read,
        kv_read,
        gemm,
        gemm_fp8,
        attention,
        elementwise,
        step_overhead_s,
        sequence_overhead_s,
        layer_overhead_s,
        kernel_overhead_s,
        host_launch_s,
    } = &mut gpu.efficiency;
    for share in [weight_read, kv_read, gemm, gemm_fp8, attention, elementwise] {
        *share /= factor;
    }
    for seconds in [
        step_overhead_s,
        sequence_overhead_s,
        layer_overhead_s,
        kernel_overhead_s,
        host_launch_s,
    ] {
        *seconds *= factor;
    }
    all_reduce_times(gpu, factor);
}

impl EfficiencySpread {
    /// How many figures have one.
    pub const COUNT: usize = NAMED.len();

    /// Their names, in order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|(name, ..)| *name)
    }

    /// The deviations, in the order of the names.
    #[must_use]
    pub fn to_array(&self) -> [f64; Self::COUNT] {
        std::array::from_fn(|index| NAMED[index].1(self))
    }
}

impl Gpu {
    /// The same GPU with each figure so many times what it was, in the order of
    /// [`EfficiencySpread::names`]. Shares and times are multiplied as they are: more of a
    /// share is faster, more of a time slower.
    #[must_use]
    pub fn times(&self, factors: &[f64; EfficiencySpread::COUNT]) -> Self {
        let mut gpu = self.clone();
        for ((_, _, multiply), factor) in NAMED.iter().zip(factors) {
            multiply(&mut gpu, *factor);
        }
        gpu
    }

    /// The same GPU as other measurements might have had it. `deviation` is to come from a
    /// standard normal distribution, and is asked for every figure in turn, so that a figure
    /// that is certain does not change what the others get. No share of a peak is drawn beyond the peak.
    #[must_use]
    pub fn drawn(&self, mut deviation: impl FnMut() -> f64) -> Self {
        let factors = self.spread.to_array().map(|of| libm::exp(of * deviation()));
        let mut drawn = self.times(&factors);
        let mut best = self.efficiency.clone();
        for share in SHARES {
            let (best, drawn) = (*share(&mut best), share(&mut drawn.efficiency));
            *drawn = below_peak(best, *drawn / best);
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::super::shapes::LLAMA_3_8B;
    use super::super::{Chunk, Precision, Roofline, StepLoad, StepTime};
    use super::*;

    const BF16: Precision = Precision::Bf16;

    fn step(gpu: &Gpu) -> f64 {
        let chunks = [Chunk {
            past: 100,
            len: 900,
            sample: true,
        }];
        let model = Roofline::new(&LLAMA_3_8B, BF16, BF16, gpu, 2, 64).unwrap();
        model.step(&StepLoad {
            decodes: 30,
            decode_past: 20_000,
            chunks: &chunks,
        }) as f64
    }

    #[test]
    fn without_deviations_a_drawn_gpu_is_the_same() {
        let gpu = Gpu::h100();
        assert_eq!(gpu.drawn(|| 0.0), gpu);
        let certain = Gpu {
            spread: EfficiencySpread::default(),
            ..gpu
        };
        assert_eq!(certain.drawn(|| 2.0), certain);
    }

    #[test]
    fn an_engine_that_is_a_tenth_slower_takes_a_tenth_longer_for_every_step() {
        let gpu = Gpu::h100();
        let factors = std::array::from_fn(|index| {
            let is_engine = EfficiencySpread::names().nth(index) == Some("engine");
            if is_engine { 1.1 } else { 1.0 }
        });
        let ratio = step(&gpu.times(&factors)) / step(&gpu);
        assert!((ratio - 1.1).abs() < 1e-6, "{ratio}");
    }

    #[test]
    fn every_figure_of_every_gpu_has_a_deviation_that_changes_its_step() {
        for gpu in [Gpu::a100_80gb(), Gpu::h100(), Gpu::h200(), Gpu::b200()] {
            let best = step(&gpu);
            for (index, name) in EfficiencySpread::names().enumerate() {
                assert!(
                    (0.0..=1.0).contains(&gpu.spread.to_array()[index]),
                    "{name}"
                );
                let mut asked = 0;
                let one = gpu.drawn(|| {
                    asked += 1;
                    f64::from(u8::from(asked == index + 1))
                });
                // Nothing of a bf16 model uses fp8 units, and the built-in engines launch graphs.
                let changes = !["gemm_fp8", "host_launch"].contains(&name);
                assert_eq!(step(&one) != best, changes, "{name}");
            }
        }
    }

    #[test]
    fn no_draw_reaches_a_peak() {
        for gpu in [Gpu::a100_80gb(), Gpu::h100(), Gpu::h200(), Gpu::b200()] {
            for step in -60..=60_i32 {
                let deviation = f64::from(step) / 10.0;
                // The one that slows everything the other way.
                let mut asked = 0;
                let mut drawn = gpu.drawn(|| {
                    asked += 1;
                    if asked == EfficiencySpread::COUNT {
                        -deviation
                    } else {
                        deviation
                    }
                });
                for share in SHARES {
                    let drawn = *share(&mut drawn.efficiency);
                    assert!(drawn > 0.0 && drawn < 1.0, "{drawn} by {deviation}");
                    let best = *share(&mut gpu.efficiency.clone());
                    assert_eq!(
                        drawn > best,
                        deviation > 0.0,
                        "{drawn} {best} by {deviation}"
                    );
                }
            }
        }
        // Small factors are as they are, and shares that are far from the peak grow on.
        assert!((below_peak(0.5, 1.001) - 0.5005).abs() < 1e-6);
        assert_eq!(below_peak(0.9, 0.5), 0.45);
        assert!((below_peak(0.9, 1.05) - 0.935).abs() < 2e-3);
    }

    #[test]
    fn a_drawn_roofline_is_that_of_the_drawn_gpu() {
        let gpu = Gpu::h100();
        let model = Roofline::new(&LLAMA_3_8B, BF16, BF16, &gpu, 2, 64).unwrap();
        let drawn = model.drawn(|| 0.5);
        let load = StepLoad {
            decodes: 3,
            decode_past: 1000,
            chunks: &[],
        };
        let of_gpu = Roofline::new(&LLAMA_3_8B, BF16, BF16, &gpu.drawn(|| 0.5), 2, 64).unwrap();
        assert_eq!(drawn.step(&load), of_gpu.step(&load));
        assert_ne!(drawn.step(&load), model.step(&load));
    }
}
