//! `ALTER TABLE name ADD COLUMN … | DROP COLUMN … | ADD CONSTRAINT … | DROP CONSTRAINT … | ALTER COLUMN … | RENAME COLUMN …, …`
//!
//! A new constraint must hold for the rows of the table. They are verified, and a new index is built over them, while the
//! statement has the table reserved: other statements that change it wait, readers don't.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::{Delta, sql_type_of};
use millstream_flow::Wanted;
use millstream_sql::{
    Alteration, Checks, Columns, Error, Identity, Planner, Result, TableIndex, TokenReader, quote_ident,
    relation_ident, sqlstate,
};
use millstream_state::{Conflict, Keyed, Rows};

use super::create_table::{self, refuse_merging, refuse_unequal};
use super::{alter_watermark, altered_kind, altered_object, alters};
use crate::catalog::{Catalog, Definition, Object, schema_of_key};
use crate::ddl::{PLANS_MAX, busy, entry};
use crate::error;
use crate::evaluate::is_conflict;
use crate::event::{AlteredTable, Apart, Asked, Change, Event, Question, VerifiedRows};
use crate::plan::check_reads;
use crate::run::{Indexes, NewColumns, RowsAnew, extended};
use crate::sequences::{read_by_defaults, with_full_names};
use crate::session::{Response, Session, Tag};
use crate::statement::{Rules, Run, Statement};
use crate::variables::reader_of;

pub(super) static ALTER_TABLE: Statement = Statement {
    words: &[&["ALTER", "TABLE"]],
    synopsis: concat!(
        "ALTER TABLE [IF EXISTS] name action [, …];\n",
        "  ADD [COLUMN] [IF NOT EXISTS] column type [DEFAULT value] [NOT NULL] [UNIQUE] [CHECK (condition)]\n",
        "  ADD [CONSTRAINT name] UNIQUE (column, …) | CHECK (condition) | PRIMARY KEY (column, …)\n",
        "  DROP CONSTRAINT [IF EXISTS] name | RENAME CONSTRAINT name TO new_name\n",
        "  DROP [COLUMN] [IF EXISTS] column [CASCADE | RESTRICT]\n",
        "  ALTER [COLUMN] column SET DEFAULT value | DROP DEFAULT | SET NOT NULL | DROP NOT NULL\n",
        "  ALTER [COLUMN] column [SET DATA] TYPE type [USING expression]\n",
        "  ALTER [COLUMN] column ADD GENERATED ALWAYS | BY DEFAULT AS IDENTITY [(option …)] | DROP IDENTITY [IF EXISTS]\n",
        "  RENAME [COLUMN] column TO new_name",
    ),
    purpose: "change the columns and the constraints of a table",
    pages: &["alter-table"],
    begins: Some(begins),
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::ALTER,
};

/// The first words of actions that no other statement has.
const OTHERS: [&str; 9] =
    ["ADD", "ALTER", "OWNER", "VALIDATE", "CLUSTER", "REPLICA", "ENABLE", "DISABLE", "FORCE"];

/// Returns true if the statement sets parameters of a table's storage: `ALTER TABLE t SET (fillfactor = 70)`.
fn sets_storage(reader: &TokenReader<'_>) -> bool {
    let mut ahead = reader.clone();
    ahead.keyword(&["ALTER", "TABLE"]);
    ahead.keyword(&["IF", "EXISTS"]);
    ahead.keyword(&["ONLY"]);
    let sets = alters(reader, "SET") || alters(reader, "RESET");
    sets && ahead.relation_name().is_ok()
        && ahead.one_of(&[&["SET"], &["RESET"]]).is_some()
        && (*ahead.peek() == Token::LParen || ahead.is_keyword(&["WITHOUT", "CLUSTER"]))
}

/// Returns true if the statement changes columns or constraints: `ALTER TABLE t ADD COLUMN c INT`.
pub(crate) fn begins(reader: &TokenReader<'_>) -> bool {
    let is_rename = alters(reader, "RENAME") && !super::rename::begins(reader);
    let drops = alters(reader, "DROP") && !alter_watermark::begins(reader);
    is_rename || drops || OTHERS.iter().any(|word| alters(reader, word)) || sets_storage(reader)
}

/// A change of a table, if there is any, and the version of the catalog that it is based on.
pub(super) struct Planned {
    pub(super) base: u64,
    pub(super) tag: Tag,
    pub(super) change: Option<TableChange>,
}

/// The new definition of a table.
pub(super) struct TableChange {
    object: Arc<Object>,
    before: SchemaRef,
    schema: SchemaRef,
    key: Vec<usize>,
    added: Vec<ScalarValue>,
    /// True if the primary key is new.
    has_new_key: bool,
    /// True if the rows of the table may violate a new constraint, or a new index needs them.
    needs_rows: bool,
    affects_readers: Option<&'static str>,
    /// The columns, if some are dropped.
    columns: Option<NewColumns>,
}

impl TableChange {
    /// Returns the change of a table to other columns. `statement` makes it.
    pub(super) fn of(
        object: &Object,
        schema: SchemaRef,
        new_key: Option<Vec<usize>>,
        statement: &str,
    ) -> Result<TableChange> {
        let Definition::Table { schema: before, key, intake, watermark } = &object.definition else {
            return Err(Error::bug(format!("\"{}\" is no table", object.name)));
        };
        let has_new_key = new_key.is_some();
        let key = new_key.unwrap_or_else(|| key.clone());
        // The object's DDL includes the statement, so that it still recreates the object.
        let made = object.ddl.trim_end().trim_end_matches(';');
        let ddl = if statement.is_empty() { made.to_string() } else { format!("{made}; {statement}") };
        let definition = Definition::Table {
            schema: schema.clone(),
            key: key.clone(),
            intake: *intake,
            watermark: watermark.clone(),
        };
        let before = before.clone();
        let object = Object { name: object.name.clone(), ddl, reads: object.reads.clone(), definition };
        let object = Arc::new(object);
        let added = Vec::new();
        Ok(TableChange {
            object,
            before,
            schema,
            key,
            added,
            has_new_key,
            needs_rows: false,
            affects_readers: None,
            columns: None,
        })
    }

    /// Makes the change wait until the rows of the table are verified and indexed.
    pub(super) fn needing_rows(self, needs_rows: bool) -> TableChange {
        TableChange { needs_rows, ..self }
    }
}

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let named = if session.is_recovering { None } else { with_full_names(reader, &session.catalog())? };
    let text = match named.or_else(|| without_domains(session, reader)) {
        None if !session.is_recovering => with_values(session, reader).await?,
        text => text,
    };
    let Some(text) = text else { return alter(session, reader, plan).await };
    // A position in the other text means nothing.
    let altered = Box::pin(run(session, &mut reader_of(session, &text)?)).await;
    altered.map_err(|error| Error { span: None, ..error })
}

/// Returns the effect of a statement; none if it fails.
fn effect(session: &Session, planner: &Planner, reader: &TokenReader<'_>) -> Option<Alteration> {
    let mut ahead = reader.clone();
    ahead.keyword(&["ALTER", "TABLE"]).then_some(())?;
    ahead.keyword(&["IF", "EXISTS"]);
    ahead.keyword(&["ONLY"]);
    let name = ahead.relation_name().ok()?;
    let catalog = session.catalog();
    let Definition::Table { schema, key, .. } = &catalog.find(&name)?.definition else { return None };
    planner.alter_columns(&mut ahead, &name, schema, key).ok()
}

/// Returns a statement with what the domains of its new columns stand for; none if it names none, or fails.
fn without_domains(session: &Session, reader: &TokenReader<'_>) -> Option<String> {
    let alteration = effect(session, &session.shared.planner, reader)?;
    Columns::without_domains(&alteration.domains, reader.text())
}

/// Returns a statement in which the defaults of new columns have their present values, for the rows that are there, and are
/// set again afterwards: `ADD COLUMN at TIMESTAMP DEFAULT now()`. Returns none if they are constants, or have other values in
/// each row.
async fn with_values(session: &Session, reader: &TokenReader<'_>) -> Result<Option<String>> {
    if effect(session, &session.shared.planner, reader).is_some() {
        return Ok(None);
    }
    let (_, now) = session.shared.ask(|reply| Event::Ask(Question::Settings { reply })).await?;
    let Some(alteration) = effect(session, &session.planner(now), reader) else { return Ok(None) };
    let mut text = reader.text().trim_end().trim_end_matches(';').to_string();
    let mut again = String::new();
    for (at, field, value) in alteration.defaults.iter().rev() {
        let default = &reader.text()[at.clone()];
        let literal = match value.cast_to(&DataType::Utf8)? {
            ScalarValue::Utf8(Some(value)) => {
                format!("'{}'::{}", value.replace('\'', "''"), sql_type_of(field))
            }
            _ => "NULL".to_string(),
        };
        text.replace_range(at.clone(), &literal);
        again = format!(", ALTER COLUMN {} SET DEFAULT {default}{again}", quote_ident(field.name()));
    }
    Ok(Some(text + &again))
}

/// Applies the change that `plan` returns. Plans again if the catalog or the table has changed since.
pub(super) async fn alter(
    session: &Session,
    reader: &TokenReader<'_>,
    plan: impl Fn(&Session, &mut TokenReader<'_>) -> Result<Planned>,
) -> Result<Response> {
    let mut reservation = None;
    for _ in 0..PLANS_MAX {
        let Planned { base, mut tag, change } = plan(session, &mut reader.clone())?;
        let Some(change) = change else { return Ok(tag.into()) };
        if change.needs_rows && reservation.is_none() && !session.is_recovering {
            let tables = vec![change.object.name.clone()];
            let reserve = |reply| Event::Apart(Apart::Reserve { tables, reply });
            reservation = Some(session.shared.ask(reserve).await?);
            // The table may have changed until it was reserved.
            continue;
        }
        let number = reservation.as_ref().map(|reservation| reservation.number);
        let verified = match change.needs_rows {
            true => Some(verified(session, &change, number).await?),
            false => None,
        };
        let entry = Box::new(entry(session, &[reader.text()], Vec::new()));
        let TableChange { object, added, affects_readers, columns, .. } = change;
        let altered = AlteredTable { object, added, verified, affects_readers, columns };
        let changes = vec![Change::AlterTable(Box::new(altered))];
        match session.shared.ask(|reply| Event::Change { base, changes, entry, reply }).await {
            Ok(Some(notices)) => {
                tag.notices.extend(notices);
                return Ok(tag.into());
            }
            Ok(None) => {}
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(busy())
}

/// Returns the change, if any, and the version of the catalog that it is based on.
fn plan(session: &Session, reader: &mut TokenReader<'_>) -> Result<Planned> {
    let kind = altered_kind(reader)?;
    let lenient = reader.keyword(&["IF", "EXISTS"]);
    reader.keyword(&["ONLY"]);
    let name = reader.relation_name()?;
    let at = reader.last_position();
    let catalog = session.catalog();
    let mut tag = Tag::new(format!("ALTER {kind}"));
    if lenient && catalog.find(&name).is_none() {
        tag.notices.push(format!("relation \"{name}\" does not exist, nothing was done"));
        return Ok(Planned { base: catalog.version, tag, change: None });
    }
    let object = altered_object(&catalog, &kind, &name, at.clone(), |_| None)?;
    let Definition::Table { schema, key, intake, watermark } = &object.definition else {
        return Err(refused(&name, &object.definition).at(reader.position()));
    };
    let alteration = session.shared.planner.alter_columns(reader, &name, schema, key)?;
    tag.notices.extend(alteration.notices.iter().cloned());
    let Some(altered) = &alteration.schema else {
        return Ok(Planned { base: catalog.version, tag, change: None });
    };
    let altered = Identity::named(altered, &name, |name| create_table::is_taken(&catalog, name));
    if !session.is_recovering {
        refuse_merging(&name, &altered, *intake).map_err(|error| error.at(at.clone()))?;
        catalog.check_constraint_names(&name, &altered).map_err(|error| error.at(at.clone()))?;
    }
    let statement = format!("ALTER TABLE {} {}", relation_ident(&object.name), alteration.clauses.join(", "));
    if let Some(key) = &alteration.key {
        refuse_unequal(&altered, key)?;
    }
    let table = with_sequences(&catalog, object, &altered);
    check_reads(&table)?;
    let change = TableChange::of(&table, altered, alteration.key, &statement)?;
    let columns = |sources| NewColumns::new(change.schema.clone(), sources, alteration.added.clone());
    let columns = alteration.sources.map(columns);
    if columns.is_some() && watermark.is_some() {
        return Err(Error::unsupported(
            "dropping a column, or changing its type, in a table that has a watermark",
        )
        .at(at)
        .hint("ALTER TABLE … DROP WATERMARK first, and SET WATERMARK afterwards."));
    }
    let (added, affects_readers) = (alteration.added, alteration.affects_readers);
    let change = TableChange { added, affects_readers, columns, ..change };
    Ok(Planned { base: catalog.version, tag, change: Some(change.needing_rows(alteration.restricts)) })
}

/// Returns a table that reads the sequences of its new defaults.
fn with_sequences(catalog: &Catalog, table: &Object, schema: &SchemaRef) -> Object {
    let called = read_by_defaults(schema, catalog);
    let called = called.into_iter().filter(|name| *name != table.name);
    let schema_of = table.reads.iter().filter(|read| schema_of_key(read).is_some()).cloned();
    Object {
        name: table.name.clone(),
        ddl: table.ddl.clone(),
        reads: schema_of.chain(called).collect(),
        definition: table.definition.clone(),
    }
}

/// Verifies that the rows of a table meet its new constraints, and builds its new indexes.
async fn verified(session: &Session, change: &TableChange, reservation: Option<u64>) -> Result<VerifiedRows> {
    let TableChange { object, before, schema, key, added, columns, .. } = change;
    let name = &object.name;
    let relations = vec![Asked { name: name.clone(), wanted: Wanted::new() }];
    let read = |reply| Event::Apart(Apart::ReadStaged { relations, reservation, reply });
    let staged = session.shared.ask(read).await?;
    // Indexes have the primary keys of rows.
    let is_anew = change.has_new_key || columns.is_some();
    let known = if is_anew { Vec::new() } else { TableIndex::all(before) };
    let mut anew = match (change.has_new_key, columns) {
        (true, _) => {
            let keyed = Keyed::new(schema.clone(), key.clone()).map_err(error::change)?;
            Some(RowsAnew::Keyed(Box::new(keyed)))
        }
        (false, Some(_)) => Some(RowsAnew::Bag(Box::new(Rows::new(schema.clone())))),
        (false, None) => None,
    };
    let new = TableIndex::all(schema).into_iter().filter(|index| !known.contains(index)).collect();
    let mut indexes = Indexes::new(name, new, schema, key)?;
    let checks = Checks::of(&session.shared.planner, schema, name)?;
    for content in staged.relations {
        for rows in content.batches().await? {
            let rows =
                columns.as_ref().map_or_else(|| extended(&rows, schema, added), |new| new.rows(&rows))?;
            verify_not_null(&rows, schema, name)?;
            checks.as_ref().map_or(Ok(()), |checks| checks.verify_existing(&rows))?;
            match &mut anew {
                Some(RowsAnew::Keyed(keyed)) => {
                    keyed.upsert(&rows, Conflict::Fail).map_err(|error| duplicate_key(error, name))?;
                }
                Some(RowsAnew::Bag(bag)) => {
                    bag.apply(&Delta::from_iter([rows.clone()])).map_err(error::change)?;
                }
                None => {}
            }
            indexes.insert(rows)?;
            tokio::task::yield_now().await;
        }
    }
    Ok(VerifiedRows { versions: staged.versions, indexes, anew })
}

fn verify_not_null(rows: &RecordBatch, schema: &SchemaRef, table: &str) -> Result<()> {
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        let nulls = column.logical_null_count();
        if !field.is_nullable() && nulls > 0 {
            let column = field.name();
            return Err(Error::invalid(format!(
                "column \"{column}\" of table \"{table}\" contains null values"
            ))
            .hint(format!("UPDATE {table} SET {column} = … WHERE {column} IS NULL; then SET NOT NULL."))
            .code(sqlstate::NOT_NULL_VIOLATION));
        }
    }
    Ok(())
}

/// Returns the error for rows that have one key.
fn duplicate_key(error: millstream_state::Error, table: &str) -> Error {
    match error {
        millstream_state::Error::DuplicateKey { .. } => {
            Error::invalid(format!("two rows of table \"{table}\" have the same values in the primary key"))
                .hint(format!(
                    "SELECT key, count(*) FROM {table} GROUP BY key HAVING count(*) > 1 finds them."
                ))
                .code(sqlstate::UNIQUE_VIOLATION)
        }
        other => error::change(other),
    }
}

/// Returns the error for an object whose columns come from elsewhere.
fn refused(name: &str, definition: &Definition) -> Error {
    let kind = definition.kind();
    let error = match definition {
        Definition::Source { table: Some(_), .. } => {
            format!("the columns of table \"{name}\", which has a connector, can't be altered")
        }
        _ => format!("only a table has columns that can be altered, not {kind} \"{name}\""),
    };
    let error = Error::invalid(error);
    let upper = kind.to_uppercase();
    match definition {
        Definition::View { .. } | Definition::MaterializedView { .. } | Definition::Stream { .. } => error
            .hint(format!(
                "Its columns are those of its query: change it with ALTER {upper} {name} AS SELECT …."
            )),
        _ => error.hint(format!("DROP {upper} {name} and CREATE it again with other columns.")),
    }
}
