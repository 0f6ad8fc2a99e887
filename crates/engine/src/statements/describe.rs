//! `DESCRIBE name`: the columns of a relation, or the arguments and result of a function.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_delta::{default_of, generated_of, sql_type_of};
use millstream_sql::{Error, Result, TokenReader, is_hidden, routine_name, suggestion};

use super::show::{rows, rows_with_notice};
use crate::catalog::{Definition, Runs};
use crate::error;
use crate::event::{Event, Explaining, Question};
use crate::session::{Response, Session};
use crate::statement::{Rules, Run, Statement};
use crate::system;

pub(super) static DESCRIBE: Statement = Statement {
    words: &[&["DESCRIBE"], &["DESC"]],
    synopsis: concat!("DESCRIBE name;              -- or DESC name\n", "DESCRIBE FUNCTION name;",),
    purpose: "show the columns of a relation",
    pages: &["describe"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules::ROWS,
};

/// Fails if the statement is `DESCRIBE EXTENDED name` or `DESCRIBE name EXTENDED`.
fn refuse_extended(reader: &TokenReader<'_>) -> Result<()> {
    let mut ahead = reader.clone();
    let is_first = ahead.is_keyword(&["EXTENDED"]) && matches!(ahead.peek_at(1), Token::Word(_));
    if !is_first && (ahead.relation_name().is_err() || !ahead.is_keyword(&["EXTENDED"])) {
        return Ok(());
    }
    Err(Error::unsupported("DESCRIBE EXTENDED").at(ahead.position()).hint(
        "DESCRIBE name shows the columns, SHOW CREATE name the statement, EXPLAIN ANALYZE name the operators.",
    ))
}

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    let routine = ["FUNCTION", "AGGREGATE"]
        .iter()
        .any(|kind| matches!(reader.peek_at(1), Token::Word(_)) && reader.keyword(&[kind]));
    refuse_extended(reader)?;
    let name = reader.relation_name()?;
    let at = reader.last_position();
    reader.expect_end()?;
    if let Some(table) = system::table_name(&name) {
        let found =
            system::find(table).ok_or_else(|| {
                let names = system::TABLES.iter().map(|table| table.name);
                Error::invalid(format!("there is no relation \"{name}\""))
                    .at(at)
                    .maybe_hint(suggestion::hint(table, "tables there", names))
            })?;
        return columns_of(&found.schema(), |place, _| found.columns[place].doc.into());
    }
    let catalog = session.catalog();
    if routine || catalog.find(&name).is_none() && catalog.find(&routine_name(&name)).is_some() {
        let object = catalog.get(&routine_name(&name)).map_err(|error| error.at(at))?;
        return routine_of(&object.definition);
    }
    let object = catalog.get(&name).map_err(|error| error.at(at.clone()))?;
    if matches!(object.definition, Definition::Function(_) | Definition::Aggregate(_)) {
        return routine_of(&object.definition);
    }
    let Some(schema) = object.definition.schema() else {
        return Err(Error::invalid(format!("\"{name}\" is a sink: it has no columns"))
            .at(at)
            .hint(format!("SHOW CREATE {name} shows its statement.")));
    };
    let key: &[usize] = match &object.definition {
        Definition::Table { key, .. } => key,
        Definition::Source { spec, .. } => &spec.key,
        _ => &[],
    };
    let is_feed = matches!(&object.definition, Definition::Source { spec, .. } if !spec.key.is_empty());
    // Rows that are updated belong to no batch.
    let updating = is_feed || is_updating(session, &name, &object.definition).await;
    let stamped = object.definition.stamped().filter(|_| !updating);
    let watermark = object.definition.watermark();
    let columns = table_of(stamped.as_ref().unwrap_or(schema), |place, field| {
        let watermark = watermark.filter(|watermark| watermark.column == place);
        let remarks = [
            key.contains(&place).then(|| "primary key".to_string()),
            default_of(field).map(|default| format!("default {default}")),
            generated_of(field).map(|expression| format!("generated as {expression}")),
            is_hidden(field).then(|| "hidden: not in *".to_string()),
            watermark.map(|watermark| format!("watermark {}", watermark.text(field.name()))),
            catalog.comment(&name, Some(field.name())).map(str::to_string),
        ];
        remarks.into_iter().flatten().collect::<Vec<_>>().join("; ")
    });
    let keeps = match &object.definition {
        Definition::Table { .. } | Definition::MaterializedView { .. } | Definition::Stream { .. } => true,
        Definition::Source { retention, table, .. } => is_feed || retention.is_some() || table.is_some(),
        _ => false,
    };
    match keeps && session.shared.recovery.recovered().is_none() {
        true => rows_with_notice(
            columns?,
            format!("\"{name}\" is kept in memory alone: --data DIR keeps it for good"),
        ),
        false => rows(Ok(columns?)),
    }
}

/// True if a stream's rows are updated. A stream whose operators can't be listed counts as append-only.
async fn is_updating(session: &Session, name: &str, definition: &Definition) -> bool {
    let Definition::Stream { query: Runs::Maintained { .. }, .. } = definition else { return false };
    let what = Explaining::Object(name.into());
    let operators = session.shared.ask(|reply| Event::Ask(Question::Explain { what, reply })).await;
    operators.is_ok_and(|operators| operators.first().is_some_and(|root| !root.append_only))
}

/// Returns the arguments of a function or aggregate, then its result.
fn routine_of(definition: &Definition) -> Result<Response> {
    let (parameters, returns) = match definition {
        Definition::Function(function) => (&function.parameters, &function.returns),
        Definition::Aggregate(aggregate) => (&aggregate.parameters, &aggregate.returns),
        other => return Err(Error::bug(format!("a {} is no function", other.kind()))),
    };
    let mut fields: Vec<Field> = parameters
        .iter()
        .enumerate()
        .map(|(place, parameter)| {
            let name = parameter.name.clone().unwrap_or_else(|| format!("${}", place + 1));
            Field::new(name, parameter.data_type.clone(), true)
        })
        .collect();
    fields.push(Field::new("", returns.clone(), true));
    let last = parameters.len();
    columns_of(&Schema::new(fields), |place, _| {
        if place == last { "what it returns".to_string() } else { format!("argument {}", place + 1) }
    })
}

fn columns_of(schema: &Schema, remark: impl Fn(usize, &Field) -> String) -> Result<Response> {
    rows(Ok(table_of(schema, remark)?))
}

fn table_of(schema: &Schema, remark: impl Fn(usize, &Field) -> String) -> Result<RecordBatch> {
    let fields = schema.fields();
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(StringViewArray::from_iter_values(fields.iter().map(|field| field.name()))),
        Arc::new(StringViewArray::from_iter_values(fields.iter().map(|field| sql_type_of(field)))),
        Arc::new(BooleanArray::from_iter(fields.iter().map(|field| Some(field.is_nullable())))),
        Arc::new(StringViewArray::from_iter_values(
            fields.iter().enumerate().map(|(place, field)| remark(place, field)),
        )),
    ];
    let schema = Arc::new(Schema::new(vec![
        Field::new("column", DataType::Utf8View, false),
        Field::new("type", DataType::Utf8View, false),
        Field::new("nullable", DataType::Boolean, false),
        Field::new("remark", DataType::Utf8View, false),
    ]));
    RecordBatch::try_new(schema, columns).map_err(error::arrow)
}
