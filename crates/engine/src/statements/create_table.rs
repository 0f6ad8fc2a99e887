//! `CREATE TABLE [IF NOT EXISTS] name (columns, PRIMARY KEY (…)) [APPEND ONLY] [ON CONFLICT …] [WITH (connector = …)]`

use std::collections::HashSet;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::{checks_of, generated_of, sql_type_of};
use millstream_sql::functions::quoted_ident;
use millstream_sql::{Columns, Error, Identity, Result, TokenReader, relation_ident, without_order};
use millstream_state::Conflict;

use super::{create_source, existed, new_name, table_like};
use crate::catalog::{Catalog, Definition, Intake, Object};
use crate::plan::Working;
use crate::sequences::{owner_of, read_by_defaults, with_full_names};
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_TABLE: Statement = Statement {
    words: &[&["CREATE", "TABLE"]],
    synopsis: concat!(
        "CREATE TABLE [IF NOT EXISTS] name (\n",
        "  column type [DEFAULT value | identity] [NOT NULL] [PRIMARY KEY | UNIQUE] [[CONSTRAINT name] CHECK (condition)]\n",
        "  | column [type] [GENERATED ALWAYS] AS expression [STORED | VIRTUAL] [NOT NULL] [PRIMARY KEY]\n",
        "  [, …] [, PRIMARY KEY (column, …)] [, [CONSTRAINT name] UNIQUE (column, …) | CHECK (condition)]\n",
        "  [, WATERMARK FOR column AS expression] [, LIKE relation [INCLUDING part | EXCLUDING part] …]\n",
        ") [APPEND ONLY] [ON CONFLICT DO NOTHING | DO UPDATE [IF NOT NULL] | OVERWRITE]\n",
        "  [[INCLUDE …] WITH (connector = '…', option = value, …) [FORMAT … ENCODE …]];",
    ),
    purpose: "define a table",
    pages: &["create-table"],
    begins: None,
    run: Run::Plan(|session, working, reader| Box::pin(async move { plan(session, working, reader).await })),
    rules: Rules::CATALOG,
};

pub(super) static CREATE_UNLOGGED: Statement = Statement {
    words: &[&["CREATE", "UNLOGGED"]],
    synopsis: "CREATE UNLOGGED TABLE …;",
    purpose: "define a table: UNLOGGED has no effect",
    pages: &["create-table"],
    begins: None,
    run: Run::Alone(|session, reader| Box::pin(async move { unlogged(session, reader).await })),
    rules: Rules::CATALOG,
};

async fn unlogged(session: &mut Session, reader: TokenReader<'_>) -> Result<Response> {
    let mut text = reader.text().to_string();
    // Blanks leave the positions of errors as they are.
    let word = reader.last_position();
    text.replace_range(word.clone(), &" ".repeat(word.len()));
    let done = Box::pin(super::run_entered(session, &text)).await?;
    Ok(match done {
        Response::Done(mut tag) => {
            tag.notices.push("UNLOGGED has no effect: the table survives crashes".into());
            tag.into()
        }
        other => other,
    })
}

pub(crate) async fn plan(session: &Session, working: &mut Working, reader: TokenReader<'_>) -> Result<Tag> {
    match has_connector(&reader) {
        true => create_source::plan_table(session, working, reader).await,
        false => plan_table(session, working, reader),
    }
}

/// Returns true if the statement has a WITH clause.
fn has_connector(reader: &TokenReader<'_>) -> bool {
    let mut ahead = reader.clone();
    ahead.keyword(&["IF", "NOT", "EXISTS"]);
    if ahead.relation_name().is_err() {
        return false;
    }
    let mut depth = 0;
    while !ahead.is_end() {
        if depth == 0 && (ahead.is_keyword(&["AS"]) || ahead.is_keyword(&["WITH"])) {
            let has_options = ahead.is_keyword(&["WITH"]) && *ahead.peek_at(1) == Token::LParen;
            return has_options && !has_storage_parameters(&ahead);
        }
        // `INCLUDE key AS k` is no query.
        if depth == 0 && ahead.is_keyword(&["INCLUDE"]) {
            return true;
        }
        match ahead.next() {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
    }
    false
}

/// Returns true if a sequence of an identity column can't have this name.
pub(super) fn is_taken(catalog: &Catalog, name: &str) -> bool {
    catalog.find(name).is_some() || owner_of(catalog, name).is_some()
}

fn plan_table(session: &Session, working: &mut Working, mut reader: TokenReader<'_>) -> Result<Tag> {
    let written = reader.text();
    let (name, exists) = new_name(working, &mut reader)?;
    if exists {
        return Ok(existed("TABLE", &name));
    }
    let named = if session.is_recovering { None } else { with_full_names(&reader, &working.catalog)? };
    let expanded =
        named.map_or_else(|| table_like::expanded(&working.catalog, &reader), |text| Ok(Some(text)));
    if let Some(text) = expanded? {
        return plan_expanded(session, working, written, text);
    }
    let at = reader.position();
    let columns = session.shared.planner.columns(&mut reader)?;
    if let Some(text) = Columns::without_domains(&columns.domains, written) {
        return plan_expanded(session, working, written, text);
    }
    if !session.is_recovering {
        refuse_unequal(&columns.schema, &columns.primary_key).map_err(|error| error.at(at))?;
    }
    let at = reader.position();
    let intake = intake(&mut reader, !columns.primary_key.is_empty())?;
    if !session.is_recovering {
        refuse_merging(&name, &columns.schema, intake).map_err(|error| error.at(at))?;
    }
    let storage = storage(&mut reader)?;
    reader.expect_end()?;
    let Columns { schema, primary_key: key, watermark, mut notices, .. } = columns;
    notices.extend(storage);
    let schema = Identity::named(&schema, &name, |name| is_taken(&working.catalog, name));
    if !session.is_recovering {
        working.catalog.check_constraint_names(&name, &schema)?;
    }
    let reads = read_by_defaults(&schema, &working.catalog);
    let definition = Definition::Table { schema, key, intake, watermark };
    working.create(Object { name, ddl: reader.text().to_string(), reads, definition }, None)?;
    Ok(Tag { text: "CREATE TABLE".into(), notices })
}

/// Reads PostgreSQL's clauses for the storage of a table, which have no effect. Returns notices.
fn storage(reader: &mut TokenReader<'_>) -> Result<Vec<String>> {
    let mut notices = Vec::new();
    if reader.keyword(&["WITH"]) {
        reader.group()?;
        notices.push("WITH has no effect: tables have no storage parameters".to_string());
    }
    if reader.keyword(&["TABLESPACE"]) {
        reader.identifier()?;
        notices.push("TABLESPACE has no effect: there are none".to_string());
    }
    if reader.is_keyword(&["PARTITION", "BY"]) {
        return Err(Error::unsupported("a partitioned table").at(reader.position()).hint(
            "Leave PARTITION BY out. A dump with --load-via-partition-root has all rows in the table itself.",
        ));
    }
    Ok(notices)
}

/// PostgreSQL's parameters for the storage of a table, besides those for autovacuum.
const STORAGE: [&str; 6] = [
    "fillfactor",
    "log_autovacuum_min_duration",
    "parallel_workers",
    "toast_tuple_target",
    "user_catalog_table",
    "vacuum_truncate",
];

/// Returns true if a WITH clause has PostgreSQL's storage parameters alone.
fn has_storage_parameters(reader: &TokenReader<'_>) -> bool {
    let is_known =
        |(name, _): &(String, String)| STORAGE.contains(&name.as_str()) || name.starts_with("autovacuum_");
    reader.clone().options().is_ok_and(|options| !options.is_empty() && options.iter().all(is_known))
}

/// Plans a statement as another text that means the same.
fn plan_expanded(session: &Session, working: &mut Working, written: &str, text: String) -> Result<Tag> {
    let mut reader = TokenReader::new(&text)?.on_path(working.catalog.search_path());
    reader.expect_keyword(&["CREATE", "TABLE"])?;
    // A position in the other text means nothing.
    let tag = plan_table(session, working, reader).map_err(|error| Error { span: None, ..error })?;
    let text = working.completed.remove(text.as_str()).unwrap_or(text);
    working.completed.insert(written.into(), text);
    Ok(tag)
}

/// Reads `[APPEND ONLY] [ON CONFLICT DO NOTHING | IGNORE | DO UPDATE [FULL | IF NOT NULL] | OVERWRITE]`.
pub(super) fn intake(reader: &mut TokenReader<'_>, has_key: bool) -> Result<Intake> {
    let append_only = reader.keyword(&["APPEND", "ONLY"]);
    let at = reader.position();
    if !reader.keyword(&["ON", "CONFLICT"]) {
        let on_conflict = if append_only { Conflict::Keep } else { Conflict::Replace };
        return Ok(Intake { append_only, on_conflict });
    }
    let kinds: &[(&[&str], Conflict)] = &[
        (&["DO", "NOTHING"], Conflict::Keep),
        (&["IGNORE"], Conflict::Keep),
        (&["DO", "UPDATE", "IF", "NOT", "NULL"], Conflict::Merge),
        (&["DO", "UPDATE", "FULL"], Conflict::Replace),
        (&["DO", "UPDATE"], Conflict::Replace),
        (&["OVERWRITE"], Conflict::Replace),
    ];
    let Some((_, on_conflict)) = kinds.iter().find(|(words, _)| reader.keyword(words)) else {
        return Err(reader.expected("DO NOTHING, DO UPDATE, DO UPDATE IF NOT NULL or OVERWRITE"));
    };
    let on_conflict = *on_conflict;
    if !has_key {
        return Err(Error::invalid("ON CONFLICT of a table needs a PRIMARY KEY").at(at));
    }
    if append_only && on_conflict != Conflict::Keep {
        let error = "rows of an APPEND ONLY table can't be replaced";
        return Err(Error::invalid(error)
            .at(at)
            .hint("Use ON CONFLICT DO NOTHING, or leave APPEND ONLY out."));
    }
    Ok(Intake { append_only, on_conflict })
}

/// Fails if a table merges new rows into existing ones, and has generated columns or CHECK constraints: both are computed
/// for the new row, before it is merged.
pub(super) fn refuse_merging(name: &str, schema: &SchemaRef, intake: Intake) -> Result<()> {
    if intake.on_conflict != Conflict::Merge {
        return Ok(());
    }
    let is_derived = |field: &&FieldRef| generated_of(field).is_some() || !checks_of(field).is_empty();
    let Some(field) = schema.fields().iter().find(is_derived) else { return Ok(()) };
    let part = match generated_of(field) {
        Some(_) => format!("generated column \"{}\"", field.name()),
        None => "a CHECK constraint".to_string(),
    };
    let what = format!("ON CONFLICT DO UPDATE IF NOT NULL of table \"{name}\" with {part}");
    let hint = "Leave one of them out; or use ON CONFLICT DO UPDATE for the table, and INSERT … ON CONFLICT DO UPDATE \
                SET c = coalesce(excluded.c, t.c) for each column c.";
    Err(Error::unsupported(what).hint(hint))
}

/// Fails if a column of the key is an interval: equal ones, such as 24 hours and a day, would be two keys. Also fails for
/// types without an equality.
pub(super) fn refuse_unequal(schema: &SchemaRef, key: &[usize]) -> Result<()> {
    if let Some(error) = key.iter().find_map(|place| without_order(schema.field(*place))) {
        return Err(error);
    }
    let is_interval = |place: &&usize| matches!(schema.field(**place).data_type(), DataType::Interval(_));
    match key.iter().find(is_interval) {
        None => Ok(()),
        Some(place) => Err(Error::unsupported(format!(
            "INTERVAL in a primary key, as in column \"{}\",",
            schema.field(*place).name()
        ))
        .hint("Store its length in seconds: extract(epoch FROM i).")),
    }
}

/// Fails if a table can't have these columns and this key.
pub(crate) fn check(name: &str, schema: &SchemaRef, primary_key: &[usize]) -> Result<()> {
    let fields = schema.fields();
    if fields.is_empty() {
        return Err(Error::invalid(format!(
            "table \"{name}\" has no columns, but at least one was expected"
        )));
    }
    let mut names = HashSet::new();
    if let Some(field) = fields.iter().find(|field| !names.insert(field.name())) {
        return Err(Error::invalid(format!(
            "column \"{}\" of table \"{name}\" is declared twice",
            field.name()
        )));
    }
    for place in primary_key {
        match fields.get(*place) {
            None => {
                let count = fields.len();
                return Err(Error::invalid(format!(
                    "the primary key of table \"{name}\" names column {place}, but there are {count}, from 0 on"
                )));
            }
            Some(field) if field.is_nullable() => {
                return Err(Error::invalid(format!(
                    "column \"{}\" is in the primary key of table \"{name}\", but may be NULL",
                    field.name()
                ))
                .hint("Declare the field as not nullable."));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Returns a table that was not created by a statement.
pub(crate) fn object(name: &str, schema: SchemaRef, primary_key: &[usize]) -> Object {
    let column = |field: &FieldRef| {
        let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
        format!("{} {}{not_null}", quoted_ident(field.name()), sql_type_of(field))
    };
    let mut columns: Vec<String> = schema.fields().iter().map(column).collect();
    if !primary_key.is_empty() {
        let names = primary_key.iter().filter_map(|place| schema.fields().get(*place));
        let names: Vec<String> = names.map(|field| quoted_ident(field.name())).collect();
        columns.push(format!("PRIMARY KEY ({})", names.join(", ")));
    }
    let ddl = format!("CREATE TABLE {} ({})", relation_ident(name), columns.join(", "));
    let definition =
        Definition::Table { schema, key: primary_key.to_vec(), intake: Intake::default(), watermark: None };
    Object { name: name.into(), ddl, reads: Vec::new(), definition }
}
