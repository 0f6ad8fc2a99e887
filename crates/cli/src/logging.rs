//! The log: the engine's warnings on standard error.
//!
//! `MILLSTREAM_LOG` names the least severe level to show, also per module: `info`,
//! `warn,millstream_engine=debug`, `off`.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use crate::page::Page;
use crate::stop::Stop;

/// The environment variable with the levels.
const VARIABLE: &str = "MILLSTREAM_LOG";

/// The terminal's page, which keeps lines of the log from damaging a prompt.
static PAGE: Mutex<Option<Page>> = Mutex::new(None);

/// Shows events of the variable's levels from now on, or else of this level.
pub fn install(default: LevelFilter) -> Result<(), Stop> {
    let levels = match std::env::var(VARIABLE) {
        Ok(text) if !text.trim().is_empty() => levels(&text)?,
        _ => Targets::new().with_default(default),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(Log).log_internal_errors(false);
    // It fails if a program that embeds this library has a subscriber of its own, which then counts.
    let _ = tracing_subscriber::registry().with(layer.with_filter(levels)).try_init();
    Ok(())
}

/// Writes the log above this page's prompt or line from now on.
pub fn show_on(page: &Page) {
    *PAGE.lock().unwrap_or_else(PoisonError::into_inner) = Some(page.clone());
}

fn levels(text: &str) -> Result<Targets, Stop> {
    text.parse().map_err(|error| {
        Stop::Usage(format!(
            "{VARIABLE} is '{text}', but a level (error, warn, info, debug, trace, off) or a list such as \
             'warn,millstream_engine=debug' was expected: {error}"
        ))
    })
}

/// Writes each line of the log.
struct Log;

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        Log
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let page = PAGE.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match page {
            Some(page) => page.log(bytes)?,
            None => io::stderr().write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_may_be_given_by_module() {
        for right in ["warn", "off", "warn,millstream_engine=debug"] {
            assert!(levels(right).is_ok(), "{right}");
        }
        assert!(matches!(levels("millstream=loud"), Err(Stop::Usage(_))));
    }
}
