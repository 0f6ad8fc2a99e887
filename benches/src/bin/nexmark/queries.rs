//! Nexmark's queries, read from sql-tests/nexmark/.

use std::path::Path;

use millstream_benches::Result;

use crate::events::TABLES;

/// The folder of the queries.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql-tests/nexmark");

/// Number of queries.
const COUNT: usize = 23;

/// Queries that also exist with windows of event time or by arrival time, and the names of those forms.
const FORMS: [(usize, &str); 7] = [
    (5, "q5_hop"),
    (7, "q7_tumble"),
    (8, "q8_tumble"),
    (11, "q11_session"),
    (12, "q12_tumble"),
    (12, "q12_proctime"),
    (13, "q13_proctime"),
];

/// Suffix of the names of queries by arrival time, which have files of their own.
const PROCTIME: &str = "_proctime";

/// A query.
pub struct Query {
    /// q0 to q22, or the name of a form.
    pub name: String,
    /// Its SELECT.
    pub sql: String,
    /// An equivalent query that DataFusion supports.
    pub plain: String,
    /// The aggregate in which both answers must agree.
    pub counted: &'static str,
}

impl Query {
    /// Returns the tables that the query reads.
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

    /// Returns true if the query reads the side input.
    pub fn reads_side_input(&self) -> bool {
        self.plain.contains("side_input")
    }
}

/// Returns the queries whose names are in `wished`, separated by commas; all of them for 'all'.
pub fn read(wished: &str) -> Result<Vec<Query>> {
    let wished: Vec<&str> = wished.split(',').map(str::trim).collect();
    let mut queries = Vec::new();
    for number in 0..COUNT {
        let own = format!("q{number}");
        let forms = FORMS.iter().filter(|(of, _)| *of == number).map(|(_, name)| name.to_string());
        let names = std::iter::once(own.clone()).chain(forms);
        let names: Vec<String> =
            names.filter(|name| wished == ["all"] || wished.contains(&name.as_str())).collect();
        if names.is_empty() {
            continue;
        }
        let plain = select(number, &own)?;
        for name in names {
            // The window of a row depends on its arrival; the total number of rows doesn't.
            let counted = if name == "q12_proctime" { "sum(bids)" } else { "count(*)" };
            queries.push(Query { sql: select(number, &name)?, plain: plain.clone(), name, counted });
        }
    }
    if queries.is_empty() {
        let forms: Vec<&str> = FORMS.iter().map(|(_, name)| *name).collect();
        return Err(format!("--queries names none of q0 to q22, nor of {}", forms.join(", ")).into());
    }
    Ok(queries)
}

/// Returns the SELECT of the query with this name, without the clause that delays results until windows
/// close, so that the last windows count as well.
fn select(number: usize, name: &str) -> Result<String> {
    let (file, created) = match name.strip_suffix(PROCTIME) {
        Some(plain) => (format!("q{number:02}{PROCTIME}.slt"), format!("CREATE STREAM {plain} AS")),
        None => (format!("q{number:02}.slt"), format!("CREATE MATERIALIZED VIEW {name} AS")),
    };
    let path = Path::new(FOLDER).join(file);
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let sql = text.split_once(&created).and_then(|(_, rest)| Some(rest.split_once("\n\n")?.0));
    let sql = sql.ok_or_else(|| format!("{} doesn't say '{created}'", path.display()))?;
    Ok(sql.replace("EMIT ON WINDOW CLOSE", "").trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_queries_are_there_and_read_tables() {
        let queries = read("all").unwrap();
        assert_eq!(queries.len(), COUNT + FORMS.len());
        assert!(queries.iter().all(|query| !query.tables().is_empty()));
        let named = |name: &str| queries.iter().find(|query| query.name == name).unwrap();
        assert_eq!(named("q3").tables(), ["person", "auction"]);
        assert_eq!(named("q4").tables(), ["auction", "bid"]);
        assert_eq!(named("q8_tumble").tables(), ["person", "auction"]);
        assert!(named("q5_hop").sql.contains("HOP(") && !named("q5_hop").plain.contains("HOP("));
        assert!(named("q13").reads_side_input() && named("q13_proctime").reads_side_input());
        assert!(named("q12_proctime").sql.contains("_batch_start"));
    }
}
