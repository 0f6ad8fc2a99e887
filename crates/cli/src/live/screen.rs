//! Draws a live view on the terminal and handles the user's keys.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Color, Print, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{execute, queue};
use millstream::Engine;

use crate::live::feed::Feed;
use crate::live::view::{FRESH, Line, Shown, Size, Status, Style, View, render};

/// The time between two frames: about twelve a second.
const FRAME: Duration = Duration::from_millis(80);
/// Interval over which the newest rate is measured.
const RATE: Duration = Duration::from_millis(500);

/// The way the user left a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The query continues.
    Running,
    /// The query must end.
    Ended,
}

/// The terminal in full-screen mode. Dropping this restores it in any case.
struct Screen {
    drawn: Vec<Line>,
    size: Size,
    color: bool,
}

impl Screen {
    fn open(color: bool) -> io::Result<Screen> {
        enable_raw_mode()?;
        let screen = Screen { drawn: Vec::new(), size: size()?, color };
        execute!(io::stdout(), EnterAlternateScreen, Hide, Clear(ClearType::All))?;
        Ok(screen)
    }

    /// Draws the lines that have changed.
    fn draw(&mut self, lines: Vec<Line>) -> io::Result<()> {
        let mut text: Vec<u8> = Vec::new();
        for (place, line) in lines.iter().enumerate() {
            if self.drawn.get(place) == Some(line) {
                continue;
            }
            queue!(text, MoveTo(0, place as u16), Clear(ClearType::CurrentLine))?;
            for (style, part) in line {
                self.paint(&mut text, *style, part)?;
            }
        }
        self.drawn = lines;
        if text.is_empty() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(&text)?;
        out.flush()
    }

    fn paint(&self, text: &mut Vec<u8>, style: Style, part: &str) -> io::Result<()> {
        let attribute = match style {
            Style::Bar | Style::Wrong => Some(Attribute::Reverse),
            Style::Name | Style::Fresh => Some(Attribute::Bold),
            Style::Dim => Some(Attribute::Dim),
            Style::Plain | Style::Came | Style::Went => None,
        };
        let color = match style {
            Style::Fresh | Style::Came => Some(Color::Green),
            Style::Went | Style::Wrong => Some(Color::Red),
            _ => None,
        };
        if let Some(attribute) = attribute {
            queue!(text, SetAttribute(attribute))?;
        }
        if let Some(color) = color.filter(|_| self.color) {
            queue!(text, SetForegroundColor(color))?;
        }
        queue!(text, Print(part))?;
        if attribute.is_some() {
            queue!(text, SetAttribute(Attribute::Reset))?;
        }
        if color.is_some() && self.color {
            queue!(text, ResetColor)?;
        }
        Ok(())
    }

    /// Adapts to a new size; all lines must be drawn again.
    fn resize(&mut self) -> io::Result<()> {
        self.size = size()?;
        self.drawn.clear();
        execute!(io::stdout(), Clear(ClearType::All))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone can't be restored.
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

fn size() -> io::Result<Size> {
    let (columns, lines) = crossterm::terminal::size()?;
    Ok(Size { lines: lines.into(), columns: columns.into() })
}

/// The rate of changes.
struct Rate {
    at: Instant,
    changed: u64,
    per_second: f64,
}

impl Rate {
    fn measure(&mut self, changed: u64, now: Instant) -> f64 {
        let time = now.duration_since(self.at);
        if time >= RATE {
            let newest = changed.saturating_sub(self.changed) as f64 / time.as_secs_f64();
            *self = Rate { at: now, changed, per_second: (self.per_second + newest) / 2.0 };
            // A rate close to zero is shown as zero.
            self.per_second = if newest == 0.0 && self.per_second < 1.0 { 0.0 } else { self.per_second };
        }
        self.per_second
    }
}

/// Shows a view until the user leaves it.
pub fn show(feed: &Feed, engine: &Engine, title: &str, view: &mut View, color: bool) -> io::Result<Left> {
    let mut screen = Screen::open(color)?;
    let mut rate = Rate { at: Instant::now(), changed: feed.state().changes.count, per_second: 0.0 };
    loop {
        let now = Instant::now();
        let lines = {
            let state = feed.state();
            let per_second = rate.measure(state.changes.count, now);
            let status =
                Status { title: title.to_owned(), per_second, engine_epoch: engine.progress().epochs };
            render(&state, view, &status, screen.size, now)
        };
        screen.draw(lines)?;
        let until = Instant::now() + FRAME;
        while event::poll(until.saturating_duration_since(Instant::now()))? {
            match event::read()? {
                Event::Resize(..) => screen.resize()?,
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let columns = feed.state().columns.len();
                    if let Some(left) = press(key, view, screen.size, columns) {
                        return Ok(left);
                    }
                    // Draw the effect of a key at once.
                    break;
                }
                _ => {}
            }
        }
    }
}

/// Handles a key.
fn press(key: KeyEvent, view: &mut View, size: Size, columns: usize) -> Option<Left> {
    let page = View::page(size) as isize;
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Left::Ended),
            KeyCode::Char('d') => Some(Left::Running),
            _ => None,
        };
    }
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Some(Left::Running),
        KeyCode::Char('r') => choose(view, Shown::Rows),
        KeyCode::Char('c') => choose(view, Shown::Changes),
        KeyCode::Char('a') => choose(view, Shown::Appended),
        KeyCode::Char('?' | 'h') => view.help = !view.help,
        KeyCode::Char('s') => view.sort = next_sort(view.sort, columns),
        KeyCode::Char('S') => view.sort = view.sort.map(|(column, down)| (column, !down)),
        KeyCode::Up | KeyCode::Char('k') => view.scroll(-1),
        KeyCode::Down | KeyCode::Char('j') => view.scroll(1),
        KeyCode::PageUp => view.scroll(-page),
        KeyCode::PageDown | KeyCode::Char(' ') => view.scroll(page),
        KeyCode::Home => view.offset = if view.shown == Shown::Rows { 0 } else { usize::MAX / 2 },
        KeyCode::End => view.offset = if view.shown == Shown::Rows { usize::MAX / 2 } else { 0 },
        KeyCode::Left => view.left = view.left.saturating_sub(1),
        KeyCode::Right => view.left = (view.left + 1).min(columns.saturating_sub(1)),
        _ => {}
    }
    None
}

fn choose(view: &mut View, shown: Shown) {
    *view = View { shown, sort: view.sort, ..View::default() };
}

/// Returns the next column to sort by, in descending order; `None` after the last one.
fn next_sort(sort: Option<(usize, bool)>, columns: usize) -> Option<(usize, bool)> {
    let next = sort.map_or(0, |(column, _)| column + 1);
    (next < columns).then_some((next, true))
}

/// A change must stay fresh for longer than a frame.
const _: () = assert!(FRESH.as_millis() > FRAME.as_millis());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_do_what_they_say() {
        let size = Size { lines: 13, columns: 80 };
        let mut view = View::default();
        let mut type_key = |code, modifiers| {
            let left = press(KeyEvent::new(code, modifiers), &mut view, size, 2);
            (left, view.clone())
        };
        let plain = KeyModifiers::NONE;
        assert_eq!(type_key(KeyCode::PageDown, plain).1.offset, 10);
        assert_eq!(type_key(KeyCode::Up, plain).1.offset, 9);
        assert_eq!(type_key(KeyCode::Char('s'), plain).1.sort, Some((0, true)));
        assert_eq!(type_key(KeyCode::Char('S'), plain).1.sort, Some((0, false)));
        assert_eq!(type_key(KeyCode::Char('s'), plain).1.sort, Some((1, true)));
        let changes = type_key(KeyCode::Char('c'), plain).1;
        assert_eq!((changes.shown, changes.offset), (Shown::Changes, 0));
        // The newest changes are at the bottom.
        assert_eq!(type_key(KeyCode::Up, plain).1.offset, 1);
        assert_eq!(type_key(KeyCode::Char('s'), plain).1.sort, None);
        assert_eq!(type_key(KeyCode::Right, plain).1.left, 1);
        assert_eq!(type_key(KeyCode::Right, plain).1.left, 1);
        assert_eq!(type_key(KeyCode::Char('c'), KeyModifiers::CONTROL).0, Some(Left::Ended));
        assert_eq!(type_key(KeyCode::Char('q'), plain).0, Some(Left::Running));
    }

    #[test]
    fn the_rate_settles_at_nothing() {
        let start = Instant::now();
        let mut rate = Rate { at: start, changed: 0, per_second: 0.0 };
        assert_eq!(rate.measure(1_000, start + RATE), 1_000.0);
        assert_eq!(rate.measure(1_000, start + RATE * 3 / 2), 1_000.0);
        assert_eq!(rate.measure(1_000, start + RATE * 2), 500.0);
        for frame in 3..20 {
            rate.measure(1_000, start + RATE * frame);
        }
        assert_eq!(rate.per_second, 0.0);
    }
}
