//! Nexmark's queries, as sql-tests/nexmark/ has them.

use std::path::Path;

use millstream_benches::Result;

use crate::events::TABLES;

/// Where they are.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sql-tests/nexmark");

/// How many there are.
const COUNT: usize = 23;

/// One of them.
pub struct Query {
    /// q0 to q22.
    pub name: String,
    /// Its SELECT.
    pub sql: String,
}

impl Query {
    /// Which of the tables it reads.
    pub fn tables(&self) -> Vec<&'static str> {
        let reads = |table: &&&str| {
            let mut words = self.sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
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
        self.sql.contains("side_input")
    }
}

/// The queries whose names are among `wished`, separated by commas; all of them where that is 'all'.
pub fn read(wished: &str) -> Result<Vec<Query>> {
    let wished: Vec<&str> = wished.split(',').map(str::trim).collect();
    let mut queries = Vec::new();
    for number in 0..COUNT {
        let name = format!("q{number}");
        if wished == ["all"] || wished.contains(&name.as_str()) {
            let path = Path::new(FOLDER).join(format!("q{number:02}.slt"));
            let text =
                std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let sql = select(&text, &name)
                .ok_or_else(|| format!("{} doesn't create the view {name}", path.display()))?;
            queries.push(Query { name, sql });
        }
    }
    if queries.is_empty() {
        return Err("--queries names none of q0 to q22".into());
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
        assert_eq!(queries.len(), COUNT);
        assert!(queries.iter().all(|query| !query.tables().is_empty()));
        assert_eq!(queries[3].tables(), ["person", "auction"]);
        assert_eq!(queries[4].tables(), ["auction", "bid"]);
        assert!(queries[13].reads_side_input());
    }
}
