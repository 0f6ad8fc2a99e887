//! The output of sinks of the connector `print`, beside a user's terminal.
//!
//! Sinks write whenever an epoch is done. Their output must not damage the progress line or the text being
//! typed. A closed output must be noticed.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use console::Term;
use tokio::sync::Notify;

/// Writes whole texts, even while a prompt waits.
pub type Printer = Box<dyn FnMut(String) -> io::Result<()> + Send>;

/// Standard output for `print`. Clones are the same page.
#[derive(Clone, Default)]
pub struct Page {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    surroundings: Mutex<Surroundings>,
    closed: Notify,
}

/// The other content of the terminal.
#[derive(Default)]
struct Surroundings {
    line: Option<String>,
    printer: Option<Printer>,
    held: Option<Held>,
    closed: bool,
}

/// The output held back while something else used the screen.
#[derive(Default)]
struct Held {
    text: Vec<u8>,
    /// Number of bytes dropped because the buffer was full.
    lost: usize,
}

/// Holds back output for as long as this exists, because something else uses the screen.
pub struct Hold {
    page: Page,
}

/// Maximum bytes held back.
const HELD_MAX: usize = 1 << 20;

/// A line on standard error below the output, for as long as this exists.
pub struct Line {
    page: Page,
}

impl Page {
    /// Adds a line below the output; it is empty at first.
    pub fn line(&self) -> Line {
        Line { page: self.clone() }
    }

    /// Prints with `printer` from now on.
    pub fn set_printer(&self, printer: Option<Printer>) {
        self.surroundings(|all| all.printer = printer);
    }

    /// Holds back output.
    pub fn hold(&self) -> Hold {
        self.surroundings(|all| all.held = Some(Held::default()));
        Hold { page: self.clone() }
    }

    /// Runs `write`, which writes to the terminal in another way.
    pub fn aside(&self, write: impl FnOnce()) {
        self.surroundings(|all| all.above_line(write));
    }

    /// Writes lines of the log on standard error, or above the prompt.
    pub fn log(&self, bytes: &[u8]) -> io::Result<()> {
        self.surroundings(|all| {
            if let Some(held) = &mut all.held {
                held.add(bytes);
                return Ok(());
            }
            match &mut all.printer {
                Some(printer) => printer(String::from_utf8_lossy(bytes).into_owned()),
                None => all.above_line(|| io::stderr().write_all(bytes)),
            }
        })
    }

    /// Returns once, when the reader of the output has closed it.
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

/// Draws the line. The line is optional, so an error is ignored.
fn draw(line: &str) {
    let _ = Term::stderr().write_str(line);
}

fn erase() {
    let _ = Term::stderr().clear_line();
}

impl Write for Page {
    /// Writes all bytes. After the output is closed, discards them: the program is about to end, and this
    /// is no failure of the sink.
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
                let note = format!("({} more bytes were printed in the meantime)\n", held.lost);
                held.text.extend_from_slice(note.as_bytes());
            }
            if !held.text.is_empty() {
                // The next writer meets the same failure.
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
