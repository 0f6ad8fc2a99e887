//! `millstream top`: shows on a terminal how a server is doing, over PostgreSQL's protocol.
//!
//! A task (`feed`) reads the server's system tables at an interval, and connects again when the server goes away. Two
//! readings give the rates (`figures`). Texts of the server reach the terminal without control characters.

mod address;
mod details;
mod draw;
mod feed;
mod figures;
mod grid;
mod health;
mod numbers;
mod page;
mod reading;
mod screen;
mod server;
mod view;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::stop::Stop;
use crate::top::address::Address;
use crate::top::figures::Figures;
use crate::top::server::Server;

/// The options of `top`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The address of the server: `HOST:PORT`, or a host alone.
    pub host: String,
    /// True to print one reading instead of a view.
    pub once: bool,
    /// The time between two readings.
    pub interval: Duration,
}

/// Shows a server until the user leaves. Prints one reading if asked to, or if this isn't a terminal.
pub async fn run(options: &Options) -> Result<(), Stop> {
    let address = Address::parse(&options.host)?;
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    // A server that can't be reached now is reported without opening the screen.
    let server = Server::connect(&address).await.map_err(Stop::external)?;
    if options.once || !is_terminal {
        return once(&address, &server, options.interval).await;
    }
    screen::show(address, server, options.interval, console::colors_enabled()).await
}

/// Prints one reading. Its rates are those of one interval.
async fn once(address: &Address, server: &Server, interval: Duration) -> Result<(), Stop> {
    let failed = |failure: server::Failure| Stop::external(failure);
    let before = server.read().await.map_err(failed)?;
    tokio::time::sleep(interval).await;
    let now = server.read().await.map_err(failed)?;
    let text = page::text(&address.to_string(), &Figures::between(Some(&before), &now));
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
