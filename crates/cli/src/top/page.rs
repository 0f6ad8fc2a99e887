//! A reading as text.

use crate::top::figures::{Figures, Head};
use crate::top::grid::Grid;
use crate::top::numbers::{bytes, count, percent, time};

/// The line of an engine without problems.
pub const HEALTHY: &str = "Nothing is behind, failing, paused or waiting.";

/// Returns the figures of a server as text.
pub fn text(address: &str, figures: &Figures) -> String {
    let mut lines = head(address, &figures.head);
    lines.push(String::new());
    if figures.problems.is_empty() {
        lines.push(HEALTHY.to_owned());
    }
    for problem in &figures.problems {
        lines.push(problem.text.clone());
        lines.push(format!("    {}", problem.statement));
    }
    let grids =
        [Grid::queries(&figures.queries), Grid::sources(&figures.sources), Grid::sinks(&figures.sinks)];
    for grid in grids.iter().filter(|grid| !grid.rows.is_empty()) {
        lines.push(String::new());
        lines.extend(grid.lines());
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Returns the lines about the engine.
pub fn head(address: &str, head: &Head) -> Vec<String> {
    let (state, spilled) = head.state;
    let limit = head.limit.filter(|limit| *limit > 0.0);
    let limit = limit.map_or_else(String::new, |limit| {
        let share = percent(state.map(|state| state / limit));
        format!(" of {} ({share})", bytes(Some(limit)))
    });
    let spilled = spilled.filter(|spilled| *spilled > 0.0);
    let spilled = spilled.map_or_else(String::new, |spilled| format!(", {} in files", bytes(Some(spilled))));
    let interval = head.interval.map_or_else(String::new, |interval| format!(" of {}", time(Some(interval))));
    let checkpoint =
        head.checkpoint_age.map_or_else(|| "none".to_owned(), |age| format!("{} ago", time(Some(age))));
    vec![
        format!("millstream {} at {address}, up {}", head.version, time(head.uptime)),
        format!(
            "epochs/s {}   rows/s in {}, out {}   processing {}{interval}   delay {}",
            count(head.epochs),
            count(head.rows_in),
            count(head.rows_out),
            time(head.processing),
            time(head.scheduling),
        ),
        format!(
            "state {}{limit}{spilled}   process {}   checkpoint {checkpoint}",
            bytes(state),
            bytes(head.resident)
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::figures::Query;
    use crate::top::health::{Level, Problem};

    #[test]
    fn a_text_has_the_head_the_problems_and_the_tables_that_have_rows() {
        let head = Head {
            version: "0.1.0".into(),
            uptime: Some(3700.0),
            epochs: Some(2.0),
            processing: Some(0.002),
            interval: Some(0.5),
            state: (Some(524_288.0), Some(1024.0)),
            limit: Some(1_048_576.0),
            checkpoint_age: Some(7.0),
            ..Head::default()
        };
        let queries = vec![Query { name: "q".into(), status: "running".into(), ..Query::default() }];
        let mut figures = Figures { head, queries, ..Figures::default() };
        assert_eq!(
            text("localhost:4777", &figures),
            "millstream 0.1.0 at localhost:4777, up 1 h 1 min\n\
             epochs/s 2   rows/s in -, out -   processing 2.0 ms of 500.0 ms   delay -\n\
             state 512.0 kB of 1.0 MB (50 %), 1.0 kB in files   process -   checkpoint 7.0 s ago\n\
             \n\
             Nothing is behind, failing, paused or waiting.\n\
             \n\
             QUERY  STATUS   BUSY  ROWS  STATE  ERRORS  BEHIND\n\
             q      running     -     -      -       -       0\n"
        );
        figures.problems.push(Problem {
            level: Level::Error,
            object: None,
            text: "the disk is full".into(),
            statement: "EXPLAIN WHY".into(),
        });
        let text = text("localhost:4777", &figures);
        assert!(
            text.contains("\n\nthe disk is full\n    EXPLAIN WHY\n\n") && !text.contains(HEALTHY),
            "{text}"
        );
    }
}
