//! The constant parts of PostgreSQL's catalog: access methods, languages, collations.

use super::facts::OWNER;
use super::rows::Rows;

/// Fills a table. Returns false if this module has no rows for it.
pub(super) fn fill(table: &str, rows: &mut Rows) -> bool {
    match table {
        "pg_am" => {
            for (oid, name, kind) in [(2, "heap", 't'), (403, "btree", 'i')] {
                rows.push(&[("oid", oid.into()), ("amname", name.into()), ("amtype", kind.into())]);
            }
        }
        "pg_language" => {
            for (oid, name, trusted) in [(12, "internal", false), (14, "sql", true)] {
                rows.push(&[
                    ("oid", oid.into()),
                    ("lanname", name.into()),
                    ("lanowner", OWNER.into()),
                    ("lanpltrusted", trusted.into()),
                ]);
            }
        }
        "pg_collation" => {
            for (oid, name, provider) in [(100, "default", 'd'), (950, "C", 'c'), (951, "POSIX", 'c')] {
                rows.push(&[
                    ("oid", oid.into()),
                    ("collname", name.into()),
                    ("collnamespace", 11.into()),
                    ("collowner", OWNER.into()),
                    ("collprovider", provider.into()),
                    ("collisdeterministic", true.into()),
                    ("collencoding", (-1).into()),
                    ("collcollate", "C".into()),
                    ("collctype", "C".into()),
                ]);
            }
        }
        _ => return false,
    }
    true
}
