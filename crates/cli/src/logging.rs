//! The log and the program's messages, on standard error: as text, or as JSON with one object a line.
//!
//! `MILLSTREAM_LOG` names the least severe level to show, also per module: `info`,
//! `warn,millstream_engine=debug`, `off`. `MILLSTREAM_LOG_FORMAT` names the format.

mod json;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use crate::page::Page;
use crate::stop::Stop;

/// The environment variable with the levels.
const VARIABLE: &str = "MILLSTREAM_LOG";

/// The environment variable with the format.
const FORMAT: &str = "MILLSTREAM_LOG_FORMAT";

/// The target of the program's own messages.
const TARGET: &str = "millstream";

/// The terminal's page, which keeps lines of the log from damaging a prompt.
static PAGE: Mutex<Option<Page>> = Mutex::new(None);

/// True if messages are objects.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// A message of the program for its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Information.
    Notice(&'a str),
    /// A problem that doesn't end the work.
    Warning(&'a str),
    /// The reason why the work ended; complete with its `error:`.
    Failure(&'a str),
    /// A line as it is.
    Line(&'a str),
}

/// Sets the format of messages, before anything is written. Without a format, the variable counts.
pub fn set_format(format: Option<LogFormat>) -> Result<(), Stop> {
    let format = match format {
        Some(format) => format,
        None => format_of(&std::env::var(FORMAT).unwrap_or_default())?,
    };
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
    if format == LogFormat::Json {
        std::panic::set_hook(Box::new(|panic| write_line(&json::panicked(panic))));
    }
    Ok(())
}

fn format_of(text: &str) -> Result<LogFormat, Stop> {
    match text.trim() {
        "" => Ok(LogFormat::Text),
        text => LogFormat::from_str(text, true)
            .map_err(|_| Stop::Usage(format!("{FORMAT} is '{text}', but text or json was expected"))),
    }
}

/// Shows events of the variable's levels from now on, or else of this level.
pub fn install(default: LevelFilter) -> Result<(), Stop> {
    let levels = match std::env::var(VARIABLE) {
        Ok(text) if !text.trim().is_empty() => levels(&text)?,
        _ => Targets::new().with_default(default),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(Log).log_internal_errors(false);
    let layer = match IS_JSON.load(Ordering::Relaxed) {
        true => layer.event_format(json::Objects).boxed(),
        false => layer.boxed(),
    };
    // It fails if a program that embeds this library has a subscriber of its own, which then counts.
    let _ = tracing_subscriber::registry().with(layer.with_filter(levels)).try_init();
    Ok(())
}

/// Writes the log above this page's prompt or line from now on.
pub fn show_on(page: &Page) {
    *PAGE.lock().unwrap_or_else(PoisonError::into_inner) = Some(page.clone());
}

/// Writes a message on standard error.
pub fn tell(message: Message<'_>) {
    if IS_JSON.load(Ordering::Relaxed) {
        let (level, text) = match message {
            Message::Notice(text) | Message::Line(text) => (Level::INFO, text),
            Message::Warning(text) => (Level::WARN, text),
            Message::Failure(text) => (Level::ERROR, text.strip_prefix("error: ").unwrap_or(text)),
        };
        return write_line(&json::message(level, TARGET, text));
    }
    match message {
        Message::Notice(text) => write_line(&format!("NOTICE: {text}")),
        Message::Warning(text) => write_line(&format!("WARNING: {text}")),
        Message::Failure(text) | Message::Line(text) => write_line(text),
    }
}

/// Writes a line at once, so that lines of several threads don't mix. A closed standard error is no failure.
fn write_line(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
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

    #[test]
    fn a_format_is_text_or_json() {
        for (text, format) in [("", LogFormat::Text), ("text", LogFormat::Text), (" JSON ", LogFormat::Json)]
        {
            assert_eq!(format_of(text), Ok(format));
        }
        let Err(Stop::Usage(message)) = format_of("xml") else { panic!("it is taken") };
        assert_eq!(message, "MILLSTREAM_LOG_FORMAT is 'xml', but text or json was expected");
    }
}
