//! `millstream -c` and `millstream run`.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::client::Client;
use crate::interpreter::{Interpreter, Next, Source};
use crate::stop::Stop;

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
    // Some editors start a file with a byte order mark, which is no SQL.
    let sql = sql.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(sql);
    Ok(ScriptText { name, path: path.map(Path::to_owned), sql })
}

/// Reads a script, if there is a file of this name.
pub fn read_if_there(path: &Path) -> Result<Option<ScriptText>, Stop> {
    if path.exists() { read(Some(path)).map(Some) } else { Ok(None) }
}

impl ScriptText {
    /// What to call it in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All of it. `gather`: what creates objects takes effect together.
    pub fn source(&self, gather: bool) -> Source<'_> {
        Source { name: Some(&self.name), path: self.path.as_deref(), text: &self.sql, gather, whole: true }
    }

    /// Its text.
    pub fn sql(&self) -> &str {
        &self.sql
    }
}

/// Runs a script, then its sources to their end.
pub async fn run_script(client: Client, script: &ScriptText) -> Result<(), Stop> {
    let mut interpreter = Interpreter::new(client);
    interpreter.client.session.begin_script();
    let mut end = interpreter.run(script.source(true)).await.map(drop);
    interpreter.client.session.end_script();
    let mut client = interpreter.end().await;
    if end.is_ok() {
        end = client.finish().await;
    }
    client.stop(end).await
}

/// Runs texts given on the command line. What goes on after the last one can be seen in a sink only: where
/// there is one, its sources are run to their end.
pub async fn run_texts(client: Client, texts: &[String]) -> Result<(), Stop> {
    let mut interpreter = Interpreter::new(client);
    let mut end = Ok(());
    for text in texts {
        let source = Source { name: None, path: None, text, gather: false, whole: true };
        match interpreter.run(source).await {
            Ok(Next::GoOn) => {}
            Ok(Next::Leave) => break,
            Err(stop) => {
                end = Err(stop);
                break;
            }
        }
    }
    let mut client = interpreter.end().await;
    if end.is_ok() && client.has_sink() {
        end = client.finish().await;
    }
    client.stop(end).await
}
