//! `EXECUTE STATEMENT SET BEGIN INSERT …; …; END`: Flink's statement set. Its statements run in one transaction.

use std::ops::Range;

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Error, Operation, Result, TokenReader};

use super::modify;
use super::transaction::{abandon, begin_transaction, commit};
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};
use crate::variables::reader_of;

pub(super) static STATEMENT_SET: Statement = Statement {
    words: &[&["EXECUTE", "STATEMENT", "SET"]],
    synopsis: "EXECUTE STATEMENT SET BEGIN INSERT …; [INSERT …; …] END;",
    purpose: "run INSERT statements together, as Flink does",
    pages: &["statement-set"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules { runs_once: true, ..Rules::DEFAULT },
};

/// The notice of a set that reads relations. In Flink its statements would go on.
const RAN_ONCE: &str = "each INSERT ran once, over the rows that are there now: CREATE SINK … INTO table AS SELECT … keeps \
                        a table up to date";

/// The INSERT statements of a set.
struct Inserts {
    /// Their byte ranges in the statement.
    ranges: Vec<Range<usize>>,
    /// True if one of them reads a relation.
    reads: bool,
}

/// The transaction that a statement set begins. Dropping it rolls back, unless it was committed.
struct OwnTransaction<'a>(&'a mut Session);

impl Drop for OwnTransaction<'_> {
    fn drop(&mut self) {
        abandon(self.0);
    }
}

async fn run(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let inserts = inserts(reader)?;
    let mut tag = Tag::new("EXECUTE STATEMENT SET");
    if inserts.reads {
        tag.notices.push(RAN_ONCE.into());
    }
    if session.transaction.is_some() {
        run_all(session, reader.text(), &inserts).await?;
        return Ok(tag.into());
    }
    let modes = session.variables.modes;
    begin_transaction(session, modes);
    let own = &mut OwnTransaction(session);
    run_all(own.0, reader.text(), &inserts).await?;
    commit(own.0, &mut TokenReader::new("")?).await?;
    Ok(tag.into())
}

/// Runs the statements of a set in the open transaction.
async fn run_all(session: &mut Session, text: &str, inserts: &Inserts) -> Result<()> {
    for range in &inserts.ranges {
        let reader = reader_of(session, &text[range.clone()])?;
        let response = modify::run(session, reader).await.map_err(|error| placed(error, range.start))?;
        if matches!(response, Response::Rows(_)) {
            let error = Error::unsupported("RETURNING in a statement set");
            return Err(placed(error.hint("Run the INSERT as a statement of its own."), range.start));
        }
    }
    Ok(())
}

/// Returns an error of the statement that begins at `start`, with its position in the whole set.
fn placed(error: Error, start: usize) -> Error {
    if error.span.is_some() {
        return error.shift(start);
    }
    // An error with a position would have another SQLSTATE.
    let code = error.sqlstate();
    error.code(code).at(start..start + "INSERT".len())
}

/// Reads `BEGIN INSERT …; … END`.
fn inserts(reader: &mut TokenReader<'_>) -> Result<Inserts> {
    reader.expect_keyword(&["BEGIN"])?;
    let mut inserts = Inserts { ranges: Vec::new(), reads: false };
    loop {
        while reader.symbol(Token::SemiColon) {}
        if reader.keyword(&["END"]) {
            break;
        }
        if !reader.is_keyword(&["INSERT"]) {
            return Err(match Operation::of(reader) {
                None => reader.expected("INSERT or END"),
                Some(_) => reader
                    .expected("INSERT or END")
                    .hint("A statement set has INSERT statements only; BEGIN; …; COMMIT groups others."),
            });
        }
        let start = reader.position().start;
        while !matches!(reader.peek(), Token::SemiColon | Token::EOF) {
            inserts.reads |= reader.is_keyword(&["FROM"]);
            reader.next();
        }
        inserts.ranges.push(start..reader.last_position().end);
        if !reader.symbol(Token::SemiColon) {
            return Err(reader.expected("\";\"").hint(
                "A statement set ends with END. In psql, write BEGIN STATEMENT SET; INSERT …; INSERT …; END;",
            ));
        }
    }
    reader.expect_end()?;
    match inserts.ranges.is_empty() {
        true => Err(Error::invalid("the statement set is empty, but at least one INSERT was expected")
            .at(reader.last_position())),
        false => Ok(inserts),
    }
}

/// Returns the statements of a set whose END a text lacks, as those of psql, which sends a text at each `;`:
/// `BEGIN STATEMENT SET; INSERT …`. An END in a later text commits them. Returns `None` for any other text. Positions stay
/// those of the text.
pub fn open_statement_set(sql: &str) -> Option<String> {
    let mut reader = TokenReader::new(sql).ok()?;
    if !reader.keyword(&["EXECUTE", "STATEMENT", "SET", "BEGIN"]) || !reader.is_keyword(&["INSERT"]) {
        return None;
    }
    let first = reader.position().start;
    while *reader.peek() != Token::EOF {
        let ends = reader.next() == Token::SemiColon && reader.is_keyword(&["END"]);
        if ends {
            return None;
        }
    }
    Some(format!("{:first$}{}", "BEGIN STATEMENT SET;", &sql[first..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_without_end_is_a_transaction() {
        let open = open_statement_set;
        let insert = "INSERT INTO t VALUES (1)";
        let opened = open(&format!("EXECUTE STATEMENT SET BEGIN {insert}"));
        assert_eq!(opened, Some(format!("BEGIN STATEMENT SET;        {insert}")));
        let opened = open(&format!("execute statement set\nbegin\n {insert};")).unwrap();
        assert!(opened.starts_with("BEGIN STATEMENT SET; ") && opened.ends_with(&format!(" {insert};")));
        assert_eq!(opened.find(insert), Some(29));
        assert_eq!(open(&format!("EXECUTE STATEMENT SET BEGIN {insert}; END")), None);
        assert_eq!(open(&format!("EXECUTE STATEMENT SET BEGIN {insert}; {insert}; END;")), None);
        assert_eq!(open("EXECUTE STATEMENT SET BEGIN DELETE FROM t"), None);
        assert_eq!(open("EXECUTE s (1)"), None);
        assert_eq!(open(insert), None);
        assert_eq!(open("EXECUTE STATEMENT SET BEGIN 'x"), None);
    }
}
