//! What a client meets at the mock endpoint, through plain sockets.
//!
//! Times are only asserted from below: an answer that comes too early is wrong on
//! any machine, one that comes late is not.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use foresail_mock_endpoint::{
    Behaviour, Fault, Garbage, KeepAlive, MockEndpoint, Outage, OutageKind, Rule, Stats, When,
    Writes, prompt_hash,
};

/// Nothing here takes longer, so whoever waits longer waits in vain.
const PATIENCE: Duration = Duration::from_secs(20);

const STREAMED: &str =
    r#"{"prompt":"hello","max_tokens":3,"stream":true,"stream_options":{"include_usage":true}}"#;

fn quick() -> Behaviour {
    Behaviour {
        ttft: Duration::from_millis(2),
        itl: Duration::from_millis(1),
        ..Behaviour::default()
    }
}

fn failing(fault: Fault) -> Behaviour {
    Behaviour {
        rules: vec![Rule {
            fault,
            when: When::First(1),
        }],
        ..quick()
    }
}

/// A client with one connection.
struct Client(TcpStream);

/// An answer: its head, and its body without the framing of chunks.
#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl Client {
    fn connect(mock: &MockEndpoint) -> Self {
        let stream = TcpStream::connect(mock.address()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self(stream)
    }

    fn send(&mut self, path: &str, body: &str) {
        let length = body.len();
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: mock\r\ncontent-length: {length}\r\n\r\n{body}");
        self.0.write_all(request.as_bytes()).expect("it is taken");
    }

    fn get(&mut self, path: &str) -> io::Result<Answer> {
        write!(self.0, "GET {path} HTTP/1.1\r\nhost: mock\r\n\r\n")?;
        self.answer()
    }

    fn ask(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        self.send(path, body);
        self.answer()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn exactly(&mut self, length: usize) -> io::Result<String> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let mut head = String::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            head.push_str(&line);
            head.push('\n');
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let body = match length {
            Some(length) => self.exactly(length.parse().expect("a number"))?,
            None => self.chunks()?,
        };
        Ok(Answer { head, body })
    }

    fn chunks(&mut self) -> io::Result<String> {
        let mut body = String::new();
        loop {
            let size = self.line()?;
            let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
            body.push_str(&self.exactly(size)?);
            self.line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Everything until the end of the connection, and how it ended.
    fn rest(&mut self) -> (String, io::Result<()>) {
        let mut bytes = Vec::new();
        let end = self.0.read_to_end(&mut bytes).map(|_| ());
        (String::from_utf8_lossy(&bytes).into_owned(), end)
    }
}

fn start(behaviour: Behaviour) -> MockEndpoint {
    MockEndpoint::start(behaviour).expect("there is a port")
}

/// Waits until the mock has seen what the test did.
fn until(mock: &MockEndpoint, is_so: impl Fn(&Stats) -> bool) -> Stats {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = mock.stats();
        if is_so(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn output_events(body: &str) -> usize {
    body.matches("\"text\":\" token").count()
}

#[test]
fn a_stream_carries_its_tokens_its_usage_and_its_end() {
    let mock = start(quick());
    let answer = Client::connect(&mock)
        .ask("/v1/completions", STREAMED)
        .expect("an answer");
    assert!(answer.head.starts_with("HTTP/1.1 200 OK\n"));
    let choice = |reason| {
        format!(
            "data: {{\"id\":\"cmpl-mock\",\"object\":\"text_completion\",\"created\":0,\"model\":\"mock\",\
             \"choices\":[{{\"index\":0,\"text\":\" token\",\"logprobs\":null,\"finish_reason\":{reason}}}]}}\n\n"
        )
    };
    let usage = "data: {\"id\":\"cmpl-mock\",\"object\":\"text_completion\",\"created\":0,\"model\":\"mock\",\
                 \"choices\":[],\"usage\":{\"prompt_tokens\":2,\"total_tokens\":5,\"completion_tokens\":3}}\n\n";
    let expected = format!(
        "{}{}{}{usage}data: [DONE]\n\n",
        choice("null"),
        choice("null"),
        choice("\"length\"")
    );
    assert_eq!(answer.body, expected);
    let stats = mock.stop();
    assert_eq!((stats.requests, stats.answers, stats.tokens), (1, 1, 3));
    assert_eq!((stats.abandoned, stats.running), (0, 0));
}

#[test]
fn tokens_come_when_they_are_due_and_not_before() {
    let (ttft, itl) = (Duration::from_millis(30), Duration::from_millis(10));
    let mock = start(Behaviour {
        ttft,
        itl,
        is_head_early: true,
        ..Behaviour::default()
    });
    let mut client = Client::connect(&mock);
    let sent = Instant::now();
    client.send("/v1/completions", STREAMED);
    while !client.line().expect("a head").is_empty() {}
    for chunk in 0..3 {
        let size = client.line().expect("a size");
        let early = (ttft + itl * chunk).saturating_sub(sent.elapsed());
        assert!(early.is_zero(), "chunk {chunk} is {early:?} early");
        let size = usize::from_str_radix(&size, 16).expect("a size");
        client.exactly(size + 2).expect("an event");
    }
    assert_eq!(mock.stats().writes, 4, "one of the head, three of tokens");
}

#[test]
fn an_answer_that_is_no_stream_comes_when_its_last_token_is_due() {
    let mock = start(quick());
    let begun = Instant::now();
    let answer = Client::connect(&mock)
        .ask("/v1/completions", r#"{"prompt":[1,2,3,4],"max_tokens":5}"#)
        .expect("an answer");
    assert!(begun.elapsed() >= Duration::from_millis(2 + 4));
    assert!(answer.head.contains("content-type: application/json\n"));
    assert!(
        answer
            .body
            .contains(r#""usage":{"prompt_tokens":4,"total_tokens":9,"completion_tokens":5}"#)
    );
}

#[test]
fn a_chat_may_tell_its_role_first_and_several_tokens_a_chunk() {
    let mock = start(Behaviour {
        tokens_per_chunk: 4,
        is_role_first: true,
        ..quick()
    });
    let body = r#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":10,"stream":true}"#;
    let answer = Client::connect(&mock)
        .ask("/v1/chat/completions", body)
        .expect("an answer");
    let events: Vec<_> = answer.body.split_terminator("\n\n").collect();
    assert_eq!(events.len(), 5, "a role, 4 + 4 + 2 tokens, [DONE]");
    assert!(events[0].contains(r#""delta":{"role":"assistant","content":""}"#));
    assert!(events[1].contains(r#""delta":{"content":" token token token token"}"#));
    assert!(events[3].contains(r#""delta":{"content":" token token"}"#));
    assert!(!answer.body.contains("usage"), "nobody asked for it");
}

#[test]
fn connections_are_kept_and_what_they_carried_is_remembered() {
    let mock = start(Behaviour {
        keeps_bodies: true,
        ..quick()
    });
    let mut client = Client::connect(&mock);
    for _ in 0..2 {
        client.ask("/v1/completions", STREAMED).expect("an answer");
    }
    let received = mock.received();
    assert_eq!(received.len(), 2);
    assert_eq!(
        received.iter().map(|it| it.is_reused).collect::<Vec<_>>(),
        [false, true]
    );
    assert!(received[0].at <= received[1].at);
    assert_eq!(received[0].prompt_hash, prompt_hash("hello"));
    assert_eq!(received[0].max_tokens, Some(3));
    assert_eq!(received[1].body.as_deref(), Some(STREAMED.as_bytes()));
    let stats = mock.stats();
    assert_eq!((stats.connections_accepted, stats.requests_reused), (1, 1));
}

#[test]
fn connections_end_as_they_are_told_to() {
    let mock = start(Behaviour {
        keep_alive: KeepAlive::Requests(2),
        ..quick()
    });
    let mut client = Client::connect(&mock);
    let says_close =
        |answer: io::Result<Answer>| answer.expect("one").head.contains("connection: close\n");
    assert!(!says_close(client.ask("/v1/completions", STREAMED)));
    assert!(says_close(client.ask("/v1/completions", STREAMED)));
    assert_eq!(client.rest().0, "");

    mock.set(Behaviour {
        keep_alive: KeepAlive::RequestsUnannounced(1),
        ..quick()
    });
    let mut client = Client::connect(&mock);
    assert!(!says_close(client.ask("/v1/completions", STREAMED)));
    assert_eq!(client.rest().0, "");

    mock.set(Behaviour {
        keep_alive: KeepAlive::Idle(Duration::from_millis(20)),
        ..quick()
    });
    let mut client = Client::connect(&mock);
    assert!(!says_close(client.ask("/v1/completions", STREAMED)));
    let idle = Instant::now();
    assert_eq!(client.rest().0, "");
    assert!(idle.elapsed() >= Duration::from_millis(15));
}

#[test]
fn answers_break_off_where_they_are_told_to() {
    let reset = Err(io::ErrorKind::ConnectionReset);
    let cases = [
        (Fault::ResetBeforeHead, 0, reset),
        (Fault::ResetMidHead, 0, reset),
        (Fault::ResetAfter(0), 0, reset),
        (Fault::ResetAfter(2), 2, reset),
        (Fault::CloseBeforeHead, 0, Ok(())),
        (Fault::CloseAfter(2), 2, Ok(())),
        (Fault::CloseAfter(3), 3, Ok(())),
    ];
    for (fault, chunks, end) in cases {
        let mock = start(failing(fault.clone()));
        let mut client = Client::connect(&mock);
        client.send("/v1/completions", STREAMED);
        let (bytes, ended) = client.rest();
        assert_eq!(ended.map_err(|error| error.kind()), end, "{fault:?}");
        assert_eq!(output_events(&bytes), chunks, "{fault:?}");
        assert!(!bytes.contains("[DONE]"), "{fault:?}");
        assert_eq!(mock.received()[0].fault, Some(fault));
        // Only the first was to fail.
        let next = Client::connect(&mock).ask("/v1/completions", STREAMED);
        assert!(next.expect("an answer").body.contains("[DONE]"));
    }
}

#[test]
fn a_stream_may_end_without_its_mark_or_with_an_error() {
    let mock = start(failing(Fault::EndWithoutDone(2)));
    let answer = Client::connect(&mock).ask("/v1/completions", STREAMED);
    let body = answer.expect("an answer").body;
    assert_eq!(output_events(&body), 2);
    assert!(!body.contains("[DONE]") && !body.contains("usage"));

    let mock = start(failing(Fault::ErrorEvent(1)));
    let answer = Client::connect(&mock).ask("/v1/completions", STREAMED);
    let body = answer.expect("an answer").body;
    assert_eq!(output_events(&body), 1);
    assert!(body.contains("data: {\"error\":{\"message\":"));
}

#[test]
fn refusals_say_when_to_come_back() {
    let mock = start(failing(Fault::Status {
        status: 429,
        retry_after_s: Some(3),
    }));
    let mut client = Client::connect(&mock);
    let answer = client.ask("/v1/completions", STREAMED).expect("an answer");
    assert!(answer.head.starts_with("HTTP/1.1 429 Too Many Requests\n"));
    assert!(answer.head.contains("retry-after: 3\n"));
    assert!(answer.body.starts_with("{\"error\":{\"message\":"));
    // The connection is still good.
    client.ask("/v1/completions", STREAMED).expect("an answer");
}

#[test]
fn garbage_is_what_it_says() {
    let answer_of = |garbage| {
        let mock = start(failing(Fault::Garbage(garbage)));
        let mut client = Client::connect(&mock);
        client.send("/v1/completions", STREAMED);
        client.answer()
    };
    assert!(answer_of(Garbage::NotHttp).is_err());
    assert!(answer_of(Garbage::BadChunkSize).is_err());
    let html = answer_of(Garbage::Html).expect("an answer");
    assert!(html.body.contains("<!DOCTYPE html>"));
    let broken = answer_of(Garbage::BadJson).expect("an answer").body;
    let data = broken.lines().next().expect("a line");
    let json = data.strip_prefix("data: ").expect("data");
    assert!(serde_json::from_str::<serde_json::Value>(json).is_err());
    let other = answer_of(Garbage::OtherJson).expect("an answer").body;
    assert!(other.starts_with("data: {\"hello\""));
}

#[test]
fn what_never_answers_keeps_its_connection_until_the_client_gives_up() {
    let mock = start(failing(Fault::NeverAnswer));
    let mut client = Client::connect(&mock);
    client.send("/v1/completions", STREAMED);
    client
        .0
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout");
    let ended = client.rest().1.map_err(|error| error.kind());
    assert!(matches!(
        ended,
        Err(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
    ));
    assert_eq!(mock.stats().running, 1);
    drop(client);
    let stats = until(&mock, |stats| stats.connections_open == 0);
    assert_eq!((stats.abandoned, stats.running), (1, 0));
}

#[test]
fn one_stream_stalls_and_others_do_not() {
    let lasts = Duration::from_millis(300);
    let mock = start(failing(Fault::Stall {
        after_chunks: 1,
        lasts,
    }));
    let begun = Instant::now();
    let mut stalled = Client::connect(&mock);
    stalled.send("/v1/completions", STREAMED);
    until(&mock, |stats| stats.requests == 1);
    let other = Client::connect(&mock).ask("/v1/completions", STREAMED);
    assert_eq!(output_events(&other.expect("an answer").body), 3);
    assert_eq!(mock.stats().running, 1, "the stalled one is still going on");
    let answer = stalled.answer().expect("an answer");
    assert_eq!(output_events(&answer.body), 3);
    assert!(begun.elapsed() >= lasts);
}

#[test]
fn a_frozen_server_goes_on_where_it_was() {
    let frozen = Duration::from_millis(200);
    let mock = start(Behaviour {
        outages: vec![Outage {
            kind: OutageKind::Frozen,
            from: Duration::ZERO,
            until: frozen,
        }],
        ..quick()
    });
    let mut client = Client::connect(&mock);
    let answer = client.ask("/v1/completions", STREAMED).expect("an answer");
    assert_eq!(output_events(&answer.body), 3);
    // Read when it thawed, and answered at its pace from there.
    let thawed = mock.started() + frozen;
    assert!(thawed.elapsed() >= Duration::from_millis(2 + 2));
    assert!(mock.received()[0].at >= frozen);
}

#[test]
fn a_server_that_refuses_lets_open_connections_go_on_and_comes_back() {
    let mock = start(quick());
    let mut open = Client::connect(&mock);
    open.ask("/v1/completions", STREAMED).expect("an answer");
    let outage = |kind| Behaviour {
        outages: vec![Outage {
            kind,
            from: Duration::ZERO,
            until: Duration::MAX,
        }],
        ..quick()
    };
    mock.set(outage(OutageKind::Refusing));
    refused(&mock);
    open.ask("/v1/completions", STREAMED).expect("an answer");

    mock.set(outage(OutageKind::Dead));
    refused(&mock);
    let ended = open.rest().1.map_err(|error| error.kind());
    assert_eq!(ended, Err(io::ErrorKind::ConnectionReset));

    mock.set(quick());
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(mock.address()).is_err() {
        assert!(Instant::now() < deadline, "it does not listen again");
        std::thread::sleep(Duration::from_millis(1));
    }
    let again = Client::connect(&mock).ask("/v1/completions", STREAMED);
    again.expect("an answer");
}

/// Waits until connections are refused, which happens a moment after the mock was told.
fn refused(mock: &MockEndpoint) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(mock.address()).is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn bytes_and_bunches_say_the_same_as_whole_events() {
    let body_with = |writes| {
        let mut behaviour = quick();
        behaviour.events.writes = writes;
        let mock = start(behaviour);
        let answer = Client::connect(&mock).ask("/v1/completions", STREAMED);
        (answer.expect("an answer").body, mock.stop().writes)
    };
    let (whole, writes) = body_with(Writes::Whole);
    assert_eq!(writes, 3);
    assert_eq!(body_with(Writes::Bytes), (whole.clone(), 3));
    assert_eq!(body_with(Writes::Together(2)), (whole, 2));
}

#[test]
fn an_answer_longer_than_the_system_takes_comes_whole() {
    let mock = start(Behaviour {
        ttft: Duration::ZERO,
        itl: Duration::ZERO,
        ..Behaviour::default()
    });
    let mut client = Client::connect(&mock);
    client.send(
        "/v1/completions",
        r#"{"prompt":"a","max_tokens":100000,"stream":true}"#,
    );
    // The client does not read before the mock has written all that it can.
    until(&mock, |stats| stats.tokens == 100_000);
    let answer = client.answer().expect("an answer");
    assert_eq!(output_events(&answer.body), 100_000);
    assert!(answer.body.ends_with("data: [DONE]\n\n"));
    client.ask("/v1/completions", STREAMED).expect("an answer");
}

#[test]
fn other_pages_are_there() {
    let mock = start(quick());
    let mut client = Client::connect(&mock);
    client.ask("/v1/completions", STREAMED).expect("an answer");
    let models = client.get("/v1/models").expect("an answer").body;
    let models: serde_json::Value = serde_json::from_str(&models).expect("JSON");
    assert_eq!(models["data"][0]["id"], "mock");
    assert_eq!(client.get("/health").expect("an answer").body, "");
    let metrics = client.get("/metrics").expect("an answer").body;
    assert!(metrics.contains("vllm:generation_tokens_total{model_name=\"mock\"} 3\n"));
    assert!(metrics.contains("vllm:prompt_tokens_total{model_name=\"mock\"} 2\n"));
    let wrong = client.get("/nothing").expect("an answer");
    assert!(wrong.head.starts_with("HTTP/1.1 404"));
    assert_eq!(mock.stats().requests, 1, "only completions count");
}

#[test]
fn a_client_that_leaves_is_noticed() {
    let mock = start(Behaviour {
        ttft: PATIENCE,
        ..quick()
    });
    let mut client = Client::connect(&mock);
    client.send("/v1/completions", STREAMED);
    until(&mock, |stats| stats.running == 1);
    drop(client);
    let stats = until(&mock, |stats| stats.running == 0);
    assert_eq!((stats.abandoned, stats.answers), (1, 0));
}
