use hyper::HeaderMap;
use hyper::header::HeaderValue;

use super::*;
use crate::exchange::Connection;

const PATIENCE: Patience = Patience {
    connect_ns: None,
    first_output_ns: Some(100),
    stall_ns: Some(30),
    total_ns: Some(500),
};

const TEXT: &[u8] = b"data: {\"choices\":[{\"text\":\"a\"}]}\n\n";

fn answer() -> Answer {
    Answer::to(true, Connection::Reused, 1000)
}

fn headed() -> Answer {
    let mut answer = answer();
    let mut headers = HeaderMap::new();
    headers.insert(
        "content-type",
        HeaderValue::from_static("text/event-stream"),
    );
    answer.take_head(200, &headers, 1010, std::time::SystemTime::now);
    answer
}

#[test]
fn without_patience_for_anything_it_waits_for_ever() {
    assert_eq!(next(&Patience::default(), &headed()), None);
}

#[test]
fn silence_is_no_stall_before_the_answer_begins() {
    assert_eq!(next(&PATIENCE, &answer()), Some((1100, Stop::TimedOut)));
    assert_eq!(next(&PATIENCE, &headed()), Some((1040, Stop::Stalled)));
}

#[test]
fn each_piece_puts_the_stall_off_and_the_first_output_has_come_once() {
    let mut answer = headed();
    answer.take(b": a comment is a sign of life\n\n", 1090);
    assert_eq!(next(&PATIENCE, &answer), Some((1100, Stop::TimedOut)));
    answer.take(TEXT, 1095);
    assert_eq!(next(&PATIENCE, &answer), Some((1125, Stop::Stalled)));
    answer.take(TEXT, 1480);
    assert_eq!(next(&PATIENCE, &answer), Some((1500, Stop::TimedOut)));
}

#[test]
fn an_answer_that_is_done_does_not_linger() {
    let mut answer = headed();
    answer.take(b"data: [DONE]\n\n", 1020);
    let linger = Some((1020 + LINGER_NS, Stop::End));
    assert_eq!(next(&Patience::default(), &answer), linger);
}
