//! Comments on objects and on their columns.

use std::sync::Arc;

use super::{Catalog, Object};

/// The subject of a comment: an object, and a column of it if the comment is on that.
pub(super) type Subject = (Arc<str>, Option<String>);

impl Catalog {
    /// Returns the comment on an object, or on one of its columns.
    pub(crate) fn comment(&self, name: &str, column: Option<&str>) -> Option<&str> {
        self.comments.get(&(name.into(), column.map(str::to_string))).map(String::as_str)
    }

    /// Sets or removes the comment on an object, or on one of its columns.
    pub(crate) fn set_comment(&mut self, name: &Arc<str>, column: Option<&str>, text: Option<&str>) {
        self.version += 1;
        let subject = (name.clone(), column.map(str::to_string));
        match text {
            Some(text) => drop(self.comments.insert(subject, text.to_string())),
            None => drop(self.comments.remove(&subject)),
        }
    }

    /// Removes the comments on an object and on its columns.
    pub(super) fn forget_comments(&mut self, name: &str) {
        self.comments.retain(|(of, _), _| of.as_ref() != name);
    }

    /// Gives an object's comments its new name.
    pub(super) fn move_comments(&mut self, from: &str, to: &Arc<str>) {
        self.rename_subjects(|(name, column)| match name.as_ref() == from {
            true => (to.clone(), column),
            false => (name, column),
        });
    }

    /// Removes the comments on columns that an object doesn't have any more.
    pub(super) fn forget_column_comments(&mut self, after: &Object) {
        let Some(schema) = after.definition.schema() else { return };
        let has = |column: &String| schema.index_of(column).is_ok();
        self.comments.retain(|(of, column), _| *of != after.name || column.as_ref().is_none_or(has));
    }

    /// Gives the comments on columns that an altered table has under another name these names.
    pub(crate) fn move_column_comments(&mut self, after: &Object) {
        let Some(before) = self.find(&after.name).cloned() else { return };
        let (Some(before), Some(schema)) = (before.definition.schema(), after.definition.schema()) else {
            return;
        };
        let name = after.name.clone();
        self.rename_subjects(|(of, column)| {
            let place =
                column.as_ref().filter(|_| of == name).and_then(|column| before.index_of(column).ok());
            let now = place.and_then(|place| schema.fields().get(place));
            (of, now.map(|field| field.name().clone()).or(column))
        });
    }

    fn rename_subjects(&mut self, rename: impl Fn(Subject) -> Subject) {
        let comments = std::mem::take(&mut self.comments);
        self.comments = comments.into_iter().map(|(subject, text)| (rename(subject), text)).collect();
    }
}
