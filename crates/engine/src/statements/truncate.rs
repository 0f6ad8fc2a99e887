//! `TRUNCATE [TABLE] name`: deletes all rows of a table.

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Error, Result, TokenReader};

use super::modify;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static TRUNCATE: Statement = Statement {
    words: &[&["TRUNCATE"]],
    synopsis: "TRUNCATE [TABLE] [ONLY] name [CONTINUE IDENTITY] [RESTRICT];",
    purpose: "delete all rows of a table",
    pages: &["delete"],
    begins: None,
    run: Run::Alone(|session, reader| Box::pin(async move { run(session, reader).await })),
    rules: Rules { runs_once: true, ..Rules::DEFAULT },
};

async fn run(session: &mut Session, mut reader: TokenReader<'_>) -> Result<Response> {
    reader.keyword(&["TABLE"]);
    // A table may be called `only`.
    if matches!(reader.peek_at(1), Token::Word(_)) {
        reader.keyword(&["ONLY"]);
    }
    let start = reader.position().start;
    reader.relation_name()?;
    let named_at = start..reader.last_position().end;
    let at = reader.position();
    if reader.symbol(Token::Comma) {
        return Err(Error::unsupported("TRUNCATE of several tables")
            .hint("Write one statement for each: BEGIN; TRUNCATE a; TRUNCATE b; COMMIT.")
            .at(at));
    }
    if reader.keyword(&["RESTART", "IDENTITY"]) {
        return Err(Error::unsupported("TRUNCATE … RESTART IDENTITY").at(at));
    }
    reader.keyword(&["CONTINUE", "IDENTITY"]);
    let at = reader.position();
    if reader.keyword(&["CASCADE"]) {
        return Err(Error::unsupported("TRUNCATE … CASCADE")
            .hint("No table refers to another one here: leave it out.")
            .at(at));
    }
    reader.keyword(&["RESTRICT"]);
    reader.expect_end()?;
    let deletes = format!("DELETE FROM {}", &reader.text()[named_at.clone()]);
    let deleted = modify::change(session, &deletes).await;
    // Positions are those of the DELETE.
    deleted.map_err(|error| Error { span: None, ..error }.at(named_at))?;
    Ok(Response::Done(Tag::new("TRUNCATE TABLE")))
}
