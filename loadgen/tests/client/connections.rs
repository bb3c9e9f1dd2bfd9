//! Connections are kept, lost, limited and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foresail_loadgen::exchange::{Connection, Ending};

use super::server::{DONE, END, EVENT, HEAD, LAST, Server, chunk, stream};
use super::*;

#[test]
fn a_connection_carries_one_request_after_the_other() {
    let server = Server::answering(stream());
    let client = client(&server.settings());
    run(async {
        let first = client.exchange(attempt(true, PATIENCE)).await;
        assert!(matches!(
            first.connection,
            Some(Connection::Opened { took_ns: 1.. })
        ));
        for _ in 0..2 {
            let next = client.exchange(attempt(true, PATIENCE)).await;
            assert_eq!(next.ending, Ending::Complete);
            assert_eq!(next.connection, Some(Connection::Reused));
        }
    });
    let counts = client.counts();
    assert_eq!((counts.opened, counts.reused, counts.open), (1, 2, 1));
    client.close_idle();
    assert_eq!(client.counts().open, 0);
}

#[test]
fn a_connection_that_the_server_closed_meanwhile_is_noticed() {
    let server = Server::closing_after(stream());
    let client = client(&server.settings());
    run(async {
        for _ in 0..3 {
            let exchange = client.exchange(attempt(true, PATIENCE)).await;
            assert_eq!(exchange.ending, Ending::Complete);
            pause().await;
        }
    });
    let counts = client.counts();
    assert_eq!((counts.opened, counts.reused), (3, 0));
    // Seen as soon as the answer is over, or else when somebody wants it again.
    assert!(counts.lost <= 2 && counts.open <= 1, "{counts:?}");
}

#[test]
fn a_connection_that_was_closed_under_a_request_is_a_reset_and_not_a_second_send() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let server = Server::start(move |_, mut peer| {
        for has_answer in [true, false] {
            peer.request().expect("two requests");
            counted.fetch_add(1, Ordering::SeqCst);
            peer.write(if has_answer { &WHOLE } else { "" });
        }
    });
    let client = client(&server.settings());
    run(async {
        let first = client.exchange(attempt(true, PATIENCE)).await;
        assert_eq!(first.ending, Ending::Complete);
        let second = client.exchange(attempt(true, PATIENCE)).await;
        assert_eq!(second.connection, Some(Connection::Reused));
        assert!(matches!(second.ending, Ending::Reset { .. }));
    });
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    assert_eq!((client.counts().open, client.counts().resent), (0, 0));
}

static WHOLE: std::sync::LazyLock<String> = std::sync::LazyLock::new(stream);

#[test]
fn a_connection_that_the_server_does_not_keep_is_not_kept() {
    let closing = HEAD.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
    let server = Server::answering([&closing, &chunk(LAST), &chunk(DONE), END].concat());
    let client = client(&server.settings());
    let exchange = run(client.exchange(attempt(true, PATIENCE)));
    assert_eq!(exchange.ending, Ending::Complete);
    assert_eq!(client.counts().open, 0);
}

#[test]
fn requests_beyond_the_limit_wait_for_a_connection() {
    let server = Server::start(|_, mut peer| {
        while peer.request().is_some() {
            peer.write(&[HEAD, &chunk(EVENT)].concat());
            std::thread::sleep(Duration::from_millis(100));
            peer.write(&[chunk(LAST), chunk(DONE), END.into()].concat());
        }
    });
    let mut settings = server.settings();
    settings.connections_max = Some(1);
    let client = client(&settings);
    let (first, second) = run(both(
        client.exchange(attempt(true, PATIENCE)),
        client.exchange(attempt(true, PATIENCE)),
    ));
    assert_eq!(
        (&first.ending, &second.ending),
        (&Ending::Complete, &Ending::Complete)
    );
    assert!(second.sent_ns >= first.end_ns);
    assert_eq!((client.counts().opened, client.counts().reused), (1, 1));
}

#[test]
fn connections_are_opened_ahead_and_the_last_used_is_used_next() {
    let server = Server::start(|index, mut peer| {
        while peer.request().is_some() {
            let event = EVENT.replace("\"a\"", &format!("\"{}\"", "x".repeat(index)));
            peer.write(&[HEAD, &chunk(&event), &chunk(LAST), &chunk(DONE), END].concat());
        }
    });
    let client = client(&server.settings());
    run(async {
        client.warm(3).await.expect("three connections");
        assert_eq!((client.counts().opened, client.counts().open), (3, 3));
        let mut bytes = Vec::new();
        for _ in 0..3 {
            bytes.push(client.exchange(attempt(true, PATIENCE)).await.body_bytes);
        }
        assert!(bytes.iter().all(|other| *other == bytes[0]), "{bytes:?}");
    });
    assert_eq!((client.counts().opened, client.counts().reused), (3, 3));
}

#[test]
fn an_endpoint_that_is_not_there_is_told_before_the_run() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = client(&Settings::new(format!("http://{address}")));
    let failure = run(client.warm(2)).unwrap_err();
    assert_eq!((failure.opened, failure.asked), (0, 2));
    assert!(
        failure
            .to_string()
            .starts_with("only 0 of 2 connections could be opened: ")
    );
}
