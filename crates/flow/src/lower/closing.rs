//! Which windows close, and when.

use datafusion::logical_expr::Aggregate;

use super::Lowering;
use crate::event_time::{EventTime, Times};
use crate::flow::Node;
use crate::operator::Operator;
use crate::operators::closing::Closing;
use crate::{Error, Result};

impl Lowering<'_> {
    /// How far event time has come in the columns of a node.
    pub(super) fn times_of(&self, node: usize) -> Times {
        let none = || vec![None; self.nodes[node].properties().schema.fields().len()];
        self.times.get(&node).cloned().unwrap_or_else(none)
    }

    pub(super) fn set_times(&mut self, node: usize, times: Times) {
        if times.iter().any(Option::is_some) {
            self.times.insert(node, times);
        }
    }

    /// An aggregate over the rows of a node; if some of its groups are windows of event time, one whose windows close.
    /// Where windows are put out when they close, any function of event time that never decreases makes windows.
    pub(super) fn closing(
        &mut self,
        mut operator: Box<dyn Operator>,
        node: &Aggregate,
        input: usize,
    ) -> Result<usize> {
        let below = self.times_of(input);
        let mut times: Times = vec![None; operator.properties().schema.fields().len()];
        for (at, group) in node.group_expr.iter().enumerate().take(times.len()) {
            times[at] = EventTime::of(group, &node.input, &below, self.driver)?;
        }
        let on_close = self.limits.on_close;
        let closes = times
            .iter()
            .enumerate()
            .filter_map(|(at, time)| Some((time.as_ref()?, at)))
            .filter(|(time, _)| on_close || time.edge.is_some())
            .max_by_key(|(time, at)| (time.edge, std::cmp::Reverse(*at)));
        if let Some((time, at)) = closes {
            operator = match Closing::around(operator, at, time.clone(), on_close) {
                Ok(closing) => closing,
                Err(operator) => {
                    times = Times::new();
                    operator
                }
            };
        }
        let place = self.push_boxed(operator, vec![input]);
        self.set_times(place, times);
        Ok(place)
    }

    /// Fails where windows are to be put out when they close, and there are none, or what has been put out changes.
    pub(super) fn check_closes(&self, root: usize) -> Result<()> {
        if !self.limits.on_close {
            return Ok(());
        }
        let closes =
            |node: &Node| matches!(node, Node::Operator { operator, .. } if operator.late().is_some());
        if !self.nodes.iter().any(closes) {
            return Err(Error::Limit(match self.times.is_empty() {
                true => "EMIT ON WINDOW CLOSE needs a watermark, but no column that the query reads has one: declare it \
                         where the rows come from, as in WATERMARK FOR ts AS ts - INTERVAL '5 seconds'"
                    .into(),
                false => "EMIT ON WINDOW CLOSE needs windows, but the query has no GROUP BY by one of a column with a \
                          watermark: GROUP BY window_start, window_end over TUMBLE, HOP or CUMULATE of it"
                    .into(),
            }));
        }
        if !self.append_only(root) {
            let name = match &self.nodes[root] {
                Node::Operator { operator, .. } => operator.describe().name,
                Node::Input { .. } => "its input",
            };
            return Err(Error::Limit(format!(
                "EMIT ON WINDOW CLOSE puts out each window once, but {name} above the windows changes what it has put out: \
                 leave EMIT ON WINDOW CLOSE out there, or read a stream of the windows"
            )));
        }
        Ok(())
    }
}
