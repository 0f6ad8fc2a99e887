//! The user's choices in `top`, and the keys that change them.

use std::cmp::Ordering;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::top::details::Object;
use crate::top::figures::Figures;

/// A table of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Table {
    /// Materialized views and streams.
    #[default]
    Queries,
    /// Sources.
    Sources,
    /// Sinks.
    Sinks,
}

/// The tables from top to bottom.
pub const TABLES: [Table; 3] = [Table::Queries, Table::Sources, Table::Sinks];

/// The order of the rows of all tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The busiest first; sources by their rate.
    #[default]
    Busy,
    /// The objects that keep most first, by state, waiting rows or waiting bytes.
    Size,
    /// The objects with most rows first, by rows of results, lag or rows a second.
    Rows,
    /// By name.
    Name,
}

/// The user's choices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The table that the arrows move in.
    pub table: Table,
    /// The order.
    pub sort: Sort,
    /// True if no readings are taken.
    pub is_paused: bool,
    /// The name of the selected object of each table; the first one if it is gone.
    pub selected: [Option<String>; 3],
    /// The object whose details are shown.
    pub opened: Option<Object>,
    /// The first row of the details.
    pub scroll: usize,
}

impl Sort {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Sort::Busy => "busy",
            Sort::Size => "size",
            Sort::Rows => "rows",
            Sort::Name => "name",
        }
    }

    fn next(self) -> Sort {
        match self {
            Sort::Busy => Sort::Size,
            Sort::Size => Sort::Rows,
            Sort::Rows => Sort::Name,
            Sort::Name => Sort::Busy,
        }
    }

    /// Sorts all tables. Objects with the same figure are in the order of their names.
    pub fn apply(self, figures: &mut Figures) {
        figures.queries.sort_by(|one, other| {
            let figures = match self {
                Sort::Busy => descending(one.busy, other.busy),
                Sort::Size => descending(one.state, other.state),
                Sort::Rows => descending(one.rows, other.rows),
                Sort::Name => Ordering::Equal,
            };
            figures.then_with(|| one.name.cmp(&other.name))
        });
        figures.sources.sort_by(|one, other| {
            let figures = match self {
                Sort::Busy => descending(one.rate, other.rate),
                Sort::Size => descending(one.waiting, other.waiting),
                Sort::Rows => descending(one.lag, other.lag),
                Sort::Name => Ordering::Equal,
            };
            figures.then_with(|| one.name.cmp(&other.name))
        });
        figures.sinks.sort_by(|one, other| {
            let figures = match self {
                Sort::Busy => descending(one.busy, other.busy),
                Sort::Size => descending(one.waiting_bytes, other.waiting_bytes),
                Sort::Rows => descending(one.rate, other.rate),
                Sort::Name => Ordering::Equal,
            };
            figures.then_with(|| one.name.cmp(&other.name))
        });
    }
}

/// Compares two figures: the larger one first, an unknown one last.
fn descending(one: Option<f64>, other: Option<f64>) -> Ordering {
    other.unwrap_or(-1.0).total_cmp(&one.unwrap_or(-1.0))
}

impl Figures {
    /// Returns the names in a table.
    pub fn names(&self, table: Table) -> Vec<&str> {
        match table {
            Table::Queries => self.queries.iter().map(|query| query.name.as_str()).collect(),
            Table::Sources => self.sources.iter().map(|source| source.name.as_str()).collect(),
            Table::Sinks => self.sinks.iter().map(|sink| sink.name.as_str()).collect(),
        }
    }

    fn object(&self, table: Table, at: usize) -> Option<Object> {
        let name = (*self.names(table).get(at)?).to_owned();
        let kind = match table {
            Table::Queries => self.queries.get(at)?.kind.clone(),
            Table::Sources => "source".to_owned(),
            Table::Sinks => "sink".to_owned(),
        };
        Some(Object { table, kind, name })
    }
}

impl View {
    /// Returns the place of the selected row in a table; `None` if the table is empty.
    pub fn place(&self, table: Table, figures: &Figures) -> Option<usize> {
        let names = figures.names(table);
        let selected = self.selected[table as usize].as_deref();
        let place = selected.and_then(|selected| names.iter().position(|name| *name == selected));
        place.or((!names.is_empty()).then_some(0))
    }

    /// Handles a key. Returns true if the user leaves. `page` is the number of rows of a page of the details.
    pub fn press(&mut self, key: KeyEvent, figures: &Figures, page: usize) -> bool {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return matches!(key.code, KeyCode::Char('c' | 'd'));
        }
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left if self.opened.is_some() => self.opened = None,
            KeyCode::Esc => return true,
            KeyCode::Enter | KeyCode::Right if self.opened.is_none() => {
                self.scroll = 0;
                let place = self.place(self.table, figures);
                self.opened = place.and_then(|at| figures.object(self.table, at));
            }
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('p') => self.is_paused = !self.is_paused,
            KeyCode::Tab if self.opened.is_none() => self.switch(figures, 1),
            KeyCode::BackTab if self.opened.is_none() => self.switch(figures, TABLES.len() - 1),
            KeyCode::Up | KeyCode::Char('k') => self.move_by(figures, -1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(figures, 1),
            KeyCode::PageUp => self.move_by(figures, -(page as isize)),
            KeyCode::PageDown | KeyCode::Char(' ') => self.move_by(figures, page as isize),
            KeyCode::Home => self.move_by(figures, isize::MIN / 2),
            KeyCode::End => self.move_by(figures, isize::MAX / 2),
            _ => {}
        }
        false
    }

    /// Switches to the next table that has rows, in steps of `step`.
    fn switch(&mut self, figures: &Figures, step: usize) {
        let mut at = self.table as usize;
        for _ in TABLES {
            at = (at + step) % TABLES.len();
            if !figures.names(TABLES[at]).is_empty() {
                self.table = TABLES[at];
                return;
            }
        }
    }

    /// Selects another row of the table; in details, scrolls.
    fn move_by(&mut self, figures: &Figures, rows: isize) {
        if self.opened.is_some() {
            self.scroll = self.scroll.saturating_add_signed(rows);
            return;
        }
        let Some(place) = self.place(self.table, figures) else { return };
        let names = figures.names(self.table);
        let place = place.saturating_add_signed(rows).min(names.len() - 1);
        self.selected[self.table as usize] = Some(names[place].to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::figures::{Query, Sink};

    fn figures() -> Figures {
        let query = |name: &str, busy, state| Query {
            name: name.into(),
            kind: "stream".into(),
            busy,
            state,
            ..Query::default()
        };
        let queries =
            vec![query("c", None, Some(1.0)), query("b", Some(0.5), None), query("a", Some(0.5), Some(2.0))];
        let sinks = vec![Sink { name: "k".into(), ..Sink::default() }];
        Figures { queries, sinks, ..Figures::default() }
    }

    fn press(view: &mut View, figures: &Figures, code: KeyCode) -> bool {
        view.press(KeyEvent::new(code, KeyModifiers::NONE), figures, 10)
    }

    #[test]
    fn rows_are_sorted_by_each_figure() {
        let mut figures = figures();
        let mut names = |sort: Sort| {
            sort.apply(&mut figures);
            figures.names(Table::Queries).concat()
        };
        assert_eq!([Sort::Busy, Sort::Size, Sort::Name].map(&mut names), ["abc", "acb", "abc"]);
        let mut sort = Sort::Busy;
        let mut all = Vec::new();
        for _ in 0..5 {
            all.push(sort.name());
            sort = sort.next();
        }
        assert_eq!(all, ["busy", "size", "rows", "name", "busy"]);
    }

    #[test]
    fn a_selected_object_stays_selected_when_the_order_changes() {
        let mut figures = figures();
        Sort::Busy.apply(&mut figures);
        let mut view = View::default();
        assert_eq!(view.place(Table::Queries, &figures), Some(0));
        press(&mut view, &figures, KeyCode::Down);
        assert_eq!(view.selected[0].as_deref(), Some("b"));
        Sort::Size.apply(&mut figures);
        assert_eq!(view.place(Table::Queries, &figures), Some(2));
        press(&mut view, &figures, KeyCode::PageDown);
        assert_eq!(view.selected[0].as_deref(), Some("b"));
        press(&mut view, &figures, KeyCode::Home);
        assert_eq!(view.selected[0].as_deref(), Some("a"));
        // One that is dropped is selected no more.
        figures.queries.clear();
        assert_eq!(view.place(Table::Queries, &figures), None);
        press(&mut view, &figures, KeyCode::End);
        press(&mut view, &figures, KeyCode::Enter);
        assert_eq!(view.opened, None);
    }

    #[test]
    fn keys_do_what_the_last_line_says() {
        let figures = figures();
        let mut view = View::default();
        assert!(!press(&mut view, &figures, KeyCode::Char('p')) && view.is_paused);
        assert!(!press(&mut view, &figures, KeyCode::Char('s')) && view.sort == Sort::Size);
        // There are no sources.
        press(&mut view, &figures, KeyCode::Tab);
        assert_eq!(view.table, Table::Sinks);
        press(&mut view, &figures, KeyCode::Enter);
        assert_eq!(view.opened, Some(Object { table: Table::Sinks, kind: "sink".into(), name: "k".into() }));
        press(&mut view, &figures, KeyCode::Down);
        press(&mut view, &figures, KeyCode::Down);
        press(&mut view, &figures, KeyCode::Up);
        assert_eq!(view.scroll, 1);
        assert!(!press(&mut view, &figures, KeyCode::Esc) && view.opened.is_none());
        press(&mut view, &figures, KeyCode::BackTab);
        assert_eq!(view.table, Table::Queries);
        assert!(press(&mut view, &figures, KeyCode::Esc) && press(&mut view, &figures, KeyCode::Char('q')));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(view.press(interrupt, &figures, 10));
    }
}
