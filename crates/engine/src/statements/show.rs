//! `SHOW SOURCES | TABLES | VIEWS | MATERIALIZED VIEWS | STREAMS | SINKS [FROM schema] [LIKE 'pattern']`,
//! `SHOW FUNCTIONS`, `SHOW CREATE name`, `SHOW ALL | setting`, and the forms in [`listings`].

mod listings;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::comparison::{ilike, like};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::sql_type;
use millstream_sql::{Error, PUBLIC, Result, SYSTEM_SCHEMAS, TokenReader, routine_name};

use crate::catalog::{Definition, Object};
use crate::error;
use crate::event::{Event, ObjectStatus, Question};
use crate::secrets::without_secrets;
use crate::session::{NOTICE, Response, Session};
use crate::settings::{SETTINGS, Settings};
use crate::statement::{RowsTag, Rules, Run, Statement};
use crate::temporary::is_in_temporary;
use crate::variables::VARIABLES;

pub(super) static SHOW: Statement = Statement {
    words: &[&["SHOW"]],
    synopsis: concat!(
        "SHOW SOURCES | TABLES | VIEWS | MATERIALIZED VIEWS | STREAMS | SINKS [FROM public] [LIKE | ILIKE 'pattern'];\n",
        "SHOW SUBSCRIPTIONS [LIKE | ILIKE 'pattern'];\n",
        "SHOW FUNCTIONS;\n",
        "SHOW COLUMNS FROM name [LIKE 'pattern'];\n",
        "SHOW INDEXES FROM name;\n",
        "SHOW SCHEMAS | SEQUENCES | DATABASES | USERS | PARAMETERS | PROCESSLIST | JOBS [LIKE 'pattern'];\n",
        "SHOW ALL;\n",
        "SHOW setting;          -- also SHOW TIME ZONE, SHOW TRANSACTION ISOLATION LEVEL\n",
        "SHOW CREATE name;",
    ),
    purpose: "list objects or settings",
    pages: &["show"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules { rows: Some(RowsTag { word: "SHOW", has_count: false }), ..Rules::DEFAULT },
};

const KINDS: &[(&[&str], &str)] = &[
    (&["SOURCES"], "source"),
    (&["TABLES"], "table"),
    (&["VIEWS"], "view"),
    (&["MATERIALIZED", "VIEWS"], "materialized view"),
    (&["STREAMS"], "stream"),
    (&["SINKS"], "sink"),
];

pub(crate) async fn run(session: &mut Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    if reader.keyword(&["CREATE"]) {
        return show_create(session, reader);
    }
    if reader.keyword(&["FUNCTIONS"]) {
        reader.expect_end()?;
        return show_routines(session);
    }
    for (words, kind) in KINDS {
        if reader.keyword(words) {
            let wanted = wanted(session, reader)?;
            reader.expect_end()?;
            return show_objects(session, kind, wanted).await;
        }
    }
    if let Some(listing) = listings::run(session, reader).await? {
        return Ok(listing);
    }
    let (settings, _) = session.shared.ask(|reply| Event::Ask(Question::Settings { reply })).await?;
    if reader.keyword(&["ALL"]) {
        reader.expect_end()?;
        return show_settings(session, &settings);
    }
    let at = reader.position();
    let name = setting_name(reader)?;
    reader.expect_end()?;
    if let Some(value) = session.variable(&name) {
        return rows(RecordBatch::try_new(strings(&[&name]), vec![texts([value])]));
    }
    let value = settings.show(&name).map_err(|error| {
        error.at(at).hint(
            "SHOW takes SOURCES, TABLES, VIEWS, MATERIALIZED VIEWS, STREAMS, SINKS, SUBSCRIPTIONS, FUNCTIONS, COLUMNS FROM name, SCHEMAS, SEQUENCES, \
             DATABASES, JOBS, ALL (the settings), CREATE name, or a setting.",
        )
    })?;
    rows(RecordBatch::try_new(strings(&[&name]), vec![texts([value])]))
}

/// Reads the name of a setting. PostgreSQL has special syntax for some.
fn setting_name(reader: &mut TokenReader<'_>) -> Result<String> {
    if reader.keyword(&["TRANSACTION", "ISOLATION", "LEVEL"]) {
        return Ok("transaction_isolation".into());
    }
    if reader.keyword(&["SESSION", "AUTHORIZATION"]) {
        return Ok("session_authorization".into());
    }
    super::set::name(reader)
}

/// The filter on objects.
struct Wanted {
    /// The schema of the objects; `None`: any.
    schema: Option<String>,
    /// The pattern for names; the flag is true if it is case-sensitive.
    like: Option<(String, bool)>,
}

/// Reads `[FROM schema] [LIKE 'pattern']`.
fn wanted(session: &Session, reader: &mut TokenReader<'_>) -> Result<Wanted> {
    let mut from = None;
    if reader.keyword(&["FROM"]) || reader.keyword(&["IN"]) {
        let schema = reader.identifier()?;
        let catalog = session.catalog();
        if schema != PUBLIC && !SYSTEM_SCHEMAS.contains(&schema.as_str()) && !catalog.schemas().has(&schema) {
            return Err(catalog.schemas().missing(&schema).at(reader.last_position()));
        }
        from = Some(schema);
    }
    let like = match (reader.keyword(&["LIKE"]), reader.keyword(&["ILIKE"])) {
        (false, false) => None,
        (case, _) => Some((reader.string()?, case)),
    };
    Ok(Wanted { schema: from, like })
}

/// Filters rows by the name in the first column.
fn only(wanted: &Wanted, batch: RecordBatch) -> Result<RecordBatch> {
    let Some((pattern, case)) = &wanted.like else { return Ok(batch) };
    let pattern = StringViewArray::new_scalar(pattern);
    let matches = match case {
        true => like(batch.column(0), &pattern),
        false => ilike(batch.column(0), &pattern),
    };
    filter_record_batch(&batch, &matches.map_err(error::arrow)?).map_err(error::arrow)
}

fn show_create(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    for kind in ["SOURCE", "TABLE", "MATERIALIZED", "VIEW", "STREAM", "SINK", "SUBSCRIPTION", "SEQUENCE"] {
        // A kind before the name is allowed, but a relation may have such a name too.
        if *reader.peek_at(1) != Token::EOF {
            reader.keyword(&[kind]);
        }
    }
    let routine = ["FUNCTION", "AGGREGATE"]
        .iter()
        .any(|kind| matches!(reader.peek_at(1), Token::Word(_)) && reader.keyword(&[kind]));
    let mut name = reader.relation_name()?;
    let at = reader.last_position();
    reader.expect_end()?;
    let catalog = session.catalog();
    if routine || catalog.find(&name).is_none() && catalog.find(&routine_name(&name)).is_some() {
        name = routine_name(&name);
    }
    let object = catalog.get(&name).map_err(|error| error.at(at))?;
    let statement = match &object.definition {
        Definition::Source { .. } | Definition::Sink { .. } => without_secrets(&object.ddl),
        _ => object.ddl.clone(),
    };
    let columns = vec![texts([name.as_str()]), texts([statement])];
    rows(RecordBatch::try_new(strings(&["name", "statement"]), columns))
}

async fn show_objects(session: &Session, kind: &str, wanted: Wanted) -> Result<Response> {
    let catalog = session.catalog();
    let mut statuses = session.shared.ask(|reply| Event::Ask(Question::Status { reply })).await?;
    // A table that a connector fills is listed as a table, and as a source.
    let is_wanted = |object: &Arc<Object>| {
        object.definition.kind() == kind || (kind == "source" && object.definition.is_source())
    };
    statuses.retain(|status| {
        let is_there =
            wanted.schema.as_ref().is_none_or(|schema| catalog.schemas().place_of(&status.name).0 == schema);
        let is_own = catalog.schemas().temporary() == Some(catalog.schemas().place_of(&status.name).0);
        let is_shown = is_own || !is_in_temporary(&status.name);
        is_there && is_shown && catalog.find(&status.name).is_some_and(is_wanted)
    });
    let number = |value: fn(&ObjectStatus) -> Option<u64>| -> ArrayRef {
        Arc::new(Int64Array::from_iter(statuses.iter().map(|status| value(status).map(|n| n as i64))))
    };
    let int = |name: &str| Field::new(name, DataType::Int64, true);
    let text = |name: &str| Field::new(name, DataType::Utf8View, true);
    let names = texts(statuses.iter().map(|status| status.name.as_ref()));
    let status = texts(statuses.iter().map(|status| status.status));
    let reason: ArrayRef =
        Arc::new(StringViewArray::from_iter(statuses.iter().map(|status| status.reason.as_deref())));
    let on_error: ArrayRef =
        Arc::new(StringViewArray::from_iter(statuses.iter().map(|status| status.on_error)));
    let (fields, columns) = match kind {
        "view" => (vec![text("name")], vec![names]),
        "table" => (vec![text("name"), int("rows")], vec![names, number(|status| status.rows)]),
        "source" => (
            vec![text("name"), text("status"), text("reason"), int("rows"), int("bad_rows")],
            vec![names, status, reason, number(|status| status.rows), number(|status| status.bad_rows)],
        ),
        "sink" => (
            vec![text("name"), text("status"), text("reason"), int("rows"), int("epoch")],
            vec![names, status, reason, number(|status| status.rows), number(|status| status.epoch)],
        ),
        _ => (
            vec![
                text("name"),
                text("status"),
                text("reason"),
                int("rows"),
                int("epoch"),
                int("state_bytes"),
                int("errors"),
                text("on_error"),
            ],
            vec![
                names,
                status,
                reason,
                number(|status| status.rows),
                number(|status| status.epoch),
                number(|status| status.state_bytes),
                number(|status| status.errors),
                on_error,
            ],
        ),
    };
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(error::arrow)?;
    rows(Ok(only(&wanted, batch)?))
}

fn show_routines(session: &Session) -> Result<Response> {
    let catalog = session.catalog();
    let (mut names, mut headings, mut results, mut kinds) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for object in catalog.routines() {
        let (name, heading, result) = match &object.definition {
            Definition::Function(function) => (&function.name, function.heading(), function.result()),
            Definition::Aggregate(aggregate) => {
                (&aggregate.name, aggregate.heading(), sql_type(&aggregate.returns))
            }
            _ => continue,
        };
        headings.push(heading);
        results.push(result);
        names.push(name);
        kinds.push(object.definition.kind());
    }
    let columns = vec![texts(names), texts(headings), texts(results), texts(kinds)];
    rows(RecordBatch::try_new(strings(&["name", "takes", "returns", "kind"]), columns))
}

/// Returns the engine's settings, then PostgreSQL's settings in this session.
fn show_settings(session: &Session, settings: &Settings) -> Result<Response> {
    let mut values: Vec<String> =
        SETTINGS.iter().map(|doc| settings.show(doc.name)).collect::<Result<_>>()?;
    values.extend(VARIABLES.iter().map(|variable| session.variable(variable.name).unwrap_or_default()));
    let names = SETTINGS.iter().map(|doc| doc.name).chain(VARIABLES.iter().map(|variable| variable.name));
    let docs = SETTINGS.iter().map(|doc| doc.doc).chain(VARIABLES.iter().map(|variable| variable.doc));
    let columns = vec![texts(names), texts(values), texts(docs)];
    rows(RecordBatch::try_new(strings(&["name", "value", "description"]), columns))
}

fn strings(names: &[&str]) -> Arc<Schema> {
    Arc::new(Schema::new(
        names.iter().map(|name| Field::new(*name, DataType::Utf8View, false)).collect::<Vec<_>>(),
    ))
}

fn texts(values: impl IntoIterator<Item = impl AsRef<str>>) -> ArrayRef {
    Arc::new(StringViewArray::from_iter_values(values))
}

/// Returns one batch as a response with a notice.
pub(super) fn rows_with_notice(batch: RecordBatch, notice: String) -> Result<Response> {
    let metadata = HashMap::from([(NOTICE.to_string(), notice)]);
    let schema = Arc::new(Schema::new_with_metadata(batch.schema().fields().clone(), metadata));
    rows(batch.with_schema(schema))
}

/// Returns one batch as a response.
pub(super) fn rows(batch: std::result::Result<RecordBatch, ArrowError>) -> Result<Response> {
    let batch = batch.map_err(error::arrow)?;
    let schema = batch.schema();
    let stream = MemoryStream::try_new(vec![batch], schema, None).map_err(Error::from)?;
    Ok(Response::Rows(Box::pin(stream)))
}
