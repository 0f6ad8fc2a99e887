//! The list of queries known to fail, `crates/testkit/suites/known.txt`: one per line, with its place and the
//! reason. A listed query that passes is an error, too, so that the list stays true.

use std::collections::BTreeMap;

use crate::drive;

/// The list.
const TEXT: &str = include_str!("../../suites/known.txt");

/// A listed query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The reason in words.
    pub reason: String,
    /// True if it fails only for some feeds, so that a pass proves nothing.
    pub sometimes: bool,
    /// True if it would never end, so that it isn't run.
    pub endless: bool,
    /// True if only plain DataFusion's answer differs, because it depends on the order of rows: ours is one
    /// of the right answers.
    pub open: bool,
}

/// The entries by place.
pub type Known = BTreeMap<String, Entry>;

/// Returns the entries of the list, such as `window.slt:15  reason`. A mark may precede the place:
///
/// - `?`: the query fails sometimes.
/// - `!`: the query would never end.
/// - `~`: our answer and the different one of plain DataFusion are both right.
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
