//! Adapters of requests, from traces and drawn.

use super::*;
use crate::workload::testing::{all, file, trace};

const HEADER: &str = "due_ns,prompt_tokens,output_tokens,session,group,shared_tokens,\
    content_session,block_tokens,block_ids,adapter\n";

const BLIS: &str = "request_id,input_tokens,output_tokens,arrival_time_us,adapter\n";

fn deployed(names: &[&str], mut workload: Workload) -> Workload {
    workload.adapters.deployed = Some(names.iter().map(|name| (*name).to_owned()).collect());
    workload
}

fn adapters(workload: &Workload) -> Vec<Option<u32>> {
    let requests = all(workload, 1).unwrap();
    requests.iter().map(|request| request.adapter).collect()
}

#[test]
fn a_trace_names_adapters_in_a_column() {
    let native = file(format!(
        "{HEADER}0,1,1,,,,,,,sql\n1,1,1,,,,,,,\n2,1,1,,,,,,,legal\n"
    ));
    let blis = file(format!("{BLIS}0,1,1,0,sql\n1,1,1,1,\n2,1,1,2,\"legal\"\n"));
    for file in [native, blis] {
        let by_itself = trace(file.path());
        assert_eq!(adapters(&by_itself), [Some(0), None, Some(1)]);
        let deployed = deployed(&["legal", "sql"], trace(file.path()));
        assert_eq!(adapters(&deployed), [Some(1), None, Some(0)]);
        let mut requests = by_itself.open(1).unwrap();
        assert!(requests.names_adapters());
        assert_eq!(requests.by_ref().count(), 3);
        let names = [0, 1, 2].map(|adapter| requests.adapter_name(adapter));
        assert_eq!(names, [Some("sql"), Some("legal"), None]);
    }
}

#[test]
fn an_adapter_that_is_not_deployed_is_an_error_with_its_place() {
    let file = file(format!("{HEADER}0,1,1,,,,,,,sql\n1,1,1,,,,,,,sq1\n"));
    let error = |names: &[&str]| {
        let workload = deployed(names, trace(file.path()));
        all(&workload, 1).unwrap_err().to_string()
    };
    let unknown = error(&["legal", "sql"]);
    let expected =
        ":3:13: adapter: expected one of the adapters that are deployed (legal, sql), found `sq1`";
    assert!(unknown.contains(expected), "{unknown}");
    assert!(
        error(&[])
            .contains(":2:13: adapter: expected nothing, because the scenario deploys no adapter")
    );
    let many: Vec<String> = (0..40).map(|index| format!("a{index}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(error(&many).contains("one of the 40 adapters that are deployed (a0, a1,"));
}

#[test]
fn a_trace_with_adapters_takes_no_mix() {
    let file = file(format!("{HEADER}0,1,1,,,,,,,sql\n"));
    let mut workload = deployed(&["sql"], trace(file.path()));
    workload.adapters.mix = Some(AdapterMix::zipf(1, 0.0, 0.0));
    let error = workload.open(1).unwrap_err().to_string();
    assert!(error.contains("the trace names adapters itself"), "{error}");
}

#[test]
fn a_trace_without_adapters_can_be_given_some() {
    let file = file(AZURE);
    let mut workload = deployed(&["sql"], trace(file.path()));
    assert_eq!(adapters(&workload), [None; 3]);
    workload.adapters.mix = Some(AdapterMix::zipf(1, 0.0, 0.0));
    assert_eq!(adapters(&workload), [Some(0); 3]);
    assert!(
        workload
            .describe()
            .ends_with(", for 1 adapter, equally often")
    );
}

/// Common random numbers: adapters move nothing else, and no slice moves them.
#[test]
fn adapters_have_a_random_stream_of_their_own() {
    for source in [generator(), conversations()] {
        let plain = generated(source);
        let mut mixed = deployed(&["a", "b", "c"], plain.clone());
        mixed.adapters.mix = Some(AdapterMix::zipf(3, 1.0, 0.2));
        let requests = all(&mixed, 5).unwrap();
        let without = requests.iter().cloned().map(|request| Request {
            adapter: None,
            ..request
        });
        assert!(without.eq(all(&plain, 5).unwrap()));
        let from = requests[100].due;
        let mut sliced = mixed.clone();
        sliced.transforms.slice = Some(Slice { from, to: None });
        let of_slice: Vec<_> = all(&sliced, 5).unwrap().iter().map(|r| r.adapter).collect();
        let first = requests
            .iter()
            .position(|request| request.due == from)
            .unwrap();
        let of_whole: Vec<_> = requests[first..].iter().map(|r| r.adapter).collect();
        assert_eq!(of_slice, of_whole);
    }
}

#[test]
fn conversations_stay_with_their_adapter_in_every_copy() {
    let mut workload = deployed(&["a", "b", "c"], generated(conversations()));
    workload.adapters.mix = Some(AdapterMix::zipf(3, 0.5, 0.1));
    workload.transforms.repeat = 2;
    let requests = all(&workload, 5).unwrap();
    let mut of_session = std::collections::BTreeMap::new();
    for request in &requests {
        let adapter = of_session.entry(request.session).or_insert(request.adapter);
        assert_eq!(*adapter, request.adapter);
    }
    let copies = requests.split_at(requests.len() / 2);
    let adapters = |copy: &[Request]| copy.iter().map(|r| r.adapter).collect::<Vec<_>>();
    assert_eq!(adapters(copies.0), adapters(copies.1));
}

#[test]
fn adapters_share_no_blocks() {
    let content = Content::Session {
        group: 1,
        shared_tokens: 64,
        session: 2,
    };
    let request = |adapter| Request {
        due: 0,
        prompt_tokens: 64,
        output_tokens: 1,
        session: None,
        adapter,
        content: content.clone(),
    };
    let hashes = [None, Some(0), Some(1)].map(|adapter| request(adapter).block_hash(0, 16));
    assert!(hashes.iter().all(Option::is_some));
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2]);
    assert_eq!(request(Some(1)).block_hash(0, 16), hashes[2]);
    assert_ne!(request(Some(0)).affinity(), request(Some(1)).affinity());
}
