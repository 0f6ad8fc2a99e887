//! The statements that change a table: many rows at once, as arrays of text, one for each column.

use arrow::array::{Array, StringArray};

use crate::table::Table;

/// The statements of a sink.
#[derive(Clone, Debug)]
pub(crate) struct Statements {
    /// Inserts rows; if there is a key, upserts them.
    pub(crate) put: String,
    /// Deletes rows by key; its parameters are the columns of the key.
    pub(crate) delete: Option<String>,
    /// Deletes rows whose key contains NULL, for which an index search is slower.
    pub(crate) delete_with_nulls: Option<String>,
}

impl Statements {
    /// Creates the statements for these columns of a table; the key is empty if the relation is
    /// append-only.
    pub(crate) fn new(table: &Table, columns: &[&str], key: &[&str]) -> Statements {
        let list = |names: &[&str]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        let values: Vec<String> =
            columns.iter().enumerate().map(|(place, name)| cast(table, name, place)).collect();
        let mut put = format!(
            "INSERT INTO {} ({}) SELECT {} FROM {}",
            table.name,
            list(columns),
            values.join(", "),
            arrays(columns.len())
        );
        if key.is_empty() {
            return Statements { put, delete: None, delete_with_nulls: None };
        }
        let others = columns.iter().filter(|name| !key.contains(name));
        let sets: Vec<String> = others.map(|name| format!("{0} = EXCLUDED.{0}", quoted(name))).collect();
        put += &match sets.is_empty() {
            true => format!(" ON CONFLICT ({}) DO NOTHING", list(key)),
            false => format!(" ON CONFLICT ({}) DO UPDATE SET {}", list(key), sets.join(", ")),
        };
        let delete = |same: &str| {
            let one = |(place, name): (usize, &&str)| {
                format!("t.{} {same} {}", quoted(name), cast(table, name, place))
            };
            let all: Vec<String> = key.iter().enumerate().map(one).collect();
            format!("DELETE FROM {} t USING {} WHERE {}", table.name, arrays(key.len()), all.join(" AND "))
        };
        let (delete, delete_with_nulls) = (Some(delete("=")), Some(delete("IS NOT DISTINCT FROM")));
        Statements { put, delete, delete_with_nulls }
    }
}

/// Quotes a name for SQL, whatever it contains.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns a row source with one array parameter a column.
fn arrays(columns: usize) -> String {
    let parameters: Vec<String> = (1..=columns).map(|place| format!("${place}::text[]")).collect();
    let names: Vec<String> = (0..columns).map(|place| format!("c{place}")).collect();
    format!("unnest({}) AS u ({})", parameters.join(", "), names.join(", "))
}

/// Casts a value to the type of its column. Text isn't cast: assigning a text that is too long fails, but a
/// cast would cut it.
fn cast(table: &Table, name: &str, place: usize) -> String {
    match table.column(name) {
        Some(column) if !matches!(column.type_name.as_str(), "text" | "varchar") => {
            format!("u.c{place}::{}", column.cast)
        }
        _ => format!("u.c{place}"),
    }
}

/// Splits rows into parts of about `bytes_max` bytes at most. Returns the ends of the parts.
pub(crate) fn parts(columns: &[StringArray], bytes_max: usize) -> Vec<usize> {
    let rows = columns.first().map_or(0, |column| column.len());
    let (mut ends, mut bytes) = (Vec::new(), 0);
    for row in 0..rows {
        bytes += columns.iter().map(|column| column.value_length(row) as usize + 4).sum::<usize>();
        if bytes >= bytes_max {
            ends.push(row + 1);
            bytes = 0;
        }
    }
    if ends.last() != Some(&rows) && rows > 0 {
        ends.push(rows);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::TableColumn;

    fn table() -> Table {
        let column = |name: &str, type_name: &str, cast: &str| TableColumn {
            name: name.into(),
            shown: cast.into(),
            cast: cast.into(),
            type_name: type_name.into(),
            is_enum: false,
            item: None,
            modifier: -1,
            is_needed: false,
            is_generated: false,
        };
        let columns = vec![column("a", "int8", "bigint"), column("b\"", "varchar", "character varying")];
        Table { name: "s.t".into(), columns, unique: Vec::new() }
    }

    #[test]
    fn rows_that_only_come_are_inserted() {
        let statements = Statements::new(&table(), &["a", "b\""], &[]);
        assert_eq!(
            statements.put,
            "INSERT INTO s.t (\"a\", \"b\"\"\") SELECT u.c0::bigint, u.c1 \
             FROM unnest($1::text[], $2::text[]) AS u (c0, c1)"
        );
        assert_eq!(statements.delete, None);
    }

    #[test]
    fn others_are_put_and_deleted_by_their_key() {
        let statements = Statements::new(&table(), &["a", "b\""], &["a"]);
        assert!(
            statements.put.ends_with(" ON CONFLICT (\"a\") DO UPDATE SET \"b\"\"\" = EXCLUDED.\"b\"\"\"")
        );
        assert_eq!(
            statements.delete.as_deref(),
            Some("DELETE FROM s.t t USING unnest($1::text[]) AS u (c0) WHERE t.\"a\" = u.c0::bigint")
        );
        let with_nulls = statements.delete_with_nulls.unwrap_or_default();
        assert!(with_nulls.ends_with("WHERE t.\"a\" IS NOT DISTINCT FROM u.c0::bigint"), "{with_nulls}");
        let statements = Statements::new(&table(), &["a"], &["a"]);
        assert!(statements.put.ends_with(" ON CONFLICT (\"a\") DO NOTHING"), "{}", statements.put);
    }

    #[test]
    fn a_statement_has_a_bounded_number_of_bytes() {
        let column =
            StringArray::from(vec![Some("aaaa"), None, Some("a"), Some("aaaaaaaaaaaaaaaaaaaa"), Some("")]);
        assert_eq!(parts(std::slice::from_ref(&column), 12), [2, 4, 5]);
        assert_eq!(parts(std::slice::from_ref(&column), usize::MAX), [5]);
        assert_eq!(parts(&[column.slice(0, 0)], 1), [0; 0]);
    }
}
