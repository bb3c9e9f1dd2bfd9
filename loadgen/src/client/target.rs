//! The endpoint, checked and looked up: what every worker's client is made of.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use hyper::http::uri::{PathAndQuery, Scheme};
use hyper::{HeaderMap, Uri, header};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;

use super::settings::{HttpVersion, Settings};
use super::tls;

/// Why settings cannot be used, and what to change.
#[derive(Debug, Error)]
pub enum TargetError {
    /// The address is not one.
    #[error("the base URL {url:?} {problem}; write it like http://127.0.0.1:8000")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The path is not one.
    #[error("the path {path:?} is not a path of a URL; write it like /v1/completions")]
    Path {
        /// As it was given.
        path: String,
    },
    /// A header cannot be sent.
    #[error("the header {name:?} cannot be sent: {problem}")]
    Header {
        /// Its name.
        name: String,
        /// What is wrong with name or value.
        problem: String,
    },
    /// The certificate authorities cannot be read.
    #[error("the certificate authorities in {} cannot be read: {problem}", path.display())]
    CaFile {
        /// Where they were to be.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The machine trusts nobody.
    #[error(
        "this machine trusts no certificate authority; name a file with some, or set SSL_CERT_FILE ({0})"
    )]
    NoAuthorities(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The name of the host leads nowhere.
    #[error("the name {host:?} leads to no address: {problem}")]
    Resolve {
        /// The name.
        host: String,
        /// What the system said.
        problem: String,
    },
    /// No connections at all.
    #[error("at least one connection is needed: raise the limit of connections above 0")]
    NoConnections,
}

/// An endpoint that can be sent to. Cheap to clone.
#[derive(Clone)]
pub struct Target {
    inner: Arc<Inner>,
}

struct Inner {
    /// The host and port as the user wrote them.
    authority: String,
    addresses: Vec<SocketAddr>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    http: HttpVersion,
    uri: Uri,
    headers_streamed: HeaderMap,
    headers_whole: HeaderMap,
    connections_max: Option<usize>,
}

impl Target {
    /// Checks the settings, loads whom to trust, and looks the host up: once, so that a run
    /// measures the endpoint and not the name servers. Blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// [`TargetError`] says what to change.
    pub fn resolve(settings: &Settings) -> Result<Self, TargetError> {
        if settings.connections_max == Some(0) {
            return Err(TargetError::NoConnections);
        }
        let base = Base::parse(&settings.base_url)?;
        let path = base.path_to(&settings.path)?;
        let tls = match base.is_tls {
            true => Some(base.tls(settings)?),
            false => None,
        };
        let uri = base.uri(settings.http, path)?;
        let headers = base.headers(settings)?;
        Ok(Self {
            inner: Arc::new(Inner {
                addresses: base.addresses()?,
                authority: base.authority,
                tls,
                http: settings.http,
                uri,
                headers_streamed: accepting(&headers, "text/event-stream"),
                headers_whole: accepting(&headers, "application/json"),
                connections_max: settings.connections_max,
            }),
        })
    }

    /// Where connections go: the first of these that answers, and the others if it does not.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.inner.addresses
    }

    /// The version of HTTP that is spoken.
    #[must_use]
    pub fn http(&self) -> HttpVersion {
        self.inner.http
    }

    /// The most connections open at once in one client.
    #[must_use]
    pub fn connections_max(&self) -> Option<usize> {
        self.inner.connections_max
    }

    pub(super) fn tls(&self) -> Option<&(Arc<ClientConfig>, ServerName<'static>)> {
        self.inner.tls.as_ref()
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.inner.uri
    }

    pub(super) fn headers(&self, is_streamed: bool) -> &HeaderMap {
        match is_streamed {
            true => &self.inner.headers_streamed,
            false => &self.inner.headers_whole,
        }
    }
}

/// Reads as `127.0.0.1:8000/v1/completions over HTTP/1.1 at 127.0.0.1:8000`.
impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner;
        let version = match (inner.http, &inner.tls) {
            (HttpVersion::Http1, None) => "HTTP/1.1",
            (HttpVersion::Http1, Some(_)) => "HTTP/1.1 and TLS",
            (HttpVersion::Http2, None) => "HTTP/2",
            (HttpVersion::Http2, Some(_)) => "HTTP/2 and TLS",
        };
        let path = inner.uri.path();
        write!(formatter, "{}{path} over {version} at ", inner.authority)?;
        for (index, address) in inner.addresses.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(formatter, "{comma}{address}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Target({self})")
    }
}

/// The base URL in its parts.
struct Base {
    url: String,
    is_tls: bool,
    authority: String,
    host: String,
    port: u16,
    /// Without a slash at its end.
    path: String,
}

impl Base {
    fn parse(url: &str) -> Result<Self, TargetError> {
        let wrong = |problem: &str| TargetError::Url {
            url: url.to_owned(),
            problem: problem.to_owned(),
        };
        let uri: Uri = url
            .trim()
            .parse()
            .map_err(|error| wrong(&format!("is no URL ({error})")))?;
        let is_tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(wrong("does not begin with http:// or https://")),
        };
        let Some(authority) = uri.authority() else {
            return Err(wrong("names no host"));
        };
        if authority.as_str().contains('@') {
            return Err(wrong("has a user name in it, which belongs in a header"));
        }
        if uri.query().is_some() {
            return Err(wrong("has a query, which belongs in the path"));
        }
        let bare = authority.host();
        let port = match authority.as_str().len() == bare.len() {
            true => {
                if is_tls {
                    443
                } else {
                    80
                }
            }
            false => authority
                .port_u16()
                .ok_or_else(|| wrong("has no valid port"))?,
        };
        // An IPv6 address is in brackets in a URL, and nowhere else.
        let host = bare.trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            url: url.to_owned(),
            is_tls,
            authority: authority.to_string(),
            host: host.to_owned(),
            port,
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The path below this URL. Its version is said once, whoever says it.
    fn path_to(&self, path: &str) -> Result<PathAndQuery, TargetError> {
        let wrong = || TargetError::Path {
            path: path.to_owned(),
        };
        let rest = match path.strip_prefix("/v1/") {
            Some(rest) if self.path.ends_with("/v1") => format!("/{rest}"),
            _ => path.to_owned(),
        };
        if !rest.starts_with('/') {
            return Err(wrong());
        }
        let whole = format!("{}{rest}", self.path);
        PathAndQuery::try_from(whole).map_err(|_| wrong())
    }

    /// HTTP/1.1 sends the path alone, HTTP/2 wants scheme and authority as well.
    fn uri(&self, http: HttpVersion, path: PathAndQuery) -> Result<Uri, TargetError> {
        if http == HttpVersion::Http1 {
            return Ok(Uri::from(path));
        }
        let scheme = if self.is_tls { "https" } else { "http" };
        Uri::builder()
            .scheme(scheme)
            .authority(self.authority.as_str())
            .path_and_query(path)
            .build()
            .map_err(|error| TargetError::Url {
                url: self.url.clone(),
                problem: error.to_string(),
            })
    }

    fn tls(
        &self,
        settings: &Settings,
    ) -> Result<(Arc<ClientConfig>, ServerName<'static>), TargetError> {
        let name = ServerName::try_from(self.host.clone()).map_err(|error| TargetError::Url {
            url: self.url.clone(),
            problem: format!("has a host that no certificate can name ({error})"),
        })?;
        let configuration = tls::configuration(settings.ca_file.as_deref(), settings.http)?;
        Ok((configuration, name))
    }

    fn headers(&self, settings: &Settings) -> Result<HeaderMap, TargetError> {
        let mut headers = HeaderMap::new();
        let agent = concat!("foresail/", env!("CARGO_PKG_VERSION"));
        insert(&mut headers, "content-type", "application/json")?;
        insert(&mut headers, "user-agent", agent)?;
        if settings.http == HttpVersion::Http1 {
            insert(&mut headers, "host", &self.authority)?;
        }
        for (name, value) in &settings.headers {
            insert(&mut headers, name, value)?;
        }
        Ok(headers)
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>, TargetError> {
        let problem = |problem: String| TargetError::Resolve {
            host: self.host.clone(),
            problem,
        };
        let found = (self.host.as_str(), self.port).to_socket_addrs();
        let mut addresses: Vec<_> = found.map_err(|error| problem(error.to_string()))?.collect();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(problem("it is known, and has none".into()));
        }
        Ok(addresses)
    }
}

/// Sets a header that is never shown where headers are shown.
fn insert(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), TargetError> {
    let wrong = |problem: String| TargetError::Header {
        name: name.to_owned(),
        problem,
    };
    let key = header::HeaderName::from_bytes(name.as_bytes());
    let key = key.map_err(|error| wrong(error.to_string()))?;
    if [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
    ]
    .contains(&key)
    {
        return Err(wrong("the client sets it itself".into()));
    }
    let mut value =
        header::HeaderValue::from_str(value).map_err(|error| wrong(error.to_string()))?;
    value.set_sensitive(key == header::AUTHORIZATION);
    headers.insert(key, value);
    Ok(())
}

fn accepting(headers: &HeaderMap, kind: &'static str) -> HeaderMap {
    let mut headers = headers.clone();
    if !headers.contains_key(header::ACCEPT) {
        headers.insert(header::ACCEPT, header::HeaderValue::from_static(kind));
    }
    headers
}

#[cfg(test)]
mod tests;
