//! TLS: whom it trusts, and which HTTP is agreed upon.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use foresail_loadgen::client::HttpVersion;
use foresail_loadgen::exchange::Ending;
use hyper::Response;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::server::{DONE, LAST, Server, stream};
use super::*;

/// A server with a certificate of its own, that offers these protocols, and a client's settings
/// that trust it. The folder holds the certificate.
fn server(protocols: &[&[u8]]) -> (Settings, tempfile::TempDir) {
    let made = rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()]);
    let made = made.expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut configuration = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a certificate and its key");
    configuration.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        run(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(configuration));
            // Bounded, so that the thread ends though nobody stops it.
            drop(tokio::time::timeout(Duration::from_secs(20), accept(listener, acceptor)).await);
        });
    });
    let mut settings = Settings::new(format!("https://{}", receiver.recv().unwrap()));
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).unwrap();
    settings.ca_file = Some(ca_file);
    (settings, folder)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let Ok(socket) = acceptor.accept(socket).await else {
            continue;
        };
        let agreed = socket.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        match agreed.as_deref() {
            Some(b"h2") => tokio::spawn(serve_http2(socket)),
            _ => tokio::spawn(serve_http1(socket)),
        };
    }
}

async fn serve_http1(mut socket: TlsStream<TcpStream>) {
    let mut request = [0; 4096];
    // A request is small, and there in one read.
    while let Ok(1..) = socket.read(&mut request).await {
        drop(socket.write_all(stream().as_bytes()).await);
    }
}

async fn serve_http2(socket: TlsStream<TcpStream>) {
    let mut connection = h2::server::handshake(socket).await.unwrap();
    while let Some(Ok((_request, mut respond))) = connection.accept().await {
        let head = Response::builder().header("content-type", "text/event-stream");
        let mut body = respond
            .send_response(head.body(()).unwrap(), false)
            .unwrap();
        body.send_data(Bytes::from([LAST, DONE].concat()), true)
            .unwrap();
    }
}

#[test]
fn http1_goes_over_tls_and_keeps_its_connection() {
    for protocols in [&[b"http/1.1".as_slice()], [].as_slice()] {
        let (settings, _folder) = server(protocols);
        let client = client(&settings);
        run(async {
            for _ in 0..2 {
                let exchange = client.exchange(attempt(true, PATIENCE)).await;
                assert_eq!(exchange.ending, Ending::Complete);
                assert_eq!(exchange.output_ns.len(), 2);
            }
        });
        assert_eq!((client.counts().opened, client.counts().reused), (1, 1));
    }
}

#[test]
fn http2_is_agreed_upon() {
    let (mut settings, _folder) = server(&[b"h2", b"http/1.1"]);
    settings.http = HttpVersion::Http2;
    let exchange = run(client(&settings).exchange(attempt(true, PATIENCE)));
    assert_eq!(exchange.ending, Ending::Complete);
    assert_eq!(exchange.output_ns.len(), 1);
}

#[track_caller]
fn not_connected(settings: &Settings) -> String {
    let exchange = run(client(settings).exchange(attempt(true, PATIENCE)));
    match exchange.ending {
        Ending::NotConnected { message } => message,
        ending => panic!("{ending:?}"),
    }
}

#[test]
fn a_server_without_http2_says_what_to_use() {
    let (mut settings, _folder) = server(&[]);
    settings.http = HttpVersion::Http2;
    insta::assert_snapshot!(
        not_connected(&settings),
        @"the server does not offer HTTP/2; use HTTP/1.1"
    );
}

#[test]
fn a_server_that_is_not_trusted_is_no_connection() {
    let (mut settings, _folder) = server(&[]);
    let (other, _other_folder) = server(&[]);
    settings.ca_file = other.ca_file;
    let message = not_connected(&settings);
    assert!(message.starts_with("TLS failed: "), "{message}");
}

#[test]
fn a_server_that_does_not_answer_the_handshake_is_timed_out() {
    let silent = Server::start(|_, mut peer| {
        peer.wait_for_close();
    });
    let (mut settings, _folder) = server(&[]);
    settings.base_url = format!("https://{}", silent.address());
    let patience = Patience {
        connect_ns: Some(100 * MILLISECOND_NS),
        ..PATIENCE
    };
    let client = client(&settings);
    let exchange = run(client.exchange(attempt(true, patience)));
    assert_eq!(
        (exchange.ending, exchange.connection),
        (Ending::TimedOut, None)
    );
    assert_eq!((client.counts().failed, client.counts().open), (1, 0));
}

#[test]
fn a_file_of_authorities_has_to_have_some() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::new("https://127.0.0.1:1");
    for (name, text) in [("none.pem", Some("")), ("missing.pem", None)] {
        let path: PathBuf = folder.path().join(name);
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        settings.ca_file = Some(path);
        let message = Target::resolve(&settings).unwrap_err().to_string();
        assert!(message.contains(name), "{message}");
    }
}
