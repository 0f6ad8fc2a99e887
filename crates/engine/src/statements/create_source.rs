//! `CREATE SOURCE [IF NOT EXISTS] name [(columns)] WITH (connector = '…', …) [FORMAT … ENCODE …]`, and CREATE TABLE with a
//! connector.

mod completed;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_connect::{Connector, Health, Options, Source, SourceSpec};
use millstream_delta::{checks_of, declared_type, default_of, identity_of, sql_type_of};
use millstream_sql::{Columns, Error, Result, TableIndex, TokenReader, Watermark, is_hidden, timestamp_unit};

use self::completed::{Completed, Places, completed};
use super::create_stream::retention;
use super::create_table::{intake, refuse_merging};
use super::{existed, format_encode, new_name};
use crate::catalog::{Definition, Intake, Object};
use crate::error;
use crate::event::{Event, Question};
use crate::generated_source::GeneratingConnector;
use crate::plan::Working;
use crate::session::{Session, Tag};
use crate::settings::{IdleTimeoutAction, interval, rate};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_SOURCE: Statement = Statement {
    words: &[&["CREATE", "SOURCE"]],
    synopsis: concat!(
        "CREATE SOURCE [IF NOT EXISTS] name\n",
        "  [([column type [NOT NULL] [PRIMARY KEY] | column [type] [GENERATED ALWAYS] AS expression [, …]] [, PRIMARY KEY (column, …)] [, WATERMARK FOR column AS expression])]\n",
        "  [INCLUDE topic | partition | offset | timestamp | key | headers [AS column] …]\n",
        "  WITH (connector = '…', option = value, …)\n",
        "  [FORMAT PLAIN | UPSERT | DEBEZIUM | MAXWELL | CANAL\n",
        "   ENCODE JSON | AVRO | PROTOBUF | CSV | PARQUET | TEXT | BYTES [(option = value, …)]];\n",
        "CREATE SOURCE [IF NOT EXISTS] name [(column, …)] FROM 'path' [WITH (option = value, …)];",
    ),
    purpose: "define a relation whose rows come from an external system",
    pages: &["create-source"],
    begins: None,
    run: Run::Plan(|session, working, reader| Box::pin(async move { plan(session, working, reader).await })),
    rules: Rules::CATALOG,
};

pub(crate) async fn plan(session: &Session, working: &mut Working, reader: TokenReader<'_>) -> Result<Tag> {
    plan_as(session, working, reader, Kind::Source, !session.is_recovering).await
}

/// The objects that read from a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Source,
    /// It keeps all rows.
    Table,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Source => "SOURCE",
            Kind::Table => "TABLE",
        }
    }
}

/// Plans CREATE TABLE with a connector.
pub(super) async fn plan_table(
    session: &Session,
    working: &mut Working,
    reader: TokenReader<'_>,
) -> Result<Tag> {
    plan_as(session, working, reader, Kind::Table, !session.is_recovering).await
}

/// Plans an object of a kind. `is_new`: the connector checks that there is something to read.
async fn plan_as(
    session: &Session,
    working: &mut Working,
    mut reader: TokenReader<'_>,
    kind: Kind,
    is_new: bool,
) -> Result<Tag> {
    let (name, exists) = new_name(working, &mut reader)?;
    if exists {
        return Ok(existed(kind.word(), &name));
    }
    let after_name = reader.last_position().end;
    let Declared { columns, list } = declared(session, &mut reader)?;
    let key = columns.as_ref().map_or_else(Vec::new, |columns| columns.primary_key.clone());
    // A list without columns may name the key of those that are found.
    let has_key = !key.is_empty() || (columns.is_none() && list.is_some());
    let table = (kind == Kind::Table).then(|| intake(&mut reader, has_key)).transpose()?;
    let at = reader.position();
    let WithClause { own, connector, options, first_option } =
        with_clause(session, &mut reader, columns.as_ref())?;
    let (settings, _) = session.shared.ask(|reply| Event::Ask(Question::Settings { reply })).await?;
    let watermark = columns.as_ref().and_then(|columns| columns.watermark.clone());
    let mut spec = SourceSpec {
        name: name.to_string(),
        columns: columns.map(|columns| columns.schema),
        key,
        options,
        max_record_bytes: settings.sources.record_bytes_max,
        timestamp_unit: timestamp_unit(&session.shared.planner),
        health: Health::default(),
    };
    if is_new {
        let checked = apart(session, &connector, &spec, |connector, spec| connector.check_source(spec)).await;
        checked.map_err(|error| error.at(at.clone()))?;
    }
    let found = apart(session, &connector, &spec, |connector, spec| connector.findings(spec)).await;
    let found = found.map_err(|error| error.at(at.clone()))?;
    let places = Places { after_name, list: list.clone(), first_option };
    if let Some(completed) = completed(session, reader.text(), &places, &found) {
        return plan_completed(session, working, reader.text(), completed, kind).await;
    }
    if spec.columns.is_none() && list.is_some() {
        return Err(Error::invalid(format!(
            "the column list of \"{name}\" has no columns, and connector '{}' can't find them with these options",
            connector.name()
        ))
        .hint("Declare the columns.")
        .at(list.unwrap_or(at)));
    }
    spec.columns = spec.columns.or(found.columns);
    let source = apart(session, &connector, &spec, |connector, spec| connector.source(spec)).await;
    let source = source.map_err(|error| error.at(at.clone()))?;
    check_included(&spec).map_err(|error| error.at(at.clone()))?;
    match table {
        None => check_changes(&spec, source.as_ref(), own.retention.is_some()),
        Some(intake) => check_table(&spec, source.as_ref(), &own, intake),
    }
    .map_err(|error| error.at(at))?;
    // Fix the columns: a second reader must have the same, even if the first file differs by then.
    let visible = source.schema().fields().iter().filter(|field| !is_hidden(field)).cloned();
    let spec = SourceSpec { columns: Some(Arc::new(Schema::new(visible.collect::<Vec<_>>()))), ..spec };
    let schema = source.schema().clone();
    let definition = own.definition(schema, connector, spec, watermark, table);
    let object = Object { name, ddl: reader.text().to_string(), reads: Vec::<Arc<str>>::new(), definition };
    working.create(object, Some(source))?;
    Ok(Tag::new(format!("CREATE {}", kind.word())))
}

/// Sets the option for lost records, if this engine passes over them.
fn choose_on_data_loss(session: &Session, connector: &dyn Connector, options: &mut Options) {
    let name = "on_data_loss";
    if session.shared.recovery.skips_lost_records()
        && connector.source_options().iter().any(|option| option.name == name)
    {
        options.0.insert(name.into(), "skip".into());
    }
}

/// Plans a statement with the parts that its connector has found.
async fn plan_completed(
    session: &Session,
    working: &mut Working,
    written: &str,
    completed: Completed,
    kind: Kind,
) -> Result<Tag> {
    let mut reader = TokenReader::new(&completed.text)?;
    reader.expect_keyword(&["CREATE", kind.word()])?;
    let planned = Box::pin(plan_as(session, working, reader, kind, false)).await;
    let tag = planned.map_err(|error| completed.as_written(error))?;
    // A restart must find the same.
    working.completed.insert(written.to_string(), completed.text);
    Ok(tag)
}

/// A column list. Its columns may be left to the connector, beside a key and a watermark.
struct Declared {
    columns: Option<Columns>,
    /// The place of its opening parenthesis, if there is a list.
    list: Option<Range<usize>>,
}

fn declared(session: &Session, reader: &mut TokenReader<'_>) -> Result<Declared> {
    if *reader.peek() != Token::LParen {
        return Ok(Declared { columns: None, list: None });
    }
    let at = reader.position();
    let list = Some(at.clone());
    if lacks_columns(reader) {
        reader.group()?;
        return Ok(Declared { columns: None, list });
    }
    let more = more_columns(session, reader);
    let columns = session.shared.planner.columns_beside(reader, &more)?;
    if let Some((at, _)) = columns.domains.first() {
        let hint = "Use its type. A view can leave rows out: CREATE VIEW v AS SELECT * FROM the source WHERE condition.";
        return Err(Error::unsupported("a domain for a column of a source").at(at.clone()).hint(hint));
    }
    check_columns(&columns.schema)?;
    let has_checks = columns.schema.fields().iter().any(|field| !checks_of(field).is_empty());
    let has_identity = columns.schema.fields().iter().any(|field| identity_of(field).is_some());
    let has_unique = !TableIndex::all(&columns.schema).is_empty();
    if has_checks || has_unique || has_identity || !columns.notices.is_empty() {
        let error = Error::unsupported(match () {
            () if has_checks => "CHECK for a source",
            () if has_unique => "UNIQUE for a source",
            () if has_identity => "an identity column of a source",
            () => "REFERENCES for a source",
        });
        return Err(error
            .at(at)
            .hint("Leave it out. A view can leave rows out: CREATE VIEW v AS SELECT * FROM the source WHERE condition."));
    }
    Ok(Declared { columns: Some(columns), list })
}

/// Returns true if each item of a column list is a key, a watermark or a generated column.
fn lacks_columns(reader: &TokenReader<'_>) -> bool {
    let mut ahead = reader.clone();
    let (mut depth, mut is_other) = (0, false);
    while !ahead.is_end() {
        let token = ahead.next();
        let ends_item = depth == 1 && matches!(token, Token::Comma | Token::RParen);
        if ends_item && !is_other {
            return false;
        }
        match token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 1 => return true,
            Token::RParen => depth -= 1,
            _ => {}
        }
        let begins_item = depth == 1 && matches!(token, Token::Comma | Token::LParen);
        let is_clause = ahead.is_keyword(&["PRIMARY", "KEY"]) || ahead.is_keyword(&["WATERMARK", "FOR"]);
        is_other = match begins_item {
            true => is_clause,
            false => is_other || (depth == 1 && ahead.is_keyword(&["AS"])),
        };
    }
    false
}

/// The clauses after the column list.
struct WithClause {
    own: Own,
    connector: Arc<dyn Connector>,
    options: Options,
    /// The position of the first option in the statement.
    first_option: usize,
}

/// Reads `[INCLUDE …] WITH (…) [FORMAT … ENCODE …]` to the statement's end.
fn with_clause(
    session: &Session,
    reader: &mut TokenReader<'_>,
    columns: Option<&Columns>,
) -> Result<WithClause> {
    let at = reader.position();
    let included = includes(reader)?;
    let mut options = of_file(reader)?;
    if !reader.is_keyword(&["WITH"]) && options.is_empty() {
        return Err(reader.expected("INCLUDE, FROM 'path' or WITH (connector = '…', …)"));
    }
    let mut ahead = reader.clone();
    ahead.keyword(&["WITH"]);
    ahead.symbol(Token::LParen);
    let first_option = ahead.last_position().end;
    for (name, value) in reader.options()? {
        if options.iter().any(|(known, _)| *known == name) {
            return Err(Error::invalid(format!("option '{name}' is given twice: FROM gives it, too")).at(at));
        }
        options.push((name, value));
    }
    format_encode::merge(included, &mut options)?;
    format_encode::read(reader, &mut options)?;
    reader.expect_end()?;
    let mut options = Options(options.into_iter().collect());
    let own = own(&mut options).map_err(|error| error.at(at.clone()))?;
    let connector =
        super::create_sink::connector(session, &mut options).map_err(|error| error.at(at.clone()))?;
    // A connector without source options reports itself that it has no source.
    if !connector.source_options().is_empty() {
        options.check(connector.source_options()).map_err(|error| error::connect(error).at(at))?;
    }
    choose_on_data_loss(session, connector.as_ref(), &mut options);
    let declared = columns.map(|columns| &columns.schema);
    let connector = GeneratingConnector::wrap(connector, &session.shared.planner, declared);
    Ok(WithClause { own, connector, options, first_option })
}

/// Reads `FROM 'path'` as options of the connector `file`.
fn of_file(reader: &mut TokenReader<'_>) -> Result<Vec<(String, String)>> {
    if !reader.keyword(&["FROM"]) {
        return Ok(Vec::new());
    }
    let path = reader.string()?;
    let at = reader.last_position();
    let is_format_known = path.rsplit('/').next().is_some_and(|name| name.contains('.'));
    if !is_format_known && !reader.is_keyword(&["WITH"]) {
        return Err(Error::invalid(format!("the name '{path}' has no extension that tells the format"))
            .hint("Add WITH (format = 'csv'), or name the files: FROM 'in/*.csv'.")
            .at(at));
    }
    Ok(vec![("connector".into(), "file".into()), ("path".into(), path)])
}

/// Asks a connector on a thread that may wait.
async fn apart<T: Send + 'static>(
    session: &Session,
    connector: &Arc<dyn Connector>,
    spec: &SourceSpec,
    ask: impl FnOnce(&dyn Connector, &SourceSpec) -> millstream_connect::Result<T> + Send + 'static,
) -> Result<T> {
    let (connector, opened) = (connector.clone(), spec.clone());
    let asked = session.shared.handle.spawn_blocking(move || ask(connector.as_ref(), &opened)).await;
    asked
        .map_err(|error| Error::bug(format!("opening source \"{}\" failed: {error}", spec.name)))?
        .map_err(error::connect)
}

/// Reads `INCLUDE key | timestamp | … [AS name]`, RisingWave's syntax for columns that describe the record, as options. Each
/// value ends with the place of the column, since options have no order.
fn includes(reader: &mut TokenReader<'_>) -> Result<Vec<(String, String)>> {
    let mut included = Vec::new();
    while reader.keyword(&["INCLUDE"]) {
        let what = reader.identifier()?;
        let name = if reader.keyword(&["AS"]) { reader.identifier()? } else { format!("_{what}") };
        let place = included.len();
        included.push((format!("include.{name}"), format!("{what}#{place}")));
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

/// Fails if a column declaration is only valid in a table.
fn check_columns(schema: &Schema) -> Result<()> {
    for field in schema.fields() {
        let column = field.name();
        if declared_type(field).is_some() {
            let spelling = sql_type_of(field);
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
    idle_action: Option<IdleTimeoutAction>,
    retention: Option<Duration>,
}

impl Own {
    /// Returns the definition of a source with these options.
    fn definition(
        self,
        schema: SchemaRef,
        connector: Arc<dyn Connector>,
        spec: SourceSpec,
        watermark: Option<Watermark>,
        table: Option<Intake>,
    ) -> Definition {
        let Own { rate_limit, idle_timeout, idle_action, retention } = self;
        Definition::Source {
            schema,
            connector,
            spec,
            rate_limit,
            retention,
            watermark,
            idle_timeout,
            idle_action,
            table,
        }
    }
}

/// Removes these from all options.
fn own(options: &mut Options) -> Result<Own> {
    let retention = retention(options)?;
    options.0.remove("retention");
    let mut take = |name: &str| options.0.remove(name);
    let rate_limit = take("source_rate_limit").map(|value| rate("source_rate_limit", &value));
    let idle_timeout = take("source_idle_timeout").map(|value| interval("source_idle_timeout", &value, ""));
    let idle_action = take("source_idle_timeout_action").map(|value| IdleTimeoutAction::parse(&value));
    Ok(Own {
        rate_limit: rate_limit.transpose()?,
        idle_timeout: idle_timeout.transpose()?,
        idle_action: idle_action.transpose()?,
        retention,
    })
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

/// Fails if a table can't keep what a source brings.
fn check_table(spec: &SourceSpec, source: &dyn Source, own: &Own, intake: Intake) -> Result<()> {
    let name = &spec.name;
    if own.retention.is_some() {
        return Err(Error::invalid(format!("table \"{name}\" keeps all its rows, so it has no retention"))
            .hint("Leave retention out, or use CREATE SOURCE."));
    }
    refuse_merging(name, spec.columns.as_ref().unwrap_or_else(|| source.schema()), intake)?;
    match (source.properties().brings_changes, spec.key.is_empty()) {
        (true, true) => check_changes(spec, source, false),
        (true, false) if intake != Intake::default() => Err(Error::invalid(format!(
            "the rows of table \"{name}\" are changed by its feed, so APPEND ONLY and ON CONFLICT have no meaning"
        ))
        .hint("Leave them out.")),
        _ => Ok(()),
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
            "Use CREATE TABLE, which keeps the last row of each key. Use format = 'upsert_json' or 'debezium_json' if the \
             rows are changes by key. Else leave it out.",
        )),
        (true, false) if retains => Err(Error::invalid(format!(
            "source \"{name}\" keeps the current row of each key, so retention can't bound them"
        ))
        .hint("Leave retention out.")),
        (true, false) => Ok(()),
    }
}
