//! Where the server listens, whom it lets in, and where it writes its log.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::Path;

use foresail_engine::server::{AccessLog, Keys};

use super::Arguments;
use crate::failure::Failure;

/// The keys that are let in, if a file has some.
pub(super) fn keys(arguments: &Arguments) -> Result<Option<Keys>, Failure> {
    let Some(path) = &arguments.api_key_file else {
        return Ok(None);
    };
    let wrong = |reason: String| Failure::Input(format!("{}: {reason}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let keys = Keys::parse(&text).map_err(|error| wrong(error.to_string()))?;
    Ok(Some(keys))
}

/// A socket that takes connections from now on.
pub(super) fn socket(arguments: &Arguments, has_keys: bool) -> Result<TcpListener, Failure> {
    let (host, port) = (arguments.host.as_str(), arguments.port);
    let found = (host, port).to_socket_addrs();
    let found = found.map_err(|error| {
        Failure::Input(format!(
            "--host {host}: {error}; give an address of this machine"
        ))
    })?;
    let addresses: Vec<SocketAddr> = found.collect();
    if let Some(open) = addresses.iter().find(|address| !address.ip().is_loopback())
        && !has_keys
    {
        return Err(Failure::Input(format!(
            "{} can be reached from other machines, and everybody would be let in; \
             give keys with --api-key-file, or listen at 127.0.0.1",
            open.ip()
        )));
    }
    TcpListener::bind(&addresses[..]).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => "another --port, or end what listens there",
            io::ErrorKind::PermissionDenied => "a --port from 1024 on",
            _ => "another --host or --port",
        };
        Failure::Input(format!(
            "cannot listen at {host}:{port}: {error}; choose {remedy}"
        ))
    })
}

/// Where a socket listens, with the port that the system chose.
pub(super) fn address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    let address = listener.local_addr();
    address.map_err(|error| Failure::Defect(format!("the socket has no address: {error}")))
}

/// The log of requests.
pub(super) fn access_log(arguments: &Arguments) -> Result<AccessLog, Failure> {
    let path = &arguments.access_log;
    let log = match path.to_str() {
        Some("none") => Ok(AccessLog::none()),
        Some("-") => AccessLog::to(io::stderr()),
        _ => append_to(path).and_then(AccessLog::to),
    };
    log.map_err(|error| Failure::output(path, error))
}

/// What is there stays: a server that is started again goes on with its log.
fn append_to(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().create(true).append(true).open(path)
}
