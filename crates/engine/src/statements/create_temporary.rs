//! `CREATE TEMP TABLE | VIEW | SEQUENCE …`: the statement without TEMP, for an object in the session's own schema.

use std::ops::Range;

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Error, Result, TokenReader, quote_ident, sqlstate};

use crate::ddl;
use crate::session::{Response, Session};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_TEMPORARY: Statement = Statement {
    words: &[&["CREATE", "TEMP"]],
    synopsis: concat!(
        "CREATE TEMP | TEMPORARY TABLE [IF NOT EXISTS] name (column type …, …) [ON COMMIT PRESERVE ROWS | DROP];\n",
        "CREATE TEMP | TEMPORARY TABLE [IF NOT EXISTS] name [(column, …)] [ON COMMIT PRESERVE ROWS | DROP] AS query;\n",
        "CREATE [OR REPLACE] TEMP | TEMPORARY VIEW name [(column, …)] AS query;\n",
        "CREATE TEMP | TEMPORARY SEQUENCE [IF NOT EXISTS] name [option …];",
    ),
    purpose: "define an object that is dropped when the session ends",
    pages: &["create-temporary"],
    begins: Some(|reader| begin(&mut reader.clone()).is_some()),
    run: Run::Alone(|session, reader| Box::pin(async move { run(session, reader).await })),
    rules: Rules::CATALOG,
};

/// The parts of a statement.
struct Written {
    /// `TABLE`, with `OR REPLACE` and `IF NOT EXISTS` around it.
    begins: String,
    kind: &'static str,
    name: String,
    /// The position after the name.
    rest: usize,
    on_commit: Option<(OnCommit, Range<usize>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OnCommit {
    Preserve,
    Delete,
    Drop,
}

/// Reads `CREATE [OR REPLACE] [LOCAL | GLOBAL] TEMP | TEMPORARY`. Returns true if OR REPLACE is there; none if the statement begins
/// otherwise.
fn begin(reader: &mut TokenReader<'_>) -> Option<bool> {
    let replaces = reader.one_of(&[&["CREATE", "OR", "REPLACE"], &["CREATE"]])? == 0;
    reader.one_of(&[&["LOCAL"], &["GLOBAL"]]);
    reader.one_of(&[&["TEMP"], &["TEMPORARY"]])?;
    Some(replaces)
}

async fn run(session: &mut Session, reader: TokenReader<'_>) -> Result<Response> {
    let text = reader.text();
    let written = read(reader)?;
    let drops = match &written.on_commit {
        Some((OnCommit::Delete, at)) => {
            return Err(Error::unsupported("ON COMMIT DELETE ROWS")
                .at(at.clone())
                .hint("TRUNCATE the table at the end of the transaction, or use ON COMMIT DROP."));
        }
        Some((on_commit, _)) => *on_commit == OnCommit::Drop,
        None => false,
    };
    if drops && session.transaction.is_none() {
        let error = "ON COMMIT DROP outside a transaction would drop the table at once";
        return Err(Error::invalid(error).hint("BEGIN a transaction first, or leave it out."));
    }
    let schema = ddl::temporary_schema(session).await?;
    let begins = format!("{} {schema}.{}", written.begins, quote_ident(&written.name));
    let mut rest = text[written.rest..].to_string();
    if let Some((_, at)) = &written.on_commit {
        // Blanks leave the positions of the rest as they are.
        rest.replace_range(at.start - written.rest..at.end - written.rest, &" ".repeat(at.len()));
    }
    let permanent = format!("{begins}{rest}");
    let full = format!("{schema}.{}", written.name);
    let exists = session.shared.catalog().find(&full).is_some();
    let done = Box::pin(super::run_entered(session, &permanent)).await;
    let response = done.map_err(|error| in_original(error, begins.len(), written.rest))?;
    if drops
        && !exists
        && let Some(schema) = session.variables.temporary.get()
    {
        schema.drop_at_end(written.name);
    }
    Ok(response)
}

fn read(mut reader: TokenReader<'_>) -> Result<Written> {
    let replaces = begin(&mut reader).unwrap_or_default();
    let kinds: &[&[&str]] = if replaces { &[&["VIEW"]] } else { &[&["TABLE"], &["VIEW"], &["SEQUENCE"]] };
    let Some(kind) = reader.one_of(kinds).map(|kind| kinds[kind][0]) else {
        return Err(reader.expected(if replaces { "VIEW" } else { "TABLE, VIEW or SEQUENCE" }));
    };
    let lenient = if reader.keyword(&["IF", "NOT", "EXISTS"]) { " IF NOT EXISTS" } else { "" };
    let at = reader.position().start;
    let is_alias = reader.is_keyword(&["PG_TEMP"]) && *reader.peek_at(1) == Token::Period;
    if is_alias {
        reader.next();
        reader.next();
    }
    if reader.is_qualified() {
        let name = reader.relation_name()?;
        let error = format!("\"{name}\" can't be temporary: it is in a schema of its own");
        return Err(Error::invalid(error)
            .at(at..reader.last_position().end)
            .hint("Leave the schema out.")
            .code(sqlstate::INVALID_TABLE_DEFINITION));
    }
    let name = reader.identifier()?;
    let rest = reader.last_position().end;
    let replace = if replaces { "OR REPLACE " } else { "" };
    Ok(Written { begins: format!("CREATE {replace}{kind}{lenient}"), kind, name, rest, on_commit: None }
        .with_on_commit(reader))
}

impl Written {
    /// Finds `ON COMMIT …` outside of parentheses, before the query of a table.
    fn with_on_commit(mut self, mut reader: TokenReader<'_>) -> Written {
        let ends: &[&[&str]] = &[
            &["ON", "COMMIT", "PRESERVE", "ROWS"],
            &["ON", "COMMIT", "DELETE", "ROWS"],
            &["ON", "COMMIT", "DROP"],
        ];
        while self.kind == "TABLE" && !reader.is_end() && !reader.is_keyword(&["AS"]) {
            let start = reader.position().start;
            if let Some(end) = reader.one_of(ends) {
                let on_commit = [OnCommit::Preserve, OnCommit::Delete, OnCommit::Drop][end];
                self.on_commit = Some((on_commit, start..reader.last_position().end));
                break;
            }
            if *reader.peek() != Token::LParen || reader.group().is_err() {
                reader.next();
            }
        }
        self
    }
}

/// Moves the position of an error from the statement that ran to the one that was written.
fn in_original(error: Error, begins: usize, rest: usize) -> Error {
    let span = error.span.clone().filter(|span| span.start >= begins);
    Error { span: span.map(|span| span.start - begins + rest..span.end - begins + rest), ..error }
}
