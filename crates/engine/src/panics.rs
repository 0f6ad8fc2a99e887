//! Panics: their conversion to errors, and their backtraces.

use std::any::Any;
use std::backtrace::Backtrace;
use std::collections::VecDeque;
use std::panic;
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::thread;

use millstream_delta::spawn_detached;
use millstream_sql::{Error, sqlstate};

/// The maximum number of waiting backtraces. Most panics are caught at once, by their own thread.
const WAITING_MAX: usize = 8;

/// The maximum length of a backtrace's text.
const BYTES_MAX: usize = 16 * 1024;

static HOOK: Once = Once::new();
static WAITING: Mutex<VecDeque<Backtrace>> = Mutex::new(VecDeque::new());

/// The backtrace of a panic, as text once a thread has looked up the names.
#[derive(Clone, Debug, Default)]
pub(crate) struct PanicTrace(Arc<OnceLock<String>>);

impl PanicTrace {
    /// Returns the trace of the panic that this thread has caught, or that a helper thread has passed to it.
    pub(crate) fn of_caught() -> PanicTrace {
        let trace = PanicTrace::default();
        let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        // Takes the newest: an older one of this thread may belong to a panic that was caught elsewhere.
        let Some(backtrace) = waiting.pop_back() else { return trace };
        // Looking up names reads the program's symbols, which takes seconds in a large program.
        let text = trace.0.clone();
        let resolve = move || drop(text.set(bounded(backtrace.to_string())));
        let _ = spawn_detached(thread::Builder::new().name("millstream-backtrace".into()), resolve);
        trace
    }

    /// Returns its text, once available.
    pub(crate) fn text(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// Installs a hook that saves the backtrace of every panic for [`PanicTrace::of_caught`].
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

/// Returns the error for a panic. It ends only the query or statement.
pub(crate) fn panicked(what: &str, said: &(dyn Any + Send)) -> Error {
    let text = said.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| said.downcast_ref::<&str>().copied()).unwrap_or("it doesn't say why");
    // Arrow's panic message if a column's values exceed the range of its offsets.
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
