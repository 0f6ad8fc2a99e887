//! `CREATE [OR REPLACE] SINK name FROM relation WITH (…)`, `CREATE [OR REPLACE] SINK name AS SELECT … WITH (…)`

use std::sync::Arc;

use arrow::datatypes::Schema;
use millstream_connect::{Connector, Options, SinkSpec};
use millstream_sql::functions::quoted_ident;
use millstream_sql::{BatchQuery, Error, Query, Result, TokenReader, is_hidden, qualified_ident, suggestion};

use super::create_stream::{Running, running_query};
use super::create_view::{make_continuous, no_options};
use super::{existed, format_encode, new_name, own_relation, sink_into};
use crate::catalog::{Definition, Object, Runs};
use crate::error;
use crate::plan::Working;
use crate::session::{Session, Tag};
use crate::statement::{Rules, Run, Statement};

pub(super) static CREATE_SINK: Statement = Statement {
    words: &[&["CREATE", "SINK"], &["CREATE", "OR", "REPLACE", "SINK"]],
    synopsis: concat!(
        "CREATE [OR REPLACE] SINK [IF NOT EXISTS] name FROM relation WITH (connector = '…', option = value, …);\n",
        "CREATE [OR REPLACE] SINK [IF NOT EXISTS] name AS query [EMIT CHANGES | EMIT ON WINDOW CLOSE | FOR EACH BATCH]\n",
        "  WITH (connector = '…', option = value, …);\n",
        "CREATE [OR REPLACE] SINK [IF NOT EXISTS] name INTO table [(column, …)] FROM relation | AS query;",
    ),
    purpose: "deliver changes to an external system or into a table",
    pages: &["create-sink"],
    begins: None,
    run: Run::Plan(|session, working, reader| Box::pin(async move { plan(session, working, reader).await })),
    rules: Rules::CATALOG,
};

pub(crate) async fn plan(
    session: &Session,
    working: &mut Working,
    mut reader: TokenReader<'_>,
) -> Result<Tag> {
    if TokenReader::new(reader.text())?.is_keyword(&["CREATE", "OR", "REPLACE"]) {
        drop_replaced(working, reader.clone())?;
    }
    let (name, exists) = new_name(working, &mut reader)?;
    if exists {
        return Ok(existed("SINK", &name));
    }
    let name_at = reader.last_position();
    if reader.keyword(&["INTO"]) {
        return sink_into::plan(session, working, name, &mut reader);
    }
    if let Some(other) = working.catalog.sink_outside(&name) {
        return Err(Error::invalid(format!(
            "sink \"{}\" was created as \"{name}\", and its target knows it by that name",
            other.name
        ))
        .hint("Choose another name.")
        .at(name_at));
    }
    if reader.is_keyword(&["WITH"]) {
        return Err(reader.expected("FROM relation or AS query"));
    }
    let format = format_encode::cut(&mut reader)?;
    let mut options = reader.cut_options()?;
    format_encode::merge(format, &mut options)?;
    let mut options = Options(options.into_iter().collect());
    let connector = connector(session, &mut options)?;
    // A connector that only has a source reports this itself.
    if !connector.sink_options().is_empty() || connector.source_options().is_empty() {
        options.check(connector.sink_options()).map_err(error::connect)?;
    }
    let planned = working.planned(session, &name)?;
    let planned = if reader.keyword(&["FROM"]) {
        from_relation(session, working, &name, planned, &mut reader)?
    } else {
        from_query(session, working, &name, planned, &mut reader)?
    };
    let spec = SinkSpec {
        name: name.to_string(),
        columns: planned.columns,
        append_only: false,
        key: None,
        auto_pace: false,
        options,
    };
    // Recovery skips the check made at creation, since the target may be unreachable then.
    if !session.is_recovering {
        connector.check_sink(&spec).await.map_err(error::connect)?;
    }
    let definition = Definition::Sink { from: planned.from, query: planned.query, connector, spec };
    let object = Object { name, ddl: reader.text().to_string(), reads: planned.reads, definition };
    working.create(object, None)?;
    Ok(Tag::new("CREATE SINK"))
}

/// Drops the sink that CREATE OR REPLACE replaces, if there is one. The new sink is created in the same change.
fn drop_replaced(working: &mut Working, mut reader: TokenReader<'_>) -> Result<()> {
    if reader.is_keyword(&["IF", "NOT", "EXISTS"]) {
        return Err(Error::invalid("OR REPLACE and IF NOT EXISTS contradict each other")
            .at(reader.position())
            .hint("Write one of them."));
    }
    let name = reader.new_relation_name()?;
    let Some(old) = working.catalog.find(&name).cloned() else { return Ok(()) };
    let at = reader.last_position();
    let found = old.definition.kind();
    if found != "sink" {
        return Err(Error::invalid(format!("\"{name}\" is a {found}, not a sink"))
            .at(at)
            .hint(format!("DROP {} {name} first, or choose another name.", found.to_uppercase())));
    }
    let readers = working.catalog.dependants(&name);
    if !readers.is_empty() {
        let readers = readers.join(", ");
        return Err(Error::invalid(format!(
            "sink \"{name}\" can't be replaced: {readers} reads its late rows"
        ))
        .at(at)
        .hint(format!("Drop {readers} first, and create that again.")));
    }
    working.drop(vec![old.name.clone()]);
    Ok(())
}

struct Planned {
    from: Arc<str>,
    query: Option<Runs>,
    columns: arrow::datatypes::SchemaRef,
    reads: Vec<Arc<str>>,
}

fn from_relation(
    session: &Session,
    working: &Working,
    name: &str,
    planned: Option<BatchQuery>,
    reader: &mut TokenReader<'_>,
) -> Result<Planned> {
    let relation: Arc<str> = reader.relation_name()?.into();
    let at = reader.last_position();
    reader.expect_end()?;
    let object = working.catalog.get(&relation).map_err(|error| error.at(at.clone()))?;
    match &object.definition {
        Definition::Table { schema, .. }
        | Definition::MaterializedView { schema, .. }
        | Definition::Stream { schema, .. } => Ok(Planned {
            from: relation.clone(),
            query: None,
            columns: schema.clone(),
            reads: vec![relation],
        }),
        // A relation that keeps no rows is read through a query, so that a new sink gets the past like any
        // query.
        Definition::Source { schema, .. } | Definition::View { schema, .. } => {
            let query = match planned {
                Some(planned) => planned.query,
                None => all_of(session, working, &relation, schema)?,
            };
            Ok(Planned {
                from: own_relation(name),
                query: Some(Runs::Maintained { plan: query.plan, on_close: false }),
                columns: query.schema,
                reads: vec![relation],
            })
        }
        Definition::Sink { .. }
        | Definition::SinkInto { .. }
        | Definition::Subscription { .. }
        | Definition::Function(_)
        | Definition::Aggregate(_)
        | Definition::Schema
        | Definition::Type(_)
        | Definition::Sequence(_) => {
            let kind = object.definition.kind();
            Err(Error::invalid(format!("\"{relation}\" is a {kind}: it has no rows to deliver"))
                .at(at)
                .hint("Deliver the relation it delivers."))
        }
    }
}

/// Returns the query over all visible columns of a relation.
fn all_of(session: &Session, working: &Working, relation: &str, schema: &Schema) -> Result<Query> {
    let visible: Vec<String> = schema
        .fields()
        .iter()
        .filter(|field| !is_hidden(field))
        .map(|field| quoted_ident(field.name()))
        .collect();
    let text = format!("SELECT {} FROM {}", visible.join(", "), qualified_ident(relation));
    let mut query =
        session.variables.zoned(&session.shared.planner).query(&text, working.catalog.as_ref())?;
    make_continuous(session, &mut query)?;
    Ok(query)
}

fn from_query(
    session: &Session,
    working: &Working,
    name: &str,
    planned: Option<BatchQuery>,
    reader: &mut TokenReader<'_>,
) -> Result<Planned> {
    let Running { query, schema, reads, options, .. } =
        running_query(session, &working.catalog, planned, reader)?;
    no_options(&options, "the query of a sink")?;
    Ok(Planned { from: own_relation(name), query: Some(query), columns: schema, reads })
}

/// Removes the option `connector` and returns its connector.
pub(super) fn connector(session: &Session, options: &mut Options) -> Result<Arc<dyn Connector>> {
    let names = || session.shared.connectors.keys().copied();
    let Some(name) = options.0.remove("connector") else {
        let is_near = |given: &&String| suggestion::did_you_mean(given, ["connector"]).is_some();
        if let Some(near) = options.0.keys().find(is_near) {
            return Err(Error::invalid(format!("there is no option '{near}'"))
                .hint(format!("Did you mean 'connector'? The connectors are {}.", list(names()))));
        }
        return Err(Error::invalid("option 'connector' is missing")
            .hint(format!("Add WITH (connector = '…'). The connectors are {}.", list(names()))));
    };
    session.shared.connectors.get(name.as_str()).cloned().ok_or_else(|| {
        let near =
            suggestion::did_you_mean(&name, names()).map_or_else(String::new, |near| format!("{near} "));
        Error::invalid(format!("there is no connector '{name}'"))
            .hint(format!("{near}The connectors are {}.", list(names())))
    })
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
