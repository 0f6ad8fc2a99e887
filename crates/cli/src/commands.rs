//! `millstream -c` and `millstream run`.

use std::io::Read;
use std::path::Path;

use crate::client::Client;
use crate::stop::Stop;
use crate::text::Text;

/// A script that has been read.
#[derive(Debug)]
pub struct ScriptText {
    name: String,
    sql: String,
}

impl ScriptText {
    /// Its text, whose statements that create objects take effect together.
    pub fn text(&self) -> Text<'_> {
        Text { name: Some(&self.name), sql: &self.sql, gather: true }
    }
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
    Ok(ScriptText { name, sql })
}

/// Runs a script, then its sources to their end.
pub async fn run_script(mut client: Client, script: &ScriptText) -> Result<(), Stop> {
    let mut end = client.run(script.text()).await;
    if end.is_ok() {
        end = client.finish().await;
    }
    client.stop(end).await
}

/// Runs texts given on the command line. What goes on after the last one can be seen in a sink only: where
/// there is one, its sources are run to their end.
pub async fn run_texts(mut client: Client, texts: &[String]) -> Result<(), Stop> {
    let mut end = Ok(());
    for sql in texts {
        end = client.run(Text { name: None, sql, gather: false }).await;
        if end.is_err() {
            break;
        }
    }
    if end.is_ok() && client.has_sink() {
        end = client.finish().await;
    }
    client.stop(end).await
}
