//! The keys of a join.

use arrow::datatypes::DataType;
use millstream_state::KeyIndex;

use crate::Result;

/// The columns of a join's key, and the slots of the keys that its sides have.
#[derive(Debug)]
pub(super) struct JoinKeys {
    /// The key's expressions as text, with their types; empty: every row has the same key.
    columns: Vec<(String, DataType)>,
    /// `None`: every row has the same key.
    index: Option<KeyIndex>,
    nulls_match: bool,
}

impl JoinKeys {
    /// Returns the empty keys of a join; fails if keys of these types can't be indexed.
    pub(super) fn new(columns: Vec<(String, DataType)>, nulls_match: bool) -> Result<JoinKeys> {
        let mut keys = JoinKeys { columns, index: None, nulls_match };
        keys.reset()?;
        Ok(keys)
    }

    /// Forgets all keys.
    pub(super) fn reset(&mut self) -> Result<()> {
        self.index = match self.columns.is_empty() {
            true => None,
            false => Some(KeyIndex::new(self.types())?.tracked()),
        };
        Ok(())
    }

    /// Returns true if no equality tells which rows may match.
    pub(super) fn are_one(&self) -> bool {
        self.columns.is_empty()
    }

    /// Returns true if NULL equals NULL.
    pub(super) fn nulls_match(&self) -> bool {
        self.nulls_match
    }

    pub(super) fn index(&self) -> Option<&KeyIndex> {
        self.index.as_ref()
    }

    pub(super) fn index_mut(&mut self) -> Option<&mut KeyIndex> {
        self.index.as_mut()
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub(super) fn types(&self) -> Vec<DataType> {
        self.columns.iter().map(|(_, data_type)| data_type.clone()).collect()
    }

    /// Returns the slots of all keys.
    pub(super) fn live(&self) -> Vec<u32> {
        self.index.as_ref().map_or_else(|| vec![0], KeyIndex::live)
    }

    /// Frees those of some slots that are empty.
    pub(super) fn free_empty(&mut self, slots: &[u32], is_empty: impl Fn(u32) -> bool) {
        if let Some(index) = &mut self.index {
            slots.iter().filter(|slot| is_empty(**slot)).for_each(|slot| index.free(*slot));
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.index.as_ref().map_or(0, KeyIndex::memory_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn empty_keys_are_freed_and_rows_without_a_key_share_one() {
        let mut keys = JoinKeys::new(vec![("a".into(), DataType::Int64)], false).unwrap();
        let column: ArrayRef = Arc::new(Int64Array::from(vec![7, 8, 7]));
        let mut slots = Vec::new();
        keys.index_mut().unwrap().slots(&[column], &mut slots).unwrap();
        assert_eq!((slots[0] == slots[2], keys.live().len(), keys.names()), (true, 2, vec!["a"]));
        keys.free_empty(&[slots[0], slots[1]], |slot| slot == slots[1]);
        assert_eq!(keys.live(), [slots[0]]);
        keys.reset().unwrap();
        assert!(keys.live().is_empty() && !keys.are_one());
        let one = JoinKeys::new(Vec::new(), false).unwrap();
        assert_eq!((one.are_one(), one.index().is_none(), one.live()), (true, true, vec![0]));
    }
}
