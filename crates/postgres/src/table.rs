//! Finds, creates and checks the table that a sink delivers to.

use arrow::datatypes::SchemaRef;
use millstream_connect::{Error, Result};
use millstream_delta::sql_type_of;
use tokio_postgres::Row;

use crate::columns::{Kind, TableColumn};
use crate::connection::{Connection, value};
use crate::options::Settings;
use crate::progress::{Progress, spelled};
use crate::statements::quoted;

/// A table as it was found.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Its name with its schema, as written in statements.
    pub(crate) name: String,
    pub(crate) columns: Vec<TableColumn>,
    pub(crate) unique: Vec<Unique>,
}

/// A unique index that ON CONFLICT may use.
#[derive(Clone, Debug)]
pub(crate) struct Unique {
    columns: Vec<String>,
    /// True if the index treats NULLs as equal.
    takes_nulls: bool,
}

const FIND: &str = "SELECT format('%I.%I', n.nspname, c.relname), c.relkind::text, c.oid::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)::oid";

/// A domain counts as its base type.
const COLUMNS: &str = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
  format_type(base.oid, NULL), base.typname::text, base.typtype = 'e', item.typname::text,
  CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END,
  a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', a.attgenerated <> '' OR a.attidentity = 'a'
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type base ON base.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
LEFT JOIN pg_type item ON base.typcategory = 'A' AND item.oid = base.typelem
WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// The unique indexes over plain columns and all rows. The query for NULLS NOT DISTINCT also works on older
/// servers, which lack it.
const UNIQUE: &str =
    "SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, place)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum WHERE k.place <= i.indnkeyatts),
  coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false)
FROM pg_index i WHERE i.indrelid = $1::oid AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL ORDER BY i.indexrelid";

impl Table {
    /// Finds the table; `None` if it doesn't exist.
    pub(crate) async fn find(connection: &Connection, settings: &Settings) -> Result<Option<Table>> {
        let doing = format!("look at table {}", settings.table);
        let found = connection.rows(&doing, FIND, &[&settings.table]).await?;
        let Some(found) = found.first() else { return Ok(None) };
        let (name, kind, oid): (String, String, String) =
            (value(found, 0)?, value(found, 1)?, value(found, 2)?);
        if !matches!(kind.as_str(), "r" | "p") {
            return Err(Error::Invalid(format!(
                "sink '{}': {name} in PostgreSQL is no table but {}: name a table",
                settings.sink,
                match kind.as_str() {
                    "v" => "a view",
                    "m" => "a materialized view",
                    "f" => "a foreign table",
                    _ => "something else",
                }
            )));
        }
        let columns = connection.rows(&doing, COLUMNS, &[&oid]).await?;
        let columns = columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        let unique = connection.rows(&doing, UNIQUE, &[&oid]).await?;
        let unique =
            unique.iter().map(|row| Ok(Unique { columns: value(row, 0)?, takes_nulls: value(row, 1)? }));
        let unique = unique.collect::<Result<Vec<_>>>()?;
        Ok(Some(Table { name, columns, unique }))
    }

    /// Fails if the relation's columns don't fit the table.
    pub(crate) fn check(&self, sink: &str, columns: &SchemaRef) -> Result<()> {
        let name = &self.name;
        for field in columns.fields() {
            let kind = Kind::of(field)?;
            let own = field.name();
            let Some(column) = self.column(own) else {
                let there: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
                return Err(Error::Invalid(format!(
                    "sink '{sink}': table {name} has no column '{own}', only {}: name the relation's columns as the \
                     table's, as in SELECT x AS \"{own}\", or add it: ALTER TABLE {name} ADD COLUMN {} {}",
                    there.join(", "),
                    quoted(own),
                    kind.spelling()
                )));
            };
            if column.is_generated {
                return Err(Error::Invalid(format!(
                    "sink '{sink}': the values of column '{own}' of table {name} are always made by PostgreSQL: leave \
                     the column out of the relation"
                )));
            }
            if !kind.fits(column) {
                return Err(Error::Invalid(format!(
                    "sink '{sink}': column '{own}' of table {name} is {}, but {} was expected, for values of type {}: \
                     cast them in a query, or change the table's column",
                    column.shown,
                    kind.spelling(),
                    sql_type_of(field)
                )));
            }
        }
        let is_left_out =
            |column: &&TableColumn| column.is_needed && columns.field_with_name(&column.name).is_err();
        match self.columns.iter().find(is_left_out) {
            None => Ok(()),
            Some(column) => Err(Error::Invalid(format!(
                "sink '{sink}': column '{0}' of table {name} is NOT NULL and has no default, but the relation has no \
                 column '{0}': add it to the query, or give it a default",
                column.name
            ))),
        }
    }

    /// Returns true if the key also covers rows with NULL in these columns. Fails if no unique index has
    /// exactly these columns.
    pub(crate) fn check_key(&self, sink: &str, key: &[&str]) -> Result<bool> {
        let is_key = |unique: &&Unique| {
            unique.columns.len() == key.len()
                && key.iter().all(|name| unique.columns.iter().any(|other| other == name))
        };
        let found: Vec<&Unique> = self.unique.iter().filter(is_key).collect();
        if !found.is_empty() {
            return Ok(found.iter().all(|unique| unique.takes_nulls));
        }
        let (name, key) = (&self.name, key.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "));
        Err(Error::Invalid(format!(
            "sink '{sink}' puts and deletes rows by ({key}), but table {name} has no unique index on just these \
             columns: ALTER TABLE {name} ADD PRIMARY KEY ({key}), or name another key by option primary_key"
        )))
    }

    /// Returns a column by name.
    pub(crate) fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

fn column(row: &Row) -> Result<TableColumn> {
    Ok(TableColumn {
        name: value(row, 0)?,
        shown: value(row, 1)?,
        cast: value(row, 2)?,
        type_name: value(row, 3)?,
        is_enum: value(row, 4)?,
        item: value(row, 5)?,
        modifier: value(row, 6)?,
        is_needed: value(row, 7)?,
        is_generated: value(row, 8)?,
    })
}

/// Fails if a new sink can't work: its database isn't reachable, or its table doesn't fit.
pub(crate) async fn check(settings: &Settings, columns: &SchemaRef) -> Result<()> {
    for field in columns.fields() {
        Kind::of(field)?;
    }
    let connection = Connection::open(settings).await?;
    match Table::find(&connection, settings).await? {
        Some(table) => {
            table.check(&settings.sink, columns)?;
            Progress::check_unused(&connection, settings, &table.name).await
        }
        None if settings.create => Ok(()),
        None => Err(not_there(settings)),
    }
}

/// True if the server supports NULLS NOT DISTINCT.
const VERSION: &str = "SELECT current_setting('server_version_num')::int >= 150000";

/// Finds the table, or creates it if wanted, and checks it. The boolean is true if the key may contain
/// NULL.
pub(crate) async fn open(
    connection: &Connection,
    settings: &Settings,
    columns: &SchemaRef,
    key: &[&str],
) -> Result<(Table, bool)> {
    let mut found = Table::find(connection, settings).await?;
    if found.is_none() && settings.create {
        let version = connection.rows("ask for its version", VERSION, &[]).await?;
        let takes_nulls = version.first().map_or(Ok(false), |row| value(row, 0))?;
        let sql = create(&spelled(connection, &settings.table).await?, columns, key, takes_nulls)?;
        connection.run(&format!("make table {}", settings.table), &sql).await?;
        found = Table::find(connection, settings).await?;
    }
    let table = found.ok_or_else(|| not_there(settings))?;
    table.check(&settings.sink, columns)?;
    let takes_nulls = match key.is_empty() {
        true => true,
        false => table.check_key(&settings.sink, key)?,
    };
    Ok((table, takes_nulls))
}

fn not_there(settings: &Settings) -> Error {
    Error::Invalid(format!(
        "sink '{}': there is no table {} in {}: create it there, or add create = 'true'",
        settings.sink,
        settings.table,
        settings.server()
    ))
}

/// Returns the statement that creates a table. A group with a NULL key is a normal row, which a primary key
/// would reject.
fn create(table: &str, columns: &SchemaRef, key: &[&str], takes_nulls: bool) -> Result<String> {
    let mut parts = Vec::with_capacity(columns.fields().len() + 1);
    for field in columns.fields() {
        parts.push(format!("{} {}", quoted(field.name()), Kind::of(field)?.spelling()));
    }
    if !key.is_empty() {
        let has_nulls = |name: &&str| columns.field_with_name(name).is_ok_and(|field| field.is_nullable());
        let constraint = match takes_nulls && key.iter().any(has_nulls) {
            true => "UNIQUE NULLS NOT DISTINCT",
            false => "PRIMARY KEY",
        };
        let key: Vec<String> = key.iter().map(|name| quoted(name)).collect();
        parts.push(format!("{constraint} ({})", key.join(", ")));
    }
    Ok(format!("CREATE TABLE IF NOT EXISTS {table} ({})", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn column(name: &str, type_name: &str, is_needed: bool) -> TableColumn {
        TableColumn {
            name: name.into(),
            shown: type_name.into(),
            cast: type_name.into(),
            type_name: type_name.into(),
            is_enum: false,
            item: None,
            modifier: -1,
            is_needed,
            is_generated: name == "made",
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let table = Table {
            name: "public.t".into(),
            columns: vec![
                column("a", "int8", true),
                column("b", "date", false),
                column("made", "int8", true),
            ],
            unique: vec![Unique { columns: vec!["b".into(), "a".into()], takes_nulls: false }],
        };
        let check = |columns: &[(&str, DataType)], parts: &[&str]| {
            let fields: Vec<Field> =
                columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect();
            let error = table.check("k", &Arc::new(Schema::new(fields))).unwrap_err().to_string();
            for part in parts {
                assert!(error.contains(part), "{error}");
            }
        };
        check(&[("c", DataType::Int64)], &["has no column 'c', only a, b, made", "ADD COLUMN \"c\" bigint"]);
        check(
            &[("a", DataType::Int64), ("b", DataType::Utf8)],
            &["column 'b' of table public.t is date", "text was expected"],
        );
        check(&[("b", DataType::Date32)], &["column 'a' of table public.t is NOT NULL"]);
        check(&[("made", DataType::Int64)], &["always made by PostgreSQL"]);
        assert!(!table.check_key("k", &["a", "b"]).unwrap());
        let error = table.check_key("k", &["a"]).unwrap_err().to_string();
        assert!(error.contains("ADD PRIMARY KEY (\"a\")"), "{error}");
    }

    #[test]
    fn a_table_is_made_with_the_key() {
        let columns = Arc::new(Schema::new(vec![
            Field::new("a\"b", DataType::Int64, true),
            Field::new("t", DataType::Utf8View, false),
        ]));
        let check = |key: &[&str], takes_nulls: bool, constraint: &str| {
            let expected =
                format!("CREATE TABLE IF NOT EXISTS s.t (\"a\"\"b\" bigint, \"t\" text{constraint})");
            assert_eq!(create("s.t", &columns, key, takes_nulls).unwrap(), expected);
        };
        check(&["a\"b"], true, ", UNIQUE NULLS NOT DISTINCT (\"a\"\"b\")");
        check(&["a\"b"], false, ", PRIMARY KEY (\"a\"\"b\")");
        check(&["t"], true, ", PRIMARY KEY (\"t\")");
        check(&[], true, "");
    }
}
