//! Nexmark's queries, as sql-tests/nexmark/ has them.

use std::path::Path;

use millstream_benches::Result;

use crate::events::TABLES;

/// Where they are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sql-tests/nexmark");

/// How many there are.
const COUNT: usize = 23;

/// Those that are there with windows of event time as well, and their names then.
const WINDOWED: [(usize, &str); 5] =
    [(5, "q5_hop"), (7, "q7_tumble"), (8, "q8_tumble"), (11, "q11_session"), (12, "q12_tumble")];

/// One of them.
pub struct Query {
    /// q0 to q22, or that of a form with windows.
    pub name: String,
    /// Its SELECT.
    pub sql: String,
    /// One that has the same answer and that DataFusion knows.
    pub plain: String,
}

impl Query {
    /// Which of the tables it reads.
    pub fn tables(&self) -> Vec<&'static str> {
        let reads = |table: &&&str| {
            let mut words = self.plain.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let mut before = "";
            words.any(|word| {
                let is_relation = matches!(before, "FROM" | "JOIN") && word == **table;
                if !word.is_empty() {
                    before = word;
                }
                is_relation
            })
        };
        TABLES.iter().filter(reads).copied().collect()
    }

    /// Whether it reads the table of what is said about keys.
    pub fn reads_side_input(&self) -> bool {
        self.plain.contains("side_input")
    }
}

/// The queries whose names are among `wished`, separated by commas; all of them where that is 'all'.
pub fn read(wished: &str) -> Result<Vec<Query>> {
    let wished: Vec<&str> = wished.split(',').map(str::trim).collect();
    let mut queries = Vec::new();
    for number in 0..COUNT {
        let own = format!("q{number}");
        let windowed = WINDOWED.iter().filter(|(of, _)| *of == number).map(|(_, name)| name.to_string());
        let names = std::iter::once(own.clone()).chain(windowed);
        let names: Vec<String> =
            names.filter(|name| wished == ["all"] || wished.contains(&name.as_str())).collect();
        if names.is_empty() {
            continue;
        }
        let path = Path::new(FOLDER).join(format!("q{number:02}.slt"));
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let of = |name: &str| {
            select(&text, name).ok_or_else(|| format!("{} doesn't create the view {name}", path.display()))
        };
        for name in names {
            queries.push(Query { sql: of(&name)?, plain: of(&own)?, name });
        }
    }
    if queries.is_empty() {
        return Err("--queries names none of q0 to q22, nor of q5_hop, q7_tumble, q8_tumble, q11_session and q12_tumble".into());
    }
    Ok(queries)
}

/// What the view `name` is made of.
fn select(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("CREATE MATERIALIZED VIEW {name} AS"))?;
    let (sql, _) = rest.split_once("\n\n")?;
    Some(sql.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_queries_are_there_and_read_tables() {
        let queries = read("all").unwrap();
        assert_eq!(queries.len(), COUNT + WINDOWED.len());
        assert!(queries.iter().all(|query| !query.tables().is_empty()));
        let named = |name: &str| queries.iter().find(|query| query.name == name).unwrap();
        assert_eq!(named("q3").tables(), ["person", "auction"]);
        assert_eq!(named("q4").tables(), ["auction", "bid"]);
        assert_eq!(named("q8_tumble").tables(), ["person", "auction"]);
        assert!(named("q5_hop").sql.contains("HOP(") && !named("q5_hop").plain.contains("HOP("));
        assert!(named("q13").reads_side_input());
    }
}
