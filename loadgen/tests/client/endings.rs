//! One test for each way an exchange can end.

use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use foresail_loadgen::client::{Cancellation, Settings};
use foresail_loadgen::exchange::{Connection, Ending, Exchange, Patience, Usage};

use super::server::{DONE, END, EVENT, HEAD, LAST, Server, answer, chunk, stream};
use super::*;

/// What came of a request to a server that closes after saying this.
fn told(answer: &str) -> Exchange {
    exchange(&Server::closing_after(answer), PATIENCE)
}

#[track_caller]
fn garbage(exchange: &Exchange) -> &str {
    match &exchange.ending {
        Ending::Garbage { message } => message,
        ending => panic!("{ending:?}"),
    }
}

#[track_caller]
fn reset(exchange: &Exchange) -> &str {
    match &exchange.ending {
        Ending::Reset { message } => message,
        ending => panic!("{ending:?}"),
    }
}

#[test]
fn a_stream_that_is_whole_is_complete() {
    let exchange = told(&stream());
    assert_eq!(exchange.ending, Ending::Complete);
    assert_eq!(exchange.status, Some(200));
    assert_eq!(exchange.output_ns.len(), 2);
    assert_eq!(
        exchange.body_bytes as usize,
        [EVENT, LAST, DONE].concat().len()
    );
    let usage = Usage {
        prompt_tokens: 3,
        completion_tokens: 2,
        cached_tokens: None,
    };
    assert_eq!(exchange.usage, Some(usage));
    assert!(matches!(
        exchange.connection,
        Some(Connection::Opened { .. })
    ));
    let times = [
        exchange.sent_ns,
        exchange.head_ns.unwrap(),
        exchange.output_ns[0],
        exchange.output_ns[1],
        exchange.end_ns,
    ];
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn what_is_sent_is_what_was_asked_for() {
    let (sender, requests) = mpsc::channel();
    let server = Server::start(move |_, mut peer| {
        while let Some(request) = peer.request() {
            sender.send(request).unwrap();
            peer.write(&stream());
        }
    });
    let mut settings = server.settings().with_api_key("secret");
    settings.path = "/v1/chat/completions".into();
    let client = client(&settings);
    run(client.exchange(attempt(true, PATIENCE)));
    let request = requests.recv().unwrap();
    assert!(
        request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"),
        "{request}"
    );
    for header in [
        format!("host: {}", server.address()),
        "content-type: application/json".into(),
        "accept: text/event-stream".into(),
        "authorization: Bearer secret".into(),
    ] {
        assert!(
            request.contains(&format!("\r\n{header}\r\n")),
            "{header}: {request}"
        );
    }
    assert!(
        request.ends_with(r#"{"model":"m","prompt":"hello"}"#),
        "{request}"
    );
    assert!(!format!("{settings:?}").contains("secret"));
}

#[test]
fn an_answer_without_streaming_is_one_output() {
    let body = r#"{"choices":[{"text":"a"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    let server = Server::answering(answer("200 OK", "content-type: application/json\r\n", body));
    let exchange = run(client(&server.settings()).exchange(attempt(false, PATIENCE)));
    assert_eq!(exchange.ending, Ending::Complete);
    assert_eq!(exchange.output_ns, [exchange.end_ns]);
    assert_eq!(exchange.usage.unwrap().completion_tokens, 2);
}

#[test]
fn a_port_where_nobody_listens_is_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings::new(format!("http://{}", listener.local_addr().unwrap()));
    drop(listener);
    let client = client(&settings);
    let exchange = run(client.exchange(attempt(true, PATIENCE)));
    let Ending::NotConnected { message } = exchange.ending else {
        panic!("{:?}", exchange.ending);
    };
    assert!(message.contains("refused"), "{message}");
    assert_eq!((exchange.connection, exchange.status), (None, None));
    let counts = client.counts();
    assert_eq!(
        (counts.failed, counts.failed_locally, counts.open),
        (1, 0, 0)
    );
}

#[test]
fn a_connection_closed_before_the_answer_is_a_reset() {
    reset(&told(""));
    reset(&told("HTTP/1.1 200 OK\r\ncontent-"));
    let server = Server::start(|_, mut peer| {
        peer.begin();
        peer.write("HTTP/1.1 200");
    });
    let exchange = exchange(&server, PATIENCE);
    let message = reset(&exchange);
    assert!(message.contains("reset"), "{message}");
    assert_eq!(exchange.status, None);
}

#[test]
fn a_reset_within_a_stream_is_one_and_keeps_what_came() {
    let server = Server::start(|_, mut peer| {
        peer.begin();
        peer.write(&[HEAD, &chunk(EVENT)].concat());
    });
    let exchange = exchange(&server, PATIENCE);
    assert!(reset(&exchange).contains("reset"));
    assert_eq!((exchange.status, exchange.output_ns.len()), (Some(200), 1));
}

#[test]
fn a_stream_without_its_end_is_truncated() {
    for answer in [
        [HEAD, &chunk(EVENT)].concat(),
        [HEAD, "400\r\n", EVENT].concat(),
        [HEAD, &chunk(EVENT), END].concat(),
    ] {
        let exchange = told(&answer);
        assert_eq!(exchange.ending, Ending::Truncated, "{answer}");
        assert_eq!(exchange.output_ns.len(), 1);
    }
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{\"choices\":[]}";
    let server = Server::closing_after(short);
    let exchange = run(client(&server.settings()).exchange(attempt(false, PATIENCE)));
    assert_eq!(exchange.ending, Ending::Truncated);
}

#[test]
fn a_stream_that_goes_silent_is_stalled() {
    let server = Server::silent_after([HEAD, &chunk(EVENT)].concat());
    let patience = Patience {
        stall_ns: Some(100 * MILLISECOND_NS),
        ..PATIENCE
    };
    let exchange = exchange(&server, patience);
    assert_eq!(exchange.ending, Ending::Stalled);
    assert!(exchange.end_ns - exchange.output_ns[0] >= 100 * MILLISECOND_NS);
}

#[test]
fn output_that_does_not_come_in_time_is_timed_out() {
    let patience = Patience {
        first_output_ns: Some(100 * MILLISECOND_NS),
        ..PATIENCE
    };
    for silence in ["".into(), [HEAD, &chunk(": ping\n\n")].concat()] {
        let exchange = exchange(&Server::silent_after(silence), patience);
        assert_eq!(exchange.ending, Ending::TimedOut);
        assert!(exchange.end_ns - exchange.sent_ns >= 100 * MILLISECOND_NS);
    }
}

#[test]
fn a_stream_that_goes_on_for_too_long_is_timed_out() {
    let server = Server::start(|_, mut peer| {
        peer.request();
        peer.write(HEAD);
        // Bounded, whatever the client does.
        for _ in 0..500 {
            peer.write(&chunk(EVENT));
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let patience = Patience {
        total_ns: Some(200 * MILLISECOND_NS),
        stall_ns: Some(10_000 * MILLISECOND_NS),
        ..PATIENCE
    };
    let exchange = exchange(&server, patience);
    assert_eq!(exchange.ending, Ending::TimedOut);
    assert!(!exchange.output_ns.is_empty());
}

#[test]
fn what_is_not_http_is_garbage() {
    garbage(&told("SSH-2.0-OpenSSH_9.6\r\n"));
    garbage(&told(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\ndata",
    ));
    garbage(&told("HTTP/1.1 200 OK\r\nname with spaces: 1\r\n\r\n"));
}

#[test]
fn a_page_for_people_is_garbage() {
    let page = answer(
        "200 OK",
        "content-type: text/html\r\n",
        "<html>Welcome</html>",
    );
    let exchange = told(&page);
    insta::assert_snapshot!(
        garbage(&exchange),
        @"text/html, which was not asked for: <html>Welcome</html>"
    );
}

#[track_caller]
fn refused(answer: &str) -> (u16, Option<u64>, String) {
    let exchange = told(answer);
    match exchange.ending {
        Ending::Refused { message } => (exchange.status.unwrap(), exchange.retry_after_ns, message),
        ending => panic!("{ending:?}"),
    }
}

#[test]
fn a_refusal_tells_its_status_its_message_and_when_to_come_back() {
    let limited = answer("429 Too Many Requests", "retry-after: 2\r\n", "slow down");
    assert_eq!(
        refused(&limited),
        (429, Some(2_000_000_000), "slow down".into())
    );
    let date = "retry-after: Fri, 31 Dec 2100 23:59:59 GMT\r\n";
    assert!(refused(&answer("503 Unavailable", date, "")).1 > Some(1_000_000_000));
    let json = r#"{"error":{"message":"it broke","type":"server_error"}}"#;
    let broken = answer("500 Error", "content-type: application/json\r\n", json);
    assert_eq!(refused(&broken), (500, None, "it broke".into()));
}

#[test]
fn a_redirection_is_not_followed_and_says_where_to() {
    let (status, _, message) = refused(&answer("308 Moved", "location: https://new/v1\r\n", ""));
    assert_eq!(status, 308);
    insta::assert_snapshot!(
        message,
        @"points to https://new/v1, which is not followed: set the base URL to where the endpoint is"
    );
}

#[test]
fn an_error_within_a_stream_is_its_ending_and_its_connection_is_kept() {
    let error = "data: {\"error\":{\"message\":\"no memory\"}}\n\n";
    let whole = [HEAD, &chunk(EVENT), &chunk(error), &chunk(DONE), END].concat();
    let server = Server::answering(whole);
    let client = client(&server.settings());
    run(async {
        for _ in 0..2 {
            let exchange = client.exchange(attempt(true, PATIENCE)).await;
            let message = "no memory".into();
            assert_eq!(exchange.ending, Ending::Error { message });
            assert_eq!(exchange.output_ns.len(), 1);
        }
    });
    assert_eq!((client.counts().opened, client.counts().reused), (1, 1));
}

#[test]
fn an_event_of_thirty_megabytes_is_one_output() {
    let text = "x".repeat(30 << 20);
    let event = format!("data: {{\"choices\":[{{\"text\":\"{text}\"}}]}}\n\n");
    let exchange = told(&[HEAD, &chunk(&event), &chunk(LAST), &chunk(DONE), END].concat());
    assert_eq!(exchange.ending, Ending::Complete);
    assert_eq!(exchange.output_ns.len(), 2);
    assert!(exchange.body_bytes > 30 << 20);
}

#[test]
fn an_answer_that_is_done_is_not_waited_for_any_longer() {
    let server = Server::silent_after([HEAD, &chunk(LAST), &chunk(DONE)].concat());
    let exchange = exchange(&server, Patience::default());
    assert_eq!(exchange.ending, Ending::Complete);
}

#[test]
fn at_the_end_of_a_run_what_came_so_far_is_kept() {
    let server = Server::silent_after([HEAD, &chunk(EVENT)].concat());
    let cancellation = Cancellation::new();
    let client = client_until(&server.settings(), cancellation.clone());
    let (exchange, ()) = run(both(client.exchange(attempt(true, PATIENCE)), async {
        pause().await;
        cancellation.cancel();
    }));
    assert_eq!(exchange.ending, Ending::Cancelled);
    let late = run(client.exchange(attempt(true, PATIENCE)));
    assert_eq!((late.ending, late.connection), (Ending::Cancelled, None));
}

#[test]
fn an_exchange_that_is_dropped_closes_its_connection() {
    let (sender, closed) = mpsc::channel();
    let server = Server::start(move |_, mut peer| {
        peer.request();
        peer.write(&[HEAD, &chunk(EVENT)].concat());
        sender.send(peer.wait_for_close()).unwrap();
    });
    let client = client(&server.settings());
    run(async {
        let exchange = client.exchange(attempt(true, PATIENCE));
        let limit = Duration::from_millis(100);
        assert!(tokio::time::timeout(limit, exchange).await.is_err());
    });
    assert_eq!(closed.recv_timeout(Duration::from_secs(10)), Ok(true));
    assert_eq!(client.counts().open, 0);
}
