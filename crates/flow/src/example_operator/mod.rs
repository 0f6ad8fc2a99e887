//! The operator that CONTRIBUTING.md adds.

mod row_count;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use millstream_delta::Delta;
use millstream_state::Rows;
use row_count::RowCount;

use crate::fixture::{Fixture, Random, cut};
use crate::operator::{Operator, State};

#[test]
fn contributing_shows_the_example() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../CONTRIBUTING.md");
    let contributing = std::fs::read_to_string(path).unwrap();
    let example = format!("```rust\n{}```", include_str!("row_count.rs"));
    assert!(contributing.contains(&example), "CONTRIBUTING.md lacks the text of row_count.rs");
}

#[test]
fn the_example_equals_the_batch_answer() {
    let (mut random, mut fixture, mut operator) = (Random(7), Fixture::new(), RowCount::new());
    let mut answer = Rows::new(operator.properties().schema.clone());
    for epoch in 1..40 {
        // The first step of a query may have no rows.
        let change = if epoch == 1 { Delta::default() } else { fixture.change(&mut random)[0].clone() };
        let output = operator.step(&cut(epoch), &[&change]).unwrap();
        answer.apply(&output.rows).unwrap();
        let rows = answer.snapshot().batches().unwrap();
        let counts: Vec<i64> = rows
            .iter()
            .flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect();
        assert_eq!(counts, [fixture.all(0).num_rows() as i64], "epoch {epoch}");
        if random.below(4) == 0 {
            let mut tables = operator.save().unwrap();
            operator = RowCount::new();
            operator.load(&mut tables).unwrap();
        }
    }
}
