//! `CREATE SOURCE [IF NOT EXISTS] name [(columns)] WITH (connector = '…', …) [FORMAT … ENCODE …]`

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_connect::{Connector, Health, Options, Source, SourceSpec};
use millstream_delta::{declared_type, default_of, sql_type};
use millstream_sql::{Error, Result, TokenReader, is_hidden};

use super::create_stream::retention;
use super::{existed, format_encode, new_name};
use crate::catalog::{Definition, Object};
use crate::error;
use crate::event::Event;
use crate::plan::Working;
use crate::session::{Session, Tag};
use crate::settings::{interval, rate};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_SOURCE: Statement = Statement {
    words: &[&["CREATE", "SOURCE"]],
    synopsis: concat!(
        "CREATE SOURCE [IF NOT EXISTS] name\n",
        "  [(column type [NOT NULL] [PRIMARY KEY] [, …] [, PRIMARY KEY (column, …)] [, WATERMARK FOR column AS expression])]\n",
        "  [INCLUDE topic | partition | offset | timestamp | key | headers [AS column] …]\n",
        "  WITH (connector = '…', option = value, …)\n",
        "  [FORMAT PLAIN | UPSERT | DEBEZIUM ENCODE JSON | AVRO | PROTOBUF | CSV | PARQUET | TEXT | BYTES [(option = value, …)]];",
    ),
    purpose: "define a relation whose rows come from an external system",
    pages: &["create-source"],
    begins: None,
    run: Run::Plan(|session, working, reader| Box::pin(async move { plan(session, working, reader).await })),
    rules: Rules::CATALOG,
};

pub(crate) async fn plan(
    session: &Session,
    working: &mut Working,
    mut reader: TokenReader<'_>,
) -> Result<Tag> {
    let (name, exists) = new_name(working, &mut reader)?;
    if exists {
        return Ok(existed("SOURCE", &name));
    }
    let after_name = reader.last_position().end;
    let columns = if *reader.peek() == Token::LParen {
        let more = more_columns(session, &reader);
        Some(session.shared.planner.columns_beside(&mut reader, &more)?)
    } else {
        None
    };
    if let Some(columns) = &columns {
        check_columns(&columns.schema)?;
    }
    let at = reader.position();
    let included = includes(&mut reader)?;
    if !reader.is_keyword(&["WITH"]) {
        return Err(reader.expected("INCLUDE or WITH (connector = '…', …)"));
    }
    let mut options = reader.options()?;
    format_encode::merge(included, &mut options)?;
    format_encode::read(&mut reader, &mut options)?;
    reader.expect_end()?;
    let mut options = Options(options.into_iter().collect());
    let own = own(&mut options).map_err(|error| error.at(at.clone()))?;
    let connector =
        super::create_sink::connector(session, &mut options).map_err(|error| error.at(at.clone()))?;
    // A connector without source options reports itself that it has no source.
    if !connector.source_options().is_empty() {
        options.check(connector.source_options()).map_err(|error| error::connect(error).at(at.clone()))?;
    }
    choose_on_data_loss(session, connector.as_ref(), &mut options);
    let (settings, _) = session.shared.ask(|reply| Event::Settings { reply }).await?;
    let key = columns.as_ref().map_or_else(Vec::new, |columns| columns.primary_key.clone());
    let watermark = columns.as_ref().and_then(|columns| columns.watermark);
    let spec = SourceSpec {
        name: name.to_string(),
        columns: columns.map(|columns| columns.schema),
        key,
        options,
        max_record_bytes: settings.max_record_bytes,
        health: Health::default(),
    };
    let source = open(session, &connector, &spec).await.map_err(|error| error.at(at.clone()))?;
    if source.properties().foreign_columns {
        // A restart must find the same columns.
        let is_included = |name: &str| spec.options.get(&format!("include.{name}")).is_some();
        let text = with_columns(reader.text(), after_name, source.schema(), is_included);
        let mut reader = TokenReader::new(&text)?;
        reader.expect_keyword(&["CREATE", "SOURCE"])?;
        return Box::pin(plan(session, working, reader)).await;
    }
    check_included(&spec).map_err(|error| error.at(at.clone()))?;
    check_changes(&spec, source.as_ref(), own.retention.is_some()).map_err(|error| error.at(at))?;
    // Fix the columns: a second reader must have the same, even if the first file differs by then.
    let visible = source.schema().fields().iter().filter(|field| !is_hidden(field)).cloned();
    let spec = SourceSpec { columns: Some(Arc::new(Schema::new(visible.collect::<Vec<_>>()))), ..spec };
    let schema = source.schema().clone();
    let Own { rate_limit, idle_timeout, retention } = own;
    let definition =
        Definition::Source { schema, connector, spec, rate_limit, retention, watermark, idle_timeout };
    let object = Object { name, ddl: reader.text().to_string(), reads: Vec::<Arc<str>>::new(), definition };
    working.create(object, Some(source))?;
    Ok(Tag::new("CREATE SOURCE"))
}

/// Sets the option for lost records, if this engine passes over them.
fn choose_on_data_loss(session: &Session, connector: &dyn Connector, options: &mut Options) {
    let name = "on_data_loss";
    if session.shared.skips_lost_records
        && connector.source_options().iter().any(|option| option.name == name)
    {
        options.0.insert(name.into(), "skip".into());
    }
}

/// Opens a source on a thread that may wait.
async fn open(
    session: &Session,
    connector: &Arc<dyn Connector>,
    spec: &SourceSpec,
) -> Result<Box<dyn Source>> {
    let (connector, opened) = (connector.clone(), spec.clone());
    let opened = session.shared.handle.spawn_blocking(move || connector.source(&opened)).await;
    opened
        .map_err(|error| Error::bug(format!("opening source \"{}\" failed: {error}", spec.name)))?
        .map_err(error::connect)
}

/// Reads `INCLUDE key | timestamp | … [AS name]`, RisingWave's syntax for columns that describe the record, as options.
fn includes(reader: &mut TokenReader<'_>) -> Result<Vec<(String, String)>> {
    let mut included = Vec::new();
    while reader.keyword(&["INCLUDE"]) {
        let what = reader.identifier()?;
        let name = if reader.keyword(&["AS"]) { reader.identifier()? } else { format!("_{what}") };
        included.push((format!("include.{name}"), what));
    }
    Ok(included)
}

/// Returns the columns that the connector adds to the declared ones, as far as the statement is right.
fn more_columns(session: &Session, reader: &TokenReader<'_>) -> Vec<FieldRef> {
    let mut ahead = reader.clone();
    let mut depth = 0;
    while !ahead.is_end() {
        match ahead.next() {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => break,
            Token::RParen => depth -= 1,
            _ => {}
        }
    }
    let mut read = || {
        let mut options = includes(&mut ahead)?;
        options.extend(ahead.options()?);
        let mut options = Options(options.into_iter().collect());
        let connector = super::create_sink::connector(session, &mut options)?;
        connector.more_columns(&options).map_err(error::connect)
    };
    read().unwrap_or_default()
}

/// Returns a statement with the declarations of its source's visible columns after the name.
fn with_columns(
    statement: &str,
    after_name: usize,
    schema: &Schema,
    is_included: impl Fn(&str) -> bool,
) -> String {
    let visible = schema.fields().iter().filter(|field| !is_hidden(field) && !is_included(field.name()));
    let columns: Vec<String> = visible
        .map(|field| format!("{} {}", quoted(field.name()), written_type(field.data_type())))
        .collect();
    let (before, after) = statement.split_at_checked(after_name).unwrap_or((statement, ""));
    format!("{before} ({}){after}", columns.join(", "))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns a type as CREATE takes it. Names of fields keep their case.
fn written_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| format!("{} {}", quoted(field.name()), written_type(field.data_type())))
                .collect();
            format!("STRUCT<{}>", fields.join(", "))
        }
        DataType::List(item) => format!("{}[]", written_type(item.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => format!(
                "MAP({}, {})",
                written_type(fields[0].data_type()),
                written_type(fields[1].data_type())
            ),
            _ => sql_type(data_type),
        },
        _ => sql_type(data_type),
    }
}

/// Fails if a column declaration is only valid in a table.
fn check_columns(schema: &Schema) -> Result<()> {
    for field in schema.fields() {
        let column = field.name();
        if let Some(spelling) = declared_type(field) {
            let error = format!("type {spelling} in a source, as in column \"{column}\",");
            return Err(Error::unsupported(error).hint("Declare it TEXT, and cast it where it is read."));
        }
        if default_of(field).is_some() {
            let error = format!("DEFAULT in a source, as in column \"{column}\",");
            return Err(Error::unsupported(error).hint(
                "A view fills in what is missing: SELECT coalesce(column, value) AS column FROM the source.",
            ));
        }
    }
    Ok(())
}

/// The options of all sources, whatever their connector.
struct Own {
    rate_limit: Option<f64>,
    idle_timeout: Option<Duration>,
    retention: Option<Duration>,
}

/// Removes these from all options.
fn own(options: &mut Options) -> Result<Own> {
    let retention = retention(options)?;
    options.0.remove("retention");
    let mut take = |name: &str| options.0.remove(name);
    let rate_limit = take("source_rate_limit").map(|value| rate("source_rate_limit", &value));
    let idle_timeout = take("source_idle_timeout").map(|value| interval("source_idle_timeout", &value, ""));
    Ok(Own { rate_limit: rate_limit.transpose()?, idle_timeout: idle_timeout.transpose()?, retention })
}

/// Fails for a column that is declared and included.
fn check_included(spec: &SourceSpec) -> Result<()> {
    let declared = spec.columns.iter().flat_map(|columns| columns.fields().iter());
    let mut both = declared.filter(|field| spec.options.get(&format!("include.{}", field.name())).is_some());
    match both.next() {
        None => Ok(()),
        Some(field) => Err(Error::invalid(format!("column \"{}\" is declared, and included", field.name()))
            .hint("Leave one out, or name the included column otherwise: INCLUDE key AS k.")),
    }
}

/// Fails unless the source has both a key and changes by key, or neither.
fn check_changes(spec: &SourceSpec, source: &dyn Source, retains: bool) -> Result<()> {
    let name = &spec.name;
    match (source.properties().brings_changes, spec.key.is_empty()) {
        (false, true) => Ok(()),
        (true, true) => Err(Error::invalid(format!(
            "source \"{name}\" is a change feed, but it has no PRIMARY KEY"
        ))
        .hint("Declare the key: (id BIGINT PRIMARY KEY, …).")),
        (false, false) => Err(Error::unsupported("PRIMARY KEY of an append-only source").hint(
            "Use format = 'upsert_json' or 'debezium_json' if the rows are changes by key; else leave it out, or \
             read the source INTO a table that has it.",
        )),
        (true, false) if retains => Err(Error::invalid(format!(
            "source \"{name}\" keeps the current row of each key, so retention can't bound them"
        ))
        .hint("Leave retention out.")),
        (true, false) => Ok(()),
    }
}
