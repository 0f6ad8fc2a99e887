//! Finds the windows of a plan that close, and their clocks.

use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};

use super::{Lowering, session};
use crate::event_time::{self, Edge, EventTime, Times};
use crate::flow::Node;
use crate::operator::Operator;
use crate::operators::aggregate;
use crate::operators::emit_on_close::{self, Window};
use crate::{Error, Result};

/// The event time of each column of an operator's key, with the column's name.
pub(super) type KeyTimes = Vec<(String, Option<EventTime>)>;

impl Lowering<'_> {
    /// Returns the event times of a node's columns.
    pub(super) fn times_of(&self, node: usize) -> Times {
        let none = || vec![None; self.nodes[node].properties().schema.fields().len()];
        self.times.get(&node).cloned().unwrap_or_else(none)
    }

    pub(super) fn set_times(&mut self, node: usize, times: Times) {
        if times.iter().any(Option::is_some) {
            self.times.insert(node, times);
        }
    }

    /// Returns the event times of expressions over the rows of a node, which are those of a plan.
    pub(super) fn key_times<'a>(
        &self,
        exprs: impl IntoIterator<Item = &'a Expr>,
        plan: &LogicalPlan,
        node: usize,
    ) -> Result<KeyTimes> {
        let below = self.times_of(node);
        let of = |expr: &Expr| Ok((name_of(expr), EventTime::of(expr, plan, &below, self.driver)?));
        exprs.into_iter().map(of).collect()
    }

    /// Adds an aggregate over the rows of a node, some of whose groups may be windows that close.
    pub(super) fn aggregate_closing(
        &mut self,
        operator: Box<dyn Operator>,
        node: &Aggregate,
        input: usize,
    ) -> Result<usize> {
        let schema = operator.properties().schema.clone();
        let (groups, sets) = aggregate::keys_of(node);
        let keys = self.key_times(groups.iter().take(schema.fields().len()), &node.input, input)?;
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
        let place = self.push_closing(operator, vec![input], &keys, |at| vec![at]);
        self.look_below(place, &groups, &node.input, &keys)?;
        Ok(place)
    }

    /// Adds an operator that forwards the rows of a node, which are those of a plan, partition by partition.
    pub(super) fn partition_closing(
        &mut self,
        operator: Box<dyn Operator>,
        partition: &[Expr],
        plan: &LogicalPlan,
        input: usize,
    ) -> Result<usize> {
        let keys = self.key_times(partition, plan, input)?;
        let place = |at: usize| match &partition[at] {
            Expr::Column(column) => plan.schema().maybe_index_of_column(column).into_iter().collect(),
            _ => Vec::new(),
        };
        let place = self.push_closing(operator, vec![input], &keys, place);
        self.look_below(place, partition, plan, &keys)?;
        Ok(place)
    }

    /// Looks for a join below an operator whose windows close.
    fn look_below(&mut self, place: usize, key: &[Expr], plan: &LogicalPlan, keys: &KeyTimes) -> Result<()> {
        let closes = matches!(&self.nodes[place], Node::Operator { operator, .. } if operator.abilities().windows.is_some());
        match self.window_of(keys).filter(|_| closes) {
            Some(window) => self.closes_above(place, (&key[window.column], plan), &window),
            None => Ok(()),
        }
    }

    /// Adds an operator with these event times of its key: one whose windows close, if some columns are
    /// windows. `shown` returns the places in the output of a column of the key. If windows are emitted when
    /// they close, any monotonic function of event time makes windows.
    pub(super) fn push_closing(
        &mut self,
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
            let schemas = inputs.iter().map(|input| self.nodes[*input].properties().schema.clone());
            operator = match emit_on_close::around(operator, schemas.collect(), window.clone(), on_close) {
                Ok(operator) => operator,
                Err(operator) => return self.push_boxed(operator, inputs),
            };
        }
        let place = self.push_boxed(operator, inputs);
        self.set_times_closed(place, keys, window.as_ref(), shown);
        place
    }

    /// Sets the event times of a node's output columns that hold the key of its windows.
    pub(super) fn set_times_closed(
        &mut self,
        place: usize,
        keys: &KeyTimes,
        window: Option<&Window>,
        shown: impl Fn(usize) -> Vec<usize>,
    ) {
        let mut times: Times = vec![None; self.nodes[place].properties().schema.fields().len()];
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
        self.set_times(place, times);
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
    pub(super) fn check_closes(&self, root: usize) -> Result<()> {
        if !self.limits.on_close {
            return Ok(());
        }
        let closes = |node: &Node| matches!(node, Node::Operator { operator, .. } if operator.abilities().windows.is_some());
        if let Some((set, column)) = &self.without_window
            && !(self.nodes.iter().any(closes) && self.append_only(root))
        {
            return Err(Error::Limit(format!(
                "EMIT ON WINDOW CLOSE emits each window when it closes, but the grouping set ({set}) has no \
                 window, so its groups never close: {column} must be in every set, as in GROUP BY {column}, \
                 ROLLUP (…)"
            )));
        }
        if !self.nodes.iter().any(closes) {
            if let Some(unclosed) = self.unclosed.as_ref().filter(|_| !self.times.is_empty()) {
                return Err(Error::Limit(format!("EMIT ON WINDOW CLOSE {unclosed}")));
            }
            return Err(Error::Limit(match (self.times.is_empty(), self.clock_lost) {
                (true, _) => "EMIT ON WINDOW CLOSE needs a watermark, but no column that the query reads \
                              has one: declare it on the table or source, as in WATERMARK FOR ts AS ts - \
                              INTERVAL '5 seconds'"
                    .into(),
                (false, true) => "EMIT ON WINDOW CLOSE emits each window when the watermark passes it, but \
                                  a condition on now() adds and removes rows as time passes, however old \
                                  they are, so no watermark holds after it: leave that condition out, since \
                                  windows drop their rows by themselves"
                    .into(),
                (false, false) => "EMIT ON WINDOW CLOSE needs windows, but the query has no GROUP BY, PARTITION BY or join by one of \
                                   a column with a watermark: GROUP BY window_start, window_end over TUMBLE, HOP, CUMULATE or SESSION of it"
                    .into(),
            }));
        }
        if !self.append_only(root) {
            let name = match &self.nodes[root] {
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
