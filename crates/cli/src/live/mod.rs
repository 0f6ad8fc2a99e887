//! `\live`: shows a query's rows on a full screen and keeps them up to date.
//!
//! A view that the user leaves continues in the background, unless it shows a relation, which the engine
//! maintains anyway. Its memory is bounded. If it falls too far behind, it starts over.

mod feed;
mod refreshed;
mod rows;
mod screen;
mod state;
mod view;

use std::io::IsTerminal;

use crate::editor::tokens;
use crate::interpreter::{Call, Interpreter, failure};
use crate::live::feed::Feed;
use crate::live::screen::Left;
use crate::live::view::View;
use crate::progress::counted;
use crate::stop::Stop;

/// Maximum number of views in the background.
const VIEWS_MAX: usize = 16;

/// A view, on the screen or in the background.
pub struct Live {
    /// Its number among the views in the background.
    number: usize,
    title: String,
    /// True if the query belongs to the view and ends with it.
    owned: bool,
    feed: Feed,
    view: View,
}

/// The argument of `\live`.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    /// List the views in the background.
    List,
    /// Show one of them.
    Number(usize),
    /// End one of them.
    End(usize),
    /// Show a query.
    Query(String),
    /// Show the answers to EXPLAIN ANALYZE.
    Explain(String),
    /// Show a relation.
    Relation(String),
}

/// Runs `\live`.
pub(crate) async fn perform(shell: &mut Interpreter, call: &Call<'_>) -> Result<(), Stop> {
    let wish = wish(shell, call.rest)?;
    if wish == Wish::List {
        return list(shell).await;
    }
    if let Wish::End(number) = wish {
        let live = take(shell, number)?;
        let line = format!("The live view of {} has ended.", live.title);
        return Ok(shell.client.output.remark(&line).await?);
    }
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(failure(
            "a live view needs a terminal: SUBSCRIBE x, or SELECT … EMIT CHANGES, prints changes as they come",
        ));
    }
    let live = match wish {
        Wish::Number(number) => take(shell, number)?,
        Wish::Query(query) => {
            shell.buffer = Default::default();
            shell.last = query.clone();
            let subscribe = format!("SUBSCRIBE ({query}\n) WITH (PROGRESS = true)");
            open(shell, one_line(&query), subscribe, true).await?
        }
        Wish::Explain(statement) => {
            let engine = shell.client.engine.clone();
            let title = one_line(&statement);
            let feed = shell.client.signals.unless(Feed::refresh(engine, statement)).await?;
            let feed = feed.map_err(|error| Stop::engine(&error))?;
            Live { number: 0, title, owned: false, feed, view: View::default() }
        }
        Wish::Relation(name) => {
            let subscribe = format!("SUBSCRIBE {name} WITH (PROGRESS = true)");
            open(shell, name, subscribe, false).await?
        }
        Wish::List | Wish::End(_) => return Ok(()),
    };
    show(shell, live).await
}

fn wish(shell: &Interpreter, rest: &str) -> Result<Wish, Stop> {
    let rest = rest.trim().trim_end_matches(';').trim_end();
    let words: Vec<&str> = rest.split_whitespace().collect();
    if words.is_empty()
        && !shell.is_inside()
        && let Some(live) = shell.lives.last()
    {
        return Ok(Wish::Number(live.number));
    }
    match words.as_slice() {
        [] => match explained(&shell.statement()?) {
            Some(statement) => Ok(Wish::Explain(statement)),
            None => query(&shell.statement()?),
        },
        ["list"] => Ok(Wish::List),
        ["end", number] => {
            let number =
                number.parse().map_err(|_| failure(format!("\\live end needs a number, not '{number}'")));
            number.map(Wish::End)
        }
        [word] if word.chars().all(|letter| letter.is_ascii_digit()) => {
            Ok(Wish::Number(word.parse().map_err(|_| failure(format!("there is no live view {word}")))?))
        }
        _ if is_query(rest) => query(rest),
        _ => Ok(explained(rest).map_or_else(|| Wish::Relation(rest.to_owned()), Wish::Explain)),
    }
}

/// Returns true if a text is a query; else it is a relation's name.
fn is_query(text: &str) -> bool {
    let first = tokens(text).first().map(|word| word.to_ascii_uppercase());
    first.is_some_and(|first| ["SELECT", "WITH", "VALUES", "("].contains(&first.as_str()))
}

/// Returns EXPLAIN ANALYZE of a named query, with the time that one answer is of; `None` for other texts.
fn explained(text: &str) -> Option<String> {
    let text = text.trim().trim_end_matches(';').trim_end();
    let words: Vec<String> = tokens(text).iter().map(|word| word.to_ascii_uppercase()).collect();
    let is_explain = words.len() > 2 && words[0] == "EXPLAIN" && words[1] == "ANALYZE";
    let is_of_name = is_explain && !["SELECT", "WITH", "VALUES", "("].contains(&words[2].as_str());
    let has_time = words.iter().any(|word| word == "FOR");
    is_of_name.then(|| if has_time { text.to_owned() } else { format!("{text} FOR '1 second'") })
}

/// Returns a query without the clause that a live view implies.
fn query(text: &str) -> Result<Wish, Stop> {
    if !is_query(text) {
        return Err(failure(format!(
            "'{}' has no rows to follow: \\live takes a relation's name or a SELECT",
            one_line(text)
        )));
    }
    let words = tokens(text);
    let cut = match words.as_slice() {
        [.., emit, changes]
            if emit.eq_ignore_ascii_case("EMIT") && changes.eq_ignore_ascii_case("CHANGES") =>
        {
            text.to_ascii_uppercase().rfind("EMIT")
        }
        _ => None,
    };
    Ok(Wish::Query(text[..cut.unwrap_or(text.len())].trim_end().to_owned()))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn list(shell: &Interpreter) -> Result<(), Stop> {
    let output = &shell.client.output;
    if shell.lives.is_empty() {
        output.say("There are no live views in the background.").await?;
    }
    for live in &shell.lives {
        let rows = counted(live.feed.state().rows.total().max(0) as u64, "row");
        output.say(&format!("{}  {} ({rows})", live.number, live.title)).await?;
    }
    Ok(())
}

/// Removes a view from the background and returns it.
fn take(shell: &mut Interpreter, number: usize) -> Result<Live, Stop> {
    match shell.lives.iter().position(|live| live.number == number) {
        Some(place) => Ok(shell.lives.remove(place)),
        None if shell.lives.is_empty() => Err(failure("there are no live views in the background")),
        None => Err(failure(format!("there is no live view {number}; \\live list shows those there are"))),
    }
}

async fn open(shell: &mut Interpreter, title: String, subscribe: String, owned: bool) -> Result<Live, Stop> {
    let engine = shell.client.engine.clone();
    // Error positions would point into a statement that the user didn't type, so they are dropped.
    let feed = shell.client.signals.unless(Feed::start(engine, subscribe)).await?;
    let feed = feed.map_err(|error| Stop::engine(&error))?;
    let number = shell.lives.iter().map(|live| live.number).max().unwrap_or(0) + 1;
    Ok(Live { number, title, owned, feed, view: View::default() })
}

/// Shows a view until the user leaves it.
async fn show(shell: &mut Interpreter, mut live: Live) -> Result<(), Stop> {
    let client = &mut shell.client;
    let held = client.output.hold();
    let color = console::colors_enabled();
    let shutdown = client.signals.shutdown.clone();
    let shown =
        shutdown.prompt(|| screen::show(&live.feed, &client.engine, &live.title, &mut live.view, color));
    drop(held);
    let Some(left) = shown else { return Ok(()) };
    let left = left.map_err(|error| Stop::external(format_args!("the terminal can't be used: {error}")))?;
    let end = live.feed.state().end.clone();
    if let Some(Err(message)) = end {
        return Err(failure(message));
    }
    if left == Left::Ended || end.is_some() || !live.owned {
        return Ok(());
    }
    if shell.lives.len() == VIEWS_MAX {
        shell.lives.remove(0);
    }
    let line = format!(
        "The query continues as live view {0}: \\live {0} returns to it, \\live end {0} ends it.",
        live.number
    );
    shell.lives.push(live);
    Ok(shell.client.output.remark(&line).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_told_from_names() {
        assert!(
            is_query("select 1")
                && is_query("/* x */ WITH a AS (SELECT 1) SELECT 2")
                && is_query("(SELECT 1)")
        );
        assert!(!is_query("orders") && !is_query("\"select\"") && !is_query("selection"));
    }

    #[test]
    fn explain_analyze_of_a_name_is_refreshed() {
        assert_eq!(explained("explain analyze m;").as_deref(), Some("explain analyze m FOR '1 second'"));
        let own = "EXPLAIN ANALYZE VIEW \"for\" FOR 3 EPOCHS";
        assert_eq!(explained(own).as_deref(), Some(own));
        assert!(explained("EXPLAIN ANALYZE SELECT 1").is_none() && explained("EXPLAIN m").is_none());
    }

    #[test]
    fn the_clause_for_changes_is_left_out() {
        assert_eq!(query("SELECT 1 emit  changes").ok(), Some(Wish::Query("SELECT 1".into())));
        assert_eq!(query("SELECT emit").ok(), Some(Wish::Query("SELECT emit".into())));
        assert!(query("INSERT INTO t VALUES (1)").is_err());
    }
}
