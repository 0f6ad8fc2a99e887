//! Errors and notices as clients get them.

use millstream_engine::Error;

use crate::answer::Report;
use crate::interrupt::MESSAGES_BYTES_MAX;
use crate::message::{Garbage, MESSAGE_BYTES_MAX};
use crate::wire::Stop;

/// An error of the protocol or of the server.
pub(crate) fn error(code: &str, message: impl Into<String>) -> Report {
    Report { severity: "ERROR", code: code.into(), message: message.into(), ..Report::default() }
}

/// An error after which the connection ends.
pub(crate) fn fatal(code: &str, message: impl Into<String>) -> Report {
    Report { severity: "FATAL", ..error(code, message) }
}

/// What the user should know besides.
pub(crate) fn notice(message: impl Into<String>) -> Report {
    Report { severity: "NOTICE", ..error("00000", message) }
}

/// An error of the engine; `sql` is what the client sent, into which the error points.
pub(crate) fn failed(failed: Error, sql: &str) -> Report {
    let position = failed.span.as_ref().and_then(|span| Some(sql.get(..span.start)?.chars().count() + 1));
    Report { hint: failed.hint.clone(), position, ..error(failed.sqlstate(), failed.message.clone()) }
}

/// What ended a statement.
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

/// A message that was passed over, since messages take too much memory in all.
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

/// A message that was passed over.
pub(crate) fn too_long(bytes: usize) -> Report {
    let mut report = error(
        "54000",
        format!("a message of {bytes} bytes was sent, where at most {MESSAGE_BYTES_MAX} bytes are taken"),
    );
    report.hint = Some("Send many rows with COPY … FROM STDIN, or in several statements.".into());
    report
}
