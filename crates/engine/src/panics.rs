//! Panics: the error that each becomes, and where in the code it began.

use std::any::Any;
use std::backtrace::Backtrace;
use std::collections::VecDeque;
use std::panic;
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::thread;

use millstream_sql::{Error, sqlstate};

/// Backtraces that wait for whoever catches the panic; most panics are caught at once, by the thread that has them.
const WAITING_MAX: usize = 8;

/// The longest text of a backtrace that is kept.
const BYTES_MAX: usize = 16 * 1024;

static HOOK: Once = Once::new();
static WAITING: Mutex<VecDeque<Backtrace>> = Mutex::new(VecDeque::new());

/// The place in the code where something panicked, as text once a thread has looked up the names.
#[derive(Clone, Debug, Default)]
pub(crate) struct PanicTrace(Arc<OnceLock<String>>);

impl PanicTrace {
    /// The trace of the panic that this thread has caught, or of one that it was handed by a thread which worked for it.
    pub(crate) fn of_caught() -> PanicTrace {
        let trace = PanicTrace::default();
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        // The newest: that of this thread may be of a panic that somebody else has caught.
        let Some(backtrace) = waiting.pop_back() else { return trace };
        // Looking up names reads the program's symbols, which takes seconds in a large one.
        let text = trace.0.clone();
        let resolve = move || drop(text.set(bounded(backtrace.to_string())));
        let _ = thread::Builder::new().name("millstream-backtrace".into()).spawn(resolve);
        trace
    }

    /// Its text, once that is known.
    pub(crate) fn text(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// Lets every panic of this process leave its backtrace for [`PanicTrace::of_caught`].
pub(crate) fn keep_backtraces() {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |said| {
            let backtrace = Backtrace::force_capture();
            {
                let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.push_back(backtrace);
                if waiting.len() > WAITING_MAX {
                    waiting.pop_front();
                }
            }
            before(said);
        }));
    });
}

fn bounded(mut text: String) -> String {
    if text.len() > BYTES_MAX {
        text.truncate(text.floor_char_boundary(BYTES_MAX));
        text.push_str("\n…");
    }
    text
}

/// The error of work that panicked, which ends the query or statement and nothing else.
pub(crate) fn panicked(what: &str, said: &(dyn Any + Send)) -> Error {
    let text = said.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| said.downcast_ref::<&str>().copied()).unwrap_or("it doesn't say why");
    // What Arrow says where a column's values have more bytes than its offsets can count.
    if text.contains("offset overflow") {
        let message = format!("{what} has made a column of more than 2 GiB of texts or elements");
        let error = Error::invalid(message).code(sqlstate::PROGRAM_LIMIT_EXCEEDED);
        return error.hint("Gather less in one value (string_agg, array_agg), or let it have fewer rows.");
    }
    Error::bug(format!("{what} panicked: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backtrace_is_bounded_and_belongs_to_its_panic() {
        keep_backtraces();
        let caught = std::panic::catch_unwind(|| assert!(std::hint::black_box(false), "for a test"));
        assert!(caught.is_err());
        let trace = PanicTrace::of_caught();
        let begun = std::time::Instant::now();
        while trace.text().is_none() && begun.elapsed().as_secs() < 60 {
            thread::sleep(std::time::Duration::from_millis(10));
        }
        let text = trace.text().unwrap();
        assert!(text.contains("belongs_to_its_panic"), "{text}");
        assert_eq!(bounded("é".repeat(BYTES_MAX)).len(), BYTES_MAX + "\n…".len());
        assert_eq!(bounded("short".into()), "short");
    }

    #[test]
    fn a_column_that_is_too_large_is_no_bug() {
        let error = panicked("the query", &"offset overflow");
        assert_eq!((error.kind, error.sqlstate()), (crate::Kind::Invalid, sqlstate::PROGRAM_LIMIT_EXCEEDED));
    }

    #[test]
    fn an_error_says_what_the_panic_said() {
        for (panic, expected) in [
            (Box::new("no slot") as Box<dyn Any + Send>, "a step panicked: no slot"),
            (Box::new("no slot 7".to_string()), "a step panicked: no slot 7"),
            (Box::new(7), "a step panicked: it doesn't say why"),
        ] {
            assert!(panicked("a step", panic.as_ref()).message.contains(expected));
        }
    }
}
