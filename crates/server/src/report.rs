//! Converts errors and notices for clients.

use millstream_engine::Error;

use crate::answer::Report;
use crate::interrupt::MESSAGES_BYTES_MAX;
use crate::message::{Garbage, MESSAGE_BYTES_MAX};
use crate::wire::Stop;

/// Creates an error of the protocol or of the server.
pub(crate) fn error(code: &str, message: impl Into<String>) -> Report {
    Report { severity: "ERROR", code: code.into(), message: message.into(), ..Report::default() }
}

/// Creates an error that ends the connection.
pub(crate) fn fatal(code: &str, message: impl Into<String>) -> Report {
    Report { severity: "FATAL", ..error(code, message) }
}

/// Creates a notice for the user.
pub(crate) fn notice(message: impl Into<String>) -> Report {
    Report { severity: "NOTICE", ..error("00000", message) }
}

/// Converts an error of the engine; `sql` is the client's text that the error points into.
pub(crate) fn failed(failed: Error, sql: &str) -> Report {
    let position = failed.span.as_ref().and_then(|span| Some(sql.get(..span.start)?.chars().count() + 1));
    Report { hint: failed.hint.clone(), position, ..error(failed.sqlstate(), failed.message.clone()) }
}

/// Returns the report of a stopped statement.
pub(crate) fn stopped(stop: Stop) -> Report {
    match stop {
        Stop::Failed(engine) => failed(engine, ""),
        Stop::Refused(report) => *report,
        Stop::Garbage(garbage) if garbage.is_fatal() => fatal("08P01", garbage.to_string()),
        Stop::Garbage(garbage @ Garbage::Encoding(_)) => error("22021", garbage.to_string()),
        Stop::Garbage(garbage) => error("08P01", garbage.to_string()),
        Stop::Cancelled => error("57014", "canceling statement due to user request"),
        Stop::Shutdown | Stop::Gone => {
            fatal("57P01", "the server is stopping: connect again when it is back")
        }
    }
}

/// Creates the error of a skipped message: all messages together need too much memory.
pub(crate) fn no_room(bytes: usize) -> Report {
    let mut report = error(
        "53200",
        format!(
            "there is no room for a message of {bytes} bytes: the messages of all clients may have \
             {MESSAGES_BYTES_MAX} bytes together"
        ),
    );
    report.hint = Some("Try again later, or send many rows with COPY … FROM STDIN.".into());
    report
}

/// Creates the error of a skipped message that is too long.
pub(crate) fn too_long(bytes: usize) -> Report {
    let mut report = error(
        "54000",
        format!("a message of {bytes} bytes was sent, where at most {MESSAGE_BYTES_MAX} bytes are taken"),
    );
    report.hint = Some("Send many rows with COPY … FROM STDIN, or in several statements.".into());
    report
}
