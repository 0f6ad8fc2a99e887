//! The connector `socket`: lines over TCP, from servers that it connects to or clients that connect to it.
//!
//! Deliberately absent: TLS, and a sink.

mod dial;
mod listen;

use std::thread::Builder;

use millstream_delta::spawn_detached;

use crate::receiver::{FORMAT_OPTIONS, Layout, Lines};
use crate::{Connector, Error, OptionDoc, Options, Result, Source, SourceSpec};

/// Default maximum of clients connected at the same time.
const CONNECTIONS_MAX: usize = 64;

/// The connector `socket`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sockets;

const SOURCE_OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "mode",
        default: Some("connect"),
        doc: "connect: to a server, again whenever the connection ends; listen: for clients, whose lines are one source.",
    },
    OptionDoc {
        name: "host",
        default: Some("localhost; for listen 127.0.0.1"),
        doc: "The server's name or address; for listen the address to listen at, where 0.0.0.0 is all of the machine's.",
    },
    OptionDoc { name: "port", default: Some("none; it or hosts must be given"), doc: "The TCP port." },
    OptionDoc {
        name: "hosts",
        default: Some("host and port"),
        doc: "connect: several servers, as in 'left:9999,right:9999': each is read by a receiver of its own, and their \
              lines are one source.",
    },
    OptionDoc {
        name: "max_connections",
        default: Some("64"),
        doc: "listen: how many clients may be connected at the same time; one more is disconnected at once.",
    },
    FORMAT_OPTIONS[0],
    FORMAT_OPTIONS[1],
    FORMAT_OPTIONS[2],
    FORMAT_OPTIONS[3],
];

/// A server to connect to, or an address to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    host: String,
    port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Connector for Sockets {
    fn name(&self) -> &'static str {
        "socket"
    }

    fn summary(&self) -> &'static str {
        "Reads lines over TCP, from servers or from clients."
    }

    fn source_options(&self) -> &'static [OptionDoc] {
        SOURCE_OPTIONS
    }

    fn source(&self, spec: &SourceSpec) -> Result<Box<dyn Source>> {
        let layout = Layout::new(spec)?;
        let options = &spec.options;
        let health = spec.health.clone();
        if options.choice("mode", &["connect", "listen"])? == "connect" {
            only_for(options, "max_connections", "listen")?;
            let endpoints = endpoints(options)?;
            let splits = endpoints.iter().map(|endpoint| endpoint.to_string().into()).collect();
            return Ok(Box::new(Lines::new(
                layout,
                false,
                splits,
                Box::new(move |inbox, stop| {
                    endpoints.into_iter().try_for_each(|endpoint| {
                        dial::start(endpoint, inbox.clone(), stop.clone(), health.clone())
                    })
                }),
            )));
        }
        only_for(options, "hosts", "connect")?;
        let connections_max = options.parse("max_connections", "a number of connections")?;
        let connections_max = connections_max.unwrap_or(CONNECTIONS_MAX).max(1);
        let endpoint = endpoint(options, "127.0.0.1")?;
        // Binding here reports a port in use when the source is created. Clients that connect before the
        // first read wait.
        let listener = listen::bind(&endpoint).map_err(|error| {
            Error::Invalid(format!(
                "source '{}' can't listen at {endpoint}: {error}: choose another port, or stop the program \
                 that listens there",
                spec.name
            ))
        })?;
        let door = listen::Door { endpoint, listener, connections_max };
        Ok(Box::new(Lines::new(
            layout,
            false,
            Vec::new(),
            Box::new(move |inbox, stop| listen::start(door, inbox.clone(), stop.clone(), health)),
        )))
    }
}

fn only_for(options: &Options, name: &str, mode: &str) -> Result<()> {
    match options.get(name) {
        None => Ok(()),
        Some(_) => Err(Error::Invalid(format!(
            "option '{name}' is for mode = '{mode}' only: leave it out, or set mode = '{mode}'"
        ))),
    }
}

fn endpoint(options: &Options, host: &str) -> Result<Endpoint> {
    let host = options.get("host").unwrap_or(host).trim().to_string();
    Ok(Endpoint { host, port: port(options.require("port")?)? })
}

fn port(text: &str) -> Result<u16> {
    text.trim().parse().ok().filter(|port| *port > 0).ok_or_else(|| {
        Error::Invalid(format!("the port is '{text}', but a number from 1 to 65535 was expected"))
    })
}

/// Returns the servers to connect to.
fn endpoints(options: &Options) -> Result<Vec<Endpoint>> {
    let Some(hosts) = options.get("hosts") else { return Ok(vec![endpoint(options, "localhost")?]) };
    if options.get("host").is_some() {
        return Err(Error::Invalid(
            "options 'host' and 'hosts' exclude each other: leave one of them out".into(),
        ));
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for text in hosts.split(',').map(str::trim) {
        let (host, text_port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') => (host, port),
            _ => (text, options.require("port")?),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let endpoint = Endpoint { host: host.to_string(), port: port(text_port)? };
        if host.is_empty() || endpoints.contains(&endpoint) {
            return Err(Error::Invalid(format!(
                "option 'hosts' is '{hosts}', but different servers as in 'left:9999,right:9999' were expected"
            )));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

/// Starts a thread of a receiver.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    match spawn_detached(Builder::new().name(format!("socket {name}")), work) {
        Ok(()) => Ok(()),
        Err(error) => Err(Error::External(format!("the receiver of {name} can't be started: {error}"))),
    }
}

#[cfg(test)]
mod tests;
