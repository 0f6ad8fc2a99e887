//! Draws tables with rows of few distinct values, so that joins match, and groups and ties occur.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::draw::{Column, Readable};
use super::family::{COLUMN_TYPES, ColumnType};

/// A drawn table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its description for queries.
    pub readable: Readable,
    /// The CREATE TABLE statement.
    pub ddl: String,
    /// Its rows, each as text after VALUES.
    pub rows: Vec<String>,
    /// The columns of the primary key.
    pub key: Vec<usize>,
}

/// Maximum number of rows of a table.
const ROWS_MAX: usize = 16;

/// Draws tables; the seed determines all choices.
pub fn tables(seed: u64) -> Vec<Table> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let wild = rng.random_range(0..100) < 15;
    let count = [1, 2, 2, 3, 3, 4][rng.random_range(0..6)];
    (0..count).map(|at| table(&format!("t{at}"), wild, &mut rng)).collect()
}

fn table(name: &str, wild: bool, rng: &mut SmallRng) -> Table {
    let mut types = vec![("k".to_string(), column_type("INT"))];
    for at in 0..rng.random_range(1..6) {
        let picked = match rng.random_range(0..4) {
            0 => column_type(["INT", "BIGINT", "TEXT", "DOUBLE PRECISION"][rng.random_range(0..4)]),
            _ => COLUMN_TYPES[rng.random_range(0..COLUMN_TYPES.len())],
        };
        types.push((format!("v{at}"), picked));
    }
    let keyed = rng.random_range(0..100) < 25;
    let count = if rng.random_range(0..100) < 8 { 0 } else { rng.random_range(1..=ROWS_MAX) };
    let columns: Vec<(Vec<&str>, u32)> = types.iter().map(|(_, picked)| domain(picked, wild, rng)).collect();
    let mut rows = Vec::new();
    for row in 0..count {
        let mut values: Vec<String> = Vec::new();
        for (at, (domain, nulls)) in columns.iter().enumerate() {
            values.push(match () {
                () if at == 0 && keyed => row.to_string(),
                () if rng.random_range(0..100) < *nulls => "NULL".to_string(),
                () => domain[rng.random_range(0..domain.len())].to_string(),
            });
        }
        rows.push(format!("({})", values.join(", ")));
    }
    let declared = |(at, (name, picked)): (usize, &(String, ColumnType))| {
        format!("{name} {}{}", picked.spelling, if at == 0 && keyed { " PRIMARY KEY" } else { "" })
    };
    let declared: Vec<String> = types.iter().enumerate().map(declared).collect();
    let columns =
        types.iter().map(|(name, picked)| Column { name: name.clone(), family: picked.family }).collect();
    Table {
        readable: Readable { name: name.to_string(), columns },
        ddl: format!("CREATE TABLE {name} ({})", declared.join(", ")),
        rows,
        key: if keyed { vec![0] } else { Vec::new() },
    }
}

/// Draws some values of the type, and the percentage of NULLs.
fn domain(picked: &ColumnType, wild: bool, rng: &mut SmallRng) -> (Vec<&'static str>, u32) {
    let mut values: Vec<&str> = picked.tame.to_vec();
    if wild {
        values.extend(picked.wild);
    }
    let kept = rng.random_range(1..=values.len());
    while values.len() > kept {
        values.remove(rng.random_range(0..values.len()));
    }
    (values, [0, 0, 10, 25, 60][rng.random_range(0..5)])
}

fn column_type(spelling: &str) -> ColumnType {
    let found = COLUMN_TYPES.iter().find(|column| column.spelling == spelling);
    found.copied().unwrap_or(COLUMN_TYPES[0])
}
