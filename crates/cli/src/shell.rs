//! The interactive shell for statements and commands.

use std::time::{Duration, Instant};

use console::Term;
use millstream::TransactionStatus;

use crate::client::Client;
use crate::editor::{Editor, Typed, is_word_of_shell};
use crate::interpreter::{Interpreter, Next};
use crate::page::Page;
use crate::place::Place;
use crate::script::Source;
use crate::stop::Stop;

/// Pressing Ctrl-C twice within this time at an empty prompt leaves the shell.
const TWICE: Duration = Duration::from_secs(2);

/// Runs the shell until the user leaves.
pub async fn run(variables: Vec<(String, String)>, quiet: bool, data: Option<Place>) -> Result<(), Stop> {
    let page = Page::default();
    let is_in_memory = data.is_none();
    let client = Client::interactive(variables, quiet, data, page.clone())?;
    let mut editor = Editor::new(client.engine.session(), console::colors_enabled())?;
    page.set_printer(editor.printer());
    let mut interpreter = Interpreter::new(client);
    interpreter.typed = Some(editor.entries());
    if !quiet {
        println!("Millstream {}. Statements end with ; and \\? shows help.", env!("CARGO_PKG_VERSION"));
        if is_in_memory {
            println!("Tables and views are gone when you leave: --data DIR keeps them.");
        }
    }
    let mut interrupted: Option<Instant> = None;
    let shutdown = interpreter.client.signals.shutdown.clone();
    loop {
        let mark = mark(interpreter.client.session.transaction_status());
        let Some(typed) = shutdown.prompt(|| editor.read(&interpreter.buffer.text, mark)) else { break };
        let text = match typed? {
            Typed::Text(text) => text,
            Typed::Interrupt { empty } => {
                interpreter.buffer = Default::default();
                if empty && interrupted.is_some_and(|before| before.elapsed() < TWICE) {
                    eprintln!("(\\q leaves the shell, and so does Ctrl-D)");
                }
                interrupted = empty.then(Instant::now);
                continue;
            }
            Typed::End => break,
        };
        interrupted = None;
        if let Some(typed) = &mut interpreter.typed
            && !text.trim().is_empty()
        {
            typed.push(text.trim().to_owned());
        }
        if execute(&mut interpreter, &text).await? == Next::Leave {
            break;
        }
        for edited in std::mem::take(&mut interpreter.edited) {
            editor.remember(&edited);
        }
        // Another process has taken the engine's data over; the end of the shell reports that.
        let engine = &interpreter.client.engine;
        if engine.has_stopped() && !engine.progress().problems.is_empty() {
            break;
        }
    }
    // No prompt is left to print above.
    page.set_printer(None);
    let mut client = interpreter.end().await;
    client.forget_signals();
    client.stop(Ok(())).await
}

/// Returns the prompt's mark for a transaction, as in psql.
fn mark(status: TransactionStatus) -> &'static str {
    match status {
        TransactionStatus::Idle => "",
        TransactionStatus::InTransaction => "*",
        TransactionStatus::Failed => "!",
    }
}

/// Runs typed text. Failures are shown and don't end the shell.
async fn execute(interpreter: &mut Interpreter, text: &str) -> Result<Next, Stop> {
    interpreter.client.forget_signals();
    let word;
    let text = if !interpreter.is_inside() && is_word_of_shell(text) {
        word = format!("\\{}", text.trim().trim_end_matches(';').trim_end().to_lowercase());
        word.as_str()
    } else {
        text
    };
    // One input is one or more lines: the next input begins on a new line.
    let line = format!("{text}\n");
    let source = Source { name: None, path: None, text: &line, gather: false, whole: false };
    match interpreter.run(source).await {
        Ok(next) => Ok(next),
        Err(Stop::Statement(message) | Stop::External(message)) => {
            eprintln!("{}", painted(&message));
            Ok(Next::GoOn)
        }
        Err(Stop::Interrupted) => {
            // Overwrites the ^C that the terminal has echoed.
            let _ = Term::stderr().clear_line();
            eprintln!("interrupted");
            Ok(Next::GoOn)
        }
        Err(Stop::Ended) => {
            let _ = Term::stderr().clear_line();
            Ok(Next::GoOn)
        }
        Err(stop) => Err(stop),
    }
}

/// Returns the message with `error` in red, if colours are enabled.
fn painted(message: &str) -> String {
    match message.strip_prefix("error:") {
        Some(rest) => format!("{}{rest}", console::style("error:").for_stderr().red().bold()),
        None => message.to_owned(),
    }
}
