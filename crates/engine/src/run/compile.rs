//! Compiling plans to queries: how a query reads each relation, and which of its rows it takes.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use millstream_delta::Timestamp;
use millstream_flow::{
    BatchTime, BatchWindow, Description, EventTime, Flow, Growth, Limits, Order, Relation,
};
use millstream_sql::batches::OPERATION;
use millstream_sql::{
    BatchQuery, Error, RelationTable, Result, Window as WindowPlan, WindowKind, WindowOf, length_text,
};

use super::batches::Batches;
use super::change::Prepared;
use super::execution::Execution;
use super::feed::Feed;
use super::queries::Queries;
use super::query::{Keep, Lowered, RunningQuery};
use super::query_names::shown_name;
use super::setup::Setup;
use super::window::{Kind, Window};
use crate::catalog::{Catalog, Definition, Runs, first_columns};
use crate::error;
use crate::panics::panicked;
use crate::settings::{Keeping, OnError, Pace, Settings};
use crate::stamp::{names_batch, stamped};

/// The relations that exist, or are about to, while a group of changes is prepared.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) queries: &'a Queries,
    pub(super) settings: &'a Settings,
    pub(super) execution: &'a Execution,
    pub(super) catalog: &'a Catalog,
    pub(super) before: &'a [Prepared],
    /// The limits of the compiled queries.
    pub(super) limits: Limits,
}

/// The way in which a query that runs once per batch reads one relation.
struct Taken {
    /// The relation whose rows it takes.
    of: Arc<str>,
    /// Its columns, with those of the batch if the query reads them.
    schema: SchemaRef,
    stamped: bool,
    /// The rows that it takes; none for the changes as they arrive.
    window: Option<Kind>,
    key: Option<Vec<usize>>,
}

impl<'a> Scope<'a> {
    /// Returns the scope of the present relations.
    pub(super) fn new(setup: &'a Setup, queries: &'a Queries) -> Scope<'a> {
        let Setup { catalog, settings, execution, .. } = setup;
        Scope { queries, settings, execution, catalog, before: &[], limits: settings.limits }
    }
}

impl Scope<'_> {
    /// Returns the same scope for a query with options of its own.
    pub(super) fn keeping(self, keeping: Keeping) -> Self {
        Scope { limits: keeping.within(self.limits), ..self }
    }

    /// Returns the same scope for a query whose windows may be emitted when they close.
    pub(super) fn closing(self, on_close: bool) -> Self {
        Scope { limits: Limits { on_close, ..self.limits }, ..self }
    }

    /// Returns the queries of an object. Its own is the last one.
    pub(super) fn queries(
        self,
        name: &Arc<str>,
        query: &Runs,
        keep: &dyn Fn(bool) -> Keep,
        on_error: OnError,
    ) -> Result<Vec<RunningQuery>> {
        match query {
            Runs::Maintained { plan, on_close } => {
                let lowered = self.closing(*on_close).lower(plan)?;
                let keep = keep(lowered.flow.append_only().map_err(error::flow)?);
                Ok(vec![RunningQuery::new(name.clone(), lowered, keep, on_error)?])
            }
            Runs::EachBatch(query) => {
                let mut queries = Vec::new();
                self.batch_queries(name, None, query, keep(true), on_error, &mut queries)?;
                Ok(queries)
            }
        }
    }

    /// Adds the queries of one that runs once per batch, those below its windows first.
    pub(super) fn batch_queries(
        &self,
        name: &Arc<str>,
        owner: Option<&Arc<str>>,
        query: &BatchQuery,
        keep: Keep,
        on_error: OnError,
        queries: &mut Vec<RunningQuery>,
    ) -> Result<()> {
        let owner_below = owner.unwrap_or(name);
        let mut below: BTreeMap<&str, Arc<str>> = BTreeMap::new();
        for (window, of) in query.below() {
            let inner: Arc<str> = format!("\0{window} of {}", name.trim_start_matches('\0')).into();
            self.batch_queries(&inner, Some(owner_below), of, Keep::Nothing, on_error, queries)?;
            below.insert(window, inner);
        }
        let lowered = self.lower_batches(query, &below)?;
        let mut running = RunningQuery::new(name.clone(), lowered, keep, on_error)?;
        running.role.set_owner(owner.cloned());
        queries.push(running);
        Ok(())
    }

    /// Compiles a maintained query.
    pub(super) fn lower(&self, plan: &LogicalPlan) -> Result<Lowered> {
        let mut stamped = BTreeMap::new();
        let scans = scans(plan)?;
        for (name, columns) in &scans {
            let name = name.clone();
            if let Some(schema) = self.stamped(&name).filter(|_| names_batch(columns)) {
                if !self.append_only(&name) {
                    return Err(Error::invalid(format!(
                        "the rows of \"{name}\" change, so they belong to no batch"
                    ))
                    .hint(format!("Its changes do: read CHANGES({name}) in a stream FOR EACH BATCH.")));
                }
                stamped.insert(name, schema);
            }
        }
        let resolve = |scan: &TableScan| {
            let provider = millstream_sql::relation_of(scan)?;
            let table = provider.downcast_ref::<RelationTable>()?;
            let schema = match stamped.get(table.name()) {
                Some(schema) => schema.clone(),
                None => self.known(table.name(), &scans)?,
            };
            let columns = table.columns().fields().iter().map(|field| schema.index_of(field.name()));
            let mut times = match stamped.get(table.name()) {
                Some(schema) => self.times_of_batches(table.name(), schema),
                None => self.times(table.name()),
            };
            times.retain(|(column, _)| *column < schema.fields().len());
            Some(Relation {
                name: table.name().into(),
                columns: columns.collect::<Result<_, _>>().ok()?,
                append_only: self.append_only(table.name()),
                key: self.key_within(table.name(), &schema),
                schema,
                about: self.watermark_of(table.name()),
                window: None,
                times,
            })
        };
        let flow = self.compile(plan, &resolve, self.limits)?;
        let feed = |(place, name): (usize, &Arc<str>)| Feed {
            of: name.clone(),
            stamped: stamped.get(name.as_ref()).cloned(),
            // Late rows are kept whole.
            columns: flow.inputs().columns_read(place).filter(|_| flow.late_schema().is_none()),
            window: None,
        };
        let feeds = flow.relations().iter().enumerate().map(feed).collect();
        Ok(Lowered { flow, feeds, batches: None })
    }

    /// Compiles a query that runs once per batch. `below` names the queries of its windows over queries.
    pub(super) fn lower_batches(
        &self,
        query: &BatchQuery,
        below: &BTreeMap<&str, Arc<str>>,
    ) -> Result<Lowered> {
        let plan = &query.query.plan;
        // State of UPDATE_STATE outlives the batch, and takes in its rows when it ends.
        let folds = millstream_flow::holds_update_state(plan).map_err(error::flow)?;
        let mut taken: BTreeMap<String, Taken> = BTreeMap::new();
        let scans = scans(plan)?;
        for (name, columns) in &scans {
            let name = name.clone();
            let batch = names_batch(columns) || taken.get(&name).is_some_and(|taken| taken.stamped);
            let found = match query.windows.iter().find(|window| window.name == name) {
                Some(window) => self.window(window, batch, &scans, below)?,
                None => self.relation(&name, batch, &scans)?,
            };
            taken.insert(name, found);
        }
        let slides = taken.values().any(|taken| matches!(taken.window, Some(Kind::Last { .. })));
        let maintained = folds || slides || taken.values().any(|taken| taken.window.is_none());
        let anew = (query.clock.is_some() && !folds) || !maintained;
        self.check_bare(query, &taken)?;
        let resolve = |scan: &TableScan| {
            let provider = millstream_sql::relation_of(scan)?;
            let table = provider.downcast_ref::<RelationTable>()?;
            let found = taken.get(table.name())?;
            let columns = table.columns().fields().iter().map(|field| found.schema.index_of(field.name()));
            Some(Relation {
                name: table.name().into(),
                columns: columns.collect::<Result<_, _>>().ok()?,
                schema: found.schema.clone(),
                append_only: anew,
                key: found.key.clone(),
                about: about(found.window.as_ref(), anew),
                window: match found.window {
                    Some(Kind::Last { length, slide }) if !anew => Some(BatchWindow { length, slide }),
                    // A window of one microsecond is the batch alone.
                    Some(Kind::Batch) if folds => Some(BatchWindow { length: 1, slide: None }),
                    _ => None,
                },
                times: Vec::new(),
            })
        };
        // A query that runs once per batch forgets with the batch, or with its windows.
        let limits = Limits { state_ttl_us: None, on_close: false, ..self.settings.limits };
        let flow = self.compile(plan, &resolve, limits)?;
        let mut feeds = Vec::new();
        for (place, name) in flow.relations().iter().enumerate() {
            let taken =
                taken.get(name.as_ref()).ok_or_else(|| Error::bug("a flow reads what its plan scans"))?;
            let known = match &taken.window {
                Some(Kind::Changes { plain, .. }) => plain.fields().len(),
                _ => taken.schema.fields().len(),
            };
            let window = |kind: Kind| Window::new(kind, known, flow.inputs().takes_batches(place));
            feeds.push(Feed {
                of: taken.of.clone(),
                stamped: taken.stamped.then(|| taken.schema.clone()),
                columns: None,
                window: taken.window.clone().map(window),
            });
        }
        let order = Order::of(plan, &self.execution.driver).map_err(error::flow)?;
        let batches = Batches::new(&flow, anew, query, order)?;
        Ok(Lowered { flow, feeds, batches: Some(batches) })
    }

    fn compile(
        &self,
        plan: &LogicalPlan,
        resolve: &dyn Fn(&TableScan) -> Option<Relation>,
        limits: Limits,
    ) -> Result<Flow> {
        let Execution { driver, options } = &self.execution;
        let compile = AssertUnwindSafe(|| Flow::compile(plan, resolve, driver, options.choice, limits));
        std::panic::catch_unwind(compile)
            .map_err(|said| panicked("planning the query's operators", said.as_ref()))?
            .map_err(error::flow)
    }

    /// Returns a relation as a query FOR EACH BATCH names it: the batch's rows if it is append-only, otherwise its
    /// content.
    fn relation(&self, name: &str, batch: bool, scans: &[(String, SchemaRef)]) -> Result<Taken> {
        // A table stands for its content, even if it is append-only.
        let definition = self.catalog.find(name).map(|object| &object.definition);
        let is_table = definition.is_some_and(|definition| definition.kind() == "table");
        let append_only = self.append_only(name) && (!is_table || self.execution.options.append_only_tables);
        if batch && !append_only && self.stamped(name).is_some() {
            return Err(Error::invalid(format!(
                "\"{name}\" stands for its current content, whose rows belong to no batch"
            ))
            .hint(format!("Its changes do: CHANGES({name}).")));
        }
        let plain = self.known(name, scans);
        let plain = plain.ok_or_else(|| Error::bug("a scan reads what has columns"))?;
        let full = self.stamped(name).filter(|_| batch && append_only);
        Ok(Taken {
            of: name.into(),
            stamped: full.is_some(),
            key: if append_only { None } else { self.key_within(name, &plain) },
            schema: full.unwrap_or(plain),
            window: append_only.then_some(Kind::Batch),
        })
    }

    fn window(
        &self,
        window: &WindowPlan,
        batch: bool,
        scans: &[(String, SchemaRef)],
        below: &BTreeMap<&str, Arc<str>>,
    ) -> Result<Taken> {
        let name = match &window.of {
            WindowOf::Relation(name) => name,
            WindowOf::Query(query) => {
                let kind = match window.kind {
                    WindowKind::Last { length, slide } => {
                        self.check_interval(&window.name, length, slide)?;
                        Kind::Last { length, slide }
                    }
                    WindowKind::Batch => Kind::Batch,
                    WindowKind::Changes => return Err(Error::bug("CHANGES is over a relation")),
                };
                let of =
                    below.get(window.name.as_str()).cloned().unwrap_or_else(|| window.name.as_str().into());
                let schema = query.query.schema.clone();
                return Ok(Taken { of, schema, stamped: false, window: Some(kind), key: None });
            }
        };
        let definition = &self.catalog.get(name)?.definition;
        let plain = definition.schema().ok_or_else(|| {
            Error::invalid(format!("\"{name}\" is a {}: it has no rows", definition.kind()))
        })?;
        let hidden = usize::from(matches!(window.kind, WindowKind::Changes));
        let plain = &self.known_of(name, plain, widest(&window.name, scans).saturating_sub(hidden));
        let (plain, kind) = match window.kind {
            WindowKind::Last { length, slide } => {
                if !self.append_only(name) {
                    return Err(Error::invalid(format!(
                        "{}: the rows of {} \"{name}\" change, so they belong to no batch",
                        window.name,
                        definition.kind()
                    ))
                    .hint(format!(
                        "Write {name} itself for its current content, or CHANGES({name}) for what the batch changed."
                    )));
                }
                self.check_interval(&window.name, length, slide)?;
                (plain.clone(), Kind::Last { length, slide })
            }
            WindowKind::Batch => return Err(Error::bug("the batch of a relation goes by its name")),
            WindowKind::Changes => {
                let fields = plain.fields().iter().map(|field| field.as_ref().clone());
                let operation = Field::new(OPERATION, DataType::Utf8View, false);
                let fields = std::iter::once(operation).chain(fields);
                let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
                (schema, Kind::Changes { plain: plain.clone(), key: self.key_within(name, plain) })
            }
        };
        let full = self.stamped(name).filter(|_| batch).map(|_| stamped(&plain));
        Ok(Taken {
            of: name.as_str().into(),
            stamped: full.is_some(),
            schema: full.unwrap_or(plain),
            window: Some(kind),
            key: None,
        })
    }

    /// Returns an error if a window does not consist of whole batches of a fixed interval.
    fn check_interval(&self, name: &str, length: i64, slide: Option<i64>) -> Result<()> {
        let Pace::Fixed(interval) = self.settings.pace else { return Ok(()) };
        check_multiples(name, length, slide, interval.as_micros() as i64)
    }

    /// Returns an error if relations that stand for each batch are joined with windows that are evaluated less often.
    fn check_bare(&self, query: &BatchQuery, taken: &BTreeMap<String, Taken>) -> Result<()> {
        let Some(slide) = query.slide() else { return Ok(()) };
        if let Pace::Fixed(interval) = self.settings.pace
            && interval.as_micros() as i64 == slide
        {
            return Ok(());
        }
        let is_window = |name: &str| query.windows.iter().any(|window| window.name == name);
        let bare = |(name, taken): &(&String, &Taken)| match taken.window {
            // A window over a query slides as the query does.
            Some(Kind::Batch) => !is_window(name),
            Some(Kind::Changes { .. }) => true,
            _ => false,
        };
        match taken.iter().find(bare).map(|(_, taken)| taken) {
            None => Ok(()),
            Some(taken) => Err(Error::invalid(format!(
                "\"{}\" stands for each batch, but the windows are evaluated every {}",
                taken.of,
                length_text(slide)
            ))
            .hint(format!(
                "Write LAST({}, INTERVAL '{1}', INTERVAL '{1}').",
                taken.of,
                length_text(slide)
            ))),
        }
    }

    /// Returns the columns of a relation that a plan with these scans knows. A table or a materialized view may have more
    /// columns by now.
    fn known(&self, name: &str, scans: &[(String, SchemaRef)]) -> Option<SchemaRef> {
        if let Some(schema) = self.catalog.dead_letters(name) {
            return Some(schema);
        }
        let schema = self.catalog.find(name)?.definition.schema()?;
        Some(self.known_of(name, schema, widest(name, scans)))
    }

    fn known_of(&self, name: &str, schema: &SchemaRef, known: usize) -> SchemaRef {
        match self.catalog.find(name).map(|object| &object.definition) {
            Some(Definition::Table { .. } | Definition::MaterializedView { .. }) => {
                first_columns(schema, known)
            }
            _ => schema.clone(),
        }
    }

    fn stamped(&self, name: &str) -> Option<SchemaRef> {
        self.catalog.find(name)?.definition.stamped()
    }

    /// Returns true if a relation of this catalog is append-only.
    pub(super) fn append_only(&self, name: &str) -> bool {
        match self.catalog.find(name).map(|object| &object.definition) {
            Some(Definition::Source { spec, table, .. }) => {
                spec.key.is_empty() || table.is_some_and(|intake| intake.append_only)
            }
            Some(Definition::Table { intake, .. }) => self.execution.intake(*intake).append_only,
            Some(Definition::MaterializedView { .. } | Definition::Stream { .. }) => {
                self.query_of(name).is_some_and(RunningQuery::append_only)
            }
            None => self.catalog.dead_letters(name).is_some(),
            _ => false,
        }
    }

    /// Returns columns that no two rows of a relation of this catalog share, if known.
    pub(super) fn key(&self, name: &str) -> Option<Vec<usize>> {
        match &self.catalog.find(name)?.definition {
            Definition::Table { key, .. } => (!key.is_empty()).then(|| key.clone()),
            Definition::Source { spec, .. } => (!spec.key.is_empty()).then(|| spec.key.clone()),
            Definition::MaterializedView { .. } | Definition::Stream { .. } => {
                self.query_of(name)?.key().map(<[usize]>::to_vec)
            }
            _ => None,
        }
    }

    /// Returns the same if a reader that knows these columns knows the whole key.
    fn key_within(&self, name: &str, known: &SchemaRef) -> Option<Vec<usize>> {
        self.key(name).filter(|key| key.iter().all(|column| *column < known.fields().len()))
    }

    /// Returns the columns of a relation of this catalog that have a watermark.
    fn times(&self, name: &str) -> Vec<(usize, EventTime)> {
        match self.catalog.find(name).map(|object| &object.definition) {
            Some(
                Definition::Source { watermark: Some(watermark), schema, .. }
                | Definition::Table { watermark: Some(watermark), schema, .. },
            ) => {
                let data_type = schema.field(watermark.column).data_type().clone();
                vec![(watermark.column, EventTime::watermark(self.catalog.called(name), data_type))]
            }
            Some(Definition::MaterializedView { .. } | Definition::Stream { .. }) => {
                self.query_of(name).map_or_else(Vec::new, |query| query.flow.times().to_vec())
            }
            _ => Vec::new(),
        }
    }

    /// The same for a relation whose rows carry the times of their batch.
    fn times_of_batches(&self, name: &str, schema: &SchemaRef) -> Vec<(usize, EventTime)> {
        let mut times = self.times(name);
        let own = self.catalog.find(name).and_then(|object| object.definition.schema());
        let own = own.map_or(0, |own| own.fields().len());
        for (column, time) in [("_batch_start", BatchTime::Start), ("_batch_time", BatchTime::End)] {
            // The relation may have a column of that name itself.
            let place = schema.index_of(column).ok().filter(|place| *place >= own);
            times.extend(place.map(|place| (place, EventTime::batch(time))));
        }
        times
    }

    /// Returns the watermark of a relation of this catalog for EXPLAIN.
    fn watermark_of(&self, name: &str) -> Description {
        let definition = self.catalog.find(name).map(|object| &object.definition);
        let declared = definition.and_then(|definition| definition.watermark().zip(definition.schema()));
        let text = declared.map(|(watermark, schema)| watermark.text(schema.field(watermark.column).name()));
        Description { detail: text.unwrap_or_default(), ..Description::default() }
    }

    /// Returns the query of a materialized view or a stream. An object that is about to be dropped may have the same
    /// name.
    pub(super) fn query_of(&self, name: &str) -> Option<&RunningQuery> {
        let prepared = self.before.iter().rev().find_map(|part| match part {
            Prepared::Queries(object, queries) if object.name.as_ref() == name => queries.last(),
            _ => None,
        });
        prepared.or_else(|| self.queries.query(name))
    }
}

/// Returns an error if a window is no multiple of a fixed interval.
pub(super) fn check_multiples(name: &str, length: i64, slide: Option<i64>, interval: i64) -> Result<()> {
    for (what, value) in [("length", Some(length)), ("slide", slide)] {
        if let Some(value) = value.filter(|value| value % interval != 0) {
            return Err(Error::invalid(format!(
                "the {what} of {name} is {}, which is no multiple of batch_interval, {}",
                length_text(value),
                length_text(interval)
            ))
            .hint("A window is made of whole batches: choose a multiple, or SET batch_interval."));
        }
    }
    Ok(())
}

/// Returns the number of columns of a relation that a plan with these scans knows.
fn widest(name: &str, scans: &[(String, SchemaRef)]) -> usize {
    let of_it = scans.iter().filter(|(scanned, _)| scanned == name);
    of_it.map(|(_, columns)| columns.fields().len()).max().unwrap_or(usize::MAX)
}

/// Returns the relations that a plan scans, each with the columns that the plan may name.
pub(super) fn scans(plan: &LogicalPlan) -> Result<Vec<(String, SchemaRef)>> {
    let mut found = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(provider) = millstream_sql::relation_of(scan)
            && let Some(table) = provider.downcast_ref::<RelationTable>()
        {
            found.push((table.name().to_string(), table.columns().clone()));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// Describes an input for EXPLAIN.
fn about(window: Option<&Kind>, anew: bool) -> Description {
    let (state, leave) = match window {
        None if anew => ("its content".into(), "read again at each batch"),
        None => return Description::default(),
        Some(Kind::Last { length, .. }) => {
            let leave = if anew { "leaving batches are dropped" } else { "leaving batches are subtracted" };
            (format!("the batches of the last {}", length_text(*length)), leave)
        }
        Some(_) => {
            let leave = if anew {
                "its rows are dropped after it"
            } else {
                "its rows are subtracted when the next arrives"
            };
            ("the batch".to_string(), leave)
        }
    };
    Description { state, growth: Growth::BoundedBy(leave.into()), ..Description::default() }
}

/// Returns the first multiple of `step` after a time.
pub(super) fn next_multiple(step: i64, after: Timestamp) -> Timestamp {
    Timestamp((after.0.div_euclid(step) + 1) * step)
}

/// Returns an error if the windows of a running query are no multiples of a fixed interval.
pub(super) fn check_windows(queries: &[RunningQuery], pace: Pace) -> Result<()> {
    let Pace::Fixed(interval) = pace else { return Ok(()) };
    for query in queries {
        for feed in &query.feeds {
            if let Some(Kind::Last { length, slide }) = feed.window.as_ref().map(Window::kind) {
                let name = format!("the window of \"{}\"", shown_name(queries, query));
                check_multiples(&name, *length, *slide, interval.as_micros() as i64)?;
            }
        }
    }
    Ok(())
}
