//! A problem of an object or of the engine, and when it was first seen.

use std::cell::RefCell;
use std::collections::BTreeMap;

use millstream_delta::Timestamp;

/// The severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Something does not run.
    Error,
    /// Something is late, or fails in part.
    Warning,
    /// Something waits for the user.
    Note,
}

impl Level {
    pub(super) fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "note",
        }
    }
}

/// A problem of an object, or of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) level: Level,
    /// The kind of the object: `source`, `materialized view`; `epochs`, `memory` and others of the engine.
    pub(super) kind: &'static str,
    /// The name of the object; `None` for the engine.
    pub(super) object: Option<String>,
    /// The status or the condition, which identifies the problem while its message changes.
    pub(super) condition: &'static str,
    pub(super) message: String,
    pub(super) statement: String,
}

/// The identity of a problem: kind, object and condition.
type Key = (&'static str, Option<String>, &'static str);

/// The time at which each present problem was first seen.
#[derive(Debug, Default)]
pub(super) struct FirstSeen(RefCell<BTreeMap<Key, Timestamp>>);

impl FirstSeen {
    /// Returns the time since which each problem has been seen. Forgets problems that are over.
    pub(super) fn of(&self, problems: &[Problem], now: Timestamp) -> Vec<Timestamp> {
        let mut all = self.0.borrow_mut();
        let before = std::mem::take(&mut *all);
        let since = |problem: &Problem| {
            let key = (problem.kind, problem.object.clone(), problem.condition);
            let since = before.get(&key).copied().unwrap_or(now);
            *all.entry(key).or_insert(since)
        };
        problems.iter().map(since).collect()
    }
}

/// Returns a text as an SQL literal.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_begun_when_it_was_first_seen() {
        let seen = FirstSeen::default();
        let mut found = vec![Problem {
            level: Level::Warning,
            kind: "stream",
            object: Some("q".into()),
            condition: "behind",
            message: "is 1 epochs behind".into(),
            statement: String::new(),
        }];
        assert_eq!(seen.of(&found, Timestamp(5)), [Timestamp(5)]);
        found[0].message = "is 2 epochs behind".into();
        assert_eq!(seen.of(&found, Timestamp(9)), [Timestamp(5)]);
        assert_eq!(seen.of(&[], Timestamp(10)), []);
        assert_eq!(seen.of(&found, Timestamp(11)), [Timestamp(11)]);
    }
}
