//! The commands that list objects: psql's `\d` and its kin, answered by SHOW, DESCRIBE and system tables.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use millstream::quoted_ident;

use crate::client::Client;
use crate::interpreter::{Call, failure};
use crate::meta::{fits, folded};
use crate::stop::Stop;

/// Runs a command of this family.
pub(crate) async fn perform(client: &mut Client, name: &str, call: &Call<'_>) -> Result<(), Stop> {
    let pattern = call.word().map(folded);
    let pattern = pattern.as_deref();
    match name {
        "d" => match pattern {
            None => everything(client).await,
            Some(pattern) => describe(client, pattern, call.name.ends_with('+')).await,
        },
        "sv" => statement(client, &folded(call.need("an object's name")?)).await,
        "dS" => system_tables(client, pattern).await,
        "df" => functions(client, pattern).await,
        "dc" => {
            list(client, "SELECT name, value, description FROM millstream.settings", "settings", pattern)
                .await
        }
        "di" => {
            let sql = "SELECT name, primary_key FROM millstream.tables WHERE primary_key IS NOT NULL";
            list(client, sql, "primary keys", pattern).await
        }
        "ds" => list(client, "SHOW SOURCES", "sources", pattern).await,
        "dt" => list(client, "SHOW TABLES", "tables", pattern).await,
        "dv" => list(client, "SHOW VIEWS", "views", pattern).await,
        "dm" => list(client, "SHOW MATERIALIZED VIEWS", "materialized views", pattern).await,
        "dr" => list(client, "SHOW STREAMS", "streams", pattern).await,
        "dk" => list(client, "SHOW SINKS", "sinks", pattern).await,
        _ => Err(failure(format!("\\{name} is known and does nothing (this is a bug in Millstream)"))),
    }
}

/// Prints the rows of a statement whose names match.
async fn list(client: &mut Client, sql: &str, what: &str, pattern: Option<&str>) -> Result<(), Stop> {
    let rows = client.query(sql).await?;
    let fitting = fitting(&rows, pattern)?;
    show(client, fitting, what, pattern).await
}

async fn show(client: &mut Client, rows: RecordBatch, what: &str, pattern: Option<&str>) -> Result<(), Stop> {
    if rows.num_rows() > 0 {
        return client.print(rows).await;
    }
    let line = match pattern {
        None => format!("There are no {what}."),
        Some(pattern) => format!("There are no {what} named '{pattern}'."),
    };
    Ok(client.output.say(&line).await?)
}

fn fitting(rows: &RecordBatch, pattern: Option<&str>) -> Result<RecordBatch, Stop> {
    let Some(pattern) = pattern else { return Ok(rows.clone()) };
    let keep = BooleanArray::from_iter(names(rows).iter().map(|name| Some(fits(pattern, name))));
    filter_record_batch(rows, &keep).map_err(Stop::external)
}

/// Returns the first column, which holds names.
fn names(rows: &RecordBatch) -> Vec<String> {
    let Some(column) = rows.columns().first().filter(|column| *column.data_type() == DataType::Utf8View)
    else {
        return Vec::new();
    };
    column.as_string_view().iter().map(|name| name.unwrap_or_default().to_owned()).collect()
}

/// Lists every object with its kind and state.
async fn everything(client: &mut Client) -> Result<(), Stop> {
    let mut objects = client.session.names().objects;
    objects.retain(|object| object.kind != "system table");
    let mut status = std::collections::BTreeMap::new();
    for kind in ["SOURCES", "MATERIALIZED VIEWS", "STREAMS", "SINKS"] {
        let rows = client.query(&format!("SHOW {kind}")).await?;
        let Some(column) = rows.column_by_name("status") else { continue };
        let values = column.as_string_view();
        for (row, name) in names(&rows).into_iter().enumerate() {
            status.insert(name, values.is_valid(row).then(|| values.value(row).to_owned()));
        }
    }
    let texts = |values: Vec<Option<&str>>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let columns = vec![
        texts(objects.iter().map(|object| Some(object.name.as_str())).collect()),
        texts(objects.iter().map(|object| Some(object.kind)).collect()),
        texts(
            objects
                .iter()
                .map(|object| status.get(&object.name).and_then(Option::as_deref))
                .map(|status| Some(status.unwrap_or("")))
                .collect(),
        ),
    ];
    show(client, table(&["name", "kind", "status"], columns)?, "objects yet", None).await
}

fn table(names: &[&str], columns: Vec<ArrayRef>) -> Result<RecordBatch, Stop> {
    let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(Stop::external)
}

/// Shows the columns of one object, or of all that match; with `more`, also their CREATE statements.
async fn describe(client: &mut Client, pattern: &str, more: bool) -> Result<(), Stop> {
    let mut objects = client.session.names().objects;
    if !pattern.contains(['*', '?']) && !objects.iter().any(|object| object.name == pattern) {
        // The engine also knows names that aren't listed, and suggests similar ones.
        let rows = client.query(&format!("DESCRIBE {}", quoted(pattern))).await?;
        client.print(rows).await?;
        return if more { statement(client, pattern).await } else { Ok(()) };
    }
    objects.retain(|object| fits(pattern, &object.name));
    if objects.is_empty() {
        return Ok(client.output.say(&format!("There is nothing named '{pattern}'.")).await?);
    }
    for object in objects {
        let mut letters = object.kind.chars();
        let kind = letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str());
        client.output.line(&format!("{} \"{}\"", kind.unwrap_or_default(), object.name)).await?;
        if !object.columns.is_empty() {
            let rows = client.query(&format!("DESCRIBE {}", quoted(&object.name))).await?;
            client.print(rows).await?;
        }
        if (more || object.columns.is_empty()) && object.kind != "system table" {
            statement(client, &object.name).await?;
        }
    }
    Ok(())
}

/// Shows the CREATE statement of an object.
async fn statement(client: &mut Client, name: &str) -> Result<(), Stop> {
    let rows = client.query(&format!("SHOW CREATE {}", quoted(name))).await?;
    let statement = rows.column_by_name("statement").map(|column| column.as_string_view());
    let text = statement.filter(|texts| !texts.is_empty()).map(|texts| texts.value(0)).unwrap_or_default();
    Ok(client.output.line(&format!("{};", text.trim_end_matches(';'))).await?)
}

async fn system_tables(client: &mut Client, pattern: Option<&str>) -> Result<(), Stop> {
    let mut objects = client.session.names().objects;
    objects.retain(|object| {
        let own = object.name.rsplit('.').next().unwrap_or_default();
        object.kind == "system table"
            && pattern.is_none_or(|pattern| fits(pattern, &object.name) || fits(pattern, own))
    });
    let columns = |object: &millstream::ObjectName| {
        object.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let rows = table(
        &["name", "columns"],
        vec![
            Arc::new(StringArray::from_iter_values(objects.iter().map(|object| object.name.as_str()))),
            Arc::new(StringArray::from_iter_values(objects.iter().map(columns))),
        ],
    )?;
    show(client, rows, "system tables", pattern).await
}

/// Lists user-defined functions; with a pattern, also built-in ones.
async fn functions(client: &mut Client, pattern: Option<&str>) -> Result<(), Stop> {
    let rows = client.query("SHOW FUNCTIONS").await?;
    let Some(pattern) = pattern else {
        return show(client, rows, "functions of your own (\\df * lists those that are built in)", None)
            .await;
    };
    let own = fitting(&rows, Some(pattern))?;
    let of_users = names(&rows);
    let mut built_in = client.session.names().functions;
    built_in.retain(|name| fits(pattern, name) && !of_users.contains(name));
    if own.num_rows() > 0 {
        client.print(own).await?;
    } else if built_in.is_empty() {
        return Ok(client.output.say(&format!("There are no functions named '{pattern}'.")).await?);
    }
    if built_in.is_empty() {
        return Ok(());
    }
    let column: ArrayRef = Arc::new(StringArray::from(built_in));
    client.print(table(&["built-in function"], vec![column])?).await
}

/// Quotes a name for SQL; one of the engine's own tables has two parts.
fn quoted(name: &str) -> String {
    match name.split_once('.') {
        Some((schema, table)) if schema == "millstream" => format!("{schema}.{}", quoted_ident(table)),
        _ => quoted_ident(name),
    }
}
