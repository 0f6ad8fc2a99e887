//! `ANALYZE`, `VACUUM`: statements of PostgreSQL's maintenance, which scripts and tools send. There is nothing to do for them.

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Result, TokenReader};

use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static ANALYZE: Statement = Statement {
    words: &[&["ANALYZE"], &["VACUUM"]],
    synopsis: "ANALYZE [(option, …)] [relation [(column, …)], …];\nVACUUM [(option, …) | FULL | FREEZE | VERBOSE | ANALYZE] [relation, …];",
    purpose: "do nothing: scripts and tools send them",
    pages: &["analyze"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader) })),
    rules: Rules::DEFAULT,
};

fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let (word, why) = match TokenReader::new(reader.text())?.is_keyword(&["VACUUM"]) {
        true => ("VACUUM", "deleted rows are removed without it"),
        false => ("ANALYZE", "queries are planned without statistics"),
    };
    if *reader.peek() == Token::LParen {
        reader.group()?;
    }
    while reader.one_of(&[&["FULL"], &["FREEZE"], &["VERBOSE"], &["ANALYZE"]]).is_some() {}
    let catalog = session.catalog();
    while !reader.is_end() {
        let name = reader.relation_name()?;
        catalog.get(&name).map_err(|error| error.at(reader.last_position()))?;
        if *reader.peek() == Token::LParen {
            reader.group()?;
        }
        if !reader.symbol(Token::Comma) {
            break;
        }
    }
    reader.expect_end()?;
    Ok(Tag { text: word.into(), notices: vec![format!("{word} has no effect: {why}")] }.into())
}
