//! The rows of `millstream.errors`.

use super::query::Status;
use super::query::errors::ErrorsSnapshot;
use super::query_names::SharedParts;
use super::query_names::queries_by_name;
use super::system::{Lines, NULL, batch};
use crate::content::Computed;
use crate::run::read_view::ReadView;
use crate::system::SystemTableDoc;

/// The errors of all queries at one point in time.
#[derive(Default)]
pub(super) struct AllErrors(Vec<Part>);

/// A part of the errors of a query.
enum Part {
    Lines(Lines),
    /// The name of the query, and the errors of rows.
    Rows(String, ErrorsSnapshot),
}

impl AllErrors {
    /// Returns the errors as rows that the reader computes.
    pub(super) fn computed(self, table: &'static SystemTableDoc) -> Computed {
        let count = |part: &Part| match part {
            Part::Lines(lines) => lines.len(),
            Part::Rows(_, errors) => errors.count(),
        };
        let rows = self.0.iter().map(count).sum();
        Computed { rows, compute: Box::new(move || Ok(vec![batch(table, self.lines())?])) }
    }

    pub(super) fn lines(self) -> Lines {
        let mut all = Lines::new();
        for part in self.0 {
            let (name, errors) = match part {
                Part::Lines(mut lines) => {
                    all.append(&mut lines);
                    continue;
                }
                Part::Rows(name, errors) => (name, errors),
            };
            let count = errors.count();
            let errors = match errors.all() {
                Ok(errors) => errors,
                Err(error) => {
                    let message = error.message.into();
                    all.push(vec![name.as_str().into(), NULL, message, NULL, count.into(), NULL]);
                    continue;
                }
            };
            for error in errors {
                let row = if error.row.is_empty() { NULL } else { error.row.into() };
                all.push(vec![
                    name.as_str().into(),
                    error.operator.into(),
                    error.message.into(),
                    row,
                    error.count.into(),
                    NULL,
                ]);
            }
        }
        all
    }
}

impl ReadView<'_> {
    /// Returns the present errors of all queries.
    pub(super) fn errors(&self) -> AllErrors {
        let mut all = AllErrors::default();
        for (name, query) in queries_by_name(self.queries) {
            for part in SharedParts::of(self.queries)
                .parts_of(query)
                .into_iter()
                .filter(|part| !part.status.is_suspended())
            {
                all.0.push(Part::Rows(name.to_string(), part.result.errors.snapshot()));
            }
            if query.role.is_part() {
                continue;
            }
            if let Status::Suspended { reason, .. } = &query.status {
                let backtrace = query.panics.backtrace().map_or(NULL, Into::into);
                let message = reason.message.as_str().into();
                all.0.push(Part::Lines(vec![vec![name.into(), NULL, message, NULL, 1i64.into(), backtrace]]));
                continue;
            }
            all.0.push(Part::Lines(query.panics.lines(name)));
            all.0.push(Part::Rows(name.to_string(), query.result.errors.snapshot()));
        }
        all
    }
}
