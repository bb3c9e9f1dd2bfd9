//! What holds for every input.

use foresail_core::time::HOUR;
use proptest::prelude::*;

use super::*;
use crate::workload::testing::{all, file, trace};

fn any_content() -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::Unique),
        (any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(group, shared_tokens, session)| {
            Content::Session {
                group,
                shared_tokens,
                session,
            }
        }),
        (1..u32::MAX, proptest::collection::vec(any::<u64>(), 0..20)).prop_map(
            |(block_tokens, ids)| Content::Blocks {
                block_tokens,
                ids: ids.into()
            }
        ),
    ]
}

fn any_requests() -> impl Strategy<Value = Vec<Request>> {
    let request = (
        any::<u64>(),
        1..=u32::MAX,
        1..=u32::MAX,
        any::<Option<u64>>(),
        proptest::option::of(0..3_u32),
        any_content(),
    )
        .prop_map(
            |(due, prompt_tokens, output_tokens, session, adapter, content)| Request {
                due,
                prompt_tokens,
                output_tokens,
                session,
                adapter,
                content,
            },
        );
    proptest::collection::vec(request, 1..20).prop_map(|mut requests| {
        requests.sort_by_key(|request| request.due);
        requests
    })
}

fn any_generator() -> impl Strategy<Value = Generator> {
    let process = prop_oneof![
        Just(Process::Constant),
        Just(Process::Poisson),
        (0.01..20.0).prop_map(|cv| Process::Gamma { cv }),
        (0.01..20.0).prop_map(|cv| Process::Weibull { cv }),
    ];
    let shape = prop_oneof![
        Just(Shape::Steady),
        (1..HOUR, 0..HOUR, 0.0..2.0).prop_map(|(on, off, low_factor)| Shape::OnOff {
            on,
            off,
            low_factor
        }),
        (0.0..5.0, 1..HOUR).prop_map(|(to_factor, over)| Shape::Ramp { to_factor, over }),
        (0..HOUR, 0..HOUR, 0.0..50.0).prop_map(|(at, duration, factor)| Shape::Spike {
            at,
            duration,
            factor
        }),
        (1..24 * HOUR, 1.0..1000.0).prop_map(|(period, peak_to_trough)| Shape::Diurnal {
            period,
            peak_to_trough
        }),
    ];
    let sessions =
        proptest::option::of((1.0..10.0, 0.0..100.0).prop_map(|(turns, think)| Sessions {
            turns: Distribution::Fixed { value: turns },
            think_time_s: Distribution::Exponential { mean: think },
            groups: 2,
            shared_tokens: 10,
            max_context_tokens: Some(5_000),
        }));
    (process, shape, sessions, 0.001..1e6_f64).prop_map(|(process, shape, sessions, rate_per_s)| {
        let arrivals = Arrivals {
            process,
            rate_per_s,
        };
        Generator {
            arrivals,
            shape,
            sessions,
            requests: Some(500),
            ..generator()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_native_format_loses_nothing(requests in any_requests()) {
        let names = ["a", "b c", "d"].map(str::to_owned);
        let mut writer = NativeWriter::with_adapters(Vec::new()).unwrap();
        for request in &requests {
            let name = request.adapter.map(|adapter| names[adapter as usize].as_str());
            writer.write(request, name).unwrap();
        }
        let file = file(writer.finish().unwrap());
        prop_assert_eq!(TraceFormat::detect(file.path()).unwrap(), TraceFormat::Native);
        let mut trace = trace(file.path());
        trace.adapters.deployed = Some(names.into());
        prop_assert_eq!(all(&trace, 1).unwrap(), requests);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(
        format in 0..TraceFormat::ALL.len(),
        row in 0..8_usize,
        cut in 0..40_usize,
        noise in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let rows = [
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,2",
            "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,m,1,2,3,x",
            "arrived_at,num_prefill_tokens,num_decode_tokens\n1.5,3,4",
            "request_id,prefix_group,input_tokens,output_tokens,arrival_time_us\n1,g,\"3\",4,5",
            "{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [0]}",
            "due_ns,prompt_tokens,output_tokens,session,group,shared_tokens,content_session,block_tokens,block_ids\n0,1,1,,,,,1,1 2",
            "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,,1,m,1,2,3,x",
            "",
        ];
        let mut content = rows[row].as_bytes().to_vec();
        content.truncate(content.len().saturating_sub(cut));
        content.extend(&noise);
        let file = file(&content);
        let _ = all(&trace(file.path()), 1);
        let format = Some(TraceFormat::ALL[format]);
        let _ = all(&workload(Source::Trace(TraceSource { format, ..TraceSource::new(file.path()) })), 1);
    }

    #[test]
    fn due_times_never_decrease(generator in any_generator(), seed in any::<u64>()) {
        let requests = all(&generated(generator), seed).unwrap();
        prop_assert!(requests.is_sorted_by_key(|request| request.due));
        prop_assert!(requests.iter().all(|r| r.prompt_tokens > 0 && r.output_tokens > 0));
    }
}
