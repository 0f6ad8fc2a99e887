//! `TRUNCATE [TABLE] name, …`: deletes all rows of tables.

use std::ops::Range;

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::{Error, Identity, Result, TokenReader};

use super::modify;
use crate::catalog::Definition;
use crate::event::Event;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static TRUNCATE: Statement = Statement {
    words: &[&["TRUNCATE"]],
    synopsis: "TRUNCATE [TABLE] [ONLY] name [, …] [RESTART IDENTITY | CONTINUE IDENTITY] [CASCADE | RESTRICT];",
    purpose: "delete all rows of tables",
    pages: &["delete"],
    begins: None,
    run: Run::Alone(|session, reader| Box::pin(async move { run(session, reader).await })),
    rules: Rules { runs_once: true, ..Rules::DEFAULT },
};

/// A parsed statement.
struct Written {
    /// The names of the tables, and their positions.
    tables: Vec<(String, Range<usize>)>,
    restarts: bool,
}

async fn run(session: &mut Session, reader: TokenReader<'_>) -> Result<Response> {
    let text = reader.text();
    let Written { tables, restarts } = read(reader, session.transaction.is_some())?;
    let key = session.idempotency.take();
    let own = session.transaction.is_none() && tables.len() > 1;
    if own {
        Box::pin(super::run_entered(session, "BEGIN")).await?;
    }
    session.idempotency.give_back(key);
    for (_, at) in &tables {
        let deletes = format!("DELETE FROM {}", &text[at.clone()]);
        if let Err(error) = modify::change(session, &deletes).await {
            if own {
                Box::pin(super::run_entered(session, "ROLLBACK")).await?;
            }
            // Positions are those of the DELETE.
            return Err(Error { span: None, ..error }.at(at.clone()));
        }
    }
    if own {
        Box::pin(super::run_entered(session, "COMMIT")).await?;
    }
    if restarts {
        for (table, _) in &tables {
            restart(session, table).await?;
        }
    }
    Ok(Response::Done(Tag::new("TRUNCATE TABLE")))
}

fn read(mut reader: TokenReader<'_>, in_transaction: bool) -> Result<Written> {
    reader.keyword(&["TABLE"]);
    let mut tables = Vec::new();
    loop {
        // A table may be called `only`.
        if matches!(reader.peek_at(1), Token::Word(_)) {
            reader.keyword(&["ONLY"]);
        }
        let start = reader.position().start;
        let name = reader.relation_name()?;
        tables.push((name, start..reader.last_position().end));
        reader.symbol(Token::Mul);
        if !reader.symbol(Token::Comma) {
            break;
        }
    }
    let at = reader.position();
    let restarts = reader.keyword(&["RESTART", "IDENTITY"]);
    if restarts && in_transaction {
        return Err(Error::unsupported("TRUNCATE … RESTART IDENTITY in a transaction")
            .hint("COMMIT first: a sequence is set at once.")
            .at(at));
    }
    reader.keyword(&["CONTINUE", "IDENTITY"]);
    // No table refers to another one here.
    reader.one_of(&[&["CASCADE"], &["RESTRICT"]]);
    reader.expect_end()?;
    Ok(Written { tables, restarts })
}

/// Sets the sequences of a table's identity columns, and those that it owns, to their first numbers.
async fn restart(session: &Session, table: &str) -> Result<()> {
    let catalog = session.catalog();
    let sequences = &session.shared.statements.sequences;
    let fields = catalog.find(table).and_then(|object| object.definition.schema());
    for identity in
        fields.into_iter().flat_map(|schema| schema.fields()).filter_map(|field| Identity::of(field))
    {
        sequences.restart(&identity.sequence, identity.start)?;
    }
    for object in catalog.objects() {
        if let Definition::Sequence(options) = &object.definition
            && options.is_owned_by(table)
        {
            sequences.restart(&object.name, options.start)?;
        }
    }
    session.shared.ask(|reply| Event::SaveSequences { reply }).await
}
