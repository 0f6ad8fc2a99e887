//! The list of queries that are known to fail, `crates/testkit/suites/known.txt`: one a line, its place and the
//! reason. A query that is listed and passes is an error too, so that the list stays true.

use std::collections::BTreeMap;

use crate::drive;

/// The list.
const TEXT: &str = include_str!("../../suites/known.txt");

/// Why a query is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// In words.
    pub reason: String,
    /// It fails for some feeds only, so that passing means nothing.
    pub sometimes: bool,
    /// It would never end, so that it isn't run.
    pub endless: bool,
    /// Only plain DataFusion answers otherwise, since the order of rows decides: ours is one of the right answers.
    pub open: bool,
}

/// The entries by place.
pub type Known = BTreeMap<String, Entry>;

/// The entries of the list: `window.slt:15  reason`, with a `?` before the place of one that fails sometimes, and a `!`
/// before the place of one that would never end, and a `~` before the place of one that is right and differs from
/// plain DataFusion's answer, which is another right one.
pub fn list() -> drive::Result<Known> {
    read(TEXT)
}

fn read(text: &str) -> drive::Result<Known> {
    let mut entries = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (place, reason) = line
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("known.txt, line {}: a place and a reason were expected", number + 1))?;
        let marked = |mark: char| place.starts_with(mark);
        let (sometimes, endless, open) = (marked('?'), marked('!'), marked('~'));
        let entry = Entry { reason: reason.trim().to_string(), sometimes, endless, open };
        entries.insert(place.trim_start_matches(['?', '!', '~']).to_string(), entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_reasons() {
        let entries = read("# why\n\na.slt:1  wrong sum\n?b.slt:2 order\n!c.slt:3 hangs\n").unwrap();
        let entry = Entry { reason: "wrong sum".into(), sometimes: false, endless: false, open: false };
        assert_eq!(entries["a.slt:1"], entry);
        assert!(entries["b.slt:2"].sometimes && entries["c.slt:3"].endless);
        assert!(read("a.slt:1").is_err());
        assert!(list().is_ok());
    }
}
