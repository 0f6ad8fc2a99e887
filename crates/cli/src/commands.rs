//! `millstream -c` and `millstream run`.

use crate::client::Client;
use crate::interpreter::{Interpreter, Next};
use crate::script::{ScriptText, Source};
use crate::stop::Stop;

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

/// Runs texts given on the command line. If there is a sink, also runs the sources to their end: only a
/// sink shows the rows that arrive after the last text.
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
