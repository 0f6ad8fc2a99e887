//! Random changes of tables with indexes, against a plain list of their rows.

use std::collections::BTreeMap;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use millstream_seeds::Random;
use millstream_sql::IndexKind;
use millstream_state::Conflict;

use super::super::{Change, Table};
use super::*;
use crate::catalog::Intake;

/// The columns `k`, `u` and `p`.
type Row = (i64, Option<i64>, i64);

fn schema(nulls_distinct: bool) -> SchemaRef {
    let field = |name: &str, nullable| Field::new(name, DataType::Int64, nullable);
    let mut fields = vec![field("k", false), field("u", true), field("p", false)];
    let index = |name: &str, column, kind| TableIndex {
        name: name.into(),
        columns: vec![column],
        kind,
        nulls_distinct,
    };
    index(".u_key", 1, IndexKind::Constraint).add_to(&mut fields);
    index("by_p", 2, IndexKind::Plain).add_to(&mut fields);
    Arc::new(Schema::new(fields))
}

fn batch(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    let columns: [ArrayRef; 3] = [
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.1))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
    ];
    RecordBatch::try_new(schema.clone(), columns.into()).unwrap()
}

fn read(batches: &[RecordBatch]) -> Vec<Row> {
    let mut rows = Vec::new();
    for batch in batches {
        let column = |place: usize| batch.column(place).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let unique = column(1).is_valid(row).then(|| column(1).value(row));
            rows.push((column(0).value(row), unique, column(2).value(row)));
        }
    }
    rows.sort_unstable();
    rows
}

/// A table and the rows that it must have.
struct Model {
    table: Table,
    rows: Vec<Row>,
    schema: SchemaRef,
    keyed: bool,
    nulls_distinct: bool,
}

impl Model {
    fn new(keyed: bool, nulls_distinct: bool) -> Model {
        let schema = schema(nulls_distinct);
        let key: &[usize] = if keyed { &[0] } else { &[] };
        let table = Table::new("t", &schema, key, Intake::default()).unwrap();
        Model { table, rows: Vec::new(), schema, keyed, nulls_distinct }
    }

    fn violates(&self, rows: &[Row]) -> bool {
        let mut counts: BTreeMap<Option<i64>, usize> = BTreeMap::new();
        rows.iter().for_each(|row| *counts.entry(row.1).or_default() += 1);
        counts.iter().any(|(value, count)| *count > 1 && (value.is_some() || !self.nulls_distinct))
    }

    /// Makes a change, which must fail exactly if the expected rows violate the constraint.
    fn change(&mut self, change: Change, expected: Vec<Row>) {
        let violates = self.violates(&expected);
        let done = self.table.change(change);
        match done {
            Ok(_) => assert!(!violates, "{expected:?}"),
            Err(error) => {
                assert!(violates, "{expected:?}: {error}");
                assert_eq!(error.code, Some(sqlstate::UNIQUE_VIOLATION));
                assert!(error.message.contains("\"t_u_key\": there is a row with (u) = ("), "{error}");
            }
        }
        if !violates {
            self.rows = expected;
            self.rows.sort_unstable();
        }
        assert_eq!(read(&self.table.staged().batches().unwrap()), self.rows);
    }

    /// Checks that each value is found by its index, and no other row.
    fn check_finds(&self) {
        for (column, value) in (0..8).flat_map(|value| [(1, value), (2, value)]) {
            let wanted: Wanted = vec![(column, Arc::new(Int64Array::from(vec![value])) as ArrayRef)];
            let found = self.table.staged_wanted(&wanted).unwrap().expect("the index finds rows");
            assert_eq!(found.by, [column]);
            let has = |row: &&Row| if column == 1 { row.1 == Some(value) } else { row.2 == value };
            let expected: Vec<Row> = self.rows.iter().filter(has).copied().collect();
            assert_eq!(read(&found.rows), expected, "column {column} = {value}");
        }
    }
}

fn row(random: &mut Random) -> Row {
    let unique = random.below(9);
    (random.below(12) as i64, (unique < 8).then_some(unique as i64), random.below(8) as i64)
}

#[test]
fn indexes_follow_all_changes_and_refuse_equal_values() {
    for seed in 1..60 {
        let mut random = Random(seed * 7919);
        let (keyed, nulls_distinct) = (seed % 2 == 0, seed % 3 > 0);
        let mut model = Model::new(keyed, nulls_distinct);
        for _ in 0..40 {
            let new: Vec<Row> = (0..random.below(4)).map(|_| row(&mut random)).collect();
            let rows = batch(&model.schema, &new);
            match random.below(4) {
                0 | 1 => insert(&mut model, &new, rows),
                2 => {
                    let gone: Vec<Row> =
                        model.rows.iter().filter(|_| random.below(3) == 0).copied().collect();
                    let left = model.rows.iter().filter(|row| !gone.contains(row)).copied().collect();
                    let change = Change::delete(&[batch(&model.schema, &distinct(&model, &gone))]).unwrap();
                    model.change(change, left);
                }
                _ => update(&mut model, &mut random),
            }
            model.check_finds();
        }
    }
}

/// A table without a key deletes each copy.
fn distinct(model: &Model, rows: &[Row]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    if model.keyed {
        rows.dedup();
    }
    rows
}

fn insert(model: &mut Model, new: &[Row], rows: RecordBatch) {
    let mut expected = model.rows.clone();
    for row in new {
        if model.keyed {
            expected.retain(|old| old.0 != row.0);
        }
        expected.push(*row);
    }
    model.change(Change::insert(&[rows], None).unwrap(), expected);
}

fn update(model: &mut Model, random: &mut Random) {
    let old: Vec<Row> = model.rows.iter().filter(|_| random.below(2) == 0).copied().collect();
    let new: Vec<Row> = old.iter().map(|old| (old.0, row(random).1, row(random).2)).collect();
    let mut expected = model.rows.clone();
    for row in &old {
        let place = expected.iter().position(|other| other == row).unwrap();
        expected.swap_remove(place);
    }
    expected.extend(&new);
    let (old, new) = (batch(&model.schema, &old), batch(&model.schema, &new));
    model.change(Change::update(&[old], &[new]).unwrap(), expected);
}

#[test]
fn do_nothing_skips_rows_with_values_that_are_there() {
    let mut model = Model::new(true, true);
    let rows = batch(&model.schema, &[(1, Some(1), 1), (2, None, 1)]);
    model.change(Change::insert(&[rows], None).unwrap(), vec![(1, Some(1), 1), (2, None, 1)]);
    let new =
        [(1, Some(7), 9), (3, Some(1), 9), (4, Some(7), 9), (4, Some(6), 9), (5, Some(7), 9), (6, None, 9)];
    let change = Change::insert(&[batch(&model.schema, &new)], Some(Conflict::Keep)).unwrap();
    let expected = vec![(1, Some(1), 1), (2, None, 1), (4, Some(7), 9), (6, None, 9)];
    model.change(change, expected);
    model.check_finds();
}

#[test]
fn indexes_are_built_again_and_kept_when_the_table_is_altered() {
    for keyed in [true, false] {
        let mut model = Model::new(keyed, true);
        let rows: Vec<Row> = (0..200).map(|n| (n, (n < 8).then_some(n), n % 8)).collect();
        let change = Change::insert(&[batch(&model.schema, &rows)], None).unwrap();
        model.change(change, rows);
        let key: &[usize] = if keyed { &[0] } else { &[] };
        let rows = model.table.staged();
        model.table.indexes.rebuild(&model.schema, key, &rows).unwrap();
        model.check_finds();

        let fields = model.schema.fields().iter().map(|field| field.as_ref().clone());
        let fields: Vec<Field> = fields.chain([Field::new("n", DataType::Int64, true)]).collect();
        let wider: SchemaRef = Arc::new(Schema::new(fields));
        let added = [ScalarValue::Int64(Some(5))];
        let altered = model.table.extended(&wider, &added, Indexes::default(), None, None).unwrap();
        model.table.install_extended(altered);
        model.check_finds();
        let wanted: Wanted = vec![(2, Arc::new(Int64Array::from(vec![3])) as ArrayRef)];
        let found = model.table.staged_wanted(&wanted).unwrap().unwrap();
        assert!(found.rows.iter().all(|rows| rows.num_columns() == 4));
    }
}

#[test]
fn an_index_that_finds_too_many_rows_is_not_used() {
    let mut model = Model::new(true, true);
    let rows: Vec<Row> = (0..5000).map(|n| (n, None, 1)).collect();
    let change = Change::insert(&[batch(&model.schema, &rows)], None).unwrap();
    model.change(change, rows);
    let wanted: Wanted = vec![(2, Arc::new(Int64Array::from(vec![1])) as ArrayRef)];
    assert!(model.table.staged_wanted(&wanted).unwrap().is_none());
}
