//! Stored plans: the plans of continuous queries as bytes in a data directory. A start uses the stored plan,
//! even if this version would make a different one.
//!
//! The stored plan is analysed and optimised; `flow` makes the same operators from it each time. Its parts,
//! nodes and expressions, are a list in JSON, each part after those that it refers to. Their fields are the
//! schema of one Arrow IPC stream, and their literals the row of another, so no type or value is lost. The
//! format is this crate's own rather than DataFusion's, so another version of DataFusion can read it.
//!
//! Functions are stored by name, including user-defined ones in SQL. Each stored plan is read back and
//! compared. A plan that differs is not stored.
//!
//! Deliberately absent: plans of views as written, which are planned again; DataFusion's own table functions.

mod functions;
mod read_expression;
mod read_plan;
mod reader;
mod scans;
mod words;
mod write_expression;
mod write_plan;
mod writer;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use serde_json::{Value, json};

use crate::batches::{BatchClock, BatchQuery, Window, WindowKind, WindowOf};
use crate::declared_types::Declared;
use crate::output_names::OutputNames;
use crate::planner::{Planner, Query};
use crate::relation::Relations;
pub(crate) use reader::{PlanDecoder, flag, list, member, number, numbers, text};
pub(crate) use writer::PlanEncoder;

/// The result of writing or reading. An error names the unsupported part, in words that follow "because of".
pub(crate) type CodecResult<T> = Result<T, String>;

/// The version of the format.
const FORMAT: u64 = 1;

impl BatchQuery {
    /// Creates a continuous query from its optimised plan.
    pub fn maintained(plan: LogicalPlan, schema: SchemaRef, reads: Vec<String>) -> BatchQuery {
        let (names, declared) = (OutputNames::default(), Declared::default());
        let query = Query { raw: plan.clone(), plan, schema, reads, names, declared };
        BatchQuery { query, windows: Vec::new(), clock: None }
    }

    /// Returns the clocks of the query and of the queries below its windows, in the order of storage.
    fn clocks(&self) -> Vec<BatchClock> {
        let below = self.below().flat_map(|(_, below)| below.clocks());
        self.clock.iter().cloned().chain(below).collect()
    }
}

impl Planner {
    /// Encodes a query as bytes. Fails with the part that can't be stored.
    pub fn store(&self, query: &BatchQuery, relations: &dyn Relations) -> Result<Vec<u8>, String> {
        let mut writer = PlanEncoder::new(self.state(), query.clocks());
        let written = write(&mut writer, query)?;
        let parts = writer.to_json();
        let bytes = writer.finish(json!({"format": FORMAT, "query": written}))?;
        let read = self.read(&bytes, relations, query.clocks())?;
        let mut again = PlanEncoder::new(self.state(), query.clocks());
        let same = write(&mut again, &read)? == written && again.to_json() == parts;
        if !same || !is_same(query, &read) {
            return Err("a part that isn't read as it was written".into());
        }
        Ok(bytes)
    }

    /// Decodes a query. A continuous query has no windows. Fails if the bytes are invalid.
    pub fn restore(&self, bytes: &[u8], relations: &dyn Relations) -> Result<BatchQuery, String> {
        let head = reader::head(bytes)?;
        let clocks = list(head.get("clocks"), |_| Ok(BatchClock::default()))?;
        self.read(bytes, relations, clocks)
    }

    fn read(
        &self,
        bytes: &[u8],
        relations: &dyn Relations,
        clocks: Vec<BatchClock>,
    ) -> CodecResult<BatchQuery> {
        let head = reader::head(bytes)?;
        let format = member(&head, "format")?.as_u64();
        if format != Some(FORMAT) {
            let found = format.map_or_else(|| "unknown".into(), |format| format.to_string());
            return Err(format!("its format is {found}, and this version reads format {FORMAT}"));
        }
        let mut reader = PlanDecoder::open(bytes, &head, self, relations, clocks)?;
        read(&mut reader, member(&head, "query")?)
    }
}

fn is_same(one: &BatchQuery, other: &BatchQuery) -> bool {
    one.query.plan == other.query.plan
        && one.query.schema == other.query.schema
        && one.below().count() == other.below().count()
        && one.below().zip(other.below()).all(|((_, one), (_, other))| is_same(one, other))
}

fn write(writer: &mut PlanEncoder<'_>, query: &BatchQuery) -> CodecResult<Value> {
    let clock = query.clock.as_ref().and_then(|clock| writer.clock(clock));
    let windows = query.windows.iter().map(|window| write_window(writer, window));
    Ok(json!({
        "windows": windows.collect::<CodecResult<Vec<Value>>>()?, "clock": clock, "reads": query.query.reads,
        "schema": writer.schema(&query.query.schema), "plan": writer.plan(&query.query.plan)?,
    }))
}

fn write_window(writer: &mut PlanEncoder<'_>, window: &Window) -> CodecResult<Value> {
    let kind = match window.kind {
        WindowKind::Last { length, slide } => json!(["last", length, slide]),
        WindowKind::Changes => json!(["changes"]),
        WindowKind::Batch => json!(["batch"]),
    };
    let of = match &window.of {
        WindowOf::Relation(name) => json!(name),
        WindowOf::Query(query) => writer.deeper(|writer| write(writer, query))?,
    };
    Ok(json!({"name": window.name, "kind": kind, "of": of}))
}

fn read(reader: &mut PlanDecoder<'_>, written: &Value) -> CodecResult<BatchQuery> {
    let windows = list(written.get("windows"), |window| read_window(reader, window))?;
    let clock = match member(written, "clock")? {
        Value::Null => None,
        place => Some(reader.clock(number(Some(place))?)?),
    };
    let read =
        |name: &Value| name.as_str().map(str::to_string).ok_or_else(|| "a name is no text".to_string());
    let reads = list(written.get("reads"), read)?;
    let schema = reader.schema(member(written, "schema")?)?;
    let plan = reader.plan(written.get("plan"))?;
    let query = BatchQuery::maintained(std::sync::Arc::unwrap_or_clone(plan), schema, reads);
    Ok(BatchQuery { windows, clock, ..query })
}

fn read_window(reader: &mut PlanDecoder<'_>, written: &Value) -> CodecResult<Window> {
    let kind = member(written, "kind")?;
    let length = |place: usize| kind.get(place).and_then(Value::as_i64);
    let kind = match kind.get(0).and_then(Value::as_str) {
        Some("last") => WindowKind::Last {
            length: length(1).ok_or("the length of a window is missing")?,
            slide: length(2),
        },
        Some("changes") => WindowKind::Changes,
        Some("batch") => WindowKind::Batch,
        _ => return Err("a window of an unknown kind".into()),
    };
    let of = match member(written, "of")? {
        Value::String(name) => WindowOf::Relation(name.clone()),
        query => WindowOf::Query(Box::new(read(reader, query)?)),
    };
    Ok(Window { name: text(written, "name")?.into(), of, kind })
}

#[cfg(test)]
mod tests;
