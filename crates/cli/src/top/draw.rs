//! Draws the view with ratatui.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table as Rows, TableState, Wrap};

use crate::top::details::Object;
use crate::top::grid::Grid;
use crate::top::health::Level;
use crate::top::page::{HEALTHY, head};
use crate::top::screen::Content;
use crate::top::view::{TABLES, Table};

/// Maximum number of problems that are listed.
const PROBLEMS_MAX: usize = 4;

/// Minimum width of a column of names.
const NAME_MIN: u16 = 8;

/// Number of columns of the screen between two columns of a table.
const SPACING: u16 = 2;

/// Minimum number of lines of the tables of sources and sinks, if they have so many rows.
const LINES_MIN: u16 = 3;

/// The content of a frame.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The address of the server.
    pub address: &'a str,
    /// The content.
    pub content: &'a Content,
    /// True if colours may be used.
    pub color: bool,
}

/// Draws a frame.
pub fn draw(frame: &mut Frame<'_>, scene: &Scene<'_>) {
    let top = scene.top();
    let heights = [Constraint::Length(top.len() as u16), Constraint::Fill(1), Constraint::Length(1)];
    let [head, body, foot] = Layout::vertical(heights).areas(frame.area());
    frame.render_widget(Paragraph::new(top), head);
    match &scene.content.view.opened {
        Some(object) => scene.details(frame, body, object),
        None => scene.tables(frame, body),
    }
    frame.render_widget(Paragraph::new(scene.keys()), foot);
}

impl Scene<'_> {
    /// Returns the lines about the engine, its problems, and an empty line.
    fn top(&self) -> Vec<Line<'_>> {
        let Content { figures, lost, view, .. } = self.content;
        let mut lines: Vec<Line<'_>> =
            head(self.address, &figures.head).into_iter().map(Line::from).collect();
        if let Some(first) = lines.first_mut() {
            first.style = Style::new().add_modifier(Modifier::BOLD);
            if view.is_paused {
                first.push_span("   PAUSED");
            }
        }
        if let Some(reason) = lost {
            let text = format!("disconnected, trying again: {reason}");
            lines.push(Line::styled(text, self.style(Level::Error)));
        } else if figures.problems.is_empty() {
            lines.push(Line::styled(HEALTHY, self.colored(Color::Green)));
        }
        let count = figures.problems.len();
        let shown = if count > PROBLEMS_MAX { PROBLEMS_MAX - 1 } else { count };
        for problem in &figures.problems[..shown] {
            lines.push(Line::styled(problem.text.as_str(), self.style(problem.level)));
        }
        if count > shown {
            let text = format!("and {} more: `millstream top --once` lists them", count - shown);
            lines.push(Line::styled(text, self.style(figures.problems[shown].level)));
        }
        lines.push(Line::default());
        lines
    }

    /// Returns the line about keys.
    fn keys(&self) -> Line<'static> {
        let view = &self.content.view;
        let text = if view.opened.is_some() {
            "Esc back  arrows scroll  p pause  q leave".to_owned()
        } else {
            let sort = view.sort.name();
            format!("q leave  arrows select  Tab table  Enter details  s sort: {sort}  p pause")
        };
        Line::styled(text, Style::new().add_modifier(Modifier::REVERSED))
    }

    /// Draws the tables of objects.
    fn tables(&self, frame: &mut Frame<'_>, area: Rect) {
        let Content { figures, view, .. } = self.content;
        let grids =
            [Grid::queries(&figures.queries), Grid::sources(&figures.sources), Grid::sinks(&figures.sinks)];
        let heights = heights(area.height, [0, 1, 2].map(|at: usize| grids[at].rows.len()));
        let areas: [Rect; 3] = Layout::vertical(heights.map(Constraint::Length)).areas(area);
        for ((table, grid), area) in TABLES.into_iter().zip(&grids).zip(areas) {
            let place = view.place(table, figures);
            let state = TableState::default().with_selected(place.filter(|_| view.table == table));
            self.grid(frame, area, grid, state, table);
        }
    }

    /// Draws the details of an object.
    fn details(&self, frame: &mut Frame<'_>, area: Rect, object: &Object) {
        let title = format!("{} \"{}\"", object.kind, object.name);
        let title = Line::styled(title, Style::new().add_modifier(Modifier::BOLD));
        let (Some(details), before) = &self.content.details else {
            let wait = Line::styled("reading …", Style::new().add_modifier(Modifier::DIM));
            frame.render_widget(Paragraph::new(vec![title, wait]), area);
            return;
        };
        let mut lines = vec![title];
        lines.extend(details.why.iter().map(|why| Line::from(why.as_str())));
        lines.push(Line::default());
        let wrapped: usize =
            lines.iter().map(|line| line.width().div_ceil(area.width.max(1).into()).max(1)).sum();
        let grid = details.grid(before.as_ref());
        // The reasons may take half of the screen, or all that the table leaves.
        let most = (area.height / 2).max(area.height.saturating_sub(grid.rows.len() as u16 + 1));
        // Words that don't fit take a line more.
        let height = (wrapped as u16).saturating_add(1).min(most);
        let [text, table] = Layout::vertical([Constraint::Length(height), Constraint::Fill(1)]).areas(area);
        frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), text);
        let last = grid.rows.len().saturating_sub(table.height.saturating_sub(1).into());
        let state = TableState::default().with_offset(self.content.view.scroll.min(last));
        self.grid(frame, table, &grid, state, object.table);
    }

    /// Draws a table.
    fn grid(&self, frame: &mut Frame<'_>, area: Rect, grid: &Grid, mut state: TableState, table: Table) {
        if area.is_empty() {
            return;
        }
        let aligned = |at: usize, text: &str, width: usize| {
            let line = Line::from(text.to_owned());
            let narrow = at < grid.left || line.width() >= width;
            Cell::from(if narrow { line } else { line.right_aligned() })
        };
        let widths = grid.widths();
        let row = |cells: &Vec<String>| {
            let level = cells.first().filter(|_| grid.left > 1).and_then(|name| self.level(name));
            let style = level.map(|level| self.style(level));
            let cells =
                cells.iter().zip(&widths).enumerate().map(|(at, (text, width))| aligned(at, text, *width));
            Row::new(cells).style(style.unwrap_or_default())
        };
        let titles = grid.header.iter().zip(&widths).enumerate();
        let header = Row::new(titles.map(|(at, (title, width))| aligned(at, title, *width)));
        let mut style = Style::new().add_modifier(Modifier::BOLD);
        if self.content.view.table == table {
            style = style.add_modifier(Modifier::UNDERLINED);
        }
        let others: usize = widths.iter().skip(1).map(|width| width + SPACING as usize).sum();
        let name = area.width.saturating_sub(others as u16).max(NAME_MIN);
        let others = widths.iter().skip(1).map(|width| Constraint::Length(*width as u16));
        let constraints = std::iter::once(Constraint::Length(name)).chain(others);
        let drawn = Rows::new(grid.rows.iter().map(row), constraints)
            .header(header.style(style))
            .column_spacing(SPACING)
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(drawn, area, &mut state);
    }

    /// Returns the severity of the worst problem of an object.
    fn level(&self, name: &str) -> Option<Level> {
        let mut problems = self.content.figures.problems.iter();
        problems.find(|problem| problem.object.as_deref() == Some(name)).map(|problem| problem.level)
    }

    /// Returns the style of a problem.
    fn style(&self, level: Level) -> Style {
        match level {
            Level::Error => self.colored(Color::Red).add_modifier(Modifier::BOLD),
            Level::Warning => self.colored(Color::Yellow),
            Level::Note => Style::new(),
        }
    }

    fn colored(&self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }
}

/// Returns the heights of the tables, with a line for the header of each: sources and sinks get a quarter each if not all
/// rows fit, and no line without rows.
fn heights(total: u16, rows: [usize; 3]) -> [u16; 3] {
    let [queries, sources, sinks] =
        rows.map(|rows| u16::try_from(rows).unwrap_or(u16::MAX).saturating_add(2));
    let fits = u32::from(queries) + u32::from(sources) + u32::from(sinks) <= u32::from(total);
    let part = if fits { total } else { (total / 4).max(LINES_MIN).min(total / 3) };
    let of = |needed: u16| if needed == 2 { 0 } else { needed.min(part) };
    let (sources, sinks) = (of(sources), of(sinks));
    let rest = total.saturating_sub(sources).saturating_sub(sinks);
    [if fits { queries.min(rest) } else { rest }, sources, sinks]
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;

    use super::*;
    use crate::top::details::Details;
    use crate::top::feed::Update;
    use crate::top::figures::tests::{reading, row};
    use crate::top::reading::Reading;
    use crate::top::view::View;

    /// Draws a content on a screen of this size.
    fn drawn(content: &Content, color: bool, (width, height): (u16, u16)) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let scene = Scene { address: "127.0.0.1:4777", content, color };
        terminal.draw(|frame| draw(frame, &scene)).unwrap();
        terminal.backend().buffer().clone()
    }

    /// Returns the lines of a screen without the spaces at their ends.
    fn lines(buffer: &Buffer) -> Vec<String> {
        let width = usize::from(buffer.area.width);
        let line = |cells: &[ratatui::buffer::Cell]| {
            cells.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()
        };
        buffer.content.chunks(width).map(line).collect()
    }

    fn at(seconds: u64, begin: Instant, busy: [f64; 2]) -> Reading {
        let metrics = [
            ("millstream_build_info", r#"{"version": "0.1.0"}"#, 1.0),
            ("millstream_epochs_total", "{}", 10.0 * seconds as f64),
            ("millstream_input_rows_total", "{}", 5000.0 * seconds as f64),
            ("millstream_query_busy_seconds_total", r#"{"query": "per_page"}"#, busy[0]),
            ("millstream_query_busy_seconds_total", r#"{"query": "joined"}"#, busy[1]),
            ("millstream_source_rows_total", r#"{"source": "clicks"}"#, 5000.0 * seconds as f64),
            ("millstream_source_lag_rows", r#"{"source": "clicks"}"#, 12.0),
            ("millstream_sink_waiting_epochs", r#"{"sink": "out"}"#, 1.0),
        ];
        let mut reading = reading(begin + Duration::from_secs(seconds), &metrics);
        reading.queries.push(row(&[("kind", "stream"), ("name", "joined"), ("status", "running")]));
        reading
    }

    fn content() -> Content {
        let begin = Instant::now();
        let mut content = Content::default();
        content.update(Update::Read(Box::new(at(0, begin, [0.0, 0.0]))));
        content.update(Update::Read(Box::new(at(2, begin, [0.2, 1.0]))));
        content
    }

    #[test]
    fn a_small_terminal_has_all_tables() {
        let shown = lines(&drawn(&content(), true, (80, 24)));
        assert_eq!(
            shown[..15],
            [
                "millstream 0.1.0 at 127.0.0.1:4777, up 1 min",
                "epochs/s 10   rows/s in 5.0k, out -   processing -   delay -",
                "state -   process -   checkpoint none",
                "Nothing is behind, failing, paused or waiting.",
                "",
                "QUERY                                 STATUS   BUSY  ROWS  STATE  ERRORS  BEHIND",
                "joined                                running  50 %     -      -       -       0",
                "per_page                              running  10 %     -      -       -       0",
                "",
                "SOURCE                             STATUS   ROWS/S  LAG  WATERMARK  WAITING  BAD",
                "clicks                             running    5.0k   12          -        -    -",
                "",
                "SINK                              STATUS   BUSY  ROWS/S  EPOCHS WAIT  BYTES WAIT",
                "out                               running     -       -            1           -",
                "",
            ]
        );
        assert!(shown[23].starts_with("q leave  arrows select"), "{shown:#?}");
    }

    #[test]
    fn no_size_of_the_terminal_is_a_problem() {
        let mut content = content();
        for opened in
            [None, Some(Object { table: Table::Queries, kind: "stream".into(), name: "joined".into() })]
        {
            content.view.opened = opened;
            for width in [1, 2, 7, 20, 79, 300] {
                for height in [1, 2, 5, 9, 24, 100] {
                    assert_eq!(drawn(&content, true, (width, height)).area.width, width);
                }
            }
        }
    }

    #[test]
    fn problems_are_coloured_only_if_wanted() {
        let mut content = content();
        let begin = Instant::now();
        let mut reading = at(4, begin, [0.0, 0.0]);
        let problem = |level: &str, kind: &str, name: &str, message: &str| {
            row(&[("level", level), ("kind", kind), ("object", name), ("message", message)])
        };
        reading.problems.push(problem("error", "sink", "out", "failed: refused"));
        for number in 0..5 {
            reading.problems.push(problem("warning", "source", &format!("s{number}"), "is restarting"));
        }
        content.update(Update::Read(Box::new(reading)));
        let colors = |buffer: &Buffer| buffer.content.iter().filter(|cell| cell.fg != Color::Reset).count();
        let colored = drawn(&content, true, (80, 24));
        let shown = lines(&colored);
        assert_eq!(shown[3], "sink \"out\" failed: refused");
        assert_eq!(shown[6], "and 3 more: `millstream top --once` lists them");
        assert_eq!(colored[(0, 3)].fg, Color::Red);
        let sink = shown.iter().position(|line| line.starts_with("out ")).unwrap();
        assert_eq!(colored[(0, sink as u16)].fg, Color::Red);
        let plain = drawn(&content, false, (80, 24));
        assert_eq!((colors(&plain), lines(&plain)), (0, shown));
        content.update(Update::Lost("refused".into()));
        assert_eq!(lines(&drawn(&content, false, (80, 24)))[3], "disconnected, trying again: refused");
    }

    #[test]
    fn many_queries_leave_room_for_the_others_and_the_selected_one_is_seen() {
        let mut content = content();
        let template = content.figures.queries[0].clone();
        let query = |number| crate::top::figures::Query { name: format!("q{number:03}"), ..template.clone() };
        content.figures.queries = (0..200).map(query).collect();
        content.view.selected[0] = Some("q150".into());
        let buffer = drawn(&content, true, (80, 24));
        let shown = lines(&buffer);
        let selected = shown.iter().position(|line| line.starts_with("q150 ")).unwrap();
        assert!(buffer[(0, selected as u16)].modifier.contains(Modifier::REVERSED));
        assert!(shown.iter().any(|line| line.starts_with("clicks ")), "{shown:#?}");
        assert!(shown.iter().any(|line| line.starts_with("out ")), "{shown:#?}");
    }

    #[test]
    fn details_have_the_reasons_and_the_operators() {
        let mut content = content();
        let object = Object { table: Table::Queries, kind: "stream".into(), name: "joined".into() };
        content.view = View { opened: Some(object.clone()), ..View::default() };
        assert!(lines(&drawn(&content, true, (80, 24))).contains(&"reading …".to_owned()));
        let why = vec![row(&[("about", "joined"), ("why", &"it waits for the watermark ".repeat(5))])];
        let operators =
            (0..40).map(|node| row(&[("node", &node.to_string()), ("operator", "Aggregate")])).collect();
        content.update(Update::Details(Details::new(object, why, operators)));
        let shown = lines(&drawn(&content, true, (80, 24)));
        assert_eq!(shown[5], "stream \"joined\"");
        assert!(shown[6].starts_with("it waits for the watermark it waits"), "{shown:#?}");
        assert!(shown.iter().any(|line| line.starts_with("OPERATOR")), "{shown:#?}");
        assert!(shown.iter().any(|line| line.starts_with("Aggregate") && line.contains("  0")), "{shown:#?}");
        content.view.scroll = 1000;
        let shown = lines(&drawn(&content, true, (80, 24)));
        assert!(shown[22].starts_with("Aggregate") && shown[22].contains(" 39 "), "{shown:#?}");
        // Details of an object that the user has left are dropped.
        content.view.opened = None;
        content.details = (None, None);
        let other = Object { table: Table::Sinks, kind: "sink".into(), name: "out".into() };
        content.update(Update::Details(Details::failed(other, "gone".into())));
        assert!(content.details.0.is_none());
    }

    #[test]
    fn tables_share_the_screen() {
        assert_eq!(heights(18, [2, 1, 1]), [4, 3, 3]);
        assert_eq!(heights(18, [200, 1, 0]), [15, 3, 0]);
        assert_eq!(heights(18, [200, 50, 50]), [10, 4, 4]);
        assert_eq!(heights(2, [200, 50, 50]), [2, 0, 0]);
        assert_eq!(heights(18, [0, 0, 0]), [2, 0, 0]);
    }
}
