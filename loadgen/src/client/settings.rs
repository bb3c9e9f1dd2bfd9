//! What a user says of the endpoint, as it was said.

use std::fmt;
use std::path::PathBuf;

/// The version of HTTP to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1: a request in flight has a connection of its own.
    #[default]
    Http1,
    /// HTTP/2: requests share connections, each carrying as many as the server
    /// allows. Agreed upon by ALPN over TLS; without TLS, by prior knowledge.
    Http2,
}

/// The endpoint to load, and how. [`Target::resolve`](super::Target::resolve) checks it.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the endpoint is: `http://127.0.0.1:8000`, or `https://host/v1` as
    /// clients of OpenAI have it. The environment's proxies are not used.
    pub base_url: String,
    /// What is asked, from the root of the endpoint: `/v1/completions`. A
    /// `base_url` that ends in `/v1` already does not double it.
    pub path: String,
    /// The version of HTTP.
    pub http: HttpVersion,
    /// Sent with each request, beside `content-type`, `accept` and `user-agent`, which they
    /// may replace. An API key is the header `authorization`: see [`Settings::with_api_key`].
    pub headers: Vec<(String, String)>,
    /// The certificate authorities to trust, in PEM, instead of the machine's own.
    pub ca_file: Option<PathBuf>,
    /// The most connections open at once in one client; requests beyond wait for one.
    pub connections_max: Option<usize>,
}

impl Settings {
    /// Completions over HTTP/1.1 on as many connections as there are requests in flight.
    #[must_use]
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            path: "/v1/completions".into(),
            http: HttpVersion::default(),
            headers: Vec::new(),
            ca_file: None,
            connections_max: None,
        }
    }

    /// The same with an API key, sent as a bearer token.
    #[must_use]
    pub fn with_api_key(mut self, key: &str) -> Self {
        let value = format!("Bearer {key}");
        self.headers.push(("authorization".into(), value));
        self
    }
}

/// Names the headers and keeps their values, which may be keys, to itself.
impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        formatter
            .debug_struct("Settings")
            .field("base_url", &self.base_url)
            .field("path", &self.path)
            .field("http", &self.http)
            .field("headers", &names)
            .field("ca_file", &self.ca_file)
            .field("connections_max", &self.connections_max)
            .finish()
    }
}
