//! Scripts: texts of several statements, run step by step.

use std::borrow::Cow;
use std::collections::VecDeque;

use futures::FutureExt;

use millstream_sql::{Error, Piece, Result, TokenReader};

use crate::ddl;
use crate::idempotency::tag_of;
use crate::session::{Response, Session};
use crate::statements::{STATEMENTS, create_table_as, replace};
use crate::transaction::say_at_once;
use crate::variables::reader_of;

/// Statements after which names and types are looked up anew: the last ones of a group.
const LAST: [&[&str]; 6] = [
    &["CREATE", "SCHEMA"],
    &["CREATE", "TYPE"],
    &["CREATE", "DOMAIN"],
    &["DROP", "SCHEMA"],
    &["DROP", "TYPE"],
    &["DROP", "DOMAIN"],
];

/// Statements that wait to be run; see [`Session::step`].
#[derive(Debug)]
pub struct Script {
    pieces: VecDeque<Piece>,
    gather: bool,
    holding: bool,
}

/// The outcome of one statement.
#[derive(Debug)]
pub struct Outcome {
    /// The statement.
    pub sql: String,
    /// Its response.
    pub response: Response,
}

impl Script {
    /// Splits a text at each `;` between statements.
    pub fn parse(sql: &str) -> Result<Script> {
        let pieces = millstream_sql::statements(sql)?.into();
        Ok(Script { pieces, gather: false, holding: false })
    }

    /// Holds back the first epoch until the leading CREATE, DROP and SET statements have run.
    pub fn gather_ddl(&mut self) {
        self.gather = true;
    }

    /// Runs the next statement, or the next run of CREATE and DROP statements.
    async fn step(&mut self, session: &mut Session) -> Result<Option<Vec<Outcome>>> {
        if self.gather && !self.holding {
            self.gather = false;
            self.holding = true;
            session.shared.hold(true)?;
        }
        let mut group: Vec<Piece> = Vec::new();
        while let Some(piece) = self.pieces.front() {
            let reader = TokenReader::new(&piece.text).map_err(|error| error.shift(piece.range.start))?;
            if !STATEMENTS.is_ddl(&reader) {
                break;
            }
            // The columns of a query's late rows are known only once the query exists.
            if !group.is_empty() && piece.text.to_ascii_lowercase().contains("late_rows") {
                break;
            }
            // Names are looked up in the schema, and among the types, afterwards.
            let is_last = LAST.iter().any(|words| reader.is_keyword(words));
            group.extend(self.next(session));
            if is_last {
                break;
            }
        }
        if !group.is_empty() {
            return run_group(session, &group).await.map(Some);
        }
        let Some(piece) = self.next(session) else { return Ok(None) };
        let Piece { range, text: sql } = piece;
        let reader = reader_of(session, &sql)?;
        if self.holding && !reader.is_keyword(&["SET"]) && !replace::begins(&reader) {
            self.holding = false;
            session.shared.hold(false)?;
        }
        let shifted = |error: Error| error.shift(range.start);
        let in_transaction = session.transaction.is_some();
        let done =
            session.idempotency.was_done((&session.shared, &session.catalog()), &sql, in_transaction).await;
        let response = match done.map_err(shifted)? {
            Some(done) => {
                if done.rolls_back {
                    session.execute("ROLLBACK").await.map_err(shifted)?;
                }
                done.response
            }
            None => session.execute(&sql).await.map_err(shifted)?,
        };
        Ok(Some(vec![Outcome { sql, response }]))
    }

    /// Takes the next statement, as the session means it.
    fn next(&mut self, session: &Session) -> Option<Piece> {
        let mut piece = self.pieces.pop_front()?;
        if let Cow::Owned(text) = session.variables.spelled_out(&piece.text) {
            piece.text = text;
        }
        Some(piece)
    }

    /// Returns the number of statements left.
    pub fn remaining(&self) -> usize {
        self.pieces.len()
    }
}

impl Session {
    /// Runs the next statement of `script`, or the next run of CREATE and DROP statements. These take effect
    /// together before the next epoch, or not at all. Returns `None` at the end of the script. An error's
    /// span refers to the script's text.
    pub async fn step(&mut self, script: &mut Script) -> Result<Option<Vec<Outcome>>> {
        self.come_back().await;
        let result = script.step(self).await;
        if script.holding && !matches!(result, Ok(Some(_))) {
            script.holding = false;
            self.shared.hold(false)?;
        }
        result
    }
}

/// Runs CREATE and DROP statements that take effect together.
async fn run_group(session: &mut Session, group: &[Piece]) -> Result<Vec<Outcome>> {
    if let Some(piece) = group.first() {
        let entered = session.enter(&TokenReader::new(&piece.text)?);
        entered.map_err(|error| error.shift(piece.range.start))?;
    }
    let placed = |pieces: &[&Piece], (place, error): (Option<usize>, Error)| match place
        .and_then(|place| pieces.get(place))
    {
        Some(piece) if group.len() > 1 => at_least_at(error, piece).shift(piece.range.start),
        Some(piece) => error.shift(piece.range.start),
        None => Error { span: None, ..error },
    };
    let all: Vec<&Piece> = group.iter().collect();
    for piece in group {
        let refused = create_table_as::refuse_unfinished(&TokenReader::new(&piece.text)?);
        refused.map_err(|error| error.shift(piece.range.start))?;
    }
    let texts: Vec<&str> = group.iter().map(|piece| piece.text.as_str()).collect();
    let are_new = session
        .idempotency
        .which_are_new((&session.shared, &session.catalog()), &texts)
        .await
        .map_err(|error| placed(&all, error))?;
    let new = group.iter().zip(&are_new).filter(|(_, is_new)| **is_new);
    let new: Vec<&Piece> = new.map(|(piece, _)| piece).collect();
    let texts: Vec<&str> = new.iter().map(|piece| piece.text.as_str()).collect();
    session.time_anew();
    let deadline = session.deadline.clone();
    let texts: Vec<String> = texts.into_iter().map(str::to_string).collect();
    let all_texts = texts.join("; ");
    let run = session.apart(&all_texts, move |session| {
        async move {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let changed = ddl::change(session, &texts).await;
            Ok(session.leave(changed))
        }
        .boxed()
    });
    let changed = deadline.within(run).await.and_then(|changed| changed);
    let mut tags = changed.and_then(|changed| changed.map_err(|error| placed(&new, error)))?;
    say_at_once(session.transaction.as_ref(), &mut tags);
    let mut tags = tags.into_iter();
    let outcomes = group.iter().zip(are_new).map(|(piece, is_new)| {
        // An existing object causes no notice, so that a script can run any number of times.
        let tag = if is_new { tags.next().unwrap_or_default() } else { tag_of(&piece.text) };
        Outcome { sql: piece.text.clone(), response: Response::Done(tag) }
    });
    Ok(outcomes.collect())
}

/// Sets the position of an error without one to the first word of its statement, which is one of several.
fn at_least_at(error: Error, piece: &Piece) -> Error {
    if error.span.is_some() {
        return error;
    }
    // An error with a position would have another SQLSTATE.
    let code = error.sqlstate();
    let word = piece.text.find(char::is_whitespace).unwrap_or(piece.text.len());
    error.code(code).at(0..word)
}
