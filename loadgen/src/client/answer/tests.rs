use std::time::SystemTime;

use hyper::header::HeaderValue;

use super::*;
use crate::exchange::Usage;

const EVENTS: &[(&str, &str)] = &[("content-type", "text/event-stream; charset=utf-8")];
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// What comes of an answer in these pieces, a millisecond each.
fn answer(
    is_streamed: bool,
    status: u16,
    headers: &[(&'static str, &str)],
    pieces: &[&str],
    stop: Stop,
) -> Exchange {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let mut answer = Answer::to(is_streamed, Connection::Reused, 1_000_000);
    answer.take_head(status, &map, 2_000_000, || SystemTime::UNIX_EPOCH);
    for (piece, at) in pieces.iter().zip(3..) {
        answer.take(piece.as_bytes(), at * 1_000_000);
    }
    answer.finish(stop, 99_000_000)
}

fn stream(pieces: &[&str], stop: Stop) -> Exchange {
    answer(true, 200, EVENTS, pieces, stop)
}

fn whole(body: &str) -> Exchange {
    answer(false, 200, JSON, &[body], Stop::End)
}

const ROLE: &str =
    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const TEXT: &str =
    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n";
const LAST: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn a_stream_tells_when_its_output_came_and_its_tokens() {
    let exchange = stream(
        &[ROLE, TEXT, &format!("{TEXT}{LAST}"), USAGE, DONE],
        Stop::End,
    );
    assert_eq!(exchange.ending, Ending::Complete);
    assert_eq!(
        (exchange.status, exchange.head_ns),
        (Some(200), Some(2_000_000))
    );
    assert_eq!(exchange.output_ns, [4_000_000, 5_000_000]);
    let usage = Usage {
        prompt_tokens: 3,
        completion_tokens: 2,
        cached_tokens: None,
    };
    assert_eq!(exchange.usage, Some(usage));
    assert_eq!(exchange.end_ns, 7_000_000);
}

#[test]
fn usage_that_grows_with_the_stream_counts_as_it_is_last() {
    let grown = USAGE.replace("\"completion_tokens\":2", "\"completion_tokens\":5");
    let exchange = stream(&[USAGE, TEXT, &grown, DONE], Stop::End);
    assert_eq!(exchange.usage.unwrap().completion_tokens, 5);
}

#[test]
fn done_is_the_end_whatever_the_connection_does_then() {
    for stop in [
        Stop::End,
        Stop::Truncated,
        Stop::Reset("gone".into()),
        Stop::Stalled,
    ] {
        let exchange = stream(&[TEXT, DONE], stop);
        assert_eq!(
            (exchange.ending, exchange.end_ns),
            (Ending::Complete, 4_000_000)
        );
    }
}

#[test]
fn without_done_a_stream_is_complete_if_it_was_finished_and_ended_in_good_order() {
    assert_eq!(stream(&[TEXT, LAST], Stop::End).ending, Ending::Complete);
    assert_eq!(
        stream(&[TEXT, LAST], Stop::Truncated).ending,
        Ending::Truncated
    );
    assert_eq!(stream(&[TEXT], Stop::End).ending, Ending::Truncated);
    assert_eq!(stream(&[], Stop::End).ending, Ending::Truncated);
    // Its last event has no empty line, so that it never was.
    assert_eq!(
        stream(&[TEXT, LAST.trim_end()], Stop::End).ending,
        Ending::Truncated
    );
}

#[test]
fn what_fails_within_keeps_what_came_before_and_is_of_its_time() {
    let exchange = stream(&[TEXT, TEXT], Stop::Reset("gone".into()));
    let message = "gone".into();
    assert_eq!(exchange.ending, Ending::Reset { message });
    assert_eq!(exchange.output_ns.len(), 2);
    assert_eq!(exchange.end_ns, 99_000_000);
    assert_eq!(stream(&[TEXT], Stop::Stalled).ending, Ending::Stalled);
    assert_eq!(stream(&[TEXT], Stop::TimedOut).ending, Ending::TimedOut);
    assert_eq!(stream(&[TEXT], Stop::Cancelled).ending, Ending::Cancelled);
}

#[test]
fn an_error_within_a_stream_is_its_ending_even_if_done_follows() {
    let error = "data: {\"error\":{\"message\":\"out of memory\",\"code\":500}}\n\n";
    let exchange = stream(&[TEXT, error, DONE], Stop::End);
    let message = "out of memory".into();
    assert_eq!(exchange.ending, Ending::Error { message });
    let named = "event: error\ndata: overloaded\n\n";
    let message = "overloaded".into();
    assert_eq!(
        stream(&[named], Stop::End).ending,
        Ending::Error { message }
    );
}

#[track_caller]
fn garbage(exchange: Exchange) -> String {
    match exchange.ending {
        Ending::Garbage { message } => message,
        ending => panic!("{ending:?}"),
    }
}

#[test]
fn what_is_no_stream_of_openais_is_garbage_and_shows_its_beginning() {
    insta::assert_snapshot!(
        garbage(stream(&["data: oops\n\n"], Stop::End)),
        @"an event that is no JSON object: oops"
    );
    insta::assert_snapshot!(
        garbage(stream(&["<html>hello"], Stop::End)),
        @"what was to be a stream of events has none with `choices`"
    );
    insta::assert_snapshot!(
        garbage(stream(&[DONE], Stop::End)),
        @"a stream in which no event has `choices`"
    );
    let html = [("content-type", "text/html")];
    insta::assert_snapshot!(
        garbage(answer(true, 200, &html, &["<html>", "hello"], Stop::End)),
        @"text/html, which was not asked for: <html>hello"
    );
    let zipped = [("content-encoding", "gzip")];
    insta::assert_snapshot!(
        garbage(answer(true, 200, &zipped, &["?"], Stop::End)),
        @"a body in the encoding gzip, which was not asked for: ?"
    );
}

#[test]
fn an_error_in_place_of_a_stream_is_an_error() {
    let body = "{\"error\":{\"message\":\"no such model\"}}";
    let exchange = answer(true, 200, JSON, &[body], Stop::End);
    let message = "no such model".into();
    assert_eq!(exchange.ending, Ending::Error { message });
}

#[test]
fn a_whole_answer_is_one_output_when_all_of_it_is_there() {
    let (first, second) = (
        "{\"choices\":[{\"text\":\"a\"}],",
        "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}",
    );
    let exchange = answer(false, 200, JSON, &[first, second], Stop::End);
    assert_eq!(exchange.ending, Ending::Complete);
    assert_eq!(exchange.output_ns, [4_000_000]);
    assert_eq!(exchange.usage.unwrap().completion_tokens, 2);
    let cut = answer(false, 200, JSON, &[first], Stop::Truncated);
    assert_eq!((cut.ending, cut.output_ns.len()), (Ending::Truncated, 0));
}

#[test]
fn a_whole_answer_in_another_form_is_garbage() {
    insta::assert_snapshot!(garbage(whole("oops")), @"an answer that is not JSON: oops");
    insta::assert_snapshot!(garbage(whole("{\"ok\":1}")), @"an answer without `choices`: {\"ok\":1}");
    let message = "no".into();
    assert_eq!(
        whole("{\"error\":\"no\"}").ending,
        Ending::Error { message }
    );
}

#[track_caller]
fn refusal(status: u16, headers: &[(&'static str, &str)], body: &str) -> String {
    match answer(true, status, headers, &[body], Stop::End).ending {
        Ending::Refused { message } => message,
        ending => panic!("{ending:?}"),
    }
}

#[test]
fn a_refusal_tells_the_servers_message() {
    let openai = "{\"error\":{\"message\":\"slow down\",\"type\":\"rate_limit\"}}";
    assert_eq!(refusal(429, JSON, openai), "slow down");
    assert_eq!(
        refusal(400, JSON, "{\"object\":\"error\",\"message\":\"bad\"}"),
        "bad"
    );
    assert_eq!(
        refusal(404, JSON, "{\"detail\":\"Not Found\"}"),
        "Not Found"
    );
    assert_eq!(refusal(502, &[], " bad gateway\n"), "bad gateway");
    insta::assert_snapshot!(
        refusal(307, &[("location", "/elsewhere")], ""),
        @"points to /elsewhere, which is not followed: set the base URL to where the endpoint is"
    );
}

#[test]
fn a_refusal_is_one_even_if_its_body_is_cut_short() {
    let cut = answer(
        true,
        503,
        &[("retry-after", "2")],
        &["over"],
        Stop::Truncated,
    );
    let message = "over".into();
    assert_eq!(cut.ending, Ending::Refused { message });
    assert_eq!(cut.retry_after_ns, Some(2_000_000_000));
}
