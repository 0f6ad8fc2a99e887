//! The health of an engine: the rows of `millstream.problems`, and what the page itself notices.

use serde_json::{Value, json};

use crate::reading::{Row, text};

/// Maximum number of problems that the page lists.
const PROBLEMS_MAX: usize = 20;

/// A problem as the page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `error`, `warning` or `note`.
    pub(crate) level: String,
    /// The kind of the object and its name: `source "clicks"`; empty for the engine.
    pub(crate) object: String,
    pub(crate) reason: String,
    pub(crate) statement: String,
    /// The time since which it has been seen, in milliseconds since 1970.
    pub(crate) since: Option<i64>,
}

impl Problem {
    /// Converts a row of `millstream.problems`.
    pub(crate) fn of(row: &Row) -> Problem {
        let column = |name| text(row, name).unwrap_or_default().to_string();
        let object =
            text(row, "object").map_or_else(String::new, |name| format!("{} \"{name}\"", column("kind")));
        let since = row.get("since").and_then(Value::as_i64);
        Problem {
            level: column("level"),
            object,
            reason: column("message"),
            statement: column("statement"),
            since,
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "level": self.level,
            "object": self.object,
            "reason": self.reason,
            "statement": self.statement,
            "since": self.since,
        })
    }
}

/// Returns the first problems; if there are too many, the last line says how many more.
pub(crate) fn shown(mut all: Vec<Problem>) -> Vec<Problem> {
    let more = all.len().saturating_sub(PROBLEMS_MAX);
    if more > 0 {
        let level = all[PROBLEMS_MAX].level.clone();
        all.truncate(PROBLEMS_MAX);
        all.push(Problem {
            level,
            object: "the engine".into(),
            reason: format!("has {more} more problems"),
            statement: "SELECT * FROM millstream.problems".into(),
            since: None,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: Value) -> Row {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_row_is_shown_with_its_object() {
        let of_source = row(json!({
            "level": "error", "kind": "source", "object": "a\"b", "since": 7, "message": "failed: gone", "statement": "SELECT 1",
        }));
        let problem = Problem::of(&of_source);
        assert_eq!((problem.object.as_str(), problem.reason.as_str()), ("source \"a\"b\"", "failed: gone"));
        assert_eq!(problem.json()["since"], json!(7));
        let of_engine = row(json!({"level": "warning", "kind": "epochs", "message": "epochs fall behind"}));
        assert_eq!(Problem::of(&of_engine).object, "");
    }

    #[test]
    fn many_problems_are_cut() {
        let one = Problem::of(&row(
            json!({"level": "note", "kind": "source", "object": "a", "message": "is paused"}),
        ));
        assert_eq!(shown(vec![one.clone(); PROBLEMS_MAX]).len(), PROBLEMS_MAX);
        let all = shown(vec![one; PROBLEMS_MAX + 480]);
        assert_eq!(
            (all.len(), all[PROBLEMS_MAX].reason.as_str()),
            (PROBLEMS_MAX + 1, "has 480 more problems")
        );
    }
}
