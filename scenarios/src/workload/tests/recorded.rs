//! The recorded traces against their data sheet.

use foresail_core::time::SECOND;

use super::*;
use crate::workload::testing::{shared, trace};

#[test]
fn azure_has_the_statistics_of_its_data_sheet() {
    let Some(path) = shared("data/traces/azure2023/AzureLLMInferenceTrace_conv.csv") else {
        return;
    };
    let found = stats(&trace(path));
    assert_eq!(found.requests, 19_366);
    assert_eq!(found.span / (SECOND / 10), 35_017);
    let near = |found: Option<f64>, expected: f64, tolerance: f64| {
        assert!(
            (found.unwrap() - expected).abs() < tolerance,
            "{found:?}, expected {expected}"
        );
    };
    near(found.rate_per_s_mean, 5.53, 0.005);
    near(found.interarrival_cv, 1.094, 0.0005);
    near(found.dispersion_1_s, 1.39, 0.02);
    near(found.dispersion_10_s, 3.9, 0.1);
    near(found.dispersion_60_s, 16.1, 0.5);
    near(Some(found.rate_per_s_60_s_max), 8.45, 0.005);
    assert_eq!(found.requests_in_1_s_max, 16);
    near(Some(found.prompt_tokens.mean), 1154.7, 0.05);
    near(Some(found.output_tokens.mean), 211.1, 0.05);
    let LengthStats {
        p50, p90, p99, max, ..
    } = found.prompt_tokens;
    // The data sheet interpolates between 2734 and 2735.
    assert_eq!([p50, p90, p99, max], [1020, 2735, 4142, 14_050]);
    let LengthStats {
        p50, p90, p99, max, ..
    } = found.output_tokens;
    assert_eq!([p50, p90, p99, max], [129, 424, 601, 1000]);
    assert_eq!(found.requests_with_prefix, 0);
}

#[test]
fn mooncake_has_the_statistics_of_its_data_sheet() {
    let Some(path) = shared("data/traces/mooncake/conversation_trace.jsonl") else {
        return;
    };
    let found = stats(&trace(&path));
    assert_eq!((found.requests, found.span / SECOND), (12_031, 3_536));
    assert!((found.rate_per_s_mean.unwrap() - 3.40).abs() < 0.005);
    assert_eq!(found.requests_in_1_s_max, 28);
    assert!((found.prompt_tokens.mean - 12_035.0).abs() < 0.5);
    assert!((found.output_tokens.mean - 342.6).abs() < 0.05);
    let LengthStats {
        p50,
        p90,
        p99,
        min,
        max,
        ..
    } = found.prompt_tokens;
    assert_eq!(
        [p50, p90, p99, min, max],
        [6909, 27_367, 85_401, 891, 126_195]
    );
    let LengthStats {
        p50,
        p90,
        p99,
        min,
        max,
        ..
    } = found.output_tokens;
    assert_eq!([p50, p90, p99, min, max], [350, 597, 1120, 1, 2000]);
    assert_eq!(found.requests_with_prefix, 12_031);

    let source = TraceSource {
        timestamps: Timestamps::Spread,
        ..TraceSource::new(path)
    };
    let spread = stats(&workload(Source::Trace(source)));
    assert_eq!(spread.requests, 12_031);
    // Bursts of a 3 s tick make it 7.9 as recorded.
    assert!(
        spread.dispersion_1_s.unwrap() < 1.5,
        "{:?}",
        spread.dispersion_1_s
    );
    assert!(
        (spread.dispersion_60_s.unwrap() - 2.9).abs() < 0.5,
        "{:?}",
        spread.dispersion_60_s
    );
}
