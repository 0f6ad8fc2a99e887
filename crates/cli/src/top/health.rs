//! Problems of a server: the rows of `millstream.problems`.

use crate::top::figures::text;
use crate::top::reading::Row;

/// The severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something does not run.
    Error,
    /// Something is late, or fails in part.
    Warning,
    /// Something waits for the user.
    Note,
}

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its severity.
    pub level: Level,
    /// The name of the object, if it is of one.
    pub object: Option<String>,
    /// The object and the reason: `source "clicks" is restarting: refused`.
    pub text: String,
    /// The statement that explains or mends it.
    pub statement: String,
}

impl Problem {
    /// Converts a row of `millstream.problems`.
    pub fn of(row: &Row) -> Problem {
        let object = row.get("object").cloned();
        let message = text(row, "message");
        let text_of = |name: &String| format!("{} \"{name}\" {message}", text(row, "kind"));
        let level = match text(row, "level").as_str() {
            "error" => Level::Error,
            "warning" => Level::Warning,
            _ => Level::Note,
        };
        Problem {
            level,
            text: object.as_ref().map_or_else(|| message.clone(), text_of),
            object,
            statement: text(row, "statement"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::figures::tests::row;

    #[test]
    fn a_problem_names_its_object_if_it_has_one() {
        let columns = [
            ("level", "warning"),
            ("kind", "materialized view"),
            ("object", "per_page"),
            ("message", "fails for 2 rows"),
            ("statement", "SELECT 1"),
        ];
        let problem = Problem::of(&row(&columns));
        assert_eq!(problem.text, "materialized view \"per_page\" fails for 2 rows");
        assert_eq!((problem.level, problem.object.as_deref()), (Level::Warning, Some("per_page")));
        let of_engine = row(&[("level", "error"), ("kind", "checkpoint"), ("message", "no room")]);
        assert_eq!(Problem::of(&of_engine).text, "no room");
    }
}
