//! Prepared statements, which run with values for their parameters.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::sql::sqlparser::tokenizer::Token;
use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_delta::{Timestamp, on_large_stack};
use millstream_sql::dialect::trailing_emit;
use millstream_sql::{Error, Operation, Parameters, Planner, Result, TokenReader};

use crate::pg;
use crate::pg::OneShot;
use crate::plan_cache::{PlanCache, run_cached_plan};
use crate::session::{Response, Session};
use crate::statements::{STATEMENTS, create_table_as, late_insert, select};
use crate::variables::reader_of;

/// A prepared statement.
#[derive(Clone, Debug)]
pub struct Prepared {
    text: String,
    parameters: Vec<Field>,
    rows: Gives,
    /// The plan of a query, kept while it is valid.
    plan_cache: Option<Arc<PlanCache>>,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // The plan may be deep, so dropping it takes a large stack.
        let plan_cache = self.plan_cache.take();
        on_large_stack(|| drop(plan_cache));
    }
}

/// The kind of a statement's result.
#[derive(Clone, Debug)]
enum Gives {
    Tag,
    Rows(SchemaRef),
    /// Rows whose columns are known only when the statement runs.
    SomeRows,
}

impl Prepared {
    /// Returns the statement's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns its parameters as fields, which have declared types such as UUID too.
    pub fn parameters(&self) -> &[Field] {
        &self.parameters
    }

    fn parameter_types(&self) -> Vec<DataType> {
        self.parameters.iter().map(|field| field.data_type().clone()).collect()
    }

    /// Returns true if the statement returns rows.
    pub fn gives_rows(&self) -> bool {
        !matches!(self.rows, Gives::Tag)
    }

    /// Returns the columns of its rows, if they are known before it runs. If they aren't, the statement is
    /// read-only.
    pub fn schema(&self) -> Option<&SchemaRef> {
        match &self.rows {
            Gives::Rows(schema) => Some(schema),
            _ => None,
        }
    }
}

/// Returns the highest parameter number in a statement.
fn highest(reader: &TokenReader<'_>) -> usize {
    let numbers = reader.rest_tokens().into_iter().filter_map(|token| match token.token {
        Token::Placeholder(name) => name.trim_start_matches('$').parse().ok(),
        _ => None,
    });
    numbers.filter(|number| *number <= usize::from(u16::MAX)).max().unwrap_or(0)
}

impl Session {
    /// Plans one statement with parameters `$1`, `$2`, …, some of whose types may be declared. Returns `None`
    /// if the text has no statement.
    pub async fn prepare(&mut self, sql: &str, types: &[Option<DataType>]) -> Result<Option<Prepared>> {
        let (text, types) = (sql.to_string(), types.to_vec());
        self.apart(sql, move |session| async move { prepare_here(session, &text, &types).await }.boxed())
            .await
    }

    /// Runs a prepared statement. `values` has an array with one value for each parameter.
    pub async fn execute_prepared(&mut self, prepared: &Prepared, values: &[ArrayRef]) -> Result<Response> {
        let (given, wanted) = (values.len(), prepared.parameters.len());
        if given != wanted {
            return Err(Error::invalid(format!(
                "{given} values were given to a statement that has {wanted} parameters"
            )));
        }
        let types = prepared.parameter_types().into_iter().map(Some).collect();
        // A query may return other columns than it was prepared for: its reader finds out. A change must not be made then.
        let is_query = prepared.plan_cache.is_some();
        let told = prepared.schema().filter(|_| !is_query).cloned();
        self.parameters = match (values, told) {
            ([], None) => None,
            (values, told) => Some(Arc::new(Parameters::bound(types, values)?.of_result(told))),
        };
        self.time_anew();
        if prepared.plan_cache.is_some() {
            let (deadline, text, prepared) = (self.deadline.clone(), prepared.text.clone(), prepared.clone());
            let run = self
                .apart(&text, move |session| async move { run_prepared(session, &prepared).await }.boxed());
            return deadline.within(run).await.and_then(|done| done);
        }
        self.execute_one(&prepared.text).await
    }

    /// Returns the planner for a one-time query, with the values of the running statement's parameters.
    pub(crate) fn planner(&self, now: Timestamp) -> Planner {
        self.parametrised().at(now.0)
    }

    /// Returns the planner for a maintained query, with the values of the running statement's parameters.
    pub(crate) fn parametrised(&self) -> Planner {
        self.variables.zoned(&self.shared.planner).with_parameters(self.parameters.clone())
    }

    /// Returns the columns of an open cursor.
    pub fn cursor_schema(&self, name: &str) -> Option<SchemaRef> {
        self.cursors.get(name).map(|cursor| cursor.schema())
    }
}

async fn prepare_here(
    session: &mut Session,
    sql: &str,
    types: &[Option<DataType>],
) -> Result<Option<Prepared>> {
    let pieces = millstream_sql::statements(sql)?;
    let piece = match pieces.as_slice() {
        [] => return Ok(None),
        [piece] => piece,
        [_, second, ..] => {
            return Err(Error::invalid("several statements can't be prepared as one")
                .at(second.range.clone())
                .hint("Prepare them one by one, or send them without parameters."));
        }
    };
    let text = session.variables.spelled_out(&piece.text);
    let prepared = prepare_piece(session, &text, types).await;
    prepared
        .inspect_err(|_| session.fail_transaction())
        .map(Some)
        .map_err(|error| error.shift(piece.range.start))
}

async fn prepare_piece(session: &mut Session, text: &str, types: &[Option<DataType>]) -> Result<Prepared> {
    let reader = reader_of(session, text)?;
    let operation = Operation::of(&reader);
    let is_query = operation.is_none()
        && select::begins(&reader)
        && trailing_emit(&reader).is_none()
        && !create_table_as::begins(&reader);
    let prepared = |parameters, rows| Prepared {
        text: text.to_string(),
        parameters,
        rows,
        plan_cache: is_query.then(Arc::default),
    };
    let puts_late = late_insert::target(&reader, &session.catalog()).is_some();
    let is_dml = operation.is_some() && !puts_late;
    if !is_query && !is_dml {
        let gives_rows = STATEMENTS.find(&reader).is_ok_and(|found| found.statement.rules.rows.is_some());
        let count = types.len().max(highest(&reader));
        let declared = |place: usize| {
            let data_type = types.get(place).cloned().flatten().unwrap_or(DataType::Utf8);
            Field::new("", data_type, true)
        };
        let parameters = (0..count).map(declared).collect();
        let gives = match executed(&session.prepared, &reader) {
            Some(executed) => executed.rows.clone(),
            None if gives_rows => Gives::SomeRows,
            None => Gives::Tag,
        };
        return Ok(prepared(parameters, gives));
    }
    let (settings, now) = session.settings().await?;
    let planner = session.variables.zoned(&session.shared.planner).at(now.0);
    let plan = |planner: &Planner| -> Result<Gives> {
        let catalog = session.catalog();
        Ok(match is_dml {
            true => {
                let returning = planner.dml(text, catalog.as_ref())?.returning;
                returning.map_or(Gives::Tag, |returning| Gives::Rows(returning.columns()))
            }
            false => {
                let relations = OneShot::of(session, catalog, settings.clone());
                let query = planner.query(text, &relations)?;
                let shown = query.output_schema(&query.schema);
                Gives::Rows(if pg::is_read_by(&query.plan)? { pg::marked(&shown) } else { shown })
            }
        })
    };
    // Plan once to find the parameters. If types are open, plan again with the types found.
    let declared = Arc::new(Parameters::declared(types.to_vec()));
    let first = plan(&planner.with_parameters(Some(declared.clone())));
    let mut known = declared.found();
    known.resize(known.len().max(types.len()), None);
    for (known, declared) in known.iter_mut().zip(types) {
        *known = declared.clone().or(known.take());
    }
    if known.is_empty() {
        return Ok(prepared(Vec::new(), first?));
    }
    let known: Vec<DataType> = known.into_iter().map(|found| found.unwrap_or(DataType::Utf8)).collect();
    let typed = Parameters::declared(known.iter().cloned().map(Some).collect());
    let rows = plan(&planner.with_parameters(Some(Arc::new(typed))))?;
    Ok(prepared(fields(known, &declared.spellings()), rows))
}

/// Returns parameters of these types as fields. Types such as UUID are declared.
fn fields(types: Vec<DataType>, spellings: &[Option<&'static str>]) -> Vec<Field> {
    let field = |(place, data_type): (usize, DataType)| {
        let field = Field::new("", data_type, true);
        match spellings.get(place).copied().flatten() {
            Some(spelling) => millstream_delta::declared(field, spelling),
            None => field,
        }
    };
    types.into_iter().enumerate().map(field).collect()
}

/// Returns the prepared statement that an EXECUTE names.
fn executed<'a>(prepared: &'a BTreeMap<String, Prepared>, reader: &TokenReader<'_>) -> Option<&'a Prepared> {
    let mut reader = reader.clone();
    if !reader.keyword(&["EXECUTE"]) {
        return None;
    }
    prepared.get(&reader.identifier().ok()?)
}

/// Runs a query by its kept plan, or plans it again.
fn run_prepared<'a>(session: &'a mut Session, prepared: &'a Prepared) -> BoxFuture<'a, Result<Response>> {
    let run = async move {
        if let Some(plan_cache) = &prepared.plan_cache
            && let Some(response) =
                run_cached_plan(session, &prepared.text, &prepared.parameter_types(), plan_cache).await?
        {
            return Ok(response);
        }
        session.run_text(&prepared.text).await
    };
    run.boxed()
}
