//! `CREATE VIEW [IF NOT EXISTS] name [(columns)] AS SELECT …`

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_sql::functions::quoted_ident;
use millstream_sql::{BatchQuery, Error, Planner, Query, Result, TokenReader, quote_ident, replaying};

use super::{existed, new_name, relations_of, within};
use crate::catalog::{Catalog, Definition, Object, as_of, is_of_engine, reads_of};
use crate::plan::Working;
use crate::sequences::is_sequence;
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_VIEW: Statement = Statement {
    words: &[&["CREATE", "VIEW"]],
    synopsis: "CREATE [OR REPLACE] VIEW [IF NOT EXISTS] name [(column, …)] AS query;",
    purpose: "name a query",
    pages: &["create-view"],
    begins: None,
    run: Run::Plan(|session, working, reader| Box::pin(async move { plan(session, working, reader) })),
    rules: Rules::CATALOG,
};

pub(super) static CREATE_RECURSIVE_VIEW: Statement = Statement {
    words: &[&["CREATE", "RECURSIVE"], &["CREATE", "OR", "REPLACE", "RECURSIVE"]],
    synopsis: "CREATE [OR REPLACE] RECURSIVE VIEW name (column, …) AS query;",
    purpose: "name a recursive query",
    pages: &["create-view"],
    begins: None,
    run: Run::Alone(|session, reader| Box::pin(async move { recursive(session, reader).await })),
    rules: Rules::CATALOG,
};

/// Runs the statement as `CREATE VIEW name AS WITH RECURSIVE name (columns) AS (query) SELECT columns FROM name`.
async fn recursive(session: &mut Session, mut reader: TokenReader<'_>) -> Result<Response> {
    let replaces = TokenReader::new(reader.text())?.is_keyword(&["CREATE", "OR"]);
    reader.expect_keyword(&["VIEW"])?;
    let start = reader.position().start;
    reader.relation_name()?;
    let written = reader.text()[start..reader.last_position().end].to_string();
    let mut last = TokenReader::new(&written)?;
    let mut name = last.identifier()?;
    while last.symbol(Token::Period) {
        name = last.identifier()?;
    }
    let columns = column_names(&mut reader)?.join(", ");
    reader.expect_keyword(&["AS"])?;
    let (query, _) = within(&reader);
    let (name, replace) = (quote_ident(&name), if replaces { "OR REPLACE " } else { "" });
    let text = format!(
        "CREATE {replace}VIEW {written} AS WITH RECURSIVE {name} ({columns}) AS ({query}) SELECT {columns} FROM {name}"
    );
    // A position in the other text means nothing.
    let done = Box::pin(super::run_entered(session, &text)).await;
    done.map_err(|error| Error { span: None, ..error })
}

pub(crate) fn plan(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let (name, exists) = new_name(working, &mut reader)?;
    if exists {
        return Ok(existed("VIEW", &name));
    }
    let Named { query, reads, options } = named_query(session, &working.catalog, &mut reader)?;
    no_options(&options, "a view")?;
    let definition = Definition::View { raw: query.raw, schema: query.schema };
    working.create(Object { name, ddl: reader.text().to_string(), reads, definition }, None)?;
    Ok(Tag::new("CREATE VIEW"))
}

/// The query of a CREATE statement, with distinct column names.
pub(super) struct Named {
    pub(super) query: Query,
    /// The objects that it reads.
    pub(super) reads: Vec<Arc<str>>,
    /// The options in WITH.
    pub(super) options: Vec<(String, String)>,
}

/// Fails if an object without options has a WITH clause.
pub(super) fn no_options(options: &[(String, String)], what: &str) -> Result<()> {
    match options.first() {
        None => Ok(()),
        Some((name, _)) => Err(Error::invalid(format!("{what} has no options, but '{name}' is given"))),
    }
}

/// A query FOR EACH BATCH.
pub(super) struct NamedBatches {
    pub(super) query: BatchQuery,
    /// The objects that it reads.
    pub(super) reads: Vec<Arc<str>>,
    /// The options in WITH.
    pub(super) options: Vec<(String, String)>,
}

/// Returns the planner for the query of an object. A data directory may hold a query that this version refuses
/// to create.
pub(super) fn lasting_planner(session: &Session) -> Planner {
    replaying(&session.variables.zoned(&session.shared.planner), session.is_recovering)
}

/// Reads `[(columns)] [WITH (…)] AS query`.
pub(super) fn named_query(
    session: &Session,
    catalog: &Catalog,
    reader: &mut TokenReader<'_>,
) -> Result<Named> {
    let planner = lasting_planner(session);
    let (query, options) = planned(reader, |text| planner.query(text, catalog), |query| &query.schema)?;
    query.check_names()?;
    let reads = reads_of(&query.reads);
    Ok(Named { query, reads, options })
}

/// Reads the same for a maintained query. If the statement is replayed, `planned` has the stored plan.
pub(super) fn maintained_query(
    session: &Session,
    catalog: &Catalog,
    planned: Option<BatchQuery>,
    reader: &mut TokenReader<'_>,
) -> Result<Named> {
    match planned {
        Some(planned) => {
            let NamedBatches { query, reads, options } = planned_before(planned, reader)?;
            Ok(Named { query: query.query, reads, options })
        }
        None => {
            let mut named = named_query(session, catalog, reader)?;
            make_continuous(session, &mut named.query)?;
            Ok(named)
        }
    }
}

/// Returns a query with its stored plan. Of the text, only the part before the query is read.
pub(super) fn planned_before(query: BatchQuery, reader: &mut TokenReader<'_>) -> Result<NamedBatches> {
    if *reader.peek() == Token::LParen {
        column_names(reader)?;
    }
    let options = reader.options()?;
    reader.expect_keyword(&["AS"])?;
    let reads = reads_of(&query.query.reads);
    Ok(NamedBatches { query, reads, options })
}

/// Reads the same for a query FOR EACH BATCH. The FOR EACH BATCH clause has been removed.
pub(super) fn named_batches(
    session: &Session,
    catalog: &Catalog,
    reader: &mut TokenReader<'_>,
) -> Result<NamedBatches> {
    let planner = lasting_planner(session);
    let plan = |text: &str| planner.batch_query(text, catalog);
    let (query, options) = planned(reader, plan, |query| &query.query.schema)?;
    query.query.check_names()?;
    check_batches(&query, catalog)?;
    let reads = reads_of(&query.query.reads);
    Ok(NamedBatches { query, reads, options })
}

type Planned<Q> = (Q, Vec<(String, String)>);

fn planned<Q>(
    reader: &mut TokenReader<'_>,
    plan: impl Fn(&str) -> Result<Q>,
    schema: impl Fn(&Q) -> &SchemaRef,
) -> Result<Planned<Q>> {
    let names = if *reader.peek() == Token::LParen { Some(column_names(reader)?) } else { None };
    let options = reader.options()?;
    reader.expect_keyword(&["AS"])?;
    let (text, offset) = within(reader);
    let mut query = plan(text).map_err(|error| error.shift(offset))?;
    if let Some(names) = names {
        let columns = schema(&query).fields().len();
        if columns != names.len() {
            let error = format!("{} column names are given, but the query has {columns}", names.len());
            return Err(Error::invalid(error));
        }
        query = plan(&format!("SELECT * FROM ({text}) AS query ({})", names.join(", ")))?;
    }
    Ok((query, options))
}

/// Checks the restrictions of a query FOR EACH BATCH, and of those below it.
pub(super) fn check_batches(query: &BatchQuery, catalog: &Catalog) -> Result<()> {
    query.query.check_determinism()?;
    check_relations(&query.query, catalog)?;
    query.below().try_for_each(|(_, below)| check_batches(below, catalog))
}

/// Turns a query into a maintained one, and checks its restrictions.
pub(super) fn make_continuous(session: &Session, query: &mut Query) -> Result<()> {
    session.variables.zoned(&session.shared.planner).continuous(query)?;
    check_relations(query, &session.shared.catalog())
}

/// Refuses a continuous query over tables that describe the engine, and over sequences.
fn check_relations(query: &Query, catalog: &Catalog) -> Result<()> {
    let relations = relations_of(&query.plan)?;
    if let Some(name) = relations.iter().find(|name| is_sequence(catalog, name)) {
        return Err(Error::unsupported(format!("sequence \"{name}\" in a continuous query"))
            .hint("Use a SELECT, which runs once."));
    }
    match relations.iter().find(|name| is_of_engine(name)) {
        Some(name) if as_of(name).is_some() => Err(Error::unsupported(
            "FOR SYSTEM_TIME AS OF one moment in a continuous query",
        )
        .hint("Use a SELECT, which runs once; a join may be FOR SYSTEM_TIME AS OF a time of its rows.")),
        Some(name) => Err(Error::unsupported(format!("{name} in a continuous query"))
            .hint("Use a SELECT, which runs once.")),
        None => Ok(()),
    }
}

/// Reads `(a, b)` and quotes each name.
pub(super) fn column_names(reader: &mut TokenReader<'_>) -> Result<Vec<String>> {
    reader.expect_symbol(Token::LParen)?;
    let mut names = Vec::new();
    loop {
        names.push(quoted_ident(&reader.identifier()?));
        if !reader.symbol(Token::Comma) {
            break;
        }
    }
    reader.expect_symbol(Token::RParen)?;
    Ok(names)
}
