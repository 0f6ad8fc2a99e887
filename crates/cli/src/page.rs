//! Where the sinks of the connector `print` write while somebody looks on.
//!
//! They write whenever an epoch is done: that must not tear the progress line or what is being typed, and it
//! must be noticed when nobody reads any more.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use console::Term;
use tokio::sync::Notify;

/// Writes whole texts, even while a prompt waits.
pub type Printer = Box<dyn FnMut(String) -> io::Result<()> + Send>;

/// Standard output as `print` sees it. Clones are the same page.
#[derive(Clone, Default)]
pub struct Page {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    surroundings: Mutex<Surroundings>,
    closed: Notify,
}

/// What else stands on the terminal.
#[derive(Default)]
struct Surroundings {
    line: Option<String>,
    printer: Option<Printer>,
    held: Option<Held>,
    closed: bool,
}

/// What was printed while something else had the screen.
#[derive(Default)]
struct Held {
    text: Vec<u8>,
    /// Bytes that there was no room for.
    lost: usize,
}

/// Keeps what is printed back for as long as this exists: something else has the screen.
pub struct Hold {
    page: Page,
}

/// So many bytes are kept back.
const HELD_MAX: usize = 1 << 20;

/// A line on standard error that stands at the bottom of the page for as long as this exists.
pub struct Line {
    page: Page,
}

impl Page {
    /// Keeps a line below what is printed; it is empty at first.
    pub fn line(&self) -> Line {
        Line { page: self.clone() }
    }

    /// Prints by `printer` from now on.
    pub fn set_printer(&self, printer: Option<Printer>) {
        self.surroundings(|all| all.printer = printer);
    }

    /// Keeps back what is printed.
    pub fn hold(&self) -> Hold {
        self.surroundings(|all| all.held = Some(Held::default()));
        Hold { page: self.clone() }
    }

    /// Does what writes to the terminal in other ways.
    pub fn aside(&self, write: impl FnOnce()) {
        self.surroundings(|all| all.above_line(write));
    }

    /// Returns once, when whoever read the output has gone.
    pub async fn closed(&self) {
        self.shared.closed.notified().await;
    }

    fn surroundings<T>(&self, change: impl FnOnce(&mut Surroundings) -> T) -> T {
        change(&mut self.shared.surroundings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Surroundings {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(held) = &mut self.held {
            held.add(bytes);
            return Ok(());
        }
        if let Some(printer) = &mut self.printer {
            return printer(String::from_utf8_lossy(bytes).into_owned());
        }
        let write = || {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        };
        self.above_line(write)
    }

    fn above_line<T>(&self, write: impl FnOnce() -> T) -> T {
        let Some(line) = &self.line else { return write() };
        erase();
        let written = write();
        draw(line);
        written
    }
}

impl Held {
    fn add(&mut self, bytes: &[u8]) {
        if self.lost == 0 && self.text.len() + bytes.len() <= HELD_MAX {
            self.text.extend_from_slice(bytes);
        } else {
            self.lost += bytes.len();
        }
    }
}

/// The line is a nicety: were it not to be seen, that would be no failure.
fn draw(line: &str) {
    let _ = Term::stderr().write_str(line);
}

fn erase() {
    let _ = Term::stderr().clear_line();
}

impl Write for Page {
    /// Writes all of it. Once nobody reads any more, what is written goes nowhere: the program is about to
    /// end, and until then this is no failure of the sink's.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let closed = self.surroundings(|all| {
            if !all.closed {
                match all.write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => all.closed = true,
                    result => return result.map(|()| false),
                }
                return Ok(true);
            }
            Ok(false)
        })?;
        if closed {
            self.shared.closed.notify_one();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Line {
    /// Shows another text, which must not be wider than the terminal.
    pub fn show(&self, text: String) {
        self.page.surroundings(|all| {
            erase();
            draw(&text);
            all.line = Some(text);
        });
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.page.surroundings(|all| {
            let Some(mut held) = all.held.take() else { return };
            if held.lost > 0 {
                let note = format!("({} more bytes were printed meanwhile)\n", held.lost);
                held.text.extend_from_slice(note.as_bytes());
            }
            if !held.text.is_empty() {
                // Whoever prints next meets the failure again.
                let _ = all.write(&held.text);
            }
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.page.surroundings(|all| {
            if all.line.take().is_some() {
                erase();
            }
        });
    }
}
