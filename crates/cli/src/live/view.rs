//! Renders a live view: a pure function of the state, the user's choices and the screen size.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use console::{measure_text_width, truncate_str};

use crate::live::state::{Column, State, Values};
use crate::progress::{counted, grouped};

/// Time for which a changed value is highlighted.
pub const FRESH: Duration = Duration::from_millis(1_200);

/// Lines of the screen that aren't rows: title, names, status.
const FRAME: usize = 3;

/// The content of a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// The rows, each at its place.
    #[default]
    Rows,
    /// The inserts and deletes.
    Changes,
    /// The inserted rows.
    Appended,
}

/// The user's choices.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The content of the view.
    pub shown: Shown,
    /// The first row on the screen; for changes, the distance from the newest ones.
    pub offset: usize,
    /// The first column on the screen.
    pub left: usize,
    /// The column to sort by, and true for descending order.
    pub sort: Option<(usize, bool)>,
    /// True if the keys are explained.
    pub help: bool,
}

/// The information beside the rows.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The title of the query.
    pub title: String,
    /// Changes a second.
    pub per_second: f64,
    /// The engine's newest epoch.
    pub engine_epoch: u64,
}

/// The size of a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub lines: usize,
    /// Columns.
    pub columns: usize,
}

/// The highlighting of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// None.
    Plain,
    /// The title and the status.
    Bar,
    /// The names of columns.
    Name,
    /// NULL, and less important text.
    Dim,
    /// A value just inserted or changed.
    Fresh,
    /// An insert.
    Came,
    /// A delete.
    Went,
    /// An error.
    Wrong,
}

/// A line of the screen.
pub type Line = Vec<(Style, String)>;

/// A row before it is cut to the screen, with the style of each value.
type Styled = Vec<(Style, Option<String>)>;

impl View {
    /// Returns the number of rows that fit on a screen.
    pub fn page(size: Size) -> usize {
        size.lines.saturating_sub(FRAME).max(1)
    }

    /// Scrolls by a number of rows. Drawing keeps the offset within the rows.
    pub fn scroll(&mut self, rows: isize) {
        // The newest changes are at the bottom: up moves away from them.
        let rows = if self.shown == Shown::Rows { rows } else { -rows };
        self.offset = self.offset.saturating_add_signed(rows);
    }

    /// Limits the offset to `count` rows on pages of `page` rows.
    fn clamp(&self, count: usize, page: usize) -> usize {
        self.offset.min(count.saturating_sub(page))
    }
}

/// Returns the screen, line by line. The lines never exceed the screen's size.
pub fn render(state: &State, view: &View, status: &Status, size: Size, now: Instant) -> Vec<Line> {
    let page = View::page(size);
    let mut lines = vec![title(view, status, size.columns)];
    if view.help {
        lines.extend(HELP.lines().take(page + 1).map(|line| vec![(Style::Plain, cut(line, size.columns))]));
    } else {
        let (names, rows) = body(state, view, page, now);
        lines.push(table_line(&names, &columns(state, view), view.left, size.columns));
        lines.extend(
            rows.iter().take(page).map(|row| table_line(row, &columns(state, view), view.left, size.columns)),
        );
    }
    lines.truncate(size.lines.saturating_sub(1));
    while lines.len() + 1 < size.lines {
        lines.push(Vec::new());
    }
    lines.push(status_line(state, view, status, page, size.columns));
    lines.truncate(size.lines);
    lines
}

const HELP: &str = "
  r          rows, each changing at its place
  c          changes: + inserted rows, - deleted rows
  a          inserted rows, the newest at the bottom
  s  S       sort the rows by the next column; turn the order around
  arrows, PgUp, PgDn, Home, End    move
  q          leave; the query continues
  Ctrl-C     leave and end the query
  ?          this help, and back";

fn title(view: &View, status: &Status, width: usize) -> Line {
    let tabs = [(Shown::Rows, "rows"), (Shown::Changes, "changes"), (Shown::Appended, "appended")];
    let tabs: Vec<String> = tabs
        .iter()
        .map(|(shown, name)| if *shown == view.shown { format!("[{name}]") } else { format!(" {name} ") })
        .collect();
    let tabs = tabs.join(" ");
    let room = width.saturating_sub(tabs.len() + 3);
    let name = truncate_str(&status.title, room, "…").into_owned();
    let gap = width.saturating_sub(measure_text_width(&name) + tabs.len() + 2);
    vec![(Style::Bar, cut(&format!(" {name}{}{tabs} ", " ".repeat(gap)), width))]
}

/// Returns the displayed columns; changes also have the epoch and the sign in front.
fn columns(state: &State, view: &View) -> Vec<Column> {
    let mut columns = state.columns.clone();
    if view.shown == Shown::Rows {
        return columns;
    }
    let epoch = Column { name: "epoch".into(), right: true, width: state.epoch.to_string().len().max(5) };
    if view.shown == Shown::Changes {
        columns.insert(0, Column { name: String::new(), right: false, width: 1 });
    }
    columns.insert(0, epoch);
    columns
}

/// Returns the names of the columns, and the rows on the screen.
fn body(state: &State, view: &View, page: usize, now: Instant) -> (Styled, Vec<Styled>) {
    let mut names: Styled =
        columns(state, view).iter().map(|column| (Style::Name, Some(column.name.clone()))).collect();
    if view.shown == Shown::Rows
        && let Some((column, down)) = view.sort
        && let Some((_, Some(name))) = names.get_mut(column)
    {
        name.push_str(if down { "↓" } else { "↑" });
    }
    let rows =
        if view.shown == Shown::Rows { rows(state, view, page, now) } else { changes(state, view, page) };
    (names, rows)
}

fn rows(state: &State, view: &View, page: usize, now: Instant) -> Vec<Styled> {
    let offset = view.clamp(state.rows.len(), page);
    let mut rows: Vec<_> = state.rows.iter().collect();
    if let Some((column, down)) = view.sort {
        let right = state.columns.get(column).is_some_and(|column| column.right);
        rows.sort_by(|a, b| {
            let order = compare(&a.values, &b.values, column, right);
            if down { order.reverse() } else { order }
        });
    }
    let style = |row: &crate::live::state::Row, place: usize| {
        let value = &row.values[place];
        let fresh = row.changed.is_some_and(|changed| now.duration_since(changed) < FRESH);
        let same = row.before.as_ref().is_some_and(|before| before.get(place) == Some(value));
        match value {
            _ if fresh && !same => Style::Fresh,
            None => Style::Dim,
            Some(_) => Style::Plain,
        }
    };
    let rows = rows.into_iter().skip(offset).take(page);
    rows.map(|row| {
        (0..row.values.len()).map(|place| (style(row, place), row.values[place].clone())).collect()
    })
    .collect()
}

/// Compares numbers by value, all else as text; NULL is last.
fn compare(a: &Values, b: &Values, column: usize, right: bool) -> Ordering {
    let (a, b) = (a.get(column).and_then(Option::as_deref), b.get(column).and_then(Option::as_deref));
    match (a, b) {
        (Some(a), Some(b)) if right => {
            let number = |text: &str| text.parse::<f64>().unwrap_or(f64::NAN);
            number(a).total_cmp(&number(b))
        }
        (Some(a), Some(b)) => a.cmp(b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

fn changes(state: &State, view: &View, page: usize) -> Vec<Styled> {
    let wanted = |came: bool| view.shown == Shown::Changes || came;
    let changes: Vec<_> = state.changes.newest.iter().filter(|change| wanted(change.came)).collect();
    let end = changes.len() - view.clamp(changes.len(), page);
    let shown = &changes[end.saturating_sub(page)..end];
    let line = |change: &&crate::live::state::Change| {
        let style = match (view.shown, change.came) {
            (Shown::Appended, _) => Style::Plain,
            (_, true) => Style::Came,
            (_, false) => Style::Went,
        };
        let mut line = vec![(Style::Dim, Some(change.epoch.to_string()))];
        if view.shown == Shown::Changes {
            line.push((style, Some(if change.came { "+" } else { "-" }.to_owned())));
        }
        let style_of = |value: &Option<String>| if value.is_none() { Style::Dim } else { style };
        line.extend(change.values.iter().map(|value| (style_of(value), value.clone())));
        line
    };
    shown.iter().map(line).collect()
}

fn table_line(row: &Styled, columns: &[Column], left: usize, width: usize) -> Line {
    let mut line = Line::new();
    let mut room = width;
    for ((style, value), column) in row.iter().zip(columns).skip(left.min(columns.len().saturating_sub(1))) {
        let text = value.as_deref().unwrap_or("NULL");
        let padding = " ".repeat(column.width.saturating_sub(measure_text_width(text)));
        let text = if column.right { format!(" {padding}{text} ") } else { format!(" {text}{padding} ") };
        let text = cut(&text, room);
        room -= measure_text_width(&text).min(room);
        line.push((*style, text));
        if room == 0 {
            break;
        }
    }
    line
}

fn status_line(state: &State, view: &View, status: &Status, page: usize, width: usize) -> Line {
    let mut parts = vec![counted(state.rows.total().max(0) as u64, "row")];
    let count = match view.shown {
        Shown::Rows => state.rows.len(),
        Shown::Changes => state.changes.newest.len(),
        Shown::Appended => state.changes.newest.iter().filter(|change| change.came).count(),
    };
    if view.shown == Shown::Rows && (count > page || state.rows.total() > count as i64) {
        let first = view.clamp(count, page);
        parts.push(format!(
            "{}-{} shown",
            grouped(first as u64 + 1),
            grouped((first + page).min(count) as u64)
        ));
    }
    parts.push(format!("{} changes/s", grouped(status.per_second.round() as u64)));
    parts.push(format!("epoch {}", grouped(state.epoch)));
    parts.extend(lag(state, status));
    if state.restarts > 0 {
        parts.push(format!("restarted {}x: changes arrive too fast", state.restarts));
    }
    let (style, end) = match &state.end {
        None => (Style::Bar, "q leaves · ? keys".to_owned()),
        Some(Ok(())) => (Style::Bar, "all input has ended · q leaves".to_owned()),
        Some(Err(message)) => {
            (Style::Wrong, format!("ended: {} · q leaves", message.lines().next().unwrap_or_default()))
        }
    };
    parts.push(end);
    let text = cut(&format!(" {}", parts.join(" · ")), width);
    let padding = " ".repeat(width.saturating_sub(measure_text_width(&text)));
    vec![(style, text + &padding)]
}

/// Returns how far the displayed state lags.
fn lag(state: &State, status: &Status) -> Vec<String> {
    let mut parts = Vec::new();
    let behind = status.engine_epoch.saturating_sub(state.epoch);
    if let Some(delay) = state.load.delay_us {
        parts.push(match delay {
            delay if delay < 1_000_000 => format!("lag {:.1} ms", delay as f64 / 1e3),
            delay => format!("lag {:.1} s", delay as f64 / 1e6),
        });
    }
    if behind > 1 {
        parts.push(format!("{} behind", counted(behind, "epoch")));
    }
    if state.load.waiting > 0 {
        parts.push(format!("{} wait", counted(state.load.waiting, "row")));
    }
    parts
}

fn cut(text: &str, width: usize) -> String {
    truncate_str(text, width, "…").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::state::tests::batch;

    const SIZE: Size = Size { lines: 7, columns: 60 };

    fn state(now: Instant) -> State {
        let first = batch(&[
            (1, "insert", Some("apples"), Some(10)),
            (1, "insert", Some("pears"), Some(2)),
            (1, "insert", None, Some(300)),
            (1, "progress", None, None),
        ]);
        let mut state = State::new(&first.schema());
        state.apply(&first, now).unwrap();
        let second = [
            (2, "update_delete", Some("pears"), Some(2)),
            (2, "update_insert", Some("pears"), Some(3)),
            (2, "progress", None, None),
        ];
        state.apply(&batch(&second), now).unwrap();
        state
    }

    fn text(lines: &[Line]) -> String {
        let line = |line: &Line| {
            line.iter().map(|(_, text)| text.as_str()).collect::<String>().trim_end().to_owned()
        };
        lines.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn status() -> Status {
        Status { title: "stock".into(), per_second: 1234.4, engine_epoch: 2 }
    }

    fn check(view: &View, size: Size, expect: &str) {
        let now = Instant::now();
        let mut state = state(now);
        state.load.delay_us = Some(2_300);
        let lines = render(&state, view, &status(), size, now);
        assert!(lines.len() <= size.lines);
        for line in &lines {
            assert!(
                line.iter().map(|(_, text)| measure_text_width(text)).sum::<usize>() <= size.columns,
                "{line:?}"
            );
        }
        assert_eq!(text(&lines), expect);
    }

    #[test]
    fn rows_stand_at_their_places() {
        check(
            &View::default(),
            SIZE,
            " stock                          [rows]  changes   appended
 word      n
 apples   10
 pears     3
 NULL    300

 3 rows · 1,234 changes/s · epoch 2 · lag 2.3 ms · q leaves…",
        );
        let view = View { sort: Some((1, true)), offset: 9, ..View::default() };
        check(
            &view,
            Size { lines: 5, columns: 40 },
            " stock      [rows]  changes   appended
 word     n↓
 apples   10
 pears     3
 3 rows · 2-3 shown · 1,234 changes/s ·…",
        );
    }

    #[test]
    fn changes_have_signs() {
        let view = View { shown: Shown::Changes, ..View::default() };
        check(
            &view,
            SIZE,
            " stock                           rows  [changes]  appended
 epoch     word      n
     1  +  pears     2
     1  +  NULL    300
     2  -  pears     2
     2  +  pears     3
 3 rows · 1,234 changes/s · epoch 2 · lag 2.3 ms · q leaves…",
        );
        let view = View { shown: Shown::Appended, offset: 1, ..View::default() };
        check(
            &view,
            Size { lines: 5, columns: 50 },
            " stock                 rows   changes  [appended]
 epoch  word      n
     1  pears     2
     1  NULL    300
 3 rows · 1,234 changes/s · epoch 2 · lag 2.3 ms …",
        );
    }

    #[test]
    fn small_screens_are_no_trouble() {
        let now = Instant::now();
        for (lines, columns) in [(0, 0), (1, 1), (2, 5), (3, 200), (50, 3)] {
            for shown in [Shown::Rows, Shown::Changes, Shown::Appended] {
                for help in [false, true] {
                    let view = View { shown, help, left: 9, offset: 100, sort: Some((7, true)) };
                    let drawn = render(&state(now), &view, &status(), Size { lines, columns }, now);
                    assert_eq!(drawn.len(), lines);
                }
            }
        }
    }

    #[test]
    fn what_has_changed_stands_out_for_a_while() {
        let now = Instant::now();
        let state = state(now);
        let fresh = |at: Instant| {
            let lines = render(&state, &View::default(), &status(), SIZE, at);
            lines
                .concat()
                .into_iter()
                .filter(|(style, _)| *style == Style::Fresh)
                .map(|(_, text)| text)
                .collect::<Vec<_>>()
        };
        assert_eq!(fresh(now), ["   3 "]);
        assert_eq!(fresh(now + FRESH), Vec::<String>::new());
    }

    #[test]
    fn its_end_is_said() {
        let now = Instant::now();
        let mut state = state(now);
        state.end = Some(Err("\"stock\" was dropped".into()));
        let lines = render(&state, &View::default(), &status(), Size { lines: 7, columns: 100 }, now);
        assert!(text(&lines).contains("ended: \"stock\" was dropped"));
        assert_eq!(lines.last().map(|line| line[0].0), Some(Style::Wrong));
    }
}
