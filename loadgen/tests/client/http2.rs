//! HTTP/2 by prior knowledge: requests share connections.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use foresail_loadgen::client::HttpVersion;
use foresail_loadgen::exchange::{Connection, Ending};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use hyper::{Request, Response};
use tokio::net::TcpListener;

use super::server::{DONE, EVENT, LAST, Server};
use super::*;

/// Serves each request with `serve`, on connections with this many at once.
fn server<S, F>(streams_max: u32, serve: S) -> Settings
where
    S: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        run(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            // Bounded, so that the thread ends though nobody stops it.
            let limit = Duration::from_secs(20);
            drop(tokio::time::timeout(limit, accept(listener, streams_max, serve)).await);
        });
    });
    let mut settings = Settings::new(format!("http://{}", receiver.recv().unwrap()));
    settings.http = HttpVersion::Http2;
    settings
}

async fn accept<S, F>(listener: TcpListener, streams_max: u32, serve: S)
where
    S: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let serve = serve.clone();
        tokio::spawn(async move {
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(streams_max);
            let Ok(mut connection) = builder.handshake(socket).await else {
                return;
            };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(serve(request, respond));
            }
        });
    }
}

fn head() -> Response<()> {
    let response = Response::builder().header("content-type", "text/event-stream");
    response.body(()).unwrap()
}

/// A stream of two tokens that takes a tenth of a second.
async fn stream(_request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let mut body = respond.send_response(head(), false).unwrap();
    body.send_data(EVENT.into(), false).unwrap();
    pause().await;
    body.send_data(LAST.into(), false).unwrap();
    body.send_data(DONE.into(), true).unwrap();
}

#[test]
fn requests_share_a_connection() {
    let client = client(&server(100, stream));
    let (first, second) = run(both(
        client.exchange(attempt(true, PATIENCE)),
        client.exchange(attempt(true, PATIENCE)),
    ));
    for exchange in [&first, &second] {
        assert_eq!(exchange.ending, Ending::Complete);
        assert_eq!(exchange.output_ns.len(), 2);
        assert!(exchange.output_ns[1] > exchange.output_ns[0] + 50 * MILLISECOND_NS);
    }
    assert!(matches!(first.connection, Some(Connection::Opened { .. })));
    assert_eq!(second.connection, Some(Connection::Reused));
    assert_eq!((client.counts().opened, client.counts().reused), (1, 1));
}

#[test]
fn when_the_server_takes_no_more_on_one_connection_another_is_opened() {
    let client = client(&server(2, stream));
    let one = || client.exchange(attempt(true, PATIENCE));
    run(async {
        // How many it takes is known once it has answered something.
        one().await;
        let ((a, b), c) = both(both(one(), one()), one()).await;
        for exchange in [a, b, c] {
            assert_eq!(exchange.ending, Ending::Complete);
        }
    });
    assert_eq!((client.counts().opened, client.counts().reused), (2, 2));
}

#[test]
fn a_limit_of_connections_makes_requests_wait() {
    let mut settings = server(1, stream);
    settings.connections_max = Some(1);
    let client = client(&settings);
    let one = || client.exchange(attempt(true, PATIENCE));
    run(async {
        one().await;
        let (first, second) = both(one(), one()).await;
        assert_eq!(
            (&first.ending, &second.ending),
            (&Ending::Complete, &Ending::Complete)
        );
        assert!(second.sent_ns >= first.end_ns);
    });
    assert_eq!(client.counts().opened, 1);
}

#[test]
fn a_stream_that_the_server_resets_is_a_reset_and_keeps_what_came() {
    let client = client(&server(
        100,
        async |_: Request<RecvStream>, mut respond: SendResponse<Bytes>| {
            let mut body = respond.send_response(head(), false).unwrap();
            body.send_data(EVENT.into(), false).unwrap();
            pause().await;
            body.send_reset(Reason::INTERNAL_ERROR);
        },
    ));
    let exchange = run(client.exchange(attempt(true, PATIENCE)));
    assert!(
        matches!(exchange.ending, Ending::Reset { .. }),
        "{:?}",
        exchange.ending
    );
    assert_eq!(exchange.output_ns.len(), 1);
}

#[test]
fn an_exchange_that_is_dropped_resets_its_stream_and_no_other() {
    let (sender, resets) = mpsc::channel();
    let settings = server(
        100,
        move |_: Request<RecvStream>, mut respond: SendResponse<Bytes>| {
            let sender = sender.clone();
            async move {
                let mut body = respond.send_response(head(), false).unwrap();
                body.send_data(EVENT.into(), false).unwrap();
                let reset = std::future::poll_fn(|context| body.poll_reset(context)).await;
                sender.send(reset.ok()).unwrap();
            }
        },
    );
    let client = client(&settings);
    run(async {
        let exchange = client.exchange(attempt(true, PATIENCE));
        let limit = Duration::from_millis(200);
        assert!(tokio::time::timeout(limit, exchange).await.is_err());
        pause().await;
        assert_eq!(client.counts().open, 1);
    });
    assert_eq!(
        resets.recv_timeout(Duration::from_secs(10)),
        Ok(Some(Reason::CANCEL))
    );
}

#[test]
fn a_server_of_another_version_is_garbage() {
    let bad = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let server = Server::start(move |_, mut peer| {
        peer.begin();
        peer.write(bad);
        peer.wait_for_close();
    });
    let mut settings = server.settings();
    settings.http = HttpVersion::Http2;
    let exchange = run(client(&settings).exchange(attempt(true, PATIENCE)));
    assert!(
        matches!(exchange.ending, Ending::Garbage { .. }),
        "{:?}",
        exchange.ending
    );
}
