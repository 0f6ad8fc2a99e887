//! The system tables of objects: partitions of sources, tables, views, streams and sinks, with their status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_delta::Timestamp;

use super::outputs::Outputs;
use super::sources::Sources;
use super::system::{Cell, Lines, NULL};
use super::watermarks::Watermarks;
use crate::catalog::{Definition, Object};
use crate::event::ObjectStatus;
use crate::run::read_view::ReadView;

/// All objects with their present status, ordered by name.
pub(super) struct Listed(pub(super) Vec<(Arc<Object>, ObjectStatus)>);

impl ReadView<'_> {
    /// Returns all objects with their status, ordered by name.
    pub(super) fn statuses(&self) -> Listed {
        let status = |object: &Arc<Object>| (object.clone(), self.status_of(&object.name));
        Listed(self.setup.catalog.objects().map(status).collect())
    }
}

impl Listed {
    /// Returns the rows of `millstream.tables`.
    pub(super) fn table_lines(&self) -> Lines {
        let line = |object: &Arc<Object>, status: &ObjectStatus| {
            let (schema, key, intake) = match &object.definition {
                Definition::Table { schema, key, intake, .. } => (schema, key, intake),
                Definition::Source { schema, spec, table: Some(intake), .. } => (schema, &spec.key, intake),
                _ => return None,
            };
            let key: Vec<&str> = key.iter().map(|column| schema.field(*column).name().as_str()).collect();
            let key = if key.is_empty() { NULL } else { key.join(", ").into() };
            let append_only = intake.append_only.to_string();
            Some(vec![object.name.as_ref().into(), number(status.rows), key, append_only.into()])
        };
        self.lines_of(line)
    }

    /// Returns the rows of `millstream.materialized_views`.
    pub(super) fn view_lines(&self) -> Lines {
        self.query_lines(|definition| matches!(definition, Definition::MaterializedView { .. }))
    }

    /// Returns the rows of `millstream.streams`.
    pub(super) fn stream_lines(&self) -> Lines {
        self.query_lines(|definition| matches!(definition, Definition::Stream { .. }))
    }

    /// Returns the rows of `millstream.dependencies`.
    pub(super) fn dependency_lines(&self) -> Lines {
        let mut feeds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (object, _) in &self.0 {
            if let Definition::SinkInto { table, .. } = &object.definition {
                feeds.entry(table).or_default().push(&object.name);
            }
        }
        let relations = self.0.iter().filter(|(object, _)| object.definition.is_relation());
        let names: BTreeSet<&str> = relations.map(|(object, _)| object.name.as_ref()).collect();
        let mut lines = Lines::new();
        for (object, _) in &self.0 {
            let into = match &object.definition {
                Definition::Function(_)
                | Definition::Aggregate(_)
                | Definition::Schema
                | Definition::Type(_)
                | Definition::Sequence(_)
                | Definition::Subscription { .. } => {
                    continue;
                }
                Definition::SinkInto { table, .. } => Some(table),
                _ => None,
            };
            // A sink lists its table among the relations that must not be dropped before it.
            let reads = object.reads.iter().filter(|read| Some(*read) != into);
            let reads = reads.map(AsRef::as_ref).filter(|read| names.contains(read));
            let mut inputs: Vec<&str> =
                reads.chain(feeds.remove(object.name.as_ref()).unwrap_or_default()).collect();
            inputs.sort_unstable();
            let (name, kind) = (object.name.as_ref(), object.definition.base_kind());
            if inputs.is_empty() {
                lines.push(vec![name.into(), kind.into(), NULL]);
            }
            lines.extend(inputs.into_iter().map(|input| vec![name.into(), kind.into(), input.into()]));
        }
        lines
    }

    fn query_lines(&self, is_wanted: impl Fn(&Definition) -> bool) -> Lines {
        let line = |object: &Arc<Object>, status: &ObjectStatus| {
            if !is_wanted(&object.definition) {
                return None;
            }
            Some(vec![
                object.name.as_ref().into(),
                status.status.into(),
                text(status.reason.clone()),
                number(status.rows),
                number(status.epoch),
                number(status.state_bytes),
                number(status.errors),
                status.on_error.map_or(NULL, Cell::from),
            ])
        };
        self.lines_of(line)
    }

    /// Returns a line for each object that has one, in their order.
    fn lines_of(&self, line: impl Fn(&Arc<Object>, &ObjectStatus) -> Option<Vec<Cell>>) -> Lines {
        self.0.iter().filter_map(|(object, status)| line(object, status)).collect()
    }
}

impl Sources {
    /// Returns the progress of each split of each source.
    pub(super) fn partition_lines(&self, watermarks: &Watermarks) -> Lines {
        let mut lines = Lines::new();
        for (name, source) in self.iter() {
            let mut splits = source.position.taken().splits.clone();
            for split in source.side_by_side().into_iter().flatten().filter(|_| source.used) {
                splits.entry(split.clone()).or_default();
            }
            for (split, progress) in &splits {
                let marked = watermarks.marked(name, split);
                let reach = source.health.reach(split);
                let end = if progress.done { Some(progress.through) } else { reach.end };
                // Rows may have arrived since the source looked.
                let end = end.map(|end| end.max(progress.through));
                lines.push(vec![
                    name.as_ref().into(),
                    split.as_ref().into(),
                    progress.through.into(),
                    number(end),
                    number(end.map(|end| end - progress.through)),
                    reach.last_record.map_or(NULL, |time| Cell::from(Timestamp(time))),
                    progress.done.to_string().into(),
                    marked.and_then(|(watermark, _)| watermark).map_or(NULL, Cell::from),
                    marked.map_or(NULL, |(_, idle)| idle.to_string().into()),
                ]);
            }
        }
        lines
    }
}

impl Watermarks {
    /// Returns the watermark of a split, if it has one by now, and true if the split is idle. None if
    /// the source has no watermark, or the split has ended.
    fn marked(&self, source: &str, split: &str) -> Option<(Option<Timestamp>, bool)> {
        let watched = self.get(source)?;
        let partition = watched.partition(split)?;
        let at = partition.newest.and_then(|newest| watched.column.watermark(newest));
        Some((at.and_then(|at| watched.column.instant(at)), partition.idle))
    }
}

fn text(text: Option<String>) -> Cell {
    text.map_or(NULL, Cell::from)
}

fn number(number: Option<u64>) -> Cell {
    number.map_or(NULL, Cell::from)
}

impl Outputs {
    /// Returns the rows of `millstream.sinks`.
    pub(super) fn sink_lines(&self, listed: &Listed) -> Lines {
        let line = |object: &Arc<Object>, status: &ObjectStatus| {
            let (into, waiting, once) = match &object.definition {
                Definition::Sink { connector, .. } => {
                    let once = self.sinks.get(&object.name).is_some_and(|sink| sink.delivers_once);
                    (connector.name(), self.waiting_for(&object.name), once)
                }
                Definition::SinkInto { table, .. } => (table.as_ref(), None, true),
                _ => return None,
            };
            Some(vec![
                object.name.as_ref().into(),
                into.into(),
                status.status.into(),
                text(status.reason.clone()),
                number(status.rows),
                number(status.epoch),
                number(waiting.map(|waiting| waiting.epochs as u64)),
                number(waiting.map(|waiting| waiting.bytes as u64)),
                if once { "exactly_once" } else { "at_least_once" }.into(),
            ])
        };
        listed.lines_of(line)
    }
}
