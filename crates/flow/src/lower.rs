//! Lowering: translates an optimised logical plan into the cheapest correct operators.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::{LogicalPlan, TableScan};

use crate::batch_window::BatchWindow;
use crate::event_time::{self, EventTime, Times};
use crate::flow::Flow;
use crate::limits::Limits;
use crate::operator::Description;
use crate::operators::aggregate;
use crate::operators::constant::Constant;
use crate::operators::stateless::{Stage, Stateless, Unnest};
use crate::operators::union::Union;
use crate::operators::update_state;
use crate::{Driver, Result};

mod as_of;
mod broadcast;
mod builder;
mod emit_on_close;
mod full_recompute;
mod hopping;
mod interval_bounds;
mod join;
mod join_side_expiry;
mod keys;
mod lookup_join;
mod ordering;
mod over;
mod partition_recompute;
mod plan_predicates;
mod recursion;
mod session;
mod temporal;
mod top_n;
mod unique_keys;
mod windows;

use builder::FlowBuilder;
use emit_on_close::ClosingWindows;
use plan_predicates::{gives_the_same, holds_subquery, is_open, node_name, reads_relations, without_order};
use temporal::asks_for_time;

/// The operators that lowering may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The cheapest correct operators.
    #[default]
    Cheapest,
    /// The same, but each overlapping window is computed by itself. For tests that compare results.
    EachWindow,
    /// FullRecompute for everything. For tests that compare results.
    WholeOnly,
}

/// A relation that a table scan reads.
#[derive(Clone, Debug)]
pub struct Relation {
    /// The relation's name.
    pub name: Arc<str>,
    /// All columns of the relation, as in its deltas.
    pub schema: SchemaRef,
    /// The columns that the scan can name, in the order of the scan's column numbers.
    pub columns: Vec<usize>,
    /// True if the relation is append-only.
    pub append_only: bool,
    /// Columns that together are unique, if known.
    pub key: Option<Vec<usize>>,
    /// Further facts for EXPLAIN: the rows that are kept, and the reason.
    pub about: Description,
    /// The batches that the rows belong to, if they are those of a window of batches. An operator may then
    /// take each batch as it ends and drop it by itself.
    pub window: Option<BatchWindow>,
    /// The columns with event times.
    pub times: Vec<(usize, EventTime)>,
}

/// Finds the relation of a table scan; `None` for scans of anything else (a recursive query's own rows, a
/// table function).
pub type Resolve<'a> = &'a dyn Fn(&TableScan) -> Option<Relation>;

impl Flow {
    /// Compiles an analysed and optimised plan. The outermost ORDER BY has no effect.
    pub fn compile(
        plan: &LogicalPlan,
        resolve: Resolve<'_>,
        driver: &Driver,
        choice: Choice,
        limits: Limits,
    ) -> Result<Flow> {
        let plan = lookup_join::without_derived(without_order(plan.clone(), false)?)?;
        let driver = &driver.bounded(limits);
        let mut lowering = Lowering {
            resolve,
            driver,
            limits,
            choice,
            batchwise: false,
            builder: FlowBuilder::new(limits),
            windows: ClosingWindows::new(driver, limits),
            lowered: HashMap::new(),
            made_of: Vec::new(),
            why: String::new(),
        };
        let lowered = match choice {
            Choice::Cheapest | Choice::EachWindow => lowering.lower(&plan)?,
            Choice::WholeOnly => {
                lowering.because("only Whole is allowed");
                None
            }
        };
        let root = match lowered {
            Some(root) => root,
            None => lowering.whole(&plan, choice)?,
        };
        lowering.windows.check(&lowering.builder, root)?;
        lowering.windows.expire_join_sides(&mut lowering.builder);
        let mut flow = lowering.finish(root);
        flow.sharing().share_within()?;
        Ok(flow)
    }
}

struct Lowering<'a> {
    resolve: Resolve<'a>,
    driver: &'a Driver,
    limits: Limits,
    choice: Choice,
    /// True while lowering the input of an operator that takes the batches of a window as they end.
    batchwise: bool,
    builder: FlowBuilder,
    windows: ClosingWindows<'a>,
    /// The node of each part of the plan; the flag is true if it takes the batches of windows as they end.
    lowered: HashMap<(LogicalPlan, bool), usize>,
    /// Parts of the plan that were lowered below a chain of stateless nodes, each with its node.
    made_of: Vec<(LogicalPlan, usize)>,
    why: String,
}

impl Lowering<'_> {
    /// Adds operators for `plan` and returns the place of the last one; `None` if a part of it needs FullRecompute,
    /// with the reason in `why`. Equal parts of the plan are computed once.
    fn lower(&mut self, plan: &LogicalPlan) -> Result<Option<usize>> {
        let known = (plan.clone(), self.batchwise);
        if let Some(node) = self.lowered.get(&known) {
            return Ok(Some(*node));
        }
        let node = self.lower_below(plan, &[])?;
        if let Some(node) = node
            && gives_the_same(plan)?
        {
            self.lowered.insert(known, node);
        }
        Ok(node)
    }

    /// Does the same below some nodes, the lowest last, which a PartitionRecompute operator takes in.
    fn lower_below(&mut self, plan: &LogicalPlan, above: &[&LogicalPlan]) -> Result<Option<usize>> {
        if !reads_relations(plan, self.resolve)? {
            return self.constant(plan);
        }
        if let Some(reason) = holds_subquery(plan)? {
            return Ok(self.because(reason));
        }
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input),
            LogicalPlan::Filter(filter) if asks_for_time(&filter.predicate)? => {
                self.temporal_filter(filter).map(Some)
            }
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::Unnest(_) => {
                self.stateless(plan)
            }
            LogicalPlan::Union(union) => self.union(plan, &union.inputs),
            LogicalPlan::Aggregate(node) => self.aggregate(plan, node, above),
            LogicalPlan::Window(node) => {
                if let Some(node) = self.session(plan, node)? {
                    return Ok(Some(node));
                }
                if let Some(node) = self.over(plan, node)? {
                    return Ok(Some(node));
                }
                let why = std::mem::take(&mut self.why);
                self.per_key(plan, above, &why)
            }
            LogicalPlan::Join(join) => {
                if let Some(node) = self.broadcast_or_join(plan, join)? {
                    return Ok(Some(node));
                }
                let why = std::mem::take(&mut self.why);
                self.per_key(plan, above, &why)
            }
            LogicalPlan::RecursiveQuery(node) => self.recursion(plan, node),
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => self.limited(plan),
            other => Ok(self.because(format!("{} has no cheaper operator yet", node_name(other)))),
        }
    }

    fn because(&mut self, reason: impl Into<String>) -> Option<usize> {
        self.why = reason.into();
        None
    }

    fn constant(&mut self, plan: &LogicalPlan) -> Result<Option<usize>> {
        if is_open(plan)? {
            return Ok(self.because("it is part of a recursive or correlated query"));
        }
        let operator = Constant::new(plan, self.driver)?;
        Ok(Some(self.builder.push(operator, Vec::new())))
    }

    fn scan(&mut self, scan: &TableScan) -> Result<Option<usize>> {
        let Some(relation) = (self.resolve)(scan) else {
            return Ok(self.because("it reads no relation of the catalog"));
        };
        let (schema, key) = (relation.schema.clone(), relation.key.clone());
        let all = relation.columns.clone();
        let input = self.builder.input(relation, self.batchwise);
        let columns: Vec<usize> = match &scan.projection {
            Some(projection) => projection.iter().map(|place| all[*place]).collect(),
            None => all,
        };
        if columns.iter().copied().eq(0..schema.fields().len()) {
            return Ok(Some(input));
        }
        let schema = scan.projected_schema.inner().clone();
        Ok(Some(self.builder.columns_of(input, columns, (schema, key))))
    }

    /// Fuses a chain of projections, filters and unnests into one operator.
    fn stateless(&mut self, plan: &LogicalPlan) -> Result<Option<usize>> {
        let mut chain = Vec::new();
        let mut below = plan;
        loop {
            if holds_subquery(below)?.is_some() {
                break;
            }
            let input = match below {
                LogicalPlan::Projection(node) => &node.input,
                LogicalPlan::Filter(node) if !asks_for_time(&node.predicate)? => &node.input,
                LogicalPlan::Unnest(node) => &node.input,
                LogicalPlan::SubqueryAlias(node) => &node.input,
                _ => break,
            };
            chain.push(below);
            below = input;
        }
        if let Some(ranked) = top_n::ranks(&chain, below)?
            && let Some(node) = self.ranked(&ranked)?
        {
            return Ok(Some(node));
        }
        let fused = partition_recompute::fused(&chain, below)?;
        let (above, fused) = chain.split_at(chain.len() - fused);
        let Some(input) = self.lower_below(below, fused)? else { return Ok(None) };
        if partition_recompute::is_keyed(below) && partition_recompute::is_one(&self.builder.nodes()[input]) {
            (below, chain) = (fused.first().copied().unwrap_or(below), above.to_vec());
        } else if !self.batchwise && gives_the_same(below)? {
            self.made_of.push((below.clone(), input));
        }
        self.stages(input, below, &chain).map(Some)
    }

    /// Returns one operator for a chain of such nodes, the lowest last, over the rows of `input`, which are
    /// those of `below`.
    fn stages(&mut self, input: usize, below: &LogicalPlan, chain: &[&LogicalPlan]) -> Result<usize> {
        if chain.is_empty() {
            return Ok(input);
        }
        let key = self.builder.properties(input).key.clone();
        let mut operator =
            Stateless::new(below.schema().inner().clone(), self.builder.append_only(input)).with_key(key);
        let mut times = self.builder.times_of(input);
        for node in chain.iter().rev() {
            if let Some(stage) = stage(node, self.driver)? {
                operator.push(stage, node.schema().inner().clone());
            }
            times = event_time::above(node, &times, self.driver)?;
        }
        let operator = operator.on_threads(self.driver.threads().clone());
        let node = self.builder.push(operator, vec![input]);
        self.builder.set_times(node, times);
        Ok(node)
    }

    fn union(&mut self, plan: &LogicalPlan, inputs: &[Arc<LogicalPlan>]) -> Result<Option<usize>> {
        let mut lowered = Vec::with_capacity(inputs.len());
        for input in inputs {
            let Some(input) = self.lower(input)? else { return Ok(None) };
            lowered.push(input);
        }
        let append_only = lowered.iter().all(|input| self.builder.append_only(*input));
        let operator = Union::new(plan.schema().inner().clone(), append_only, lowered.len());
        let times: Vec<Times> = lowered.iter().map(|input| self.builder.times_of(*input)).collect();
        let node = self.builder.push(operator, lowered);
        self.builder.set_times(node, event_time::least(&times.iter().collect::<Vec<_>>()));
        Ok(Some(node))
    }

    fn aggregate(
        &mut self,
        plan: &LogicalPlan,
        node: &datafusion::logical_expr::Aggregate,
        above: &[&LogicalPlan],
    ) -> Result<Option<usize>> {
        if let Some(operator) = self.sliding(plan, node)? {
            return Ok(Some(operator));
        }
        if update_state::is_update_state(node) {
            return self.update_state(plan, node);
        }
        let why = match self.hopping(plan, node)? {
            Ok(operator) => return Ok(Some(operator)),
            Err(why) => why,
        };
        let Some(input) = self.lower(&node.input)? else { return Ok(None) };
        // If rows are deleted, one ordered index of the rows takes less memory than one for each value of the
        // first row.
        if !self.builder.append_only(input)
            && let Some(operator) = self.first_of_groups(plan, node)?
        {
            return Ok(Some(operator));
        }
        match aggregate::lower(plan, node, self.builder.append_only(input), self.driver)? {
            Ok(operator) => {
                let operator = Box::new(operator.because(why));
                self.windows.push_aggregate(&mut self.builder, operator, node, input).map(Some)
            }
            Err(reason) => self.per_key(plan, above, &reason),
        }
    }

    /// Returns the flow whose result is that of `root`.
    fn finish(self, root: usize) -> Flow {
        let lowered = self.lowered.into_iter().filter(|((_, batchwise), _)| !batchwise);
        let plans = lowered.map(|((plan, _), node)| (plan, node)).chain(self.made_of);
        self.builder.finish(root, plans, self.driver.threads().clone())
    }
}

/// Returns the stage of a stateless node; `None` if the node changes no rows.
fn stage(node: &LogicalPlan, driver: &Driver) -> Result<Option<Stage>> {
    Ok(match node {
        LogicalPlan::Projection(projection) => {
            let exprs = projection
                .expr
                .iter()
                .map(|expr| driver.expression(expr, &projection.input))
                .collect::<Result<_>>()?;
            Some(Stage::Project(exprs, node.schema().inner().clone()))
        }
        LogicalPlan::Filter(filter) => {
            Some(Stage::Filter(driver.expression(&filter.predicate, &filter.input)?))
        }
        LogicalPlan::Unnest(unnest) => Some(Stage::Unnest(Box::new(Unnest::new(unnest, driver)?))),
        _ => None,
    })
}

fn external(error: crate::Error) -> datafusion::error::DataFusionError {
    match error {
        crate::Error::Query(error) => *error,
        other => datafusion::error::DataFusionError::External(Box::new(other)),
    }
}
