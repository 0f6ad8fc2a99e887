//! Texts to run, from a file or from standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::stop::Stop;

/// A text to run, with its origin.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its name in messages: that of a file.
    pub name: Option<&'a str>,
    /// Its path, if it is a file.
    pub path: Option<&'a Path>,
    /// The text.
    pub text: &'a str,
    /// True if all CREATE and DROP statements run before the first epoch.
    pub gather: bool,
    /// True if a last statement without a semicolon is run, too.
    pub whole: bool,
}

/// A script that has been read.
#[derive(Debug)]
pub struct ScriptText {
    name: String,
    path: Option<PathBuf>,
    sql: String,
}

/// Reads a script; `None` is standard input.
pub fn read(path: Option<&Path>) -> Result<ScriptText, Stop> {
    let name = path.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
    let bytes = match path {
        Some(path) => std::fs::read(path),
        None => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
        }
    };
    let bytes = bytes.map_err(|error| Stop::external(format_args!("'{name}' can't be read: {error}")))?;
    let sql = String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        Stop::external(format_args!("'{name}' is not UTF-8 text: line {line} has other bytes"))
    })?;
    // Some editors start a file with a byte order mark, which isn't SQL.
    let sql = sql.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(sql);
    Ok(ScriptText { name, path: path.map(Path::to_owned), sql })
}

/// Reads a script, if the file exists.
pub fn read_if_there(path: &Path) -> Result<Option<ScriptText>, Stop> {
    if path.exists() { read(Some(path)).map(Some) } else { Ok(None) }
}

impl ScriptText {
    /// Returns the name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the whole script. With `gather`, statements that create objects take effect together.
    pub fn source(&self, gather: bool) -> Source<'_> {
        Source { name: Some(&self.name), path: self.path.as_deref(), text: &self.sql, gather, whole: true }
    }

    /// Returns its text.
    pub fn sql(&self) -> &str {
        &self.sql
    }
}
