//! `EXPLAIN [ANALYZE | (STATE)] …`: the operators that maintain a query or would do so, their state, their
//! work.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::tokenizer::Token;
use futures::future::try_join_all;
use millstream_delta::Delta;
use millstream_flow::Explained;
use millstream_sql::{BatchQuery, Emit, Error, Result, TokenReader};
use serde_json::{Map, Value, json};

use super::create_stream::{Running, cut_emit, running_query, stream_options};
use super::create_view::{Named, check_batches, make_continuous, named_query};
use super::show::{rows, rows_with_notice};
use super::{create_materialized_view, explain_why, replace, select, within};
use crate::catalog::{Definition, Runs};
use crate::content::Content;
use crate::error;
use crate::event::{Compiled, Event, Explaining, Question};
use crate::point;
use crate::query_pool;
use crate::session::{Response, Session};
use crate::settings::{Keeping, interval};
use crate::statement::{RowsTag, Rules, Run, Statement};

pub(super) static EXPLAIN: Statement = Statement {
    words: &[&["EXPLAIN"]],
    synopsis: concat!(
        "EXPLAIN [(STATE) | (FORMAT JSON) | ANALYZE] query;\n",
        "EXPLAIN [(STATE) | ANALYZE] CREATE MATERIALIZED VIEW name AS query;\n",
        "EXPLAIN [(STATE)] CREATE STREAM name AS query [EMIT CHANGES | FOR EACH BATCH];\n",
        "EXPLAIN [(STATE)] [MATERIALIZED VIEW | STREAM | SINK] name;\n",
        "EXPLAIN ANALYZE [MATERIALIZED VIEW | STREAM | SINK] name [FOR n EPOCHS | FOR 'interval'];\n",
        "EXPLAIN WHY [[MATERIALIZED VIEW | STREAM | SINK] name];\n",
        "EXPLAIN ALTER …;\n",
        "EXPLAIN CREATE OR REPLACE …;",
    ),
    purpose: "show operators, their cost, state and activity",
    pages: &["explain"],
    begins: None,
    run: Run::Alone(|session, mut reader| Box::pin(async move { run(session, &mut reader).await })),
    rules: Rules { rows: Some(RowsTag { word: "EXPLAIN", has_count: false }), ..Rules::DEFAULT },
};

/// The default number of epochs and time that EXPLAIN ANALYZE observes.
const EPOCHS: u64 = 10;
const TIME: Duration = Duration::from_secs(2);
/// The maximum time to wait for a given number of epochs.
const TIME_MAX: Duration = Duration::from_secs(60);

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plan,
    State,
    Analyze,
    Json,
}

/// The object of the EXPLAIN.
enum Target {
    /// A query with its options. The flag is true if windows emit when they close.
    Query(LogicalPlan, Keeping, bool),
    Batches(Box<BatchQuery>),
    Object(Arc<str>),
}

/// The extent of an observation.
struct Watch {
    epochs: u64,
    time: Duration,
}

pub(crate) async fn run(session: &Session, reader: &mut TokenReader<'_>) -> Result<Response> {
    if explain_why::begins(reader) {
        return explain_why::run(session, reader).await;
    }
    if replace::begins(reader) {
        return replace::explain(session, reader).await;
    }
    let form = form(reader)?;
    let once = select::begins(reader);
    let target = target(session, reader)?;
    let watch = match &target {
        Target::Object(_) if form == Form::Analyze => watch(reader)?,
        _ => Watch { epochs: EPOCHS, time: TIME },
    };
    if let Target::Object(_) = target {
        reader.expect_end()?;
    }
    match (form, target) {
        (Form::Analyze, Target::Query(plan, ..)) => run_once(session, plan).await,
        (Form::Analyze, Target::Object(name)) => {
            let Watch { epochs, time } = watch;
            let seen = session.shared.ask(|reply| Event::Observe { name, epochs, time, reply }).await?;
            analysis(&seen, None)
        }
        (Form::Analyze, Target::Batches(_)) => {
            Err(Error::invalid("EXPLAIN ANALYZE of a query that runs once per batch")
                .hint("CREATE it as a stream, and EXPLAIN ANALYZE the name of that."))
        }
        (form, target) => {
            let mut found = Vec::new();
            let what = match target {
                Target::Query(plan, keeping, on_close) => {
                    if once {
                        let relations = point::asked(&plan)?;
                        found = session
                            .shared
                            .ask(|reply| Event::Ask(Question::FoundByKey { relations, reply }))
                            .await?;
                    }
                    Explaining::Plan(Box::new(plan), keeping, on_close)
                }
                Target::Batches(query) => Explaining::Batches(query),
                Target::Object(name) => Explaining::Object(name),
            };
            let kept = matches!(what, Explaining::Object(_));
            let operators = session.shared.ask(|reply| Event::Ask(Question::Explain { what, reply })).await?;
            match form {
                Form::State => state(&operators, kept),
                Form::Json => as_json(&operators),
                Form::Plan | Form::Analyze => plan(&operators, &found),
            }
        }
    }
}

fn form(reader: &mut TokenReader<'_>) -> Result<Form> {
    if reader.keyword(&["PLAN", "FOR"]) {
        return Ok(Form::Plan);
    }
    while FLINK_DETAILS.iter().any(|word| reader.is_keyword(&[word])) && *reader.peek_at(1) != Token::EOF {
        reader.next();
        reader.symbol(Token::Comma);
    }
    for word in ["VERBOSE", "FORMAT"] {
        // A relation may have such a name.
        if reader.is_keyword(&[word]) && *reader.peek_at(1) != Token::EOF {
            return Err(Error::unsupported(format!("EXPLAIN {word}"))
                .hint("EXPLAIN shows one form; EXPLAIN (STATE) and EXPLAIN ANALYZE give columns.")
                .at(reader.position()));
        }
    }
    if reader.is_keyword(&["ANALYZE"]) && *reader.peek_at(1) != Token::EOF {
        reader.next();
        return Ok(Form::Analyze);
    }
    let option = |reader: &TokenReader<'_>| {
        matches!(reader.peek_at(1), Token::Word(_)) && !select::begins_at(reader, 1)
    };
    if *reader.peek() != Token::LParen || !option(reader) {
        return Ok(Form::Plan);
    }
    reader.next();
    let mut form = Form::Plan;
    loop {
        let at = reader.position();
        match reader.identifier()?.as_str() {
            "state" if is_on(reader) => form = Form::State,
            "analyze" if is_on(reader) => form = Form::Analyze,
            "format" if reader.keyword(&["TEXT"]) => {}
            "format" if reader.keyword(&["JSON"]) => form = Form::Json,
            name if DETAILS.contains(&name) => {
                is_on(reader);
            }
            "state" | "analyze" => {}
            other => {
                let error = format!("EXPLAIN ({}) is not supported yet", other.to_uppercase());
                return Err(Error::invalid(error).hint("The options are STATE and ANALYZE.").at(at));
            }
        }
        if reader.symbol(Token::RParen) {
            return Ok(form);
        }
        reader.expect_symbol(Token::Comma)?;
    }
}

/// Flink's words for details, which have no effect either.
const FLINK_DETAILS: [&str; 4] = ["ESTIMATED_COST", "CHANGELOG_MODE", "JSON_EXECUTION_PLAN", "PLAN_ADVICE"];

/// PostgreSQL's options for details, which have no effect: the output has one level of detail.
const DETAILS: [&str; 7] = ["verbose", "costs", "settings", "buffers", "wal", "timing", "summary"];

/// Reads the value of an option; true if there is none.
fn is_on(reader: &mut TokenReader<'_>) -> bool {
    let is_off = matches!(reader.peek(), Token::Number(digits, _) if digits == "0");
    if is_off || matches!(reader.peek(), Token::Number(digits, _) if digits == "1") {
        reader.next();
        return !is_off;
    }
    match reader.one_of(&[&["OFF"], &["FALSE"], &["ON"], &["TRUE"]]) {
        Some(word) => word > 1,
        None => true,
    }
}

fn target(session: &Session, reader: &mut TokenReader<'_>) -> Result<Target> {
    let catalog = session.catalog();
    if reader.keyword(&["CREATE", "STREAM"]) {
        reader.keyword(&["IF", "NOT", "EXISTS"]);
        reader.relation_name()?;
        let Running { query, options, .. } = running_query(session, &catalog, None, reader)?;
        let keeping = stream_options(options, &query)?.keeping;
        return Ok(match query {
            Runs::Maintained { plan, on_close } => Target::Query(plan, keeping, on_close),
            Runs::EachBatch(query) => Target::Batches(query),
        });
    }
    if reader.keyword(&["CREATE", "MATERIALIZED", "VIEW"]) {
        reader.keyword(&["IF", "NOT", "EXISTS"]);
        reader.relation_name()?;
        let on_close = create_materialized_view::cut_on_close(reader)?;
        let Named { mut query, options, .. } = named_query(session, &catalog, reader)?;
        let (_, keeping) = create_materialized_view::view_options(options)?;
        make_continuous(session, &mut query)?;
        return Ok(Target::Query(query.plan, keeping, on_close));
    }
    if select::begins(reader) {
        let emit = cut_emit(reader)?;
        let (text, offset) = within(reader);
        let planner = session.parametrised();
        if emit == Some(Emit::EachBatch) {
            let query = planner.batch_query(text, catalog.as_ref()).map_err(|error| error.shift(offset))?;
            check_batches(&query, &catalog)?;
            return Ok(Target::Batches(Box::new(query)));
        }
        let mut query = planner.query(text, catalog.as_ref()).map_err(|error| error.shift(offset))?;
        make_continuous(session, &mut query)?;
        return Ok(Target::Query(query.plan, Keeping::default(), emit == Some(Emit::OnWindowClose)));
    }
    let kind = reader.one_of(&[&["MATERIALIZED", "VIEW"], &["SINK"], &["STREAM"]]);
    let alone = matches!(reader.peek_at(1), Token::EOF | Token::Period) || watch_begins(reader);
    if kind.is_none() && !alone {
        return Err(reader.expected("a query, CREATE … AS, or the name of a materialized view or stream"));
    }
    let name = reader.relation_name()?;
    let at = reader.last_position();
    let object = catalog.get(&name).map_err(|error| error.at(at.clone()))?;
    let found = object.definition.kind();
    let wanted = kind.map(|kind| ["materialized view", "sink", "stream"][kind]);
    let maintained = matches!(
        object.definition,
        Definition::MaterializedView { .. }
            | Definition::Stream { .. }
            | Definition::Sink { .. }
            | Definition::SinkInto { .. }
    );
    if !maintained || wanted.is_some_and(|wanted| wanted != found) {
        return Err(Error::invalid(format!("\"{name}\" is a {found}"))
            .hint("EXPLAIN takes a query, a materialized view, a stream or a sink.")
            .at(at));
    }
    Ok(Target::Object(name.into()))
}

fn watch_begins(reader: &TokenReader<'_>) -> bool {
    matches!(reader.peek_at(1), Token::Word(word) if word.value.eq_ignore_ascii_case("FOR"))
}

/// Reads `[FOR n EPOCHS | FOR 'length']`.
fn watch(reader: &mut TokenReader<'_>) -> Result<Watch> {
    if !reader.keyword(&["FOR"]) {
        return Ok(Watch { epochs: EPOCHS, time: TIME });
    }
    if matches!(reader.peek(), Token::Number(..)) {
        let epochs = reader.number()?;
        if !reader.keyword(&["EPOCH"]) {
            reader.expect_keyword(&["EPOCHS"])?;
        }
        return Ok(Watch { epochs, time: TIME_MAX });
    }
    reader.keyword(&["INTERVAL"]);
    let at = reader.position();
    let text =
        reader.string().map_err(|_| reader.expected("n EPOCHS, or a length of time such as '5 seconds'"))?;
    let time = interval("the time of EXPLAIN ANALYZE", &text, "").map_err(|error| error.at(at))?;
    Ok(Watch { epochs: u64::MAX, time })
}

/// Runs a query once, outside the loop: it takes in the content of its relations as one epoch.
async fn run_once(session: &Session, plan: LogicalPlan) -> Result<Response> {
    let compiled = session.shared.ask(|reply| Event::Compile { plan: Box::new(plan), reply }).await?;
    let Compiled { mut flow, inputs, cut } = compiled;
    let inputs = try_join_all(inputs.into_iter().map(Content::batches)).await?;
    let step = move || -> Result<Vec<Explained>> {
        let deltas: Vec<Delta> = inputs.into_iter().map(Delta::from_iter).collect();
        flow.step(&cut, &deltas.iter().collect::<Vec<_>>()).map_err(error::flow)?;
        Ok(flow.operators())
    };
    let operators = query_pool::blocking(&session.shared.handle, step).await??;
    analysis(&operators, Some("the query read all rows of its relations as one epoch"))
}

/// Returns the operators, and the relations that a one-time reader looks up by key.
fn plan(operators: &[Explained], found: &[(Arc<str>, String)]) -> Result<Response> {
    let operators = operators.iter().map(Explained::line);
    let found = found.iter().map(|(name, key)| format!("A SELECT reads \"{name}\" by its key {key}"));
    let lines: StringViewArray = operators.chain(found).map(Some).collect();
    rows(RecordBatch::try_new(schema(&[("plan", false)]), vec![Arc::new(lines)]))
}

/// Returns the operators as JSON, in the form of PostgreSQL: the inputs of a node are its `Plans`.
fn as_json(operators: &[Explained]) -> Result<Response> {
    let mut open: Vec<Map<String, Value>> = Vec::new();
    for operator in operators {
        close(&mut open, operator.place.depth);
        open.push(node(operator));
    }
    close(&mut open, 1);
    let plans: Vec<Value> = open.into_iter().map(|plan| json!({ "Plan": plan })).collect();
    let text = serde_json::to_string_pretty(&plans).map_err(|error| Error::bug(error.to_string()))?;
    let lines: StringViewArray = std::iter::once(Some(text)).collect();
    rows(RecordBatch::try_new(schema(&[("QUERY PLAN", false)]), vec![Arc::new(lines)]))
}

/// Puts the nodes from a depth on into those above them.
fn close(open: &mut Vec<Map<String, Value>>, depth: usize) {
    while open.len() > depth.max(1) {
        let Some(input) = open.pop() else { return };
        if let Some(above) = open.last_mut()
            && let Value::Array(inputs) = above.entry("Plans").or_insert_with(|| Value::Array(Vec::new()))
        {
            inputs.push(Value::Object(input));
        }
    }
}

fn node(operator: &Explained) -> Map<String, Value> {
    let name = operator.title.split(" [").next().unwrap_or_default();
    let mut node = Map::new();
    node.insert("Node Type".into(), name.into());
    node.insert("Operator".into(), operator.title.as_str().into());
    if let Some(cost) = operator.cost {
        node.insert("Cost".into(), cost.name().into());
    }
    node.insert("Append Only".into(), operator.append_only.into());
    let texts = [("Key", operator.key.as_deref()), ("State", Some(operator.state.text.as_str()))];
    for (name, text) in texts.into_iter().chain([("Reason", Some(operator.why.as_str()))]) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            node.insert(name.into(), text.into());
        }
    }
    node
}

fn state(operators: &[Explained], kept: bool) -> Result<Response> {
    let stateful = |operator: &Explained| !operator.state.is_none();
    let columns = vec![
        lines(operators, |operator| Some(operator.indented())),
        lines(operators, |operator| stateful(operator).then(|| operator.state.text.clone())),
        lines(operators, |operator| operator.state.key.clone()),
        numbers(operators, |operator| (kept && stateful(operator)).then_some(operator.state.rows as u64)),
        numbers(operators, |operator| (kept && stateful(operator)).then_some(operator.state.bytes as u64)),
        lines(operators, |operator| Some(operator.state.growth.text()).filter(|text| !text.is_empty())),
    ];
    let names = [
        ("operator", false),
        ("state", false),
        ("key", false),
        ("rows", true),
        ("bytes", true),
        ("growth", false),
    ];
    rows(RecordBatch::try_new(schema(&names), columns))
}

fn analysis(operators: &[Explained], notice: Option<&str>) -> Result<Response> {
    // An operator that is listed twice has run once.
    let meter = |value: fn(&Explained) -> u64| {
        numbers(operators, move |operator| (!operator.place.repeated).then(|| value(operator)))
    };
    let columns = vec![
        lines(operators, |operator| Some(operator.indented())),
        meter(|operator| operator.meter.steps),
        meter(|operator| operator.meter.rows_in),
        meter(|operator| operator.meter.rows_out),
        meter(|operator| operator.meter.errors.unsigned_abs()),
        meter(|operator| operator.meter.time.as_micros() as u64),
        meter(|operator| operator.state.rows as u64),
        meter(|operator| operator.state.bytes as u64),
    ];
    let names = [
        ("operator", false),
        ("epochs", true),
        ("rows_in", true),
        ("rows_out", true),
        ("errors", true),
        ("time_us", true),
        ("state_rows", true),
        ("state_bytes", true),
    ];
    let batch = RecordBatch::try_new(schema(&names), columns);
    match notice {
        Some(notice) => rows_with_notice(batch.map_err(error::arrow)?, notice.to_string()),
        None => rows(batch),
    }
}

fn schema(columns: &[(&str, bool)]) -> Arc<Schema> {
    let field = |(name, number): &(&str, bool)| {
        Field::new(*name, if *number { DataType::Int64 } else { DataType::Utf8View }, true)
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

fn lines(operators: &[Explained], text: impl Fn(&Explained) -> Option<String>) -> ArrayRef {
    Arc::new(StringViewArray::from_iter(operators.iter().map(text)))
}

fn numbers(operators: &[Explained], number: impl Fn(&Explained) -> Option<u64>) -> ArrayRef {
    let number = |operator| number(operator).and_then(|number| i64::try_from(number).ok());
    Arc::new(Int64Array::from_iter(operators.iter().map(number)))
}
