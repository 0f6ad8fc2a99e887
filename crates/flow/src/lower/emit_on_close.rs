//! Finds the windows of a plan that close, and their clocks.

use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};

use super::builder::FlowBuilder;
use super::join_side_expiry::{self, Below};
use super::session;
use crate::Driver;
use crate::dag::Node;
use crate::event_time::{self, Edge, EventTime, Times};
use crate::limits::Limits;
use crate::operator::Operator;
use crate::operators::aggregate;
use crate::operators::emit_on_close::{self, Window};
use crate::{Error, Result};

/// The event time of each column of an operator's key, with the column's name.
pub(super) type KeyTimes = Vec<(String, Option<EventTime>)>;

/// The windows of a flow that close, and the reasons why a query with EMIT ON WINDOW CLOSE has none.
pub(super) struct ClosingWindows<'a> {
    driver: &'a Driver,
    limits: Limits,
    /// Joins below windows that close.
    below: Vec<Below>,
    /// A grouping set that contains no window although others do, and the column that it lacks.
    without_window: Option<(String, String)>,
    /// True if a temporal filter is above columns with a clock: its rows appear and disappear with time,
    /// whatever the clock.
    clock_lost: bool,
    /// The operator that would have to emit final rows only, and what it lacks for that.
    unclosed: Option<String>,
}

impl<'a> ClosingWindows<'a> {
    /// Returns the windows of a flow without operators.
    pub(super) fn new(driver: &'a Driver, limits: Limits) -> ClosingWindows<'a> {
        ClosingWindows {
            driver,
            limits,
            below: Vec::new(),
            without_window: None,
            clock_lost: false,
            unclosed: None,
        }
    }

    /// Records a temporal filter above columns with these event times.
    pub(super) fn filter_by_time(&mut self, times: &Times) {
        self.clock_lost |= times.iter().any(Option::is_some);
    }

    /// Records an operator that would have to emit final rows only, with what it lacks for that.
    pub(super) fn lack(&mut self, unclosed: String) {
        self.unclosed = Some(unclosed);
    }

    /// Adds an aggregate over the rows of a node, some of whose groups may be windows that close.
    pub(super) fn push_aggregate(
        &mut self,
        builder: &mut FlowBuilder,
        operator: Box<dyn Operator>,
        node: &Aggregate,
        input: usize,
    ) -> Result<usize> {
        let schema = operator.properties().schema.clone();
        let (groups, sets) = aggregate::keys_of(node);
        let keys = key_times(
            groups.iter().take(schema.fields().len()),
            &node.input,
            &builder.times_of(input),
            self.driver,
        )?;
        let names = schema.fields().iter().map(|field| field.name().clone());
        let in_all = |at: &usize| sets.iter().all(|absent| !absent[*at]);
        let in_all_sets = (0..groups.len()).filter(in_all).map(|at| groups[at].clone()).collect();
        let gated = session::groups_sessions(&node.input, in_all_sets)?;
        let of = |(at, (name, (_, time))): (usize, (String, (String, Option<EventTime>)))| {
            (name, time.map(|time| time.gated(gated)).filter(|_| in_all(&at)))
        };
        let timed: Vec<usize> = (0..keys.len()).filter(|at| keys[*at].1.is_some()).collect();
        let keys: KeyTimes = names.zip(keys).enumerate().map(of).collect();
        if !timed.is_empty() && !timed.iter().any(in_all) {
            self.without_window =
                self.without_window.take().or_else(|| without_window(&groups, &sets, &timed));
        }
        let place = self.push(builder, operator, vec![input], &keys, |at| vec![at]);
        self.look_below(builder, place, &groups, &node.input, &keys)?;
        Ok(place)
    }

    /// Adds an operator that forwards the rows of a node, which are those of a plan, partition by partition.
    pub(super) fn push_partitioned(
        &mut self,
        builder: &mut FlowBuilder,
        operator: Box<dyn Operator>,
        partition: &[Expr],
        plan: &LogicalPlan,
        input: usize,
    ) -> Result<usize> {
        let keys = key_times(partition, plan, &builder.times_of(input), self.driver)?;
        let place = |at: usize| match &partition[at] {
            Expr::Column(column) => plan.schema().maybe_index_of_column(column).into_iter().collect(),
            _ => Vec::new(),
        };
        let place = self.push(builder, operator, vec![input], &keys, place);
        self.look_below(builder, place, partition, plan, &keys)?;
        Ok(place)
    }

    /// Looks for a join below an operator whose windows close.
    fn look_below(
        &mut self,
        builder: &FlowBuilder,
        place: usize,
        key: &[Expr],
        plan: &LogicalPlan,
        keys: &KeyTimes,
    ) -> Result<()> {
        // A state_ttl drops the rows of idle keys already.
        let may = self.limits.state_ttl_us.is_none() && closes(&builder.nodes()[place]);
        if let Some(window) = self.window_of(keys).filter(|_| may)
            && let Some(join) = join_side_expiry::join_of(&key[window.column], plan)?
            && let Some(node) = join_side_expiry::join_below(builder.nodes(), place)
        {
            self.below.extend(join.below((place, node), &window, self.driver)?);
        }
        Ok(())
    }

    /// Lets joins below windows that close drop the rows that only closed windows could use.
    pub(super) fn expire_join_sides(&mut self, builder: &mut FlowBuilder) {
        let on_close = self.limits.on_close;
        std::mem::take(&mut self.below).into_iter().for_each(|below| below.expire(builder, on_close));
    }

    /// Adds an operator with these event times of its key: one whose windows close, if some columns are
    /// windows. `shown` returns the places in the output of a column of the key. If windows are emitted when
    /// they close, any monotonic function of event time makes windows.
    pub(super) fn push(
        &self,
        builder: &mut FlowBuilder,
        mut operator: Box<dyn Operator>,
        inputs: Vec<usize>,
        keys: &KeyTimes,
        shown: impl Fn(usize) -> Vec<usize>,
    ) -> usize {
        let on_close = self.limits.on_close;
        let window = self.window_of(keys);
        if let Some(window) = &window {
            let is_window = |at: &usize| keys[*at].1.as_ref().is_some_and(|time| time.edge.is_some());
            if let Some(keyed) = operator.as_keyed() {
                keyed.has_few(&(0..keys.len()).filter(is_window).collect::<Vec<_>>());
            }
            let schemas = inputs.iter().map(|input| builder.properties(*input).schema.clone());
            operator = match emit_on_close::around(operator, schemas.collect(), window.clone(), on_close) {
                Ok(operator) => operator,
                Err(operator) => return builder.push_boxed(operator, inputs),
            };
        }
        let place = builder.push_boxed(operator, inputs);
        self.set_times(builder, place, keys, window.as_ref(), shown);
        place
    }

    /// Sets the event times of a node's output columns that hold the key of its windows.
    pub(super) fn set_times(
        &self,
        builder: &mut FlowBuilder,
        place: usize,
        keys: &KeyTimes,
        window: Option<&Window>,
        shown: impl Fn(usize) -> Vec<usize>,
    ) {
        let mut times: Times = vec![None; builder.properties(place).schema.fields().len()];
        for (at, (_, time)) in keys.iter().enumerate() {
            // Windows are emitted when they close, perhaps behind the clock of another column.
            let in_time = match (window, time) {
                (Some(window), Some(time)) if self.limits.on_close => {
                    at == window.column
                        || (window.time.edge, time.edge) == (Some(Edge::End), Some(Edge::Start))
                }
                _ => true,
            };
            if in_time {
                let time = time.clone().map(|time| time.gated(false));
                shown(at).into_iter().for_each(|place| times[place].clone_from(&time));
            }
        }
        builder.set_times(place, times);
    }

    /// Returns the column of a key by which windows close, if there is one: preferably the end of windows,
    /// not their start.
    pub(super) fn window_of(&self, keys: &KeyTimes) -> Option<Window> {
        let closes = keys
            .iter()
            .enumerate()
            .filter_map(|(at, (name, time))| Some((at, name, time.as_ref()?)))
            .filter(|(_, _, time)| self.limits.on_close || time.edge.is_some())
            .max_by_key(|(at, _, time)| (time.edge, std::cmp::Reverse(*at)));
        closes.map(|(column, name, time)| Window { column, name: name.clone(), time: time.clone() })
    }

    /// Returns true if windows close by such a key.
    pub(super) fn closes(&self, keys: &KeyTimes) -> bool {
        self.window_of(keys).is_some()
    }

    /// Fails if windows must be emitted when they close, but there are none or emitted rows may change.
    pub(super) fn check(&self, builder: &FlowBuilder, root: usize) -> Result<()> {
        if !self.limits.on_close {
            return Ok(());
        }
        let has_windows = builder.nodes().iter().any(closes);
        if let Some((set, column)) = &self.without_window
            && !(has_windows && builder.append_only(root))
        {
            return Err(Error::Limit(format!(
                "EMIT ON WINDOW CLOSE emits each window when it closes, but the grouping set ({set}) has no \
                 window, so its groups never close: {column} must be in every set, as in GROUP BY {column}, \
                 ROLLUP (…)"
            )));
        }
        if !has_windows {
            if let Some(unclosed) = self.unclosed.as_ref().filter(|_| builder.has_times()) {
                return Err(Error::Limit(format!("EMIT ON WINDOW CLOSE {unclosed}")));
            }
            return Err(Error::Limit(match (builder.has_times(), self.clock_lost) {
                (false, _) => "EMIT ON WINDOW CLOSE needs a watermark, but no column that the query reads \
                              has one: declare it on the table or source, as in WATERMARK FOR ts AS ts - \
                              INTERVAL '5 seconds'"
                    .into(),
                (true, true) => "EMIT ON WINDOW CLOSE emits each window when the watermark passes it, but \
                                  a condition on now() adds and removes rows as time passes, however old \
                                  they are, so no watermark holds after it: leave that condition out, since \
                                  windows drop their rows by themselves"
                    .into(),
                (true, false) => "EMIT ON WINDOW CLOSE needs windows, but the query has no GROUP BY, PARTITION BY or join by one of \
                                   a column with a watermark: GROUP BY window_start, window_end over TUMBLE, HOP, CUMULATE or SESSION of it"
                    .into(),
            }));
        }
        if !builder.append_only(root) {
            let name = match &builder.nodes()[root] {
                Node::Operator { operator, .. } => operator.describe().name,
                Node::Input { .. } => "its input",
            };
            return Err(Error::Limit(format!(
                "EMIT ON WINDOW CLOSE emits each window once, but {name} above the windows changes rows that \
                 it has emitted: leave EMIT ON WINDOW CLOSE out there, or read a stream of the windows"
            )));
        }
        Ok(())
    }
}

/// Returns true if a node is an operator whose windows close.
fn closes(node: &Node) -> bool {
    matches!(node, Node::Operator { operator, .. } if operator.abilities().windows.is_some())
}

/// Returns the event times of expressions over rows of a plan whose columns have these event times.
pub(super) fn key_times<'a>(
    exprs: impl IntoIterator<Item = &'a Expr>,
    plan: &LogicalPlan,
    below: &Times,
    driver: &Driver,
) -> Result<KeyTimes> {
    let of = |expr: &Expr| Ok((name_of(expr), EventTime::of(expr, plan, below, driver)?));
    exprs.into_iter().map(of).collect()
}

/// Returns the texts of the first of several grouping sets without a timed key, and of the last timed key.
fn without_window(keys: &[Expr], sets: &[Vec<bool>], timed: &[usize]) -> Option<(String, String)> {
    let misses = |absent: &&Vec<bool>| timed.iter().all(|at| absent[*at]);
    // If the sets have different times, this is the set that lacks the last.
    let last = *timed.last()?;
    let set = sets.iter().find(misses).or_else(|| sets.iter().find(|absent| absent[last]))?;
    let names = keys.iter().zip(set).filter(|(_, absent)| !**absent).map(|(key, _)| name_of(key));
    Some((names.collect::<Vec<_>>().join(", "), name_of(&keys[last])))
}

/// Returns the least event time of the same keys over several inputs; `None` for a key unknown in one of
/// them.
pub(super) fn least(inputs: Vec<KeyTimes>) -> KeyTimes {
    let names: Vec<String> =
        inputs.first().map(|first| first.iter().map(|(name, _)| name.clone()).collect()).unwrap_or_default();
    let times: Vec<Times> =
        inputs.into_iter().map(|keys| keys.into_iter().map(|(_, time)| time).collect()).collect();
    names.into_iter().zip(event_time::least(&times.iter().collect::<Vec<_>>())).collect()
}

/// Formats an expression for people.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => column.name.clone(),
        other => other.to_string(),
    }
}
