//! The address of a server: `HOST:PORT`.

use std::fmt;

use crate::serve;
use crate::stop::Stop;

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The name or the IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// Parses `HOST:PORT`, `HOST`, `[IPV6]:PORT` or `[IPV6]`. A server's usual port is the default.
    pub fn parse(text: &str) -> Result<Address, Stop> {
        let wrong = |reason: &str| {
            Stop::Usage(format!(
                "--host is '{}', {reason}: write HOST:PORT, such as {}; an IPv6 address goes in brackets, such as [::1]:4777",
                crate::form::visible(text),
                serve::ADDRESS
            ))
        };
        let usual = serve::ADDRESS.rsplit_once(':').map_or("", |(_, port)| port);
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(|| wrong("which has no ]"))?;
                let port = after.strip_prefix(':').or(after.is_empty().then_some(usual));
                (host, port.ok_or_else(|| wrong("with something other than :PORT after the ]"))?)
            }
            None => match text.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err(wrong("which has several colons")),
                Some(both) => both,
                None => (text, usual),
            },
        };
        let is_name = |letter: char| letter.is_alphanumeric() || "-._:%".contains(letter);
        if host.is_empty() {
            return Err(wrong("which has no host"));
        }
        if !host.chars().all(is_name) {
            return Err(wrong("whose host is no name and no IP address"));
        }
        let port = port.parse().ok().filter(|port| *port != 0);
        let port = port.ok_or_else(|| wrong("whose port is no number from 1 to 65535"))?;
        Ok(Address { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_may_have_a_port() {
        for (text, shown) in [
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("localhost", "localhost:4777"),
            ("[::1]:80", "[::1]:80"),
            ("[::1]", "[::1]:4777"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn a_bad_address_says_how_one_is_written() {
        for (text, reason) in [
            ("", "no host"),
            (":4777", "no host"),
            ("::1", "several colons"),
            ("[::1", "no ]"),
            ("[::1]x", "after the ]"),
            ("a:", "port"),
            ("a:0", "port"),
            ("a:70000", "port"),
            ("http//a", "no IP address"),
            ("a\u{1b}[2J", "\\u{1b}[2J"),
        ] {
            let Err(Stop::Usage(message)) = Address::parse(text) else { panic!("{text} is taken") };
            assert!(message.contains(reason) && message.contains("127.0.0.1:4777"), "{message}");
        }
    }
}
