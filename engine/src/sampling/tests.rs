//! What the sampler promises to those who use it.

use proptest::prelude::*;

use super::{Context, SampleError, Sampled, Sampling, Scratch, sample};

/// A token from these logits, with nothing before it.
fn first(logits: &[f32], sampling: &Sampling) -> u32 {
    nth(logits, sampling, &[]).token
}

/// The token after these.
fn nth(logits: &[f32], sampling: &Sampling, generated: &[u32]) -> Sampled {
    let context = Context {
        sampling,
        prompt: &[],
        generated,
        banned: &[],
    };
    sample(logits, &context, &mut Scratch::default()).unwrap()
}

/// How often each token is drawn at `draws` places of one output.
fn counts(logits: &[f32], sampling: &Sampling, draws: usize) -> Vec<u32> {
    let generated = vec![0; draws];
    let mut scratch = Scratch::default();
    let mut counts = vec![0; logits.len()];
    for place in 0..draws {
        let context = Context {
            sampling,
            prompt: &[],
            generated: &generated[..place],
            banned: &[],
        };
        let token = sample(logits, &context, &mut scratch).unwrap().token;
        counts[token as usize] += 1;
    }
    counts
}

/// The distribution that is to be drawn from, by its definition: everything sorted, in f64.
fn distribution(logits: &[f32], sampling: &Sampling) -> Vec<f64> {
    let scaled = |logit: f32| f64::from(logit) / f64::from(sampling.temperature);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let mut weights: Vec<f64> = logits
        .iter()
        .map(|&logit| libm::exp(scaled(logit)))
        .collect();
    let least = weights[order[0]] * f64::from(sampling.min_p);
    let top_k = match sampling.top_k {
        0 => usize::MAX,
        count => count as usize,
    };
    for (rank, &token) in order.iter().enumerate() {
        if rank >= top_k || weights[token] < least {
            weights[token] = 0.0;
        }
    }
    let needed = weights.iter().sum::<f64>() * f64::from(sampling.top_p);
    let mut mass = 0.0;
    for &token in &order {
        let likelier = mass;
        mass += weights[token];
        if likelier >= needed {
            weights[token] = 0.0;
        }
    }
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

/// Pearson's chi-squared of what was drawn; checks that nothing impossible was.
fn chi_squared(counts: &[u32], probabilities: &[f64]) -> (f64, usize) {
    let draws: u32 = counts.iter().sum();
    let mut statistic = 0.0;
    let mut possible: usize = 0;
    for (&count, &probability) in counts.iter().zip(probabilities) {
        if probability == 0.0 {
            assert_eq!(count, 0, "a token that was filtered out was drawn");
            continue;
        }
        let expected = probability * f64::from(draws);
        statistic += (f64::from(count) - expected).powi(2) / expected;
        possible += 1;
    }
    (statistic, possible - 1)
}

/// A hundred thousand draws have the filtered distribution: chi-squared is within
/// four standard deviations (of the square root of twice the degrees of freedom) of its mean.
#[test]
fn draws_have_the_filtered_distribution() {
    let logits: Vec<f32> = (0..40)
        .map(|token| ((token * 7) % 40) as f32 / 12.0)
        .collect();
    let settings = [
        Sampling::default(),
        Sampling {
            temperature: 0.7,
            ..Sampling::default()
        },
        Sampling {
            top_k: 12,
            temperature: 1.5,
            ..Sampling::default()
        },
        Sampling {
            top_p: 0.8,
            ..Sampling::default()
        },
        Sampling {
            min_p: 0.2,
            ..Sampling::default()
        },
        Sampling {
            min_p: 0.05,
            top_k: 30,
            top_p: 0.9,
            temperature: 1.3,
            ..Sampling::default()
        },
        Sampling {
            min_p: 0.1,
            top_p: 0.7,
            ..Sampling::default()
        },
    ];
    for (seed, sampling) in settings.into_iter().enumerate() {
        let sampling = Sampling {
            seed: seed as u64,
            ..sampling
        };
        let (statistic, freedom) = chi_squared(
            &counts(&logits, &sampling, 100_000),
            &distribution(&logits, &sampling),
        );
        let limit = freedom as f64 + 4.0 * (2.0 * freedom as f64).sqrt();
        assert!(statistic < limit, "{statistic} of {freedom}: {sampling:?}");
    }
}

/// The method is part of what a seed means: changing it is a change that users
/// see. These tokens were found by the definition, in another language.
#[test]
fn seeds_keep_their_meaning() {
    let logits: Vec<f32> = (0..1000)
        .map(|token| ((token * 37) % 101) as f32 / 25.0)
        .collect();
    let tokens = |sampling: Sampling| {
        let mut generated = Vec::new();
        while generated.len() < 8 {
            generated.push(nth(&logits, &sampling, &generated).token);
        }
        generated
    };
    let all = tokens(Sampling {
        seed: 1,
        ..Sampling::default()
    });
    let filtered = tokens(Sampling {
        seed: 1,
        top_k: 200,
        top_p: 0.5,
        ..Sampling::default()
    });
    let penalised = tokens(Sampling {
        seed: 2,
        presence_penalty: 1.0,
        ..Sampling::default()
    });
    assert_eq!(all, [897, 875, 556, 37, 665, 296, 122, 466]);
    assert_eq!(filtered, [898, 868, 554, 30, 655, 292, 120, 464]);
    assert_eq!(penalised, [497, 232, 974, 589, 33, 109, 322, 102]);
}

#[test]
fn a_place_has_its_number_whatever_was_there_before() {
    let logits = vec![0.0; 500];
    let sampling = Sampling {
        seed: 3,
        ..Sampling::default()
    };
    assert_eq!(
        nth(&logits, &sampling, &[1, 2]),
        nth(&logits, &sampling, &[400, 7])
    );
    let places: Vec<_> = [&[][..], &[0], &[0, 0], &[0, 0, 0]]
        .map(|generated| nth(&logits, &sampling, generated).token)
        .to_vec();
    assert!(
        places.windows(2).any(|pair| pair[0] != pair[1]),
        "{places:?}"
    );
}

#[test]
fn no_distribution_is_an_error() {
    let mut scratch = Scratch::default();
    for temperature in [0.0, 1.0] {
        let sampling = Sampling {
            temperature,
            ..Sampling::default()
        };
        let mut draw = |logits: &[f32], banned: &[u32]| {
            let context = Context {
                sampling: &sampling,
                prompt: &[],
                generated: &[],
                banned,
            };
            sample(logits, &context, &mut scratch).map(|sampled| sampled.token)
        };
        assert_eq!(
            draw(&[0.0, f32::NAN], &[1]),
            Err(SampleError::NotFinite { token: 1 })
        );
        assert_eq!(
            draw(&[f32::INFINITY, 0.0], &[]),
            Err(SampleError::NotFinite { token: 0 })
        );
        assert_eq!(
            draw(&[f32::NEG_INFINITY; 2], &[]),
            Err(SampleError::NothingLeft)
        );
        assert_eq!(draw(&[1.0, 2.0], &[0, 1]), Err(SampleError::NothingLeft));
        assert_eq!(draw(&[], &[]), Err(SampleError::NothingLeft));
        assert_eq!(draw(&[1.0, 2.0, 0.0], &[0, 1, 99]), Ok(2));
    }
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let logits = [1.0, 3.0, 2.0];
    let plain = Sampling {
        temperature: 0.0,
        logprobs: Some(2),
        ..Sampling::default()
    };
    let changed = Sampling {
        temperature: 0.5,
        top_k: 1,
        logit_bias: vec![(1, -100.0)],
        ..plain.clone()
    };
    let plain = nth(&logits, &plain, &[]).logprobs.unwrap();
    let changed = nth(&logits, &changed, &[]);
    assert_eq!((plain.token, plain.rank, changed.token), (1, 1, 2));
    let changed = changed.logprobs.unwrap();
    assert_eq!(changed.rank, 2);
    assert_eq!(changed.top, plain.top);
    assert_eq!(changed.logprob, plain.top[1].1);
}

/// Settings that are valid for a vocabulary of `vocab_size`.
fn any_sampling(vocab_size: u32) -> impl Strategy<Value = Sampling> {
    let filters = (0_u32..50, 0.01_f32..=1.0, 0.0_f32..=1.0);
    let penalties = (-2.0_f32..=2.0, -2.0_f32..=2.0, 0.1_f32..3.0);
    let biases = prop::collection::vec((0..vocab_size, -100.0_f32..=100.0), 0..4);
    let temperature = prop_oneof![Just(0.0_f32), 0.0_f32..2.0, Just(f32::MIN_POSITIVE)];
    (temperature, filters, penalties, biases, any::<u64>()).prop_map(
        |(temperature, (top_k, top_p, min_p), penalties, logit_bias, seed)| Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            presence_penalty: penalties.0,
            frequency_penalty: penalties.1,
            repetition_penalty: penalties.2,
            logit_bias,
            seed,
            logprobs: Some(3),
        },
    )
}

fn any_logits() -> impl Strategy<Value = Vec<f32>> {
    let coarse = (-20_i8..20).prop_map(f32::from);
    prop::collection::vec(prop_oneof![coarse, -30.0_f32..30.0], 60..300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// What a row was sampled beside, or after, does not show in it.
    #[test]
    fn a_row_is_sampled_as_if_alone(
        rows in prop::collection::vec((any_logits(), any_sampling(60)), 1..6),
        sequence in prop::collection::vec(0_u32..60, 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let (prompt, generated) = sequence.split_at(cut.index(sequence.len() + 1));
        let mut shared = Scratch::default();
        for (logits, sampling) in &rows {
            let context = Context { sampling, prompt, generated, banned: &[5] };
            let alone = sample(logits, &context, &mut Scratch::default());
            prop_assert_eq!(sample(logits, &context, &mut shared), alone.clone());
            prop_assert_ne!(alone.unwrap().token, 5);
        }
    }

    #[test]
    fn narrow_filters_are_greedy(logits in any_logits(), seed in any::<u64>(), temperature in 0.1_f32..2.0) {
        let base = Sampling { seed, temperature, ..Sampling::default() };
        let greedy = first(&logits, &Sampling { temperature: 0.0, ..base.clone() });
        prop_assert_eq!(first(&logits, &Sampling { top_k: 1, ..base.clone() }), greedy);
        prop_assert_eq!(first(&logits, &Sampling { top_p: 1e-9, ..base.clone() }), greedy);
        prop_assert_eq!(first(&logits, &Sampling { top_k: 20, top_p: 1e-9, ..base.clone() }), greedy);
        let likeliest = first(&logits, &Sampling { min_p: 1.0, ..base });
        prop_assert_eq!(logits[likeliest as usize], logits[greedy as usize]);
    }

    /// No token comes out that the definition of the filters excludes.
    #[test]
    fn draws_are_from_what_the_filters_leave(
        logits in any_logits(), sampling in any_sampling(60),
    ) {
        let sampling = Sampling {
            temperature: sampling.temperature.max(0.05),
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            ..sampling
        };
        // A hair's width of tolerance at the bars of min-p and top-p, which rounding may move.
        let wider = Sampling {
            min_p: sampling.min_p * 0.999,
            top_p: (sampling.top_p * 1.001).min(1.0),
            ..sampling.clone()
        };
        let token = first(&logits, &sampling) as usize;
        prop_assert!(distribution(&logits, &wider)[token] > 0.0);
    }

    #[test]
    fn a_bias_of_minus_100_bans(logits in any_logits(), seed in any::<u64>()) {
        let greedy = first(&logits, &Sampling { temperature: 0.0, ..Sampling::default() });
        for temperature in [0.0, 1.0] {
            let sampling = Sampling { temperature, seed, logit_bias: vec![(greedy, -100.0)], ..Sampling::default() };
            prop_assert_ne!(first(&logits, &sampling), greedy);
        }
    }

    /// A heavier penalty never makes a repeated token likelier.
    #[test]
    fn penalties_are_monotone(logits in any_logits(), light in 0.0_f32..2.0, more in 0.0_f32..2.0) {
        let repeated = first(&logits, &Sampling { temperature: 0.0, ..Sampling::default() });
        let settings = [
            |penalty: f32| Sampling { presence_penalty: penalty, ..Sampling::default() },
            |penalty: f32| Sampling { frequency_penalty: penalty, ..Sampling::default() },
            |penalty: f32| Sampling { repetition_penalty: 1.0 + penalty, ..Sampling::default() },
        ];
        for setting in settings {
            let chosen = |penalty: f32| {
                let sampling = Sampling { temperature: 0.0, ..setting(penalty) };
                nth(&logits, &sampling, &[repeated]).token == repeated
            };
            prop_assert!(chosen(light) || !chosen((light + more).min(2.0)));
        }
    }
}
