//! The server as clients meet it: over sockets, with a device that is scripted.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod adapters;
mod answers;
mod bad_requests;
mod client;
mod clients;
mod conversations;
mod device;
mod drain;
mod load;
mod server;
mod status;
mod strangers;
