//! Reads files again on request.

use std::sync::Arc;

use glob::{MatchOptions, Pattern};

use super::intake::Intake;
use super::known::Known;
use crate::{Error, Result};

/// A `*` doesn't match a path separator.
const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

impl Intake {
    /// Queues the files that match `pattern` again, including those that were left out at the start.
    /// Matches names if the pattern has no `/`, else paths. Returns the number of files.
    pub fn read_again(&mut self, pattern: &str) -> Result<usize> {
        let wanted = Pattern::new(pattern).map_err(|error| {
            Error::Invalid(format!("'{pattern}' is not a valid file name pattern: {error}"))
        })?;
        let fits = |path: &str| {
            let name = if pattern.contains('/') { path } else { path.rsplit('/').next().unwrap_or(path) };
            wanted.matches_with(name, MATCHING)
        };
        let mut paths: Vec<Arc<str>> = self.files.paths().filter(|path| fits(path)).cloned().collect();
        if paths.is_empty() {
            return Err(Error::Invalid(format!(
                "none of the files that were read so far matches '{pattern}'"
            )));
        }
        paths.sort_unstable();
        for path in &paths {
            let Some(known) = self.files.get_mut(path) else { continue };
            let (holds_since, seen, watched) = (known.holds_since, known.seen, known.watched);
            *known = Known { holds_since, seen, watched, ..Known::new(known.generation + 1) };
            if self.current.as_ref().is_some_and(|(current, _)| current == path) {
                self.current = None;
            }
            self.queue.retain(|waiting| waiting != path);
        }
        self.queue.extend(paths.iter().cloned());
        Ok(paths.len())
    }
}
